//! Links of a network at one simulated time: side by side at whatever speed each could go, through the end of a link and
//! of what keeps the time.

use super::*;
use crate::support::bright_network;

/// One of the two links has a twentieth of the other one's light, and could go many times as fast.
fn uneven(run: &str) -> String {
    let text = bright_network().replacen(
        "use: spdc, pairRate: 1e6 /s, provenance",
        "use: spdc, pairRate: 5e4 /s, provenance",
        1,
    );
    assert!(text.contains("pairRate: 5e4 /s"), "the second link has another rate");
    let allowed = format!("run: {{speed: max, epoch: 20 ms, latency: 8, {run}}}\n  faults: {{allowed: true}}");
    text.replacen("run: {speed: max, epoch: 20 ms, latency: 8}", &allowed, 1)
}

/// How far the two links were apart at each look at which both had light.
fn gaps_s(place: &Place) -> Vec<f64> {
    let text = std::fs::read_to_string(place.path("events")).expect("read what was shown");
    let looks = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let gap = |look: Value| {
        let links = look["networkTime"]["links"].as_array()?.clone();
        let times: Vec<f64> =
            links.iter().filter(|link| link["state"] != "joining").filter_map(|link| link["s"].as_f64()).collect();
        // Seconds of many digits differ in the last one.
        (times.len() == 2).then(|| ((times[0] - times[1]).abs() * 1e9).round() * 1e-9)
    };
    looks.filter_map(gap).collect()
}

/// Simulated times of the blocks of a link.
fn blocks(network: &Network<'_>, link: &str) -> Vec<f64> {
    let events = network.events();
    let of_link = events.iter().filter(|event| event["name"] == "block-stored" && event["link"] == link);
    of_link.filter_map(|event| event["simulated_s"].as_f64()).collect()
}

fn more_blocks(network: &Network<'_>, link: &str, more: usize) {
    let before = blocks(network, link).len();
    eventually("blocks of a link", || (blocks(network, link).len() >= before + more).then_some(()));
}

#[test]
fn links_of_different_speeds_stay_within_the_skew_and_their_keys_do_not_depend_on_it() {
    let run = |skew: &str| {
        let place = Place::new(&uneven(&format!("skew: {skew}")));
        let mut network = Network::start(&place, &["--seed", "5", "--for", "60s"]);
        assert!(network.child.take().expect("a network").wait().expect("wait for qkdnet").success());
        let gaps = gaps_s(&place);
        assert!(gaps.len() >= 3, "{gaps:?}");
        (place.digest("data"), gaps.into_iter().fold(0.0, f64::max))
    };
    let (together, gap_s) = run("500 ms");
    assert!(gap_s <= 0.5, "{gap_s} s apart");
    // Where they may, the links drift apart. Each is heard of every three seconds.
    let (apart, gap_s) = run("12 s");
    assert!(gap_s > 6.0, "{gap_s} s apart");
    assert_eq!(together, apart);
}

#[test]
fn while_the_pacer_is_away_the_light_waits_within_the_skew_and_then_goes_on() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&uneven("skew: 500 ms"));
        let network = Network::start(&place, &["--isolation", isolation]);
        network.blocks(4);
        let fault = network.fault(&["stop", "pacer"]);
        let time = |network: &Network<'_>| network.status().map(|status| status["networkTime"].clone());
        let away = eventually("a network without a pacer", || time(&network).filter(|time| time["pacer"] == "away"));
        let stands_s = away["s"].as_f64().expect("a time");
        // What was allowed is emitted, and distilled, for as long as that takes.
        let shown = eventually("light that stands", || {
            let before = network.events().len();
            std::thread::sleep(Duration::from_secs(3));
            (network.events().len() == before).then_some(before)
        });
        let last_s =
            network.events()[..shown].iter().filter_map(|event| event["simulated_s"].as_f64()).fold(0.0, f64::max);
        // The time that was seen last is a look and a report old.
        assert!(last_s < stands_s + 10.0, "{last_s} s, where the time stands at {stands_s} s");
        assert_eq!(time(&network).expect("a network")["s"], away["s"]);
        network.fault(&["clear", fault["id"].as_str().expect("an ID")]);
        for link in ["valrose-sophia", "valrose-calern"] {
            more_blocks(&network, link, 2);
        }
        let sessions_lost = network.events().iter().filter(|event| event["name"] == "session-lost").count();
        assert_eq!(sessions_lost, 0, "{isolation}: nothing but the light had to wait");
        network.stop();
        // A source that is late to find the pacer again may find the other one twice as far ahead.
        let gaps_s = gaps_s(&place);
        assert!(gaps_s.iter().all(|gap_s| *gap_s <= 1.0), "{gaps_s:?}");
    }
}

#[test]
fn a_link_that_is_down_holds_no_other_and_comes_back_where_the_network_is() {
    let place = Place::new(&uneven("skew: 500 ms"));
    let network = Network::start(&place, &[]);
    more_blocks(&network, "valrose-sophia", 2);
    let fault = network.fault(&["stop", "detector-valrose-sophia-sophia"]);
    // Past what the link had leased, behind which it would begin.
    more_blocks(&network, "valrose-calern", 20);
    network.fault(&["clear", fault["id"].as_str().expect("an ID")]);
    let (_, event) = network.happens(0, "passed-over", "the network went on for");
    assert_eq!(event["link"], "valrose-sophia");
    let (down, up) = (blocks(&network, "valrose-sophia"), blocks(&network, "valrose-calern"));
    more_blocks(&network, "valrose-sophia", 2);
    let back = blocks(&network, "valrose-sophia")[down.len()];
    assert!(back > up[up.len() - 1] - 2.0, "back at {back} s, the other one was at {up:?}");
    network.stop();
    let gaps_s = gaps_s(&place);
    assert!(gaps_s.iter().all(|gap_s| *gap_s <= 0.5), "{gaps_s:?}");
}

#[test]
fn links_that_an_earlier_run_left_apart_begin_together_and_end_together() {
    let place = Place::new(&uneven("skew: 500 ms"));
    let network = Network::start(&place, &[]);
    more_blocks(&network, "valrose-sophia", 2);
    network.fault(&["stop", "detector-valrose-sophia-sophia"]);
    more_blocks(&network, "valrose-calern", 20);
    // One end of the link is gone: what is undecided at the other one is so until they meet again.
    drop(network);
    let mut network = Network::start(&place, &["--for", "5s"]);
    assert!(network.child.take().expect("a network").wait().expect("wait for qkdnet").success());
    let events = network.events();
    let of = |name: &str| -> Vec<(String, f64)> {
        let named = events.iter().filter(|event| event["name"] == name);
        named
            .map(|event| {
                (
                    event["link"].as_str().unwrap_or_default().to_owned(),
                    event["simulated_s"].as_f64().unwrap_or_default(),
                )
            })
            .collect()
    };
    let passed_over = of("passed-over");
    assert!(!passed_over.is_empty() && passed_over.iter().all(|(link, _)| link == "valrose-sophia"), "{passed_over:?}");
    let ends = of("ended");
    assert_eq!(ends.len(), 4, "two links of two ends");
    let times = ends.iter().map(|(_, end_s)| *end_s);
    let (first_s, last_s) = (times.clone().fold(f64::MAX, f64::min), times.fold(0.0, f64::max));
    assert!(last_s - first_s <= 0.5 + 0.02, "{ends:?}");
    let digests = place.digest("data");
    digests.chunks(2).for_each(|ends| {
        assert_equal_keys(ends);
    });
}
