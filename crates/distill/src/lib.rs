//! From clicks to secret bits: sifting, reconciliation, verification, amplification, authentication and the ledger of
//! every bit.
//!
//! Sans-I/O: messages and clicks in, messages and keys out. No sockets, no clock, no global randomness.
//!
//! `sifting` has a module for each protocol and ends with sifted bits; `pipeline` takes it from there and knows no
//! protocol.

// No clock, file, socket, thread or randomness of the machine: clippy.toml lists them with reasons.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

pub mod amplify;
pub mod auth;
pub mod bits;
pub mod bounds;
pub mod cascade;
pub mod config;
pub mod hash;
pub mod ledger;
pub mod loops;
mod parts;
pub mod pipeline;
pub mod sifting;
mod wiped;
