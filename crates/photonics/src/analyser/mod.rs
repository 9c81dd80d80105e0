//! What the light meets at an end before the detectors.
//!
//! An end knows its analyser and tells the source about it, epoch by epoch; the source draws outcomes by it. Nothing
//! random happens here but the walk of an interferometer's phase, which is a function of the subseed and the epoch.

mod phase;

pub(crate) use phase::Phase;

use crate::config::Transmitter;
use crate::random::Subseed;

/// The encoder of a transmitter: like an analyser it has a phase that drifts, and it tells the source.
pub struct Encoder {
    phase: Phase,
}

impl Encoder {
    pub fn new(transmitter: &Transmitter, epoch_ps: u64, subseed: &Subseed) -> Self {
        Self { phase: Phase::new(&transmitter.phase, epoch_ps, subseed) }
    }

    /// What the light gets in `epoch` when the encoder's own phase is moved by `control_rad`.
    pub fn state(&mut self, epoch: u64, control_rad: f64) -> AnalyserState {
        AnalyserState { phase_rad: self.phase.at(epoch) + control_rad, polarisation_rad: [0.0; 2] }
    }
}

/// What the light meets at an analyser during one epoch. Only the receiver knows, and tells the source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnalyserState {
    /// Phase of the interferometer.
    pub phase_rad: f64,
    /// What the polarisation controller takes away from the two angles of the light.
    pub polarisation_rad: [f64; 2],
}
