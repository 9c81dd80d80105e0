//! Faults that are brought into a running network with `qkdnet fault`: it says what happens, makes no wrong key, and
//! comes back by itself.

mod pacing;
mod pulses;

use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Place, assert_equal_keys, bright, bright_network, digest, qkdnet, success};

const LINK: &str = "valrose-sophia";
/// Nothing takes so long, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// With long epochs, so that less is waited for on a machine that has much else to do.
const ALLOWED: (&str, &str) = (
    "run: {speed: max, epoch: 20 ms, latency: 8}",
    "run: {speed: max, epoch: 50 ms, latency: 4}\n  faults: {allowed: true}",
);
/// Without its loop the pump stays, and rates follow from loss alone.
const STILL: (&str, &str) = ("pump: {enabled: true, targetQber: 4.3 %}", "pump: {enabled: false}");

/// Little light, so that the clicks of a second take no longer than that.
const DIM: (&str, &str) = ("pairRate: 1e6 /s", "pairRate: 2e5 /s");

/// A network in the background that writes what happens to a file.
struct Network<'p> {
    place: &'p Place,
    child: Option<Child>,
}

impl<'p> Network<'p> {
    fn start(place: &'p Place, args: &[&str]) -> Self {
        let mut command = qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--output", "json"]);
        let events = File::create(place.path("events")).expect("make a file");
        let child = command.args(args).stdout(events).stderr(Stdio::inherit()).spawn().expect("start qkdnet");
        let network = Self { place, child: Some(child) };
        eventually("the network says where it is", || network.status());
        network
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = qkdnet();
        command.args(words).arg("--data").arg(self.place.path("data"));
        command
    }

    fn status(&self) -> Option<Value> {
        let output = self.command(&["status", "--output", "json"]).output().expect("run qkdnet");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// Orders a fault, which must be taken.
    fn fault(&self, words: &[&str]) -> Value {
        let command = self.command(&[&["fault"], words, &["--output", "json"]].concat());
        let shown: Value = serde_json::from_slice(&success(command).stdout).expect("JSON");
        shown[0].clone()
    }

    /// Orders a fault, which must not be taken.
    fn refused(&self, words: &[&str]) -> String {
        let output = self.command(&[&["fault"], words].concat()).output().expect("run qkdnet");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// What has happened so far.
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.place.path("events")).expect("read the events");
        // The last line may still be being written.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|e: &Value| e["name"].is_string())
            .collect()
    }

    /// Waits for an event behind the first `after` ones; where it stands.
    fn happens(&self, after: usize, name: &str, message: &str) -> (usize, Value) {
        let what = format!("`{name}` with `{message}`");
        eventually(&what, || {
            let found = |(_, event): &(usize, &Value)| {
                event["name"] == name && event["message"].as_str().is_some_and(|text| text.contains(message))
            };
            let events = self.events();
            events.iter().enumerate().skip(after).find(found).map(|(at, event)| (at, event.clone()))
        })
    }

    /// Waits until this many more blocks are stored.
    fn blocks(&self, more: usize) {
        let count = || self.events().iter().filter(|event| event["name"] == "block-stored").count();
        let before = count();
        eventually("blocks", || (count() >= before + more).then_some(()));
    }

    /// Keys of one application, as soon as there are any, which the other one must find.
    fn keys(&self, master: &str, slave: &str) -> Vec<(String, String)> {
        let get = eventually("keys are supplied", || {
            let words = ["key", "get", "--sae", master, "--to", slave, "--number", "2", "--output", "json"];
            let output = self.command(&words).output().expect("run qkdnet");
            output.status.success().then(|| keys(&output))
        });
        let fetched = eventually("keys are fetched", || {
            let mut words = vec!["key", "fetch", "--sae", slave, "--from", master, "--output", "json"];
            words.extend(get.iter().map(|(id, _)| id.as_str()));
            let output = self.command(&words).output().expect("run qkdnet");
            output.status.success().then(|| keys(&output))
        });
        assert!(get == fetched, "the two ends got different keys");
        get
    }

