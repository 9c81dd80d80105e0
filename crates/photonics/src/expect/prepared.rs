//! A prepared link as it is configured, reduced to the figures of [`response`], which say what is expected
//! of it.
//!
//! Taken for granted: loops hold polarisation and phase, the receiver's clock follows the mean arrival of the light.
//! Left out: latching, and that a switch between detectors of their own (time-bin encoding with an active choice) keeps
//! photons of one pulse together; it is taken as a splitter.

use super::math::{interval_share, transmission};
use super::pulses::{self, PulseClass, PulsesInputs};
use super::response::{self, Counted, Receiver, Response};
use super::single_photon::{self, SinglePhotonInputs};
use crate::config::{
    Arm, Basis, BasisChoice, Encoding, Intensity, Light, PreparedAnalyser, PreparedDetectors, Transmitter,
};
use crate::nature::dots::{Delay, Emission};
use crate::nature::pulses::law::PhotonNumber;
use crate::path::probability;

/// A link by its light.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    Pulses(PulsesInputs),
    SinglePhotons(SinglePhotonInputs),
}

impl Inputs {
    pub fn predict(&self) -> Response {
        match self {
            Self::Pulses(inputs) => pulses::predict(inputs),
            Self::SinglePhotons(inputs) => single_photon::predict(inputs),
        }
    }

    pub fn receiver(&self) -> &Receiver {
        match self {
            Self::Pulses(inputs) => &inputs.receiver,
            Self::SinglePhotons(inputs) => &inputs.receiver,
        }
    }

    /// Share of the pulses that each kind has, the brightest first.
    pub fn probabilities(&self) -> Vec<f64> {
        match self {
            Self::Pulses(inputs) => inputs.classes.iter().map(|class| class.probability).collect(),
            Self::SinglePhotons(_) => vec![1.0],
        }
    }

    pub fn pulse_rate_hz(&self) -> f64 {
        match self {
            Self::Pulses(inputs) => inputs.pulse_rate_hz,
            Self::SinglePhotons(inputs) => inputs.pulse_rate_hz,
        }
    }
}

/// Reduces instruments to lumped figures; Z is the key basis. `gate_ps` is what sifting keeps: clicks further than half
/// of it from the mean arrival of the light are dropped.
pub fn inputs(
    transmitter: &Transmitter,
    arm: &Arm,
    analyser: &PreparedAnalyser,
    detectors: &PreparedDetectors,
    gate_ps: f64,
) -> Inputs {
    let pulse_rate_hz = transmitter.repetition_rate_hz;
    let (number, delay) = match &transmitter.light {
        Light::Coherent(_) => (None, Delay::NONE),
        Light::QuantumDot(dot) => {
            let Emission { number, delay } = Emission::of(dot);
            (Some(number), delay)
        }
    };
    let receiver = receiver(transmitter, arm, analyser, detectors, gate_ps, &delay);
    match (&transmitter.light, number) {
        (_, Some(PhotonNumber::UpToTwo { one, two })) => {
            let mean_photons = one + 2.0 * two;
            let g2 = if mean_photons > 0.0 { 2.0 * two / (mean_photons * mean_photons) } else { 0.0 };
            Inputs::SinglePhotons(SinglePhotonInputs { pulse_rate_hz, mean_photons, g2, receiver })
        }
        (light, _) => {
            let intensities: &[Intensity] = if let Light::Coherent(intensities) = light { intensities } else { &[] };
            let class = |k: &Intensity| PulseClass { mean_photons: k.mean_photons, probability: k.probability };
            let classes = intensities.iter().map(class).collect();
            Inputs::Pulses(PulsesInputs { pulse_rate_hz, classes, receiver })
        }
    }
}

/// What a detector does in the period of one pulse.
struct OneDetector {
    jitter_fwhm_ps: f64,
    /// Time around the middle of the light in which it clicks at all.
    gate_ps: f64,
    /// Probability of a dark count in it.
    dark: f64,
    /// Probability that a click is followed by an afterpulse when the detector sees again.
    afterpulse: f64,
    /// Pulses that it misses after a click.
    blind_pulses: f64,
}

impl OneDetector {
    fn new(detectors: &PreparedDetectors, pulse_rate_hz: f64) -> Self {
        let period_ps = 1e12 / pulse_rate_hz;
        match detectors {
            PreparedDetectors::GatedAvalanche(gated) => {
                let saturated =
                    if gated.saturation_hz > 0.0 { libm::floor(pulse_rate_hz / gated.saturation_hz) } else { 0.0 };
                let blind_pulses = (gated.hold_off_gates as f64).max(saturated);
                // The first gate that a charge may be released in is the next one.
                let decay = gated.afterpulse_decay_gates;
                let survives = if blind_pulses <= 0.0 {
                    1.0
                } else if decay > 0.0 {
                    libm::exp(-blind_pulses / decay)
                } else {
                    0.0
                };
                Self {
                    jitter_fwhm_ps: gated.jitter_fwhm_ps,
                    gate_ps: gated.gate_width_ps.min(period_ps),
                    dark: probability(gated.dark_probability),
                    afterpulse: gated.afterpulse_probability * survives,
                    blind_pulses,
                }
            }
            PreparedDetectors::FreeRunning(free) => Self {
                jitter_fwhm_ps: free.jitter_fwhm_ps,
                gate_ps: period_ps,
                dark: -libm::expm1(-free.dark_rate_hz.max(0.0) * period_ps * 1e-12),
                afterpulse: free.afterpulse_probability,
                blind_pulses: free.dead_time_ps / period_ps,
            },
        }
    }
}

