//! What a person gets who types something wrong: one clear message, exit code 2, no panic.

use std::process::Output;

use crate::support::{Place, bright, qkdnet};

fn run(args: &[&str]) -> Output {
    qkdnet().args(args).output().expect("start qkdnet")
}

fn refused(args: &[&str], words: &[&str]) {
    let output = run(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn every_command_refuses_a_bad_topology_with_line_and_column() {
    let place = Place::new(&bright(&[("pairRate: 1e6 /s", "pairRte: 1e6 /s")]));
    let file = place.topology();
    let file = file.to_str().expect("a path");
    for command in ["validate", "plan", "up", "verify"] {
        refused(&[command, file], &["link.yaml:", "pairRte", "pairRate"]);
    }
}

#[test]
fn files_that_are_no_topology_are_refused() {
    let place = Place::new("");
    let file = place.topology();
    refused(&["validate", file.to_str().expect("a path")], &["error"]);
    refused(&["up", "/does/not/exist.yaml"], &["cannot read"]);
    std::fs::write(&file, b"\xff\xfe\x00nonsense").expect("write");
    refused(&["validate", file.to_str().expect("a path")], &["UTF-8"]);
}

#[test]
fn a_verification_of_nothing_or_without_an_end_is_refused() {
    let place = Place::new(&bright(&[]));
    let file = place.topology();
    // Nothing is published of this link.
    refused(&["verify", file.to_str().expect("a path")], &["reference"]);
    refused(&["verify", "--topology", "nice"], &["--for"]);
    refused(&["verify", "--topology", "nice", "--for", "9s", "--seed", "3"], &["--seed", "run.seed"]);
}

#[test]
fn services_refuse_a_configuration_that_is_not_theirs() {
    let place = Place::new("service: {name: x}\n");
    let file = place.topology();
    for kind in ["source", "detector", "transmitter", "channel"] {
        refused(&[kind, "--config", file.to_str().expect("a path")], &["link.yaml"]);
    }
}
