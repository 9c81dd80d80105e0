//! Where time tags end, and what an application may have.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::keys::{Network, eventually, keys};
use crate::support::{Place, assert_equal_keys, bright, bright_with, qkdnet};

/// Epochs of 20 ms that the planner lets a run use: 2^54 units of 4 ps less a minute.
const TAG_EPOCHS: u64 = ((1 << 56) - 60_000_000_000_000) / 20_000_000_000;

#[test]
fn a_run_that_comes_to_the_end_of_its_tags_keeps_its_key_and_ends_with_an_error_that_says_so() {
    let place = Place::new(&bright(&[("pairRate: 1e6 /s", "pairRate: 2e5 /s")]));
    // As a run of nearly twenty hours leaves its sites.
    for site in ["valrose", "sophia"] {
        let folder = place.path("data").join(site).join("valrose-sophia");
        std::fs::create_dir_all(&folder).expect("make a folder");
        std::fs::write(folder.join("epoch.next"), format!("{}\n", TAG_EPOCHS - 250)).expect("write the epoch");
    }
    let up = |args: &[&str]| {
        let mut command = qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--output", "json"]);
        command.args(args).output().expect("run qkdnet")
    };
    let short = up(&["--for", "2s"]);
    assert!(short.status.success(), "what fits is no error: {short:?}");
    let before = assert_equal_keys(&place.digest("data"));
    for again in [false, true] {
        let output = up(&["--for", "100s"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("time tags end") && said.contains("20.00 hours"), "again {again}: {said}");
    }
    assert!(assert_equal_keys(&place.digest("data")).bits > before.bits, "the light up to the end is used");
}

/// Paced, so that the machine is left to those who ask for keys.
fn start(place: &Place) -> Network<'_> {
    Network::start_with(place, "tasks", |command| {
        command.args(["--speed", "1"]);
    })
}

fn get(network: &Network<'_>, master: &str, slave: &str, number: &str) -> Output {
    network.key(&["get", "--sae", master, "--to", slave, "--number", number]).output().expect("run qkdnet")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_status_says_no_more_keys_than_the_most_it_may() {
    let place = Place::new(&bright_with("keyCountMax: 3, keySize: 64 bit", ""));
    let network = start(&place);
    network.get("university", "inria", "4");
    let full = eventually("more keys than are said", || {
        (network.stored("university", "inria") == 3).then(|| get(&network, "university", "inria", "4"))
    });
    let full = full.expect("a status");
    assert!(full.status.success(), "{}", said(&full));
    network.stop();
}

#[test]
fn a_repeated_fetch_within_the_window_gets_the_same_key_and_nobody_else_does() {
    let place = Place::new(&bright_with("redeliveryWindow: 600 s", ", hospital"));
    let network = start(&place);
    let got = network.get("inria", "university", "2");
    let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
    for attempt in 0..3 {
        let fetched = network.fetch("university", "inria", &ids);
        assert!(fetched.status.success(), "attempt {attempt}: {}", said(&fetched));
        assert!(keys(&fetched.stdout) == got, "attempt {attempt}: another key");
    }
    let other = network.fetch("hospital", "inria", &ids);
    assert!(!other.status.success(), "an application got the key of another one");
    network.stop();
}

/// The network makes key no faster than it does: asking again is what an application does then.
fn short_of_key(output: &Output) -> bool {
    said(output).contains("not enough key")
}

#[test]
fn an_application_gets_so_many_keys_a_second_and_no_more() {
    let place = Place::new(&bright_with("keysPerSecond: 4", ", hospital"));
    let network = start(&place);
    network.get("hospital", "inria", "1");
    let begun = Instant::now();
    let (mut granted, mut refused) = (0, 0);
    while granted < 24 {
        let output = get(&network, "university", "inria", "4");
        if output.status.success() {
            granted += keys(&output.stdout).len();
        } else if said(&output).contains("too many requests") {
            refused += 1;
            // The limit of one is no limit of another.
            let other = get(&network, "hospital", "inria", "1");
            let limited = said(&other).contains("too many requests") || short_of_key(&other);
            assert!(other.status.success() || limited, "{}", said(&other));
        } else {
            assert!(short_of_key(&output), "{}", said(&output));
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{granted} keys");
    }
    // A bucket that was full at the start, and then four a second.
    assert!(begun.elapsed() >= Duration::from_secs_f64(4.9), "{granted} keys in {:?}", begun.elapsed());
    assert!(refused > 0);
    network.stop();
}

#[test]
fn keys_that_nobody_fetches_are_so_many_for_each_master_and_no_more() {
    let place = Place::new(&bright_with("keysWaiting: 3", ", hospital"));
    let network = start(&place);
    eventually("a network that runs", || network.status()).expect("a network");
    // Keys between two applications of one site wait under their IDs.
    let first = get(&network, "university", "hospital", "3");
    assert!(first.status.success(), "{}", said(&first));
    let more = get(&network, "university", "hospital", "1");
    assert!(said(&more).contains("wait to be fetched"), "{}", said(&more));
    let other = get(&network, "hospital", "university", "3");
    assert!(other.status.success(), "another master has its own: {}", said(&other));
    let waiting = keys(&first.stdout);
    assert!(network.fetch("hospital", "university", &[&waiting[0].0]).status.success());
    let again = get(&network, "university", "hospital", "1");
    assert!(again.status.success(), "{}", said(&again));
    assert!(!get(&network, "university", "hospital", "1").status.success());
    network.stop();
}

#[test]
fn a_modest_application_is_served_beside_a_greedy_one() {
    let place = Place::new(&bright_with("keysPerRequest: 1024", ", hospital"));
    let network = start(&place);
    network.get("hospital", "inria", "1");
    // The greedy one takes whatever it gets, until it is told that there is no more. On a slow machine more comes meanwhile
    // than it takes, and it gives up.
    let drain = || {
        let mut drawn = 0;
        for number in ["256", "16", "1"] {
            for _ in 0..5 {
                let output = get(&network, "university", "inria", number);
                if !output.status.success() {
                    assert!(said(&output).contains("not enough key"), "{}", said(&output));
                    break;
                }
                drawn += keys(&output.stdout).len();
            }
        }
        drawn
    };
    let mut greedy = 0;
    for round in 0..6 {
        greedy += drain();
        let modest = get(&network, "hospital", "inria", "1");
        assert!(modest.status.success(), "round {round}, {greedy} keys drained: {}", said(&modest));
    }
    assert!(greedy > 100, "the greedy one got {greedy} keys");
    network.stop();
}
