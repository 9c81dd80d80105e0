//! Somebody between the two channel endpoints of a running link.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Place, assert_equal_keys, bright, digest, lines, qkdnet, success, summary};

const ATTACKS: [&str; 6] = ["tamper", "inject", "replay", "reorder", "drop", "delay"];

/// Orders an attack on one frame of Valrose, once the network says where it is.
pub fn order(place: &Place, attack: &str) {
    let mut command = qkdnet();
    command.args(["fault", "attack", "valrose-sophia", "valrose", attack, "--data"]).arg(place.path("data"));
    success(command);
}

#[test]
fn every_attack_on_the_channel_is_survived_and_no_wrong_key_is_stored() {
    let allowed = (
        "run: {speed: max, epoch: 20 ms, latency: 8}",
        "run: {speed: 2, epoch: 20 ms, latency: 8}\n  faults: {allowed: true}",
    );
    let place = Place::new(&bright(&[allowed]));
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--isolation", "process", "--output", "json", "--for", "40s"]);
    let child = command.stdout(Stdio::piped()).spawn().expect("start qkdnet");
    let committed = || {
        let path = module::store::path(&place.path("data"), "valrose", "valrose-sophia");
        module::store::BlockStore::open_read_only(path).map_or(0, |store| store.committed_totals().1)
    };
    for attack in ATTACKS {
        let before = committed();
        let patience = Instant::now() + Duration::from_secs(120);
        while committed() == before {
            assert!(Instant::now() < patience, "no key before {attack}");
            std::thread::yield_now();
        }
        order(&place, attack);
    }
    let output = child.wait_with_output().expect("wait for qkdnet");
    assert!(output.status.success());
    let printed = lines(&output);
    let link = &summary(&printed)["links"][0];
    assert!(link["blocks_voided"].as_u64() >= Some(1), "tampering voids a round: {link}");
    assert_equal_keys(&digest(&place.path("data")));
}
