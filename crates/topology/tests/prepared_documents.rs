//! What bad input gets on links of pulses: one golden file per case, the change to a good document and all that is
//! reported.

#![allow(clippy::unwrap_used)]

mod golden;

use distill::config::Emission;
use distill::sifting::prepared::config::Sync;
use golden::{changed, golden};
use topology::document::{Detector, Protocol};
use topology::parse;
use topology::plan::{Nature, Plan, Receiver, RunOptions, plan};

const DECOYS: &str = include_str!("decoys.yaml");
const DOT: &str = include_str!("dot.yaml");
const PAIRS: &str = include_str!("minimal.yaml");

golden! {
    // What belongs to another kind of link.
    a_detector_at_the_transmitter: DECOYS, ["      arms:\n" =>
        "      arms:\n        - {site: west, fibre: {length: 1 km}, detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}}\n"];
    two_receivers: DECOYS, ["      arms:\n" =>
        "      arms:\n        - {site: middle, fibre: {length: 1 km}, detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}}\n"],
        ["    - {name: east}" => "    - {name: east}\n    - {name: middle}"];
    transmitter_and_receiver_at_one_site: DECOYS, ["- site: east" => "- site: west"];
    a_window_on_a_pulsed_link: DECOYS, ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      window: 120 ps"];
    a_search_for_coincidences_on_a_pulsed_link: DECOYS,
        ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      acquisition: {search: 1 ms}"];
    a_pump_on_a_pulsed_link: DECOYS,
        ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      loops: {pump: {targetQber: 4 %}}"];
    pairs_under_decoys: DECOYS, ["        type: weak-coherent\n        site: west\n        repetitionRate: 1 GHz\n        intensities:\n          signal: {meanPhotons: 0.4, probability: 90 %}\n          decoy: {meanPhotons: 0.1, probability: 7 %}\n          vacuum: {meanPhotons: 0.001, probability: 3 %}\n        encoder: {encoding: polarisation, zProbability: 90 %}\n" =>
        "        type: spdc-cw\n        site: west\n        pairRate: 1e8 /s\n"];
    pulses_under_pairs: DECOYS, ["decoy-bb84" => "bbm92-energy-time"];
    laser_pulses_as_single_photons: DECOYS, ["decoy-bb84" => "single-photon-bb84"];
    single_photons_with_decoys: DOT, ["single-photon-bb84" => "decoy-bb84"];
    gates_for_pairs: PAIRS, ["detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}" =>
        "detector: {type: gated-avalanche, efficiency: 20 %, jitter: 60 ps, gateWidth: 200 ps, darkProbability: 21 ppm}"];
    states_of_bb84_for_pairs: PAIRS, ["detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}" =>
        "detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}\n          analyser: {type: bb84, encoding: polarisation}"];
    fields_of_pulses_for_pairs: PAIRS, ["window: 120 ps" => "window: 120 ps\n      gate: 1 ns\n      sync: {type: distributed}\n      keyBasis: x"];
    one_arm_for_pairs: PAIRS, ["        - site: east\n          fibre: {length: 12 km}\n          detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}\n" => ""];
    power_of_a_transmitter_for_pairs: PAIRS, ["window: 120 ps" => "window: 120 ps\n      disturbances: [{type: power, at: 5 s, factor: 2}]"];
    an_analyser_of_pairs: DECOYS, ["{type: bb84, encoding: polarisation, basisChoice: active, zProbability: 90 %}" => "{type: energy-time, delay: 500 ps}"];
    no_analyser: DECOYS, ["          analyser: {type: bb84, encoding: polarisation, basisChoice: active, zProbability: 90 %}\n" => ""];
    a_figure_of_another_protocol: DECOYS, ["      sync: {type: distributed}" =>
        "      sync: {type: distributed}\n      reference: [{quantity: peakWidth, value: 87 ps, tolerance: 5 %, source: paper}]"];
    a_duty_of_an_error_rate: DECOYS, ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      \
        reference: [{quantity: qberZ, value: 4 %, tolerance: 0.2 pp, source: paper, duty: 50 %}]"];
    a_duty_of_nothing: DECOYS, ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      \
        reference: [{quantity: secretKeyRate, value: 1 Mbit/s, tolerance: 5 %, source: paper, duty: 0 %}]"];
    a_second_fitted_reference: DECOYS, ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      \
        reference:\n        \
        - {quantity: secretKeyRate, value: 2 Mbit/s, tolerance: 5 %, source: paper}\n        \
        - {quantity: secretKeyRate, value: 1 Mbit/s, tolerance: 5 %, source: \"fitted: the duty\", duty: 50 %}\n        \
        - {quantity: secretKeyRate, value: 1 Mbit/s, tolerance: 5 %, source: \"fitted: again\", duty: 50 %}"];
    // Light.
    intensities_in_the_wrong_order: DECOYS, ["decoy: {meanPhotons: 0.1," => "decoy: {meanPhotons: 0.5,"];
    intensities_that_are_equal: DECOYS, ["vacuum: {meanPhotons: 0.001," => "vacuum: {meanPhotons: 0.1,"];
    probabilities_that_do_not_sum_to_1: DECOYS, ["probability: 7 %" => "probability: 8 %"];
    pulses_that_are_never_sent: DECOYS, ["probability: 90 %" => "probability: 97 %"], ["probability: 7 %" => "probability: 0 %"];
    no_decoy: DECOYS, ["          decoy: {meanPhotons: 0.1, probability: 7 %}\n" => ""];
    an_intensity_by_another_name: DECOYS, ["vacuum:" => "vacum:"];
    a_g2_above_1: DOT, ["g2: 0.01" => "g2: 1.2"];
    a_dot_that_sends_nothing: DOT, ["brightness: 0.02" => "brightness: 0"];
    one_basis_alone: DECOYS, ["encoder: {encoding: polarisation, zProbability: 90 %}" => "encoder: {encoding: polarisation, zProbability: 100 %}"];
    errors_without_information: DECOYS, ["encoder: {encoding: polarisation," => "encoder: {encoding: polarisation, error: {x: 50 %},"];
    pulses_too_fast: DECOYS, ["1 GHz" => "200 GHz"];
    // States.
    encodings_that_differ: DECOYS, ["bb84, encoding: polarisation" => "bb84, encoding: phase"];
    bin_separations_that_differ: DOT, ["delay: 3 ns" => "delay: 3.1 ns"];
    bins_that_are_further_apart_than_pulses: DOT, ["binSeparation: 3 ns" => "binSeparation: 14 ns"], ["delay: 3 ns" => "delay: 14 ns"];
    time_bins_without_a_separation: DOT, [", binSeparation: 3 ns" => ""];
    a_bin_separation_without_time_bins: DECOYS, ["encoder: {encoding: polarisation," => "encoder: {encoding: polarisation, binSeparation: 1 ns,"];
    // Detectors.
    a_gate_longer_than_the_period: DECOYS, ["gateWidth: 200 ps" => "gateWidth: 1.2 ns"];
    a_gate_that_takes_one_bin_for_another: DOT, ["gate: 1 ns" => "gate: 4 ns"];
    free_running_detectors_without_a_gate: DOT, ["      gate: 1 ns\n" => ""];
    dark_counts_per_second: DECOYS, ["darkProbability: 21 ppm" => "darkProbability: 100 cps"];
    more_dark_counts_than_a_machine_holds: DOT, ["jitter: 50 ps" => "jitter: 50 ps, darkCountRate: 1e13 cps"];
    a_power_that_makes_more_clicks_than_a_machine_holds: DECOYS, ["      sync: {type: distributed}" =>
        "      sync: {type: distributed}\n      disturbances: [{type: power, at: 5 s, factor: 30}, {type: power, at: 2 s, factor: 30}]"];
    a_round_of_more_clicks_than_a_block_can_have: DECOYS, ["round: 10 s" => "round: 10 min"];
    a_round_of_more_bits_than_a_seed_fits_for: DECOYS, ["round: 10 s" => "round: 27 s"];
    more_events_than_a_frame_can_announce: DECOYS, ["length: 50 km" => "length: 1 km"];
    dark_counts_beyond_what_a_frame_can_announce: DECOYS, ["darkProbability: 21 ppm" => "darkProbability: 4 %"];
    detectors_that_latch: DOT, ["jitter: 50 ps" => "jitter: 50 ps, latching: {probability: 0.1 %}"];
    a_field_of_another_detector: DECOYS, ["gateWidth: 200 ps" => "gateWidth: 200 ps, deadTime: 30 ns"];
    // Synchronisation.
    no_sync: DECOYS, ["      sync: {type: distributed}\n" => ""];
    a_preamble_shorter_than_the_search: DOT, ["preamble: 100 ms" => "preamble: 10 ms"];
    a_preamble_that_never_ends: DOT, ["preamble: 100 ms" => "preamble: 1 s"];
    a_reach_shorter_than_an_epoch: DOT, ["preamble: 100 ms" => "preamble: 100 ms, reach: 5 ms"];
    a_search_over_too_many_pulses: DECOYS, ["{type: distributed}" => "{type: photons, preamble: 30 ms}"];
    a_clock_beside_a_distributed_one: DECOYS, ["fibre: {length: 50 km}" => "fibre: {length: 50 km}\n          clock: {type: rubidium, offset: 1 ms}"];
    an_epoch_without_a_whole_number_of_pulses: DECOYS, ["1 GHz" => "999999999 Hz"];
    // Security.
    a_bound_for_two_decoys: DOT, ["      gate: 1 ns" => "      gate: 1 ns\n      security: {bound: lim2014}"];
    a_bound_for_one_decoy: DECOYS, ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      security: {bound: rusca2018}"];
    a_bound_of_decoys_for_pairs: PAIRS, ["window: 120 ps" => "window: 120 ps\n      security: {bound: wiesemann2024}"];
    // Disturbances.
    a_pump_that_jumps: DECOYS, ["      sync: {type: distributed}" => "      sync: {type: distributed}\n      disturbances: [{type: pump, at: 5 s, factor: 2}]"];
    polarisation_where_no_arm_ends: DECOYS, ["      sync: {type: distributed}" =>
        "      sync: {type: distributed}\n      disturbances: [{type: polarisation, at: 5 s, site: west, step: 1 rad}]"];
    // Everything at once.
    many_problems_of_pulses_at_once: DECOYS,
        ["meanPhotons: 0.4" => "meanPhotons: -0.4"],
        ["length: 50 km" => "length: 50 kg"],
        ["bb84, encoding: polarisation" => "bb84, encoding: time-bin"],
        ["gateWidth: 200 ps" => "gateWidth: 2 ns"],
        ["- site: east" => "- site: esat"],
        ["{type: distributed}" => "{type: distributed, delay: 3 ns}"];
}

