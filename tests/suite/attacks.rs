//! Somebody between the two channel endpoints of a running link.

use std::process::Stdio;
use std::time::{Duration, Instant};

use proto::channel::v1::fault_client::FaultClient;
use proto::channel::v1::{FaultKind, InjectRequest};
use shell::{Connector, Credentials, Endpoint};

use crate::support::{Place, assert_equal_keys, bright, digest, lines, qkdnet, summary};

const CHANNEL: &str = "channel-valrose-sophia-valrose";

/// Orders a fault at the endpoint of Valrose, once it is there.
pub fn order(place: &Place, kind: FaultKind) {
    let folder = place.path("data").join(".qkdnet");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let credentials = Credentials::from_folder(&folder.join("pki"), "control").expect("the control certificate");
        let endpoint = Endpoint::in_run_dir(&folder.join("run"), CHANNEL);
        let channel = Connector::new(&endpoint, CHANNEL, &credentials).connect().await.expect("reach the channel");
        let request = InjectRequest { kind: kind.into(), frames: 1, delay_ms: 20 };
        FaultClient::new(channel).inject(request).await.expect("faults are allowed");
    });
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
        let path = detector::store::path(&place.path("data"), "valrose", "valrose-sophia");
        detector::store::BlockStore::open_read_only(path).map_or(0, |store| store.committed_totals().1)
    };
    for kind in
        [FaultKind::Tamper, FaultKind::Inject, FaultKind::Replay, FaultKind::Reorder, FaultKind::Drop, FaultKind::Delay]
    {
        let before = committed();
        let patience = Instant::now() + Duration::from_secs(120);
        while committed() == before {
            assert!(Instant::now() < patience, "no key before {kind:?}");
            std::thread::yield_now();
        }
        order(&place, kind);
    }
    let output = child.wait_with_output().expect("wait for qkdnet");
    assert!(output.status.success());
    let printed = lines(&output);
    let link = &summary(&printed)["links"][0];
    assert!(link["blocks_voided"].as_u64() >= Some(1), "tampering voids a round: {link}");
    assert_equal_keys(&digest(&place.path("data")));
}
