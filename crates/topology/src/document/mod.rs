//! The topology document: what a person writes, as types.
//!
//! The same types give the JSON Schema. A new protocol, source, analyser, detector or clock is a new variant here.

mod cluster;
mod instruments;
mod keys;
mod prepared;
mod protocol;
mod reference;
mod space;
mod twin_field;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use cluster::*;
pub use instruments::*;
pub use keys::*;
pub use prepared::*;
pub use protocol::*;
pub use reference::*;
pub use space::*;
pub use twin_field::*;

use crate::quantity::{Duration, Length};

/// Longest DNS label: names of sites, links and services are names of hosts too.
pub const NAME_LENGTH_MAX: usize = 63;
pub const SITES_MAX: usize = 1024;
pub const LINKS_MAX: usize = 4096;

/// A quantum-key-distribution network: sites, links, instruments, and how to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    /// Version of this format.
    pub api_version: ApiVersion,
    /// Kind of this document.
    pub kind: Kind,
    /// Name and labels of this network.
    pub metadata: Metadata,
    /// What the network consists of.
    pub spec: Spec,
}

/// Version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// First version.
    #[serde(rename = "qkdnet.dev/v1alpha1")]
    V1Alpha1,
}

/// Kind of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A network.
    Topology,
}

/// Name and labels of an object, as Kubernetes knows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name of the network, a DNS label.
    pub name: Name,
    /// Kubernetes namespace; means nothing elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// Labels of the object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), schema_with = "text_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), schema_with = "annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

/// What the network consists of and how it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// How the simulation runs.
    #[serde(default)]
    pub run: Run,
    /// What faults may be brought into a running network.
    #[serde(default)]
    pub faults: Faults,
    /// Key stores at the sites, and what applications get from them.
    #[serde(default)]
    pub key_management: KeyManagement,
    /// How much of what was made is kept one by one.
    #[serde(default)]
    pub retention: Retention,
    /// How many services share a container on Kubernetes; means nothing elsewhere.
    #[serde(default)]
    pub packing: Packing,
    /// What becomes of stored key on Kubernetes when a link, a site or the whole network goes; means nothing elsewhere.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Trusted nodes and places that hold a source.
    #[schemars(length(min = 1, max = SITES_MAX))]
    pub sites: Vec<Site>,
    /// Quantum links between pairs of sites.
    #[schemars(length(min = 1, max = LINKS_MAX))]
    pub links: Vec<Link>,
}

/// How the simulation runs. The command line overrides `speed`, `for`, `seed` and `fidelity`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Run {
    /// `max` for as fast as the machine allows, or simulated seconds per second of wall time, such as 1.
    pub speed: Speed,
    /// Simulated time after which the run ends; without it the run goes on until it is stopped.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// Universal time at which simulated time begins. Satellites need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Moment>,
    /// Makes a run repeatable and its keys worthless; without it randomness is the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    // What every reader of JSON takes exactly; the checks of an API server are in floating point.
    #[schemars(range(max = 9_007_199_254_740_991_i64))]
    pub seed: Option<u64>,
    /// How much of the light is simulated one by one, on links that do not say it themselves; `tags` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<Fidelity>,
    /// Slice of simulated time that is exchanged at once, on links that do not say it themselves; also the slice of local time
    /// that is announced at once.
    pub epoch: Duration,
    /// How far links may be apart in simulated time; without it the longest epoch, and at least 1 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew: Option<Duration>,
    /// Epochs between a measurement and the moment when the set-point that follows from it acts.
    #[schemars(range(min = 3, max = 1000))]
    pub latency: u32,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            speed: Speed::Max,
            duration: None,
            start: None,
            seed: None,
            fidelity: None,
            epoch: Duration::preset("20 ms"),
            skew: None,
            latency: 8,
        }
    }
}