fn receiver(
    transmitter: &Transmitter,
    arm: &Arm,
    analyser: &PreparedAnalyser,
    detectors: &PreparedDetectors,
    gate_ps: f64,
    delay: &Delay,
) -> Receiver {
    let one = OneDetector::new(detectors, transmitter.repetition_rate_hz);
    let time_bin = analyser.encoding == Encoding::TimeBin;
    let bases = [Basis::Z, Basis::X];
    let contrast = |error: f64| 1.0 - 2.0 * probability(error);
    let period_ps = 1e12 / transmitter.repetition_rate_hz;
    let timing = Timing {
        width_ps: gate_ps,
        late_ps: arrival_ps(delay, period_ps),
        gate_ps: one.gate_ps,
        period_ps,
        fwhm_ps: libm::hypot(transmitter.pulse_fwhm_ps, one.jitter_fwhm_ps),
        delay,
    };
    Receiver {
        transmission: transmission(arm.loss_db) * detectors.efficiency(),
        basis_choice: match analyser.basis_choice {
            BasisChoice::Active if !time_bin => response::BasisChoice::Active,
            _ => response::BasisChoice::Passive,
        },
        key_basis_probability: [transmitter.z_probability, analyser.z_probability],
        intrinsic_error: bases.map(|basis| {
            let parts = [transmitter.intrinsic_error, analyser.error].map(|error| contrast(error[basis as usize]));
            0.5 * (1.0 - parts[0] * parts[1])
        }),
        noise_probability: bases.map(|basis| {
            // In time-bin encoding one detector reads Z.
            let count = if time_bin && basis == Basis::Z { 1.0 } else { 2.0 };
            -libm::expm1(count * libm::log1p(-one.dark))
        }),
        afterpulse_probability: one.afterpulse,
        hold_off_pulses: one.blind_pulses,
        counted: bases.map(|basis| match (time_bin, basis) {
            (false, _) => timing.counted(&[0.0], 1.0),
            // Gates have the middle of three moments in their own.
            (true, Basis::Z) => timing.counted(&[-analyser.bin_separation_ps, 0.0], 0.5),
            (true, Basis::X) => timing.counted(&[0.0], 0.5),
        }),
    }
}

/// Points at which the law of a dot's delay is taken.
const QUANTILES: u32 = 256;

fn delays(delay: &Delay) -> impl Iterator<Item = f64> {
    let count = if delay.is_none() { 1 } else { QUANTILES };
    (0..count).map(move |quantile| delay.at((f64::from(quantile) + 0.5) / f64::from(count)))
}

/// How late light arrives in the mean, folded at the period: what recovery of the clock sees and follows.
fn arrival_ps(delay: &Delay, period_ps: f64) -> f64 {
    const TURN: f64 = core::f64::consts::TAU;
    let [cosine, sine] = delays(delay).fold([0.0, 0.0], |[cosine, sine], delay_ps| {
        let angle = TURN * delay_ps / period_ps;
        [cosine + libm::cos(angle), sine + libm::sin(angle)]
    });
    libm::atan2(sine, cosine) * period_ps / TURN
}

/// Where clicks come, and where they count.
struct Timing<'a> {
    /// Of sifting's gate, which lies around the mean arrival of the light.
    width_ps: f64,
    late_ps: f64,
    /// Of the detector's own gates, around the moments without delay.
    gate_ps: f64,
    period_ps: f64,
    fwhm_ps: f64,
    delay: &'a Delay,
}

impl Timing<'_> {
    /// Light comes at each of these moments of the gate with probability `each`.
    fn counted(&self, moments_ps: &[f64], each: f64) -> Counted {
        let mut counted = Counted { light: 0.0, noise: 0.0 };
        for &moment_ps in moments_ps {
            let middle_ps = moment_ps + self.late_ps;
            // Sifting's gate may reach into those of the detector for the pulses before and after.
            for gate in [-1.0, 0.0, 1.0] {
                let open_ps = gate * self.period_ps;
                let from_ps = (middle_ps - 0.5 * self.width_ps).max(open_ps - 0.5 * self.gate_ps);
                let to_ps = (middle_ps + 0.5 * self.width_ps).min(open_ps + 0.5 * self.gate_ps);
                if to_ps > from_ps {
                    counted.light += each * self.light(from_ps - moment_ps, to_ps - moment_ps);
                    counted.noise += (to_ps - from_ps) / self.gate_ps;
                }
            }
        }
        counted
    }

    /// Share of the light that comes between two times after its moment.
    fn light(&self, from_ps: f64, to_ps: f64) -> f64 {
        let (sum, count) = delays(self.delay).fold((0.0, 0.0), |(sum, count), delay_ps| {
            (sum + interval_share(from_ps - delay_ps, to_ps - delay_ps, self.fwhm_ps), count + 1.0)
        });
        sum / count
    }
}
