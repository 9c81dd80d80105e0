//! What the light meets at an end before the detectors.
//!
//! An end knows its analyser and tells the source about it, epoch by epoch; the source draws outcomes by it. Nothing random
//! happens here but the walk of an interferometer's phase, which is a function of the subseed and the epoch.

mod phase;

pub(crate) use phase::Phase;

/// What the light meets at an analyser during one epoch. Only the receiver knows, and tells the source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnalyserState {
    /// Phase of the interferometer.
    pub phase_rad: f64,
    /// What the polarisation controller takes away from the two angles of the light.
    pub polarisation_rad: [f64; 2],
}
