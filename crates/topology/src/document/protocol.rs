//! Protocol, post-processing, control loops and scheduled disturbances of a link.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Name;
use crate::quantity::*;

/// Protocol of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Entanglement-based protocol of Bennett, Brassard and Mermin with energy-time entangled pairs.
    Bbm92EnergyTime,
    /// BB84 with weak laser pulses and decoy states.
    DecoyBb84,
    /// BB84 with a source of single photons.
    SinglePhotonBb84,
    /// Sending or not sending: two transmitters whose pulses interfere at a station that nobody trusts, with bits paired by odd
    /// parity. It can be validated and planned, and not run yet.
    SnsTwinField,
}

impl Protocol {
    /// As it stands in a document.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Bbm92EnergyTime => "bbm92-energy-time",
            Protocol::DecoyBb84 => "decoy-bb84",
            Protocol::SinglePhotonBb84 => "single-photon-bb84",
            Protocol::SnsTwinField => "sns-twin-field",
        }
    }

    /// Which kind of service holds the module of each end.
    pub(crate) fn modules(self) -> [&'static str; 2] {
        match self {
            Self::Bbm92EnergyTime => ["detector"; 2],
            Self::DecoyBb84 | Self::SinglePhotonBb84 => ["transmitter", "detector"],
            Self::SnsTwinField => ["transmitter"; 2],
        }
    }
}

/// How much of the light is simulated one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// Every click of every detector.
    #[default]
    Tags,
    /// Sifted bits of each epoch at once, with the statistics that clicks have. Everything after them is as with
    /// clicks. Clocks are not simulated, nor how loops find what they hold.
    Counts,
}

impl Fidelity {
    /// As it stands in a document.
    pub fn name(self) -> &'static str {
        match self {
            Fidelity::Tags => "tags",
            Fidelity::Counts => "counts",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Fidelity::Tags, Fidelity::Counts].into_iter().find(|fidelity| fidelity.name() == text)
    }
}

/// How the two clocks are found from the photons alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Acquisition {
    /// Largest difference of the two clocks that is searched, either way.
    pub search: Duration,
    /// Largest relative frequency difference of the two clocks that is searched.
    pub frequency_search: FrequencyError,
    /// Stretch of announcements that is correlated at once.
    pub window: Duration,
    /// False only to show what happens without a correlator.
    pub correlator: bool,
}

impl Default for Acquisition {
    fn default() -> Self {
        Acquisition {
            search: Duration::preset("10 ms"),
            frequency_search: FrequencyError::preset("200 ns/s"),
            window: Duration::preset("50 ms"),
            correlator: true,
        }
    }
}

/// How the two clocks are followed once found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tracking {
    /// Time over which coincidences are gathered for one correction: a multiple of the link's epoch.
    pub interval: Duration,
}

impl Default for Tracking {
    fn default() -> Self {
        Tracking { interval: Duration::preset("0.5 s") }
    }
}

/// Error correction by Cascade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reconciliation {
    /// Longest Cascade frame in bits.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub frame_bits: u32,
    /// Error rate assumed before the first block has been measured.
    pub initial_qber: Fraction,
}

impl Default for Reconciliation {
    fn default() -> Self {
        Reconciliation { frame_bits: 65_536, initial_qber: Fraction::preset("5 %") }
    }
}

/// What "secret" means for this link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Security {
    /// Bound that gives the length of the key.
    pub bound: Bound,
    /// Secrecy parameter of one block.
    #[schemars(range(min = 1e-40, max = 0.01))]
    pub epsilon_secrecy: f64,
    /// Correctness parameter of one block.
    #[schemars(range(min = 1e-40, max = 0.01))]
    pub epsilon_correctness: f64,
    /// Largest tolerated error rate in the check basis; a block above it aborts.
    pub tolerated_qber: Fraction,
}

impl Default for Security {
    fn default() -> Self {
        Security {
            bound: Bound::Finite,
            epsilon_secrecy: 1e-10,
            epsilon_correctness: 1e-15,
            tolerated_qber: Fraction::preset("8 %"),
        }
    }
}

/// Bound that gives the length of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The limit of long keys, as papers quote it.
    Asymptotic,
    /// The finite bound for the light of the link: Tomamichel, Lim, Gisin and Renner, Nature Communications 3, 634 (2012) for
    /// pairs, `lim2014` with two decoys, `wiesemann2024` with one, Morrison et al., Nature Communications 14, 3573 (2023) for
    /// single photons. For twin fields it is a simplified composition, which is no proof.
    Finite,
    /// Two decoys: Lim et al., PRA 89, 022307 (2014).
    Lim2014,
    /// One decoy: Rusca et al., APL 112, 171104 (2018).
    Rusca2018,
    /// One decoy, with the constants of a newer proof: Wiesemann et al., arXiv:2405.16578.
    Wiesemann2024,
}

