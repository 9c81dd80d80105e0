//! What one service gets to know: everything it needs, and nothing of the others' secrets.

use std::collections::BTreeMap;

use distill::config::{Entangled, LinkProtocol};
use distill::sifting::prepared::config::Prepared;
use photonics::config::{
    Arm, Clock, Detector, EnergyTimeAnalyser, Outage, PreparedAnalyser, PreparedDetectors, SpdcCw, Transmitter,
};
use serde::{Deserialize, Serialize};

use super::seed::SecretSeed;
use super::space::SpaceLink;
pub use crate::document::Speed;
use crate::document::WhenFull;

/// A source, which feeds one link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Name of this service and of its certificate.
    pub name: String,
    pub link: String,
    pub site: String,
    pub epoch_ps: u64,
    pub latency_epochs: u64,
    /// Epochs of one round, for spans that group epochs as blocks do.
    pub round_epochs: u64,
    pub speed: Speed,
    /// Epochs after which the run ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs_limit: Option<u64>,
    /// Without one, randomness is the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subseed: Option<SecretSeed>,
    pub nature: Nature,
    /// When it gives no light that is seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<PlannedOutage>,
    /// Who keeps the network at one time, where it has other sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pacing: Option<Pacing>,
    pub faults_allowed: bool,
    /// Peers that may connect: the modules by output, then who controls the run.
    pub accepts: Vec<String>,
}

/// Epochs without light, or with light that nobody sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedOutage {
    /// The output whose detectors are out. Without one there is no light at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u32>,
    /// For those who read what happened.
    pub cause: String,
    pub epochs: Outage,
}

/// What a source knows of the network's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pacing {
    /// Service that keeps it, and says how far this source may go.
    pub service: String,
}

/// The pacer, which keeps the sources of a network at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacerConfig {
    /// Name of this service and of its certificate.
    pub name: String,
    pub site: String,
    pub sources: Vec<PacedSource>,
    /// How far a source may be ahead of the slowest one.
    pub skew_ps: u64,
    /// Nothing that happens in wall time may decide where a source begins: the others wait for it.
    #[serde(default)]
    pub repeatable: bool,
    pub faults_allowed: bool,
    /// Peers that may connect.
    pub accepts: Vec<String>,
}

/// A source that goes by the network's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacedSource {
    pub service: String,
    pub link: String,
}

/// What a source draws the light of its link by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Nature {
    Pairs(Box<Pairs>),
    Pulses(Box<Pulses>),
    /// Of either, at the fidelity of counts: the sifted bits.
    Counts(Counts),
}

impl Nature {
    /// Whether its light is that of pairs, whose power can be set.
    pub fn is_pumped(&self) -> bool {
        matches!(self, Nature::Pairs(_) | Nature::Counts(Counts::Pairs(_)))
    }
}

