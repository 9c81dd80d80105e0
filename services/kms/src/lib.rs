//! The key management system of a site: stores what the site's links make and supplies applications with it.
//!
//! * [`front`]: what applications (SAEs) and probes reach of it; `etsi014` speaks with them. [`supplier`] answers what it
//!   asks of a key store.
//! * [`pair`]: the dialogue with another site's key store, by which both hold the same stream of key.
//! * [`ingest`]: blocks from the site's modules. `pads`: what the site's relay needs key for.
//! * [`master`]: the key under which all of it lies on the disk. [`compare`]: whether two sites' stores agree.
//! * [`applications`], [`Pools`]: whom the key store serves and whom it shares key with, which may change while it runs.
//! * [`key_id`]: key IDs that say where their key is, to the pair alone.

pub mod accounts;
pub mod applications;
pub mod compare;
pub mod deliveries;
mod fair;
pub mod front;
mod grpc;
pub mod ingest;
pub mod key_id;
pub mod master;
pub mod node;
mod origins;
mod pads;
pub mod pair;
mod pools;
pub mod seal;
pub mod share;
pub mod supplier;
mod told;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod simulation;

use std::time::{SystemTime, UNIX_EPOCH};

pub use grpc::{View, place, serve, status};
pub use node::{Incoming, Node, open, run, void_restored};
pub use pads::serve as serve_relay;
pub use pools::Pools;

/// Wall time, by which stored key expires.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
