//! A prepared link: gains and error rates to expect. Free-running detectors are taken as gated ones
//! ([`GatedAvalanche::always_on`]).
//!
//! X. Ma et al., PRA 72, 012326 (2005), with a background that afterpulses are part of: they follow the rate of their
//! parents, not the intensity of the pulse that they fall on, so each adds to the yield of every intensity alike.
//!
//! Left out: that a detector which clicks by light cannot click by noise as well, the drift of polarisation and phase, light
//! outside of the gate.

use super::math::transmission;
use crate::config::{Arm, BasisChoice, Encoding, GatedAvalanche, PreparedAnalyser, Transmitter};
use crate::nature::pulses::law::PhotonNumber;
use crate::nature::{dots::Emission, pulses};

/// What a receiver sees per pulse, of gates in which every detector is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedPulses {
    /// Probability of a detection, by intensity.
    pub gains: Vec<f64>,
    /// Error rate where both ends have the same basis, by intensity and for Z and X.
    pub error_rates: Vec<[f64; 2]>,
    /// Probability of a detection without light: dark counts and afterpulses.
    pub background: f64,
    /// Share of gates in which every detector is ready.
    pub ready: f64,
}

/// Rounds until the background agrees with the gains that it is part of.
const ROUNDS: usize = 60;

/// Light and noise that some of the detectors see.
struct Part {
    /// Share of the light that goes there.
    light: f64,
    detectors: i32,
}

impl Part {
    /// Background, and gain of each intensity.
    fn gains(&self, detectors: &GatedAvalanche, arriving: &dyn Fn(f64) -> Vec<f64>, shares: &[f64]) -> (f64, Vec<f64>) {
        let signal = arriving(self.light);
        let dark = 1.0 - libm::pow(1.0 - detectors.dark_probability, f64::from(self.detectors));
        let decay = detectors.afterpulse_decay_gates;
        let held = if decay > 0.0 { libm::exp(-(detectors.hold_off_gates as f64) / decay) } else { 0.0 };
        let survives = if detectors.hold_off_gates == 0 { 1.0 } else { held };
        let mut background = dark;
        let gain = |background: f64| {
            signal.iter().map(|signal| 1.0 - (1.0 - background) * (1.0 - signal)).collect::<Vec<f64>>()
        };
        for _ in 0..ROUNDS {
            let gains: Vec<f64> = gain(background);
            let mean: f64 = gains.iter().zip(shares).map(|(gain, share)| gain * share).sum();
            background = (dark + detectors.afterpulse_probability * survives * mean).min(1.0);
        }
        (background, gain(background))
    }
}

/// Gains and error rates of a link whose loops hold polarisation and phase.
pub fn expect(
    transmitter: &Transmitter,
    arm: &Arm,
    analyser: &PreparedAnalyser,
    detectors: &GatedAvalanche,
) -> ExpectedPulses {
    let survival = transmission(arm.loss_db) * detectors.efficiency;
    let numbers: Vec<PhotonNumber> = match &transmitter.light {
        crate::config::Light::Coherent(intensities) => {
            let intensities = intensities.iter().take(pulses::INTENSITIES_MAX);
            intensities.map(|intensity| PhotonNumber::Poisson { mean: intensity.mean_photons }).collect()
        }
        crate::config::Light::QuantumDot(dot) => vec![Emission::of(dot).number],
    };
    let arriving = |light: f64| numbers.iter().map(|number| number.arriving(survival * light).any).collect::<Vec<_>>();
    let shares = transmitter.light.probabilities();
    let active = analyser.basis_choice == BasisChoice::Active;
    let time_bin = analyser.encoding == Encoding::TimeBin;
    // In time-bin encoding one detector reads Z.
    let in_basis = [if time_bin { 1 } else { 2 }, 2];
    let count = if active && !time_bin { 2 } else { in_basis.iter().sum() };
    let all = Part { light: 1.0, detectors: count };
    let (background, gains) = all.gains(detectors, &arriving, &shares);
    let mut error_rates = vec![[0.0; 2]; gains.len()];
    for basis in 0..2 {
        let share = [analyser.z_probability, 1.0 - analyser.z_probability][basis];
        let light = if active { 1.0 } else { share };
        let (noise, gains) = Part { light, detectors: in_basis[basis] }.gains(detectors, &arriving, &shares);
        let contrast = (1.0 - 2.0 * transmitter.intrinsic_error[basis]) * (1.0 - 2.0 * analyser.error[basis]);
        for ((rates, gain), signal) in error_rates.iter_mut().zip(gains).zip(arriving(light)) {
            let wrong = 0.5 * (1.0 - contrast) * signal + 0.5 * noise * (1.0 - signal);
            rates[basis] = if gain > 0.0 { wrong / gain } else { 0.0 };
        }
    }
    let mean: f64 = gains.iter().zip(&shares).map(|(gain, share)| gain * share).sum();
    let blind_gates = (detectors.hold_off_gates as f64).max(if detectors.saturation_hz > 0.0 {
        libm::floor(transmitter.repetition_rate_hz / detectors.saturation_hz)
    } else {
        0.0
    });
    // Detectors see independent parts of the light, so each is ready by itself.
    let one_clicks = -libm::expm1(libm::log1p(-mean) / f64::from(count));
    let one_ready = 1.0 / (1.0 + one_clicks * blind_gates);
    ExpectedPulses { gains, error_rates, background, ready: libm::pow(one_ready, f64::from(count)) }
}
