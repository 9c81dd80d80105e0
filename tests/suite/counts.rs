//! Links at the fidelity of counts: the light is drawn as statistics, and everything after it is what it is with
//! clicks.

use serde_json::Value;

use crate::keys::{Network, keys};
use crate::prepared::{bright_decoys, bright_dot};
use crate::support::{Digest, Place, assert_equal_keys, bright, qkdnet, success, summary};

/// As the document says it; the links of Nice say themselves that they have tags.
pub fn at_counts(topology: &str) -> String {
    let counted = topology.replacen("run: {speed: max,", "run: {fidelity: counts, speed: max,", 1);
    assert_ne!(counted, topology, "no `run`");
    counted.replace("fidelity: tags", "fidelity: counts")
}

/// Pairs, decoys, single photons.
pub fn every_kind() -> [String; 3] {
    [bright(&[]), bright_decoys(), bright_dot()].map(|topology| at_counts(&topology))
}

fn run(topology: &str, args: &[&str]) -> (Digest, Vec<Value>) {
    let place = Place::new(topology);
    let lines = place.up("data", &[&["--for", "4s"], args].concat());
    (assert_equal_keys(&place.digest("data")), lines)
}

#[test]
fn equal_seeds_give_equal_keys_as_tasks_and_as_processes() {
    for topology in every_kind() {
        let (tasks, lines) = run(&topology, &["--seed", "7"]);
        assert_eq!(summary(&lines)["links"][0]["fidelity"], "counts");
        assert_eq!(tasks, run(&topology, &["--seed", "7", "--isolation", "process"]).0, "as processes");
        assert_ne!(tasks.sha256, run(&topology, &["--seed", "8"]).0.sha256);
        assert_ne!(run(&topology, &[]).0.sha256, run(&topology, &[]).0.sha256, "no seed");
    }
}

#[test]
fn applications_at_both_ends_get_the_same_keys_of_every_kind_of_link() {
    let applications = [("university", "inria"), ("sender", "recipient"), ("sender", "recipient")];
    for (topology, (master, slave)) in every_kind().iter().zip(applications) {
        let place = Place::new(topology);
        let network = Network::start(&place, "tasks");
        let got = network.get(master, slave, "3");
        let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
        let fetched = network.fetch(slave, master, &ids);
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        assert!(keys(&fetched.stdout) == got, "the two ends got different keys");
        network.stop();
    }
}

#[test]
fn the_command_line_decides_on_the_fidelity_of_a_run() {
    let fidelity = |args: &[&str]| {
        let (digest, lines) = run(&bright(&[]), args);
        (digest, summary(&lines)["links"][0]["fidelity"].as_str().expect("a fidelity").to_owned())
    };
    let (of_tags, tags) = fidelity(&["--seed", "7"]);
    let (of_counts, counts) = fidelity(&["--seed", "7", "--fidelity", "counts"]);
    assert_eq!((tags.as_str(), counts.as_str()), ("tags", "counts"));
    assert_ne!(of_tags.sha256, of_counts.sha256);
    let back = run(&at_counts(&bright(&[])), &["--seed", "7", "--fidelity", "tags"]).0;
    assert_eq!(back, of_tags, "the same run as that of a document at tags");
}

/// Bits and errors of the key basis in the second and third of four blocks: clocks take a part of the first and the
/// last.
fn whole_blocks(topology: &str, args: &[&str]) -> [f64; 2] {
    let (_, lines) = run(topology, args);
    let whole = |line: &&Value| line["block"]["number"] == 1 || line["block"]["number"] == 2;
    let blocks: Vec<&Value> = lines.iter().filter(whole).map(|line| &line["block"]).collect();
    assert!(blocks.len() == 2 && blocks.iter().all(|block| block["key_bits"].as_u64() > Some(0)), "{blocks:?}");
    ["sifted_z", "errors_z"].map(|field| blocks.iter().map(|block| block[field].as_f64().expect("a figure")).sum())
}

#[test]
fn a_link_has_as_many_bits_and_errors_at_counts_as_at_tags() {
    for topology in [bright(&[]), bright_decoys(), bright_dot()] {
        let [bits, errors] = whole_blocks(&topology, &["--seed", "7"]);
        let counted = whole_blocks(&topology, &["--seed", "7", "--fidelity", "counts"]);
        for (count, counted) in [bits, errors].into_iter().zip(counted) {
            let sigma = (count + counted).sqrt();
            // What loops dither, and what a clock is off, costs a little at tags.
            assert!((count - counted).abs() < 4.0 * sigma + 0.02 * count, "{count} and {counted}: {sigma}");
        }
    }
}

