//! Link states, paths and turns.

use super::*;

#[test]
fn one_neighbour_may_send_so_many_link_states_and_no_more() {
    let mut bench = Bench::new("a", Settings { link_states_burst: 5, link_states_per_s: 2, ..Settings::default() });
    bench.neighbour("b", 1 << 20, 8000);
    let mut heard = |wait_ms| {
        bench.now_ms += wait_ms;
        (0..10).filter(|_| rejections(&bench.hear("b", "c", &["b"])).is_empty()).count()
    };
    assert_eq!((heard(0), heard(1000), heard(60_000)), (5, 2, 5));
}

#[test]
fn a_site_outlives_what_it_said_before_it_lost_its_disk() {
    let mut bench = Bench::new("a", Settings::default());
    bench.neighbour("b", 1 << 20, 8000);
    let old = LinkState { site: site("a"), incarnation: 41, seq: 7, links: Vec::new() };
    bench.peer("b", Message::LinkState(old));
    bench.now_ms += bench.settings.link_state_min_ms;
    let actions = bench.give(Input::Tick);
    assert_eq!(bench.disk[&RecordKey::Incarnation], Record::Incarnation(42));
    assert!(actions.iter().any(|action| matches!(
        action,
        Action::Send { message: Message::LinkState(LinkState { incarnation: 42, .. }), .. }
    )));
}

#[test]
fn a_site_that_falls_silent_is_forgotten() {
    let (mut bench, _) = Bench::origin();
    assert_eq!(bench.relay.paths(bench.now_ms, &site("c"), 1, 4096).len(), 1);
    bench.now_ms += 3 * bench.settings.refresh_ms;
    bench.give(Input::Tick);
    assert!(bench.relay.paths(bench.now_ms, &site("c"), 1, 4096).is_empty());
}

#[test]
fn a_link_that_one_end_alone_claims_is_not_used() {
    let mut bench = Bench::new("a", Settings::default());
    bench.neighbour("b", 1 << 20, 8000);
    bench.hear("b", "b", &["a", "c"]);
    bench.hear("b", "c", &[]);
    assert!(bench.relay.paths(bench.now_ms, &site("c"), 1, 4096).is_empty());
}

#[test]
fn of_a_pair_the_smaller_name_originates_and_no_key_is_carried_to_a_neighbour_over_its_own_link() {
    let mut bench = Bench::new("b", Settings::default());
    assert_eq!(rejections(&bench.want("a")), [&Rejection::NotOurs { target: site("a") }]);
    assert_eq!(rejections(&bench.want("b")), [&Rejection::NotOurs { target: site("b") }]);
    bench.neighbour("c", 1 << 20, 8000);
    bench.hear("c", "c", &["b"]);
    assert_eq!(kms(&bench.want("c")).count(), 0);
}

/// Where the first key for the neighbour `c` of `a` goes, over whose pools with `b` and `c` there is so much.
fn way_around(to_b: u64, between: u64) -> Option<Vec<String>> {
    let mut bench = Bench::new("a", Settings { scarce_bytes: 0, ..Settings::default() });
    bench.neighbour("b", to_b, 1_000_000);
    bench.neighbour("c", 1 << 20, 1_000_000);
    bench.hear("c", "c", &["a", "b"]);
    let link =
        |name: &str, stored_bytes| LinkReport { neighbour: site(name), stored_bytes, rate_bps: 1_000_000, up: true };
    let links = vec![link("a", 1 << 20), link("c", between)];
    bench.peer("b", Message::LinkState(LinkState { site: site("b"), incarnation: 1, seq: 9, links }));
    let actions = bench.want("c");
    kms(&actions).find_map(|request| match request {
        KmsRequest::Originate { header, .. } => {
            Some(header.path.sites().iter().map(|site| site.as_str().to_owned()).collect())
        }
        _ => None,
    })
}

#[test]
fn key_for_a_neighbour_goes_around_its_link_over_links_that_have_more_than_is_wanted() {
    let around = Some(["a", "b", "c"].map(str::to_owned).to_vec());
    assert_eq!(way_around(1 << 20, 1 << 20), around);
    // Up to 16 KB are wanted; beside them the reserve and the transfer itself.
    let enough = 16_384 + Settings::default().reserve_bytes + 4096;
    assert_eq!(way_around(enough, enough), around);
    assert_eq!(way_around(enough - 1, enough), None);
    assert_eq!(way_around(enough, enough - 1), None);
}

