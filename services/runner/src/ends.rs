//! What the two ends of a link hold when a run has ended, beside each other.

use std::path::Path;

use anyhow::Result;
use module::store::{BlockState, BlockStore};
use topology::plan::Plan;

use super::Folders;
use super::verdict::{Kind, Reason};

/// What the block files of both ends say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The same key. Of this many more blocks only one end knows that they count; the other one has them on its disk
    /// and is told at the next start.
    Equal {
        undecided: u64,
    },
    /// What both hold is the same. Each site has this many blocks of which the other end knows nothing any more.
    Alone {
        blocks: Vec<(String, u64)>,
    },
    Differ,
    Unreadable(String),
}

impl Ends {
    pub fn are_equal(&self) -> bool {
        matches!(self, Self::Equal { .. } | Self::Alone { .. })
    }

    pub fn undecided(&self) -> u64 {
        match self {
            Self::Equal { undecided } => *undecided,
            _ => 0,
        }
    }

    /// Why the verdict on a run is no.
    pub fn reason(&self, link: &str) -> Option<Reason> {
        match self {
            Self::Equal { .. } => None,
            Self::Differ => Some(
                Reason::of_link(Kind::KeysDiffer, link, "the two ends hold different key")
                    .hint("use none of it; `qkdnet digest --first N` finds the first block that differs"),
            ),
            Self::Alone { blocks } => {
                let at = |(site, number): &(String, u64)| format!("{number} at {site}");
                let at = blocks.iter().map(at).collect::<Vec<_>>().join(" and ");
                let message = format!("blocks at one end alone ({at}): those of the other end were put back, or lost");
                let hint = "what both ends hold is equal; `qkdnet restore` voids what may have been used";
                Some(Reason::of_link(Kind::RolledBack, link, message).hint(hint))
            }
            Self::Unreadable(why) => {
                Some(Reason::of_link(Kind::KeysUnreadable, link, format!("the key cannot be compared: {why}")))
            }
        }
    }
}

/// Compares the ends of a link.
pub fn compare(link: &str, plan: &Plan, folders: &Folders) -> Ends {
    let mut sites = plan.modules().filter(|config| config.link == link).map(|config| config.site.as_str());
    match (sites.next(), sites.next()) {
        (Some(a), Some(b)) => at_sites(&folders.data, link, [a, b])
            .unwrap_or_else(|error| Ends::Unreadable(shell::chain(&error).to_string())),
        _ => Ends::Unreadable("the plan has not both ends".to_owned()),
    }
}

fn at_sites(data: &Path, link: &str, sites: [&str; 2]) -> Result<Ends> {
    let open = |site: &str| BlockStore::open_read_only(module::store::path(data, site, link));
    let ends = [open(sites[0])?, open(sites[1])?];
    // What was made before either end was restored need not be at both.
    let restored = |site: &str| module::vault::restored_until(data, site, link);
    let first = restored(sites[0])?.max(restored(sites[1])?);
    let blocks = ends.each_ref().map(|end| end.digests_from(first));
    let (mut undecided, mut alone) = (0, [0, 0]);
    for (end, other) in [(0, 1), (1, 0)] {
        for (number, block) in &blocks[end] {
            match (blocks[other].get(number), ends[other].state(*number)) {
                (Some(known), _) if known == block => {}
                // What one end counts alone, the other one has on its disk, and it waits for the word.
                (None, Some(BlockState::Prepared)) => undecided += 1,
                (None, None) => alone[end] += 1,
                _ => return Ok(Ends::Differ),
            }
        }
    }
    let alone: Vec<(String, u64)> = sites
        .iter()
        .zip(alone)
        .filter(|(_, blocks)| *blocks > 0)
        .map(|(site, blocks)| ((*site).to_owned(), blocks))
        .collect();
    Ok(if alone.is_empty() { Ends::Equal { undecided } } else { Ends::Alone { blocks: alone } })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use distill::bits::Bits;
    use module::store::NewBlock;

    use super::*;

    fn block(key: &Bits, number: u64) -> NewBlock<'_> {
        NewBlock { number, session: 1, key, ledger: "{}", trace_id: "" }
    }

    /// Commits the first blocks of a site and prepares the rest.
    fn write(data: &Path, site: &str, keys: &[u64], committed: usize) {
        let mut store = BlockStore::open(module::store::path(data, site, "link")).unwrap();
        for (number, word) in keys.iter().enumerate() {
            let key = Bits::from_words(vec![*word], 64);
            store.prepare(&block(&key, number as u64)).unwrap();
            if number < committed {
                store.commit(number as u64).unwrap();
            }
        }
    }

    fn ends(data: &Path) -> Ends {
        at_sites(data, "link", ["valrose", "sophia"]).unwrap()
    }

    #[test]
    fn a_block_that_one_end_has_not_decided_yet_is_no_difference() {
        let data = tempfile::tempdir().unwrap();
        write(data.path(), "valrose", &[1, 2, 3], 3);
        write(data.path(), "sophia", &[1, 2, 3], 2);
        assert_eq!(ends(data.path()), Ends::Equal { undecided: 1 });
        assert_eq!(ends(data.path()).reason("link"), None);
    }

    #[test]
    fn a_block_with_other_bits_is_a_difference() {
        let data = tempfile::tempdir().unwrap();
        write(data.path(), "valrose", &[1, 2, 3], 3);
        write(data.path(), "sophia", &[1, 7, 3], 3);
        assert_eq!(ends(data.path()), Ends::Differ);
    }

    #[test]
    fn blocks_that_one_end_does_not_know_any_more_are_no_different_key_until_it_is_restored() {
        for (other, missing) in [(&[1, 2][..], 1), (&[], 3)] {
            let data = tempfile::tempdir().unwrap();
            write(data.path(), "valrose", &[1, 2, 3], 3);
            write(data.path(), "sophia", other, other.len());
            let alone = Ends::Alone { blocks: vec![("valrose".to_owned(), missing)] };
            assert_eq!(ends(data.path()), alone, "{other:?}");
            let reason = alone.reason("link").unwrap();
            assert_eq!(reason.kind, Kind::RolledBack);
            assert!(reason.message.contains(&format!("{missing} at valrose")), "{}", reason.message);
            for site in ["valrose", "sophia"] {
                module::vault::void_restored(data.path(), None, site, "link", Arc::new(anchor::Unanchored)).unwrap();
            }
            assert_eq!(ends(data.path()), Ends::Equal { undecided: 0 }, "{other:?}");
        }
    }

    #[test]
    fn an_end_that_cannot_be_read_is_told_as_such() {
        let data = tempfile::tempdir().unwrap();
        write(data.path(), "valrose", &[1], 1);
        let error = at_sites(data.path(), "link", ["valrose", "sophia"]).unwrap_err();
        let reason = Ends::Unreadable(error.to_string()).reason("link").unwrap();
        assert_eq!(reason.kind, Kind::KeysUnreadable);
        assert!(reason.message.contains("sophia/link/blocks.qkd"), "{}", reason.message);
    }
}
