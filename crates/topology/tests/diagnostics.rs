//! What bad input gets: one golden file per case, the change to a good document and all that is reported.

#![allow(clippy::unwrap_used)]

mod golden;

use golden::{golden, report};
use topology::parse;

const GOOD: &str = include_str!("minimal.yaml");

fn changed(changes: &[(&str, &str)]) -> String {
    golden::changed(GOOD, changes)
}

golden! {
    // Fields.
    unknown_field: ["length: 10 km" => "lenght: 10 km"];
    unknown_field_like_nothing: ["window: 120 ps" => "window: 120 ps\n      colour: blue"];
    missing_field: ["      window: 120 ps\n" => ""];
    missing_block: ["      source: {site: middle, type: spdc-cw, pairRate: 1e8 /s}\n" => ""];
    field_without_value: ["jitter: 50 ps}" => "jitter: }"];
    a_text_for_a_block: ["fibre: {length: 10 km}" => "fibre: 10 km"];
    a_block_for_a_list: ["saes: [bank]" => "saes: {name: bank}"];
    duplicate_key: ["window: 120 ps" => "window: 120 ps\n      window: 130 ps"];
    merge_of_no_block: ["fibre: {length: 12 km}" => "fibre: {<<: [{length: 12 km}, 3]}"];
    two_merge_keys: ["fibre: {length: 12 km}" => "fibre: {<<: {length: 12 km}, <<: {groupIndex: 1.5}}"];
    merge_key_in_quotes: ["fibre: {length: 12 km}" => "fibre: {\"<<\": {length: 12 km}}"];
    problem_in_a_merged_block: ["fibre: {length: 12 km}" => "fibre:\n            <<: {length: 12 kg}"];
    list_of_kubectl: ["kind: Topology" => "kind: List"];
    field_of_the_cluster_elsewhere: ["spec:\n" => "spec:\n  status: {}\n"];
    // Quantities.
    a_number_without_unit: ["jitter: 50 ps" => "jitter: 50"];
    a_text_without_unit: ["jitter: 50 ps" => "jitter: \"50\""];
    unit_of_another_dimension: ["length: 10 km" => "length: 10 ns"];
    misspelt_unit: ["length: 10 km" => "length: 10 Km"];
    unknown_unit: ["pairRate: 1e8 /s" => "pairRate: 1e8 pairs"];
    decimal_comma: ["length: 10 km" => "length: \"10,5 km\""];
    negative_loss: ["fibre: {length: 10 km}" => "fibre: {length: 10 km, deviceLoss: -1 dB}"];
    efficiency_above_one: ["efficiency: 80 %" => "efficiency: 120 %"];
    visibility_above_one: ["pairRate: 1e8 /s" => "pairRate: 1e8 /s, visibility: 101 %"];
    number_out_of_range: ["fibre: {length: 10 km}" => "fibre: {length: 10 km, groupIndex: 7}"];
    // Names and choices.
    misspelt_protocol: ["bbm92-energy-time" => "bbm92-energytime"];
    unknown_source_type: ["type: spdc-cw" => "type: laser"];
    missing_type: ["{type: snspd, efficiency: 80 %" => "{efficiency: 80 %"];
    a_name_that_is_no_label: ["name: middle" => "name: Middle_Site"];
    a_number_as_name: ["{name: pair}" => "{name: 12}"];
    bad_speed: ["spec:\n" => "spec:\n  run: {speed: fast}\n"];
    a_skew_shorter_than_an_epoch: ["spec:\n" => "spec:\n  run: {skew: 1 ms}\n"];
    a_skew_of_days: ["spec:\n" => "spec:\n  run: {skew: 48 h}\n"];
    bad_provenance: ["length: 12 km" => "length: 12 km, provenance: {length: \"publshed: here\", lengt: \"assumed: x\"}"];
    // Across fields.
    site_that_does_not_exist: ["- site: east" => "- site: eats"];
    both_arms_at_one_site: ["- site: east" => "- site: west"];
    applications_at_a_source: ["{name: middle}" => "{name: middle, saes: [shop]}"];
    two_sites_with_one_name: ["- {name: east}" => "- {name: east}\n    - {name: west}"];
    an_application_called_as_a_service_is: ["saes: [bank]" => "saes: [kms-west]"];
    an_application_called_as_who_keeps_the_time: ["saes: [bank]" => "saes: [pacer]"];
    an_application_called_as_who_is_in_control: ["saes: [bank]" => "saes: [control]"];
    two_applications_with_one_name: ["{name: east}" => "{name: east, saes: [bank]}"];
    window_wider_than_delay: ["window: 120 ps" => "window: 401 ps"];
    delays_that_differ: ["jitter: 50 ps}\n      window" => "jitter: 50 ps}\n          analyser: {type: energy-time, delay: 500 ps}\n      window"];
    resolution_not_in_tag_units: ["jitter: 50 ps" => "jitter: 50 ps, tdc: {resolution: 6 ps}"];
    round_not_in_epochs: ["window: 120 ps" => "window: 120 ps\n      round: 10.01 s"];
    tracking_not_in_epochs: ["window: 120 ps" => "window: 120 ps\n      tracking: {interval: 0.51 s}"];
    epoch_of_a_link_too_long_for_clicks: ["window: 120 ps" => "window: 120 ps\n      epoch: 10 s"];
    epoch_of_a_link_too_long_for_counts: ["window: 120 ps" => "window: 120 ps\n      fidelity: counts\n      epoch: 2 h"];
    epoch_of_a_link_too_short: ["window: 120 ps" => "window: 120 ps\n      epoch: 0.5 ms"];
    round_not_in_epochs_of_the_link: ["window: 120 ps" => "window: 120 ps\n      fidelity: counts\n      epoch: 7 s\n      round: 10 s"];
    round_shorter_than_an_epoch_of_the_link: ["window: 120 ps" => "window: 120 ps\n      fidelity: counts\n      epoch: 20 s\n      round: 10 s"];
    tracking_not_in_epochs_of_the_link: ["window: 120 ps" => "window: 120 ps\n      epoch: 300 ms\n      tracking: {interval: 0.5 s}"];
    clocks_beyond_the_search: ["fibre: {length: 12 km}" => "fibre: {length: 12 km}\n          clock: {type: rubidium, offset: 11 ms}"];
    frequencies_beyond_the_search: ["fibre: {length: 12 km}" => "fibre: {length: 12 km}\n          clock: {type: rubidium, frequencyError: 300 ns/s}"];
    target_without_pump_loop: ["window: 120 ps" => "window: 120 ps\n      loops: {pump: {enabled: false, targetQber: 4 %}}"];
    keys_not_in_bytes: ["spec:\n" => "spec:\n  keyManagement: {keySize: 250 bit}\n"];
    keys_beyond_their_limits: ["spec:\n" => "spec:\n  keyManagement: {keySize: 512 bit, keySizeMax: 256 bit}\n"];
    transfers_too_long: ["spec:\n" => "spec:\n  keyManagement: {relay: {transfer: 32768 bit}}\n"];
    transfers_too_short: ["spec:\n" => "spec:\n  keyManagement: {relay: {transfer: 256 bit}}\n"];
    water_marks_the_wrong_way: ["spec:\n" => "spec:\n  keyManagement: {relay: {lowWater: 9000 bit, highWater: 8000 bit}}\n"];
    rerouting_without_relays: ["spec:\n" => "spec:\n  keyManagement: {relay: {enabled: false, reroute: true}}\n"];
    disturbance_elsewhere: ["window: 120 ps" => "window: 120 ps\n      disturbances: [{type: phase, at: 5 s, site: middle, step: 1 rad}]"];
    reference_in_a_wrong_unit: ["window: 120 ps" => "window: 120 ps\n      reference: [{quantity: qberZ, value: 7 kbit/s, tolerance: 5, source: paper}]"];
    outages_of_nonsense: ["window: 120 ps" => "window: 120 ps\n      outages: [{at: 1 h, lasts: 10 min, cause: a}, {at: 70 min, lasts: 1 ms, cause: b}, {at: 610 h, lasts: 1 s, cause: \"\"}]"];
    cooling_of_nonsense: ["efficiency: 80 %, jitter: 50 ps}" => "efficiency: 80 %, jitter: 50 ps, cooling: {holdTime: 0 s, recyclingTime: 1 ms, first: 610 h}}"], ["efficiency: 80 %, jitter: 50 ps}" => "efficiency: 80 %, jitter: 50 ps, cooling: {holdTime: 1 h, recyclingTime: -1 s}}"];
    reference_that_cannot_be_counted: ["window: 120 ps" => "window: 120 ps\n      reference: [{quantity: restarts, value: 9 %, tolerance: 1 pp, source: paper}, {quantity: availability, value: 9 times, tolerance: at most, source: paper}]"];
    a_pool_that_does_nothing_known: ["spec:\n" => "spec:\n  keyManagement: {whenFull: drop}\n"];
    a_pool_that_darkens_its_links_in_a_run_with_a_seed: ["spec:\n" => "spec:\n  keyManagement: {whenFull: dark}\n  run: {seed: 7}\n"];
    one_arm: ["        - site: east\n          fibre: {length: 12 km}\n          detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}\n" => ""];
    more_pairs_than_a_machine_holds: ["pairRate: 1e8 /s" => "pairRate: 1e11 /s"];
    // Documents.
    wrong_kind: ["kind: Topology" => "kind: Scenario"];
    wrong_version: ["v1alpha1" => "v1alpha2"];
    two_documents: ["metadata: {name: pair}" => "metadata: {name: pair}\n---\nkind: Topology"];
    duplicate_key_beside_another_problem: ["window: 120 ps" => "window: 120 ps\n      window: 130 ps\n      rund: 1 s"];
    tab_indentation: ["  sites:" => "\tsites:"];
    tab_behind_a_value: ["      window: 120 ps" => "\twindow: 120 ps"];
    tab_after_blanks: ["          fibre: {length: 12 km}" => "        \t  fibre: {length: 12 km}"];
    tab_in_a_sequence: ["    - {name: east}" => "\t- {name: east}"];
    unclosed_quote: ["name: west-east" => "name: \"west-east"];
    quote_closed_too_early: ["name: west-east" => "name: \"west\"-east"];
    unclosed_brace_at_the_end: ["    - {name: east}" => "    - {name: east"];
    two_fields_in_a_line: ["window: 120 ps" => "window: 120 ps round: 60 s"];
    field_indented_too_far: ["      window: 120 ps" => "        window: 120 ps"];
    field_indented_too_little: ["      window: 120 ps" => "     window: 120 ps"];
    text_that_begins_with_an_at_sign: ["name: east" => "name: @east"];
    byte_order_mark_inside: ["spec:\n" => "\u{feff}spec:\n"];
    percent_without_quotes: ["efficiency: 80 %" => "efficiency: % 80"];
    tag_of_another_type: ["name: east" => "name: !!int east"];
    tag_of_python: ["{name: east}" => "!!python/tuple {name: east}"];
    unclosed_bracket: ["saes: [bank]" => "saes: [bank"];
    unknown_alias: ["fibre: {length: 12 km}" => "fibre: *fibre"];
    yaml_tag: ["name: east" => "name: !secret east"];
    read_in_two_ways: ["name: east" => "name: 012"];
    // Everything at once.
    many_problems_at_once:
        ["name: middle" => "name: Middle"],
        ["length: 10 km" => "length: -3 km"],
        ["window: 120 ps" => "window: 900 ps\n      rund: 10 s"],
        ["- site: east" => "- site: esat"],
        ["efficiency: 80 %" => "efficiency: 0.8"];
}

