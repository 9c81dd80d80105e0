//! What the two ends of a link hold when a run has ended, beside each other.

use std::path::Path;

use detector::store::{BlockStore, StoreError};
use topology::plan::Plan;

use super::Folders;
use super::verdict::{Kind, Reason};

/// What the block files of both ends say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The same key. Of so many blocks more only one end knows that they count; the other one has them on its disk and
    /// is told at the next start.
    Equal {
        undecided: u64,
    },
    Differ,
    Unreadable(String),
}

impl Ends {
    pub fn are_equal(&self) -> bool {
        matches!(self, Self::Equal { .. })
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
            Self::Unreadable(why) => {
                Some(Reason::of_link(Kind::KeysUnreadable, link, format!("the key cannot be compared: {why}")))
            }
        }
    }
}

/// Compares the ends of a link.
pub fn compare(link: &str, plan: &Plan, folders: &Folders) -> Ends {
    let mut sites = plan.detectors().filter(|config| config.link == link).map(|config| config.site.as_str());
    match (sites.next(), sites.next()) {
        (Some(a), Some(b)) => {
            at_sites(&folders.data, link, [a, b]).unwrap_or_else(|error| Ends::Unreadable(error.to_string()))
        }
        _ => Ends::Unreadable("the plan has not both ends".to_owned()),
    }
}

fn at_sites(data: &Path, link: &str, sites: [&str; 2]) -> Result<Ends, StoreError> {
    let open = |site: &str| BlockStore::open_read_only(detector::store::path(data, site, link));
    let (a, b) = (open(sites[0])?, open(sites[1])?);
    let (blocks_a, blocks_b) = (a.committed_totals().0, b.committed_totals().0);
    let common = blocks_a.min(blocks_b);
    let first = usize::try_from(common).unwrap_or(usize::MAX);
    if a.digest_of_first(first) != b.digest_of_first(first) {
        return Ok(Ends::Differ);
    }
    // What one end counts alone, the other one must have on its disk and wait for the word.
    let undecided = blocks_a.max(blocks_b) - common;
    let behind = if blocks_a < blocks_b { &a } else { &b };
    let waits = behind.in_doubt().len() as u64;
    if undecided > waits { Ok(Ends::Differ) } else { Ok(Ends::Equal { undecided }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use detector::store::NewBlock;
    use distill::bits::Bits;

    use super::*;

    fn block(key: &Bits, number: u64) -> NewBlock<'_> {
        NewBlock { number, session: 1, key, ledger: "{}", trace_id: "" }
    }

    /// Commits the first blocks of a site and prepares the rest.
    fn write(data: &Path, site: &str, keys: &[u64], committed: usize) {
        let mut store = BlockStore::open(detector::store::path(data, site, "link")).unwrap();
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
    fn a_block_that_one_end_has_not_at_all_or_with_other_bits_is_one() {
        for other in [&[1, 2][..], &[1, 7, 3], &[]] {
            let data = tempfile::tempdir().unwrap();
            write(data.path(), "valrose", &[1, 2, 3], 3);
            write(data.path(), "sophia", other, other.len());
            assert_eq!(ends(data.path()), Ends::Differ, "{other:?}");
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