/// How much of what was made is kept one by one. Sums and what two ends compare are kept of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// Blocks of a link end whose account and trace are kept; of older ones a digest and the sum of their accounts are.
    #[schemars(range(min = 100, max = 10_000_000))]
    pub blocks: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { blocks: 10_000 }
    }
}

/// Simulated time over wall time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as the machine allows.
    Max,
    /// Simulated seconds per second of wall time.
    RealTime(f64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SpeedText {
    Number(u32),
    Text(String),
}

impl Speed {
    /// Slowest and fastest pace that can be asked for.
    const RANGE: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

    /// `max`, or a number between 0.001 and 1,000,000.
    pub fn parse(text: &str) -> Option<Speed> {
        match text {
            "max" => Some(Speed::Max),
            _ => text.parse().ok().filter(|pace| Self::RANGE.contains(pace)).map(Speed::RealTime),
        }
    }
}

impl Serialize for Speed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Speed::Max => serializer.serialize_str("max"),
            Speed::RealTime(pace) if pace.fract() == 0.0 => serializer.serialize_u32(pace as u32),
            Speed::RealTime(pace) => serializer.collect_str(&pace),
        }
    }
}

impl<'de> Deserialize<'de> for Speed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match SpeedText::deserialize(deserializer)? {
            SpeedText::Number(number) => number.to_string(),
            SpeedText::Text(text) => text,
        };
        Speed::parse(&text).ok_or_else(|| serde::de::Error::custom("speed is neither max nor a number above 0"))
    }
}

impl JsonSchema for Speed {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Speed".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": true,
            "format": "speed",
            "pattern": "^(max|[0-9]+(\\.[0-9]+)?)$",
            "maxLength": 16,
            "examples": ["max", 1],
        })
    }
}

/// What faults may be brought into a running network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// Opens the control interface through which a test attacks channels and disturbs instruments.
    pub allowed: bool,
}

/// A building (or a satellite): a trusted node, or the place of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Site {
    /// Name of the site, a DNS label.
    pub name: Name,
    /// Where the site is, for maps, and for satellites, which see it from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Makes the site a satellite, which has no location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orbit: Option<Orbit>,
    /// Applications that take key here. A site that holds only a source has no key store and can have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub saes: Vec<Name>,
    /// Where the values of this site come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

/// Geographic coordinates (WGS 84).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// Latitude in degrees, north positive.
    #[schemars(range(min = -90, max = 90))]
    pub lat: f64,
    /// Longitude in degrees, east positive.
    #[schemars(range(min = -180, max = 180))]
    pub lon: f64,
    /// Height above the ellipsoid; 0 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<Length>,
}

/// A quantum link between two sites: the light, its ways, and the protocol that makes key of it. Pairs of photons come from a
/// source between the two; pulses come from a transmitter, which is the source of a prepared link and stands at one end, or
/// from two, which send to a station between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Link {
    /// Name of the link, a DNS label.
    pub name: Name,
    /// Protocol of the link.
    pub protocol: Protocol,
    /// How much of the light is simulated one by one; what `run.fidelity` says unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<Fidelity>,
    /// Slice of simulated time that is exchanged at once on this link; `run.epoch` unless given. At the fidelity of counts it may
    /// be as long as a round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Duration>,
    /// Where the light comes from.
    pub source: Source,
    /// The optical paths with the instruments at their ends: two from a source of pairs, one from a transmitter. Twin fields
    /// have none, as their transmitters have the paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub arms: Vec<Arm>,
    /// Full width of the coincidence window. Links of entangled pairs need it, others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// Full width around a pulse within which a click counts. Links of pairs have none; on prepared links free-running detectors
    /// need it, gated ones have their own unless it is narrower; on twin-field links it is the time between pulses unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Duration>,
    /// How the receiver knows when pulses come, and their numbers. Prepared links need it, others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Sync>,
    /// The basis whose bits become key, on prepared links; Z unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_basis: Option<KeyBasis>,
    /// Length of a round, which becomes one block: a multiple of the link's epoch.
    #[serde(default = "default_round")]
    pub round: Duration,
    /// How the two clocks are found from the photons.
    #[serde(default)]
    pub acquisition: Acquisition,
    /// How the two clocks are followed.
    #[serde(default)]
    pub tracking: Tracking,
    /// Error correction.
    #[serde(default)]
    pub reconciliation: Reconciliation,
    /// What "secret" means here.
    #[serde(default)]
    pub security: Security,
    /// Authentication of the classical channel.
    #[serde(default)]
    pub authentication: Authentication,
    /// Control loops.
    #[serde(default)]
    pub loops: Loops,
    /// Steps that hit the instruments at given simulated times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub disturbances: Vec<Disturbance>,
    /// Times in which the link has no light, such as a power failure. They do not overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = OUTAGES_MAX))]
    pub outages: Vec<Outage>,
    /// What was published about this link and how close a run must come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub reference: Vec<Reference>,
    /// Where the values of this link come from; names may be paths such as `arms.detector.efficiency`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