#[test]
fn the_good_documents_are_good() {
    for (text, protocol) in [(DECOYS, Protocol::DecoyBb84), (DOT, Protocol::SinglePhotonBb84)] {
        let document = parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(document.warnings.is_empty(), "{}", document.warnings);
        let link = &document.topology.spec.links[0];
        assert_eq!(link.protocol, protocol);
        assert_eq!(link.pair().unwrap().map(|site| site.as_str()), ["west", "east"]);
    }
}

#[test]
fn instruments_of_pulses_can_be_defined_and_used() {
    let changes = [
        (
            "spec:\n",
            "spec:\n  instruments:\n    sync: {clock-fibre: {type: distributed, jitter: 20 ps}}\n    \
             detector: {apd: {type: gated-avalanche, jitter: 60 ps, gateWidth: 200 ps, darkProbability: 21 ppm}}\n",
        ),
        ("sync: {type: distributed}", "sync: {use: clock-fibre}"),
        (
            "detector: {type: gated-avalanche, efficiency: 20 %, jitter: 60 ps, gateWidth: 200 ps, darkProbability: 21 ppm}",
            "detector: {use: apd, efficiency: 20 %}",
        ),
    ];
    let text = changed(DECOYS, &changes);
    let document = parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
    let Detector::GatedAvalanche(detector) = &document.topology.spec.links[0].arms[0].detector else { panic!("gated") };
    assert_eq!(detector.gate_width.to_string(), "200 ps");
}

