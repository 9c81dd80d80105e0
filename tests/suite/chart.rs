//! The Helm chart: what each set of values renders to. Needs helm; elsewhere a loud line says what was not tested.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::repository;

fn chart() -> PathBuf {
    repository().join("charts/qkdnet")
}

/// `None`, and a line that nobody overlooks, where there is no helm. With QKDNET_NO_SKIP that is a failure.
fn helm() -> Option<Command> {
    if Command::new("helm").arg("version").output().is_ok_and(|output| output.status.success()) {
        return Some(Command::new("helm"));
    }
    assert!(std::env::var_os("QKDNET_NO_SKIP").is_none(), "there is no helm");
    let _ = writeln!(std::io::stderr(), "SKIPPED: there is no helm, the chart is not tested");
    None
}

fn render(values: &str, more: &[&str]) -> Option<Output> {
    let mut command = helm()?;
    command.args(["template", "qkdnet"]).arg(chart()).args([
        "--kube-version",
        "1.33.0",
        "--namespace",
        "qkdnet-system",
    ]);
    command.arg("--values");
    command.arg(chart().join("ci").join(format!("{values}-values.yaml"))).args(more);
    Some(command.output().expect("run helm"))
}

fn rendered(values: &str, more: &[&str]) -> Option<String> {
    let output = render(values, more)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn every_set_of_values_renders_as_it_did() {
    for values in ["default", "namespaces", "observed", "bare"] {
        // The resource itself has a test of its own, where it is made.
        let Some(text) = rendered(values, &["--set", "crds.install=false"]) else { return };
        insta::with_settings!({snapshot_path => repository().join("tests/suite/snapshots"), prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(format!("chart-{values}"), text);
        });
    }
}

#[test]
fn the_topology_resource_is_installed_and_outlives_the_chart() {
    let Some(text) = rendered("default", &["--show-only", "templates/crds.yaml"]) else { return };
    let crd: serde_json::Value = serde_yaml::from_str(&text).expect("YAML");
    assert_eq!(crd["metadata"]["name"], "topologies.qkdnet.dev");
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    assert!(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].is_object());
}

#[test]
fn values_that_nobody_knows_or_of_a_wrong_type_are_refused() {
    for (wrong, named) in [
        ("operator.watchNamespace=x", "watchNamespace"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("crds.install=yes-please", "install"),
        ("image.digest=latest", "digest"),
        ("telemetry.endpoint=collector:4317", "endpoint"),
        ("operator.watchNamespaces={Not_A_Name}", "watchNamespaces"),
    ] {
        let Some(output) = render("default", &["--set", wrong]) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{wrong}: {said}");
    }
}

#[test]
fn every_pod_of_the_chart_is_as_restricted_as_kubernetes_knows() {
    let Some(text) = rendered("observed", &["--set", "crds.install=false"]) else { return };
    let mut pods = 0;
    for document in text.split("\n---") {
        let object: serde_json::Value = serde_yaml::from_str(document).expect("YAML");
        let spec = match object["kind"].as_str() {
            Some("Deployment") => &object["spec"]["template"]["spec"],
            Some("Pod") => &object["spec"],
            _ => continue,
        };
        pods += 1;
        let name = &object["metadata"]["name"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in spec["containers"].as_array().expect("containers") {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        }
    }
    assert_eq!(pods, 3, "operator, collector and test");
}

#[test]
fn no_rule_of_the_operator_says_everything() {
    let Some(text) = rendered("namespaces", &["--show-only", "templates/rbac.yaml"]) else { return };
    assert!(!text.contains('*'), "{text}");
    assert!(!text.contains("ClusterRole"), "named namespaces need no ClusterRole");
    assert_eq!(text.matches("kind: RoleBinding").count(), 2);
}
