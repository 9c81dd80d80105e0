//! Sources, optical paths, analysers, detectors and clocks of a link.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Bb84Analyser, FreeSpace, GatedAvalanche, Name, Provenance, QuantumDot, TwinField, WeakCoherent, provenance_map,
};
use crate::quantity::*;

/// Where the light of a link comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Source {
    /// Photon pairs from spontaneous parametric down-conversion under a continuous-wave pump.
    SpdcCw(SpdcCw),
    /// A transmitter of weak laser pulses.
    WeakCoherent(WeakCoherent),
    /// A transmitter with a quantum dot.
    QuantumDot(QuantumDot),
    /// Two transmitters of weak laser pulses, with a station between them.
    TwinField(TwinField),
}

impl Source {
    pub fn site(&self) -> &Name {
        match self {
            Source::SpdcCw(source) => &source.site,
            Source::WeakCoherent(transmitter) => &transmitter.site,
            Source::QuantumDot(transmitter) => &transmitter.site,
            Source::TwinField(station) => &station.site,
        }
    }

    /// Whether it prepares states at its site, which so is an end of its link.
    pub fn is_transmitter(&self) -> bool {
        match self {
            Source::SpdcCw(_) | Source::TwinField(_) => false,
            Source::WeakCoherent(_) | Source::QuantumDot(_) => true,
        }
    }

    /// Its `type` in a document.
    pub fn type_name(&self) -> &'static str {
        match self {
            Source::SpdcCw(_) => "spdc-cw",
            Source::WeakCoherent(_) => "weak-coherent",
            Source::QuantumDot(_) => "quantum-dot",
            Source::TwinField(_) => "twin-field",
        }
    }
}

/// Photon pairs from spontaneous parametric down-conversion under a continuous-wave pump.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpdcCw {
    /// Site that holds the source.
    pub site: Name,
    /// Pairs created per second in the channel pair of this link at nominal pump power.
    pub pair_rate: Rate,
    /// Two-photon interference visibility of the source itself.
    #[serde(default = "perfect_visibility")]
    pub visibility: Fraction,
    /// Wavelength of the pairs at degeneracy.
    #[serde(default = "default_wavelength")]
    pub wavelength: Wavelength,
    /// Spectral width (full width at half maximum) of one channel, which dispersion turns into time.
    #[serde(default = "default_bandwidth")]
    pub bandwidth: Wavelength,
    /// Pump power at the start, relative to nominal.
    #[serde(default = "nominal")]
    #[schemars(range(min = 0.001, max = 1000))]
    pub pump_initial: f64,
    /// Highest pump power that the loop may ask for, relative to nominal.
    #[serde(default = "default_pump_max")]
    #[schemars(range(min = 0.001, max = 1000))]
    pub pump_max: f64,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

fn perfect_visibility() -> Fraction {
    Fraction::preset("100 %")
}

pub(super) fn default_wavelength() -> Wavelength {
    Wavelength::preset("1550 nm")
}

fn default_bandwidth() -> Wavelength {
    Wavelength::preset("0.8 nm")
}

fn nominal() -> f64 {
    1.0
}

fn default_pump_max() -> f64 {
    2.0
}

/// One optical path from the source to a site, and the instruments there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arm {
    /// Site at the end of this arm.
    pub site: Name,
    /// The optical path, where it is a fibre. An arm has this or `freeSpace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fibre: Option<Fibre>,
    /// The optical path, where it is that between a satellite and the ground.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_space: Option<FreeSpace>,
    /// The instrument that turns a photon's state into a detector.
    #[serde(default)]
    pub analyser: Analyser,
    /// The detectors and the time-to-digital converter behind them.
    pub detector: Detector,
    /// The clock that stamps the clicks.
    #[serde(default)]
    pub clock: Clock,
    /// Where the values of this arm come from; names may be paths such as `detector.efficiency`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

/// An optical fibre and the devices along it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fibre {
    /// Length of the fibre.
    pub length: Length,
    /// Loss per length.
    #[serde(default = "default_attenuation")]
    pub attenuation: Attenuation,
    /// Connectors, multiplexers, polarisation controller and analyser together, without the detectors' efficiency.
    #[serde(default = "no_loss")]
    pub device_loss: Loss,
    /// Group index of the fibre.
    #[serde(default = "default_group_index")]
    #[schemars(range(min = 1, max = 3))]
    pub group_index: f64,
    /// Slow change of the delay with temperature.
    #[serde(default)]
    pub delay_drift: DelayDrift,
    /// Chromatic dispersion and its compensation.
    #[serde(default)]
    pub dispersion: FibreDispersion,
    /// Drift of the polarisation and what it costs at the analyser.
    #[serde(default)]
    pub polarisation: Polarisation,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