#[test]
fn the_good_document_is_good() {
    let document = parse("net.yaml", GOOD.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(document.warnings.is_empty(), "{}", document.warnings);
}

#[test]
fn empty_file() {
    insta::assert_snapshot!(report(b""));
    assert_eq!(report(b"# only a comment\n"), report(b""));
}

#[test]
fn a_list_as_document() {
    insta::assert_snapshot!(report(b"- one\n- two\n"));
}

#[test]
fn not_utf8() {
    let mut bytes = GOOD.as_bytes().to_vec();
    let at = GOOD.find("west").unwrap();
    bytes[at] = 0xff;
    insta::assert_snapshot!(report(&bytes));
}

#[test]
fn a_file_of_100_mb_is_refused_unread() {
    let bytes = vec![b'['; 100_000_000];
    let started = std::time::Instant::now();
    insta::assert_snapshot!(report(&bytes));
    assert!(started.elapsed().as_secs() < 1);
}

#[test]
fn yaml_bomb() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
    }
    insta::assert_snapshot!(report(text.as_bytes()));
}

#[test]
fn nesting_without_end() {
    insta::assert_snapshot!(report("[".repeat(100_000).as_bytes()));
    insta::assert_snapshot!(report("- ".repeat(100_000).as_bytes()));
    insta::assert_snapshot!(report("a: {".repeat(100_000).as_bytes()));
}

