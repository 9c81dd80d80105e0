//! The same seed gives the same link keys in pods as on a laptop: for every protocol, at clicks and at counts.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::{
    applied, eventually, kubectl, objects, of, qkdnet, restricted_namespace, said, success, topology,
};
use crate::harness::Suite;
use crate::topologies::{bright, changed, shipped, without_calern};

const NAMESPACE: &str = "e2e-twin";

pub fn run(suite: &mut Suite) {
    suite.step("pods distil the bytes that tasks distil from the same seed, whatever the protocol", || {
        restricted_namespace(NAMESPACE);
        let twins = twins();
        twins.iter().for_each(|(_, text)| applied(NAMESPACE, text));
        let here: Vec<Vec<[String; 4]>> = twins.iter().map(|(_, text)| distilled_here(text)).collect();
        for ((name, _), here) in twins.iter().zip(here) {
            eventually(&format!("the pods of {name} have distilled the same"), || {
                let there = digests(qkdnet(&["digest", "--output", "json", "-n", NAMESPACE, "--topology", name]))?;
                if there == here { Ok(()) } else { Err(format!("{there:?}\n{here:?}")) }
            });
            // Nobody is left in doubt about what such keys are worth.
            let warned = topology(NAMESPACE, name)["status"].to_string();
            assert!(warned.contains("worthless"), "{warned}");
        }
        let ends = format!("{},app.kubernetes.io/component=link-end", of("quantum-dot-120"));
        let pods = objects(NAMESPACE, "pods", &ends);
        let containers = pods.iter().filter_map(|pod| pod["spec"]["containers"].as_array()).flatten();
        let names: BTreeSet<&str> = containers.filter_map(|container| container["name"].as_str()).collect();
        assert_eq!(names, BTreeSet::from(["channel", "detector", "transmitter"]));
        success(kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"]));
    });
}

/// Topologies with a seed and an end, by name: pairs, decoys and single photons, each of them at counts, and pairs and
/// single photons at clicks.
fn twins() -> [(&'static str, String); 5] {
    let nice = |name, run| without_calern(&bright(name, run));
    let counted = nice("pairs-at-counts", "seed: 11, speed: max, for: 4 s");
    let run = "run: {speed: max, epoch: 20 ms, latency: 8}";
    let dot = changed(&shipped("quantum-dot-18.yaml"), "round: 10 min", "round: 10 s");
    let dot = changed(&dot, run, "run: {speed: max, seed: 11, for: 20 s, epoch: 20 ms, latency: 8}");
    // Two blocks of six hours.
    let far = "run: {speed: max, seed: 11, for: 12 h, fidelity: counts, epoch: 20 ms, latency: 8}";
    let far = changed(&shipped("quantum-dot-120.yaml"), run, far);
    let far = changed(&far, "round: 6 h", "round: 6 h\n      epoch: 30 min");
    let metro = [
        ("run: {speed: max, ", "run: {speed: max, seed: 11, for: 4 s, "),
        ("repetitionRate: 1 GHz\n", "repetitionRate: 50 MHz\n"),
        ("zProbability: 93.75 %, error", "zProbability: 50 %, error"),
        ("zProbability: 93.75 %\n", "zProbability: 50 %\n"),
        ("round: 5 s", "round: 1 s"),
        ("round: 3.8 s", "round: 1 s"),
    ];
    let metro = metro.iter().fold(shipped("cambridge.yaml"), |text, (from, to)| changed(&text, from, to));
    [
        ("pairs", nice("pairs", "seed: 11, speed: max, for: 8 s")),
        ("pairs-at-counts", changed(&counted, "fidelity: tags", "fidelity: counts")),
        ("quantum-dot-18", dot),
        ("quantum-dot-120", far),
        ("cambridge", metro),
    ]
}

/// What tasks on this machine distil.
fn distilled_here(text: &str) -> Vec<[String; 4]> {
    let folder = tempfile::tempdir().expect("make a folder");
    let (file, data) = (folder.path().join("twin.yaml"), folder.path().join("data"));
    std::fs::write(&file, text).expect("write the topology");
    success({
        let mut command = qkdnet(&["up", "--output", "json", "--data"]);
        command.arg(&data).arg(&file);
        command
    });
    let here = digests({
        let mut command = qkdnet(&["digest", "--output", "json", "--data"]);
        command.arg(&data);
        command
    });
    let here = here.expect("digests of the tasks");
    assert!(here.len() >= 2 && here.iter().all(|[_, _, bits, _]| bits != "0"), "{here:?}");
    here
}

/// Site, link, bits and digest of each end.
fn digests(mut command: std::process::Command) -> Result<Vec<[String; 4]>, String> {
    let output = command.output().expect("run qkdnet");
    if !output.status.success() {
        return Err(said(&output));
    }
    let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let row = |row: &Value| ["site", "link", "bits", "sha256"].map(|name| row[name].to_string());
    Ok(rows.as_array().expect("a list").iter().map(row).collect())
}
