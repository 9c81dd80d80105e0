//! Network policies, evaluated as a cluster would: exactly the edges of the plan are open.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use operator::layout::{Placed, Unit};
use topology::plan::ServiceConfig;

use crate::support::{NAMESPACE, chain, objects, shipped};

type Labels = BTreeMap<String, String>;

/// A pod as policies see it.
struct Pod {
    namespace: String,
    labels: Labels,
}

fn pod(namespace: &str, labels: &[(&str, &str)]) -> Pod {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Pod { namespace: namespace.to_owned(), labels }
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        assert_eq!(expression.operator, "In");
        let values = expression.values.as_ref().unwrap();
        labels.get(&expression.key).is_some_and(|value| values.contains(value))
    });
    equal && expressions
}

fn matches(peer: &NetworkPolicyPeer, pod: &Pod) -> bool {
    let namespace = match &peer.namespace_selector {
        None => pod.namespace == NAMESPACE,
        Some(selector) => {
            selects(selector, &[("kubernetes.io/metadata.name".to_owned(), pod.namespace.clone())].into())
        }
    };
    namespace && peer.pod_selector.as_ref().is_some_and(|selector| selects(selector, &pod.labels))
}

fn port_matches(ports: &Option<Vec<NetworkPolicyPort>>, port: u16) -> bool {
    ports.iter().flatten().any(|one| one.port == Some(IntOrString::Int(port.into())))
}

/// Whether a connection is let out and in.
fn allowed(policies: &[NetworkPolicy], from: &Pod, to: &Pod, port: u16) -> bool {
    let on = |pod: &Pod| {
        let here = pod.namespace == NAMESPACE;
        let policies: Vec<_> = policies.iter().filter_map(|policy| policy.spec.as_ref()).collect();
        policies
            .into_iter()
            .filter(|policy| here && selects(policy.pod_selector.as_ref().unwrap(), &pod.labels))
            .collect::<Vec<_>>()
    };
    let (out, into) = (on(from), on(to));
    let leaves = out.is_empty()
        || out.iter().flat_map(|policy| policy.egress.iter().flatten()).any(|rule| {
            port_matches(&rule.ports, port) && rule.to.as_ref().unwrap().iter().any(|peer| matches(peer, to))
        });
    let enters = into.is_empty()
        || into.iter().flat_map(|policy| policy.ingress.iter().flatten()).any(|rule| {
            port_matches(&rule.ports, port) && rule.from.as_ref().unwrap().iter().any(|peer| matches(peer, from))
        });
    leaves && enters
}

fn pod_of(unit: &Unit) -> Pod {
    let component = ("app.kubernetes.io/component", unit.component.name());
    pod(NAMESPACE, &[("qkdnet.dev/topology", "alps"), ("qkdnet.dev/unit", &unit.name), component])
}

#[test]
fn exactly_the_edges_of_the_plan_are_open() {
    let (layout, objects) = objects(&chain());
    let mut open = 0;
    for (from, dialler) in layout.services() {
        for (to, listener) in layout.services().filter(|(to, _)| to.name != from.name) {
            // A pod may hold several diallers: the connection is open if one of them needs it.
            let mut needed = from.services().any(|one| one.service.connects_to.contains(&listener.service.name));
            // Key stores that no link joins may talk, which is open between the pods of sites.
            let has_far = |placed: &Placed| match &placed.service.config {
                ServiceConfig::Kms(config) => layout.directory.relayed(config).next().is_some(),
                _ => false,
            };
            needed |= has_far(listener) && from.services().any(has_far);
            let found = allowed(&objects.network_policies, &pod_of(from), &pod_of(to), listener.port);
            assert_eq!(found, needed, "{} -> {}", dialler.service.name, listener.service.name);
            open += usize::from(found);
        }
    }
    assert!(open > 10);
}

#[test]
fn applications_reach_the_key_store_of_their_site_alone() {
    let (layout, objects) = objects(&chain());
    let store = |site: &str| layout.stores.iter().find(|store| store.site == site).unwrap();
    let home = |site: &str| pod_of(layout.units.iter().find(|unit| unit.name == store(site).unit).unwrap());
    let may = |from: &Pod, site: &str, port: u16| allowed(&objects.network_policies, from, &home(site), port);
    let application = pod(NAMESPACE, &[("qkdnet.dev/sae", "app-west")]);
    assert!(may(&application, "west", store("west").port));
    assert!(!may(&application, "east", store("east").port), "another site");
    assert!(!may(&application, "west", 7004), "not the store's own port");
    let elsewhere = pod("other", &[("qkdnet.dev/sae", "app-west")]);
    assert!(!may(&elsewhere, "west", store("west").port), "another namespace");
    let nobody = pod(NAMESPACE, &[("app", "shell")]);
    assert!(!may(&nobody, "west", store("west").port));
}

#[test]
fn the_operator_may_ask_and_nobody_who_looks_like_it_elsewhere() {
    let (layout, objects) = objects(&chain());
    let labels = [("app.kubernetes.io/component", "operator"), ("app.kubernetes.io/part-of", "qkdnet")];
    let (operator, impostor) = (pod("qkdnet-system", &labels), pod("other", &labels));
    for (unit, placed) in layout.services() {
        assert!(allowed(&objects.network_policies, &operator, &pod_of(unit), placed.port), "{}", placed.service.name);
        assert!(!allowed(&objects.network_policies, &impostor, &pod_of(unit), placed.port), "{}", placed.service.name);
    }
}

#[test]
fn every_pod_is_closed_unless_something_opens_it() {
    let (layout, objects) = objects(&shipped("nice.yaml"));
    let deny = &objects.network_policies[0].spec.as_ref().unwrap();
    assert_eq!(deny.policy_types.as_ref().unwrap(), &["Ingress", "Egress"]);
    assert!(deny.ingress.as_ref().unwrap().is_empty());
    for unit in &layout.units {
        let labels = [("qkdnet.dev/topology", "nice"), ("qkdnet.dev/unit", unit.name.as_str())];
        let labels = pod(NAMESPACE, &labels).labels;
        assert!(selects(deny.pod_selector.as_ref().unwrap(), &labels), "{}", unit.name);
    }
}