#[test]
fn two_links_with_one_name() {
    let links = GOOD.find("    - name: west-east").unwrap();
    insta::assert_snapshot!(report(format!("{GOOD}{}", &GOOD[links..]).as_bytes()));
}

#[test]
fn names_that_make_one_service_of_two() {
    let links = GOOD.find("    - name: west-east").unwrap();
    let (head, link) = GOOD.split_at(links);
    let head = head.replace("- {name: east}", "- {name: east}\n    - {name: b-c}\n    - {name: c}");
    let first = link.replace("west-east", "a").replace("site: east", "site: b-c");
    let second = link.replace("west-east", "a-b").replace("site: east", "site: c");
    insta::assert_snapshot!(report(format!("{head}{first}{second}").as_bytes()));
}

#[test]
fn a_name_too_long_for_a_service() {
    let name = "w".repeat(60);
    insta::assert_snapshot!(report(changed(&[("name: west-east", &format!("name: {name}"))]).as_bytes()));
}

#[test]
fn problems_are_readable_by_machines() {
    let problems = parse("net.yaml", changed(&[("length: 10 km", "lenght: 10 km")]).as_bytes()).unwrap_err();
    insta::assert_json_snapshot!(problems);
}

/// Networks of pairs of sites: `links` are pairs of site numbers, every site has an application.
fn network(sites: usize, links: &[[usize; 2]]) -> String {
    let (head, link) = GOOD.split_at(GOOD.find("    - name: west-east").unwrap());
    let (before, _) = head.split_at(head.find("    - {name: west").unwrap());
    let mut text = before.to_owned();
    for site in 0..sites {
        text += &format!("    - {{name: s{site}, saes: [a{site}]}}\n");
    }
    text += "  links:\n";
    for [a, b] in links {
        let link = link.replace("west-east", &format!("l{a}-{b}"));
        text += &link.replace("site: west", &format!("site: s{a}")).replace("site: east", &format!("site: s{b}"));
    }
    text
}

