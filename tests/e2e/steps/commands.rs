//! The commands of a laptop, against the cluster.

use serde_json::Value;

use super::applications::{INRIA, UNIVERSITY};
use super::{NAMESPACE, NETWORK};
use crate::cluster::{eventually, kubectl, qkdnet, said, success, topology, wait_flowing};
use crate::harness::Suite;

pub fn run(suite: &mut Suite) {
    suite.step("kubectl get shows what one wants to know", || {
        let text = success(kubectl(&["get", "topo", NETWORK, "-n", NAMESPACE]));
        let head = text.lines().next().unwrap_or_default().to_owned();
        for column in ["NAME", "KEY FLOWING", "SITES", "LINKS", "KEY RATE", "AGE"] {
            assert!(head.contains(column), "no {column} in {head}");
        }
        assert!(text.contains("True") && text.contains("bit/s"), "{text}");
    });
    suite.step("status names the key stores and their applications", || {
        let status = json(&["status"]);
        assert_eq!(status["ready"], true, "{status}");
        let sites: Vec<&str> =
            status["sites"].as_array().expect("sites").iter().filter_map(|s| s["site"].as_str()).collect();
        assert_eq!(sites, ["calern", "sophia", "valrose"]);
    });
    suite.step("key get and key fetch work from outside", || {
        let keys = json(&["key", "get", "--sae", "university", "--to", "inria"]);
        let id = keys["keys"][0]["key_ID"].as_str().expect("a key ID").to_owned();
        let fetched = json(&["key", "fetch", "--sae", "inria", "--from", "university", &id]);
        assert!(fetched == keys, "the two ends got different keys");
    });
    suite.step("digest: both ends of each link hold the same", || {
        eventually("equal digests", || {
            let known = json(&["digest"]);
            let blocks = known.as_array().expect("a list").iter().filter_map(|row| row["blocks"].as_u64()).min();
            // The ends of a link that runs have a block a little after each other.
            let rows = json(&["digest", "--first", &blocks.unwrap_or(0).to_string()]);
            let rows = rows.as_array().expect("a list").clone();
            let equal = rows.len() == 4
                && ["valrose-sophia", "valrose-calern"].iter().all(|link| {
                    let ends: Vec<&Value> = rows.iter().filter(|row| row["link"] == *link).collect();
                    ends.len() == 2 && ends[0]["sha256"] == ends[1]["sha256"] && ends[0]["bits"] != 0
                });
            if equal { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    });
    suite.step("ledger: every sum holds", || {
        let text = success(on_topology(&["ledger"]));
        assert!(text.contains("valrose-sophia at valrose") && !text.contains("WRONG"), "{text}");
    });
    suite.step("trace: a key goes back to light in other pods", || {
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the key");
        eventually("a trace of the delivery", || {
            let mut command = on_topology(&["trace", &keys[0].0]);
            let output = command.output().expect("run qkdnet");
            let text = said(&output);
            let all = ["qkd.kms.supply", "qkd.kms.fetch", "qkd.block"].iter().all(|name| text.contains(name));
            if output.status.success() && all { Ok(()) } else { Err(text) }
        });
    });
    suite.step("exposure: the relay between two sites has seen their keys", || {
        let listed = json(&["exposure", "valrose"]);
        assert!(!listed.as_array().expect("a list").is_empty(), "the applications exchanged relayed keys before");
    });
    suite.step("fault: a fibre is cut and mended", || {
        let cut = json(&["fault", "cut", "valrose-sophia", "--id", "digger"]);
        assert_eq!(cut[0]["id"], "digger", "{cut}");
        eventually("the link has lost its light", || {
            let text = topology(NAMESPACE, NETWORK)["status"]["linkStatus"].to_string();
            if text.contains("acquiring") { Ok(()) } else { Err(text) }
        });
        let listed = json(&["fault", "list"]);
        assert!(listed[0]["id"] == "digger" && listed[0]["state"] == "active", "{listed}");
        json(&["fault", "clear", "digger"]);
        wait_flowing(NAMESPACE, NETWORK);
    });
}

fn on_topology(words: &[&str]) -> std::process::Command {
    let mut command = qkdnet(words);
    command.args(["--namespace", NAMESPACE, "--topology", NETWORK]);
    command
}

fn json(words: &[&str]) -> Value {
    let mut command = on_topology(words);
    command.args(["--output", "json"]);
    serde_json::from_str(&success(command)).expect("JSON")
}
