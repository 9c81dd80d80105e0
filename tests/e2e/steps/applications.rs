//! Applications in pods: nothing but a certificate of their own, and the same key at both ends.

use serde_json::Value;

use super::{NAMESPACE, NETWORK};
use crate::cluster::{applied, eventually, image, kubectl, objects, of, success};
use crate::harness::Suite;

/// An application. The image has no shell, so that each question to its key store is a pod of its own.
pub struct Application {
    pub name: &'static str,
    pub site: &'static str,
}

pub const UNIVERSITY: Application = Application { name: "university", site: "valrose" };
pub const INRIA: Application = Application { name: "inria", site: "sophia" };
/// Comes while key flows.
pub const GUEST: Application = Application { name: "guest", site: "valrose" };
/// At a site that comes while key flows.
pub const HARBOUR: Application = Application { name: "harbour", site: "antibes" };
pub const OBSERVATORY: Application = Application { name: "observatory", site: "calern" };

pub fn run(suite: &mut Suite) {
    suite.step("two applications fetch the same keys over ETSI GS QKD 014", || exchange(&UNIVERSITY, &INRIA));
    suite.step("so do two whose sites share no link", || exchange(&INRIA, &OBSERVATORY));
    suite.step("a key is delivered once", || {
        let keys = UNIVERSITY.get(&INRIA, 1);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("the first time");
        INRIA.has_not(&UNIVERSITY, &keys[0].0);
    });
    suite.step("an application cannot fetch what is not for it", || {
        let keys = UNIVERSITY.get(&INRIA, 1);
        OBSERVATORY.has_not(&UNIVERSITY, &keys[0].0);
        INRIA.fetch(&UNIVERSITY, &[&keys[0].0]).expect("it is still there");
    });
}

/// Some keys one way and the other.
fn exchange(a: &Application, b: &Application) {
    for (master, slave) in [(a, b), (b, a)] {
        let keys = master.get(slave, 3);
        assert_eq!(keys.len(), 3);
        let ids: Vec<&str> = keys.iter().map(|(id, _)| id.as_str()).collect();
        let fetched = slave.fetch(master, &ids).expect("keys of the peer");
        assert!(fetched == keys, "{} and {} got different keys", master.name, slave.name);
    }
}

impl Application {
    /// The key store of the application's site, as pods reach it.
    pub fn url(&self) -> String {
        let selector = format!("{},qkdnet.dev/site={},app.kubernetes.io/component=etsi014", of(NETWORK), self.site);
        let services = objects(NAMESPACE, "services", &selector);
        let name = services[0]["metadata"]["name"].as_str().expect("a Service").to_owned();
        format!("https://{name}:8443")
    }

    /// Name of the Secret with its certificate.
    pub fn secret(&self) -> String {
        let selector = format!("{},qkdnet.dev/sae={}", of(NETWORK), self.name);
        eventually(&format!("a Secret for {}", self.name), || {
            let secrets = objects(NAMESPACE, "secrets", &selector);
            let name = secrets.first().and_then(|secret| secret["metadata"]["name"].as_str());
            name.map(str::to_owned).ok_or_else(|| format!("{} Secrets", secrets.len()))
        })
    }

    /// `qkdnet key` in a pod that has nothing but the application's certificate.
    fn key(&self, words: &[&str]) -> Result<String, String> {
        let mut arguments = vec!["key"];
        let url = self.url();
        arguments.extend(words);
        arguments.extend(["--url", &url, "--output", "json"]);
        reaching(|| run_pod(&format!("sae-{}", self.name), self.name, &self.secret(), &arguments))
    }

    /// New keys, as soon as there are any.
    pub fn get(&self, slave: &Application, number: usize) -> Vec<(String, String)> {
        let number = number.to_string();
        eventually(&format!("keys for {} and {}", self.name, slave.name), || {
            self.key(&["get", "--to", slave.name, "--number", &number]).map(|text| keys(&text))
        })
    }

    pub fn fetch(&self, master: &Application, ids: &[&str]) -> Result<Vec<(String, String)>, String> {
        let words = ["fetch", "--from", master.name];
        self.key(&[&words[..], ids].concat()).map(|text| keys(&text))
    }

    /// Its key store answers that it has no such key for it.
    pub fn has_not(&self, master: &Application, id: &str) {
        let said = self.fetch(master, &[id]).expect_err("a key that is not there for it");
        assert!(said.contains("not found on KME"), "{said}");
    }
}

fn keys(container: &str) -> Vec<(String, String)> {
    let container: Value = serde_json::from_str(container).expect("a key container");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let keys = container["keys"].as_array().expect("keys").iter();
    keys.map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

/// The first answer of a key store, good or bad. A connection that was not made is made again: the store was not asked,
/// and a cluster's name service comes and goes with its nodes.
pub fn reaching(mut ask: impl FnMut() -> Result<String, String>) -> Result<String, String> {
    eventually("a connection to a key store", || match ask() {
        Err(said) if said.contains("cannot connect to") => Err(said),
        answer => Ok(answer),
    })
}

/// Runs a command of the image to its end in a restricted pod with one certificate; what it printed.
pub fn run_pod(pod: &str, sae: &str, secret: &str, arguments: &[&str]) -> Result<String, String> {
    success(kubectl(&["delete", "pod", pod, "-n", NAMESPACE, "--ignore-not-found", "--wait"]));
    let files = ["--ca", "/certificate/ca.crt", "--cert", "/certificate/tls.crt", "--key", "/certificate/tls.key"];
    let arguments = serde_json::to_string(&[arguments, &files[..]].concat()).expect("JSON");
    let image = image();
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {pod}
  labels: {{qkdnet.dev/sae: {sae}}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    fsGroup: 65532
    seccompProfile: {{type: RuntimeDefault}}
  containers:
    - name: sae
      image: {image}
      imagePullPolicy: Never
      args: {arguments}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {{drop: [ALL]}}
      volumeMounts: [{{name: certificate, mountPath: /certificate, readOnly: true}}]
  volumes:
    - name: certificate
      secret: {{secretName: {secret}, defaultMode: 0440}}
"
    );
    applied(NAMESPACE, &manifest);
    let phase = eventually(&format!("{pod} has ended"), || {
        let text = success(kubectl(&["get", "pod", pod, "-n", NAMESPACE, "-o", "jsonpath={.status.phase}"]));
        if text == "Succeeded" || text == "Failed" { Ok(text) } else { Err(text) }
    });
    let log = success(kubectl(&["logs", pod, "-n", NAMESPACE]));
    if phase == "Succeeded" { Ok(log) } else { Err(log) }
}
