//! The commands of the README about a cluster, word for word, as the last of all: where nothing is installed any more.

use std::process::Command;

use crate::cluster::{eventually, helm, kubectl, repository, said, success};
use crate::documented;
use crate::harness::Suite;

/// What the README installs and applies.
const SYSTEM: &str = "qkdnet-system";
const TOPOLOGY: &str = "nice-50km";

pub fn run(suite: &mut Suite) {
    suite.step("the README's commands work as they stand there", || {
        let commands = documented::block("README.md", "helm install");
        assert!(commands.len() >= 5, "{commands:?}");
        let mut printed = String::new();
        for line in &commands {
            println!("$ {line}");
            let output = Command::new("bash").args(["-euo", "pipefail", "-c", line]).current_dir(repository()).output();
            let output = output.expect("run bash");
            assert!(output.status.success(), "{line}\n{}", said(&output));
            printed += &said(&output);
        }
        assert!(printed.contains("condition met"), "{printed}");
        success(kubectl(&["delete", "topology", TOPOLOGY, "--wait", "--timeout=180s"]));
        success(helm(&["uninstall", "qkdnet", "-n", SYSTEM, "--wait", "--timeout", "3m"]));
        success(kubectl(&["delete", "crd", "topologies.qkdnet.dev", "--timeout=120s"]));
        success(kubectl(&["delete", "namespace", SYSTEM, "--timeout=180s"]));
        eventually("its pods are gone", || {
            let pods = success(kubectl(&["get", "pods", "-n", "default", "--no-headers"]));
            if pods.lines().any(|pod| pod.starts_with(TOPOLOGY)) { Err(pods) } else { Ok(()) }
        });
    });
}
