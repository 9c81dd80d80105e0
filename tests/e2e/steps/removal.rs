//! What is taken away is gone, but for what was to be kept.

use super::{NAMESPACE, NETWORK};
use crate::cluster::{RELEASE, SYSTEM, eventually, helm, kubectl, objects, of, success};
use crate::harness::Suite;

pub fn run(suite: &mut Suite) {
    suite.step("a deleted topology leaves nothing that runs", || {
        success(kubectl(&["delete", "topology", NETWORK, "-n", NAMESPACE, "--wait", "--timeout=180s"]));
        eventually("its children are gone", || {
            let kinds = "statefulsets,pods,services,networkpolicies,poddisruptionbudgets";
            let left = objects(NAMESPACE, kinds, &of(NETWORK));
            if left.is_empty() { Ok(()) } else { Err(format!("{} objects", left.len())) }
        });
        // Stored key and what opens it are kept unless the topology says otherwise.
        assert!(!objects(NAMESPACE, "persistentvolumeclaims", &of(NETWORK)).is_empty());
        let kept = objects(NAMESPACE, "secrets", &of(NETWORK));
        assert!(kept.iter().all(|secret| secret["metadata"]["labels"]["qkdnet.dev/kept"] == "true"));
        success(kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"]));
    });
    suite.step("the chart goes and leaves the kind of resource behind", || {
        success(helm(&["uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout", "3m"]));
        success(kubectl(&["get", "crd", "topologies.qkdnet.dev"]));
        success(kubectl(&["delete", "crd", "topologies.qkdnet.dev", "--timeout=120s"]));
        success(kubectl(&["delete", "namespace", SYSTEM, "--timeout=180s"]));
    });
}