    /// Ends the light and waits for the rest. The keys of both ends of every link must be equal.
    fn stop(mut self) {
        let mut child = self.child.take().expect("a network that runs");
        interrupt(&child);
        assert!(child.wait().expect("wait for qkdnet").success());
        let digests = digest(&self.place.path("data"));
        for ends in digests.chunks(2) {
            assert_equal_keys(ends);
        }
    }

    /// Names and attributes of all spans, as text.
    fn spans(&self) -> String {
        let folder = std::fs::read_dir(self.place.path("data").join("_spans")).expect("spans");
        let read =
            |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.expect("a file").path()).expect("read");
        folder.map(|entry| String::from_utf8_lossy(&read(entry)).into_owned()).collect()
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let events = self.events();
            let last: Vec<String> = events.iter().rev().take(40).rev().map(Value::to_string).collect();
            eprintln!("the last events:\n{}\nthe status:\n{:#}", last.join("\n"), self.status().unwrap_or_default());
        }
        if let Some(mut child) = self.child.take() {
            interrupt(&child);
            let _ = child.wait();
        }
    }
}

fn interrupt(child: &Child) {
    let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
}

fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn keys(output: &Output) -> Vec<(String, String)> {
    let container: Value = serde_json::from_slice(&output.stdout).expect("a key container");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    container["keys"].as_array().expect("keys").iter().map(|key| (text(&key["key_ID"]), text(&key["key"]))).collect()
}

/// Sifted bits per second in basis Z that the formulae predict.
fn predicted(topology: &str) -> f64 {
    let place = Place::new(topology);
    let mut command = qkdnet();
    command.arg("plan").arg(place.topology()).args(["--output", "json"]);
    let report: Value = serde_json::from_slice(&success(command).stdout).expect("JSON");
    report["links"][0]["operating"]["sifted_z_hz"].as_f64().expect("a rate")
}

/// The blocks of a session that began with the run: the second of light that each is made of, and its sifted bits.
fn seconds(events: &[Value]) -> Vec<(f64, f64)> {
    let blocks = events.iter().filter(|event| event["name"] == "block-stored").map(|event| &event["block"]);
    blocks.filter_map(|block| Some((block["number"].as_f64()?, block["sifted_z"].as_f64()?))).collect()
}

/// Mean and standard error of the sifted bits of blocks whose light was between two simulated times.
fn measured(events: &[Value], from_s: f64, to_s: f64) -> (f64, f64) {
    let within = seconds(events).into_iter().filter(|(second, _)| *second >= from_s && second + 1.0 <= to_s);
    let sifted: Vec<f64> = within.map(|(_, sifted)| sifted).collect();
    assert!(sifted.len() >= 3, "{} blocks between {from_s} s and {to_s} s", sifted.len());
    let mean = sifted.iter().sum::<f64>() / sifted.len() as f64;
    (mean, (mean / sifted.len() as f64).sqrt())
}

