//! What is built of shipped and small topologies.

use std::collections::BTreeSet;

use operator::material::{Existing, Material, keys};
use serde_json::{Value, json};

use crate::support::{by_name, chain, objects, settings, shipped};

/// Secret values are drawn at random; the plan's files are shown, the rest is not.
fn redacted(mut object: Value) -> Value {
    if object["kind"] != "Secret" {
        return object;
    }
    let Some(data) = object["data"].as_object_mut() else { return object };
    for (key, value) in data {
        *value = match key.ends_with(".yaml") {
            true => serde_yaml::from_str(&decoded(value)).unwrap(),
            false => json!("(hidden)"),
        };
    }
    object
}

fn decoded(value: &Value) -> String {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(value.clone()).unwrap();
    String::from_utf8(bytes.0).unwrap()
}

#[test]
fn the_fifty_kilometre_link_becomes_these_objects() {
    let (_, objects) = objects(&shipped("nice-50km.yaml"));
    let all: Vec<Value> = by_name(&objects).into_values().map(redacted).collect();
    insta::assert_yaml_snapshot!(all);
}

#[test]
fn there_is_a_pod_for_each_source_link_end_and_site_with_key() {
    let (layout, objects) = objects(&chain());
    let units: Vec<&str> = layout.units.iter().map(|unit| unit.name.as_str()).collect();
    let expected = [
        "alps-end-me-east",
        "alps-end-me-middle",
        "alps-end-wm-middle",
        "alps-end-wm-west",
        "alps-pacer",
        "alps-site-east",
        "alps-site-middle",
        "alps-site-west",
        "alps-source-me",
        "alps-source-wm",
    ];
    assert_eq!(units, expected);
    let containers = |unit: &str| -> Vec<String> {
        let set = &by_name(&objects)[&format!("StatefulSet/{unit}")];
        let containers = set["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        containers.iter().map(|container| container["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(containers("alps-end-wm-west"), ["detector", "channel"]);
    assert_eq!(containers("alps-site-west"), ["kms", "relay"]);
    assert_eq!(containers("alps-source-wm"), ["source"]);
    assert_eq!(containers("alps-pacer"), ["pacer"]);
}

#[test]
fn ports_of_a_pod_have_names_of_their_own_that_a_cluster_takes() {
    let (_, objects) = objects(&shipped("quantum-dot-18.yaml"));
    for set in &objects.stateful_sets {
        let containers = &set.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers;
        let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
        let names: Vec<&str> = ports.map(|port| port.name.as_deref().unwrap()).collect();
        assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}

#[test]
fn every_pod_keeps_to_the_restricted_profile() {
    let (_, objects) = objects(&chain());
    for set in &objects.stateful_sets {
        let pod = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let security = pod.security_context.as_ref().unwrap();
        assert_eq!((security.run_as_non_root, security.run_as_user), (Some(true), Some(65532)));
        assert_eq!(security.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
        assert_eq!((pod.automount_service_account_token, pod.host_network), (Some(false), None));
        for container in &pod.containers {
            let security = container.security_context.as_ref().unwrap();
            assert_eq!(security.allow_privilege_escalation, Some(false));
            assert_eq!(security.read_only_root_filesystem, Some(true));
            assert_eq!(security.capabilities.as_ref().unwrap().drop.as_ref().unwrap(), &["ALL".to_owned()]);
            let resources = container.resources.as_ref().unwrap();
            assert!(resources.limits.as_ref().unwrap().contains_key("memory"));
            assert!(resources.requests.as_ref().unwrap().contains_key("cpu"));
            assert!(container.startup_probe.is_some() && container.liveness_probe.is_some());
        }
        for volume in pod.volumes.iter().flatten() {
            let allowed = volume.projected.is_some() || volume.empty_dir.is_some();
            assert!(allowed && volume.empty_dir.as_ref().is_none_or(|dir| dir.size_limit.is_some()), "{}", volume.name);
        }
    }
}

#[test]
fn a_container_gets_its_own_secrets_and_nobody_elses() {
    let (_, objects) = objects(&chain());
    let mut seen = BTreeSet::new();
    for set in &objects.stateful_sets {
        let pod = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        for container in &pod.containers {
            let mount = container
                .volume_mounts
                .as_ref()
                .unwrap()
                .iter()
                .find(|mount| mount.mount_path == "/etc/qkdnet")
                .unwrap();
            assert_eq!(mount.read_only, Some(true));
            let volume = pod.volumes.as_ref().unwrap().iter().find(|volume| volume.name == mount.name).unwrap();
            let projected = volume.projected.as_ref().unwrap();
            assert_eq!(projected.default_mode, Some(0o440));
            let items = projected.sources.as_ref().unwrap().iter().flat_map(|source| {
                let secret = source.secret.as_ref().unwrap();
                secret.items.as_ref().unwrap().iter().map(|item| format!("{}/{}", secret.name, item.key))
            });
            let items: Vec<String> = items.collect();
            let keys = items.iter().filter(|item| item.ends_with(".key") && !item.contains("store"));
            assert_eq!(keys.count(), 1, "{items:?}");
            let has = |key: &str| items.iter().any(|item| item.ends_with(key));
            assert!(!(has("/blocks.key") && has("/master.key")), "a module reads no key store: {items:?}");
            assert!(!items.iter().any(|item| item.contains("ca.key") || item.contains("-control")), "{items:?}");
            seen.extend(items);
        }
    }
    assert!(seen.contains("alps-link-wm/authentication.secret") && seen.contains("alps-store-west/master.key"));
    assert!(seen.contains("alps-store-west/blocks.key"));
}

#[test]
fn a_secret_of_a_key_store_that_release_0_1_made_keeps_its_master_key_and_gets_one_for_blocks() {
    let (layout, objects) = objects(&chain());
    let mut old = objects.secrets.iter().find(|one| one.metadata.name.as_deref() == Some("alps-store-west")).cloned();
    let data = old.as_mut().unwrap().data.as_mut().unwrap();
    data.remove(keys::BLOCKS_KEY).unwrap();
    let master = data[keys::STORE_KEY].0.clone();
    let existing = Existing::from([("alps-store-west", old.as_ref().unwrap())]);
    let first = Material::complete(&layout, &settings(), &existing, None).unwrap();
    assert_eq!(*first.stores["west"].0, master);
    assert_eq!(first.blocks["west"].0.len(), 32);
    let second = Material::complete(&layout, &settings(), &existing, Some(&first)).unwrap();
    assert_eq!(second.blocks["west"], first.blocks["west"], "what this process has drawn is not drawn again");
}

#[test]
fn only_the_pod_whose_service_changed_is_restarted() {
    let templates = |text: &str| -> Vec<(String, String)> {
        let (_, objects) = objects(text);
        let template = |set: &k8s_openapi::api::apps::v1::StatefulSet| {
            // Any difference in the template restarts the pod; the hash of the configuration is one. Estimates of
            // memory alone do not, which `apply` sees to.
            let mut template = set.spec.as_ref().unwrap().template.clone();
            template.spec.as_mut().unwrap().containers.iter_mut().for_each(|container| container.resources = None);
            (set.metadata.name.clone().unwrap(), serde_json::to_string(&template).unwrap())
        };
        objects.stateful_sets.iter().map(template).collect()
    };
    let changed = |from: &str, to: &str| -> Vec<String> {
        let (before, after) = (templates(from), templates(to));
        assert_eq!(before.len(), after.len());
        before.into_iter().zip(after).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect()
    };
    let text = chain();
    assert_eq!(changed(&text, &text), Vec::<String>::new());
    // At the end that announces already, or the two ends would change their roles.
    let end = "{site: middle, fibre: {length: 10 km";
    let lossy = text.replacen(end, &format!("{end}, deviceLoss: 1 dB"), 1);
    assert_eq!(changed(&text, &lossy), Vec::<String>::new(), "a source is told of its loss");
    let dimmer = text.replacen("pairRate: 1e8 /s", "pairRate: 9e7 /s", 1);
    assert_eq!(changed(&text, &dimmer), ["alps-source-wm"], "light is the source's business");
    let window = text.replacen("window: 120 ps", "window: 100 ps", 1);
    assert_eq!(changed(&text, &window), ["alps-end-wm-middle", "alps-end-wm-west"]);
}

#[test]
fn less_light_asks_for_no_more_cpu() {
    let asked = |pairs_hz: u32| -> Vec<u32> {
        let text = chain().replace("pairRate: 1e8 /s", &format!("pairRate: {pairs_hz} /s"));
        let (_, objects) = objects(&text.replace("spec:\n", "spec:\n  run: {speed: 1}\n"));
        let pods = objects.stateful_sets.iter().flat_map(|set| &set.spec.as_ref().unwrap().template.spec);
        let resources = pods.flat_map(|pod| &pod.containers).map(|container| container.resources.as_ref().unwrap());
        let cpus = resources.map(|resources| resources.requests.as_ref().unwrap()["cpu"].0.clone());
        cpus.map(|cpu| cpu.strip_suffix('m').unwrap().parse().unwrap()).collect()
    };
    let mut more = asked(100_000_000);
    for pairs_hz in [30_000_000, 10_000_000, 4_000_000, 2_000_000, 1_000_000, 300_000] {
        let less = asked(pairs_hz);
        assert!(less.iter().zip(&more).all(|(less, more)| less <= more), "{pairs_hz}: {less:?} after {more:?}");
        more = less;
    }
}

#[test]
fn certificates_of_key_stores_name_the_hosts_that_applications_use() {
    let (layout, objects) = objects(&chain());
    let hosts = layout.hosts("kms-west", &crate::support::settings());
    assert!(hosts.contains(&"alps-kms-west.quantum.svc".to_owned()));
    let pki =
        objects.secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some("alps-site-west-pki")).unwrap();
    let data = pki.data.as_ref().unwrap();
    let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
    assert!(shell::pki::pem_lasts(&text("kms-west.pem"), Some(&text("ca.pem")), &hosts));
    assert!(!shell::pki::pem_lasts(&text("relay-west.pem"), Some(&text("ca.pem")), &hosts));
}

#[test]
fn nothing_secret_shows_in_debug() {
    let (_, layout) = crate::support::layout(&crate::support::parse(&chain()));
    let settings = crate::support::settings();
    let material = operator::material::Material::complete(&layout, &settings, &Default::default(), None).unwrap();
    let printed = format!("{material:?}");
    assert!(!printed.contains("PRIVATE") && !printed.contains("["), "{printed}");
}
