//! Commands against the cluster, as a user types them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where the operator is installed, and under which name.
pub const SYSTEM: &str = "e2e-system";
pub const RELEASE: &str = "qkdnet";
/// Longest wait for anything: pods that start on a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Time between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(500);

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The image under test, loaded into the cluster before.
pub fn image() -> String {
    std::env::var("QKDNET_IMAGE").unwrap_or_else(|_| "qkdnet:dev".to_owned())
}

pub fn kubectl(arguments: &[&str]) -> Command {
    command("kubectl", arguments)
}

pub fn helm(arguments: &[&str]) -> Command {
    command("helm", arguments)
}

pub fn qkdnet(arguments: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_qkdnet"), arguments)
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(repository()).stdin(Stdio::null());
    command
}

/// Standard output of a command that must succeed.
pub fn success(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `kubectl apply` of a text.
pub fn apply(namespace: &str, text: &str) -> Output {
    let mut command = kubectl(&["apply", "-n", namespace, "-f", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start kubectl");
    child.stdin.take().expect("an input").write_all(text.as_bytes()).expect("write to kubectl");
    child.wait_with_output().expect("wait for kubectl")
}

pub fn applied(namespace: &str, text: &str) {
    let output = apply(namespace, text);
    assert!(output.status.success(), "{}", said(&output));
}

/// A namespace in which the API server lets only restricted pods in.
pub fn restricted_namespace(name: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    );
    applied("default", &text);
}

/// Objects of a kind, as JSON.
pub fn objects(namespace: &str, kind: &str, selector: &str) -> Vec<Value> {
    let text = success(kubectl(&["get", kind, "-n", namespace, "-l", selector, "-o", "json"]));
    let list: Value = serde_json::from_str(&text).expect("JSON of kubectl");
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Everything of a topology that the operator makes.
pub fn of(topology: &str) -> String {
    format!("qkdnet.dev/topology={topology}")
}

pub fn topology(namespace: &str, name: &str) -> Value {
    let text = success(kubectl(&["get", "topology", name, "-n", namespace, "-o", "json"]));
    serde_json::from_str(&text).expect("JSON of kubectl")
}

/// A condition of a topology, if it is of the present generation.
pub fn condition(object: &Value, kind: &str) -> Option<Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    (found["observedGeneration"] == object["metadata"]["generation"]).then(|| found.clone())
}

pub fn holds(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Asks again until there is an answer; what was last said is shown where none comes.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if started.elapsed() > PATIENCE => panic!("never came: {what}\n{last}"),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

pub fn wait_flowing(namespace: &str, name: &str) {
    eventually(&format!("key flows in {namespace}/{name}"), || {
        let object = topology(namespace, name);
        if holds(&object, "KeyFlowing") { Ok(()) } else { Err(object["status"].to_string()) }
    });
}

/// Names of the pods of a topology, by UID.
pub fn pod_uids(namespace: &str, selector: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = objects(namespace, "pods", selector);
    pods.iter().map(|pod| (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]))).collect()
}
