//! One link of the document to the plain numbers that `photonics` and `distill` take: a module for each kind of link,
//! and here what all kinds have.

mod entangled;
mod instruments;
mod prepared;
mod pulses;
mod twin_field;

use distill::config as protocol;
use distill::config::{LinkProtocol, Side};
use photonics::config::Outage;

use super::config::{ChannelConfig, ModuleConfig, Nature, PlannedOutage, ServiceConfig, SourceConfig};
use super::seed::{Role, SecretSeed, derive_subseed};
use super::twin_field::PlannedTwinField;
use super::{
    CONTROL_IDENTITY, PlannedEnd, PlannedLink, PlannedReference, PlannedSource, RunPlan, Service, ServiceNames,
    kms_name, round_epochs,
};
use crate::document::{Bound, Cooling, Detector, Link, Snspd};
use crate::quantity::Duration;
use crate::resolve::{LinkKind, resolve};

/// A link and its services, or nothing where [`crate::parse`] would have refused it.
pub(super) fn plan(link: &Link, run: RunPlan<'_>) -> Option<(PlannedLink, Vec<Service>)> {
    match resolve(link).ok()? {
        LinkKind::Entangled(kind) => Some(entangled::plan(kind, run)),
        LinkKind::Prepared(kind) => Some(prepared::plan(&kind, run)),
        LinkKind::TwinField(_) => None,
    }
}

/// A twin-field link, which has no services yet; nothing of another kind of link.
pub(super) fn plan_twin_field(link: &Link, run: RunPlan) -> Option<PlannedTwinField> {
    match resolve(link).ok()? {
        LinkKind::TwinField(kind) => Some(twin_field::plan(&kind, run)),
        LinkKind::Entangled(_) | LinkKind::Prepared(_) => None,
    }
}

pub(super) use entangled::counted as counted_pairs;
pub(super) use prepared::counted as counted_pulses;

/// Warnings for those who start a link of its kind.
pub(super) fn warnings(link: &Link, run: RunPlan<'_>) -> Vec<String> {
    match resolve(link) {
        Ok(LinkKind::Entangled(kind)) => entangled::warnings(&kind),
        Ok(LinkKind::Prepared(kind)) => prepared::warnings(&kind, run.of(link)),
        Ok(LinkKind::TwinField(_)) => Vec::new(),
        Err(_) => Vec::new(),
    }
}

/// What the services of every kind of link have in common.
struct Common<'a> {
    link: &'a Link,
    names: ServiceNames,
    /// By output of the source.
    sites: [&'a str; 2],
    run: RunPlan<'a>,
}

