//! Across services: the real binary, real processes, real ports.

mod attacks;
mod bad_input;
mod chart;
mod collector;
mod containers;
mod crashes;
mod dependencies;
mod determinism;
mod disturbances;
mod keys;
mod limits;
mod replay;
mod reserve;
mod runs;
mod support;
mod traces;
