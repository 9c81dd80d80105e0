//! A run from the command line to keys on disk.

use crate::support::{Place, assert_equal_keys, bright, lines, qkdnet, success, summary};

#[test]
fn a_run_ends_with_the_same_key_at_both_sites_and_a_summary_that_says_so() {
    let place = Place::new(&bright(&[]));
    let lines = place.up("data", &["--for", "6s"]);
    let summary = summary(&lines);
    let link = &summary["links"][0];
    assert_eq!(link["name"], "valrose-sophia");
    let key = assert_equal_keys(&place.digest("data"));
    assert_eq!(link["key_bits"].as_u64(), Some(key.bits));
    assert!(link["blocks"].as_u64() >= Some(4), "{link}");
    assert!(link["skr_bps"].as_f64() > Some(0.0) && link["qber_z"].as_f64() > Some(0.0), "{link}");
    let figures = &link["figures"];
    assert_eq!(
        (&figures["secretKeyRate"], &figures["qberZ"], &figures["qberX"]),
        (&link["skr_bps"], &link["qber_z"], &link["qber_x"])
    );
    let stored = lines.iter().find(|line| line["name"] == "block-stored").expect("a block is stored");
    assert_eq!(stored["block"]["figures"]["qberZ"], stored["block"]["qber_z"]);
    assert!(summary["seed"].is_null());
    assert!((summary["simulated_s"].as_f64().expect("a time") - 6.0).abs() < 0.5, "{summary}");
    assert!(lines.iter().any(|line| line["name"] == "locked"), "the lock is told");
}

#[test]
fn a_second_run_on_the_same_data_goes_on_where_the_first_ended() {
    let place = Place::new(&bright(&[]));
    place.up("data", &["--for", "3s", "--seed", "11"]);
    let first = assert_equal_keys(&place.digest("data"));
    place.up("data", &["--for", "3s", "--seed", "11"]);
    let both = assert_equal_keys(&place.digest("data"));
    assert!(both.bits > first.bits, "{first:?} {both:?}");
    // Had the second run distilled the same epochs again, its key would be the first one's.
    let again = Place::new(&bright(&[]));
    again.up("data", &["--for", "3s", "--seed", "11"]);
    assert_eq!(assert_equal_keys(&again.digest("data")), first);
}

#[test]
fn the_ledger_of_a_run_sums() {
    let place = Place::new(&bright(&[]));
    place.up("data", &["--for", "4s", "--seed", "2"]);
    let mut command = qkdnet();
    command.arg("ledger").arg("--data").arg(place.path("data"));
    let text = String::from_utf8(success(command).stdout).expect("text");
    assert!(text.contains("sums exact") && !text.contains("WRONG"), "{text}");
}

#[test]
fn a_seeded_run_says_that_its_keys_are_worthless() {
    let place = Place::new(&bright(&[]));
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--for", "1s", "--seed", "1"]);
    let output = success(command);
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("worthless"), "{said}");
}

#[test]
fn without_the_correlator_no_lock_is_found_and_no_key_is_made() {
    let place = Place::new(&bright(&[("window: 50 ms}", "window: 50 ms, correlator: false}")]));
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    let output = command.args(["--for", "3s", "--output", "json"]).output().expect("start qkdnet");
    // There was light, and nothing came of it.
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(&output);
    let summary = summary(&lines);
    assert_eq!(summary["links"][0]["key_bits"], 0);
    assert_eq!(summary["verdict"]["reasons"][0]["kind"], "no-key");
    assert!(!lines.iter().any(|line| line["name"] == "locked"));
}
