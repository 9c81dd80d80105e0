//! Durable pools of the key that one site shares with its peers.
mod ahead;
mod codec;
mod crypt;
mod engine;
mod error;
mod face;
mod journal;
mod lane;
mod ledger;
mod master;
mod media;
mod queue;
mod secret;
mod store;
mod tables;
mod taken;
mod types;

pub use error::StoreError;
pub use ledger::{Imbalance, PoolLedger, UseLedger};
pub use master::MasterKey;
pub use media::{Media, folder};
pub use queue::Pending;
pub use redb::StorageBackend;
pub use secret::Secret;
pub use store::KeyStore;
pub use types::*;