/// Twice the detectors at one end are cooled, and once the source is off: the light comes back three times.
#[test]
fn a_link_goes_on_by_itself_after_each_outage_and_counts_its_restarts_at_either_fidelity() {
    let cooled = "detector: {use: id281, cooling: {holdTime: 3 s, recyclingTime: 1 s, first: 2 s}}";
    let outage = "outages: [{at: 4 s, lasts: 500 ms, cause: power failure}]";
    let topology = bright(&[
        ("          analyser: {phase: {initial: 0.06 rad}}\n", &format!("          {cooled}\n")),
        ("      round: 1 s\n", &format!("      round: 1 s\n      {outage}\n")),
    ]);
    for fidelity in ["counts", "tags"] {
        let run = |args: &[&str]| {
            let place = Place::new(&topology);
            let lines = place.up("data", &[&["--for", "9s", "--seed", "7", "--fidelity", fidelity], args].concat());
            (assert_equal_keys(&place.digest("data")), lines)
        };
        let (digest, lines) = run(&[]);
        let link = &summary(&lines)["links"][0];
        let figures = &link["figures"];
        assert_eq!((&figures["restarts"], &figures["interventions"]), (&3.0.into(), &0.0.into()), "{link}");
        let availability = figures["availability"].as_f64().expect("a figure");
        assert!((availability - (9.0 - 2.5) / 9.0).abs() < 0.03, "{fidelity}: {availability}");
        let count = |name: &str| lines.iter().filter(|line| line["name"] == name).count();
        assert_eq!((count("light-out"), count("light-back")), (6, 6), "three times at both ends");
        let causes = lines.iter().filter(|line| line["name"] == "light-out" && line["site"] == "sophia");
        let causes: Vec<&str> = causes.filter_map(|line| line["message"].as_str()).collect();
        let cooled = "the detectors at valrose are cooled";
        assert_eq!(causes, [cooled, "power failure", cooled]);
        let last = lines.iter().rfind(|line| line["name"] == "block-stored").expect("a block");
        assert!(last["simulated_s"].as_f64() > Some(7.0), "key goes on: {last}");
        assert_eq!(digest, run(&["--isolation", "process"]).0, "as processes");
    }
}

/// Dark counts are left, half of whose bits are wrong.
#[test]
fn a_dark_link_makes_no_key_and_its_bits_are_accounted_for() {
    let dark = [
        bright(&[("deviceLoss: 1 dB", "deviceLoss: 180 dB")]),
        bright_decoys().replace("length: 5 km", "length: 800 km"),
        bright_dot().replace("attenuation: 0.05 dB/km", "attenuation: 10 dB/km"),
    ];
    for topology in dark {
        let place = Place::new(&at_counts(&topology));
        let mut command = qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
        let output = command.args(["--for", "3s", "--seed", "7"]).output().expect("start qkdnet");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{said}");
        assert!(place.digest("data").iter().all(|end| end.bits == 0), "{said}");
        for end in ledger(&place) {
            let total = &end["total"];
            assert!(total["blocks_aborted"].as_u64() >= Some(2), "rounds went on and gave no key: {end}");
            assert_eq!((&total["blocks_stored"], &total["delivered"]), (&0.into(), &0.into()), "{end}");
        }
    }
}

/// What became of every bit, by end of the link; an error where sums do not hold.
fn ledger(place: &Place) -> Vec<Value> {
    let mut command = qkdnet();
    command.arg("ledger").arg("--data").arg(place.path("data")).args(["--output", "json"]);
    let ledger: Value = serde_json::from_slice(&success(command).stdout).expect("JSON");
    let ends = ledger["links"].as_array().expect("links").clone();
    assert_eq!(ends.len(), 2, "{ledger}");
    ends
}

