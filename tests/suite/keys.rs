//! Keys on their way to applications: fetched at both ends, over ETSI GS QKD 014, from a network that runs.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Place, bright, bright_network, qkdnet, success};

/// However busy the machine, nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(400);

/// A network in the background; it is interrupted and waited for in the end.
pub struct Network<'p> {
    place: &'p Place,
    child: Option<Child>,
}

impl<'p> Network<'p> {
    pub fn start(place: &'p Place, isolation: &str) -> Self {
        Self::start_with(place, isolation, |_| {})
    }

    /// As [`start`](Self::start), with something else about the command.
    pub fn start_with(place: &'p Place, isolation: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
        command.args(["--isolation", isolation]).stdout(Stdio::null()).stderr(Stdio::inherit());
        change(&mut command);
        let child = command.spawn().expect("start qkdnet");
        Self { place, child: Some(child) }
    }

    /// Of the process of `qkdnet up`.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a network that runs").id()
    }

    pub fn status(&self) -> Option<Value> {
        let mut command = qkdnet();
        command.arg("status").arg("--data").arg(self.place.path("data")).args(["--output", "json"]);
        let output = command.output().expect("run qkdnet");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    pub fn key(&self, words: &[&str]) -> Command {
        let mut command = qkdnet();
        command.arg("key").arg(words[0]).arg("--data").arg(self.place.path("data")).args(&words[1..]);
        command.args(["--output", "json"]);
        command
    }

    /// Gets keys as soon as there are any.
    pub fn get(&self, master: &str, slave: &str, number: &str) -> Vec<Key> {
        let mut last = String::new();
        eventually("keys are supplied", || {
            let output =
                self.key(&["get", "--sae", master, "--to", slave, "--number", number]).output().expect("run qkdnet");
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then(|| keys(&output.stdout))
        })
        .unwrap_or_else(|| panic!("{last}"))
    }

    pub fn fetch(&self, slave: &str, master: &str, ids: &[&str]) -> std::process::Output {
        let mut words = vec!["fetch", "--sae", slave, "--from", master];
        words.extend(ids);
        self.key(&words).output().expect("run qkdnet")
    }

    /// IDs of the keys that a relay at this site has seen.
    pub fn exposed(&self, site: &str) -> Vec<String> {
        let mut command = qkdnet();
        command.arg("exposure").arg(site).arg("--data").arg(self.place.path("data")).args(["--output", "json"]);
        let listed: Value = serde_json::from_slice(&success(command).stdout).expect("JSON");
        let ids = listed.as_array().expect("a list").iter().filter_map(|key| key["key_id"].as_str());
        ids.map(str::to_owned).collect()
    }

    pub fn stored(&self, master: &str, slave: &str) -> u64 {
        let mut command = qkdnet();
        command.args(["key", "status", "--data"]).arg(self.place.path("data")).args(["--sae", master, "--to", slave]);
        let output = command.output().expect("run qkdnet");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["stored_key_count"].as_u64().unwrap_or(0)
    }

    /// Kills with SIGKILL the process of one service.
    pub fn kill(&self, service: &str) {
        let config = self.place.path("data").join(".qkdnet/run").join(format!("{service}.yaml"));
        let status = Command::new("pkill").args(["-KILL", "-f"]).arg(format!("config {}", config.display())).status();
        assert!(status.expect("run pkill").success(), "{service} was not running");
    }

    pub fn stop(mut self) {
        let mut child = self.child.take().expect("a network that runs");
        interrupt(&child);
        assert!(child.wait().expect("wait for qkdnet").success());
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            interrupt(&child);
            let _ = child.wait();
        }
    }
}

fn interrupt(child: &Child) {
    let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
}

/// Asks again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let patience = Instant::now() + PATIENCE;
    while Instant::now() < patience {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("never came: {what}");
    None
}

pub type Key = (String, String);

