//! Links at the fidelity of counts: which they are, what is planned for them, what their law depends on, and what they
//! cannot be.

#![allow(clippy::unwrap_used)]

mod golden;

use distill::config::{Side, Sifting};
use golden::{changed, report};
use topology::document::Fidelity;
use topology::parse;
use topology::plan::counts::{Conditions, Told, refusals};
use topology::plan::{Counts, ModuleConfig, Nature, Plan, RunOptions, ServiceConfig, SourceConfig, plan};

const PAIRS: &str = include_str!("minimal.yaml");
const DECOYS: &str = include_str!("decoys.yaml");
const DOT: &str = include_str!("dot.yaml");

fn at_counts(good: &str) -> String {
    changed(good, &[("spec:\n", "spec:\n  run: {fidelity: counts}\n")])
}

fn planned(text: &str, options: &RunOptions) -> Plan {
    plan(&parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology, options)
}

fn seeded(text: &str) -> Plan {
    planned(text, &RunOptions { seed: Some(7), ..RunOptions::default() })
}

fn source(plan: &Plan) -> (&SourceConfig, &Counts) {
    let source = plan.sources().next().unwrap();
    let Nature::Counts(counts) = &source.nature else { panic!("no counts") };
    (source, counts)
}

fn fidelity(text: &str, options: &RunOptions) -> Fidelity {
    planned(text, options).links[0].fidelity
}

#[test]
fn a_link_says_more_than_the_run_and_the_command_line_more_than_both() {
    let link = |word: &str| format!("- name: west-east\n      fidelity: {word}\n");
    let own = |text: &str, word: &str| changed(text, &[("- name: west-east\n", &link(word))]);
    let asked = |fidelity| RunOptions { fidelity: Some(fidelity), ..RunOptions::default() };
    for good in [PAIRS, DECOYS, DOT] {
        let none = RunOptions::default();
        assert_eq!(fidelity(good, &none), Fidelity::Tags);
        assert_eq!(fidelity(&at_counts(good), &none), Fidelity::Counts);
        assert_eq!(fidelity(&own(good, "counts"), &none), Fidelity::Counts);
        assert_eq!(fidelity(&own(&at_counts(good), "tags"), &none), Fidelity::Tags);
        assert_eq!(fidelity(&own(&at_counts(good), "tags"), &asked(Fidelity::Counts)), Fidelity::Counts);
        assert_eq!(fidelity(&own(good, "counts"), &asked(Fidelity::Tags)), Fidelity::Tags);
    }
}

#[test]
fn a_plan_at_tags_knows_nothing_of_counts() {
    for good in [PAIRS, DECOYS, DOT] {
        let overridden = RunOptions { seed: Some(7), fidelity: Some(Fidelity::Tags), ..RunOptions::default() };
        assert_eq!(planned(&at_counts(good), &overridden).services, seeded(good).services);
    }
}

#[test]
fn the_plans_of_links_at_counts_are_as_published() {
    for (name, good) in [("pairs", PAIRS), ("decoys", DECOYS), ("a_dot", DOT)] {
        insta::assert_json_snapshot!(format!("the_plan_at_counts_of_{name}"), seeded(&at_counts(good)));
    }
}

