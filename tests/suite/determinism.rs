//! Equal topology, seed and binary give byte-identical keys, however the services run.

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
