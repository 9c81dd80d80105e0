//! Faults of a link of pulses: its one arm, its transmitter and what that keeps.

use super::*;
use crate::prepared::bright_dot;

const LINK: &str = "niels-bohr-dtu";
const TRANSMITTER: &str = "transmitter-niels-bohr-dtu-niels-bohr";

fn allowed() -> String {
    bright_dot().replace("latency: 8}", "latency: 8}\n  faults: {allowed: true}")
}

#[test]
fn a_link_of_pulses_comes_back_from_what_befalls_its_fibre_its_transmitter_and_its_disk() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&allowed());
        let network = Network::start(&place, &["--isolation", isolation, "--speed", "2"]);
        network.blocks(1);

        let cut = network.fault(&["cut", LINK, "--for", "3s"]);
        assert_eq!(cut["services"], serde_json::json!(["source-niels-bohr-dtu"]));
        network.happens(0, "fault", "the fibre of niels-bohr-dtu to dtu is cut");
        let (mut at, _) = network.happens(0, "fault-over", cut["id"].as_str().expect("an ID"));
        network.blocks(2);

        // Whatever ends a session: a transmitter meets its peer again, with another key of its choices.
        for words in [&["stop", TRANSMITTER, "--for", "1s"][..], &["fill-disk", "blocks", "niels-bohr", "--for", "2s"]]
        {
            let fault = network.fault(words);
            assert_eq!(fault["services"], serde_json::json!([TRANSMITTER]));
            (at, _) = network.happens(at, "session-lost", "");
            (at, _) = network.happens(at, "fault-over", fault["id"].as_str().expect("an ID"));
            network.blocks(2);
        }

        for words in [&["cut", LINK, "--arm", "niels-bohr"][..], &["stop-clock", LINK, "niels-bohr"]] {
            let said = network.refused(words);
            assert!(said.contains("has the transmitter of") && said.contains("name `dtu`"), "{said}");
        }
        network.stop();
    }
}

#[test]
fn a_scheduled_cut_of_a_link_of_pulses_is_input_of_the_run() {
    let run = |fault: bool| {
        let place = Place::new(&allowed());
        let mut network = Network::start(&place, &["--speed", "2", "--seed", "9", "--for", "12s"]);
        if fault {
            network.fault(&["cut", LINK, "--at", "8s", "--for", "2s"]);
        }
        assert!(network.child.take().expect("a network").wait().expect("wait for qkdnet").success());
        assert_equal_keys(&place.digest("data"))
    };
    let first = run(true);
    assert_eq!(first, run(true));
    assert_ne!(first.sha256, run(false).sha256, "the fault was there");
}
