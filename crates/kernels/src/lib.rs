//! The few inner loops that are worth vector instructions, each with a portable fallback that gives the
//! same answer (property tests compare them).
//!
//! This is the only crate of the workspace that may say `unsafe`: to call a function compiled for an
//! instruction set that was found at run time, and to give pages of the [`program`] back.

pub mod chacha;
pub mod exponential;
pub mod gf2;
pub mod philox;
pub mod program;
pub mod words;
