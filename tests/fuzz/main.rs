//! Every parser that a port or a person reaches, on whatever comes: one test for each.
//!
//! Inputs are made from good ones by changes that break parsers (see `engine`). What gives an answer of a kind not seen
//! before is kept and changed further. Nothing may panic, take memory or time without bound, or come out differently
//! from how it went in.
//!
//! `make test` tries a fixed number of inputs of a fixed seed; `make soak` takes `QKDNET_FUZZ_SECONDS` for each target
//! and a seed of its own, which is printed; `QKDNET_FUZZ_SEED` sets it.

#![allow(clippy::unwrap_used)]

mod engine;

mod light;
mod messages;
mod people;
mod stored;
mod stores;
mod web;

/// Counts what is allocated, so that an input that asks for too much is found.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
