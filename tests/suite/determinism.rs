//! Equal topology, seed and binary give byte-identical keys, however the services run.

use crate::prepared::bright_dot;
use crate::support::{Digest, Place, assert_equal_keys, bright};

fn key(args: &[&str]) -> Digest {
    let place = Place::new(&bright(&[]));
    place.up("data", &[&["--for", "3s"], args].concat());
    assert_equal_keys(&place.digest("data"))
}

#[test]
fn equal_seeds_give_equal_keys_as_tasks_as_processes_and_at_any_speed() {
    let tasks = key(&["--seed", "7"]);
    assert_eq!(tasks, key(&["--seed", "7"]), "run twice");
    assert_eq!(tasks, key(&["--seed", "7", "--isolation", "process"]), "as processes");
    assert_eq!(tasks, key(&["--seed", "7", "--speed", "2"]), "paced");
}

#[test]
fn the_nonces_of_sessions_come_from_the_system_and_enter_no_key() {
    let run = || {
        let place = Place::new(&bright(&[]));
        place.up("data", &["--for", "3s", "--seed", "7"]);
        let path = module::store::path(&place.path("data"), "valrose", "valrose-sophia");
        let store = module::store::BlockStore::open_read_only(path).expect("open the blocks");
        let sessions: Vec<u64> = store.all().map(|block| block.expect("a block").session).collect();
        (sessions, assert_equal_keys(&place.digest("data")))
    };
    let (first, again) = (run(), run());
    assert!(!first.0.is_empty() && first.0 != again.0, "a session's number is made of both nonces");
    assert_eq!(first.1, again.1);
}

#[test]
fn another_seed_or_none_gives_another_key() {
    let first = key(&["--seed", "7"]);
    assert_ne!(first.sha256, key(&["--seed", "8"]).sha256);
    assert_ne!(key(&[]).sha256, key(&[]).sha256);
}

/// Two links of pulses whose receivers count them by the photons. The first one's light comes late, behind the preamble
/// of its session: that session cannot number it, and ends.
fn one_begins_dark() -> String {
    let distributed =
        "sync: {type: distributed, jitter: 10 ps, provenance: {jitter: \"assumed: small beside the detectors'\"}}";
    let text = bright_dot();
    assert!(text.contains(distributed), "the topology has another clock");
    let text = text.replace(distributed, "sync: {type: photons, preamble: 100 ms}");
    let (head, link) = text.split_once("    - name: niels-bohr-dtu\n").expect("a link");
    let outage = "      outages: [{at: 0 s, lasts: 2 s, cause: the shutter is closed}]\n";
    format!("{head}    - name: dark\n{link}{outage}    - name: lit\n{link}")
}

/// Keeps processors busy for as long as it lives.
struct Busy(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Busy {
    fn start(threads: usize) -> Self {
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        for _ in 0..threads {
            let over = over.clone();
            std::thread::spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_link_whose_session_ends_by_itself_goes_on_with_the_keys_of_the_seed_however_fast_the_others_are() {
    let run = |args: &[&str], busy: usize| {
        let _busy = Busy::start(busy);
        let place = Place::new(&one_begins_dark());
        let events = place.up("data", &[&["--for", "6s", "--seed", "7"], args].concat());
        let sessions = |link: &str| {
            let began = events.iter().filter(|event| event["name"] == "session" && event["link"] == link);
            began.filter(|event| event["site"] == "dtu").count()
        };
        assert_eq!((sessions("dark"), sessions("lit")), (2, 1), "{events:?}");
        let digests = place.digest("data");
        for ends in digests.chunks(2) {
            assert_equal_keys(ends);
        }
        digests
    };
    let alone = run(&[], 0);
    assert_eq!(alone, run(&[], 6), "beside other work");
    assert_eq!(alone, run(&["--isolation", "process"], 2), "as processes");
}
