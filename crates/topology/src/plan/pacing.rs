//! One time for all sources of a network: who keeps it, and where links begin.

use std::collections::BTreeMap;

use super::config::{PacedSource, PacerConfig, Pacing, ServiceConfig};
use super::{CONTROL_IDENTITY, Plan, Service};
use crate::document::Spec;

/// Name of the service that keeps a network at one time, and its identity.
pub const PACER: &str = "pacer";

/// Where no skew is asked for, links may be so far apart, or as far as the longest epoch is.
const SKEW_PS: u64 = 1_000_000_000_000;

/// How far links may be apart.
pub(super) fn skew_ps(spec: &Spec, epochs_ps: impl Iterator<Item = u64>) -> u64 {
    let longest = epochs_ps.max().unwrap_or(0);
    // No less than an epoch, or nobody could take the next one.
    spec.run.skew.map_or(SKEW_PS, |skew| skew.rounded()).max(longest)
}

/// How a network is kept at one time.
#[derive(Clone, Copy)]
pub(super) struct Keeping {
    /// How far links may be apart.
    pub(super) skew_ps: u64,
    /// Where links begin follows from contents alone.
    pub(super) repeatable: bool,
    /// A source alone has a pacer, too.
    pub(super) of_one: bool,
}

/// Puts a pacer beside the sources where there is more than one, and takes it away where there is not. It is at the
/// site of the first source.
pub(super) fn settle(services: &mut Vec<Service>, keeping: Keeping) {
    services.retain(|service| !matches!(service.config, ServiceConfig::Pacer(_)));
    let paced = |service: &Service| match &service.config {
        ServiceConfig::Source(config) => {
            Some((config.site.clone(), config.faults_allowed, PacedSource::of(&config.name, &config.link)))
        }
        _ => None,
    };
    let all: Vec<_> = services.iter().filter_map(paced).collect();
    let alone = all.len() < 2 && !keeping.of_one;
    for service in services.iter_mut() {
        let ServiceConfig::Source(config) = &mut service.config else { continue };
        config.pacing = (!alone).then(|| Pacing { service: PACER.to_owned() });
        service.connects_to = config.pacing.iter().map(|pacing| pacing.service.clone()).collect();
    }
    let Some((site, faults_allowed, _)) = all.first().cloned().filter(|_| !alone) else { return };
    let sources: Vec<PacedSource> = all.into_iter().map(|(_, _, source)| source).collect();
    let mut accepts: Vec<String> = sources.iter().map(|source| source.service.clone()).collect();
    accepts.push(CONTROL_IDENTITY.to_owned());
    let config = PacerConfig {
        name: PACER.to_owned(),
        site: site.clone(),
        sources,
        skew_ps: keeping.skew_ps,
        repeatable: keeping.repeatable,
        faults_allowed,
        accepts: accepts.clone(),
    };
    services.push(Service {
        name: PACER.to_owned(),
        site,
        link: None,
        connects_to: Vec::new(),
        accepts,
        config: ServiceConfig::Pacer(Box::new(config)),
    });
}

impl Plan {
    /// Where links begin that go on behind these epochs. Those that go by one time and are further behind than they may
    /// be begin later: what was dark for them is over for the others. Not so in a run that is to be repeated, where the
    /// others wait for them.
    pub fn begins(&self, seen: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let mut begins: BTreeMap<String, u64> = BTreeMap::new();
        let links = self.links.iter().map(|link| (link, seen.get(&link.name).copied().unwrap_or(0)));
        let floor_ps = match self.pacer() {
            Some(pacer) if !pacer.repeatable => {
                let furthest_ps = links.clone().map(|(link, epochs)| epochs.saturating_mul(link.epoch_ps)).max();
                furthest_ps.unwrap_or(0).saturating_sub(pacer.skew_ps)
            }
            _ => 0,
        };
        begins.extend(links.map(|(link, epochs)| (link.name.clone(), epochs.max(floor_ps.div_ceil(link.epoch_ps)))));
        begins
    }
}

impl PacedSource {
    fn of(service: &str, link: &str) -> Self {
        Self { service: service.to_owned(), link: link.to_owned() }
    }
}