/// Light that is drawn as counts, and what is known of how its clicks would be sifted: by that the formulae say how
/// many bits to expect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "kebab-case")]
pub enum Counts {
    Pairs(Box<CountedPairs>),
    Pulses(Box<CountedPulses>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedPairs {
    pub light: Pairs,
    /// That of output 0; what both ends have in common is used.
    pub sifting: Entangled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedPulses {
    pub light: Pulses,
    /// Of the receiver.
    pub detectors: PreparedDetectors,
    pub sifting: Prepared,
    /// What more the way takes where it leads to a satellite: the loss of the arm is that of optics alone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<Box<SpaceLink>>,
}

/// Entangled pairs, a photon to each output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairs {
    pub emitter: SpdcCw,
    pub arms: [Arm; 2],
    pub analysers: [EnergyTimeAnalyser; 2],
    pub detectors: [Detector; 2],
}

/// Pulses that the transmitter, output 0, prepares, through one arm to the detector, output 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pulses {
    pub transmitter: Transmitter,
    pub arm: Arm,
    pub analyser: PreparedAnalyser,
    /// Of the receiver's detectors.
    pub efficiency: f64,
}

impl SourceConfig {
    /// Names of the two modules, by output.
    pub fn modules_by_output(&self) -> impl Iterator<Item = &String> {
        self.accepts.iter().take(2)
    }
}

/// The module at one end of a link: sessions with its peer, blocks, delivery to the key store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleConfig {
    /// Name of the service that holds it, and of its certificate.
    pub name: String,
    pub link: String,
    pub site: String,
    /// Site at the other end.
    pub peer_site: String,
    /// Output of the source that this end takes its light from or follows: 0 or 1.
    pub output: u32,
    pub epoch_ps: u64,
    pub latency_epochs: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs_limit: Option<u64>,
    /// Blocks that are kept one by one.
    pub blocks_kept: u64,
    pub protocol: LinkProtocol,
    /// Pump set-point until the loop has measured something, relative to nominal.
    pub initial_pump: f64,
    /// The protocol's randomness; without one it is the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subseed: Option<SecretSeed>,
    /// Service that sends the photons.
    pub source: String,
    /// Service that reaches the other module.
    pub channel: String,
    /// Key store that takes the blocks; without one they stay where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<String>,
    /// While its blocks find no room, the link has no light.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dark_when_full: bool,
    pub faults_allowed: bool,
    /// Peers that may connect.
    pub accepts: Vec<String>,
}

/// A receiving end of a link: the instrument and the module behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    pub module: ModuleConfig,
    pub receiver: Receiver,
    /// Nature's randomness in the instrument; without one it is the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instrument_subseed: Option<SecretSeed>,
    /// When its detectors do not click.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
}

/// The instruments of a detector node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Receiver {
    Entangled(EntangledReceiver),
    Prepared(PreparedReceiver),
}

/// The instruments at an end of a link of entangled pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntangledReceiver {
    pub detector: Detector,
    pub clock: Clock,
    pub analyser: EnergyTimeAnalyser,
    /// Group delay of this end's arm at the start.
    pub arm_delay_ps: f64,
}

/// The instruments at the receiving end of a prepared link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedReceiver {
    pub detectors: PreparedDetectors,
    pub clock: Clock,
    pub analyser: PreparedAnalyser,
    /// Of the pulses, which gates follow.
    pub repetition_rate_hz: f64,
    /// Group delay of the arm at the start.
    pub arm_delay_ps: f64,
}

/// The sending end of a prepared link: what chooses each pulse's state, and the module that knows it. In a run with a
/// seed the choices of a session are derived from the module's subseed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransmitterConfig {
    pub module: ModuleConfig,
    pub transmitter: Transmitter,
}

/// One endpoint of the classical authenticated channel of a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelConfig {
    /// Name of this service and of its certificate.
    pub name: String,
    pub link: String,
    pub site: String,
    pub peer_site: String,
    /// Whether this end connects to its peer; the other end waits.
    pub initiates: bool,
    /// The channel service at the other end.
    pub peer: String,
    /// The module that this end serves.
    pub module: String,
    /// Delay of the fibre between the two ends, in simulated time.
    pub delay_ps: u64,
    /// How simulated time goes: frames wait for the delay where it is paced, and not at all where it is not.
    pub speed: Speed,
    /// Pre-placed secret per direction, in bits.
    pub reserve_bits: u64,
    pub tags_per_hash_key: u64,
    pub faults_allowed: bool,
    /// Peers that may connect.
    pub accepts: Vec<String>,
}

/// The key store of a site and its interface to applications.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsConfig {
    /// Name of this service and of its certificate; also the KME ID that applications see.
    pub name: String,
    pub site: String,
    /// Key stores that this one can share key with. The plan has those at the other end of a link; others come from the
    /// [`Directory`](super::Directory) when the service starts, as do the applications.
    pub peers: Vec<KmsPeer>,
    /// Modules that deliver key here, with the site at the other end of their link.
    pub modules: Vec<KmsModule>,
    /// The site's relay, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Key that one transfer of that relay carries.
    pub relay_transfer_bytes: u32,
    /// Applications that take key here.
    pub saes: Vec<String>,
    /// Every application of the network and its site.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub directory: BTreeMap<String, String>,
    pub supply: KeySupply,
    pub faults_allowed: bool,
    /// Peers that may connect.
    pub accepts: Vec<String>,
}

