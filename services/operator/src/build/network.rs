//! Network policies: nothing may talk, but what the plan says, names, and what watches.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use topology::plan::{CONTROL_IDENTITY, ServiceConfig};

use super::{Context, labels, unit_selector};
use crate::layout::{Component, Placed, Unit};
use crate::names::{self, SERVICE_CHARS};

/// Every namespace has this label.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Label of the operator's pods, beside `app.kubernetes.io/part-of: qkdnet`.
const OPERATOR_COMPONENT: &str = "operator";
/// Where a cluster runs a resolver on every node, it is at this address.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

/// Ports by the pod at the other end.
type Edges<'a> = BTreeMap<&'a str, BTreeSet<u16>>;

impl Context<'_> {
    pub(super) fn network_policies(&self, places: &BTreeMap<&str, (&Unit, u16)>) -> Vec<NetworkPolicy> {
        let (mut ingress, mut egress): (BTreeMap<&str, Edges<'_>>, BTreeMap<&str, Edges<'_>>) = Default::default();
        for (unit, placed) in self.layout.services() {
            for peer in &placed.service.connects_to {
                let Some((home, port)) = places.get(peer.as_str()) else { continue };
                if home.name != unit.name {
                    egress.entry(&unit.name).or_default().entry(&home.name).or_default().insert(*port);
                    ingress.entry(&home.name).or_default().entry(&unit.name).or_default().insert(*port);
                }
            }
        }
        let mut policies = vec![self.default_deny()];
        for unit in &self.layout.units {
            let (from, to) = (ingress.remove(unit.name.as_str()), egress.remove(unit.name.as_str()));
            policies.push(self.unit_policy(unit, from.unwrap_or_default(), to.unwrap_or_default()));
        }
        policies
    }

    /// Closes every pod of the topology; names can be looked up.
    fn default_deny(&self) -> NetworkPolicy {
        let dns = NetworkPolicyEgressRule {
            ports: Some(vec![port_of(53, "UDP"), port_of(53, "TCP")]),
            to: Some(vec![
                NetworkPolicyPeer {
                    namespace_selector: Some(LabelSelector::default()),
                    pod_selector: Some(with_label("k8s-app", "kube-dns")),
                    ..NetworkPolicyPeer::default()
                },
                NetworkPolicyPeer {
                    ip_block: Some(IPBlock { cidr: NODE_LOCAL_DNS.to_owned(), except: None }),
                    ..NetworkPolicyPeer::default()
                },
            ]),
        };
        let mut egress = vec![dns];
        egress.extend(self.collector_rule());
        NetworkPolicy {
            metadata: self.metadata(names::object(&self.layout.topology, "deny", SERVICE_CHARS), self.labels()),
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(with_label(labels::TOPOLOGY, &self.layout.topology)),
                policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
                // Said, not left out: what is left out is not taken away from an object that has it.
                ingress: Some(Vec::new()),
                egress: Some(egress),
            }),
        }
    }

    /// Opens what the plan says of one pod.
    fn unit_policy(&self, unit: &Unit, from: Edges<'_>, to: Edges<'_>) -> NetworkPolicy {
        let mut ingress: Vec<NetworkPolicyIngressRule> = from
            .into_iter()
            .map(|(peer, ports)| NetworkPolicyIngressRule {
                from: Some(vec![pod(unit_selector(peer))]),
                ports: Some(ports.into_iter().map(|port| port_of(port, "TCP")).collect()),
            })
            .collect();
        let (far_ingress, far_egress) = self.far_rules(unit);
        ingress.extend(far_ingress);
        ingress.extend(self.operator_rule(unit));
        ingress.extend(self.application_rules(unit));
        let egress = to.into_iter().map(|(peer, ports)| NetworkPolicyEgressRule {
            to: Some(vec![pod(unit_selector(peer))]),
            ports: Some(ports.into_iter().map(|port| port_of(port, "TCP")).collect()),
        });
        let egress: Vec<NetworkPolicyEgressRule> = egress.chain(far_egress).collect();
        NetworkPolicy {
            metadata: self.metadata(unit.name.clone(), self.unit_labels(unit)),
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(LabelSelector {
                    match_labels: Some(unit_selector(&unit.name)),
                    ..LabelSelector::default()
                }),
                policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
                ingress: Some(ingress),
                egress: Some(egress),
            }),
        }
    }

    /// Key stores that no link joins talk to each other, and are not named one by one: each is open to the pods of sites,
    /// whose certificates say who they are. Out of a pod every port of theirs is open, where they are on several.
    fn far_rules(&self, unit: &Unit) -> (Option<NetworkPolicyIngressRule>, Option<NetworkPolicyEgressRule>) {
        let far = |placed: &&Placed| match &placed.service.config {
            ServiceConfig::Kms(config) => self.layout.directory.relayed(config).next().is_some(),
            _ => false,
        };
        let ports: BTreeSet<u16> = unit.services().filter(far).map(|placed| placed.port).collect();
        if ports.is_empty() || unit.component != Component::Site {
            return (None, None);
        }
        let mut sites = with_label(labels::TOPOLOGY, &self.layout.topology);
        if let Some(wanted) = &mut sites.match_labels {
            wanted.insert(labels::COMPONENT.to_owned(), Component::Site.name().to_owned());
        }
        let sites = || Some(vec![NetworkPolicyPeer { pod_selector: Some(sites.clone()), ..Default::default() }]);
        let listed: Vec<NetworkPolicyPort> = ports.into_iter().map(|port| port_of(port, "TCP")).collect();
        // Where a pod has one service of each kind, all key stores are on the same port.
        let same = unit.containers.iter().all(|container| !container.hosted);
        (
            Some(NetworkPolicyIngressRule { from: sites(), ports: Some(listed.clone()) }),
            Some(NetworkPolicyEgressRule { to: sites(), ports: same.then_some(listed) }),
        )
    }

    /// The operator asks services how they are.
    fn operator_rule(&self, unit: &Unit) -> Option<NetworkPolicyIngressRule> {
        let namespace = self.settings.operator_namespace.as_ref()?;
        let asked = unit.services().filter(|placed| placed.service.accepts.iter().any(|name| name == CONTROL_IDENTITY));
        let mut selector = with_label(labels::COMPONENT, OPERATOR_COMPONENT);
        if let Some(wanted) = &mut selector.match_labels {
            wanted.insert(labels::PART_OF.to_owned(), "qkdnet".to_owned());
        }
        Some(NetworkPolicyIngressRule {
            from: Some(vec![NetworkPolicyPeer {
                namespace_selector: Some(with_label(NAMESPACE_NAME, namespace)),
                pod_selector: Some(selector),
                ..NetworkPolicyPeer::default()
            }]),
            ports: Some(asked.map(|placed| port_of(placed.port, "TCP")).collect()),
        })
    }

    /// Pods that say which application they are, to the key store of its site. The certificate proves it.
    fn application_rules(&self, unit: &Unit) -> Vec<NetworkPolicyIngressRule> {
        let stores = self.layout.stores.iter().filter(|store| store.unit == unit.name && !store.saes.is_empty());
        let rule = |store: &crate::layout::Store| NetworkPolicyIngressRule {
            from: Some(vec![NetworkPolicyPeer {
                pod_selector: Some(LabelSelector {
                    match_expressions: Some(vec![LabelSelectorRequirement {
                        key: labels::SAE.to_owned(),
                        operator: "In".to_owned(),
                        values: Some(store.saes.clone()),
                    }]),
                    ..LabelSelector::default()
                }),
                ..NetworkPolicyPeer::default()
            }]),
            ports: Some(vec![port_of(store.port, "TCP")]),
        };
        stores.map(rule).collect()
    }

    fn collector_rule(&self) -> Option<NetworkPolicyEgressRule> {
        let (host, port) = host_and_port(self.settings.otlp_endpoint.as_deref()?)?;
        Some(NetworkPolicyEgressRule {
            ports: Some(vec![port_of(port, "TCP")]),
            to: namespace_of(host).map(|namespace| {
                vec![NetworkPolicyPeer {
                    namespace_selector: Some(with_label(NAMESPACE_NAME, namespace)),
                    ..NetworkPolicyPeer::default()
                }]
            }),
        })
    }
}

