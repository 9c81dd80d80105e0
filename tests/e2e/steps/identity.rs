//! The same seed gives the same link keys in pods as on a laptop.

use serde_json::Value;

use crate::cluster::{applied, eventually, kubectl, qkdnet, restricted_namespace, said, success, topology};
use crate::harness::Suite;
use crate::topologies::{bright, without_calern};

const NAME: &str = "twin";

pub fn run(suite: &mut Suite) {
    suite.step("pods distil the bytes that tasks distil from the same seed", || {
        let namespace = "e2e-twin";
        restricted_namespace(namespace);
        let text = without_calern(&bright(NAME, "seed: 11, speed: max, for: 8 s"));
        applied(namespace, &text);
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
        assert_eq!(here.len(), 2);
        eventually("the pods have distilled the same", || {
            let there = digests(qkdnet(&["digest", "--output", "json", "-n", namespace, "--topology", NAME]))?;
            if there == here { Ok(()) } else { Err(format!("{there:?}\n{here:?}")) }
        });
        // Nobody is left in doubt about what such keys are worth.
        let warned = topology(namespace, NAME)["status"].to_string();
        assert!(warned.contains("worthless"), "{warned}");
        success(kubectl(&["delete", "namespace", namespace, "--timeout=180s"]));
    });
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
