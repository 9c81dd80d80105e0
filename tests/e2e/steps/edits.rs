//! A network that changes while key flows: only what must start again does.

use serde_json::Value;

use super::applications::{GUEST, HARBOUR, INRIA, OBSERVATORY, UNIVERSITY};
use super::{NAMESPACE, NETWORK};
use crate::cluster::{
    applied, apply, eventually, holds, kubectl, objects, of, pod_uids, qkdnet, said, success, topology, wait_flowing,
};
use crate::harness::Suite;
use crate::topologies::{bright, changed, with_antibes, without_calern};

pub fn run(suite: &mut Suite) {
    suite.step("more loss is told to the source, and no pod starts again", || {
        let before = containers();
        // The first ones are short, because acquisition takes a part of them.
        let sifted = eventually("a few blocks", || {
            let blocks = sifted_of_blocks();
            if blocks.len() < 5 { Err(format!("{blocks:?}")) } else { Ok(blocks[4]) }
        });
        // The arm with more loss already: were the other one to get more, the two ends would change their roles.
        let text = bright(NETWORK, "speed: 1");
        let (first, second) = text.split_once("deviceLoss: 1 dB").expect("an arm");
        let dimmer = format!("{first}deviceLoss: 1 dB{}", second.replacen("deviceLoss: 1 dB", "deviceLoss: 6 dB", 1));
        applied(NAMESPACE, &dimmer);
        eventually("less light arrives", || {
            let now = sifted_of_blocks().last().copied().unwrap_or(sifted);
            // A third, were it not for the loop that gives the pump more power then.
            if now < 0.6 * sifted { Ok(()) } else { Err(format!("{now} bit, and {sifted} before")) }
        });
        wait_flowing(NAMESPACE, NETWORK);
        assert_eq!(before, containers(), "something was started again");
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the key");
    });
    suite.step("an application that comes is served, and no pod starts again", || {
        let before = containers();
        applied(NAMESPACE, &changed(&bright(NETWORK, "speed: 1"), "saes: [university]", "saes: [university, guest]"));
        let keys = GUEST.get(&INRIA, 1);
        assert!(INRIA.fetch(&GUEST, &[&keys[0].0]).expect("the key") == keys, "two keys of one name");
        let keys = INRIA.get(&GUEST, 1);
        assert!(GUEST.fetch(&INRIA, &[&keys[0].0]).expect("the key") == keys, "two keys of one name");
        assert_eq!(before, containers(), "something was started again");
    });
    suite.step("a site that comes and goes starts the one that it is joined to, and no other", || {
        let before = containers_elsewhere();
        applied(NAMESPACE, &with_antibes(&bright(NETWORK, "speed: 1")));
        wait_flowing(NAMESPACE, NETWORK);
        // Over the relay at Sophia, and over those at Sophia and Valrose.
        for far in [&UNIVERSITY, &OBSERVATORY] {
            let keys = HARBOUR.get(far, 1);
            assert!(far.fetch(&HARBOUR, &[&keys[0].0]).expect("the key") == keys, "two keys of one name");
        }
        assert_eq!(before, containers_elsewhere(), "something was started again");
        applied(NAMESPACE, &bright(NETWORK, "speed: 1"));
        eventually("the site has gone", || {
            let pods = pod_uids(NAMESPACE, &format!("{},qkdnet.dev/site=antibes", of(NETWORK)));
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
        });
        wait_flowing(NAMESPACE, NETWORK);
        let keys = INRIA.get(&OBSERVATORY, 1);
        OBSERVATORY.fetch(&INRIA, &[&keys[0].0]).expect("a relayed key");
        assert_eq!(before, containers_elsewhere(), "something was started again");
    });
    suite.step("a link and its site go, and their volumes stay", || {
        applied(NAMESPACE, &without_calern(&bright(NETWORK, "speed: 1")));
        let selector = format!("{},qkdnet.dev/link=valrose-calern", of(NETWORK));
        eventually("the pods of the link are gone", || {
            let pods = pod_uids(NAMESPACE, &selector);
            if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
        });
        wait_flowing(NAMESPACE, NETWORK);
        let claims = objects(NAMESPACE, "persistentvolumeclaims", &of(NETWORK));
        assert_eq!(claims.len(), 10, "two ends for each link, and every site; also of those that have gone");
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the key");
    });
    suite.step("they come back and go on with what they had, and what keeps the time was there before", || {
        let of_time = || -> Vec<String> {
            let concerned = |one: &String| one.contains("-pacer-") || one.contains("-source-valrose-sophia-");
            containers().into_iter().filter(concerned).collect()
        };
        let before = of_time();
        assert_eq!(before.len(), 2, "{before:?}");
        applied(NAMESPACE, &bright(NETWORK, "speed: 1"));
        wait_flowing(NAMESPACE, NETWORK);
        assert_eq!(before, of_time(), "a second link started something of the first again");
        let keys = INRIA.get(&OBSERVATORY, 1);
        OBSERVATORY.fetch(&INRIA, &[&keys[0].0]).expect("a relayed key");
    });
    suite.step("what cannot change is refused with the reason", || {
        let output = apply(NAMESPACE, &changed(&bright(NETWORK, "speed: 1"), "epoch: 50 ms", "epoch: 40 ms"));
        if output.status.success() {
            eventually("the operator refuses", || {
                let object = topology(NAMESPACE, NETWORK);
                let text = object["status"]["conditions"].to_string();
                if text.contains("epoch") && !holds(&object, "Accepted") { Ok(()) } else { Err(text) }
            });
            applied(NAMESPACE, &bright(NETWORK, "speed: 1"));
        } else {
            assert!(said(&output).contains("epoch"), "{}", said(&output));
        }
        wait_flowing(NAMESPACE, NETWORK);
    });
    suite.step("a child that somebody deletes or changes comes back", || {
        let services = objects(NAMESPACE, "services", &of(NETWORK));
        let name = services[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        success(kubectl(&["delete", "service", &name, "-n", NAMESPACE]));
        let sets = objects(NAMESPACE, "statefulsets", &of(NETWORK));
        let set = sets[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        success(kubectl(&["scale", "statefulset", &set, "-n", NAMESPACE, "--replicas=0"]));
        eventually("the service is back", || {
            let back = kubectl(&["get", "service", &name, "-n", NAMESPACE]).output().expect("run kubectl");
            if back.status.success() { Ok(()) } else { Err(said(&back)) }
        });
        eventually("the pod is back", || {
            let text =
                success(kubectl(&["get", "statefulset", &set, "-n", NAMESPACE, "-o", "jsonpath={.spec.replicas}"]));
            if text == "1" { Ok(()) } else { Err(text) }
        });
        wait_flowing(NAMESPACE, NETWORK);
    });
    suite.step("a secret that somebody deletes comes back as it was", || {
        let links = format!("{},qkdnet.dev/link=valrose-sophia", of(NETWORK));
        let secrets = |selector: &str| -> Vec<(String, String)> {
            let all = objects(NAMESPACE, "secrets", selector);
            all.iter().map(|one| (one["metadata"]["name"].to_string(), one["data"].to_string())).collect()
        };
        let of_sae = format!("{},qkdnet.dev/sae=inria", of(NETWORK));
        for selector in [links, of_sae] {
            let before = secrets(&selector);
            assert!(!before.is_empty(), "no secret is labelled {selector}");
            success(kubectl(&["delete", "secrets", "-n", NAMESPACE, "-l", &selector]));
            eventually("the secrets are back", || {
                let now = secrets(&selector);
                if now == before { Ok(()) } else { Err(format!("{} of {}", now.len(), before.len())) }
            });
        }
    });
}

/// Those that a site behind Sophia is nothing to.
fn containers_elsewhere() -> Vec<String> {
    let site = format!("\"{NETWORK}-site-sophia");
    let concerned = |one: &str| one.starts_with(&site) || one.contains("antibes");
    containers().into_iter().filter(|one| !concerned(one)).collect()
}

/// Every pod of the network, and how often its containers were started.
fn containers() -> Vec<String> {
    let pods = objects(NAMESPACE, "pods", &of(NETWORK));
    let row = |pod: &Value| {
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let restarts: Vec<String> = statuses.iter().map(|one| one["restartCount"].to_string()).collect();
        format!("{} {} {}", pod["metadata"]["name"], pod["metadata"]["uid"], restarts.join(" "))
    };
    pods.iter().map(row).collect()
}

/// Sifted bits of every block of the first link.
fn sifted_of_blocks() -> Vec<f64> {
    eventually("a ledger", || {
        let mut command = qkdnet(&["ledger", "-n", NAMESPACE, "--topology", NETWORK, "--output", "json"]);
        let output = command.output().expect("run qkdnet");
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let ends = all["links"].as_array().cloned().unwrap_or_default();
        let end = ends.iter().find(|end| end["link"] == "valrose-sophia" && end["site"] == "sophia");
        let blocks = end.and_then(|end| end["blocks"].as_array().cloned()).ok_or_else(|| said(&output))?;
        let sifted = |block: &Value| {
            let ledger = &block["ledger"];
            Some(ledger["sifted_z"].as_f64()? + ledger["disclosed_x"].as_f64()?)
        };
        Ok(blocks.iter().filter_map(sifted).collect())
    })
}