impl Fibre {
    /// Fibre and devices together.
    pub fn loss_db(&self) -> f64 {
        self.length.value() * self.attenuation.value() + self.device_loss.value()
    }

    pub fn delay_ps(&self) -> f64 {
        /// Speed of light in vacuum.
        const LIGHT_KM_PER_S: f64 = 299_792.458;
        self.length.value() * self.group_index / LIGHT_KM_PER_S * 1e12
    }

    /// What the compensation leaves of the fibre's dispersion.
    pub fn residual_dispersion_ps_per_nm(&self) -> f64 {
        self.length.value() * self.dispersion.coefficient.value() + self.dispersion.compensation.value()
    }
}

fn default_attenuation() -> Attenuation {
    Attenuation::preset("0.2 dB/km")
}

fn no_loss() -> Loss {
    Loss::preset("0 dB")
}

fn default_group_index() -> f64 {
    1.468
}

/// Slow sinusoidal change of a fibre's delay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DelayDrift {
    /// Half of the whole swing.
    pub amplitude: Duration,
    /// Period, usually a day.
    pub period: Duration,
}

impl Default for DelayDrift {
    fn default() -> Self {
        DelayDrift { amplitude: Duration::preset("0 ps"), period: Duration::preset("24 h") }
    }
}

/// Chromatic dispersion of a fibre: coefficient times length, plus the (negative) compensation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FibreDispersion {
    /// Dispersion per length at the wavelength used.
    pub coefficient: DispersionCoefficient,
    /// Dispersion of the compensating element, normally negative.
    pub compensation: Dispersion,
}

impl Default for FibreDispersion {
    fn default() -> Self {
        FibreDispersion {
            coefficient: DispersionCoefficient::preset("0 ps/nm/km"),
            compensation: Dispersion::preset("0 ps/nm"),
        }
    }
}

/// Polarisation at the analyser: two small rotation angles that drift, and the light that a wrong one loses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Polarisation {
    /// Rotation angles at the start.
    pub initial: [Angle; 2],
    /// Amplitude of the drift.
    pub drift_amplitude: Angle,
    /// Period of the drift.
    pub drift_period: Duration,
    /// Fraction of the light that is lost at the orthogonal polarisation.
    pub dependent_loss: Fraction,
}

impl Default for Polarisation {
    fn default() -> Self {
        Polarisation {
            initial: [Angle::preset("0 rad"); 2],
            drift_amplitude: Angle::preset("0 rad"),
            drift_period: Duration::preset("10 h"),
            dependent_loss: Fraction::preset("0 %"),
        }
    }
}

/// The instrument that turns a photon's state into a detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Analyser {
    /// An unbalanced interferometer: read inside its arms (basis Z) or after recombination (basis X).
    EnergyTime(EnergyTimeAnalyser),
    /// What measures the states of BB84 in one of two bases.
    Bb84(Bb84Analyser),
}

impl Default for Analyser {
    fn default() -> Self {
        Analyser::EnergyTime(EnergyTimeAnalyser::default())
    }
}

/// An unbalanced interferometer with passive choice of basis and four outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EnergyTimeAnalyser {
    /// Difference of the two arms: side peaks appear at plus and minus this.
    pub delay: Duration,
    /// Probability that a photon is read inside the arms (basis Z).
    pub z_probability: Fraction,
    /// Interference visibility.
    pub visibility: Fraction,
    /// Probability that a photon in basis Z fires the other arm's detector.
    pub crosstalk: Fraction,
    /// Phase of the interferometer and its drift.
    pub phase: Phase,
    /// Where these values come from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

impl Default for EnergyTimeAnalyser {
    fn default() -> Self {
        EnergyTimeAnalyser {
            delay: Duration::preset("400 ps"),
            z_probability: Fraction::preset("50 %"),
            visibility: Fraction::preset("99.7 %"),
            crosstalk: Fraction::preset("0 %"),
            phase: Phase::default(),
            provenance: Provenance::new(),
        }
    }
}

/// Phase of an interferometer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Phase {
    /// Phase at the start.
    pub initial: Angle,
    /// Steady drift.
    pub drift: AngularRate,
    /// Random walk.
    pub noise: AngularWalk,
}