impl Spec {
    /// How much of the light of a link is simulated one by one.
    pub fn fidelity(&self, link: &Link) -> Fidelity {
        link.fidelity.or(self.run.fidelity).unwrap_or_default()
    }

    /// Slice of simulated time that is exchanged at once on a link.
    pub fn epoch(&self, link: &Link) -> Duration {
        link.epoch.unwrap_or(self.run.epoch)
    }
}

impl Site {
    pub fn is_satellite(&self) -> bool {
        self.orbit.is_some()
    }
}

impl Link {
    /// The sites that make key on this link. A transmitter's is the first.
    pub fn ends(&self) -> impl Iterator<Item = &Name> {
        let transmitters = match &self.source {
            Source::SpdcCw(_) => Vec::new(),
            Source::WeakCoherent(_) | Source::QuantumDot(_) => vec![self.source.site()],
            Source::TwinField(source) => source.transmitters.iter().map(|transmitter| &transmitter.site).collect(),
        };
        transmitters.into_iter().chain(self.arms.iter().map(|arm| &arm.site))
    }

    /// The two of them, in a document that was parsed.
    pub fn pair(&self) -> Option<[&Name; 2]> {
        let mut ends = self.ends();
        let pair = [ends.next()?, ends.next()?];
        ends.next().is_none().then_some(pair)
    }

    /// Where the light comes from.
    pub fn source_site(&self) -> &Name {
        self.source.site()
    }
}

fn default_round() -> Duration {
    Duration::preset("60 s")
}

/// Origin of each value: field (or dotted path) to `published: ...`, `inferred: ...` or `assumed: ...`.
pub type Provenance = BTreeMap<String, String>;

pub(crate) const PROVENANCE_FORMAT: &str = "provenance";

pub(crate) fn provenance_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "format": "provenance-map",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "format": PROVENANCE_FORMAT,
            "pattern": "^(published|inferred|assumed): .+",
            "maxLength": 500,
        },
    })
}

/// What Kubernetes lets annotations hold: `kubectl apply` keeps the whole object in one.
const ANNOTATION_CHARS_MAX: usize = 256 << 10;

fn annotation_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": ANNOTATION_CHARS_MAX},
    })
}

fn text_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 1000}})
}

/// A name that is also a host name: lower-case letters, digits and inner hyphens, 1 to 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

pub(crate) const NAME_FORMAT: &str = "dns-label";
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

impl Name {
    pub fn parse(text: &str) -> Option<Name> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=NAME_LENGTH_MAX).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        good.then(|| Name(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Name::parse(&text).ok_or_else(|| serde::de::Error::custom("not a DNS label"))
    }
}

impl JsonSchema for Name {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": NAME_FORMAT,
            "pattern": NAME_PATTERN,
            "minLength": 1,
            "maxLength": NAME_LENGTH_MAX,
        })
    }
}
