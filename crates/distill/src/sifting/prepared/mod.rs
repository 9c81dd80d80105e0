//! BB84 with pulses that a transmitter prepares: weak laser pulses with decoys, or single photons.

pub mod config;
pub mod recovery;
