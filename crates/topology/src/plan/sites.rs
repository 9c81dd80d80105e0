//! Key stores and relays: one of each at every site that ends a link.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{KeySupply, KmsConfig, KmsModule, KmsPeer, RelayConfig, RelayNeighbour, ServiceConfig};
use super::{CONTROL_IDENTITY, RunPlan, Service, ServiceNames};
use crate::document::{KeyManagement, Link, Spec};

/// Names of the services of one site.
pub fn kms_name(site: &str) -> String {
    format!("kms-{site}")
}

pub fn relay_name(site: &str) -> String {
    format!("relay-{site}")
}

/// The network as its key stores see it.
pub(super) struct SitePlanner<'a> {
    spec: &'a Spec,
    run: RunPlan,
    /// Sites that end a link, each with the sites that it shares a link with.
    neighbours: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> SitePlanner<'a> {
    pub fn new(spec: &'a Spec, run: RunPlan) -> Self {
        let mut neighbours: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for link in &spec.links {
            let Some([a, b]) = ends(link) else { continue };
            neighbours.entry(a).or_default().insert(b);
            neighbours.entry(b).or_default().insert(a);
        }
        SitePlanner { spec, run, neighbours }
    }

    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.neighbours.keys().flat_map(|site| {
            let kms = self.kms(site);
            [Some(self.kms_service(kms)), self.relay(site).map(|relay| self.relay_service(relay))].into_iter().flatten()
        })
    }

    fn settings(&self) -> &KeyManagement {
        &self.spec.key_management
    }

    fn adjacent(&self, a: &str, b: &str) -> bool {
        self.neighbours.get(a).is_some_and(|sites| sites.contains(b))
    }

    /// Sites that can be reached over links, without `site` itself.
    fn reachable(&self, site: &'a str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::from([site]);
        let mut open = vec![site];
        while let Some(at) = open.pop() {
            let next = self.neighbours.get(at).into_iter().flatten();
            open.extend(next.copied().filter(|site| seen.insert(site)));
        }
        seen.remove(site);
        seen
    }

    /// Whether any pair of sites needs a relay.
    fn relays(&self) -> bool {
        self.settings().relay.enabled
            && self.neighbours.iter().any(|(site, near)| self.reachable(site).len() > near.len())
    }

    /// Sites that `site` shares a pool with.
    fn peers(&self, site: &'a str) -> BTreeSet<&'a str> {
        if self.relays() { self.reachable(site) } else { self.neighbours.get(site).cloned().unwrap_or_default() }
    }

    fn kms(&self, site: &'a str) -> KmsConfig {
        let peers: Vec<KmsPeer> = self
            .peers(site)
            .into_iter()
            .map(|peer| KmsPeer { site: peer.to_owned(), service: kms_name(peer), adjacent: self.adjacent(site, peer) })
            .collect();
        let modules: Vec<KmsModule> = self.spec.links.iter().filter_map(|link| module(link, site)).collect();
        let relay = self.relays().then(|| relay_name(site));
        let mut accepts: Vec<String> = modules.iter().map(|module| module.service.clone()).collect();
        // Of two key stores the one with the smaller name connects.
        accepts.extend(peers.iter().filter(|peer| peer.site.as_str() < site).map(|peer| peer.service.clone()));
        accepts.extend(relay.clone());
        accepts.push(CONTROL_IDENTITY.to_owned());
        let here = self.spec.sites.iter().filter(|other| other.name.as_str() == site);
        KmsConfig {
            name: kms_name(site),
            site: site.to_owned(),
            peers,
            modules,
            relay,
            relay_transfer_bytes: self.transfer_bytes(),
            saes: here.flat_map(|site| site.saes.iter().map(ToString::to_string)).collect(),
            directory: self.directory(),
            supply: supply(self.settings()),
            faults_allowed: self.run.faults_allowed,
            accepts,
        }
    }

    fn transfer_bytes(&self) -> u32 {
        (self.settings().relay.transfer.rounded() / 8) as u32
    }

    fn directory(&self) -> BTreeMap<String, String> {
        let saes =
            |site: &'a crate::document::Site| site.saes.iter().map(|sae| (sae.to_string(), site.name.to_string()));
        self.spec.sites.iter().flat_map(saes).collect()
    }

    fn relay(&self, site: &'a str) -> Option<RelayConfig> {
        if !self.relays() {
            return None;
        }
        let near = self.neighbours.get(site)?;
        let neighbours: Vec<RelayNeighbour> =
            near.iter().map(|site| RelayNeighbour { site: (*site).to_owned(), service: relay_name(site) }).collect();
        let far = self.reachable(site).into_iter().filter(|target| !near.contains(target) && site < *target);
        let mut accepts: Vec<String> =
            neighbours.iter().filter(|peer| peer.site.as_str() < site).map(|peer| peer.service.clone()).collect();
        accepts.push(CONTROL_IDENTITY.to_owned());
        let relay = &self.settings().relay;
        Some(RelayConfig {
            name: relay_name(site),
            site: site.to_owned(),
            kms: kms_name(site),
            neighbours,
            targets: far.map(str::to_owned).collect(),
            transfer_bytes: self.transfer_bytes(),
            low_water_bytes: relay.low_water.rounded() / 8,
            high_water_bytes: relay.high_water.rounded() / 8,
            shares: relay.shares,
            faults_allowed: self.run.faults_allowed,
            accepts,
        })
    }

    fn kms_service(&self, config: KmsConfig) -> Service {
        let later = config.peers.iter().filter(|peer| peer.site > config.site);
        Service {
            name: config.name.clone(),
            site: config.site.clone(),
            link: None,
            connects_to: later.map(|peer| peer.service.clone()).collect(),
            accepts: config.accepts.clone(),
            config: ServiceConfig::Kms(Box::new(config)),
        }
    }

    fn relay_service(&self, config: RelayConfig) -> Service {
        let later = config.neighbours.iter().filter(|peer| peer.site > config.site);
        Service {
            name: config.name.clone(),
            site: config.site.clone(),
            link: None,
            connects_to: [config.kms.clone()].into_iter().chain(later.map(|peer| peer.service.clone())).collect(),
            accepts: config.accepts.clone(),
            config: ServiceConfig::Relay(Box::new(config)),
        }
    }
}

