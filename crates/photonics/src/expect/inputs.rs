//! What the prediction needs to know about a link, in the words of the formulae.

use super::math::transmission;
use crate::config::{Arm, Detector, EnergyTimeAnalyser, PORTS, SpdcCw};

/// Everything `predict` takes. Index 0 and 1 are the two ends of the link.
#[derive(Clone, Debug, PartialEq)]
pub struct Bbm92Inputs {
    /// Pairs per second at the pump power in force.
    pub pair_rate_hz: f64,
    /// Transmission of each arm, detector efficiency included, dead time not.
    pub transmission: [f64; 2],
    /// Probability of the passive splitter to choose basis Z.
    pub z_probability: [f64; 2],
    /// Probability that a Z photon fires the detector of the other arm.
    pub crosstalk: [f64; 2],
    /// Distance of the side peaks: delay of each analyser.
    pub analyser_delay_ps: [f64; 2],
    /// Product of the visibilities of source and both interferometers.
    pub visibility: f64,
    /// Mean of `cos(phi_A + phi_B)` while the phase loop holds: 1 without error and dither.
    pub mean_cos_phase: f64,
    pub detectors: [DetectorModel; 2],
    /// Full coincidence window.
    pub window_ps: f64,
    /// Width of the coincidence peak: jitter of both ends, converters, clocks and dispersion in quadrature.
    pub peak_fwhm_ps: f64,
    pub matching: Matching,
}

/// Four equal detectors of one end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DetectorModel {
    pub dark_rate_hz: f64,
    pub dead_time_ps: f64,
    pub afterpulse_probability: f64,
    pub latch_probability: f64,
    pub latch_reset_ps: f64,
    pub skew_ps: [f64; PORTS],
}

/// What the modules do with events that are not one click against one click.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Matching {
    /// Clicks of one end within a window of each other are one event at the time of the first: of one basis it
    /// gets a random bit, of both bases it is discarded. `false` counts every combination, as Neumann et al. do.
    pub merge_doubles: bool,
    /// Of two kept events closer than this the second is dropped; 0 keeps all.
    pub kept_dead_time_ps: f64,
}

/// Bounds of a resolution of the converter to the width of the peak: a uniform error of one step at each end.
fn quantisation_fwhm_ps(resolution_ps: f64) -> f64 {
    resolution_ps / libm::sqrt(12.0) / super::math::sigma_per_fwhm()
}

/// Width of the coincidence peak from its parts. The photons of a pair are frequency anti-correlated, so the
/// dispersion of both arms adds before it is squared.
pub fn peak_fwhm_ps(source: &SpdcCw, arms: [&Arm; 2], detectors: [&Detector; 2]) -> f64 {
    let dispersion_ps = (arms[0].dispersion_ps_per_nm + arms[1].dispersion_ps_per_nm) * source.bandwidth_nm;
    let parts = [
        dispersion_ps,
        detectors[0].jitter_fwhm_ps,
        detectors[1].jitter_fwhm_ps,
        quantisation_fwhm_ps(detectors[0].tdc_resolution_ps),
        quantisation_fwhm_ps(detectors[1].tdc_resolution_ps),
    ];
    libm::sqrt(parts.iter().map(|part_ps| part_ps * part_ps).sum())
}

/// The inputs of a link at pump set-point `pump`, loops holding polarisation and phase without error.
///
/// Left out: polarisation-dependent loss while the polarisation is off, the phase error and dither (set
/// `mean_cos_phase`), the residual of clock tracking (add it to `peak_fwhm_ps` in quadrature).
pub fn from_config(
    source: &SpdcCw,
    arms: [&Arm; 2],
    analysers: [&EnergyTimeAnalyser; 2],
    detectors: [&Detector; 2],
    window_ps: f64,
    pump: f64,
) -> Bbm92Inputs {
    let both = [0usize, 1];
    Bbm92Inputs {
        pair_rate_hz: source.pair_rate_hz * pump,
        transmission: both.map(|end| transmission(arms[end].loss_db) * detectors[end].efficiency),
        z_probability: both.map(|end| analysers[end].z_probability),
        crosstalk: both.map(|end| analysers[end].crosstalk),
        analyser_delay_ps: both.map(|end| analysers[end].delay_ps),
        visibility: source.visibility * analysers[0].visibility * analysers[1].visibility,
        mean_cos_phase: 1.0,
        detectors: both.map(|end| DetectorModel::from(detectors[end])),
        window_ps,
        peak_fwhm_ps: peak_fwhm_ps(source, arms, detectors),
        matching: Matching::default(),
    }
}

impl From<&Detector> for DetectorModel {
    fn from(detector: &Detector) -> Self {
        Self {
            dark_rate_hz: detector.dark_rate_hz,
            dead_time_ps: detector.dead_time_ps,
            afterpulse_probability: detector.afterpulse_probability,
            latch_probability: detector.latch_probability,
            latch_reset_ps: detector.latch_reset_ps,
            skew_ps: detector.skew_ps,
        }
    }
}

/// Mean of `cos(phi)` for a square dither of `dither_rad` around a phase error with `rms_rad`.
pub fn mean_cos_phase(dither_rad: f64, rms_rad: f64) -> f64 {
    libm::cos(dither_rad) * libm::exp(-0.5 * rms_rad * rms_rad)
}
