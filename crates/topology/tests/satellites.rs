//! Satellites: what a document says of them, what is refused, and the passes that are planned.

#![allow(clippy::unwrap_used)]

use topology::document::Fidelity;
use topology::parse;
use topology::plan::{Counts, Nature, Plan, RunOptions, plan};

const MICIUS: &str = include_str!("../../../topologies/micius-2016.yaml");

fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(MICIUS.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

fn planned(text: &str) -> Plan {
    plan(
        &parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology,
        &RunOptions::default(),
    )
}

/// All that is said of a document with these changes.
fn said(changes: &[(&str, &str)]) -> String {
    match parse("net.yaml", changed(changes).as_bytes()) {
        Ok(document) => document.warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}

macro_rules! golden {
    ($($name:ident: $([$from:expr => $to:expr]),+;)*) => {$(
        #[test]
        fn $name() {
            let changes = [$(($from, $to)),+];
            let shown: String = changes.iter().map(|(from, to)| format!("- {from}\n+ {to}\n")).collect();
            insta::assert_snapshot!(stringify!($name), format!("{shown}\n{}", said(&changes)));
        }
    )*};
}

golden! {
    a_wrong_checksum: ["97.3699 267.4500" => "97.3698 267.4500"];
    a_short_line: ["16353.90152003  ." => "16353.90152003 ."];
    two_lines_of_two_satellites: ["2 41731  97.3699" => "2 41722  97.3699"];
    an_orbit_below_the_ground: ["15.23915303 19063" => "17.99915303 19068"];
    elements_that_are_years_old: ["2016-12-19T16:49:56Z" => "2021-12-19T16:49:56Z"];
    elements_that_are_months_old: ["2016-12-19T16:49:56Z" => "2017-03-19T16:49:56Z"];
    a_station_that_never_sees_it: ["97.3699 267.4500" => "07.3699 267.4500"], ["19063\"" => "19064\""];
    a_run_without_a_pass: ["2016-12-19T16:49:56Z" => "2016-12-19T16:30:00Z"];
    a_time_with_an_offset: ["2016-12-19T16:49:56Z" => "2016-12-20T00:49:56+08:00"];
    no_time_at_which_the_run_begins: [", start: \"2016-12-19T16:49:56Z\"" => ""];
    a_satellite_with_a_location: ["      saes: [on-board]" => "      location: {lat: 0, lon: 0}\n      saes: [on-board]"];
    a_station_without_a_location: ["      location: {lat: 40.3958, lon: 117.5775, height: 900 m}\n" => ""], ["      provenance: {location: \"published: the observatory of Xinglong; the height is rounded\"}\n" => ""];
    clicks_through_free_space: ["fidelity: counts, epoch: 1 s" => "epoch: 20 ms"];
    a_second_way_beside_a_fibre: ["          freeSpace:\n" => "          fibre: {length: 500 km}\n          freeSpace:\n"];
    a_seeing_on_a_downlink: ["aperture: 1 m" => "aperture: 1 m\n            seeing: 5 urad"];
    a_beam_that_is_wide: ["divergence: 7.4066 urad" => "divergence: 7.4066 deg"];
    a_telescope_in_kilometres: ["aperture: 1 m" => "aperture: 1 km"];
    an_unknown_orbit: ["type: two-line" => "type: two-lines"];
}

#[test]
fn an_ellipse_that_cannot_be_is_refused_at_its_altitude() {
    let kepler = "type: kepler\n        epoch: \"2016-12-19T16:00:00Z\"\n        altitude: 50 km\n        inclination: 97.4 deg\n        ascendingNode: 267 deg\n        meanAnomaly: 0 deg";
    let lines =
        MICIUS.split("        type: two-line\n").nth(1).unwrap().split("      saes: [on-board]").next().unwrap();
    let text = said(&[(&format!("type: two-line\n{lines}"), &format!("{kepler}\n"))]);
    assert!(text.contains("an orbit whose lowest point is 50 km above the ground"), "{text}");
    assert!(text.contains("spec.sites[0].orbit.altitude"), "{text}");
}

#[test]
fn the_published_pass_is_planned_with_its_range_time_and_bits() {
    let plan = planned(MICIUS);
    assert_eq!(plan.warnings, Vec::<String>::new());
    let passes = plan.passes(&plan.links[0], 1.16);
    let [pass] = passes.as_slice() else { panic!("{passes:?}") };
    assert!((pass.closest_km - 645.0).abs() < 1.0, "{pass:?}");
    // "About 00:50" in Beijing, 8 h ahead.
    assert!(pass.culmination.starts_with("2016-12-19T16:52:1"), "{pass:?}");
    assert!((pass.duration_s - 273.0).abs() < 1e-6, "{pass:?}");
    // Of signal pulses, as the published 1,671,072 are: 0.8 x 50 % of 0.8 x 50 % + 0.1 x 25 %.
    let of_signals = pass.sifted_bits * 0.4 / 0.425;
    assert!((of_signals / 1_671_072.0 - 1.0).abs() < 0.06, "{of_signals}");
    assert!((pass.qber_key - 0.011).abs() < 0.002, "{pass:?}");
    assert!(pass.key_bits > 0.0, "{pass:?}");
}

#[test]
fn light_is_lost_by_range_and_elevation_and_there_is_none_beside_a_pass() {
    let text = changed(&[("2016-12-19T16:49:56Z", "2016-12-19T16:40:00Z"), ("for: 273 s", "for: 1638 s")]);
    let plan = planned(&text);
    let source = plan.sources().next().unwrap();
    let Nature::Counts(Counts::Pulses(counted)) = &source.nature else { panic!("{:?}", source.nature) };
    let space = counted.space.as_ref().unwrap();
    let lit: Vec<u64> = (0..1638).filter(|epoch| space.seen(*epoch as f64).loss_db.is_finite()).collect();
    let [first, last] = [lit[0], lit[lit.len() - 1]];
    assert_eq!(last - first + 1, lit.len() as u64, "one pass");
    // Outages are what is dark: they say so before it happens.
    let dark: Vec<(u64, u64)> =
        source.outages.iter().map(|outage| (outage.epochs.first_epoch, outage.epochs.epochs)).collect();
    assert_eq!(dark, [(0, first), (last + 1, 1638 - last - 1)]);
    assert!(source.outages[0].cause.contains("micius is below 15.0 deg at xinglong"), "{:?}", source.outages[0]);
    let losses: Vec<f64> = lit.iter().map(|epoch| space.seen(*epoch as f64).loss_db).collect();
    let nearest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    // Diffraction, pointing and air at 645 km and 48 degrees; optics are not in it.
    assert!((19.0..20.5).contains(&nearest), "{nearest}");
    assert!(losses[0] > nearest + 8.0, "{}", losses[0]);
}

#[test]
fn an_uplink_needs_its_seeing_and_loses_more_than_a_downlink() {
    let up = [
        ("site: micius\n        rep", "site: xinglong\n        rep"),
        ("- site: xinglong\n          free", "- site: micius\n          free"),
    ];
    let text = said(&up);
    assert!(text.contains("an uplink without `seeing`"), "{text}");
    let seeing = [up[0], up[1], ("aperture: 1 m", "aperture: 1 m\n            seeing: 5 urad")];
    let loss = |text: &str| {
        let plan = planned(text);
        plan.passes(&plan.links[0], 1.16)[0].mean_loss_db
    };
    assert!(loss(&changed(&seeing)) > loss(MICIUS) + 1.0);
}

#[test]
fn clicks_are_refused_where_the_command_line_asks_for_them() {
    let topology = parse("net.yaml", MICIUS.as_bytes()).unwrap().topology;
    let options = RunOptions { fidelity: Some(Fidelity::Tags), ..RunOptions::default() };
    let refused = topology::plan::counts::refusals(&topology, &options);
    assert!(refused.iter().any(|why| why.contains("clicks of light through free space")), "{refused:?}");
}