fn ends(link: &Link) -> Option<[&str; 2]> {
    let [a, b] = link.arms.as_slice() else { return None };
    Some([a.site.as_str(), b.site.as_str()])
}

fn module(link: &Link, site: &str) -> Option<KmsModule> {
    let sites = ends(link)?;
    let end = sites.iter().position(|end| *end == site)?;
    let [first, second] = ServiceNames::of(link.name.as_str(), sites).detectors;
    Some(KmsModule {
        service: if end == 0 { first } else { second },
        link: link.name.to_string(),
        peer_site: sites[1 - end].to_owned(),
    })
}

fn supply(keys: &KeyManagement) -> KeySupply {
    const PS_PER_MS: u64 = 1_000_000_000;
    let bits = |size: crate::quantity::DataSize| u32::try_from(size.rounded()).unwrap_or(u32::MAX);
    KeySupply {
        key_size_bits: bits(keys.key_size),
        key_size_min_bits: bits(keys.key_size_min),
        key_size_max_bits: bits(keys.key_size_max),
        keys_per_request: keys.keys_per_request,
        key_count_max: keys.key_count_max,
        additional_saes: keys.additional_saes,
        keys_per_second: keys.keys_per_second,
        keys_waiting: keys.keys_waiting,
        pool_bits: keys.pool.rounded(),
        // A time that was asked for is never none.
        retention_ms: keys.retention.rounded().div_ceil(PS_PER_MS).max(1),
        redelivery_window_ms: keys.redelivery_window.rounded().div_ceil(PS_PER_MS),
    }
}
