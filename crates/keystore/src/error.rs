//! What can go wrong, and whether the store survives it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Use;

/// An answer of the store that is not what was asked for.
///
/// [`StoreError::is_fatal`] tells the two kinds apart: a refusal changed nothing and the store goes on; after a fatal
/// error it serves nothing until it is opened again.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    #[error("{asked_bytes} bytes asked, at most {available_bytes} bytes can be had in one piece")]
    Exhausted { asked_bytes: u64, available_bytes: u64 },
    #[error("bytes {start}..{end} are not granted to this use", end = start.saturating_add(*bytes))]
    NotGranted { start: u64, bytes: u64 },
    #[error("of bytes {start}..{end} some were handed out or have expired", end = start.saturating_add(*bytes))]
    AlreadyTaken { start: u64, bytes: u64 },
    #[error("generation {asked} was asked, the pool is at generation {current}")]
    OtherGeneration { asked: u32, current: u32 },
    #[error("no pool is shared with `{peer}`")]
    UnknownPeer { peer: String },
    #[error("no such block was offered, or it is too long ago to be remembered")]
    UnknownBlock,
    #[error("the block was {was} before")]
    BlockConflict { was: &'static str },
    #[error("a block must start at byte {end_bytes}, the end of the stream; {start} was given")]
    NotContiguous { start: u64, end_bytes: u64 },
    #[error("grant {seq} {what}")]
    GrantConflict { seq: u64, what: &'static str },
    #[error("{use_:?} is not a use that allows this")]
    WrongUse { use_: Use },
    /// The first of those named that is not there.
    #[error("deposit {index} of those named is unknown, taken or expired")]
    DepositNotFound { index: usize },
    #[error("the caller is not named in one or more deposits")]
    DepositNotForCaller,
    #[error("{max_items} deposits of one master wait to be taken, and no more may")]
    TooManyDeposits { max_items: u64 },
    #[error("a deposit of this identifier exists")]
    DepositConflict,
    #[error("the pool is full: {stored_bytes} of {capacity_bytes} bytes")]
    PoolFull { stored_bytes: u64, capacity_bytes: u64 },
    #[error("{what} is limited to {max}; {given} was given")]
    Limit { what: &'static str, max: u64, given: u64 },
    #[error("{what}")]
    BadRequest { what: &'static str },
    #[error("{} was put back: {why}", if site.is_empty() { "this store" } else { "the store of the other site" })]
    RolledBack { site: Arc<str>, since_ms: u64, why: Arc<str> },
    #[error("use the anchor of the store: {why}")]
    Anchor { why: Arc<str> },
    #[error("too many requests wait for the disk")]
    Busy,
    #[error("the store is closed")]
    Closed,

    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("the master key does not open this store")]
    WrongMasterKey,
    #[error(
        "format {found} of the store is not one this version reads ({} to {supported})",
        crate::tables::FORMAT_OLDEST
    )]
    UnsupportedFormat { found: u32, supported: u32 },
    #[error("{}: {why}", path.display())]
    MasterKeyFile { path: PathBuf, why: String },

    #[error("{doing}: {why}")]
    Io { doing: &'static str, why: Arc<str> },
    #[error("the store is damaged: {what}")]
    Corrupt { what: Arc<str> },
}

impl StoreError {
    pub(crate) fn rolled_back(known: &crate::RolledBack) -> Self {
        Self::RolledBack { site: known.site.as_str().into(), since_ms: known.since_ms, why: known.why.as_str().into() }
    }

    /// True where what is on the disk is in doubt: the store stops until it is opened again.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Corrupt { .. })
    }

    pub(crate) fn io(doing: &'static str, why: &dyn std::fmt::Display) -> Self {
        Self::Io { doing, why: why.to_string().into() }
    }

    pub(crate) fn corrupt(what: &str) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Corrupt { what: what.into() },
            other => Self::io("use the database", &other),
        }
    }
}

macro_rules! from_redb {
    ($($kind:ty),*) => {$(
        impl From<$kind> for StoreError {
            fn from(error: $kind) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError);
