//! Transmitter, receiver and synchronisation of a prepared link.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Afterpulse, Name, Phase, Provenance, Tdc, default_wavelength, no_skew, provenance_map};
use crate::quantity::*;

/// A transmitter of weak laser pulses with random phase, in two or three intensities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WeakCoherent {
    /// Site that holds the transmitter: an end of the link.
    pub site: Name,
    /// Pulses per second.
    pub repetition_rate: Rate,
    /// Intensities of the pulses, the brightest first.
    pub intensities: Intensities,
    /// How states are written on the pulses.
    pub encoder: Encoder,
    /// Duration of a pulse (full width at half maximum).
    #[serde(default = "default_pulse_width")]
    pub pulse_width: Duration,
    /// Wavelength of the pulses.
    #[serde(default = "default_wavelength")]
    pub wavelength: Wavelength,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

fn default_pulse_width() -> Duration {
    Duration::preset("50 ps")
}

/// Intensities by name. Their probabilities sum to 100 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intensities {
    /// The brightest.
    pub signal: Intensity,
    /// Weaker than the signal.
    pub decoy: Intensity,
    /// The weakest, at or near nothing; without it there is one decoy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vacuum: Option<Intensity>,
}

impl Intensities {
    /// By name, the brightest first.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, &Intensity)> {
        [("signal", &self.signal), ("decoy", &self.decoy)].into_iter().chain(self.vacuum.iter().map(|k| ("vacuum", k)))
    }
}

/// Pulses of one intensity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intensity {
    /// Mean photons per pulse where it leaves the transmitter.
    #[schemars(range(min = 0, max = 10))]
    pub mean_photons: f64,
    /// Probability that a pulse has this intensity.
    pub probability: Fraction,
}

/// A transmitter whose pulses come from a quantum dot: one photon, rarely two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuantumDot {
    /// Site that holds the transmitter: an end of the link.
    pub site: Name,
    /// Pulses per second.
    pub repetition_rate: Rate,
    /// Mean photons per pulse where it leaves the transmitter, before its temporal filter.
    #[schemars(range(min = 0, max = 1))]
    pub brightness: f64,
    /// Second-order correlation at delay 0 before the temporal filter, as an upper bound: the proof relies on it.
    #[schemars(range(min = 0, max = 10))]
    pub g2: f64,
    /// Mean delay of a photon after its trigger.
    #[serde(default = "no_time")]
    pub lifetime: Duration,
    /// What the transmitter lets out of the emission; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporal_filter: Option<TemporalFilter>,
    /// How states are written on the photons.
    pub encoder: Encoder,
    /// Duration of a trigger pulse (full width at half maximum).
    #[serde(default = "default_pulse_width")]
    pub pulse_width: Duration,
    /// Wavelength of the photons.
    #[serde(default = "default_wavelength")]
    pub wavelength: Wavelength,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

fn no_time() -> Duration {
    Duration::preset("0 ps")
}

/// A gate after each trigger, outside of which the transmitter keeps light back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemporalFilter {
    /// Time from the trigger to the opening.
    #[serde(default = "no_time")]
    pub start: Duration,
    /// Time from opening to closing.
    pub width: Duration,
}

/// The modulator of a transmitter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encoder {
    /// What carries the states.
    pub encoding: Encoding,
    /// Probability that a pulse is prepared in basis Z.
    #[serde(default = "half")]
    pub z_probability: Fraction,
    /// Probability that a photon is in the other state of its basis.
    #[serde(default)]
    pub error: BasisErrors,
    /// Distance of the early and the late bin. Only with time-bin encoding, which needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin_separation: Option<Duration>,
    /// Phase of the transmitter's interferometer, with time-bin or phase encoding.
    #[serde(default)]
    pub phase: Phase,
}

fn half() -> Fraction {
    Fraction::preset("50 %")
}

/// What carries the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Two pairs of linear polarisations.
    Polarisation,
    /// An early or a late pulse (basis Z), or the phase between the two (basis X).
    TimeBin,
    /// Phases between two halves of a pulse, a quarter of a turn apart for the two bases.
    Phase,
}

