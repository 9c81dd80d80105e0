//! What running services are told, and what restarts them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use operator::build::CONFIG_HASH;
use operator::tell::{Told, due};
use serde_json::json;

use crate::support::{by_name, chain, network, objects, settings};

/// Names of the services that are due, where every pod runs what `running` says and is in its `life`.
fn told(wanted: &str, running: &str, life: u32, told: &Told) -> Vec<String> {
    let (layout, wanted) = objects(wanted);
    let hashes = hashes(running);
    let pods: Vec<Pod> = hashes.iter().map(|(unit, hash)| pod(unit, hash, life)).collect();
    let due = due(&layout, &wanted.stateful_sets, &pods, &settings(), told);
    let mut services: Vec<String> = due.into_iter().map(|due| due.service).collect();
    services.sort();
    services
}

/// The hash that each pod starts with, by unit.
fn hashes(text: &str) -> BTreeMap<String, String> {
    let (_, objects) = objects(text);
    let sets = by_name(&objects).into_iter().filter(|(name, _)| name.starts_with("StatefulSet/"));
    sets.map(|(name, set)| {
        let hash = set["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH].as_str().unwrap().to_owned();
        (name.trim_start_matches("StatefulSet/").to_owned(), hash)
    })
    .collect()
}

fn pod(unit: &str, hash: &str, restarts: u32) -> Pod {
    let container = json!({
        "name": "one", "ready": true, "restartCount": restarts, "image": "", "imageID": "", "state": {"running": {}},
    });
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{unit}-0"), "uid": unit,
            "labels": {"qkdnet.dev/unit": unit}, "annotations": {CONFIG_HASH: hash},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [container]},
    }))
    .unwrap()
}

/// What all have heard of this topology in their first life.
fn heard(text: &str) -> Told {
    let (layout, objects) = objects(text);
    let pods: Vec<Pod> = hashes(text).iter().map(|(unit, hash)| pod(unit, hash, 0)).collect();
    let due = due(&layout, &objects.stateful_sets, &pods, &settings(), &Told::new());
    due.into_iter().map(|due| (due.service.clone(), due.heard())).collect()
}

fn changed(from: &str, to: &str) -> String {
    let text = chain();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

#[test]
fn more_loss_starts_nothing_and_is_told_to_the_source_alone() {
    // At the end that announces already, or the two ends would change their roles.
    let end = "{site: middle, fibre: {length: 10 km";
    let lossy = changed(end, &format!("{end}, deviceLoss: 3 dB"));
    assert_eq!(hashes(&chain()), hashes(&lossy));
    assert_eq!(told(&lossy, &chain(), 0, &heard(&chain())), ["source-wm"]);
}

#[test]
fn an_application_starts_nothing_and_is_told_to_every_key_store() {
    let more = changed("saes: [app-west]", "saes: [app-west, guest]");
    assert_eq!(hashes(&chain()), hashes(&more));
    assert_eq!(told(&more, &chain(), 0, &heard(&chain())), ["kms-east", "kms-middle", "kms-west"]);
}

/// The chain with a site more behind its eastern end.
fn longer_chain() -> String {
    let links = [("wm", "west", "middle"), ("me", "middle", "east"), ("ef", "east", "far")];
    network("alps", &["west", "middle", "east", "far"], &links)
}

#[test]
fn a_site_that_comes_starts_the_one_at_the_other_end_of_its_link_alone() {
    let (before, after) = (hashes(&chain()), hashes(&longer_chain()));
    let started: Vec<&String> =
        after.iter().filter(|(unit, hash)| before.get(*unit) != Some(hash)).map(|(unit, _)| unit).collect();
    let link = ["alps-end-ef-east", "alps-end-ef-far", "alps-source-ef"];
    let others: Vec<&String> = started.iter().copied().filter(|unit| !link.contains(&unit.as_str())).collect();
    assert_eq!(started.len(), link.len() + others.len());
    assert_eq!(others, ["alps-site-east", "alps-site-far"]);
    // Of two sites the relay of the one with the smaller name fills the pool, which is the new one's. The pacer has a
    // link more, or less, to keep at one time.
    let near = ["kms-middle", "kms-west", "pacer"];
    assert_eq!(told(&longer_chain(), &chain(), 0, &heard(&chain())), near);
    // And back.
    assert_eq!(told(&chain(), &longer_chain(), 0, &heard(&longer_chain())), near);
}

#[test]
fn a_second_link_is_told_to_the_pacer_and_starts_nothing_of_the_first() {
    let one = network("alps", &["west", "middle"], &[("wm", "west", "middle")]);
    let (before, after) = (hashes(&one), hashes(&chain()));
    for unit in ["alps-source-wm", "alps-pacer", "alps-end-wm-west", "alps-end-wm-middle"] {
        assert!(before.contains_key(unit) && before[unit] == after[unit], "{unit}");
    }
    assert!(told(&chain(), &one, 0, &heard(&one)).contains(&"pacer".to_owned()));
    // Nor one that is listed before it, although a pacer is planned at the site of the first source.
    let sites = ["west", "middle", "east"];
    let turned = network("alps", &sites, &[("me", "middle", "east"), ("wm", "west", "middle")]);
    assert_eq!(hashes(&turned)["alps-pacer"], before["alps-pacer"]);
    let skew = chain().replacen("spec:\n", "spec:\n  run: {skew: 3 s}\n", 1);
    assert_eq!((hashes(&skew), told(&skew, &chain(), 0, &heard(&chain()))), (after, vec!["pacer".to_owned()]));
}

#[test]
fn a_pod_that_is_about_to_be_replaced_is_not_told() {
    let longer = changed("length: 10 km", "length: 11 km, deviceLoss: 3 dB");
    assert_ne!(hashes(&chain()), hashes(&longer));
    assert_eq!(told(&longer, &chain(), 0, &heard(&chain())), Vec::<String>::new());
}

#[test]
fn every_life_of_a_pod_is_told_once() {
    let all = [
        "kms-east",
        "kms-middle",
        "kms-west",
        "pacer",
        "relay-east",
        "relay-middle",
        "relay-west",
        "source-me",
        "source-wm",
    ];
    assert_eq!(told(&chain(), &chain(), 0, &Told::new()), all);
    assert_eq!(told(&chain(), &chain(), 0, &heard(&chain())), Vec::<String>::new());
    assert_eq!(told(&chain(), &chain(), 1, &heard(&chain())), all);
}
