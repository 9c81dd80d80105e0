//! Which services of a plan share a pod and a container, and on which ports they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use shell::launch::ServiceFile;
use topology::Topology;
use topology::document::{DeletionPolicy, Packing};
use topology::plan::estimate::Resources;
use topology::plan::{Directory, Plan, RunOptions, Service, ServiceConfig};

use crate::names::{self, SERVICE_CHARS, STATEFUL_SET_CHARS};
use crate::settings::Settings;

/// Port of ETSI GS QKD 014 on the Service of a key store.
pub const ETSI014_PORT: u16 = 8443;
const METRICS_PORT: u16 = 9090;
/// The health port of a container with several services.
const HOST_HEALTH_PORT: u16 = 7100;

/// Ports of services that share a pod with others of their kind: as many as a topology can have, below those that
/// the kernel gives to outgoing connections.
const SHARED_PORTS: PortRange = PortRange { first: 7200, count: 22_800 };
const SHARED_ETSI014_PORTS: PortRange = PortRange { first: 30_000, count: 1024 };
const SHARED_METRICS_PORTS: PortRange = PortRange { first: 31_024, count: 1024 };

/// Where things are in a container.
pub mod paths {
    pub const CONFIG: &str = "/etc/qkdnet";
    /// What the services of all sites have in common.
    pub const DIRECTORY: &str = "/etc/qkdnet/network/directory.yaml";
    pub const SERVICES: &str = "/etc/qkdnet/services";
    pub const PKI: &str = "/etc/qkdnet/pki";
    pub const SECRETS: &str = "/etc/qkdnet/secrets";
    pub const DATA: &str = "/var/lib/qkdnet";
    pub const RUN: &str = "/run/qkdnet";
}

/// Folder of spans, as `qkdnet trace --data` expects it.
const SPANS_DIR: &str = "_spans";
/// Three files of this size for each container fit into what a pod has for scratch.
const SPAN_FILE_BYTES: u64 = 4 << 20;

/// The pods of a topology.
#[derive(Clone, Debug)]
pub struct Layout {
    pub topology: String,
    pub namespace: String,
    pub deletion_policy: DeletionPolicy,
    pub units: Vec<Unit>,
    /// Links with the bits of their pre-placed secret per direction.
    pub links: BTreeMap<String, u64>,
    pub stores: Vec<Store>,
    /// What the services of all sites have in common, with the addresses of key stores that relays lead to.
    pub directory: Directory,
}

/// A pod that runs all the time.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Name of its StatefulSet, its Service and its label.
    pub name: String,
    pub component: Component,
    pub site: Option<String>,
    pub link: Option<String>,
    pub containers: Vec<Container>,
    pub volume: Option<Volume>,
}

/// What a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Source,
    LinkEnd,
    Pacer,
    Site,
    Network,
}

impl Component {
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::LinkEnd => "link-end",
            Self::Pacer => "pacer",
            Self::Site => "site",
            Self::Network => "network",
        }
    }
}

/// Size class of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    LinkEnd,
    Site,
}

#[derive(Clone, Debug)]
pub struct Container {
    pub name: String,
    pub services: Vec<Placed>,
    pub resources: Resources,
    /// Several services in one process.
    pub hosted: bool,
}

/// A service and the ports that it is on.
#[derive(Clone, Debug)]
pub struct Placed {
    pub service: Service,
    pub port: u16,
    pub health_port: Option<u16>,
    pub etsi014_port: u16,
    pub metrics_port: u16,
}

/// The key store of a site, as applications see it.
#[derive(Clone, Debug)]
pub struct Store {
    pub site: String,
    /// Name of the key store's service, which is its KME ID.
    pub service: String,
    /// Name of the Service in front of ETSI GS QKD 014.
    pub front: String,
    pub unit: String,
    pub port: u16,
    pub saes: Vec<String>,
}

/// What is planned for a topology on a cluster. One link alone has a pacer as well: a second one starts nothing of the
/// first.
pub fn plan(topology: &Topology) -> Plan {
    topology::plan::plan(topology, &RunOptions { pacer_of_one: true, ..RunOptions::default() })
}

impl Layout {
    pub fn of(topology: &Topology, plan: &Plan, namespace: &str) -> Self {
        let name = topology.metadata.name.as_str();
        let packing = topology.spec.packing;
        let ports = Ports::of(plan, packing);
        let mut units: BTreeMap<String, Unit> = BTreeMap::new();
        for (service, resources) in plan.services.iter().zip(plan.resources()) {
            let (key, component) = unit_key(service, packing);
            let unit = units.entry(key.clone()).or_insert_with(|| Unit {
                name: names::object(name, &key, STATEFUL_SET_CHARS),
                component,
                // A pacer of its own is nobody's: it stays where it is, whatever links come and go.
                site: (!matches!(component, Component::Network | Component::Pacer)).then(|| service.site.clone()),
                link: if packing == Packing::Service { service.link.clone() } else { None },
                containers: Vec::new(),
                volume: None,
            });
            unit.place(service, &ports, resources, packing);
        }
        let units: Vec<Unit> = units.into_values().collect();
        let links = plan.channels().map(|channel| (channel.link.clone(), channel.reserve_bits)).collect();
        let stores = stores(name, &units);
        let directory = directory(plan, &units);
        Self {
            topology: name.to_owned(),
            namespace: namespace.to_owned(),
            deletion_policy: topology.spec.deletion_policy,
            units,
            links,
            stores,
            directory,
        }
    }

