//! Where time tags end.

use crate::support::{Place, assert_equal_keys, bright, qkdnet};

/// Epochs of 20 ms that the planner lets a run use: 2^54 units of 4 ps less a minute.
const TAG_EPOCHS: u64 = ((1 << 56) - 60_000_000_000_000) / 20_000_000_000;

#[test]
fn a_run_that_comes_to_the_end_of_its_tags_keeps_its_key_and_ends_with_an_error_that_says_so() {
    let place = Place::new(&bright(&[("pairRate: 1e7 /s", "pairRate: 2e6 /s")]));
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
