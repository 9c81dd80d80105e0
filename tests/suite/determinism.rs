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
fn another_seed_or_none_gives_another_key() {
    let first = key(&["--seed", "7"]);
    assert_ne!(first.sha256, key(&["--seed", "8"]).sha256);
    assert_ne!(key(&[]).sha256, key(&[]).sha256);
}
