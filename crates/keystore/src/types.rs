//! What callers say and what they are told.

use std::sync::Arc;
use std::time::Duration;

use anchor::{Anchor, Unanchored};

use crate::{Secret, StoreError};

/// Trace context of a block: trace-id (16 bytes), span-id (8), flags (1).
pub const SPAN_BYTES: usize = 25;
/// Longest block that can be offered: as long as the seed of an amplification that fits into one message of a link, so
/// that whatever a module makes can be stored.
pub const BLOCK_BYTES_MAX: usize = 16 << 20;
/// Longest `origin` text.
pub const ORIGIN_BYTES_MAX: usize = 2 << 10;
/// Longest name of a peer, an SAE or a meta value, and longest reason.
pub const NAME_BYTES_MAX: usize = 256;
/// Most that one call of draw or redeem may move.
pub const DRAW_BYTES_MAX: usize = 1 << 20;
/// Most keys, ranges or identifiers in one call.
pub const ITEMS_MAX: usize = 1024;
/// Longest meta value.
pub const META_BYTES_MAX: usize = 4 << 10;
/// Longest deposited key, and most slaves of one.
pub const DEPOSIT_BYTES_MAX: usize = 64 << 10;
pub const SLAVES_MAX: usize = 64;
/// Most peers of one store.
pub const POOLS_MAX: usize = 1024;
/// Decided blocks that a pool remembers, with their origins.
pub const BLOCKS_REMEMBERED: u64 = 100_000;
/// Finished grants that a pool remembers, so that a repeated grant is answered as before.
pub const GRANTS_REMEMBERED: u64 = 10_000;

/// What a range of the stream is for, as this site sees it. The peer sees In for Out and Out for In.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Use {
    /// Drawn here for applications; their peers redeem it at the other site.
    SupplyOut,
    /// Redeemed here by applications whose peers drew it at the other site.
    SupplyIn,
    /// Drawn here as one-time pad for what this site relays.
    RelayOut,
    /// Redeemed here to take off the pad that the other site put on.
    RelayIn,
}

impl Use {
    pub const ALL: [Use; 4] = [Use::SupplyOut, Use::SupplyIn, Use::RelayOut, Use::RelayIn];

    /// How the peer sees this use.
    pub fn mirrored(self) -> Use {
        match self {
            Use::SupplyOut => Use::SupplyIn,
            Use::SupplyIn => Use::SupplyOut,
            Use::RelayOut => Use::RelayIn,
            Use::RelayIn => Use::RelayOut,
        }
    }

    pub fn is_out(self) -> bool {
        self.lane().is_some()
    }

    /// Place in [`Use::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Index among the uses that are drawn from.
    pub(crate) fn lane(self) -> Option<usize> {
        match self {
            Use::SupplyOut => Some(0),
            Use::RelayOut => Some(1),
            Use::SupplyIn | Use::RelayIn => None,
        }
    }

    pub(crate) fn of_index(index: u8) -> Option<Use> {
        Use::ALL.get(usize::from(index)).copied()
    }
}

/// Limits of a store. They may differ from one opening to the next.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Age beyond which an Out grant is not drawn from.
    pub retention_out_ms: u64,
    /// Age beyond which an In grant is not redeemed from. Longer than `retention_out_ms`: what one site still hands
    /// out the other must still redeem.
    pub retention_in_ms: u64,
    /// Least that one durable advance of a drawing position covers, where the pool has it.
    pub lease_bytes: u64,
    /// Most that a pool holds, offered blocks included.
    pub capacity_bytes: u64,
    /// Most deposits that wait at once.
    pub deposits_max: u64,
    /// Of them those of one master.
    pub deposits_per_master_max: u64,
    /// Memory for pages of the database.
    pub cache_bytes: usize,
    /// Length of each journal of redemptions; when one is full, both are checkpointed into the database. Counts when a
    /// store is made.
    pub journal_bytes: u64,
    /// Requests of late from which on a pool redeems in advance, whole chunks with one commit. The count is halved by
    /// each [`KeyStore::expire`](crate::KeyStore::expire): where that is called every ten seconds, 500 a second. A crash wastes what of them was not asked for.
    pub redeem_in_advance_from: u32,
    /// Told the name of each step that has become durable and has not been told to anyone: where a test may end the
    /// process. Does nothing unless set.
    pub at_step: fn(&'static str),
    /// Where ceilings are kept that show that the store was put back.
    pub anchor: Arc<dyn Anchor>,
    /// How old what the anchor knows of redemptions may be. It is raised so often at most, and only where it changed.
    pub anchor_period: Duration,
    /// Wall time for what the store writes of itself. Zero unless set.
    pub wall_ms: fn() -> u64,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        Self {
            retention_out_ms: 7 * DAY_MS,
            retention_in_ms: 8 * DAY_MS,
            lease_bytes: 64 << 10,
            capacity_bytes: 1 << 30,
            deposits_max: 100_000,
            deposits_per_master_max: 100_000,
            cache_bytes: 1 << 20,
            journal_bytes: 2 << 20,
            redeem_in_advance_from: 10_000,
            at_step: |_| {},
            anchor: Arc::new(Unanchored),
            anchor_period: Duration::from_secs(10),
            wall_ms: || 0,
        }
    }
}

/// The lease never grows beyond this, however fast key is drawn.
pub(crate) const LEASE_BYTES_MAX: u64 = 1 << 20;
/// In a small pool the lease shrinks to this.
pub(crate) const LEASE_BYTES_MIN: u64 = 4 << 10;

