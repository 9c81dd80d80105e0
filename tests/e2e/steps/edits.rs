//! A network that changes while key flows: only what must start again does.

use super::applications::{INRIA, OBSERVATORY, UNIVERSITY};
use super::{NAMESPACE, NETWORK};
use crate::cluster::{
    applied, apply, eventually, holds, kubectl, objects, of, pod_uids, said, success, topology, wait_flowing,
};
use crate::harness::Suite;
use crate::topologies::{bright, changed, without_calern};

pub fn run(suite: &mut Suite) {
    suite.step("another loss on one link leaves the pods of the others alone", || {
        let other = format!("{},qkdnet.dev/link=valrose-calern", of(NETWORK));
        let sites = format!("{},app.kubernetes.io/component=site", of(NETWORK));
        let before = (pod_uids(NAMESPACE, &other), pod_uids(NAMESPACE, &sites));
        assert!(!before.0.is_empty() && !before.1.is_empty());
        let dimmer = bright(NETWORK, "speed: 1").replacen("deviceLoss: 1 dB", "deviceLoss: 2 dB", 1);
        applied(NAMESPACE, &dimmer);
        wait_flowing(NAMESPACE, NETWORK);
        assert_eq!(before, (pod_uids(NAMESPACE, &other), pod_uids(NAMESPACE, &sites)), "pods were started again");
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the key");
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
        assert_eq!(claims.len(), 7, "two ends and a site for each link, one site for both");
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the key");
    });
    suite.step("they come back and go on with what they had", || {
        applied(NAMESPACE, &bright(NETWORK, "speed: 1"));
        wait_flowing(NAMESPACE, NETWORK);
        let keys = INRIA.get(&OBSERVATORY, 1);
        OBSERVATORY.fetch(&INRIA, &[&keys[0].0]).expect("a relayed key");
    });
    suite.step("what cannot change is refused with the reason", || {
        let output = apply(NAMESPACE, &changed(&bright(NETWORK, "speed: 1"), "epoch: 20 ms", "epoch: 40 ms"));
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
