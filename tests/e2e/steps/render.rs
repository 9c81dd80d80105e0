//! Without an operator: `qkdnet render | kubectl apply -f -`.

use std::io::Write as _;
use std::process::Stdio;

use crate::cluster::{eventually, image, kubectl, objects, of, qkdnet, said, success};
use crate::harness::Suite;
use crate::topologies::{bright, without_calern};

const NAMESPACE: &str = "e2e-render";
const NAME: &str = "plain";

pub fn run(suite: &mut Suite) {
    suite.step("rendered objects run without an operator", || {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("plain.yaml");
        std::fs::write(&file, without_calern(&bright(NAME, "speed: 1"))).expect("write the topology");
        let image = image();
        let mut command = qkdnet(&["render", "--create-namespace", "--namespace", NAMESPACE, "--image", &image]);
        command.arg(&file);
        let rendered = success(command);
        let mut apply = kubectl(&["apply", "-f", "-"]);
        let mut child = apply.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start kubectl");
        child.stdin.take().expect("an input").write_all(rendered.as_bytes()).expect("write to kubectl");
        let output = child.wait_with_output().expect("wait for kubectl");
        assert!(output.status.success(), "{}", said(&output));
        eventually("both ends have distilled the same key", || {
            let mut digest = qkdnet(&["digest", "-n", NAMESPACE, "--topology", NAME, "--output", "json"]);
            let output = digest.output().expect("run qkdnet");
            let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let equal = rows[0]["bits"].as_u64() > Some(0) && rows[0]["sha256"] == rows[1]["sha256"];
            if equal { Ok(()) } else { Err(said(&output)) }
        });
        assert!(objects(NAMESPACE, "topologies", &of(NAME)).is_empty(), "there is no operator in this");
        success(kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"]));
    });
}