#[test]
fn ledgers_of_links_at_counts_add_up() {
    for topology in every_kind() {
        let place = Place::new(&topology);
        place.up("data", &["--for", "4s", "--seed", "7"]);
        for end in ledger(&place) {
            let (total, sifted) = (&end["total"], end["total"]["sifted_z"].as_u64().expect("a figure"));
            assert!(total["blocks_stored"].as_u64() >= Some(2) && sifted > 1000, "{end}");
            let clicks = ["announcer", "matcher", "receiver"].map(|book| total[book]["clicks"].as_u64().unwrap_or(0));
            // A transmitter has no clicks.
            let clicks: u64 = clicks.iter().sum();
            assert!(clicks == 0 || clicks > sifted, "{end}");
        }
    }
}

/// With epochs as long as rounds.
fn coarse(seconds: u32) -> String {
    let epoch = format!("round: {seconds} s\n      epoch: {seconds} s");
    at_counts(&bright(&[("round: 1 s", &epoch)]))
}

#[test]
fn epochs_as_long_as_rounds_give_equal_keys_and_data_go_on_in_them_alone() {
    let place = Place::new(&coarse(2));
    let tasks = || place.up("data", &["--for", "12s", "--seed", "7"]);
    let lines = tasks();
    assert_eq!(summary(&lines)["links"][0]["blocks"], 6);
    let first = assert_equal_keys(&place.digest("data"));
    place.up("processes", &["--for", "12s", "--seed", "7", "--isolation", "process"]);
    assert_eq!(assert_equal_keys(&place.digest("processes")), first);
    tasks();
    assert!(assert_equal_keys(&place.digest("data")).bits > first.bits, "it goes on");
    let refused = |topology: &str, args: &[&str], why: &str| {
        let other = Place::new(topology);
        let mut command = qkdnet();
        command.arg("up").arg(other.topology()).arg("--data").arg(place.path("data")).args(["--for", "4s"]);
        let output = command.args(args).output().expect("start qkdnet");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    };
    refused(&coarse(1), &[], "in epochs of 2 s there, and cannot go on in epochs of 1 s");
    refused(&coarse(2), &["--fidelity", "tags"], "epoch: an epoch of 2 s; expected between 1 ms and 1 s");
}

#[test]
fn a_long_run_keeps_some_blocks_and_the_sums_of_all() {
    const BLOCKS: u64 = 420;
    let topology = coarse(1).replacen("spec:\n", "spec:\n  retention: {blocks: 100}\n", 1);
    let place = Place::new(&topology);
    let lines = place.up("data", &["--for", &format!("{BLOCKS}s"), "--seed", "7"]);
    assert_eq!(summary(&lines)["links"][0]["keys_equal"], true, "{}", summary(&lines));
    let made = summary(&lines)["links"][0]["blocks"].as_u64().expect("a number");
    let key_bits = summary(&lines)["links"][0]["key_bits"].as_u64();
    assert_eq!(Some(assert_equal_keys(&place.digest("data")).bits), key_bits);
    for end in ledger(&place) {
        let count = |list: &str| end[list].as_array().map_or(0, Vec::len) as u64;
        assert!(count("given_up") >= 256 && count("blocks") < 357, "{} {}", count("given_up"), count("blocks"));
        assert_eq!(end["total"]["blocks_stored"].as_u64(), Some(made));
        assert_eq!(end["total"]["delivered"].as_u64(), key_bits);
        let file =
            format!("data/{}/{}/blocks.qkd", end["site"].as_str().unwrap_or(""), end["link"].as_str().unwrap_or(""));
        let bytes = std::fs::metadata(place.path(&file)).expect("a block file").len();
        // Of the key that was delivered the place is left, overwritten, and marks of what happened are between.
        let places = key_bits.unwrap_or_default() / 8;
        assert!(bytes < 60 * BLOCKS + 1800 * count("blocks") + places + 4096, "{bytes} and {places}");
    }
}

#[test]
fn what_counts_cannot_do_is_refused_with_a_reason() {
    let refused = |topology: &str, args: &[&str], why: &str| {
        let place = Place::new(topology);
        let mut command = qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--for", "1s"]);
        let output = command.args(args).output().expect("start qkdnet");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(!place.path("data").exists());
    };
    refused(&at_counts(&bright(&[])), &["--record", "/nonexistent/tags"], "no time tags to record");
    let no_correlator = bright(&[("window: 50 ms}", "window: 50 ms, correlator: false}")]);
    refused(&no_correlator, &["--fidelity", "counts"], "no correlator");
    refused(&bright(&[]), &["--fidelity", "photons"], "write tags or counts");
}