/// Another site's key store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsPeer {
    pub site: String,
    pub service: String,
    /// A quantum link joins the two sites.
    pub adjacent: bool,
}

/// A module that delivers key to a key store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsModule {
    pub service: String,
    pub link: String,
    pub peer_site: String,
}

/// What applications may ask for, and how much a pool holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySupply {
    pub key_size_bits: u32,
    pub key_size_min_bits: u32,
    pub key_size_max_bits: u32,
    pub keys_per_request: u32,
    pub key_count_max: u32,
    pub additional_saes: u32,
    pub keys_per_second: u32,
    pub keys_waiting: u32,
    pub pool_bits: u64,
    #[serde(default, skip_serializing_if = "KeySupply::waits_when_full")]
    pub when_full: WhenFull,
    pub retention_ms: u64,
    pub redelivery_window_ms: u64,
}

impl KeySupply {
    fn waits_when_full(when_full: &WhenFull) -> bool {
        *when_full == WhenFull::Wait
    }
}

/// The trusted-node relay of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Name of this service and of its certificate.
    pub name: String,
    pub site: String,
    /// The site's key store, which does everything secret.
    pub kms: String,
    pub neighbours: Vec<RelayNeighbour>,
    /// Sites without a link to this one for which this end fills a pool; beside them the rerouted neighbours. They come
    /// from the [`Directory`](super::Directory) when the service starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    pub transfer_bytes: u32,
    pub low_water_bytes: u64,
    pub high_water_bytes: u64,
    pub shares: u8,
    pub faults_allowed: bool,
    /// Peers that may connect.
    pub accepts: Vec<String>,
}

/// The relay of a site at the other end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayNeighbour {
    pub site: String,
    pub service: String,
    /// Key for it goes around the link to it while there is little: this end fills their pool, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rerouted: bool,
}

/// The configuration of a service, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "service", rename_all = "kebab-case")]
pub enum ServiceConfig {
    Source(Box<SourceConfig>),
    Detector(Box<DetectorConfig>),
    Transmitter(Box<TransmitterConfig>),
    Channel(Box<ChannelConfig>),
    Kms(Box<KmsConfig>),
    Relay(Box<RelayConfig>),
    Pacer(Box<PacerConfig>),
}

impl ServiceConfig {
    /// The module of a link's end, where this holds one.
    pub fn module(&self) -> Option<&ModuleConfig> {
        match self {
            ServiceConfig::Detector(config) => Some(&config.module),
            ServiceConfig::Transmitter(config) => Some(&config.module),
            ServiceConfig::Source(_)
            | ServiceConfig::Channel(_)
            | ServiceConfig::Kms(_)
            | ServiceConfig::Relay(_)
            | ServiceConfig::Pacer(_) => None,
        }
    }

    pub fn module_mut(&mut self) -> Option<&mut ModuleConfig> {
        match self {
            ServiceConfig::Detector(config) => Some(&mut config.module),
            ServiceConfig::Transmitter(config) => Some(&mut config.module),
            ServiceConfig::Source(_)
            | ServiceConfig::Channel(_)
            | ServiceConfig::Kms(_)
            | ServiceConfig::Relay(_)
            | ServiceConfig::Pacer(_) => None,
        }
    }

    /// Kind of the service, as the command line names it.
    pub fn kind(&self) -> &'static str {
        match self {
            ServiceConfig::Source(_) => "source",
            ServiceConfig::Detector(_) => "detector",
            ServiceConfig::Transmitter(_) => "transmitter",
            ServiceConfig::Channel(_) => "channel",
            ServiceConfig::Kms(_) => "kms",
            ServiceConfig::Relay(_) => "relay",
            ServiceConfig::Pacer(_) => "pacer",
        }
    }
}
