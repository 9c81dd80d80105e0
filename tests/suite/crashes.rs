//! Services that are killed, at any moment and between the steps that make a block durable.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, assert_crashed, assert_equal_keys, bright, digest, failpoints, qkdnet};

/// Tags that each direction can make before key has to refill the reserve.
const TAGS: u64 = 16;

/// The link of these tests: faults are allowed, so that failpoints can be armed, and the authentication reserve is so
/// small that the key of the first blocks is soon needed to authenticate the later ones.
fn place() -> Place {
    Place::new(&bright(&[
        (
            "run: {speed: max, epoch: 20 ms, latency: 8}",
            "run: {speed: max, epoch: 20 ms, latency: 8}\n  faults: {allowed: true}",
        ),
        ("reserve: 65536 bit", "reserve: 4352 bit"),
    ]))
}

fn start(place: &Place, simulated: &str, failpoints: &str) -> Child {
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--isolation", "process", "--output", "json", "--for", simulated]);
    if !failpoints.is_empty() {
        command.env("QKDNET_FAILPOINTS", failpoints);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("start qkdnet")
}

/// Kills with SIGKILL every process that was started with this service's configuration.
fn kill(place: &Place, service: &str) {
    let config = place.path("data").join(".qkdnet/run").join(format!("{service}.yaml"));
    let status = Command::new("pkill").args(["-KILL", "-f"]).arg(format!("config {}", config.display())).status();
    assert!(status.expect("run pkill").success(), "{service} was not running");
}

/// What Ctrl-C (`INT`) does, and a supervisor (`TERM`): the light ends and what is under way is finished.
fn interrupt(child: &Child, signal: &str) {
    let status = Command::new("kill").args(["-s", signal]).arg(child.id().to_string()).status();
    assert!(status.expect("run kill").success());
}

fn committed_blocks(place: &Place) -> u64 {
    let path = module::store::path(&place.path("data"), "valrose", "valrose-sophia");
    module::store::BlockStore::open_read_only(path).map_or(0, |store| store.committed_totals().0)
}

/// Waits until the site has at least this many committed blocks.
fn await_blocks(place: &Place, blocks: u64) {
    let patience = Instant::now() + Duration::from_secs(120);
    while committed_blocks(place) < blocks {
        assert!(Instant::now() < patience, "block {blocks} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn after_any_service_was_killed_both_sites_hold_the_same_blocks_and_key_goes_on() {
    let place = place();
    let child = start(&place, "3600s", "");
    for service in [
        "detector-valrose-sophia-sophia",
        "channel-valrose-sophia-valrose",
        "source-valrose-sophia",
        "detector-valrose-sophia-valrose",
        "channel-valrose-sophia-sophia",
    ] {
        await_blocks(&place, committed_blocks(&place) + 1);
        kill(&place, service);
    }
    // Tags are made of refills by now: the two reserves have stayed equal.
    await_blocks(&place, committed_blocks(&place) + 2 * TAGS);
    interrupt(&child, "INT");
    let output = child.wait_with_output().expect("wait for qkdnet");
    assert!(output.status.success());
    assert_equal_keys(&digest(&place.path("data")));
}

#[test]
fn a_crash_at_each_step_that_makes_a_block_durable_loses_and_doubles_nothing() {
    let detectors = ["detector-valrose-sophia-valrose", "detector-valrose-sophia-sophia"];
    for point in failpoints("detector") {
        let place = place();
        // Every process counts its own hits: each detector crashes once, the second time that it comes to the point.
        let child = start(&place, "40s", &format!("{point}=2"));
        let output = child.wait_with_output().expect("wait for qkdnet");
        assert!(output.status.success(), "failpoint {point}");
        assert_crashed(&place.path("data"), &detectors, point);
        let key = assert_equal_keys(&digest(&place.path("data")));
        assert!(committed_blocks(&place) > TAGS, "failpoint {point}: the link has not recovered");
        for site in ["valrose", "sophia"] {
            let path = module::store::path(&place.path("data"), site, "valrose-sophia");
            let store = module::store::BlockStore::open_read_only(path).expect("open the blocks");
            assert!(store.in_doubt().is_empty(), "failpoint {point}: a block is left undecided at {site}");
            assert_eq!(store.committed_totals().1, key.bits);
        }
    }
}

/// An interrupted run ends well, and leaves no service behind.
fn assert_ends(place: &Place, child: Child, signal: &str) {
    interrupt(&child, signal);
    let mut child = child;
    let patience = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("wait for qkdnet").is_none() {
        assert!(Instant::now() < patience, "the run did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait_with_output().expect("wait for qkdnet").status.success());
    assert!(!any_runs(place), "services are left");
}

/// Whether a process of the run is there.
fn any_runs(place: &Place) -> bool {
    let found = Command::new("pgrep").args(["-f", "--"]).arg(place.path("data")).output().expect("run pgrep");
    !found.stdout.is_empty()
}

#[test]
fn an_interrupt_while_the_services_still_look_for_each_other_ends_the_run() {
    let place = place();
    let child = start(&place, "3600s", "");
    let address = place.path("data").join(".qkdnet/run/source-valrose-sophia.addr");
    let patience = Instant::now() + Duration::from_secs(60);
    while !address.exists() {
        assert!(Instant::now() < patience, "the source did not start");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_ends(&place, child, "INT");
}

#[test]
fn a_supervisor_that_ends_a_run_leaves_no_service_behind() {
    let place = place();
    let child = start(&place, "3600s", "");
    await_blocks(&place, 1);
    assert_ends(&place, child, "TERM");
    assert_equal_keys(&digest(&place.path("data")));
}

#[test]
fn a_run_that_is_killed_leaves_no_service_behind() {
    let place = place();
    let mut child = start(&place, "3600s", "");
    await_blocks(&place, 1);
    child.kill().expect("kill the run");
    child.wait().expect("wait for qkdnet");
    let patience = Instant::now() + Duration::from_secs(60);
    while any_runs(&place) {
        assert!(Instant::now() < patience, "services are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}
