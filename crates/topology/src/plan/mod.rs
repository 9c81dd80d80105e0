//! From a topology to the services that make it up.

pub mod checkpoints;
mod config;
pub mod counts;
mod directory;
pub mod estimate;
pub mod expected;
pub mod key;
pub(crate) mod links;
mod live;
pub mod optimise;
mod pacing;
pub mod passes;
pub mod prepared;
pub mod proposal;
mod seed;
mod sites;
pub mod space;
pub mod twin_field;
pub(crate) mod ways;

use std::borrow::Cow;

use distill::config::Side;
use serde::Serialize;

use crate::document::{Fidelity, Link, Measure, Protocol, Spec, Topology, WhenFull};
use crate::figure::Listing;
pub use config::{
    ChannelConfig, CountedPairs, CountedPulses, Counts, DetectorConfig, EntangledReceiver, KeySupply, KmsConfig,
    KmsModule, KmsPeer, ModuleConfig, Nature, PacedSource, PacerConfig, Pacing, Pairs, PlannedOutage, PreparedReceiver,
    Pulses, Receiver, RelayConfig, RelayNeighbour, ServiceConfig, SourceConfig, Speed, TransmitterConfig,
};
pub use directory::{Directory, DirectorySite};
use pacing::Keeping;
pub use pacing::PACER;
pub use seed::{Role, SecretSeed, derive_subseed};
use sites::SitePlanner;
pub use sites::{kms_name, relay_name};
pub use space::SpaceLink;
use twin_field::PlannedTwinField;

/// Identity under which whoever runs the network asks services for their status and brings faults.
pub const CONTROL_IDENTITY: &str = "control";

/// What names of services begin with, before a hyphen.
const SERVICE_KINDS: [&str; 6] = ["source", "detector", "transmitter", "channel", "kms", "relay"];

/// Whether a name has the form of an identity of the network's own: `control`, `pacer`, or a service of whatever link or
/// site.
/// No application may be called so, or one could be taken for the other.
pub fn is_service_name(name: &str) -> bool {
    let kind = name.split_once('-').map(|(kind, _)| kind);
    [CONTROL_IDENTITY, PACER].contains(&name) || kind.is_some_and(|kind| SERVICE_KINDS.contains(&kind))
}

/// How names of applications and services are kept apart, for messages.
pub const APPLICATION_NAMES: &str = "neither `control` nor `pacer` nor a name that begins with `source-`, `detector-`, `transmitter-`, `channel-`, `kms-` or `relay-`";

/// A local clock may be this much ahead of simulated time: where it starts, its offset, and what it gains.
const TAG_MARGIN_PS: u64 = 60_000_000_000_000;

/// What the command line overrides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunOptions {
    pub seed: Option<u64>,
    pub speed: Option<Speed>,
    /// Simulated time after which the run ends.
    pub duration_ps: Option<u64>,
    /// Of every link, whatever it says itself.
    pub fidelity: Option<Fidelity>,
    /// One source alone has a pacer, too, so that another link can come without a start of the first.
    pub pacer_of_one: bool,
}

/// The services of a network, ready to be started.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub topology: String,
    pub latency_epochs: u64,
    pub speed: Speed,
    /// Simulated time after which the run ends; a link ends with the epoch that this falls into.
    pub limit_ps: Option<u64>,
    /// Simulated time since the first run on the same data after which a local time tag could come to its end; where no
    /// link has tags, all that there is.
    pub tags_end_ps: u64,
    /// How far links may be apart in simulated time.
    pub skew_ps: u64,
    /// A seed was given: the run can be repeated and its keys are worthless.
    pub repeatable: bool,
    #[serde(skip)]
    pacer_of_one: bool,
    pub faults_allowed: bool,
    pub links: Vec<PlannedLink>,
    /// Links that are planned and have no services: while there are any, [nothing of the network
    /// runs](twin_field::cannot_run).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub twin_fields: Vec<PlannedTwinField>,
    pub services: Vec<Service>,
    /// What the services of all sites have in common.
    pub directory: Directory,
    /// Warnings for those who start this.
    pub warnings: Vec<String>,
    /// Which applications can never share key. Whoever parsed the document was told; it stays true while this runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_path: Vec<String>,
}