impl Settings {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.retention_in_ms <= self.retention_out_ms {
            return Err(StoreError::BadRequest { what: "retention_in_ms must be longer than retention_out_ms" });
        }
        if !(LEASE_BYTES_MIN..=LEASE_BYTES_MAX).contains(&self.lease_bytes) {
            return Err(StoreError::BadRequest { what: "lease_bytes must be 4 KiB to 1 MiB" });
        }
        if !(8 << 10..=64 << 20).contains(&self.journal_bytes) {
            return Err(StoreError::BadRequest { what: "journal_bytes must be 8 KiB to 64 MiB" });
        }
        Ok(())
    }
}

/// A block that a module or a relay hands in.
#[derive(Clone, Debug)]
pub struct Offer {
    pub id: [u8; 16],
    pub key: Secret,
    /// Opaque to the store: where the block came from, in the caller's words.
    pub origin: String,
    pub span: [u8; SPAN_BYTES],
    /// The caller's wall time, from which its waiting for the peer counts.
    pub offered_ms: u64,
    /// Brought by a relay, not by a link of the two sites.
    pub relayed: bool,
}

/// What was made of bytes that were taken: see [`KeyStore::redeem_into`](crate::KeyStore::redeem_into).
#[derive(Debug)]
pub struct Made<T> {
    /// With the pools that they are offered to.
    pub offers: Vec<(String, Offer)>,
    pub answer: T,
}

/// How far a block came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockStatus {
    /// On the disk; its bits do not count yet.
    Offered,
    /// Its bytes, less those deducted, are the stream from `start`.
    Confirmed { generation: u32, start: u64 },
    /// Erased: its two ends differed.
    Quarantined { reason: String },
    /// Erased: the other site does not have it.
    Abandoned { reason: String },
}

/// A block that waits for its peer's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedBlock {
    pub id: [u8; 16],
    pub bytes: u64,
    pub origin: String,
    /// 0 where an earlier version of the store took it.
    pub offered_ms: u64,
}

/// Assignment of a range of the stream. Both sites make the same one, with mirrored uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub generation: u32,
    /// Contiguous from 0 in each generation.
    pub seq: u64,
    pub use_: Use,
    pub start: u64,
    pub bytes: u64,
    /// The caller's wall time, from which retention counts.
    pub granted_ms: u64,
    /// An Out grant may be drawn from only once active.
    pub active: bool,
}

/// The block that bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginRef {
    pub block_id: [u8; 16],
    pub span: [u8; SPAN_BYTES],
}

/// Key that leaves the store. It does not come back.
#[derive(Debug)]
pub struct Drawn {
    pub generation: u32,
    /// Where the key starts in the stream; its peer redeems it from there.
    pub start: u64,
    pub key: Secret,
    pub origins: Vec<OriginRef>,
}

/// A part of the stream with its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPiece {
    pub start: u64,
    pub bytes: u64,
    pub block_id: [u8; 16],
    pub origin: String,
    pub span: [u8; SPAN_BYTES],
}

/// What a store holds of some ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamDigest {
    pub bytes: u64,
    pub hmac_sha256: [u8; 32],
}

/// A key that waits under an identifier for several readers.
#[derive(Clone, Debug)]
pub struct Deposit {
    pub key_id: [u8; 16],
    pub key: Secret,
    pub master: String,
    pub slaves: Vec<String>,
    pub expires_ms: u64,
    pub origin: String,
}

/// One key that a slave took.
#[derive(Debug)]
pub struct TakenDeposit {
    pub key_id: [u8; 16],
    pub key: Secret,
    pub origin: String,
}

/// A store of one of the two sites is older than what was done with it: some of the pool may have been used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Whose store it is; empty for this one.
    pub site: String,
    /// Wall time since which it is known.
    pub since_ms: u64,
    /// What shows it.
    pub why: String,
}

/// How far the two uses of one direction came in the present generation: supply, then relay. Positions are ends: no
/// byte at or behind them was used.
///
/// A crash leaves doubt ([`Standing`]): `least` is what is certain, `most` what cannot be excluded. A clean close keeps both, and they
/// are the same after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Handed out here.
    pub drawn_end: [u64; 2],
    /// Redeemed here because somebody asked for it.
    pub redeemed_end: [u64; 2],
    /// In any generation and of both uses.
    pub redeemed_bytes: u64,
}

/// What is certain, and what cannot be excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub least: Marks,
    pub most: Marks,
}

/// What a pool holds now, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    pub generation: u32,
    /// End of the stream: where the next confirmed block starts.
    pub end_bytes: u64,
    /// End of what is granted: where the next grant starts.
    pub granted_end_bytes: u64,
    /// Number of the next grant.
    pub next_grant: u64,
    /// Confirmed and neither handed out, wasted nor expired.
    pub stored_bytes: u64,
    /// Of that: not granted to a use yet.
    pub unassigned_bytes: u64,
    /// Of that, by [`Use::ALL`]: granted, active, and still there.
    pub available_bytes: [u64; 4],
    pub offered_blocks: u64,
    pub offered_bytes: u64,
}

impl Levels {
    pub fn available(&self, use_: Use) -> u64 {
        self.available_bytes[use_.index()]
    }
}

/// What the writer has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    pub requests: u64,
    /// Each is two fsyncs at most.
    pub database_commits: u64,
    /// Each is one fsync.
    pub journal_commits: u64,
    /// Spent in those, waiting for the disk.
    pub journal_sync: std::time::Duration,
    pub checkpoints: u64,
    pub leases: u64,
    /// Draws that had to wait for a lease.
    pub stalls: u64,
}