/// Everything else (names, subseeds, who talks to whom, what post-processing does) is as at tags.
#[test]
fn counts_take_the_place_of_clicks_and_nothing_else_changes() {
    let take = |own: &mut ModuleConfig, counted: &ModuleConfig| {
        own.protocol.sifting = counted.protocol.sifting.clone();
        // No clock comes to its end.
        own.epochs_limit = counted.epochs_limit;
    };
    for good in [PAIRS, DECOYS, DOT] {
        let (tags, counts) = (seeded(good), seeded(&at_counts(good)));
        assert_eq!(counts.services.len(), tags.services.len());
        for (tags, counts) in tags.services.iter().zip(&counts.services) {
            let mut expected = tags.clone();
            match (&mut expected.config, &counts.config) {
                (ServiceConfig::Source(own), ServiceConfig::Source(source)) => {
                    (own.nature, own.epochs_limit) = (source.nature.clone(), source.epochs_limit);
                }
                (ServiceConfig::Detector(own), ServiceConfig::Detector(detector)) => {
                    take(&mut own.module, &detector.module);
                }
                (ServiceConfig::Transmitter(own), ServiceConfig::Transmitter(transmitter)) => {
                    take(&mut own.module, &transmitter.module);
                }
                _ => {}
            }
            assert_eq!(&expected, counts);
        }
        let sides = |plan: &Plan| plan.links[0].ends.each_ref().map(|end| end.side);
        assert_eq!(sides(&tags), sides(&counts));
        let own: Vec<Side> = counts.modules().map(|module| module.protocol.side()).collect();
        assert_eq!(own, sides(&counts));
        assert!(counts.modules().all(|module| matches!(module.protocol.sifting, Sifting::Counts(_))));
        assert_eq!(counts.modules().filter(|module| module.protocol.sets_pump()).count(), usize::from(good == PAIRS));
        let common: Vec<_> = counts.modules().map(|module| module.protocol.in_common()).collect();
        assert_eq!(common[0], common[1]);
        assert_eq!((tags.has_tags(), counts.has_tags()), (true, false));
        assert!(counts.tags_end_ps > 100 * tags.tags_end_ps, "no clock counts");
    }
}

#[test]
fn a_source_of_counts_survives_its_configuration_file() {
    for good in [PAIRS, DECOYS, DOT] {
        let plan = seeded(&at_counts(good));
        let (config, _) = source(&plan);
        let text = serde_yaml::to_string(config).unwrap();
        assert_eq!(&serde_yaml::from_str::<SourceConfig>(&text).unwrap(), config);
        assert_eq!(config.losses_db().len(), if good == PAIRS { 2 } else { 1 });
    }
}

/// Of an epoch in which nothing is disturbed.
fn quiet<'a>(config: &SourceConfig, losses_db: &'a [f64], t_s: f64) -> Told<'a> {
    assert_eq!(config.arms().len(), losses_db.len());
    let (phases_rad, polarisations_rad) = ([0.1, 0.2], [[0.0; 2]; 2]);
    Told { t_s, losses_db, added_db: [0.0; 2], pump: 1.0, phases_rad, polarisations_rad }
}

fn sifted_hz(counts: &Counts, conditions: &Conditions) -> f64 {
    counts.law(conditions).unwrap().sifted_hz()
}

#[test]
fn a_source_draws_what_the_plan_expects() {
    for good in [PAIRS, DECOYS, DOT] {
        let plan = seeded(&at_counts(good));
        let (config, counts) = source(&plan);
        let losses_db = config.losses_db();
        let conditions = counts.conditions(&quiet(config, &losses_db, 0.0));
        assert_eq!(conditions, counts.conditions(&quiet(config, &losses_db, 12_345.0)), "loops hold what drifts");
        let link = &plan.links[0];
        let expected_hz = match plan.prepared(link) {
            Some(parts) => {
                let prediction = parts.predict(1.0);
                prediction.sifted_hz(0) + prediction.sifted_hz(1)
            }
            None => {
                let parts = plan.entangled(link).unwrap();
                let prediction = photonics::expect::predict(&parts.inputs());
                prediction.z.sifted_hz + prediction.x.sifted_hz
            }
        };
        let drawn_hz = sifted_hz(counts, &conditions);
        assert!((drawn_hz / expected_hz - 1.0).abs() < 1e-12, "{drawn_hz} {expected_hz}");
        assert!(plan.load(&link.name).is_some());
    }
}