/// The plan of a good document at a seed.
fn planned(text: &str) -> Plan {
    let document = parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"));
    plan(&document.topology, &RunOptions { seed: Some(7), ..RunOptions::default() })
}

#[test]
fn a_transmitter_and_a_receiver_are_the_ends_of_a_link_of_pulses() {
    for text in [DECOYS, DOT] {
        let plan = planned(text);
        let link = &plan.links[0];
        assert_eq!(link.sites(), ["west", "east"]);
        let modules = link.ends.each_ref().map(|end| end.module.as_str());
        assert_eq!(modules, ["transmitter-west-east-west", "detector-west-east-east"]);
        assert_eq!((link.reference(), link.corrector()), (0, 1), "the transmitter's string counts");
        assert_eq!((link.source.site.as_str(), link.source.service.as_str()), ("west", "source-west-east"));
        let source = plan.sources().next().unwrap();
        assert_eq!(source.accepts[..2], modules.map(str::to_owned), "modules by output");
        let Nature::Pulses(pulses) = &source.nature else { panic!("a source of pulses") };
        let transmitter = plan.transmitters().next().unwrap();
        assert_eq!(transmitter.transmitter, pulses.transmitter);
        let detector = plan.detectors().next().unwrap();
        let Receiver::Prepared(receiver) = &detector.receiver else { panic!("a receiver of pulses") };
        assert_eq!(receiver.analyser, pulses.analyser);
        assert_eq!(receiver.repetition_rate_hz, pulses.transmitter.repetition_rate_hz);
        let (sent, received) = (&transmitter.module.protocol, &detector.module.protocol);
        assert_eq!(sent.in_common(), received.in_common());
        assert_eq!((sent.part(), received.part()), ("transmitter", "receiver"));
        let sifting = received.sifting.prepared().unwrap();
        let post_processing = &received.post_processing;
        sifting.check(post_processing.framing.frame_ps, &post_processing.security.emission).unwrap();
        assert_eq!(pulses.transmitter.preamble_pulses, sifting.preamble_pulses);
        assert_ne!(transmitter.module.subseed, detector.module.subseed);
        assert!(transmitter.module.subseed.is_some() && detector.instrument_subseed.is_some());
    }
}

