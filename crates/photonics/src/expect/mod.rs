//! What the formulae predict, before anything runs: rates, error rates, memory.
//!
//! How much key the expected evidence of a block makes is not said here: key lengths stand in `distill::bounds` alone, and a
//! caller gives them what was expected as it would give them what was measured.
//!
//! Closed forms only; the click-level simulation must agree with them within statistics, and every
//! effect that is left out is named where it is left out.

pub mod bbm92;
pub mod inputs;
pub mod load;
pub mod math;
pub mod moment;
pub mod optimum;
mod outcomes;
pub mod prepared;
pub mod pulses;
pub mod response;
pub mod single_photon;
pub mod twin_field;

pub use bbm92::{Prediction, predict};
pub use inputs::{Bbm92Inputs, DetectorModel, Matching, from_config};
