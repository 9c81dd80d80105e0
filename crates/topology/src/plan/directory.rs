//! What all key stores and relays of a network have in common. It is written once for all of them, so that what a
//! network is configured with grows with its sites and not with their pairs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{KmsConfig, KmsPeer, RelayConfig, kms_name};

/// The sites of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    pub sites: BTreeMap<String, DirectorySite>,
}

/// What others know of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorySite {
    /// Applications that take key here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saes: Vec<String>,
    /// Relays lead from here to every other site with the same number. Without one only links do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    /// Where its key store is, if that is not found by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Directory {
    /// Sites to which relays lead from `site`, those that share a link with it included.
    pub fn reachable(&self, site: &str) -> impl Iterator<Item = &str> {
        let part = self.part(site);
        let others = self.sites.iter().filter(move |(_, other)| part.is_some() && other.part == part);
        others.map(|(name, _)| name.as_str()).filter(move |other| *other != site)
    }

    fn part(&self, site: &str) -> Option<u32> {
        self.sites.get(site)?.part
    }

    /// Whether only relays lead from one site to the other, of which `neighbours` share a link with the first.
    fn is_far<'n>(site: &str, neighbours: impl IntoIterator<Item = &'n str>) -> bool {
        neighbours.into_iter().all(|near| near != site)
    }

    /// Where the key store of a site is; empty if that is found by its name.
    pub fn address(&self, site: &str) -> &str {
        self.sites.get(site).and_then(|site| site.address.as_deref()).unwrap_or_default()
    }

    /// Every application of the network and its site.
    pub fn applications(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sites.iter().flat_map(|(name, site)| site.saes.iter().map(move |sae| (sae.as_str(), name.as_str())))
    }

    /// The key stores to which only relays lead from this one.
    pub fn relayed<'a>(&'a self, config: &'a KmsConfig) -> impl Iterator<Item = KmsPeer> + 'a {
        let near = || config.peers.iter().filter(|peer| peer.adjacent).map(|peer| peer.site.as_str());
        let far = self.reachable(&config.site).filter(move |site| config.relay.is_some() && Self::is_far(site, near()));
        far.map(|site| KmsPeer { site: site.to_owned(), service: kms_name(site), adjacent: false })
    }

    /// A key store's configuration with what the directory adds: far key stores and everybody's applications.
    pub fn complete_kms(&self, mut config: KmsConfig) -> KmsConfig {
        let relayed: Vec<KmsPeer> = self.relayed(&config).collect();
        // Of two key stores the one with the smaller name connects.
        let callers = relayed.iter().filter(|peer| peer.site < config.site).map(|peer| peer.service.clone());
        config.accepts.extend(callers);
        config.peers.extend(relayed);
        config.peers.sort_by(|a, b| a.site.cmp(&b.site));
        config.directory.extend(self.applications().map(|(sae, site)| (sae.to_owned(), site.to_owned())));
        config
    }

    /// A relay's configuration with the sites that it fills pools for: of two far sites the one with the smaller name.
    pub fn complete_relay(&self, mut config: RelayConfig) -> RelayConfig {
        let near = || config.neighbours.iter().map(|near| near.site.as_str());
        let far =
            self.reachable(&config.site).filter(|site| config.site.as_str() < *site && Self::is_far(site, near()));
        let far: Vec<String> = far.map(str::to_owned).collect();
        config.targets.extend(far);
        config
    }
}
