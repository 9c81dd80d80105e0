//! Crashing at a failpoint, in a process of its own.

#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use shell::failpoint;

const SIGABRT: i32 = 6;

fn run(armed: &str, allowed: &str) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_under_test", "--nocapture", "--include-ignored"])
        .env("QKDNET_TEST_FAULTS_ALLOWED", allowed)
        .env(failpoint::VARIABLE, armed)
        .output()
        .unwrap()
}

/// Hits a place five times. Runs only as the child of the tests below.
#[test]
#[ignore = "run by the other tests"]
fn the_process_under_test() {
    let Ok(allowed) = std::env::var("QKDNET_TEST_FAULTS_ALLOWED") else { return };
    if let Err(error) = failpoint::arm_from_environment(allowed == "yes") {
        println!("refused: {error}");
        return;
    }
    for hit in 1..=5 {
        failpoint::hit("block.prepared");
        println!("passed {hit}");
    }
}

#[test]
fn the_process_is_aborted_at_the_hit_that_is_armed() {
    let output = run("block.prepared=3,tag.persisted=1", "yes");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(SIGABRT), "{said}");
    assert!(said.contains("passed 2") && !said.contains("passed 3"), "{said}");
}

#[test]
fn nothing_happens_where_nothing_is_armed() {
    for armed in ["", "tag.persisted=1", "block.prepared=6"] {
        let output = run(armed, "yes");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("passed 5"));
    }
}

#[test]
fn arming_where_faults_are_not_allowed_is_an_error() {
    let output = run("block.prepared=1", "no");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("does not allow faults"));
}