/// One service instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Service {
    /// Unique in the topology; a DNS label, and the identity in the certificate.
    pub name: String,
    pub site: String,
    /// Link that this service is part of; a site's own services are part of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Services that this one connects to, by name.
    pub connects_to: Vec<String>,
    /// Identities that may connect to this one.
    pub accepts: Vec<String>,
    pub config: ServiceConfig,
}

/// A link by the names of its services.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedLink {
    pub name: String,
    #[serde(skip)]
    pub protocol: Protocol,
    pub fidelity: Fidelity,
    /// Slice of simulated time in which its light is exchanged.
    pub epoch_ps: u64,
    pub source: PlannedSource,
    /// The two sites that make key, by output of the source.
    pub ends: [PlannedEnd; 2],
    pub references: Vec<PlannedReference>,
}

/// Where the light of a link comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedSource {
    pub site: String,
    pub service: String,
}

/// One of the two sites that make key on a link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedEnd {
    pub site: String,
    /// Service of the instrument and the module behind it.
    pub module: String,
    /// Service of its end of the classical channel.
    pub channel: String,
    /// Between source and clicks, the detector's efficiency included.
    pub loss_db: f64,
    /// Its part in post-processing.
    pub side: Side,
}

impl PlannedLink {
    /// Which figures it has.
    pub fn listing(&self) -> &'static Listing {
        Listing::at(self.protocol, self.fidelity)
    }

    /// Which end corrects its string: it knows the figures of the link.
    pub fn corrector(&self) -> usize {
        usize::from(self.ends[1].side == Side::Corrector)
    }

    /// Which end has the string that counts.
    pub fn reference(&self) -> usize {
        usize::from(self.ends[1].side == Side::Reference)
    }

    pub fn sites(&self) -> [&str; 2] {
        self.ends.each_ref().map(|end| end.site.as_str())
    }

    /// Both arms together, the detectors' efficiency included.
    pub fn total_loss_db(&self) -> f64 {
        self.ends.iter().map(|end| end.loss_db).sum()
    }
}

/// A published figure of a link, in the base unit of its measure (bit/s, 1, ps).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedReference {
    pub quantity: Measure,
    pub published: f64,
    pub tolerance: crate::document::Tolerance,
    pub source: String,
    /// Share of the time in which the published system made key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duty: Option<f64>,
}

impl PlannedReference {
    /// Whether a parameter was chosen to meet the value, so that there is no verdict on it.
    pub fn is_fitted(&self) -> bool {
        crate::document::is_fitted(&self.source)
    }

    /// What is compared with the published value, of what was measured or is expected.
    pub fn compared(&self, value: f64) -> f64 {
        value * self.duty.unwrap_or(1.0)
    }
}

impl Plan {
    /// Counts the limit of every link's epochs from where that link goes on; none goes on beyond the end of a tag.
    pub fn shift_limits(&mut self, first_epoch: impl Fn(&str) -> u64) {
        for service in &mut self.services {
            let limit = match &mut service.config {
                ServiceConfig::Source(config) => Some((config.epoch_ps, &mut config.epochs_limit)),
                other => other.module_mut().map(|module| (module.epoch_ps, &mut module.epochs_limit)),
            };
            let Some((epoch_ps, limit)) = limit else { continue };
            let seen = service.link.as_deref().map_or(0, &first_epoch);
            let asked = self.limit_ps.map_or(u64::MAX, |limit| limit.div_ceil(epoch_ps).saturating_add(seen));
            *limit = Some(asked.min(self.tags_end_ps / epoch_ps));
        }
    }

    /// Simulated time that a limited run takes: until the last link has ended its last epoch.
    pub fn end_ps(&self) -> Option<u64> {
        let limit_ps = self.limit_ps?;
        let ends = self.links.iter().map(|link| limit_ps.div_ceil(link.epoch_ps).saturating_mul(link.epoch_ps));
        Some(ends.max().unwrap_or(limit_ps))
    }

    /// Leaves links alone: without key stores their blocks stay with the modules.
    pub fn without_key_management(&mut self) {
        self.retain(|service| service.link.is_some());
        for service in &mut self.services {
            if let Some(kms) = service.config.module_mut().and_then(|module| module.kms.take()) {
                service.connects_to.retain(|peer| *peer != kms);
            }
        }
    }

