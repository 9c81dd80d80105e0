//! Services: a headless one for each pod, by which peers find it, and one for applications in front of each key store.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Context, labels, unit_selector};
use crate::layout::{ETSI014_PORT, Store, Unit};
use crate::names::{self, SERVICE_CHARS};

/// Ports that are worth listing on a headless Service, which works without.
const PORTS_LISTED_MAX: usize = 16;

impl Context<'_> {
    pub(super) fn services(&self) -> Vec<Service> {
        let peers = self.layout.units.iter().map(|unit| self.peer_service(unit));
        peers.chain(self.layout.stores.iter().map(|store| self.front_service(store))).collect()
    }

    /// Peers must find a pod before it is ready, as each waits for the other.
    fn peer_service(&self, unit: &Unit) -> Service {
        let listed = unit.services().count() <= PORTS_LISTED_MAX;
        let port = |placed: &crate::layout::Placed| ServicePort {
            name: Some(placed.service.config.kind().to_owned()),
            port: placed.port.into(),
            target_port: Some(IntOrString::Int(placed.port.into())),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        };
        let hosted = unit.containers.iter().any(|container| container.hosted);
        let ports: Vec<ServicePort> = unit.services().filter(|_| listed && !hosted).map(port).collect();
        Service {
            metadata: self.metadata(unit.name.clone(), self.unit_labels(unit)),
            spec: Some(ServiceSpec {
                cluster_ip: Some("None".to_owned()),
                publish_not_ready_addresses: Some(true),
                selector: Some(unit_selector(&unit.name)),
                ports: (!ports.is_empty()).then_some(ports),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// ETSI GS QKD 014, only while the key store answers.
    fn front_service(&self, store: &Store) -> Service {
        let mut labels = self.labels();
        labels.insert(labels::SITE.to_owned(), store.site.clone());
        labels.insert(labels::COMPONENT.to_owned(), "etsi014".to_owned());
        Service {
            metadata: self.metadata(store.front.clone(), labels),
            spec: Some(ServiceSpec {
                selector: Some(unit_selector(&store.unit)),
                ports: Some(vec![ServicePort {
                    name: Some("etsi014".to_owned()),
                    port: ETSI014_PORT.into(),
                    target_port: Some(IntOrString::Int(store.port.into())),
                    protocol: Some("TCP".to_owned()),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// One pod of the network at a time is taken down on purpose.
    pub(super) fn disruption_budget(&self) -> PodDisruptionBudget {
        let selector = LabelSelector {
            match_labels: Some([(labels::TOPOLOGY.to_owned(), self.layout.topology.clone())].into()),
            ..LabelSelector::default()
        };
        PodDisruptionBudget {
            metadata: self.metadata(names::object(&self.layout.topology, "pods", SERVICE_CHARS), self.labels()),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(selector),
                // A pod that does not answer protects nothing.
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        }
    }
}