    pub fn services(&self) -> impl Iterator<Item = (&Unit, &Placed)> {
        self.units.iter().flat_map(|unit| unit.services().map(move |placed| (unit, placed)))
    }

    /// Names of hosts under which clients reach a service beside its own name.
    pub fn hosts(&self, service: &str, settings: &Settings) -> Vec<String> {
        let Some(store) = self.stores.iter().find(|store| store.service == service) else { return Vec::new() };
        let (front, namespace) = (&store.front, &self.namespace);
        vec![
            front.clone(),
            format!("{front}.{namespace}"),
            format!("{front}.{namespace}.svc"),
            format!("{front}.{namespace}.svc.{}", settings.cluster_domain),
        ]
    }

    /// Where each service is, as seen from a pod of the same namespace.
    pub fn places(&self) -> BTreeMap<&str, (&Unit, u16)> {
        self.services().map(|(unit, placed)| (placed.service.name.as_str(), (unit, placed.port))).collect()
    }
}

impl Unit {
    pub fn services(&self) -> impl Iterator<Item = &Placed> {
        self.containers.iter().flat_map(|container| &container.services)
    }

    fn place(&mut self, service: &Service, ports: &Ports, resources: Resources, packing: Packing) {
        let hosted = packing != Packing::Service;
        let kind = service.config.kind();
        let container = if hosted { "host" } else { kind };
        let index = match self.containers.iter().position(|one| one.name == container) {
            Some(index) => index,
            None => {
                let (name, resources) = (container.to_owned(), Resources::default());
                self.containers.push(Container { name, services: Vec::new(), resources, hosted });
                self.containers.len() - 1
            }
        };
        let container = &mut self.containers[index];
        let first = container.services.is_empty();
        let health_port = if hosted { first.then_some(HOST_HEALTH_PORT) } else { Some(health_port(kind)) };
        container.services.push(Placed {
            service: service.clone(),
            port: ports.grpc(service),
            health_port,
            etsi014_port: ports.etsi014(service),
            metrics_port: ports.metrics(service),
        });
        container.resources += resources;
        let volume = match &service.config {
            ServiceConfig::Source(_) | ServiceConfig::Pacer(_) => None,
            ServiceConfig::Detector(_) | ServiceConfig::Transmitter(_) | ServiceConfig::Channel(_) => {
                Some(Volume::LinkEnd)
            }
            ServiceConfig::Kms(_) | ServiceConfig::Relay(_) => Some(Volume::Site),
        };
        if self.volume != Some(Volume::Site) {
            self.volume = volume.or(self.volume);
        }
    }
}

/// The pod that a service belongs to.
fn unit_key(service: &Service, packing: Packing) -> (String, Component) {
    let site = &service.site;
    match (packing, &service.config, &service.link) {
        (Packing::Topology, _, _) => ("all".to_owned(), Component::Network),
        (Packing::Site, _, _) => (format!("site-{site}"), Component::Site),
        (Packing::Service, ServiceConfig::Source(_), Some(link)) => (format!("source-{link}"), Component::Source),
        (Packing::Service, _, Some(link)) => (format!("end-{link}-{site}"), Component::LinkEnd),
        (Packing::Service, ServiceConfig::Pacer(_), _) => ("pacer".to_owned(), Component::Pacer),
        (Packing::Service, _, None) => (format!("site-{site}"), Component::Site),
    }
}

fn stores(topology: &str, units: &[Unit]) -> Vec<Store> {
    let services = units.iter().flat_map(|unit| unit.services().map(move |placed| (unit, placed)));
    let store = |(unit, placed): (&Unit, &Placed)| match &placed.service.config {
        ServiceConfig::Kms(config) => Some(Store {
            site: config.site.clone(),
            service: config.name.clone(),
            front: names::object(topology, &config.name, SERVICE_CHARS),
            unit: unit.name.clone(),
            port: placed.etsi014_port,
            saes: config.saes.clone(),
        }),
        _ => None,
    };
    services.filter_map(store).collect()
}

