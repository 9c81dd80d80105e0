//! Blocks that take longer than a session lasts: what was closed by a checkpoint outlives it.

use serde_json::Value;

use crate::counts::at_counts;
use crate::prepared::bright_dot;
use crate::support::{
    Digest, Place, assert_crashed, assert_equal_keys, lines, qkdnet, quantum_dot_of_120_km, success, summary,
};

fn up(place: &Place, simulated: &str, failpoints: &str) -> (Digest, Vec<Value>) {
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--isolation", "process", "--output", "json", "--for", simulated, "--seed", "9"]);
    command.env("QKDNET_FAILPOINTS", failpoints);
    let lines = lines(&success(command));
    (assert_equal_keys(&place.digest("data")), lines)
}

fn with_faults(topology: &str) -> String {
    let (run, allowed) = ("latency: 8}", "latency: 8}\n  faults: {allowed: true}");
    assert!(topology.contains(run));
    topology.replacen(run, allowed, 1)
}

/// Blocks of a second, in five stretches.
fn short_stretches() -> String {
    let (asked, every) = ("authentication: {", "authentication: {checkpoint: 0.2 s, ");
    let topology = bright_dot();
    assert!(topology.contains(asked));
    with_faults(&at_counts(&topology.replacen(asked, every, 1)))
}

#[test]
fn an_end_that_is_killed_in_the_middle_of_a_block_of_six_hours_loses_the_open_stretch_alone() {
    let hours = |hours: f64| hours * 3600.0;
    let topology = at_counts(&quantum_dot_of_120_km()).replacen("epoch: 20 ms", "epoch: 60 s", 1);
    let place = Place::new(&with_faults(&topology));
    // Both modules crash once, each when it has kept its fifth half hour: the receiver before the transmitter hears
    // of it, so that it is one stretch ahead.
    let (_, lines) = up(&place, "10h", "stretch.kept=5");
    assert_crashed(&place.path("data"), &["transmitter-time-bins-dot", "detector-time-bins-receiver"], "stretch.kept");
    let goes_on = |line: &Value| line["name"] == "block-goes-on";
    let begun = lines.iter().filter(|line| goes_on(line)).filter_map(|line| line["message"].as_str());
    let begun: Vec<&str> = begun.collect();
    assert!(begun.iter().any(|message| message.contains("7200 s of light")), "{begun:?}");
    assert!(begun.iter().any(|message| message.contains("9000 s of light")), "{begun:?}");
    // A block of six hours, and of what is left of ten a short one: two crashes have cost less than an hour of light.
    // Without checkpoints the first would have cost two and a half.
    let sifted: Vec<f64> = lines.iter().filter_map(|line| line["block"]["sifted_z"].as_f64()).collect();
    assert!((8.4e6..8.7e6).contains(&sifted[0]), "{sifted:?} bits of 395 a second");
    let light_s = hours(6.0) * sifted.iter().sum::<f64>() / sifted[0];
    assert!(light_s > hours(9.0) && light_s < hours(10.0), "blocks of {light_s} s in all");
    assert!(summary(&lines)["links"][0]["blocks"].as_u64() == Some(2), "{}", summary(&lines));
}

#[test]
fn a_crash_at_each_step_that_makes_a_stretch_durable_loses_and_doubles_nothing() {
    let (transmitter, detector) = ("transmitter-niels-bohr-dtu-niels-bohr", "detector-niels-bohr-dtu-dtu");
    for (armed, crashed) in [
        ("stretch.kept=7", vec![(transmitter, "stretch.kept"), (detector, "stretch.kept")]),
        ("stretch.spent=2", vec![(transmitter, "stretch.spent"), (detector, "stretch.spent")]),
        // The receiver crashes, and the transmitter when both say with which stretches they go on.
        ("stretch.kept=7,stretch.settled=1", vec![(transmitter, "stretch.settled"), (detector, "stretch.kept")]),
    ] {
        let place = Place::new(&short_stretches());
        let (key, lines) = up(&place, "30s", armed);
        for (service, point) in crashed {
            assert_crashed(&place.path("data"), &[service], point);
        }
        for site in ["niels-bohr", "dtu"] {
            let path = module::store::path(&place.path("data"), site, "niels-bohr-dtu");
            let store = module::store::BlockStore::open_read_only(&path).expect("open the blocks");
            assert!(store.in_doubt().is_empty(), "{armed}: a block is left undecided at {site}");
            let (blocks, bits) = store.committed_totals();
            assert!(bits == key.bits && blocks > 5, "{armed}: {blocks} blocks at {site}");
            let left = std::fs::read_dir(path.with_file_name("stretches")).expect("the folder of stretches").count();
            assert_eq!(left, 0, "{armed}: what was reconciled is erased at {site}");
        }
        assert_eq!(summary(&lines)["links"][0]["keys_equal"], true, "{armed}: {}", summary(&lines));
    }
}

#[test]
fn checkpoints_change_no_bit_of_a_run_in_one_session_but_what_pays_for_their_tags() {
    let of = |topology: &str| {
        let place = Place::new(topology);
        let lines = place.up("data", &["--for", "4s", "--seed", "7"]);
        let sifted = |line: &Value| line["block"]["sifted_z"].as_f64();
        let sifted: Vec<f64> = lines.iter().filter_map(sifted).collect();
        (assert_equal_keys(&place.digest("data")).bits, sifted)
    };
    let ((with, of_stretches), (without, at_one_go)) = (of(&short_stretches()), of(&at_counts(&bright_dot())));
    assert_eq!(of_stretches, at_one_go);
    let blocks = at_one_go.len() as u64;
    assert!(blocks >= 3 && without - with <= blocks * 4 * 258 && without > with, "{without} and {with} bits");
}