    /// Leaves the services that `keep` chooses, and the pacer while there is more than one source to keep together.
    pub fn retain(&mut self, keep: impl Fn(&Service) -> bool) {
        self.services.retain(|service| matches!(service.config, ServiceConfig::Pacer(_)) || keep(service));
        let Self { skew_ps, repeatable, pacer_of_one: of_one, .. } = *self;
        pacing::settle(&mut self.services, Keeping { skew_ps, repeatable, of_one });
    }

    /// What keeps the sources at one time, where there is more than one.
    pub fn pacer(&self) -> Option<&PacerConfig> {
        self.services.iter().find_map(|service| match &service.config {
            ServiceConfig::Pacer(config) => Some(&**config),
            _ => None,
        })
    }

    /// Whether any link has time tags, which come to an end.
    pub fn has_tags(&self) -> bool {
        self.links.iter().any(|link| link.fidelity == Fidelity::Tags)
    }

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    pub fn link(&self, name: &str) -> Option<&PlannedLink> {
        self.links.iter().find(|link| link.name == name)
    }

    pub fn sources(&self) -> impl Iterator<Item = &SourceConfig> {
        self.services.iter().filter_map(|service| match &service.config {
            ServiceConfig::Source(config) => Some(&**config),
            _ => None,
        })
    }

    /// The modules, both ends of each link in the order of the links.
    pub fn modules(&self) -> impl Iterator<Item = &ModuleConfig> {
        self.services.iter().filter_map(|service| service.config.module())
    }

    pub fn detectors(&self) -> impl Iterator<Item = &DetectorConfig> {
        self.services.iter().filter_map(|service| match &service.config {
            ServiceConfig::Detector(config) => Some(&**config),
            _ => None,
        })
    }

    pub fn transmitters(&self) -> impl Iterator<Item = &TransmitterConfig> {
        self.services.iter().filter_map(|service| match &service.config {
            ServiceConfig::Transmitter(config) => Some(&**config),
            _ => None,
        })
    }

    pub fn channels(&self) -> impl Iterator<Item = &ChannelConfig> {
        self.services.iter().filter_map(|service| match &service.config {
            ServiceConfig::Channel(config) => Some(&**config),
            _ => None,
        })
    }

    pub fn key_stores(&self) -> impl Iterator<Item = &KmsConfig> {
        self.services.iter().filter_map(|service| match &service.config {
            ServiceConfig::Kms(config) => Some(&**config),
            _ => None,
        })
    }

    pub fn relays(&self) -> impl Iterator<Item = &RelayConfig> {
        self.services.iter().filter_map(|service| match &service.config {
            ServiceConfig::Relay(config) => Some(&**config),
            _ => None,
        })
    }
}

/// Names of the services of one link; DNS labels as long as the parts are short enough, which `parse` checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    pub source: String,
    pub modules: [String; 2],
    pub channels: [String; 2],
}

impl ServiceNames {
    pub fn of(link: &Link, sites: [&str; 2]) -> Self {
        let (modules, link) = (link.protocol.modules(), &link.name);
        ServiceNames {
            source: format!("source-{link}"),
            modules: std::array::from_fn(|end| format!("{}-{link}-{}", modules[end], sites[end])),
            channels: sites.map(|site| format!("channel-{link}-{site}")),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.source).chain(&self.modules).chain(&self.channels)
    }
}

/// What a run is for a link: all of it but the epoch is common to all links.
#[derive(Clone, Copy)]
pub(crate) struct RunPlan<'a> {
    /// For links whose way depends on what their sites are.
    pub spec: &'a Spec,
    /// Of links that have none of their own, until it is the plan [of a link](RunPlan::of).
    pub epoch_ps: u64,
    pub latency_epochs: u64,
    pub speed: Speed,
    pub limit_ps: Option<u64>,
    pub tags_end_ps: u64,
    pub seed: Option<u64>,
    pub faults_allowed: bool,
    /// By each link end.
    pub blocks_kept: u64,
    pub dark_when_full: bool,
    /// What the command line says of every link, and the document of those that say nothing.
    fidelity: Option<Fidelity>,
    fidelity_unsaid: Fidelity,
}

