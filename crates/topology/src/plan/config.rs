//! What one service gets to know: everything it needs, and nothing of the others' secrets.

use std::collections::BTreeMap;

use distill::config::LinkProtocol;
use photonics::config::{Arm, Clock, Detector, EnergyTimeAnalyser, SpdcCw};
use serde::{Deserialize, Serialize};

use super::seed::SecretSeed;
pub use crate::document::Speed;

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
    pub emitter: SpdcCw,
    pub arms: [Arm; 2],
    pub analysers: [EnergyTimeAnalyser; 2],
    pub detectors: [Detector; 2],
    pub faults_allowed: bool,
    /// Peers that may connect: the two detectors by output, then who controls the run.
    pub accepts: Vec<String>,
}

impl SourceConfig {
    /// Names of the two detectors, by output.
    pub fn detectors_by_output(&self) -> impl Iterator<Item = &String> {
        self.accepts.iter().take(2)
    }
}

/// One end of a link: the instrument and the module behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    /// Name of this service and of its certificate.
    pub name: String,
    pub link: String,
    pub site: String,
    /// Site at the other end.
    pub peer_site: String,
    /// Output of the source that feeds this end: 0 or 1.
    pub output: u32,
    pub epoch_ps: u64,
    pub latency_epochs: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs_limit: Option<u64>,
    pub detector: Detector,
    pub clock: Clock,
    pub analyser: EnergyTimeAnalyser,
    /// Group delay of this end's arm at the start.
    pub arm_delay_ps: f64,
    pub protocol: LinkProtocol,
    /// Pump set-point until the loop has measured something, relative to nominal.
    pub initial_pump: f64,
    /// Nature's randomness in the instrument; without one it is the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instrument_subseed: Option<SecretSeed>,
    /// The protocol's randomness in the module; without one it is the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_subseed: Option<SecretSeed>,
    /// Service that sends the photons.
    pub source: String,
    /// Service that reaches the other module.
    pub channel: String,
    /// Key store that takes the blocks; without one they stay where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<String>,
    pub faults_allowed: bool,
    /// Peers that may connect.
    pub accepts: Vec<String>,
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
    pub retention_ms: u64,
    pub redelivery_window_ms: u64,
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
    /// Sites without a link to this one for which this end fills a pool. They come from the
    /// [`Directory`](super::Directory) when the service starts.
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
}

/// The configuration of a service, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "service", rename_all = "kebab-case")]
pub enum ServiceConfig {
    Source(Box<SourceConfig>),
    Detector(Box<DetectorConfig>),
    Channel(Box<ChannelConfig>),
    Kms(Box<KmsConfig>),
    Relay(Box<RelayConfig>),
}

impl ServiceConfig {
    /// Kind of the service, as the command line names it.
    pub fn kind(&self) -> &'static str {
        match self {
            ServiceConfig::Source(_) => "source",
            ServiceConfig::Detector(_) => "detector",
            ServiceConfig::Channel(_) => "channel",
            ServiceConfig::Kms(_) => "kms",
            ServiceConfig::Relay(_) => "relay",
        }
    }
}