/// Authentication of the classical channel (Wegman-Carter).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    /// Pre-placed secret per direction.
    pub reserve: DataSize,
    /// Tags made under one hash key before it is renewed.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub tags_per_hash_key: u64,
    /// Light between two checkpoints: a tag of either end closes what was sifted of a block until then, which outlives
    /// the session. Part of a round without a rest. Where nothing is said, blocks of at most 30 min have none, and
    /// longer ones as many as cost below 1 % of the key, at least 30 min apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Duration>,
}

impl Default for Authentication {
    fn default() -> Self {
        Authentication { reserve: DataSize::preset("65536 bit"), tags_per_hash_key: 1024, checkpoint: None }
    }
}

/// Control loops, which act on measured data alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Loops {
    /// Keeps the polarisation at each analyser.
    pub polarisation: PolarisationLoop,
    /// Keeps the interferometers in phase by the error rate in basis X.
    pub phase: PhaseLoop,
    /// Keeps the error rate in basis Z by the pump power.
    pub pump: PumpLoop,
}

/// Keeps the polarisation at each analyser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolarisationLoop {
    /// Whether the loop runs.
    pub enabled: bool,
}

impl Default for PolarisationLoop {
    fn default() -> Self {
        PolarisationLoop { enabled: true }
    }
}

/// Keeps the interferometers in phase by the error rate in basis X.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PhaseLoop {
    /// Whether the loop runs.
    pub enabled: bool,
    /// Amplitude of the dither that finds the minimum; 0.05 rad unless given. Only with the loop on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dither: Option<Angle>,
}

impl Default for PhaseLoop {
    fn default() -> Self {
        PhaseLoop { enabled: true, dither: None }
    }
}

impl PhaseLoop {
    pub fn dither_rad(&self) -> f64 {
        self.dither.map_or(0.05, |dither| dither.value())
    }
}

/// Keeps the error rate in basis Z by the pump power.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PumpLoop {
    /// Whether the loop runs.
    pub enabled: bool,
    /// Error rate in basis Z that the loop holds; 4.3 % unless given. Only with the loop on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_qber: Option<Fraction>,
}

impl Default for PumpLoop {
    fn default() -> Self {
        PumpLoop { enabled: true, target_qber: None }
    }
}

impl PumpLoop {
    pub fn target(&self) -> f64 {
        self.target_qber.map_or(0.043, |target| target.value())
    }
}

/// Most outages of a link.
pub(crate) const OUTAGES_MAX: usize = 64;

/// A time in which a link has no light, whatever its detectors do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outage {
    /// Simulated time at which the light goes.
    pub at: Duration,
    /// Time until it is back.
    pub lasts: Duration,
    /// Why it goes, in a few words, for those who read what happened.
    #[schemars(length(min = 1, max = 100))]
    pub cause: String,
}

/// A step that hits an instrument at a simulated time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Disturbance {
    /// The phase of one interferometer jumps.
    Phase(PhaseStep),
    /// The polarisation of one arm jumps.
    Polarisation(PolarisationStep),
    /// The power of the pump jumps.
    Pump(PumpStep),
    /// The power of a transmitter's pulses jumps.
    Power(PumpStep),
}

/// The phase of one interferometer jumps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PhaseStep {
    /// Simulated time of the step.
    pub at: Duration,
    /// Site of the interferometer.
    pub site: Name,
    /// Change of the phase.
    pub step: Angle,
}

/// The polarisation of one arm jumps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolarisationStep {
    /// Simulated time of the step.
    pub at: Duration,
    /// Site at the end of the arm.
    pub site: Name,
    /// Rotation that is added.
    pub step: Angle,
}

/// The power of a pump or of a transmitter jumps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PumpStep {
    /// Simulated time of the step.
    pub at: Duration,
    /// What the emitted power is multiplied by from then on.
    #[schemars(range(min = 0.001, max = 1000))]
    pub factor: f64,
}

impl Disturbance {
    pub fn at(&self) -> Duration {
        match self {
            Disturbance::Phase(step) => step.at,
            Disturbance::Polarisation(step) => step.at,
            Disturbance::Pump(step) | Disturbance::Power(step) => step.at,
        }
    }

    pub fn site(&self) -> Option<&Name> {
        match self {
            Disturbance::Phase(step) => Some(&step.site),
            Disturbance::Polarisation(step) => Some(&step.site),
            Disturbance::Pump(_) | Disturbance::Power(_) => None,
        }
    }
}