impl<'a> Common<'a> {
    fn new(link: &'a Link, sites: [&'a str; 2], run: RunPlan<'a>) -> Self {
        Self { link, names: ServiceNames::of(link, sites), sites, run }
    }

    /// `ends` are the loss between source and clicks, and the part in post-processing.
    fn link(&self, source_site: &str, ends: [(f64, Side); 2]) -> PlannedLink {
        let end = |end: usize| PlannedEnd {
            site: self.sites[end].to_owned(),
            module: self.names.modules[end].clone(),
            channel: self.names.channels[end].clone(),
            loss_db: ends[end].0,
            side: ends[end].1,
        };
        PlannedLink {
            name: self.link.name.to_string(),
            protocol: self.link.protocol,
            fidelity: self.run.fidelity(self.link),
            epoch_ps: self.run.epoch_ps,
            source: PlannedSource { site: source_site.to_owned(), service: self.names.source.clone() },
            ends: [end(0), end(1)],
            references: references(self.link),
        }
    }

    /// Source, then both modules, then both channels, between which light and classical traffic take `delay_ps`.
    fn services(&self, source: SourceConfig, modules: [ServiceConfig; 2], delay_ps: u64) -> Vec<Service> {
        let service = |name: &str, site: &str, connects_to: Vec<String>, accepts: &[String], config| Service {
            name: name.to_owned(),
            site: site.to_owned(),
            link: Some(self.link.name.to_string()),
            connects_to,
            accepts: accepts.to_vec(),
            config,
        };
        let (name, site, accepts) = (source.name.clone(), source.site.clone(), source.accepts.clone());
        let mut services = vec![service(&name, &site, Vec::new(), &accepts, ServiceConfig::Source(Box::new(source)))];
        for config in modules {
            let Some(module) = config.module().cloned() else { continue };
            let connects_to = [module.source, module.channel].into_iter().chain(module.kms).collect();
            services.push(service(&module.name, &module.site, connects_to, &module.accepts, config));
        }
        for end in 0..2 {
            let config = self.channel(end, delay_ps);
            let connects_to = if config.initiates { vec![config.peer.clone()] } else { Vec::new() };
            let boxed = ServiceConfig::Channel(Box::new(config.clone()));
            services.push(service(&config.name, &config.site, connects_to, &config.accepts, boxed));
        }
        services
    }

    /// When the detectors at an end do not click.
    fn cooling(&self, end: usize) -> Option<Outage> {
        let arm = self.link.arms.iter().find(|arm| arm.site.as_str() == self.sites[end])?;
        let Detector::Snspd(Snspd { cooling: Some(Cooling { hold_time, recycling_time, first }), .. }) = &arm.detector
        else {
            return None;
        };
        let first = self.outage(first.unwrap_or(*hold_time), *recycling_time);
        let period_epochs = first.epochs + hold_time.rounded().div_ceil(self.run.epoch_ps);
        Some(Outage { period_epochs, ..first })
    }

    /// In the whole epochs from the first one that begins not before `at`.
    fn outage(&self, at: Duration, lasts: Duration) -> Outage {
        let first_epoch = at.rounded().div_ceil(self.run.epoch_ps);
        let end = at.rounded().saturating_add(lasts.rounded()).div_ceil(self.run.epoch_ps);
        Outage { first_epoch, epochs: end - first_epoch, period_epochs: 0 }
    }

    fn outages(&self) -> Vec<PlannedOutage> {
        let cooled = (0..2).filter_map(|end| {
            let cause = format!("the detectors at {} are cooled", self.sites[end]);
            Some(PlannedOutage { output: Some(end as u32), cause, epochs: self.cooling(end)? })
        });
        let others = self.link.outages.iter().map(|outage| PlannedOutage {
            output: None,
            cause: outage.cause.clone(),
            epochs: self.outage(outage.at, outage.lasts),
        });
        cooled.chain(others).collect()
    }

    fn source(&self, site: &str, nature: Nature) -> SourceConfig {
        let [first, second] = self.names.modules.clone();
        SourceConfig {
            name: self.names.source.clone(),
            link: self.link.name.to_string(),
            site: site.to_owned(),
            epoch_ps: self.run.epoch_ps,
            latency_epochs: self.run.latency_epochs,
            round_epochs: round_epochs(self.link, self.run.epoch_ps),
            speed: self.run.speed,
            epochs_limit: Some(self.run.last_epoch()),
            subseed: self.subseed(Role::Source, ""),
            nature,
            outages: self.outages(),
            pacing: None,
            faults_allowed: self.run.faults_allowed,
            accepts: vec![first, second, CONTROL_IDENTITY.to_owned()],
        }
    }

    fn module(&self, end: usize, protocol: LinkProtocol, initial_pump: f64) -> ModuleConfig {
        let site = self.sites[end];
        ModuleConfig {
            name: self.names.modules[end].clone(),
            link: self.link.name.to_string(),
            site: site.to_owned(),
            peer_site: self.sites[1 - end].to_owned(),
            output: end as u32,
            epoch_ps: self.run.epoch_ps,
            latency_epochs: self.run.latency_epochs,
            epochs_limit: Some(self.run.last_epoch()),
            blocks_kept: self.run.blocks_kept,
            protocol,
            initial_pump,
            subseed: self.subseed(Role::Module, site),
            source: self.names.source.clone(),
            channel: self.names.channels[end].clone(),
            kms: Some(kms_name(site)),
            dark_when_full: self.run.dark_when_full,
            faults_allowed: self.run.faults_allowed,
            accepts: vec![CONTROL_IDENTITY.to_owned()],
        }
    }

    fn channel(&self, end: usize, delay_ps: u64) -> ChannelConfig {
        let initiates = end == 0;
        let peer = &self.names.channels[usize::from(initiates)];
        let mut accepts = vec![self.names.modules[end].clone()];
        if !initiates {
            accepts.push(peer.clone());
        }
        accepts.push(CONTROL_IDENTITY.to_owned());
        ChannelConfig {
            name: self.names.channels[end].clone(),
            link: self.link.name.to_string(),
            site: self.sites[end].to_owned(),
            peer_site: self.sites[1 - end].to_owned(),
            initiates,
            peer: peer.clone(),
            module: self.names.modules[end].clone(),
            delay_ps,
            speed: self.run.speed,
            reserve_bits: self.link.authentication.reserve.rounded(),
            tags_per_hash_key: self.link.authentication.tags_per_hash_key,
            faults_allowed: self.run.faults_allowed,
            accepts,
        }
    }

    fn subseed(&self, role: Role, site: &str) -> Option<SecretSeed> {
        self.run.seed.map(|seed| derive_subseed(seed, role, self.link.name.as_str(), site))
    }
}

fn references(link: &Link) -> Vec<PlannedReference> {
    let planned = link.reference.iter().map(|reference| PlannedReference {
        quantity: reference.quantity,
        published: reference.value.value(),
        tolerance: reference.tolerance,
        source: reference.source.clone(),
        duty: reference.duty.map(|duty| duty.value()),
    });
    planned.collect()
}

pub(crate) fn bound(bound: Bound) -> protocol::Bound {
    match bound {
        Bound::Asymptotic => protocol::Bound::Asymptotic,
        Bound::Finite => protocol::Bound::Finite,
        Bound::Lim2014 => protocol::Bound::Lim2014,
        Bound::Rusca2018 => protocol::Bound::Rusca2018,
        Bound::Wiesemann2024 => protocol::Bound::Wiesemann2024,
    }
}

fn post_processing(link: &Link, emission: protocol::Emission, run: RunPlan<'_>) -> protocol::PostProcessing {
    protocol::PostProcessing {
        framing: protocol::Framing { frame_ps: run.epoch_ps, round_frames: round_epochs(link, run.epoch_ps) },
        reconciliation: protocol::Reconciliation {
            frame_bits: link.reconciliation.frame_bits,
            initial_qber: link.reconciliation.initial_qber.value(),
        },
        security: protocol::Security {
            bound: bound(link.security.bound),
            epsilon_secrecy: link.security.epsilon_secrecy,
            epsilon_correctness: link.security.epsilon_correctness,
            tolerated_qber: link.security.tolerated_qber.value(),
            emission,
        },
        authentication: protocol::Authentication::new(link.authentication.tags_per_hash_key),
    }
}