/// The services of a topology that [`crate::parse`] has found good.
pub fn plan(topology: &Topology, options: &RunOptions) -> Plan {
    let run = run_plan(&topology.spec, options);
    let twin_fields: Vec<PlannedTwinField> =
        topology.spec.links.iter().filter_map(|link| links::plan_twin_field(link, run.of(link))).collect();
    let spec = &*with_services(&topology.spec);
    let mut planned_links = Vec::with_capacity(spec.links.len());
    let mut services = Vec::with_capacity(spec.links.len() * 5);
    for link in &spec.links {
        let Some((planned, of_link)) = checkpoints::plan(link, run.of(link)) else { continue };
        planned_links.push(planned);
        services.extend(of_link);
    }
    let sites = SitePlanner::new(spec, run);
    services.extend(sites.services());
    let skew_ps = pacing::skew_ps(spec, planned_links.iter().map(|link| link.epoch_ps));
    let (repeatable, pacer_of_one) = (run.seed.is_some(), options.pacer_of_one);
    pacing::settle(&mut services, Keeping { skew_ps, repeatable, of_one: pacer_of_one });
    Plan {
        topology: topology.metadata.name.to_string(),
        latency_epochs: run.latency_epochs,
        speed: run.speed,
        limit_ps: run.limit_ps,
        tags_end_ps: run.tags_end_ps,
        skew_ps,
        repeatable,
        pacer_of_one,
        faults_allowed: run.faults_allowed,
        warnings: warnings(&topology.spec, run),
        no_path: crate::checks::paths::messages(&topology.spec),
        links: planned_links,
        twin_fields,
        services,
        directory: sites.directory(),
    }
}

/// The network without the links that have no services.
fn with_services(spec: &Spec) -> Cow<'_, Spec> {
    let has_services = |link: &Link| link.protocol != Protocol::SnsTwinField;
    if spec.links.iter().all(has_services) {
        return Cow::Borrowed(spec);
    }
    let links = spec.links.iter().filter(|link| has_services(link)).cloned().collect();
    Cow::Owned(Spec { links, ..spec.clone() })
}

impl RunPlan<'_> {
    /// The run as this link sees it.
    pub fn of(self, link: &Link) -> Self {
        RunPlan { epoch_ps: link.epoch.map_or(self.epoch_ps, |epoch| epoch.rounded().max(1)), ..self }
    }

    pub fn fidelity(&self, link: &Link) -> Fidelity {
        self.fidelity.or(link.fidelity).unwrap_or(self.fidelity_unsaid)
    }

    /// Epochs after which services end the run.
    fn last_epoch(&self) -> u64 {
        let last = self.tags_end_ps / self.epoch_ps;
        self.limit_ps.map_or(last, |limit| limit.div_ceil(self.epoch_ps).min(last))
    }
}

pub(crate) fn run_plan<'a>(spec: &'a Spec, options: &RunOptions) -> RunPlan<'a> {
    let limit_ps = options.duration_ps.or(spec.run.duration.map(|duration| duration.rounded()));
    let mut run = RunPlan {
        spec,
        epoch_ps: spec.run.epoch.rounded().max(1),
        latency_epochs: spec.run.latency.into(),
        speed: options.speed.unwrap_or(spec.run.speed),
        limit_ps,
        tags_end_ps: u64::MAX,
        fidelity: options.fidelity,
        fidelity_unsaid: spec.run.fidelity.unwrap_or_default(),
        seed: options.seed.or(spec.run.seed),
        faults_allowed: spec.faults.allowed,
        blocks_kept: spec.retention.blocks.into(),
        dark_when_full: spec.key_management.when_full == WhenFull::Dark,
    };
    if spec.links.iter().any(|link| run.fidelity(link) == Fidelity::Tags) {
        run.tags_end_ps = photonics::tag::END_PS - TAG_MARGIN_PS;
    }
    run
}

fn warnings(spec: &Spec, run: RunPlan<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(seed) = run.seed {
        warnings.push(format!("seed {seed} makes this run repeatable and its keys worthless"));
    }
    if run.faults_allowed {
        warnings.push("faults are allowed: who controls the run can attack its channels".to_owned());
    }
    for link in &spec.links {
        let epoch_ps = run.of(link).epoch_ps;
        if run.limit_ps.is_some_and(|limit| limit.div_ceil(epoch_ps) < round_epochs(link, epoch_ps)) {
            warnings.push(format!("link {}: the run ends before its first round of {}", link.name, link.round));
        }
        warnings.extend(links::warnings(link, run));
    }
    warnings
}

pub(crate) fn round_epochs(link: &Link, epoch_ps: u64) -> u64 {
    (link.round.rounded() / epoch_ps).max(1)
}
