//! Volumes are put back from a copy, as backups are: that is said, no key comes twice, and a restore makes all good.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::troubles::docker;
use super::{NAMESPACE, NETWORK};
use crate::cluster::{
    SYSTEM, condition, eventually, kubectl, objects, of, qkdnet, said, success, topology, wait_flowing,
};
use crate::harness::Suite;

/// An application and the one that it shares keys with.
const INRIA: [&str; 2] = ["inria", "university"];
const OBSERVATORY: [&str; 2] = ["observatory", "university"];
const KEYS: &str = "3";
/// A ceiling is raised each time that four tags are sent.
const TAGS: u64 = 10;

pub fn run(suite: &mut Suite) {
    suite.step("volumes that are put back are said, and a restore gives none of their keys again", || {
        // A key store and an end of a link of the same site, with all that they count.
        let volumes = [
            Volume::find(&format!("{},qkdnet.dev/site=sophia,app.kubernetes.io/component=site", of(NETWORK))),
            Volume::find(&format!("{},qkdnet.dev/site=sophia,app.kubernetes.io/component=link-end", of(NETWORK))),
        ];
        let mut known = Known::default();
        known.take(INRIA);
        volumes.iter().for_each(Volume::copy);
        let tags = ceiling("channel-valrose-sophia-sophia");
        let later: Vec<String> = known.take(INRIA);
        known.take(OBSERVATORY);
        // A volume that is no further behind than its ceiling may be ahead goes on from its ceiling: that is no matter.
        eventually("the end of the link sends a few tags", || {
            let now = ceiling("channel-valrose-sophia-sophia");
            if now >= tags + TAGS { Ok(()) } else { Err(format!("{now} after {tags}")) }
        });
        volumes.iter().for_each(Volume::put_back);

        let what = ["key store of sophia", "authentication reserve of valrose-sophia of sophia"];
        let way_out = format!("qkdnet restore --topology {NETWORK} --namespace {NAMESPACE}");
        eventually("the operator says what was put back, where, and what to do", || {
            let object = topology(NAMESPACE, NETWORK);
            let found = condition(&object, "KeyFlowing").unwrap_or_default();
            let message = found["message"].as_str().unwrap_or_default();
            let all = what.iter().all(|what| message.contains(&format!("{what} was rolled back (since 20")));
            let told = all && message.contains(&way_out) && found["reason"] == "RolledBack";
            if told && found["status"] == "False" { Ok(()) } else { Err(found.to_string()) }
        });
        // The store has forgotten that it handed these out.
        refused(&["get", "--sae", INRIA[0], "--to", INRIA[1]], "put back");
        for id in &later {
            refused(&["fetch", "--sae", INRIA[1], "--from", INRIA[0], id], "");
        }

        let asked = || topology(NAMESPACE, NETWORK)["metadata"]["annotations"]["qkdnet.dev/restore"].clone();
        let asked_before = asked();
        let would: Value = serde_json::from_str(&success(restore(&["--dry-run", "--output", "json"]))).expect("JSON");
        let stores = would.as_array().expect("a list");
        assert!(
            what.iter().all(|what| stores.iter().any(|row| what.starts_with(row["store"].as_str().unwrap_or("-"))))
        );
        assert_eq!(asked(), asked_before, "nothing is to be changed");
        let before = volume_uids();
        success(restore(&[]));
        wait_flowing(NAMESPACE, NETWORK);
        assert!(before.is_disjoint(&volume_uids()), "a volume was kept");
        assert_eq!(topology(NAMESPACE, NETWORK)["status"]["restored"], asked());
        // As many as before, so that a store which counts from the start again would come to the same.
        for pair in [INRIA, INRIA, OBSERVATORY] {
            known.take(pair);
        }
        for id in &later {
            refused(&["fetch", "--sae", INRIA[1], "--from", INRIA[0], id], "not found");
        }
    });
}

/// IDs and keys that came so far.
#[derive(Default)]
struct Known(BTreeSet<String>);