pub fn keys(answer: &[u8]) -> Vec<Key> {
    let container: Value = serde_json::from_slice(answer).expect("a key container");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let keys = container["keys"].as_array().expect("keys").iter();
    keys.map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

fn place() -> Place {
    Place::new(&bright(&[]))
}

#[test]
fn an_application_at_each_end_gets_the_same_keys_and_each_key_once() {
    for isolation in ["tasks", "process"] {
        let place = place();
        let network = Network::start(&place, isolation);
        let master = network.get("university", "inria", "3");
        assert_eq!(master.len(), 3);
        let ids: Vec<&str> = master.iter().map(|(id, _)| id.as_str()).collect();
        let slave = network.fetch("inria", "university", &ids);
        assert!(slave.status.success(), "{}", String::from_utf8_lossy(&slave.stderr));
        assert!(keys(&slave.stdout) == master, "the two ends got different keys");
        let again = network.fetch("inria", "university", &ids[..1]);
        assert!(!again.status.success(), "a key was delivered twice");
        // The other way round, from key of its own.
        let back = network.get("inria", "university", "1");
        let fetched = network.fetch("university", "inria", &[&back[0].0]);
        assert!(keys(&fetched.stdout) == back);
        assert!(master.iter().all(|key| key.1 != back[0].1));
        network.stop();
    }
}

#[test]
fn keys_outlive_a_key_store_that_is_killed_and_a_network_that_is_started_again() {
    let place = place();
    let network = Network::start(&place, "process");
    let master = network.get("university", "inria", "2");
    network.kill("kms-sophia");
    let fetched = eventually("the key is fetched from the store that came back", || {
        let output = network.fetch("inria", "university", &[&master[0].0]);
        output.status.success().then(|| keys(&output.stdout))
    });
    assert!(fetched.expect("a key") == master[..1]);
    network.kill("kms-valrose");
    let more = network.get("university", "inria", "1");
    assert!(master.iter().all(|key| *key != more[0]), "a key was handed out twice");
    network.stop();

    let network = Network::start(&place, "tasks");
    let fetched = eventually("the key is fetched from the network that was started again", || {
        let output = network.fetch("inria", "university", &[&master[1].0, &more[0].0]);
        output.status.success().then(|| keys(&output.stdout))
    });
    assert!(fetched.expect("keys") == [master[1].clone(), more[0].clone()]);
    network.stop();
}

#[test]
fn a_running_network_says_where_its_key_stores_are_and_a_stopped_one_says_nothing() {
    let place = place();
    let network = Network::start(&place, "tasks");
    let ready = eventually("key flows", || network.status().filter(|status| status["ready"] == true));
    let status = ready.expect("a network that is ready");
    let sites: Vec<&str> =
        status["sites"].as_array().expect("sites").iter().filter_map(|s| s["site"].as_str()).collect();
    assert_eq!(sites, ["sophia", "valrose"]);
    for site in status["sites"].as_array().expect("sites") {
        assert!(site["url"].as_str().expect("a URL").starts_with("https://127.0.0.1:"));
        for file in [&site["ca"], &site["saes"][0]["cert"], &site["saes"][0]["key"]] {
            assert!(std::path::Path::new(file.as_str().expect("a path")).is_file(), "{file}");
        }
    }
    assert!(network.stored("university", "inria") > 0);
    network.stop();
    let mut command = qkdnet();
    command.arg("status").arg("--data").arg(place.path("data"));
    let output = command.output().expect("run qkdnet");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no network runs"));
}

#[test]
fn a_certificate_of_an_application_opens_no_service() {
    let place = place();
    let network = Network::start(&place, "process");
    eventually("key flows", || network.status().filter(|status| status["ready"] == true)).expect("a network");
    let pki = place.path("data").join(".qkdnet/pki");
    // None is made for an application called as a service is, or as who is in control.
    for name in ["control", "kms-valrose", "relay-elsewhere"] {
        let mut command = qkdnet();
        command.args(["sae", "new", name, "--data"]).arg(place.path("data"));
        let output = command.output().expect("run qkdnet");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("name of a service"), "{said}");
        assert!(!pki.join("saes").join(format!("{name}.pem")).exists());
    }
    // Had there been one, it would have opened nothing.
    let authority = shell::pki::Authority::load(&pki).expect("the authority");
    authority.issue_application("control").expect("a certificate").save(&pki).expect("write it");
    let config = place.path("data").join(".qkdnet/run/kms-valrose.yaml");
    let output = qkdnet().arg("health").arg("--config").arg(config).output().expect("run qkdnet");
    assert!(!output.status.success());
    network.stop();
}

#[test]
fn sites_without_a_link_of_their_own_get_the_same_key_over_the_relay_between_them() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&bright_network());
        let network = Network::start(&place, isolation);
        let master = network.get("inria", "observatory", "2");
        let ids: Vec<&str> = master.iter().map(|(id, _)| id.as_str()).collect();
        let slave = network.fetch("observatory", "inria", &ids);
        assert!(slave.status.success(), "{}", String::from_utf8_lossy(&slave.stderr));
        assert!(keys(&slave.stdout) == master, "the two ends got different keys");
        assert_eq!(network.exposed("valrose"), ids, "the relay between has seen these keys");
        assert!(network.exposed("calern").is_empty(), "an end of a path is no relay");
        network.stop();
        // Spans are on the disk once the network has ended: both deliveries of the key, and the way of what it is made
        // of through three sites.
        let names = place.trace(ids[0]);
        for name in ["qkd.kms.supply", "qkd.kms.fetch", "qkd.relay.transfer"] {
            assert!(names.iter().any(|known| known == name), "{isolation}: no {name} in {names:?}");
        }
        let hops = names.iter().filter(|name| *name == "qkd.relay.transfer").count();
        assert!(hops >= 3, "{isolation}: {hops} sites in the trace");
    }
}

#[test]
fn a_key_of_three_applications_reaches_all_of_them() {
    let place = Place::new(&bright_network());
    let network = Network::start(&place, "tasks");
    network.get("university", "observatory", "1");
    let mut last = String::new();
    let master = eventually("a key of three", || {
        let words = ["get", "--sae", "university", "--to", "inria", "--also", "observatory"];
        let output = network.key(&words).output().expect("run qkdnet");
        last = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then(|| keys(&output.stdout))
    });
    let master = master.unwrap_or_else(|| panic!("{last}"));
    for slave in ["inria", "observatory"] {
        let fetched = network.fetch(slave, "university", &[&master[0].0]);
        assert!(fetched.status.success(), "{slave}: {}", String::from_utf8_lossy(&fetched.stderr));
        assert!(keys(&fetched.stdout) == master, "{slave} got another key");
        assert!(!network.fetch(slave, "university", &[&master[0].0]).status.success(), "{slave} got it twice");
    }
    network.stop();
}
