//! What the formulae predict, before anything runs: rates, error rates, key, memory.
//!
//! Closed forms only; the click-level simulation must agree with them within statistics, and every
//! effect that is left out is named where it is left out.

pub mod bbm92;
pub mod inputs;
pub mod load;
pub mod math;
pub mod optimum;
mod outcomes;

pub use bbm92::{Prediction, predict};
pub use inputs::{Bbm92Inputs, DetectorModel, KeyInputs, Matching, from_config};
