//! What goes wrong around a network: said in its conditions, and healed once the cause is gone.

use std::process::Command;
use std::time::Instant;

use super::applications::{INRIA, UNIVERSITY};
use super::{NAMESPACE, NETWORK};
use crate::cluster::{
    SYSTEM, condition, eventually, image, kubectl, objects, pod_uids, qkdnet, success, topology, wait_flowing,
};
use crate::harness::Suite;

/// Within what a trouble should be said. It is printed and judged by people: the machine may have other work.
const SAID_WITHIN_S: f64 = 30.0;
/// The image under another name, so that its layers stay.
const KEPT: &str = "docker.io/library/qkdnet-kept:1";

pub fn run(suite: &mut Suite) {
    suite.step("a full disk of a key store is said, and forgotten once there is room", || {
        let filled = Instant::now();
        fault(&["fill-disk", "key-store", "sophia"]);
        said("KeyFlowing", filled, &["KeyStoreUnreachable", "the key store of sophia", "No space left"]);
        fault(&["clear", "--all"]);
        healed();
    });
    suite.step("an image that a node does not get is said, and forgotten once it does", || {
        let (pod, node) = site_pod("valrose");
        let name = format!("docker.io/library/{}", image());
        in_node(&node, &["images", "tag", "--force", &name, KEPT]);
        in_node(&node, &["images", "rm", &name]);
        let gone = Instant::now();
        success(kubectl(&["delete", "pod", &pod, "-n", NAMESPACE, "--grace-period=0", "--force"]));
        let told = std::panic::catch_unwind(|| said("Provisioned", gone, &["ImagePullFailed", &pod]));
        // Whatever was said: the steps that follow need it.
        in_node(&node, &["images", "tag", "--force", KEPT, &name]);
        in_node(&node, &["images", "rm", KEPT]);
        if let Err(panic) = told {
            std::panic::resume_unwind(panic);
        }
        healed();
    });
    suite.step("a node that goes is said, and everything goes on when it is back", || {
        let (_, node) = site_pod("sophia");
        if node.contains("control-plane") || !operator_leaves(&node) {
            return println!("SKIPPED: one node alone");
        }
        let stopped = Instant::now();
        docker(&["stop", "--time", "1", &node]);
        said("KeyFlowing", stopped, &["Unreachable"]);
        said("Provisioned", stopped, &["NodeLost", "is on a node that does not answer"]);
        docker(&["start", &node]);
        healed();
    });
}

fn fault(words: &[&str]) {
    success(qkdnet(&[&["fault"], words, &["-n", NAMESPACE, "--topology", NETWORK]].concat()));
}

/// Waits until a condition is false and says all of this.
fn said(kind: &str, since: Instant, parts: &[&str]) {
    eventually(&format!("{kind} says {parts:?}"), || {
        let object = topology(NAMESPACE, NETWORK);
        let Some(found) = condition(&object, kind) else { return Err(object["status"].to_string()) };
        let all = found["status"] == "False" && parts.iter().all(|part| found.to_string().contains(part));
        if all { Ok(()) } else { Err(found.to_string()) }
    });
    println!("{kind} said so after {:.1} s (to reach: {SAID_WITHIN_S:.0} s)", since.elapsed().as_secs_f64());
}

/// All is as it was: pods run, key flows, and applications share it.
fn healed() {
    eventually("all is provisioned", || {
        let object = topology(NAMESPACE, NETWORK);
        let good = condition(&object, "Provisioned").is_some_and(|found| found["status"] == "True");
        if good { Ok(()) } else { Err(object["status"].to_string()) }
    });
    wait_flowing(NAMESPACE, NETWORK);
    eventually("a key that both have", || {
        let keys = UNIVERSITY.get(&INRIA, 1);
        let fetched = INRIA.fetch(&UNIVERSITY, &[&keys[0].0])?;
        if fetched == keys { Ok(()) } else { panic!("two keys of one name") }
    });
}

/// The pod of a site, and the node that it is on.
fn site_pod(site: &str) -> (String, String) {
    let selector = format!("qkdnet.dev/topology={NETWORK},qkdnet.dev/site={site},app.kubernetes.io/component=site");
    let pods = objects(NAMESPACE, "pods", &selector);
    let text = |path: &str| pods[0].pointer(path).and_then(|value| value.as_str()).expect("a text").to_owned();
    (text("/metadata/name"), text("/spec/nodeName"))
}

/// Moves the operator to another node, where it can say what happened; false if there is none.
fn operator_leaves(node: &str) -> bool {
    let on = || {
        let path = "jsonpath={.items[*].spec.nodeName}";
        let labels = "app.kubernetes.io/component=operator";
        success(kubectl(&["get", "pods", "-n", SYSTEM, "-l", labels, "-o", path]))
    };
    let nodes = success(kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]));
    if nodes.split_whitespace().count() < 2 {
        return false;
    }
    if on().split_whitespace().any(|name| name == node) {
        success(kubectl(&["cordon", node]));
        success(kubectl(&["delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--wait"]));
        success(kubectl(&["rollout", "status", "-n", SYSTEM, "deployment", "--timeout=120s"]));
        success(kubectl(&["uncordon", node]));
    }
    eventually("the operator runs elsewhere", || {
        let running = pod_uids(SYSTEM, "app.kubernetes.io/component=operator").len() == 1 && on() != node;
        if running { Ok(true) } else { Err(on()) }
    })
}

/// The container runtime's own command in a node.
fn in_node(node: &str, words: &[&str]) {
    docker(&[&["exec", node, "ctr", "--namespace", "k8s.io"], words].concat());
}

/// Nodes of kind are containers.
pub fn docker(words: &[&str]) {
    let mut command = Command::new("docker");
    command.args(words);
    success(command);
}