#[test]
fn light_and_clocks_that_fail_are_noticed_and_the_link_comes_back_with_equal_keys() {
    let topology = bright(&[ALLOWED, STILL, DIM]);
    let place = Place::new(&topology);
    let network = Network::start(&place, &["--isolation", "tasks", "--seed", "4"]);
    network.blocks(8);

    // A loss lowers the rate as the formulae say.
    let loss = network.fault(&["loss", LINK, "3dB", "--arm", "valrose", "--for", "12s"]);
    let (from_s, epochs) = (loss["simulated_s"].as_f64().expect("a time"), loss["epoch_end"].as_u64().expect("an end"));
    assert_eq!(epochs - loss["epoch_first"].as_u64().expect("a beginning"), 240, "twelve seconds of epochs of 50 ms");
    let id = loss["id"].as_str().expect("an ID").to_owned();
    let status = network.status().expect("a network");
    assert!(status["faults"].as_array().is_none_or(|faults| faults.iter().all(|fault| fault["id"] == id.as_str())));
    network.happens(0, "fault", &id);
    let (at, _) = network.happens(0, "fault-over", &id);
    let events = eventually("a block from after the loss", || {
        let events = network.events();
        seconds(&events).iter().any(|(second, _)| *second > from_s + 12.0).then_some(events)
    });
    // The first one saw the clock being found.
    let (normal, normal_error) = measured(&events, 1.0, from_s);
    let (lossy, lossy_error) = measured(&events, from_s, from_s + 12.0);
    let more = topology.replacen("deviceLoss: 1 dB", "deviceLoss: 4 dB", 1);
    let (expected, expected_lossy) = (predicted(&topology), predicted(&more));
    assert!(expected_lossy < 0.6 * expected, "{expected_lossy} {expected}");
    for (measured, error, expected) in [(normal, normal_error, expected), (lossy, lossy_error, expected_lossy)] {
        let tolerance = 3.0 * error + 0.03 * expected;
        assert!((measured - expected).abs() < tolerance, "{measured} instead of {expected} /s, within {tolerance}");
    }

    // A cut takes the lock, and the light brings it back.
    let cut = network.fault(&["cut", LINK, "--arm", "sophia", "--for", "4s"]);
    let (lost, event) = network.happens(at, "lock-lost", "");
    assert!(event["simulated_s"].as_f64() > cut["simulated_s"].as_f64());
    let (at, _) = network.happens(lost, "fault-over", cut["id"].as_str().expect("an ID"));
    network.happens(lost, "locked", "clock recovered");
    network.blocks(2);

    // A clock that is off, and then right again, is found twice.
    let step = network.fault(&["step-clock", LINK, "sophia", "-3ms", "--for", "5s"]);
    let (lost, _) = network.happens(at, "lock-lost", "");
    let (locked, _) = network.happens(lost, "locked", "");
    let (lost, _) = network.happens(locked, "lock-lost", "");
    network.happens(lost, "locked", "");
    let (at, _) = network.happens(locked, "fault-over", step["id"].as_str().expect("an ID"));
    network.blocks(2);

    // One that stands still ends the session; it is set right and the link acquires again.
    network.fault(&["stop-clock", LINK, "valrose", "--for", "1s"]);
    let (lost, _) = network.happens(at, "session-lost", "the local clock stands still");
    let (runs, _) = network.happens(lost, "clock-runs", "");
    network.happens(runs, "locked", "");
    network.blocks(2);

    bad_orders_are_refused(&network);
    let place = network.place;
    network.stop();
    let trace = Network { place, child: None }.spans();
    assert!(trace.contains("qkd.fault") && trace.contains("clock-stop"), "faults are in the trace");
    assert!(trace.contains(&id), "the light says what acted on it");
}

fn bad_orders_are_refused(network: &Network<'_>) {
    for (words, expected) in [
        (&["cut", "no-such-link"][..], "there is no link `no-such-link`; there are: valrose-sophia"),
        (&["cut", LINK, "--arm", "plaine-du-var"], "it ends at valrose and sophia"),
        (&["cut", LINK, "--for", "3"], "has no unit"),
        (&["cut", LINK, "--for", "-3s"], "-3"),
        (&["cut", LINK, "--for", "3 dB"], "is a loss"),
        (&["loss", LINK, "3"], "has no unit"),
        (&["loss", LINK, "3 km"], "is a length"),
        (&["loss", LINK, "250dB"], "at most 100 dB"),
        (&["step-clock", LINK, "sophia", "3s"], "one epoch, 50 ms"),
        (&["stop", "kms-nowhere"], "there is no service `kms-nowhere`"),
        (&["partition", "sophia", "sophia"], "itself"),
        (&["fill-disk", "key-store", "plaine-du-var"], "has no key store"),
        (&["fill-disk", "cellar", "sophia"], "key-store"),
        (&["attack", LINK, "sophia", "drop", "--frames", "0"], "1 to 1000000"),
        (&["cut", LINK, "--at", "1s"], "simulated time has passed"),
        (&["cut", LINK, "--id", "Not An ID"], "1 to 40 of a-z"),
        (&["clear", "nothing"], "no such fault"),
        (&["clear"], "--all"),
    ] {
        let said = network.refused(words);
        assert!(said.contains(expected), "{words:?}: `{expected}` is not in: {said}");
    }
    let listed = success(network.command(&["fault", "list"]));
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "no faults\n", "nothing refused has stayed");
}