#[test]
fn targets_take_turns() {
    let mut bench = Bench::new("a", Settings { outgoing_max: 6, ..Settings::default() });
    bench.neighbour("b", 1 << 20, 1_000_000);
    for target in ["x", "y", "z"] {
        bench.want(target);
        bench.hear("b", target, &["b"]);
    }
    let actions = bench.hear("b", "b", &["a", "x", "y", "z"]);
    bench.now_ms += 1000;
    let later = bench.give(Input::Tick);
    let mut begun = BTreeMap::new();
    for request in kms(&actions).chain(kms(&later)) {
        if let KmsRequest::Originate { header, .. } = request {
            *begun.entry(header.path.target().as_str().to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(begun, [("x", 2), ("y", 2), ("z", 2)].map(|(name, count)| (name.to_owned(), count)).into());
}

#[test]
fn a_relay_with_nothing_to_do_wakes_for_its_link_state_alone() {
    let mut bench = between(1 << 20, Settings::default());
    let mut ticks = 0;
    while bench.now_ms < 1_000_000 {
        bench.now_ms = bench.relay.next_deadline_ms(bench.now_ms);
        bench.give(Input::Tick);
        ticks += 1;
    }
    assert!((95..=110).contains(&ticks), "{ticks} ticks");
}

#[test]
fn a_hop_costs_more_the_less_it_has_and_the_slower_it_is() {
    assert_eq!(hop_cost(4095, 1000, 4096), None);
    assert_eq!(hop_cost(4096, u64::MAX, 4096), Some(5000));
    assert_eq!(hop_cost(8192, u64::MAX, 4096), Some(3000));
    assert_eq!(hop_cost(u64::MAX, 4096 * 8 / 60 + 1, 4096), Some(1998));
    assert_eq!(hop_cost(u64::MAX, 0, 4096), Some(5000));
}

/// `a` with two ways to `d`, over `b` and over `c`, of this many bytes each; gives where keys go as the levels change.
fn way_after(levels: &[(u64, u64)]) -> Vec<String> {
    let mut bench = Bench::new("a", Settings { window: 64, ..Settings::default() });
    bench.neighbour("b", levels[0].0, 1_000_000);
    bench.neighbour("c", levels[0].1, 1_000_000);
    for (of, links) in [("b", ["a", "d"]), ("c", ["a", "d"]), ("d", ["b", "c"])] {
        bench.hear("b", of, &links);
    }
    let mut ways = Vec::new();
    for (over_b, over_c) in levels {
        bench.now_ms += 1;
        bench.neighbour("b", *over_b, 1_000_000);
        bench.neighbour("c", *over_c, 1_000_000);
        let (level_bytes, shares) = (0, 1);
        let (low_water_bytes, high_water_bytes) = (4096, 4096);
        bench.relay.targets.values_mut().for_each(|target| target.hold_until_ms = 0);
        let target = site("d");
        let actions = bench.give(Input::Want { target, level_bytes, low_water_bytes, high_water_bytes, shares });
        let first = kms(&actions).find_map(|request| match request {
            KmsRequest::Originate { next, header } => Some((next.as_str().to_owned(), header.transfer)),
            _ => None,
        });
        let (next, transfer) = first.expect("a key is begun");
        ways.push(next);
        bench.answer(KmsAnswer::Refused { transfer, reason: RefusalReason::Busy });
        bench.relay.suspects.clear();
        bench.relay.targets.values_mut().for_each(|target| target.hold_until_ms = u64::MAX);
    }
    ways
}

#[test]
fn keys_go_the_richer_way() {
    assert_eq!(way_after(&[(30_000, 1 << 20)]), ["c"]);
    assert_eq!(way_after(&[(1 << 20, 30_000)]), ["b"]);
}

#[test]
fn a_route_is_left_for_a_much_better_one_and_not_for_a_slightly_better_one() {
    let levels = [(100, 100), (60, 100), (20, 100), (60, 100), (100, 60), (100, 20)];
    let levels = levels.map(|(over_b, over_c)| (over_b * 1000, over_c * 1000));
    assert_eq!(way_after(&levels), ["b", "b", "c", "c", "c", "b"]);
}
