//! Relays and key stores of whole networks.

#![allow(clippy::unwrap_used)]

mod grpc;
mod memory;
mod world;
