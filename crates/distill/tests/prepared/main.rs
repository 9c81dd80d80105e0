//! Prepared links: BB84 with decoys and with single photons, from clicks to key.

#![allow(clippy::unwrap_used)]

mod attacks;
mod halves;
mod light;
mod link;
#[path = "../common/mutated.rs"]
mod mutated;
mod observer;
mod recovery;
