//! Fixtures: topologies as people write them, through the real reader and planner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use operator::build::{self, Objects, Prepared};
use operator::layout::Layout;
use operator::material::{Existing, Material};
use operator::settings::Settings;
use serde_json::Value;
use topology::Topology;
use topology::plan::Plan;

pub const NAMESPACE: &str = "quantum";

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn shipped(name: &str) -> String {
    std::fs::read_to_string(repository().join("topologies").join(name)).unwrap()
}

/// Three sites in a row, two links; the name differs from every other word on purpose.
pub fn chain() -> String {
    network("alps", &["west", "middle", "east"], &[("wm", "west", "middle"), ("me", "middle", "east")])
}

/// A network with an application at every site, and the source of every link at its first site.
pub fn network(name: &str, sites: &[&str], links: &[(&str, &str, &str)]) -> String {
    let site = |site: &&str| format!("    - {{name: {site}, saes: [app-{site}]}}\n");
    let arm = |site: &str| {
        format!(
            "        - {{site: {site}, fibre: {{length: 10 km}}, \
             detector: {{type: snspd, efficiency: 80 %, jitter: 50 ps}}}}\n"
        )
    };
    let link = |(name, a, b): &(&str, &str, &str)| {
        format!(
            "    - name: {name}\n      protocol: bbm92-energy-time\n      window: 120 ps\n      \
             source: {{site: {a}, type: spdc-cw, pairRate: 1e8 /s}}\n      arms:\n{}{}",
            arm(a),
            arm(b)
        )
    };
    let (sites, links): (String, String) = (sites.iter().map(site).collect(), links.iter().map(link).collect());
    format!(
        "apiVersion: qkdnet.dev/v1alpha1\nkind: Topology\nmetadata: {{name: {name}}}\n\
         spec:\n  sites:\n{sites}  links:\n{links}"
    )
}

pub fn parse(text: &str) -> Topology {
    topology::parse("fixture", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology
}

pub fn settings() -> Settings {
    Settings { operator_namespace: Some("qkdnet-system".to_owned()), ..Settings::default() }
}

pub fn layout(topology: &Topology) -> (Plan, Layout) {
    let plan = operator::layout::plan(topology);
    let layout = Layout::of(topology, &plan, NAMESPACE);
    (plan, layout)
}

pub fn objects(text: &str) -> (Layout, Objects<Prepared>) {
    let (_, layout) = layout(&parse(text));
    let material = Material::complete(&layout, &settings(), &Existing::new(), None).unwrap();
    let objects = build::build(&layout, &material, &settings(), None).unwrap();
    (layout, objects)
}

/// Every object as JSON, by kind and name.
pub fn by_name(objects: &Objects<Prepared>) -> BTreeMap<String, Value> {
    let Objects { secrets, services, network_policies, disruption_budgets, stateful_sets, stage: _ } = objects;
    let mut all = Vec::new();
    all.extend(secrets.iter().map(|object| serde_json::to_value(object).unwrap()));
    all.extend(services.iter().map(|object| serde_json::to_value(object).unwrap()));
    all.extend(network_policies.iter().map(|object| serde_json::to_value(object).unwrap()));
    all.extend(disruption_budgets.iter().map(|object| serde_json::to_value(object).unwrap()));
    all.extend(stateful_sets.iter().map(|object| serde_json::to_value(object).unwrap()));
    let key = |object: &Value| {
        format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    all.into_iter().map(|object| (key(&object), object)).collect()
}
