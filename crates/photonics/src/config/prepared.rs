//! The instruments of a prepared link: a transmitter that sends one state after the other, and the receiver for them.

use super::{Detector, PORTS, Step};
use crate::nature::dots::Emission;
use serde::{Deserialize, Serialize};

/// A basis. Z makes the key; X checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Basis {
    Z = 0,
    X = 1,
}

/// What carries the states.
///
/// Each has its own meaning of the four [`Port`](super::Port)s of a tag: port 0 and 1 are bit 0 and 1 of Z, port 2 and
/// 3 those of X. In time-bin encoding one detector reads Z, port 0, and the time of its click is the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Two pairs of orthogonal linear polarisations, which a rotation of the fibre mixes.
    Polarisation,
    /// Z: early or late pulse; X: phase between the two, read behind an unbalanced interferometer.
    TimeBin,
    /// Both bases are phases between two pulses, a quarter of a turn apart. The interferometer loses no light to side
    /// peaks.
    Phase,
}

/// One intensity of a weak-coherent source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intensity {
    /// Mean photons per pulse where it leaves the transmitter.
    pub mean_photons: f64,
    /// Probability that a pulse has this intensity. They sum to 1.
    pub probability: f64,
}

/// Single-photon emission, pulse by pulse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantumDot {
    /// Mean photons per pulse where it leaves the transmitter.
    pub mean_photons: f64,
    /// Second-order correlation at delay zero, `2 p2 / mean^2`: no pulse has more than two photons.
    pub g2: f64,
    /// Radiative lifetime: mean delay of a photon after its trigger.
    pub lifetime_ps: f64,
    /// What the transmitter lets out of the emission, in ps after the trigger; without it all.
    ///
    /// `mean_photons` and `g2` are those before it. Light that it keeps back never leaves.
    #[serde(default)]
    pub temporal_filter: Option<TemporalFilter>,
}

impl QuantumDot {
    /// Mean photons per pulse that its temporal filter lets out.
    pub fn mean_photons_sent(&self) -> f64 {
        Emission::of(self).number.mean()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporalFilter {
    pub start_ps: f64,
    pub width_ps: f64,
}

/// What a pulse is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "of", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Light {
    /// Laser pulses with random phase, in at most [`INTENSITIES_MAX`](crate::nature::pulses::INTENSITIES_MAX)
    /// intensities.
    Coherent(Vec<Intensity>),
    QuantumDot(QuantumDot),
}

impl Light {
    /// Mean photons per pulse of each intensity; a quantum dot has one.
    pub fn mean_photons(&self) -> Vec<f64> {
        match self {
            Self::Coherent(intensities) => intensities.iter().map(|intensity| intensity.mean_photons).collect(),
            Self::QuantumDot(dot) => vec![dot.mean_photons],
        }
    }

    /// Probability of each intensity.
    pub fn probabilities(&self) -> Vec<f64> {
        match self {
            Self::Coherent(intensities) => intensities.iter().map(|intensity| intensity.probability).collect(),
            Self::QuantumDot(_) => vec![1.0],
        }
    }
}

/// The transmitter of a prepared link.
///
/// It has no clock of its own among its parameters: its clock *is* the link's simulated time, by definition. Pulse 0 is
/// born half a period after an epoch's start, and every period is as long as it says. Nothing on a link can tell the
/// wander of the one clock from that of the other; only their difference is seen, and all of it is given to the
/// receiver's [`Clock`](super::Clock): offset, frequency error and both random walks are those of the receiver against
/// the transmitter. (Two independent walks differ by one whose strength is their root sum of squares.) A receiver that
/// several transmitters send to has one clock for all of them; what their clocks differ by belongs into the repetition
/// rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transmitter {
    /// Pulses per second, to a thousandth.
    pub repetition_rate_hz: f64,
    pub encoding: Encoding,
    pub light: Light,
    /// Probability that a pulse is prepared in Z.
    pub z_probability: f64,
    /// Probability that a photon is in the other state of its basis, for Z and X.
    pub intrinsic_error: [f64; 2],
    /// Duration of a pulse, full width at half maximum; what a quantum dot's trigger has.
    pub pulse_fwhm_ps: f64,
    /// Distance of early and late in time-bin encoding; otherwise 0.
    #[serde(default)]
    pub bin_separation_ps: f64,
    /// Phase of the transmitter's interferometer (time-bin and phase encoding).
    #[serde(default)]
    pub phase: PhaseDrift,
    /// Pulses at the start of a session whose states are public, by which the receiver finds the number of a pulse.
    pub preamble_pulses: u64,
    /// Scheduled levels of the power relative to what it should be (undisturbed: 1).
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// The phase that an interferometer has by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseDrift {
    pub initial_rad: f64,
    pub rad_per_s: f64,
    /// Strength of the random walk, rad per square root of a second.
    pub noise_rad_per_sqrt_s: f64,
    /// Scheduled extra phase, rad (undisturbed: 0).
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// Who chooses the basis that a pulse is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BasisChoice {
    /// A beam splitter, photon by photon; each port has a detector of its own.
    Passive,
    /// A modulator, pulse by pulse, by a generator of the receiver; port 0 and 2 are one detector, 1 and 3 the other.
    /// In time-bin encoding, where the bases are read in different places, a switch.
    Active,
}

