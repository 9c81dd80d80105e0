//! Across services: the real binary, real processes, real ports.

mod accounts;
mod attacks;
mod bad_input;
mod chaos;
mod chart;
mod closed;
mod collect;
mod collector;
mod containers;
mod crashes;
mod dependencies;
mod determinism;
mod disturbances;
mod faults;
mod keys;
mod limits;
mod ports;
mod replay;
mod reserve;
mod runs;
mod secrecy;
mod settings;
mod support;
mod traces;
mod upgrade;
mod verdicts;
