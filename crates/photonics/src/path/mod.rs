//! What lies between a source and a receiver: loss, delay, polarisation, and how they drift.
//!
//! A path is a function of simulated time and of the faults that are set; it draws nothing. Loss is a number that the
//! source thins by where light is born, so that lost photons are never drawn.

pub(crate) mod disturbance;
mod fibre;
pub mod free_space;
pub(crate) mod polarisation;

pub(crate) use fibre::{Fibre, probability};