impl Encoding {
    /// As it stands in a document.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Polarisation => "polarisation",
            Encoding::TimeBin => "time-bin",
            Encoding::Phase => "phase",
        }
    }
}

/// An error probability of each basis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BasisErrors {
    /// In basis Z.
    pub z: Fraction,
    /// In basis X.
    pub x: Fraction,
}

impl Default for BasisErrors {
    fn default() -> Self {
        BasisErrors { z: Fraction::preset("0 %"), x: Fraction::preset("0 %") }
    }
}

impl BasisErrors {
    pub fn values(&self) -> [f64; 2] {
        [self.z.value(), self.x.value()]
    }
}

/// The analyser of a prepared link: a choice of basis, and what tells the two states of it apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bb84Analyser {
    /// What carries the states: the transmitter's encoding.
    pub encoding: Encoding,
    /// Who chooses the basis that a pulse is measured in.
    #[serde(default)]
    pub basis_choice: BasisChoice,
    /// Probability that light is measured in basis Z.
    #[serde(default = "half")]
    pub z_probability: Fraction,
    /// Probability that a photon goes to the wrong detector: half of what the visibility lacks.
    #[serde(default)]
    pub error: BasisErrors,
    /// Delay of the interferometer: the transmitter's bin separation. Only with time-bin encoding, which needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Phase of the interferometer and its drift, with time-bin or phase encoding.
    #[serde(default)]
    pub phase: Phase,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

/// Who chooses the basis that a pulse is measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BasisChoice {
    /// A beam splitter, photon by photon; each output has a detector of its own.
    #[default]
    Passive,
    /// A modulator (with time bins a switch), pulse by pulse, by the receiver's own generator.
    Active,
}

/// Avalanche photodiodes that are sensitive in gates, one for each pulse, and their time-to-digital converter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatedAvalanche {
    /// Probability that a photon at the detector makes a click.
    pub efficiency: Fraction,
    /// Timing jitter of detector and converter together (full width at half maximum).
    pub jitter: Duration,
    /// Sensitive time of a gate, at most the period of the pulses.
    pub gate_width: Duration,
    /// Probability of a dark count per gate and detector.
    pub dark_probability: Fraction,
    /// Clicks that follow a click.
    #[serde(default)]
    pub afterpulse: Afterpulse,
    /// Time after a click in which the detector gets no gates, rounded up to whole gates.
    #[serde(default = "no_time")]
    pub hold_off: Duration,
    /// Highest click rate of a detector; without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<Rate>,
    /// The time-to-digital converter.
    #[serde(default)]
    pub tdc: Tdc,
    /// Electronic delay of each output (Z 0, Z 1, X 0, X 1) that is left after calibration.
    #[serde(default = "no_skew")]
    pub skew: [TimeOffset; 4],
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

/// How a receiver of pulses knows when they come, and the number of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Sync {
    /// From the photons alone: their period, and a preamble of public states at the start of each session.
    Photons(PhotonSync),
    /// From the transmitter's clock, which comes through a second fibre of the same length.
    Distributed(DistributedSync),
}

/// Clock recovery from the photons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PhotonSync {
    /// Light at the start of a session whose states are public and make no key; at least as long as the reach.
    pub preamble: Duration,
    /// Largest difference between the start of the receiver's first frame and the first pulse, either way; one epoch unless
    /// given, and never less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Duration>,
    /// Largest relative frequency difference of the two clocks that is searched.
    #[serde(default = "default_frequency_search")]
    pub frequency_search: FrequencyError,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

fn default_frequency_search() -> FrequencyError {
    FrequencyError::preset("200 ns/s")
}

/// A clock that is distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DistributedSync {
    /// Jitter of the distributed clock (full width at half maximum), which adds to that of the detectors.
    #[serde(default = "no_time")]
    pub jitter: Duration,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

/// The basis whose bits become key; the other one is for checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyBasis {
    /// As most papers have it.
    #[default]
    Z,
    /// As in Lim et al., PRA 89, 022307 (2014).
    X,
}