#[test]
fn loss_and_power_act_and_a_cut_leaves_the_dark() {
    let step =
        |kind: &str| format!("- name: west-east\n      disturbances: [{{type: {kind}, at: 10 s, factor: 0.5}}]\n");
    for (good, kind) in [(PAIRS, "pump"), (DECOYS, "power"), (DOT, "power")] {
        let plan = seeded(&at_counts(&changed(good, &[("- name: west-east\n", &step(kind))])));
        let (config, counts) = source(&plan);
        let losses_db = config.losses_db();
        let rate = |told: Told<'_>| sifted_hz(counts, &counts.conditions(&told));
        let before = quiet(config, &losses_db, 9.98);
        let nominal = rate(before);
        let half = rate(quiet(config, &losses_db, 10.0));
        // Less than half of it is lost where detectors are busy.
        assert!((0.4..0.9).contains(&(half / nominal)), "{kind}: {half} of {nominal}");
        let more: Vec<f64> = losses_db.iter().map(|loss| loss + 10.0).collect();
        let lossy = [rate(Told { losses_db: &more, ..before }), rate(Told { added_db: [10.0, 10.0], ..before })];
        assert_eq!(lossy[0], lossy[1]);
        assert!(lossy[0] < 0.2 * nominal, "{lossy:?} of {nominal}");
        // Dark counts are left, alone or of one end with light of the other.
        let dark = rate(Told { added_db: [f64::INFINITY, 0.0], ..before });
        assert!(dark.is_finite() && dark < 0.05 * nominal, "{dark} of {nominal}");
    }
}

#[test]
fn what_no_loop_holds_drifts_into_the_errors() {
    // A quarter of a turn of the first angle, and of the phases: states of one basis come in the other one.
    let errors = |text: &str, turned: bool| {
        let plan = seeded(&at_counts(text));
        let (config, counts) = source(&plan);
        let losses_db = config.losses_db();
        let quarter = std::f64::consts::FRAC_PI_2;
        let mut told = quiet(config, &losses_db, 0.0);
        (told.phases_rad, told.polarisations_rad) =
            if turned { ([quarter, 0.0], [[quarter, 0.0]; 2]) } else { ([0.0; 2], [[0.0; 2]; 2]) };
        let law = counts.law(&counts.conditions(&told)).unwrap();
        let subseed = photonics::random::Subseed::new([1; 32]);
        let drawn = law.draw(1000.0, 100_000_000_000, &mut subseed.stream("test").draws(0));
        [drawn.key, drawn.check].map(|of_basis| {
            let sums = of_basis.iter().fold((0, 0), |sum, tally| (sum.0 + tally.errors, sum.1 + tally.bits));
            sums.0 as f64 / sums.1 as f64
        })
    };
    let off = "- name: west-east\n      loops: {polarisation: {enabled: false}, phase: {enabled: false}}\n";
    for (good, turned) in [(PAIRS, [false, true]), (DECOYS, [true, true]), (DOT, [false, true])] {
        let text = changed(good, &[("- name: west-east\n", off)]);
        let (straight, bent) = (errors(&text, false), errors(&text, true));
        for basis in 0..2 {
            assert!(straight[basis] < 0.2, "{straight:?}");
            let half = (bent[basis] - 0.5).abs() < 0.02;
            assert!(
                if turned[basis] { half } else { (bent[basis] - straight[basis]).abs() < 0.01 },
                "{straight:?} {bent:?}"
            );
        }
        let held = changed(good, &[("- name: west-east\n", &off.replace("false", "true"))]);
        let bent = errors(&held, true);
        assert!(bent.iter().all(|errors| *errors < 0.2), "{bent:?}");
    }
}

/// So many pairs in such long epochs that no message holds their bits.
fn too_bright(run: &str) -> String {
    changed(
        PAIRS,
        &[
            ("spec:\n", &format!("spec:\n  run: {{epoch: 1 s{run}}}\n")),
            ("pairRate: 1e8 /s", "pairRate: 4e8 /s"),
            ("window: 120 ps", "window: 120 ps\n      tracking: {interval: 1 s}\n      acquisition: {window: 1 s}"),
            ("jitter: 50 ps}\n        - site: east", "jitter: 50 ps, deadTime: 1 ns}\n        - site: east"),
            ("jitter: 50 ps}\n      window", "jitter: 50 ps, deadTime: 1 ns}\n      window"),
        ],
    )
}

