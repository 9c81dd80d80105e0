//! Pods, nodes and the operator end whenever they like; no key is lost, and none is given twice.

use std::collections::BTreeSet;

use super::applications::{INRIA, UNIVERSITY};
use super::{NAMESPACE, NETWORK};
use crate::cluster::{
    RELEASE, SYSTEM, eventually, helm, kubectl, objects, of, pod_uids, success, topology, wait_flowing,
};
use crate::harness::Suite;

/// Rounds of the suite; `make e2e-soak` runs fifty.
const ROUNDS: u64 = 5;
const SEED: u64 = 20_210_107;

pub fn run(suite: &mut Suite) {
    suite.step("killed pods come back, no key is lost and none is given twice", || {
        let rounds = std::env::var("QKDNET_E2E_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
        println!("{rounds} rounds, seed {SEED}");
        let (mut random, mut seen) = (SEED, BTreeSet::new());
        for _ in 0..rounds {
            // Keys from before the kill, fetched after it.
            let keys = UNIVERSITY.get(&INRIA, 2);
            let pods = pod_uids(NAMESPACE, &of(NETWORK));
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (victim, uid) = &pods[(random >> 33) as usize % pods.len()];
            println!("killing {victim}");
            success(kubectl(&["delete", "pod", victim, "-n", NAMESPACE, "--grace-period=0", "--force"]));
            eventually("another pod takes its place", || {
                let now = pod_uids(NAMESPACE, &of(NETWORK));
                let replaced = now.iter().any(|(name, other)| name == victim && other != uid);
                if replaced { Ok(()) } else { Err(format!("{now:?}")) }
            });
            wait_flowing(NAMESPACE, NETWORK);
            let ids: Vec<&str> = keys.iter().map(|(id, _)| id.as_str()).collect();
            let fetched = eventually("the keys of before", || INRIA.fetch(&UNIVERSITY, &ids));
            assert!(fetched == keys, "other keys came back");
            for (id, key) in keys {
                assert!(seen.insert(id) && seen.insert(key), "a key was given twice");
            }
        }
    });
    suite.step("without the operator key flows on, and the operator finds everything as it was", || {
        let versions = || versions(NAMESPACE);
        let before = versions();
        success(kubectl(&["delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--wait"]));
        success(kubectl(&["rollout", "status", "-n", SYSTEM, "deployment", "--timeout=120s"]));
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the key");
        wait_flowing(NAMESPACE, NETWORK);
        assert_eq!(before, versions(), "the operator wrote what was there already");
    });
    suite.step("the chart is upgraded while key flows", || {
        let pods = pod_uids(NAMESPACE, &of(NETWORK));
        let words = ["upgrade", RELEASE, "charts/qkdnet", "-n", SYSTEM, "--reuse-values", "--wait", "--timeout", "5m"];
        success(helm(&[&words[..], &["--set", "operator.log=debug"]].concat()));
        wait_flowing(NAMESPACE, NETWORK);
        assert_eq!(pods, pod_uids(NAMESPACE, &of(NETWORK)), "pods of the network were started again");
    });
    suite.step("a node is drained and comes back", || {
        let nodes = success(kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]));
        let worker = nodes.split_whitespace().find(|name| name.contains("worker"));
        let Some(worker) = worker else { return println!("SKIPPED: one node alone") };
        // Pods whose volume is on the node come back with it alone, so that the budget would rightly stop an eviction
        // after the first of them: they are deleted.
        let words = ["drain", worker, "--ignore-daemonsets", "--delete-emptydir-data", "--force"];
        success(kubectl(&[&words[..], &["--disable-eviction", "--timeout=240s"]].concat()));
        success(kubectl(&["uncordon", worker]));
        wait_flowing(NAMESPACE, NETWORK);
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the key");
    });
    suite.step("a key store that lost its volume starts empty, and both sites share key again", || {
        let lost = UNIVERSITY.get(&INRIA, 1);
        let site = format!("{},qkdnet.dev/site=sophia,app.kubernetes.io/component=site", of(NETWORK));
        let (pod, uid) = pod_uids(NAMESPACE, &site).remove(0);
        success(kubectl(&["delete", "pvc", &format!("data-{pod}"), "-n", NAMESPACE, "--wait=false"]));
        success(kubectl(&["delete", "pod", &pod, "-n", NAMESPACE, "--grace-period=0", "--force"]));
        eventually("the key store runs on another volume", || {
            let now = pod_uids(NAMESPACE, &site);
            if now.iter().any(|(_, other)| *other != uid) { Ok(()) } else { Err(format!("{now:?}")) }
        });
        wait_flowing(NAMESPACE, NETWORK);
        eventually("a key that both have", || {
            let keys = UNIVERSITY.get(&INRIA, 1);
            let fetched = INRIA.fetch(&UNIVERSITY, &[&keys[0].0])?;
            if fetched == keys { Ok(()) } else { Err("two keys of one name".to_owned()) }
        });
        INRIA.has_not(&UNIVERSITY, &lost[0].0);
    });
    suite.step("the status of the whole is small", || {
        let size = topology(NAMESPACE, NETWORK)["status"].to_string().len();
        assert!(size < 8192, "{size} bytes");
    });
}

/// Resource versions of what the operator writes, but for the status that moves with the rates.
fn versions(namespace: &str) -> Vec<String> {
    let kinds = "statefulsets,services,secrets,networkpolicies,poddisruptionbudgets";
    let read = |object: &serde_json::Value| {
        let metadata = &object["metadata"];
        // The status of a StatefulSet is the cluster's own; its generation counts what the operator writes.
        let version = match object["kind"] == "StatefulSet" || object["kind"] == "PodDisruptionBudget" {
            true => &metadata["generation"],
            false => &metadata["resourceVersion"],
        };
        format!("{}/{} {version}", object["kind"], metadata["name"])
    };
    objects(namespace, kinds, &of(NETWORK)).iter().map(read).collect()
}