fn warnings(text: &str) -> String {
    parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).warnings.to_string()
}

#[test]
fn a_network_in_parts_is_a_warning() {
    assert_eq!(warnings(&network(4, &[[0, 1], [1, 2], [2, 3]])), "");
    let chains: Vec<[usize; 2]> = (0..20).filter(|a| a % 4 != 3).map(|a| [a, a + 1]).collect();
    let two = warnings(&network(4, &[[0, 1], [2, 3]]));
    insta::assert_snapshot!(format!("{two}\n{}", warnings(&network(20, &chains))));
    // Parts without applications need no key.
    let silent = network(4, &[[0, 1], [2, 3]]).replace(", saes: [a2]", "").replace(", saes: [a3]", "");
    assert_eq!(warnings(&silent), "");
}

#[test]
fn sites_without_a_link_of_their_own_need_relaying() {
    let off = |text: String| text.replace("spec:\n", "spec:\n  keyManagement: {relay: {enabled: false}}\n");
    assert_eq!(warnings(&off(network(3, &[[0, 1], [1, 2], [2, 0]]))), "");
    insta::assert_snapshot!(warnings(&off(network(3, &[[0, 1], [1, 2]]))));
    assert_eq!(warnings(&off(network(3, &[[0, 1], [1, 2]])).replace(", saes: [a2]", "")), "");
}

#[test]
fn what_looks_like_a_mistake_is_a_warning() {
    let text = changed(&[
        ("- {name: east}", "- {name: east}\n    - {name: alone}"),
        ("fibre: {length: 12 km}", "fibre: {length: 50 km, dispersion: {coefficient: 17 ps/nm/km}}"),
    ]);
    let document = parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
    insta::assert_snapshot!(document.warnings.to_string());
}
