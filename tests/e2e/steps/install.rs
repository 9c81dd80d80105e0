//! The chart, with nothing but its ServiceAccount's rights.

use crate::cluster::{RELEASE, SYSTEM, helm, image, kubectl, restricted_namespace, success};
use crate::harness::Suite;

pub fn run(suite: &mut Suite) {
    suite.prepare("the chart installs and the operator runs restricted", || {
        restricted_namespace(SYSTEM);
        let image = image();
        let (repository, tag) = image.rsplit_once(':').expect("an image with a tag");
        let (repository, tag) = (format!("image.repository={repository}"), format!("image.tag={tag}"));
        let words =
            ["upgrade", "--install", RELEASE, "charts/qkdnet", "-n", SYSTEM, "--set", &repository, "--set", &tag];
        success(helm(&[&words[..], &["--set", "image.pullPolicy=Never", "--wait", "--timeout", "5m"]].concat()));
        success(kubectl(&["wait", "--for=condition=Established", "crd/topologies.qkdnet.dev", "--timeout=60s"]));
    });
    suite.step("helm test passes", || {
        success(helm(&["test", RELEASE, "-n", SYSTEM, "--timeout", "3m"]));
    });
    suite.step("every field of a topology is explained", || {
        let text = success(kubectl(&["explain", "topology.spec.links.arms.fibre", "--recursive"]));
        assert!(text.contains("length") && !text.contains("<empty>"), "{text}");
    });
}
