//! Light where it is born, and what becomes of it at the analysers: the only place where quantum outcomes are drawn.
//!
//! Each kind of source is a module. All keep the same contract:
//!
//! * `emit` is called once per epoch, in order, with the set-points that hold for all of it. What it returns is a
//!   function of the configuration, the subseed, the epoch, the set-points and (for photons that cross an epoch's
//!   border) of the epoch before. Asked for another epoch than the next, a source restarts its light: nothing is under
//!   way.
//! * Everything that a photon can be lost to, detector efficiency included, is applied here. What a source gives are
//!   photons that will fire a detector that is ready.
//! * Noise is never drawn here: dark counts, afterpulses, dead time are the receiver's.

pub mod counts;
pub(crate) mod dots;
pub(crate) mod gaps;
pub mod pairs;
pub mod pulses;
mod under_way;