fn directory(plan: &Plan, units: &[Unit]) -> Directory {
    let mut directory = plan.directory.clone();
    for (unit, placed) in units.iter().flat_map(|unit| unit.services().map(move |placed| (unit, placed))) {
        let ServiceConfig::Kms(config) = &placed.service.config else { continue };
        let Some(site) = directory.sites.get_mut(&config.site).filter(|site| site.part.is_some()) else { continue };
        let host = if unit.component == Component::Network { "127.0.0.1" } else { &unit.name };
        site.address = Some(format!("{host}:{}", placed.port));
    }
    directory
}

// === ports ===

#[derive(Clone, Copy)]
struct PortRange {
    first: u16,
    count: u16,
}

impl PortRange {
    /// A port for each name: its own while no other name wants the same, so that others seldom move when one comes.
    fn allocate<'a>(self, names: impl Iterator<Item = &'a str>) -> BTreeMap<String, u16> {
        let names: BTreeSet<&str> = names.collect();
        let mut taken = BTreeSet::new();
        let mut ports = BTreeMap::new();
        for name in names.into_iter().take(usize::from(self.count)) {
            let digest = Sha256::digest(name.as_bytes());
            let mut slot = u16::from_le_bytes([digest[0], digest[1]]) % self.count;
            while !taken.insert(slot) {
                slot = (slot + 1) % self.count;
            }
            ports.insert(name.to_owned(), self.first + slot);
        }
        ports
    }
}

/// Ports of services: by kind where a pod has one of each, allocated where services share one.
struct Ports {
    grpc: BTreeMap<String, u16>,
    etsi014: BTreeMap<String, u16>,
    metrics: BTreeMap<String, u16>,
}

impl Ports {
    fn of(plan: &Plan, packing: Packing) -> Self {
        let names = |wanted: bool| plan.services.iter().filter(move |_| wanted).map(|service| service.name.as_str());
        let stores = |wanted: bool| plan.key_stores().filter(move |_| wanted).map(|store| store.name.as_str());
        let (shared, many_stores) = (packing != Packing::Service, packing == Packing::Topology);
        Self {
            grpc: SHARED_PORTS.allocate(names(shared)),
            etsi014: SHARED_ETSI014_PORTS.allocate(stores(many_stores)),
            metrics: SHARED_METRICS_PORTS.allocate(stores(many_stores)),
        }
    }

    fn grpc(&self, service: &Service) -> u16 {
        self.grpc.get(&service.name).copied().unwrap_or_else(|| health_port(service.config.kind()) - 100)
    }

    fn etsi014(&self, service: &Service) -> u16 {
        self.etsi014.get(&service.name).copied().unwrap_or(ETSI014_PORT)
    }

    fn metrics(&self, service: &Service) -> u16 {
        self.metrics.get(&service.name).copied().unwrap_or(METRICS_PORT)
    }
}

/// Health ports are the gRPC ports and 100.
fn health_port(kind: &str) -> u16 {
    match kind {
        "source" => 7101,
        "detector" | "transmitter" => 7102,
        "channel" => 7103,
        "kms" => 7104,
        "pacer" => 7106,
        _ => 7105,
    }
}

// === configuration files ===

/// Names of a service's files in the Secrets and in the container.
pub fn config_file(service: &str) -> String {
    format!("{service}.yaml")
}

impl Layout {
    /// The file that a service is started with.
    pub fn service_file<'a>(
        &self,
        unit: &Unit,
        placed: &'a Placed,
        places: &BTreeMap<&str, (&Unit, u16)>,
    ) -> ServiceFile<&'a ServiceConfig> {
        let any = |port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let mut ports = BTreeMap::new();
        if matches!(placed.service.config, ServiceConfig::Kms(_)) {
            ports.insert("etsi014".to_owned(), any(placed.etsi014_port));
            ports.insert("metrics".to_owned(), any(placed.metrics_port));
        }
        let peer = |peer: &String| {
            let (home, port) = places.get(peer.as_str())?;
            let host = if home.name == unit.name { "127.0.0.1" } else { home.name.as_str() };
            Some((peer.clone(), format!("{host}:{port}")))
        };
        let of_site = matches!(placed.service.config, ServiceConfig::Kms(_) | ServiceConfig::Relay(_));
        let data = if unit.volume.is_some() { paths::DATA } else { paths::RUN };
        ServiceFile {
            service: &placed.service.config,
            topology: self.topology.clone(),
            listen: any(placed.port),
            health_listen: placed.health_port.map(any),
            ports,
            pki: PathBuf::from(paths::PKI),
            run_dir: PathBuf::from(paths::RUN),
            data: PathBuf::from(data),
            secrets: Some(PathBuf::from(paths::SECRETS)),
            anchor: None,
            restarted: true,
            span_dir: Some(PathBuf::from(paths::RUN).join(SPANS_DIR)),
            span_file_bytes: Some(SPAN_FILE_BYTES),
            peers: placed.service.connects_to.iter().filter_map(peer).collect(),
            directory: of_site.then(|| PathBuf::from(paths::DIRECTORY)),
        }
    }
}
