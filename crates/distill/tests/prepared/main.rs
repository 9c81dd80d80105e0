//! Prepared links: BB84 with decoys and with single photons, from clicks to key.

#![allow(clippy::unwrap_used)]

mod light;
mod recovery;
