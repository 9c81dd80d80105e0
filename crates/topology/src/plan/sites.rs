//! Key stores and relays: one of each at every site that ends a link.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{KeySupply, KmsConfig, KmsModule, KmsPeer, RelayConfig, RelayNeighbour, ServiceConfig};
use super::{CONTROL_IDENTITY, Directory, DirectorySite, RunPlan, Service, ServiceNames, ways};
use crate::document::{KeyManagement, Name, Site, Spec};

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
    run: RunPlan<'a>,
    /// Sites that end a link, each with the sites that it shares a link with.
    neighbours: BTreeMap<&'a str, BTreeSet<&'a str>>,
    modules: BTreeMap<&'a str, Vec<KmsModule>>,
    /// Sites that links join, directly or over others, have the same number. Empty where no pair needs a relay.
    parts: BTreeMap<&'a str, u32>,
    /// Neighbours that get key around their link, too, the smaller name first.
    rerouted: BTreeSet<[&'a str; 2]>,
}

impl<'a> SitePlanner<'a> {
    pub fn new(spec: &'a Spec, run: RunPlan<'a>) -> Self {
        let neighbours = ways::neighbours(spec);
        let mut modules: BTreeMap<&str, Vec<KmsModule>> = BTreeMap::new();
        for link in &spec.links {
            let Some([a, b]) = link.pair().map(|ends| ends.map(Name::as_str)) else { continue };
            let [first, second] = ServiceNames::of(link, [a, b]).modules;
            for (site, service, peer) in [(a, first, b), (b, second, a)] {
                let module = KmsModule { service, link: link.name.to_string(), peer_site: peer.to_owned() };
                modules.entry(site).or_default().push(module);
            }
        }
        let relay = &spec.key_management.relay;
        let reroutes = relay.enabled && relay.reroute;
        let rerouted = if reroutes { ways::around(&neighbours) } else { BTreeSet::new() };
        let (numbered, far_pairs) = ways::parts(&neighbours);
        let needed = relay.enabled && (far_pairs || !rerouted.is_empty());
        let parts = if needed { numbered } else { BTreeMap::new() };
        SitePlanner { spec, run, neighbours, modules, parts, rerouted }
    }

    /// By site, in the order of their names.
    pub fn services(&self) -> Vec<Service> {
        let sites: BTreeMap<&str, &Site> = self.spec.sites.iter().map(|site| (site.name.as_str(), site)).collect();
        let mut services = Vec::with_capacity(2 * self.neighbours.len());
        for (name, near) in &self.neighbours {
            // Every document that was parsed has the sites of its links.
            let Some(site) = sites.get(name) else { continue };
            services.push(self.kms_service(self.kms(site, near)));
            if self.relays() {
                services.push(self.relay_service(self.relay(name, near)));
            }
        }
        services
    }

    /// What the services of all sites have in common.
    pub fn directory(&self) -> Directory {
        let site = |site: &Site| {
            let part = self.parts.get(site.name.as_str()).copied();
            let saes = site.saes.iter().map(ToString::to_string).collect();
            (site.name.to_string(), DirectorySite { saes, part, address: None })
        };
        Directory { sites: self.spec.sites.iter().map(site).collect() }
    }

    fn settings(&self) -> &KeyManagement {
        &self.spec.key_management
    }

    /// Whether any pair of sites needs a relay.
    fn relays(&self) -> bool {
        !self.parts.is_empty()
    }

    fn kms(&self, site: &Site, near: &BTreeSet<&str>) -> KmsConfig {
        let name = site.name.as_str();
        let peer = |peer: &&str| KmsPeer { site: (*peer).to_owned(), service: kms_name(peer), adjacent: true };
        let peers: Vec<KmsPeer> = near.iter().map(peer).collect();
        let modules = self.modules.get(name).cloned().unwrap_or_default();
        let relay = self.relays().then(|| relay_name(name));
        let mut accepts: Vec<String> = modules.iter().map(|module| module.service.clone()).collect();
        // Of two key stores the one with the smaller name connects.
        accepts.extend(peers.iter().filter(|peer| peer.site.as_str() < name).map(|peer| peer.service.clone()));
        accepts.extend(relay.clone());
        accepts.push(CONTROL_IDENTITY.to_owned());
        KmsConfig {
            name: kms_name(name),
            site: name.to_owned(),
            peers,
            modules,
            relay,
            relay_transfer_bytes: self.transfer_bytes(),
            saes: site.saes.iter().map(ToString::to_string).collect(),
            directory: BTreeMap::new(),
            supply: supply(self.settings()),
            faults_allowed: self.run.faults_allowed,
            accepts,
        }
    }

    fn transfer_bytes(&self) -> u32 {
        (self.settings().relay.transfer.rounded() / 8) as u32
    }

    fn relay(&self, site: &str, near: &BTreeSet<&str>) -> RelayConfig {
        let neighbour = |near: &&str| RelayNeighbour {
            site: (*near).to_owned(),
            service: relay_name(near),
            // Of two sites the one with the smaller name fills the pool.
            rerouted: self.rerouted.contains(&[site, *near]),
        };
        let neighbours: Vec<RelayNeighbour> = near.iter().map(neighbour).collect();
        let mut accepts: Vec<String> =
            neighbours.iter().filter(|peer| peer.site.as_str() < site).map(|peer| peer.service.clone()).collect();
        accepts.push(CONTROL_IDENTITY.to_owned());
        let relay = &self.settings().relay;
        RelayConfig {
            name: relay_name(site),
            site: site.to_owned(),
            kms: kms_name(site),
            neighbours,
            targets: Vec::new(),
            transfer_bytes: self.transfer_bytes(),
            low_water_bytes: relay.low_water.rounded() / 8,
            high_water_bytes: relay.high_water.rounded() / 8,
            shares: relay.shares,
            faults_allowed: self.run.faults_allowed,
            accepts,
        }
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
        when_full: keys.when_full,
        // A time that was asked for is never none.
        retention_ms: keys.retention.rounded().div_ceil(PS_PER_MS).max(1),
        redelivery_window_ms: keys.redelivery_window.rounded().div_ceil(PS_PER_MS),
    }
}