#[test]
fn the_plans_of_links_of_pulses_are_as_published() {
    insta::assert_json_snapshot!("the_plan_of_decoys", planned(DECOYS));
    insta::assert_json_snapshot!("the_plan_of_a_dot", planned(DOT));
}

/// A receiver whose clock comes with the light begins its first frame before the light that it numbers.
#[test]
fn a_distributed_clock_is_behind_the_light_by_the_fibre_and_what_sifting_knows_of() {
    let plan = planned(DECOYS);
    let detector = plan.detectors().next().unwrap();
    let Receiver::Prepared(receiver) = &detector.receiver else { panic!("a receiver of pulses") };
    let Sync::Distributed { delay_ps } = detector.module.protocol.sifting.prepared().unwrap().sync else { panic!() };
    assert!(delay_ps < 0.0);
    assert!((receiver.clock.offset_ps + receiver.arm_delay_ps - delay_ps).abs() < 1e-3);
    assert_eq!(receiver.clock.frequency_error, 0.0);
}

/// Of basis X behind an interferometer half says nothing: the shares of what is kept are those that a proof counts by.
#[test]
fn the_proof_counts_by_the_bases_of_what_is_kept() {
    let plan = planned(DOT);
    let security = &plan.modules().next().unwrap().protocol.post_processing.security;
    let Emission::SinglePhotons(source) = security.emission else { panic!("single photons") };
    let [sent, kept] = source.key_basis_probability;
    assert!((sent - 0.8).abs() < 1e-12 && (kept - 0.8 / 0.9).abs() < 1e-12, "{kept}");
    assert_eq!((source.mean_photons, source.g2), (0.02, 0.01));
    let filtered = planned(&changed(
        DOT,
        &[("g2: 0.01\n", "g2: 0.01\n        lifetime: 1 ns\n        temporalFilter: {width: 1 ns}\n")],
    ));
    let security = &filtered.modules().next().unwrap().protocol.post_processing.security;
    let Emission::SinglePhotons(source) = security.emission else { panic!("single photons") };
    assert!((source.mean_photons / (0.02 * (1.0 - (-1.0f64).exp())) - 1.0).abs() < 1e-12, "{}", source.mean_photons);
}