#[test]
fn a_scheduled_fault_is_input_of_the_run_as_the_seed_is() {
    let run = |fault: bool| {
        let place = Place::new(&bright(&[ALLOWED, STILL, DIM]));
        let network = Network::start(&place, &["--speed", "2", "--seed", "9", "--for", "16s"]);
        if fault {
            let cut = network.fault(&["cut", LINK, "--at", "10s", "--for", "3s", "--id", "planned"]);
            assert_eq!(cut["state"], "waiting");
        }
        let mut network = network;
        assert!(network.child.take().expect("a network").wait().expect("wait for qkdnet").success());
        assert_equal_keys(&place.digest("data"))
    };
    let first = run(true);
    assert_eq!(first, run(true));
    assert_ne!(first.sha256, run(false).sha256, "the fault was there");
}

#[test]
fn full_disks_lose_nothing_that_was_acknowledged_and_the_network_goes_on_when_there_is_room() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&bright(&[ALLOWED, STILL, DIM]));
        let network = Network::start(&place, &["--isolation", isolation]);
        let mut seen = network.keys("university", "inria");

        let full = network.fault(&["fill-disk", "key-store", "sophia"]);
        assert_eq!(full["services"], serde_json::json!(["kms-sophia"]));
        network.happens(0, "fault", "the disk of the key store at sophia is full");
        // The modules go on and keep their blocks; the store stops, and its peer knows.
        network.blocks(3);
        eventually("the store stops", || (!connected(&network, "valrose", "sophia")).then_some(()));
        let before = stored(&network);
        network.fault_cleared(&full);
        let after =
            eventually("blocks that waited are delivered", || Some(stored(&network)).filter(|bits| *bits > before));
        assert!(after > before);
        seen.extend(network.keys("university", "inria"));

        for what in ["blocks", "reserve"] {
            let (after, _) = (network.events().len(), ());
            let full = network.fault(&["fill-disk", what, "sophia"]);
            network.happens(after, "session-lost", "");
            network.fault_cleared(&full);
            network.blocks(2);
        }
        seen.extend(network.keys("inria", "university"));
        once(&seen);
        network.stop();
    }
}

#[test]
fn sites_that_were_cut_off_and_services_that_were_stopped_come_back_and_no_key_comes_twice() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&allowed_network());
        let network = Network::start(&place, &["--isolation", isolation]);
        let mut seen = network.keys("inria", "observatory");

        let cut = network.fault(&["partition", "sophia", "valrose"]);
        assert_eq!(cut["services"].as_array().map(Vec::len), Some(6), "both ends of channel, key stores and relays");
        network.happens(0, "fault", "sophia and valrose are cut off from each other");
        let (lost, _) = network.happens(0, "session-lost", "");
        eventually("the pool says that its peer is gone", || {
            network.status().filter(|_| !connected(&network, "sophia", "valrose"))
        });
        // Each site may hand out what is ready; what the other one never hears of is not supplied twice.
        network.fault_cleared(&cut);
        network.happens(lost, "locked", "");
        seen.extend(network.keys("inria", "observatory"));
        seen.extend(network.keys("university", "inria"));

        for service in [
            "source-valrose-sophia",
            "kms-valrose",
            "relay-valrose",
            "channel-valrose-sophia-sophia",
            "detector-valrose-sophia-valrose",
        ] {
            let stopped = network.fault(&["stop", service, "--for", "2s"]);
            let id = stopped["id"].as_str().expect("an ID").to_owned();
            let (at, _) = network.happens(0, "fault", &id);
            network.happens(at, "fault-over", &id);
            network.blocks(2);
        }
        seen.extend(network.keys("inria", "observatory"));
        seen.extend(network.keys("university", "inria"));
        once(&seen);
        network.stop();
    }
}

impl Network<'_> {
    fn fault_cleared(&self, fault: &Value) {
        let id = fault["id"].as_str().expect("an ID");
        success(self.command(&["fault", "clear", id]));
        self.happens(0, "fault-over", id);
    }
}