#[test]
fn what_a_link_at_counts_cannot_be_is_said_where_it_stands() {
    let no_correlator =
        at_counts(&changed(PAIRS, &[("window: 120 ps", "window: 120 ps\n      acquisition: {correlator: false}")]));
    insta::assert_snapshot!("a_link_without_correlator_at_counts", report(&no_correlator));
    insta::assert_snapshot!("an_epoch_of_too_many_counts", report(too_bright(", fidelity: counts")));
    let misspelt = changed(PAIRS, &[("spec:\n", "spec:\n  run: {fidelity: count}\n")]);
    insta::assert_snapshot!("a_fidelity_that_there_is_not", report(&misspelt));
}

#[test]
fn what_the_command_line_makes_of_a_document_is_judged_as_well() {
    let text = too_bright("");
    let topology = parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology;
    assert_eq!(refusals(&topology, &RunOptions::default()), Vec::<String>::new());
    let asked = RunOptions { fidelity: Some(Fidelity::Counts), ..RunOptions::default() };
    let refused = refusals(&topology, &asked);
    assert!(
        refused.len() == 1 && refused[0].starts_with("link west-east: ") && refused[0].contains("run.epoch"),
        "{refused:?}"
    );
}

/// A link of its own epoch, as long as its round.
fn coarse(good: &str, fidelity: &str) -> String {
    let own = format!("- name: west-east\n      fidelity: {fidelity}\n      epoch: 2 s\n");
    let text = changed(good, &[("- name: west-east\n", &own)]);
    match good.contains("round:") {
        true => text.replace("round: 10 s", "round: 2 s"),
        false => text.replace("      fidelity", "      round: 2 s\n      fidelity"),
    }
}

#[test]
fn a_link_has_an_epoch_of_its_own_and_every_service_of_it_counts_in_that() {
    for good in [PAIRS, DECOYS, DOT] {
        let options = RunOptions { seed: Some(7), duration_ps: Some(5_000_000_000_000), ..RunOptions::default() };
        let mut plan = planned(&coarse(good, "counts"), &options);
        assert_eq!((plan.links[0].epoch_ps, plan.end_ps()), (2_000_000_000_000, Some(6_000_000_000_000)));
        let source = plan.sources().next().unwrap();
        assert_eq!((source.epoch_ps, source.round_epochs, source.epochs_limit), (2_000_000_000_000, 1, Some(3)));
        for module in plan.modules() {
            let framing = module.protocol.post_processing.framing;
            assert_eq!((module.epoch_ps, module.epochs_limit), (framing.frame_ps, Some(3)));
            assert_eq!((framing.frame_ps, framing.round_frames), (2_000_000_000_000, 1));
        }
        // A run that goes on counts from where the link is.
        plan.shift_limits(|_| 40);
        assert!(plan.modules().all(|module| module.epochs_limit == Some(43)));
        let bytes = plan.resources().iter().map(|of_service| of_service.memory_bytes).max().unwrap();
        assert!(bytes < 2 << 30, "{bytes}");
    }
}

#[test]
fn what_only_clocks_ask_of_an_epoch_is_not_asked_of_counts() {
    // Not a multiple of the tracking interval, longer than the acquisition's window, than a reach, than a preamble.
    for good in [PAIRS, DECOYS, DOT] {
        let run = |fidelity: &str| {
            changed(good, &[("spec:\n", &format!("spec:\n  run: {{fidelity: {fidelity}, epoch: 400 ms}}\n"))])
        };
        planned(&run("counts"), &RunOptions::default());
        assert!(parse("net.yaml", run("tags").as_bytes()).is_err());
    }
}

#[test]
fn an_epoch_that_only_counts_may_have_is_refused_where_the_command_line_asks_for_tags() {
    for good in [PAIRS, DECOYS, DOT] {
        let text = coarse(good, "counts");
        let topology = parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology;
        let asked = |fidelity| RunOptions { fidelity: Some(fidelity), ..RunOptions::default() };
        assert_eq!(refusals(&topology, &asked(Fidelity::Counts)), Vec::<String>::new());
        let refused = refusals(&topology, &asked(Fidelity::Tags));
        let first = "link west-east: epoch: an epoch of 2 s; expected between 1 ms and 1 s, a multiple of 4 ps";
        assert_eq!(refused.first().map(String::as_str), Some(first), "{refused:?}");
    }
}
