//! Names and packings: long ones, large ones, crowded ones.

use std::collections::{BTreeMap, BTreeSet};

use operator::layout::Layout;
use operator::resource::{FigureStatus, LinkStatus, TopologyStatus};
use topology::plan::Plan;

use crate::support::{chain, layout, network, objects, parse, settings};

fn packed(packing: &str) -> (Plan, Layout) {
    layout(&parse(&chain().replace("spec:\n", &format!("spec:\n  packing: {packing}\n"))))
}

#[test]
fn packing_puts_everything_of_a_site_or_of_the_network_into_one_container() {
    let (plan, sites) = packed("site");
    assert_eq!(sites.units.len(), 3);
    let (_, one) = packed("topology");
    assert_eq!(one.units.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>(), ["alps-all"]);
    for layout in [&sites, &one] {
        assert!(layout.units.iter().all(|unit| unit.containers.len() == 1 && unit.containers[0].hosted));
        assert_eq!(layout.services().count(), plan.services.len());
    }
}

#[test]
fn services_that_share_a_pod_have_ports_of_their_own_that_others_do_not_move() {
    let ports = |text: &str| -> BTreeMap<String, u16> {
        let (_, layout) = layout(&parse(&text.replace("spec:\n", "spec:\n  packing: topology\n")));
        layout.services().map(|(_, placed)| (placed.service.name.clone(), placed.port)).collect()
    };
    let (two, one) = (ports(&chain()), ports(&network("alps", &["west", "middle"], &[("wm", "west", "middle")])));
    assert_eq!(two.values().collect::<BTreeSet<_>>().len(), two.len());
    for (name, port) in &one {
        assert_eq!(two.get(name), Some(port), "{name}");
    }
}

#[test]
fn a_name_of_sixty_three_characters_gives_names_that_kubernetes_takes() {
    let name = format!("n{}e", "a".repeat(61));
    let (layout, objects) = objects(&chain().replace("name: alps", &format!("name: {name}")));
    let sets: BTreeSet<&str> = layout.units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(sets.len(), 10);
    assert!(sets.iter().all(|name| name.len() <= 52 && !name.ends_with('-')), "{sets:?}");
    for service in &objects.services {
        assert!(service.metadata.name.as_ref().unwrap().len() <= 63);
    }
    let labels = objects.stateful_sets.iter().flat_map(|set| set.metadata.labels.clone().unwrap());
    for (key, value) in labels {
        assert!(value.len() <= 63, "{key}: {value}");
    }
}

/// A chain of sites, each linked with the next.
fn long_chain(links: usize) -> String {
    let sites: Vec<String> = (0..=links).map(|index| format!("s{index}")).collect();
    let names: Vec<String> = (0..links).map(|index| format!("l{index}")).collect();
    let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
    let links: Vec<(&str, &str, &str)> =
        names.iter().enumerate().map(|(index, name)| (name.as_str(), sites[index], sites[index + 1])).collect();
    network("large", &sites, &links)
}

#[test]
fn a_thousand_links_fit_into_the_objects_of_a_cluster() {
    // With relays every site would run a pool with every other one; a network of this size has them off.
    let text =
        long_chain(1000).replace("spec:\n", "spec:\n  packing: site\n  keyManagement: {relay: {enabled: false}}\n");
    let topology = parse(&text);
    // The API server stores what was written, and no defaults of links; etcd takes one and a half megabytes.
    let written: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let stored = written.to_string().len();
    assert!(stored < 1_000_000, "{stored}");
    let (_, layout) = layout(&topology);
    assert_eq!(layout.units.len(), 1001);
    let row = LinkStatus {
        name: "a-link-with-a-long-name-1000".into(),
        state: "authentication-exhausted".into(),
        figures: ["qberZ", "qberX"].map(|name| FigureStatus { name: name.into(), value: "4.27 %".into() }).into(),
        qber_z: "4.27 %".into(),
        qber_x: "4.87 %".into(),
        key_rate: "7.2 kbit/s".into(),
        pool: "140 kbit".into(),
        blocks: 1_000_000,
    };
    let status = TopologyStatus { link_status: vec![row; 1000], ..TopologyStatus::default() };
    let bytes = serde_json::to_string(&status).unwrap().len();
    assert!(bytes < 1_000_000, "{bytes}");
}

#[test]
fn files_of_a_crowded_pod_are_spread_over_as_many_secrets_as_they_need() {
    let text =
        long_chain(150).replace("spec:\n", "spec:\n  packing: topology\n  keyManagement: {relay: {enabled: false}}\n");
    let (layout, objects) = objects(&text);
    let parts: Vec<usize> = objects
        .secrets
        .iter()
        .filter(|secret| secret.metadata.name.as_ref().unwrap().starts_with("large-all-"))
        .map(|secret| secret.data.as_ref().unwrap().values().map(|value| value.0.len()).sum())
        .collect();
    assert!(parts.len() > 2 && parts.iter().all(|bytes| *bytes < 1_000_000), "{parts:?}");
    let pod = objects.stateful_sets[0].spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let files = pod.volumes.as_ref().unwrap().iter().find(|volume| volume.name == "files-host").unwrap();
    let sources = files.projected.as_ref().unwrap().sources.as_ref().unwrap();
    let items: usize = sources.iter().map(|source| source.secret.as_ref().unwrap().items.as_ref().unwrap().len()).sum();
    // A configuration, a certificate and a key for each service; the authority; the directory; a secret, its number and a mark for each
    // link end; two keys for each site with a store.
    let services = layout.services().count();
    assert_eq!(items, 3 * services + 2 + 3 * 2 * 150 + 2 * 151);
}

#[test]
fn what_is_rendered_grows_with_the_sites_and_not_with_their_pairs() {
    let bytes = [30, 60].map(|links| {
        let objects = objects(&long_chain(links)).1;
        let texts = crate::support::by_name(&objects).into_values().map(|object| object.to_string().len());
        texts.sum::<usize>()
    });
    assert!(bytes[1] < bytes[0] * 205 / 100, "{bytes:?}");
}

#[test]
fn two_topologies_of_a_namespace_share_no_object() {
    let names = |text: &str| -> BTreeSet<String> { crate::support::by_name(&objects(text).1).into_keys().collect() };
    let (alps, andes) = (names(&chain()), names(&chain().replace("name: alps", "name: andes")));
    assert!(alps.is_disjoint(&andes));
    assert_eq!(settings().cluster_domain, "cluster.local");
}