/// The network of Nice in which faults are allowed.
fn allowed_network() -> String {
    let text = bright_network();
    // Of the two links the first one alone can do with less light.
    [ALLOWED, DIM].into_iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "the topology has no `{from}`");
        text.replacen(from, to, 1)
    })
}

/// The latest snapshot that says something of key stores.
fn snapshot(network: &Network<'_>) -> Value {
    let text = std::fs::read_to_string(network.place.path("events")).expect("read the events");
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["stores"].is_array()).unwrap_or_default()
}

fn pool(network: &Network<'_>, site: &str, peer: &str) -> Value {
    let of = |list: &Value, key: &str, name: &str| -> Value {
        list.as_array().into_iter().flatten().find(|item| item[key] == name).cloned().unwrap_or_default()
    };
    of(&of(&snapshot(network)["stores"], "site", site)["pools"], "peer", peer)
}

fn connected(network: &Network<'_>, site: &str, peer: &str) -> bool {
    pool(network, site, peer)["connected"] == true
}

/// Bits that have counted in the key store of Sophia.
fn stored(network: &Network<'_>) -> u64 {
    pool(network, "sophia", "valrose")["confirmed_bits"].as_u64().unwrap_or(0)
}

fn once(keys: &[(String, String)]) {
    let mut all: Vec<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), keys.len(), "a key came twice");
}

#[test]
fn a_topology_that_allows_no_faults_serves_no_way_to_bring_them() {
    let place = Place::new(&bright(&[DIM]));
    let network = Network::start(&place, &["--isolation", "tasks"]);
    for words in [&["cut", LINK][..], &["list"], &["clear", "--all"], &["stop", "kms-sophia"]] {
        let said = network.refused(words);
        assert!(said.contains("allows no faults") && said.contains("faults: {allowed: true}"), "{said}");
    }
    let run = place.path("data").join(".qkdnet/run");
    assert!(!run.join("control.addr").exists(), "nothing listens");
    let nobody = qkdnet().args(["fault", "list", "--data", "/does/not/exist"]).output().expect("run qkdnet");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no network runs"));
    network.stop();
}

#[test]
fn an_interrupt_ends_a_run_whose_sites_are_cut_off_from_each_other() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&bright(&[ALLOWED]));
        let network = Network::start(&place, &["--isolation", isolation]);
        network.blocks(1);
        network.fault(&["partition", "sophia", "valrose"]);
        network.happens(0, "session-lost", "");
        let mut child = { network }.child.take().expect("a network that runs");
        interrupt(&child);
        assert!(child.wait().expect("wait for qkdnet").success());
        // What one end alone could store by then is settled when they meet again.
        let network = Network::start(&place, &["--isolation", isolation]);
        network.blocks(1);
        network.stop();
    }
}

#[test]
fn figures_of_a_link_go_on_where_a_process_that_was_stopped_had_come_to() {
    let place = Place::new(&bright(&[DIM, ("latency: 8}", "latency: 8}\n  faults: {allowed: true}")]));
    let network = Network::start(&place, &["--isolation", "process"]);
    network.blocks(1);
    let mut at = 0;
    // Each end once: one of the two is whose figures are shown.
    for site in ["valrose", "sophia"] {
        let fault = network.fault(&["stop", &format!("detector-valrose-sophia-{site}"), "--for", "1s"]);
        (at, _) = network.happens(at, "fault-over", fault["id"].as_str().expect("an ID"));
        network.blocks(2);
    }
    network.stop();
    let text = std::fs::read_to_string(place.path("events")).expect("read the events");
    let summary: Value = serde_json::from_str(text.lines().last().expect("a summary")).expect("JSON");
    let figures = summary["links"][0]["figures"].clone();
    assert!(figures["restarts"].as_f64().expect("a figure") >= 2.0, "{figures}");
    let availability = figures["availability"].as_f64().expect("a figure");
    assert!((0.01..1.0).contains(&availability), "{figures}");
    for site in ["valrose", "sophia"] {
        assert!(place.path("data").join(site).join("valrose-sophia/uptime.json").is_file(), "{site}");
    }
}
