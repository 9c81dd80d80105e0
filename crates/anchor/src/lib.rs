//! Ceilings that are kept outside a store's volume, so that a volume that is put back is noticed.
//!
//! A store counts what it must never use twice: tags of a reserve, bytes of a pool. It keeps each count on its own
//! volume, and an [`Anchor`] keeps a *ceiling* of it elsewhere. The ceiling is raised before the count crosses it, a
//! *chunk* at a time. A volume that was put back shows counts below the ceiling, so [`resume`] says where a store goes
//! on: at the ceiling, since all below it may have been used. A crash loses at most one chunk this way; a store that is
//! more than one chunk behind was rolled back. A clean close *settles* the ceilings to the counts and costs nothing.
//!
//! Stores are known by an [`Instance`] drawn when they are made, not by their path: a store that is moved keeps its
//! ceilings, one that is made in the same place has none.

mod folder;
mod instance;
mod memory;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

pub use folder::FolderAnchor;
pub use instance::{Instance, InstanceError};
pub use memory::MemoryAnchor;

/// Ceilings of one store by the name of what is counted.
pub type Ceilings = BTreeMap<String, u64>;

/// Counts of one store that an anchor keeps at most.
pub const COUNTS_MAX: usize = 4096;
/// Bytes in the name of a count at most.
pub const NAME_BYTES_MAX: usize = 300;

#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is damaged: {what}. Void the store with `qkdnet restore`, then remove the file", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("more than {COUNTS_MAX} counts of one store, or a name of more than {NAME_BYTES_MAX} bytes")]
    TooMuch,
    #[error("who keeps the anchor does not answer: {0}")]
    Unreachable(String),
}

/// Keeps ceilings outside the volumes. Calls block until what they say is durable.
pub trait Anchor: Send + Sync + Debug {
    /// The ceilings of a store; nothing where it was never anchored.
    fn read(&self, store: Instance) -> Result<Option<Ceilings>, AnchorError>;

    /// Makes each of these ceilings at least so high. Others stay as they are.
    fn raise(&self, store: Instance, ceilings: &Ceilings) -> Result<(), AnchorError>;

    /// The store closes cleanly: its ceilings become these counts, and others of it are forgotten.
    fn settle(&self, store: Instance, counts: &Ceilings) -> Result<(), AnchorError>;

    /// Whether it keeps anything.
    fn keeps(&self) -> bool {
        true
    }

    /// How far a ceiling is raised ahead of its count at most, where `usual` does for an anchor that is close: one that
    /// is far away, and may not answer for a while, needs more. [`resume`] is given the same.
    fn chunk(&self, usual: u64) -> u64 {
        usual
    }
}

/// No anchor: a volume that is put back is noticed by the peer alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unanchored;

impl Anchor for Unanchored {
    fn keeps(&self) -> bool {
        false
    }

    fn read(&self, _: Instance) -> Result<Option<Ceilings>, AnchorError> {
        Ok(None)
    }

    fn raise(&self, _: Instance, _: &Ceilings) -> Result<(), AnchorError> {
        Ok(())
    }

    fn settle(&self, _: Instance, _: &Ceilings) -> Result<(), AnchorError> {
        Ok(())
    }
}

/// Where a store goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// All below counts as used.
    pub from: u64,
    /// The volume is older than a crash explains.
    pub rolled_back: bool,
}

/// Where a store goes on whose volume says `count`, with ceilings that are raised by at most `chunk` at a time.
pub fn resume(count: u64, ceiling: Option<u64>, chunk: u64) -> Resume {
    let ceiling = ceiling.unwrap_or(0);
    Resume { from: count.max(ceiling), rolled_back: ceiling > count.saturating_add(chunk) }
}

pub(crate) fn check(ceilings: &Ceilings) -> Result<(), AnchorError> {
    if ceilings.len() > COUNTS_MAX || ceilings.keys().any(|name| name.len() > NAME_BYTES_MAX) {
        return Err(AnchorError::TooMuch);
    }
    Ok(())
}

/// Raises what is kept; others stay.
pub(crate) fn raise(kept: &mut Ceilings, to: &Ceilings) {
    for (name, &ceiling) in to {
        let kept = kept.entry(name.clone()).or_default();
        *kept = (*kept).max(ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_goes_on_at_the_ceiling_and_says_when_a_crash_does_not_explain_it() {
        assert_eq!(resume(5, None, 8), Resume { from: 5, rolled_back: false });
        assert_eq!(resume(5, Some(4), 8), Resume { from: 5, rolled_back: false });
        assert_eq!(resume(5, Some(13), 8), Resume { from: 13, rolled_back: false });
        assert_eq!(resume(5, Some(14), 8), Resume { from: 14, rolled_back: true });
        assert_eq!(resume(u64::MAX, Some(u64::MAX), 8), Resume { from: u64::MAX, rolled_back: false });
    }
}
