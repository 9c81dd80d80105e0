//! Prepared links: from a document to equal key at both ends, however the services run.

use crate::support::{Digest, Place, assert_crashed, assert_equal_keys, failpoints, shipped_but};

/// Single photons with little loss and short rounds.
pub fn bright_dot() -> String {
    let changes = [
        ("repetitionRate: 72.6 MHz\n", "repetitionRate: 10 MHz\n"),
        ("brightness: 0.00194", "brightness: 0.1"),
        ("attenuation: 0.5333333 dB/km", "attenuation: 0.05 dB/km"),
        ("round: 10 min", "round: 1 s"),
    ];
    shipped_but("quantum-dot-18.yaml", &changes)
}

/// Decoys over little fibre, with few pulses and short rounds.
pub fn bright_decoys() -> String {
    let changes = [
        ("repetitionRate: 1 GHz\n", "repetitionRate: 50 MHz\n"),
        ("length: 50 km", "length: 5 km"),
        // Decoys of the check basis are few.
        ("zProbability: 93.75 %", "zProbability: 50 %"),
        ("round: 10 s", "round: 1 s"),
    ];
    shipped_but("t12-50km.yaml", &changes)
}

fn key(topology: &str, args: &[&str]) -> Digest {
    let place = Place::new(topology);
    place.up("data", &[&["--for", "4s"], args].concat());
    assert_equal_keys(&place.digest("data"))
}

#[test]
fn prepared_links_make_equal_keys_at_equal_seeds_as_tasks_and_as_processes() {
    for topology in [bright_dot(), bright_decoys()] {
        let tasks = key(&topology, &["--seed", "7"]);
        assert_eq!(tasks, key(&topology, &["--seed", "7", "--isolation", "process"]), "as processes");
        assert_ne!(tasks.sha256, key(&topology, &["--seed", "8"]).sha256);
    }
}

#[test]
fn a_crash_of_either_end_at_each_step_that_makes_a_block_durable_loses_and_doubles_nothing() {
    let allowed = bright_dot().replace("latency: 8}", "latency: 8}\n  faults: {allowed: true}");
    let modules = ["transmitter-niels-bohr-dtu-niels-bohr", "detector-niels-bohr-dtu-dtu"];
    for point in failpoints("transmitter") {
        let place = Place::new(&allowed);
        let mut command = crate::support::qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
        command.args(["--isolation", "process", "--output", "json", "--for", "30s", "--seed", "9"]);
        // Every process counts its own hits: each module crashes once.
        crate::support::success({
            command.env("QKDNET_FAILPOINTS", format!("{point}=2"));
            command
        });
        let key = assert_equal_keys(&place.digest("data"));
        assert_crashed(&place.path("data"), &modules, point);
        for site in ["niels-bohr", "dtu"] {
            let path = module::store::path(&place.path("data"), site, "niels-bohr-dtu");
            let store = module::store::BlockStore::open_read_only(path).expect("open the blocks");
            assert!(store.in_doubt().is_empty(), "failpoint {point}: a block is left undecided at {site}");
            let (blocks, bits) = store.committed_totals();
            assert_eq!(bits, key.bits, "failpoint {point}");
            assert!(blocks > 2, "failpoint {point}: the link has not recovered");
        }
    }
}