impl Known {
    /// Keys that both applications have, each for the first time; their IDs.
    fn take(&mut self, [master, slave]: [&str; 2]) -> Vec<String> {
        let keys = eventually("keys", || ask(&["get", "--sae", master, "--to", slave, "--number", KEYS]));
        let ids: Vec<String> = rows(&keys).into_iter().map(|(id, _)| id).collect();
        let words =
            [&["fetch", "--sae", slave, "--from", master], &ids.iter().map(String::as_str).collect::<Vec<_>>()[..]];
        let fetched = eventually("the same keys at the other end", || ask(&words.concat()));
        assert!(rows(&fetched) == rows(&keys), "two keys of one name");
        for (id, key) in rows(&keys) {
            assert!(self.0.insert(id) && self.0.insert(key), "a key came twice");
        }
        ids
    }
}

fn rows(container: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let keys = container["keys"].as_array().expect("keys").iter();
    keys.map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

/// `qkdnet key` from outside of the cluster.
fn ask(words: &[&str]) -> Result<Value, String> {
    let place = ["-n", NAMESPACE, "--topology", NETWORK, "--output", "json"];
    let output = qkdnet(&[&["key"], words, &place].concat()).output().expect("run qkdnet");
    if output.status.success() { Ok(serde_json::from_slice(&output.stdout).expect("JSON")) } else { Err(said(&output)) }
}

/// The key store answers, and gives no key.
fn refused(words: &[&str], why: &str) {
    eventually("a refusal", || match ask(words) {
        Ok(_) => panic!("{words:?} gave a key"),
        Err(told) if told.contains("the KME answered") && told.contains(why) => Ok(()),
        Err(told) => Err(told),
    });
}

fn restore(words: &[&str]) -> Command {
    qkdnet(&[&["restore", "-n", NAMESPACE, "--topology", NETWORK], words].concat())
}

/// The highest ceiling of a service's counts, as the operator keeps it.
fn ceiling(service: &str) -> u64 {
    let path = "jsonpath={.data.ceilings\\.json}";
    let name = format!("qkdnet-anchor-{NAMESPACE}.{NETWORK}");
    let text = success(kubectl(&["get", "configmap", &name, "-n", SYSTEM, "-o", path]));
    let kept: Value = serde_json::from_str(&text).expect("JSON");
    let stores = kept["services"][service].as_object().cloned().unwrap_or_default();
    // Of several stores the one that changed last runs.
    let latest = stores.values().max_by_key(|store| store["changed_ms"].as_u64()).expect("a store that counts");
    latest["ceilings"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).max().unwrap_or(0)
}

fn volume_uids() -> BTreeSet<String> {
    let claims = objects(NAMESPACE, "persistentvolumeclaims", &of(NETWORK));
    claims.iter().map(|claim| claim["metadata"]["uid"].to_string()).collect()
}

/// The volume of a pod, as a folder of the pod's node.
struct Volume {
    pod: String,
    node: String,
    path: String,
}

impl Volume {
    fn find(selector: &str) -> Self {
        let pod = objects(NAMESPACE, "pods", selector).remove(0);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (pod, node) = (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
        let claim = format!("data-{pod}");
        let volume = success(kubectl(&["get", "pvc", &claim, "-n", NAMESPACE, "-o", "jsonpath={.spec.volumeName}"]));
        let path = "jsonpath={.spec.local.path}{.spec.hostPath.path}";
        let path = success(kubectl(&["get", "pv", &volume, "-o", path]));
        assert!(path.starts_with('/'), "the volume {volume} is no folder of its node: `{path}`");
        Self { pod, node, path }
    }

    /// As a snapshot takes it: all at one moment, while the services run.
    fn copy(&self) {
        let Self { path, .. } = self;
        self.signal("SIGSTOP");
        self.shell(&format!("rm -rf {path}.copy && cp -a {path} {path}.copy"));
        self.signal("SIGCONT");
    }

    /// The services crash, and find what there was when it was copied.
    fn put_back(&self) {
        let Self { path, .. } = self;
        self.signal("SIGSTOP");
        self.shell(&format!("rm -rf {path}/* && cp -a {path}.copy/. {path}/ && rm -rf {path}.copy"));
        self.signal("SIGKILL");
    }

    fn signal(&self, signal: &str) {
        let path = "jsonpath={.status.containerStatuses[*].containerID}";
        let containers = success(kubectl(&["get", "pod", &self.pod, "-n", NAMESPACE, "-o", path]));
        for container in containers.split_whitespace() {
            let id = container.trim_start_matches("containerd://");
            self.shell(&format!("ctr --namespace k8s.io task kill --signal {signal} {id}"));
        }
    }

    fn shell(&self, command: &str) {
        docker(&["exec", &self.node, "sh", "-ec", command]);
    }
}
