//! What the two ends of each link made of their clicks, block by block.

use std::borrow::Cow;
use std::path::Path;

use distill::ledger::{BlockLedger, Line};
use module::store::{BlockState, StoredBlock};
use runner::Failure;
use serde::{Deserialize, Serialize};

use crate::commands::data::{LinkEnd, damaged, link_ends};

#[derive(Serialize, Deserialize)]
pub struct EndLedger {
    pub site: String,
    pub link: String,
    blocks: Vec<Entry>,
    pub total: BlockLedger,
    /// Blocks whose fate is still open; they are not in the total.
    in_doubt: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
}

const STORED: &str = "stored";

#[derive(Serialize, Deserialize)]
struct Entry {
    block: u64,
    session: u64,
    state: Cow<'static, str>,
    ledger: BlockLedger,
}

pub fn ledgers(data: &Path, link: Option<&str>) -> Result<Vec<EndLedger>, Failure> {
    let ends = link_ends(data)?;
    let known: Vec<String> = ends.iter().map(|end| end.link.clone()).collect();
    let chosen: Vec<LinkEnd> = ends.into_iter().filter(|end| link.is_none_or(|link| link == end.link)).collect();
    match link {
        Some(link) if chosen.is_empty() => {
            let failure = Failure::bad_input(format!("there is no key of link {link} in {}", data.display()));
            Err(failure.hint(format!("links with key: {}", known.join(", "))))
        }
        _ => chosen.into_iter().map(end_ledger).collect(),
    }
}

fn end_ledger(end: LinkEnd) -> Result<EndLedger, Failure> {
    let store = end.open()?;
    let mut ledger = EndLedger {
        site: end.site,
        link: end.link,
        blocks: Vec::new(),
        total: BlockLedger::default(),
        in_doubt: 0,
        wrong: Vec::new(),
    };
    for block in store.all() {
        ledger.enter(&block.map_err(damaged)?);
    }
    if let Err(error) = ledger.total.check() {
        ledger.wrong.push(format!("total: {error}"));
    }
    Ok(ledger)
}

impl EndLedger {
    /// Number and key bits of every block that counts, in order.
    pub fn stored(&self) -> impl Iterator<Item = (u64, u64)> {
        let stored = self.blocks.iter().filter(|entry| entry.state == STORED);
        stored.map(|entry| (entry.block, entry.ledger.get(Line::DELIVERED)))
    }

    fn enter(&mut self, block: &StoredBlock) {
        let mut entry: BlockLedger = match serde_json::from_str(&block.ledger) {
            Ok(ledger) => ledger,
            Err(error) => {
                self.wrong.push(format!("block {}: no ledger: {error}", block.number));
                return;
            }
        };
        let state = match block.state {
            BlockState::Committed => STORED,
            BlockState::Prepared => "in doubt",
            BlockState::Aborted => "aborted",
            BlockState::Voided => "voided",
        };
        if block.state == BlockState::Voided {
            // It may have been settled before it was given up: its bits went nowhere else.
            entry.void();
        }
        if let Err(error) = entry.check() {
            self.wrong.push(format!("block {}: {error}", block.number));
        }
        // Key bits of the block are what the ledger says was delivered: the rest went to authentication.
        let (bits, delivered) = (block.key_bits, entry.get(Line::DELIVERED));
        if block.state == BlockState::Committed && bits != delivered {
            let message = format!("block {}: {bits} bits are stored but {delivered} delivered", block.number);
            self.wrong.push(message);
        }
        if block.state == BlockState::Prepared {
            self.in_doubt += 1;
        } else {
            self.total.add(&entry);
        }
        self.blocks.push(Entry { block: block.number, session: block.session, state: state.into(), ledger: entry });
    }
}

pub fn text(end: &EndLedger, blocks: bool) -> String {
    let mut text = format!("{} at {}\n", end.link, end.site);
    if blocks {
        for entry in &end.blocks {
            text += &format!("\nblock {} ({}, session {})\n", entry.block, entry.state, entry.session);
            text += &entry.ledger.render();
        }
        text += "\ntotal\n";
    }
    text += &end.total.render();
    if end.in_doubt > 0 {
        text += &format!("{} blocks in doubt are left out\n", end.in_doubt);
    }
    for wrong in &end.wrong {
        text += &format!("WRONG {wrong}\n");
    }
    text + "\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use distill::bits::Bits;
    use module::store::{BlockStore, NewBlock, path};

    use super::*;
    use crate::commands::data::testing::{ledger, write};

    #[test]
    fn totals_add_up_over_blocks_and_say_so() {
        let data = tempfile::tempdir().unwrap();
        write(data.path(), "valrose", "valrose-sophia", &[60, 70]);
        let ends = ledgers(data.path(), None).unwrap();
        assert_eq!([Line::DELIVERED, Line::BLOCKS_STORED].map(|line| ends[0].total.get(line)), [130, 2]);
        assert!(ends[0].wrong.is_empty(), "{:?}", ends[0].wrong);
        let text = text(&ends[0], true);
        assert!(text.contains("block 1 (stored, session 1)") && text.contains("sums exact"), "{text}");
    }

    #[test]
    fn a_wrong_sum_and_missing_bits_are_found() {
        let data = tempfile::tempdir().unwrap();
        let mut store = BlockStore::open(path(data.path(), "valrose", "l")).unwrap();
        let key = Bits::zeros(50);
        let good = serde_json::to_string(&ledger(60)).unwrap();
        let mut wrong = ledger(50);
        wrong.book(Line::LEAKED, 1);
        let wrong = serde_json::to_string(&wrong).unwrap();
        for (number, ledger) in [good.as_str(), wrong.as_str(), "{}x"].into_iter().enumerate() {
            let block = NewBlock { number: number as u64, session: 1, key: &key, ledger, trace_id: "" };
            store.store(&block).unwrap();
        }
        let ends = ledgers(data.path(), Some("l")).unwrap();
        assert_eq!(ends[0].wrong.len(), 4, "{:?}", ends[0].wrong);
        assert!(ledgers(data.path(), Some("m")).is_err());
    }

    #[test]
    fn a_block_given_up_after_it_was_settled_is_booked_as_voided() {
        let data = tempfile::tempdir().unwrap();
        let mut store = BlockStore::open(path(data.path(), "valrose", "l")).unwrap();
        let (key, ledger) = (Bits::zeros(60), serde_json::to_string(&ledger(60)).unwrap());
        for number in 0..2 {
            store.prepare(&NewBlock { number, session: 1, key: &key, ledger: &ledger, trace_id: "" }).unwrap();
        }
        store.void(0).unwrap();
        let ends = ledgers(data.path(), None).unwrap();
        assert!(ends[0].wrong.is_empty(), "{:?}", ends[0].wrong);
        assert_eq!([Line::VOIDED, Line::DELIVERED].map(|line| ends[0].total.get(line)), [150, 0]);
        assert_eq!(ends[0].in_doubt, 1);
    }
}
