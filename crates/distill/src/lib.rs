//! From clicks to secret bits: clock recovery, sifting, reconciliation, verification, amplification,
//! authentication and the ledger of every bit.
//!
//! Sans-I/O: messages and clicks in, messages and keys out. No sockets, no clock, no global randomness.

pub mod amplify;
pub mod announce;
pub mod auth;
pub mod bits;
pub mod bounds;
pub mod cascade;
pub mod config;
pub mod hash;
pub mod ledger;
pub mod loops;
pub mod module;
pub mod recovery;
pub mod sift;