impl Default for Phase {
    fn default() -> Self {
        Phase {
            initial: Angle::preset("0 rad"),
            drift: AngularRate::preset("0 rad/s"),
            noise: AngularWalk::preset("0 rad/sqrt(s)"),
        }
    }
}

/// The detectors of one arm, one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Detector {
    /// Superconducting nanowire single-photon detectors.
    Snspd(Snspd),
    /// Gated avalanche photodiodes.
    GatedAvalanche(GatedAvalanche),
}

/// Superconducting nanowire single-photon detectors and their time-to-digital converter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snspd {
    /// Probability that a photon at the detector makes a click.
    pub efficiency: Fraction,
    /// Timing jitter of detector and converter together (full width at half maximum).
    pub jitter: Duration,
    /// Dark counts per second and detector.
    #[serde(default = "default_dark_count_rate")]
    pub dark_count_rate: Rate,
    /// Time after a click in which the detector is blind.
    #[serde(default = "default_dead_time")]
    pub dead_time: Duration,
    /// Clicks that follow a click.
    #[serde(default)]
    pub afterpulse: Afterpulse,
    /// Clicks after which the detector stays blind until it is reset.
    #[serde(default)]
    pub latching: Latching,
    /// How their cryostat has to be cooled again and again; without it they stay cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling: Option<Cooling>,
    /// The time-to-digital converter.
    #[serde(default)]
    pub tdc: Tdc,
    /// Electronic delay of each detector that is left after calibration: short, long, plus, minus of an energy-time analyser,
    /// or Z 0, Z 1, X 0, X 1.
    #[serde(default = "no_skew")]
    pub skew: [TimeOffset; 4],
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

fn default_dark_count_rate() -> Rate {
    Rate::preset("100 cps")
}

fn default_dead_time() -> Duration {
    Duration::preset("30 ns")
}

pub(super) fn no_skew() -> [TimeOffset; 4] {
    [TimeOffset::preset("0 ps"); 4]
}

/// Cooling cycles of a cryostat that stays cold for a while and must then be recycled: its detectors are out meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cooling {
    /// Time for which it stays cold.
    pub hold_time: Duration,
    /// Time from the end of one hold time to the beginning of the next, in which the detectors do not click.
    pub recycling_time: Duration,
    /// Simulated time at which it is recycled first; `holdTime` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Duration>,
}

/// Clicks that follow a click.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Afterpulse {
    /// Probability that a click is followed by one.
    pub probability: Fraction,
    /// Mean time from the end of the dead time to it.
    pub decay: Duration,
}

impl Default for Afterpulse {
    fn default() -> Self {
        Afterpulse { probability: Fraction::preset("0 %"), decay: Duration::preset("100 ns") }
    }
}

/// Clicks after which the detector stays blind until it is reset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Latching {
    /// Probability that a click latches the detector.
    pub probability: Fraction,
    /// Time until the detector is reset.
    pub reset: Duration,
}

impl Default for Latching {
    fn default() -> Self {
        Latching { probability: Fraction::preset("0 %"), reset: Duration::preset("10 ms") }
    }
}

/// The time-to-digital converter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tdc {
    /// Resolution, a multiple of 4 ps (the unit of a time tag).
    pub resolution: Duration,
}

impl Default for Tdc {
    fn default() -> Self {
        Tdc { resolution: Duration::preset("4 ps") }
    }
}

/// The clock that stamps the clicks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Clock {
    /// A free-running rubidium clock.
    Rubidium(FreeRunningClock),
}

impl Default for Clock {
    fn default() -> Self {
        Clock::Rubidium(FreeRunningClock::default())
    }
}

/// A clock that nothing corrects: relative to simulated time it starts with an offset and drifts away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FreeRunningClock {
    /// Offset at the start.
    pub offset: TimeOffset,
    /// Frequency error at the start.
    pub frequency_error: FrequencyError,
    /// Random walk of the frequency.
    pub frequency_walk: FrequencyWalk,
    /// Random walk of the time (white frequency noise).
    pub phase_walk: TimeWalk,
    /// Where these values come from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

impl Default for FreeRunningClock {
    fn default() -> Self {
        FreeRunningClock {
            offset: TimeOffset::preset("0 ps"),
            frequency_error: FrequencyError::preset("0 ps/s"),
            frequency_walk: FrequencyWalk::preset("0 ps/s/sqrt(s)"),
            phase_walk: TimeWalk::preset("0 ps/sqrt(s)"),
            provenance: Provenance::new(),
        }
    }
}