/// What is in front of the detectors of a prepared link's receiver. Its losses belong to the arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedAnalyser {
    pub encoding: Encoding,
    pub basis_choice: BasisChoice,
    /// Probability that light is measured in Z.
    pub z_probability: f64,
    /// Probability that a photon goes to the wrong port, for Z and X: `(1 - visibility) / 2`.
    pub error: [f64; 2],
    /// Delay of the interferometer, equal to the transmitter's, in time-bin encoding; otherwise 0.
    #[serde(default)]
    pub bin_separation_ps: f64,
    /// Phase of the receiver's interferometer (time-bin and phase encoding).
    #[serde(default)]
    pub phase: PhaseDrift,
}

/// Avalanche photodiodes that are sensitive in gates, one for each pulse, and the converter behind them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatedAvalanche {
    pub efficiency: f64,
    /// Timing jitter of detector and converter together, full width at half maximum of a Gaussian.
    pub jitter_fwhm_ps: f64,
    /// Sensitive time of a gate, at most the period. Gates follow the pulses, their middle is the middle of the light.
    pub gate_width_ps: f64,
    /// Probability of a dark count per gate and detector.
    pub dark_probability: f64,
    /// Probability that a click leaves a charge behind that fires the same detector later, if it is ready then.
    pub afterpulse_probability: f64,
    /// Mean number of gates until then.
    pub afterpulse_decay_gates: f64,
    /// Gates after a click in which the detector is off.
    pub hold_off_gates: u64,
    /// Highest click rate of a detector: the electronics is blind for the inverse after a click; 0 for no limit.
    pub saturation_hz: f64,
    /// Resolution of the converter. Tags are multiples of 4 ps; this is a multiple of that.
    pub tdc_resolution_ps: f64,
    /// Electronic delay of each port's detector that is left after calibration.
    pub skew_ps: [f64; PORTS],
}

/// The detectors of a prepared link's receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PreparedDetectors {
    FreeRunning(Detector),
    GatedAvalanche(GatedAvalanche),
}

impl PreparedDetectors {
    pub fn efficiency(&self) -> f64 {
        match self {
            Self::FreeRunning(detector) => detector.efficiency,
            Self::GatedAvalanche(detector) => detector.efficiency,
        }
    }

    /// Time after a click in which its detector sees nothing. Of two clicks closer than this the later one tells which
    /// detector was dead: sifting has to drop it.
    pub fn dead_time_ps(&self, repetition_rate_hz: f64) -> f64 {
        match self {
            Self::FreeRunning(detector) => detector.dead_time_ps,
            Self::GatedAvalanche(detector) => {
                // To the end of the last gate that is off, wherever in its own gate the click was.
                let gates = if detector.hold_off_gates > 0 { detector.hold_off_gates as f64 + 0.5 } else { 0.0 };
                let hold_off_ps = gates * 1e12 / repetition_rate_hz;
                let blind_ps = if detector.saturation_hz > 0.0 { 1e12 / detector.saturation_hz } else { 0.0 };
                hold_off_ps.max(blind_ps)
            }
        }
    }
}
