//! Light, from the birth of a photon pair to a stamped click, and the formulae that predict it.
//!
//! Pure: no sockets, no clock of the machine, no global randomness. Everything random comes from a
//! counter-based generator keyed by a role's subseed, the link and the epoch.

pub mod config;
mod disturbance;
pub mod emitter;
pub mod instrument;
pub mod model;
pub mod photons;
pub mod random;
pub mod tag;
pub mod tagfile;