/// Host and port of `http://HOST:PORT`; the port of OTLP over gRPC where none is named.
fn host_and_port(endpoint: &str) -> Option<(&str, u16)> {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    match authority.rsplit_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, 4317)),
    }
}

/// The namespace of `service.namespace` or `service.namespace.svc...`; nothing for other names and for addresses.
fn namespace_of(host: &str) -> Option<&str> {
    let mut labels = host.split('.');
    let (_, namespace) = (labels.next()?, labels.next()?);
    match labels.next() {
        None | Some("svc") if !namespace.bytes().all(|byte| byte.is_ascii_digit()) => Some(namespace),
        _ => None,
    }
}

fn pod(labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
        ..NetworkPolicyPeer::default()
    }
}

fn with_label(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_owned(), value.to_owned())].into()), ..LabelSelector::default() }
}

fn port_of(port: u16, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_in_the_cluster_is_known_by_its_namespace() {
        assert_eq!(host_and_port("http://otel.observe:4317"), Some(("otel.observe", 4317)));
        assert_eq!(host_and_port("https://otel.example.com/v1"), Some(("otel.example.com", 4317)));
        assert_eq!(namespace_of("otel.observe"), Some("observe"));
        assert_eq!(namespace_of("otel.observe.svc.cluster.local"), Some("observe"));
        assert_eq!(
            (namespace_of("otel.example.com"), namespace_of("10.0.0.1"), namespace_of("otel")),
            (None, None, None)
        );
    }
}
