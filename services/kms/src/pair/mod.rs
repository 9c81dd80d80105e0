//! The dialogue between the key stores of two sites, by which both hold the same stream of key bit for bit.
//!
//! The store whose site has the smaller name *coordinates*: it says where in the stream a block counts and what a range
//! is for. The other one, the *follower*, puts each decision on its disk first; so the follower is ahead after a crash,
//! never the coordinator, and says at the next greeting by how much. A store that lost its volume is noticed at the
//! greeting, and the pool starts a new generation with nothing in it. One that was put back from a copy is noticed, too
//! (`verdict`): then nothing of the pool is used by either until that store is voided.
//!
//! A block that only one end has comes to an end of its own (`unmatched`).
//!
//! A block counts once both ends have shown by a one-time tag under its first bytes that they hold the same bits. A
//! range may be drawn from once both ends have it on their disks.

mod coordinator;
mod follower;
mod line;
mod marks;
mod pool;
mod tag;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod unmatched;
mod verdict;

use std::time::Duration;

use anyhow::{Context, Result};
use keystore::{Grant, RolledBack, Use};
use proto::kms::v1::{self as wire, PairMessage};
use shell::duplex::Duplex;

pub use coordinator::coordinate;
pub use follower::follow;
pub use line::ShareOut;
pub use pool::Pool;
pub use tag::{CONFIRMATION_BYTES, GENERATION_KEY_BYTES};

use self::line::{Line, send_share, share_taken};
use self::pool::Connected;
use self::verdict::Verdict;
use crate::key_id::ID_SECRET_BYTES;

/// Messages that may wait in each direction.
pub const MESSAGES_IN_FLIGHT: usize = 32;
/// Blocks that are proposed and not answered, and their bytes unless it is one.
const PROPOSALS_MAX: usize = MESSAGES_IN_FLIGHT;
const PROPOSED_BYTES_MAX: u64 = 4 << 20;
/// Granted ahead to a use that nobody has asked anything of yet.
const GRANT_BYTES_MIN: u64 = 2 << 10;
const GRANT_BYTES_MAX: u64 = 1 << 20;
/// Grants are multiples of this, so that keys of the usual sizes leave no tails.
const GRANT_UNIT_BYTES: u64 = 64;
/// Time between looks at what is drawn and what is left.
const PULSE: Duration = Duration::from_millis(100);
/// Pulses between looks for blocks that one end alone has.
const PULSES_PER_LOOK: u64 = 5;
/// A peer that says nothing for so long has gone.
const SILENCE: Duration = Duration::from_secs(20);

pub(crate) const META_SECRET: &str = "id-secret";
/// Of the dialogue. What knows of no versions counts as 0.
pub const VERSION: u32 = 1;
/// Pulses after which what the peer said of itself is put on the disk.
const PULSES_PER_NOTE: u64 = 100;

/// Why there is no dialogue, and will be none until somebody does something.
#[derive(Debug, thiserror::Error)]
pub enum Lasting {
    #[error("the key store of {site} was put back: {why}. `qkdnet restore` makes it safe")]
    RolledBack { site: String, why: String },
    #[error(
        "the peer's key store speaks version {theirs} of the dialogue, this one version {VERSION}: run the same release at both sites"
    )]
    PeerVersion { theirs: u32 },
}

pub type PairStream = Duplex<PairMessage, PairMessage>;

/// As others are told.
pub(crate) fn wire_rolled_back(known: &RolledBack) -> proto::anchor::v1::RolledBack {
    proto::anchor::v1::RolledBack {
        site: known.site.clone(),
        store: "key store".to_owned(),
        since_ms: known.since_ms,
        message: known.why.clone(),
    }
}

fn lane(use_: Use) -> usize {
    usize::from(matches!(use_, Use::RelayOut | Use::RelayIn))
}

/// Uses as the coordinator sees them.
fn use_of(wire: wire::Use) -> Option<Use> {
    Some(match wire {
        // Not active at the end that would draw from it, and too old from the beginning: see `granted_ms`.
        wire::Use::Expired => Use::SupplyIn,
        wire::Use::SupplyOut => Use::SupplyOut,
        wire::Use::SupplyIn => Use::SupplyIn,
        wire::Use::RelayOut => Use::RelayOut,
        wire::Use::RelayIn => Use::RelayIn,
        wire::Use::Unspecified => return None,
    })
}

/// When a grant began to age. One of key that had to make room did so before any time that there is: the store takes it
/// for too old, also after a crash, and knows by it later what the grant was for.
fn granted_ms(wire: &wire::Grant) -> u64 {
    if wire.purpose() == wire::Use::Expired { 0 } else { crate::now_ms() }
}

/// A grant of the coordinator's store in its own words.
fn wire_grant(grant: &Grant) -> wire::Grant {
    let purpose = if grant.granted_ms == 0 { wire::Use::Expired } else { wire_use(grant.use_) }.into();
    wire::Grant { seq: grant.seq, generation: grant.generation, start: grant.start, bytes: grant.bytes, purpose }
}

/// Puts a grant on this end's disk. What expires with it is erased with it.
async fn keep_grant(pool: &Pool, grant: &wire::Grant, use_: Use, active: bool) -> Result<()> {
    let granted_ms = granted_ms(grant);
    let wire::Grant { generation, seq, start, bytes, .. } = *grant;
    let kept = Grant { generation, seq, use_, start, bytes, granted_ms, active };
    pool.store.grant(&pool.peer, kept).await.context("store a grant")?;
    if granted_ms == 0 {
        pool.store.expire(crate::now_ms()).await.context("erase what has expired")?;
    }
    Ok(())
}

pub(crate) fn wire_use(use_: Use) -> wire::Use {
    match use_ {
        Use::SupplyOut => wire::Use::SupplyOut,
        Use::SupplyIn => wire::Use::SupplyIn,
        Use::RelayOut => wire::Use::RelayOut,
        Use::RelayIn => wire::Use::RelayIn,
    }
}

fn id(bytes: &[u8]) -> Result<[u8; 16]> {
    bytes.try_into().ok().context("an identifier has 16 bytes")
}
