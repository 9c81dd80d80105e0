//! Volumes that are put back from copies: no key comes twice and no pad serves twice, or it is said before.

mod chance;
mod lab;
mod told;

use std::collections::BTreeSet;
use std::time::Instant;

use self::lab::{Ended, Lab, PATIENCE, stores};
use self::told::Pair;
use crate::support::{bright, bright_network_with_small_transfers};

const LINK: &str = "valrose-sophia";
/// Applications at the sites of the link: who gets keys, and who fetches them.
const PAIR: Pair = ("university", "inria");

impl Lab {
    /// A network that makes key until its stores have counted so much that no chunk hides it when they are put back.
    fn wear(&mut self, isolation: &str) -> Ended {
        let run = self.start(isolation);
        run.wait("key", || run.status().is_some_and(|status| status["ready"] == true));
        let before = run.counts("send/");
        run.wait("tags", || run.counts("send/") >= before + 2 * 24);
        for _ in 0..8 {
            self.use_keys(&run, PAIR, 100, 3);
        }
        self.stop(run)
    }
}

/// After a restore the network makes key as if nothing had been.
fn flows_again(lab: &mut Lab, isolation: &str) {
    let run = lab.start(isolation);
    run.wait("key after a restore", || run.status().is_some_and(|status| status["ready"] == true));
    let until = Instant::now() + PATIENCE;
    let (mut got, mut fetched) = (0, 0);
    while got < 10 || fetched < 5 {
        let more = lab.use_keys(&run, PAIR, 5, 5);
        (got, fetched) = (got + more.0, fetched + more.1);
        assert!(Instant::now() < until, "no keys after a restore");
    }
    let ended = lab.stop(run);
    assert_eq!((ended.code, ended.rolled_back().len()), (Some(0), 0), "{}", ended.summary);
}

/// A network is put back in parts, says of which sites, gives nothing that it gave before, and flows again when restored.
fn put_back_and_restored(isolation: &str, parts: &[&str], expected: &[(&str, &str)]) {
    let mut lab = Lab::new(&bright(&[]));
    assert_eq!(lab.wear(isolation).code, Some(0));
    let copy = lab.back_up("copy");
    assert_eq!(lab.wear(isolation).code, Some(0));
    parts.iter().for_each(|part| lab.put_back(&copy, part));

    let run = lab.start(isolation);
    let wanted: BTreeSet<(String, String)> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    run.wait("what was put back", || {
        run.status().is_some_and(|status| stores(&status["rolled_back"]).is_superset(&wanted))
    });
    lab.use_keys(&run, PAIR, 5, 5);
    let ended = lab.stop(run);
    assert_eq!(ended.code, Some(1), "{}", ended.summary);
    assert_eq!(ended.rolled_back(), wanted, "{}", ended.summary);
    let said = ended.events.iter().filter(|event| event["name"] == "rolled-back" && event["link"] == "");
    assert_eq!(said.count(), wanted.len(), "{:?}", ended.events);

    let dry = String::from_utf8(lab.restore(&["--dry-run"]).stdout).expect("text");
    assert!(dry.contains("key store of valrose: ") && dry.contains("nothing was changed"), "{dry}");
    lab.restore(&[]);
    // It may be repeated.
    lab.restore(&[]);
    flows_again(&mut lab, isolation);
}

#[test]
fn both_sites_that_are_put_back_say_so_and_give_nothing_twice() {
    put_back_and_restored(
        "tasks",
        &["valrose/kms", "sophia/kms"],
        &[("valrose", "key store"), ("sophia", "key store")],
    );
}

#[test]
fn a_key_store_that_is_put_back_alone_is_named() {
    put_back_and_restored("process", &["sophia/kms"], &[("sophia", "key store")]);
}

#[test]
fn a_reserve_that_is_put_back_alone_is_named() {
    let reserve = format!("authentication reserve of {LINK}");
    let part = format!("valrose/{LINK}/authentication.reserve");
    put_back_and_restored("tasks", &[&part], &[("valrose", &reserve)]);
}

#[test]
fn a_relay_that_is_put_back_alone_says_so_and_goes_on() {
    let mut lab = Lab::new(&bright_network_with_small_transfers());
    // More relayed key than is ever kept.
    let worn = |lab: &mut Lab| {
        let run = lab.start("tasks");
        run.wait("a network", || run.status().is_some_and(|status| status["ready"] == true));
        let (until, mut got, mut fetched) = (Instant::now() + PATIENCE, 0, 0);
        while got <= 16384 / 256 || fetched == 0 {
            let more = lab.use_keys(&run, ("inria", "observatory"), 10, 5);
            (got, fetched) = (got + more.0, fetched + more.1);
            assert!(Instant::now() < until, "no relayed key comes: {got}");
        }
        lab.stop(run)
    };
    assert_eq!(worn(&mut lab).code, Some(0));
    let copy = lab.back_up("copy");
    assert_eq!(worn(&mut lab).code, Some(0));
    lab.put_back(&copy, "valrose/relay");
    // A relay holds no key: what was under way is given up, and its links and relayed key go on.
    let ended = worn(&mut lab);
    let relay = BTreeSet::from([("valrose".to_owned(), "relay".to_owned())]);
    assert_eq!((ended.code, ended.rolled_back()), (Some(1), relay), "{}", ended.summary);
    let reasons = ended.summary["verdict"]["reasons"].to_string();
    assert!(reasons.contains("nothing has to be done"), "{reasons}");
    // It was told, and nothing is to be done.
    let ended = worn(&mut lab);
    assert_eq!((ended.code, ended.rolled_back().len()), (Some(0), 0), "{}", ended.summary);
}

#[test]
fn a_restore_waits_until_nobody_uses_the_data() {
    let lab = Lab::new(&bright(&[]));
    let run = lab.start("tasks");
    run.wait("a network", || run.status().is_some());
    let refused = lab.restore_refused();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another run uses"), "{refused:?}");
    run.interrupt();
}
