//! The planner: which services there are, who talks to whom, and what each one knows.

#![allow(clippy::unwrap_used)]

use distill::config::Side;
use photonics::config::Outage;
use proptest::prelude::*;
use topology::document::Speed;
use topology::plan::{Plan, RunOptions, ServiceConfig, plan};
use topology::{Topology, parse};

const GOOD: &str = include_str!("minimal.yaml");

fn topology(changes: &[(&str, &str)]) -> Topology {
    let text = changes.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    parse("net.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology
}

fn nice() -> Topology {
    let text = include_str!("../../../topologies/nice.yaml");
    parse("nice.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology
}

#[test]
fn the_plan_of_nice_is_as_published() {
    insta::assert_yaml_snapshot!(plan(&nice(), &RunOptions::default()));
}

/// In epochs of 20 ms, beginning with the first one that is not before its time.
#[test]
fn cooling_and_outages_are_planned_in_whole_epochs_for_the_source_and_for_their_own_detectors() {
    let cooling = "jitter: 50 ps, cooling: {holdTime: 10 min, recyclingTime: 30 s}}\n        - site: east";
    let outage = "window: 120 ps\n      outages: [{at: 1.01 s, lasts: 5 s, cause: a test}]";
    let changes = [("jitter: 50 ps}\n        - site: east", cooling), ("window: 120 ps", outage)];
    let plan = plan(&topology(&changes), &RunOptions::default());
    let cooled = Outage { first_epoch: 30_000, epochs: 1_500, period_epochs: 31_500 };
    let of_source: Vec<_> = plan.sources().next().unwrap().outages.iter().map(|o| (o.output, o.epochs)).collect();
    let once = Outage { first_epoch: 51, epochs: 250, period_epochs: 0 };
    assert_eq!(of_source, [(Some(0), cooled), (None, once)]);
    let of_detectors: Vec<_> = plan.detectors().map(|detector| detector.outages.clone()).collect();
    assert_eq!(of_detectors, [vec![cooled], vec![]]);
}

#[test]
fn every_connection_is_accepted_at_the_other_end_and_nothing_else_is() {
    let plan = plan(&nice(), &RunOptions::default());
    assert_eq!(plan.services.len(), 17);
    for service in &plan.services {
        for peer in &service.connects_to {
            let peer = plan.service(peer).unwrap();
            assert!(peer.accepts.contains(&service.name), "{} -> {}", service.name, peer.name);
            let within = [&peer.link, &service.link];
            assert!(within.contains(&&None) || peer.link == service.link, "{} -> {}", service.name, peer.name);
        }
        for caller in service.accepts.iter().filter(|caller| *caller != "control") {
            assert!(plan.service(caller).unwrap().connects_to.contains(&service.name));
        }
    }
}

#[test]
fn every_site_that_ends_a_link_has_a_key_store_and_far_pairs_are_relayed_by_the_smaller_name() {
    let plan = plan(&nice(), &RunOptions::default());
    let stores: Vec<&str> = plan.key_stores().map(|store| store.site.as_str()).collect();
    assert_eq!(stores, ["calern", "sophia", "valrose"]);
    for planned in plan.key_stores() {
        assert!(planned.peers.iter().all(|peer| peer.adjacent), "far sites are in the directory, once for all");
        let store = plan.directory.complete_kms(planned.clone());
        let peers = store.peers.iter().map(|peer| (peer.site.as_str(), peer.adjacent));
        let far = peers.filter(|(_, adjacent)| !adjacent).map(|(site, _)| site).collect::<Vec<_>>();
        let expected: &[&str] = match store.site.as_str() {
            "calern" => &["sophia"],
            "sophia" => &["calern"],
            _ => &[],
        };
        assert_eq!(far, expected, "{}", store.site);
        let callers = store.accepts.iter().filter(|caller| caller.starts_with("kms-"));
        let smaller = store.peers.iter().filter(|peer| peer.site < store.site).map(|peer| &peer.service);
        assert!(callers.eq(smaller), "{}: {:?}", store.site, store.accepts);
        assert_eq!(store.directory.len(), 3, "everybody's applications");
    }
    let relays = plan.relays().map(|relay| plan.directory.complete_relay(relay.clone()));
    let filled: Vec<(String, Vec<String>)> = relays.map(|relay| (relay.site, relay.targets)).collect();
    let expected = [("calern", vec!["sophia"]), ("sophia", vec![]), ("valrose", vec![])];
    assert_eq!(filled, expected.map(|(site, far)| (site.to_owned(), far.into_iter().map(str::to_owned).collect())));
}

#[test]
fn neighbours_that_links_lead_around_get_key_that_way_only_where_it_is_asked_for() {
    let text = include_str!("../../../topologies/cambridge.yaml");
    let rerouted = |text: &str| {
        let network = parse("cambridge.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}")).topology;
        let plan = plan(&network, &RunOptions::default());
        let pairs = |relay: &topology::plan::RelayConfig| {
            assert!(plan.directory.complete_relay(relay.clone()).targets.is_empty(), "all are neighbours");
            let near = relay.neighbours.iter().filter(|near| near.rerouted);
            near.map(|near| format!("{} {}", relay.site, near.site)).collect::<Vec<_>>()
        };
        plan.relays().flat_map(pairs).collect::<Vec<_>>()
    };
    assert_eq!(rerouted(text), ["cape engi", "cape trel", "engi trel"]);
    let direct = text.replace(", reroute: true", "");
    assert_ne!(direct, text);
    assert!(rerouted(&direct).is_empty());
}

/// A chain of sites with an application each, so that every two of them share a pool.
fn chain(sites: usize) -> Topology {
    let topology = nice();
    let names = |index: usize| topology::document::Name::parse(&format!("n{index:04}")).unwrap();
    let (mut chain, link) = (topology.clone(), &topology.spec.links[0]);
    chain.spec.sites = (0..sites)
        .map(|index| {
            let mut site = topology.spec.sites[0].clone();
            (site.name, site.saes) =
                (names(index), vec![topology::document::Name::parse(&format!("sae-{index}")).unwrap()]);
            site
        })
        .collect();
    chain.spec.links = (1..sites)
        .map(|index| {
            let mut link = link.clone();
            link.name = topology::document::Name::parse(&format!("l{index:04}")).unwrap();
            (link.arms[0].site, link.arms[1].site) = (names(index - 1), names(index));
            link
        })
        .collect();
    chain
}

#[test]
fn a_plan_grows_with_the_sites_and_not_with_their_pairs() {
    let plans = [50, 100].map(|sites| plan(&chain(sites), &RunOptions::default()));
    let bytes = plans.each_ref().map(|plan| serde_yaml::to_string(plan).unwrap().len());
    assert!(bytes[1] < bytes[0] * 21 / 10, "{bytes:?}");
    let store = plans[1].key_stores().nth(50).unwrap();
    assert_eq!(plans[1].directory.complete_kms(store.clone()).peers.len(), 99, "each site still knows all others");
}

#[test]
fn sites_that_nothing_joins_are_no_peers_of_each_other() {
    let mut topology = chain(7);
    topology.spec.links.remove(3);
    let plan = plan(&topology, &RunOptions::default());
    let peers = |site: &str| plan.directory.reachable(site).collect::<Vec<_>>();
    assert_eq!(peers("n0001"), ["n0000", "n0002", "n0003"]);
    assert_eq!(peers("n0004"), ["n0005", "n0006"]);
    assert_eq!(plan.directory.applications().count(), 7, "who asks for one of another part is told so by name");
}

#[test]
fn links_alone_have_no_key_stores() {
    let mut plan = plan(&nice(), &RunOptions::default());
    plan.without_key_management();
    assert_eq!((plan.services.len(), plan.key_stores().count()), (11, 0), "two links and what keeps them at one time");
    assert!(plan.modules().all(|module| module.kms.is_none()));
    assert!(plan.services.iter().all(|s| s.connects_to.iter().all(|peer| plan.service(peer).is_some())));
}

#[test]
fn links_are_kept_at_one_time_where_there_is_more_than_one() {
    let mut topology = nice();
    let plan_of = |topology: &Topology| plan(topology, &RunOptions::default());
    let mut both = plan_of(&topology);
    let pacer = both.pacer().unwrap().clone();
    let links: Vec<&str> = pacer.sources.iter().map(|source| source.link.as_str()).collect();
    assert_eq!(links, both.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>());
    assert_eq!(pacer.skew_ps, 1_000_000_000_000, "a second, where that is more than an epoch");
    assert!(both.sources().all(|source| source.pacing.as_ref().is_some_and(|pacing| pacing.service == pacer.name)));
    let first = both.links[0].name.clone();
    both.without_key_management();
    both.retain(|service| service.link.as_ref() == Some(&first));
    assert!(both.pacer().is_none() && both.sources().all(|source| source.pacing.is_none()));
    assert!(both.services.iter().all(|service| service.connects_to.iter().all(|peer| both.service(peer).is_some())));
    topology.spec.run.skew = Some("3 s".parse().unwrap());
    assert_eq!(plan_of(&topology).pacer().unwrap().skew_ps, 3_000_000_000_000);
    topology.spec.links.truncate(1);
    assert!(plan_of(&topology).pacer().is_none());
}

#[test]
fn links_go_on_where_they_were_and_those_that_are_far_behind_go_on_where_the_network_is() {
    let plan = plan(&nice(), &RunOptions::default());
    let names: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
    let begins = |seen: [u64; 2]| {
        let seen = names.iter().map(|name| name.to_string()).zip(seen).collect();
        let begins = plan.begins(&seen);
        names.iter().map(|name| begins[*name]).collect::<Vec<u64>>()
    };
    // A second is 50 epochs.
    assert_eq!(begins([0, 0]), [0, 0]);
    assert_eq!(begins([1234, 1190]), [1234, 1190]);
    assert_eq!(begins([100, 1234]), [1184, 1234]);
}

#[test]
fn the_end_with_the_larger_loss_announces_and_the_other_one_matches() {
    let sides = |plan: Plan| -> Vec<Side> {
        let planned: Vec<Side> = plan.links[0].ends.iter().map(|end| end.side).collect();
        let told: Vec<Side> = plan.modules().map(|module| module.protocol.side()).collect();
        assert_eq!(planned, told);
        planned
    };
    assert_eq!(sides(plan(&topology(&[]), &RunOptions::default())), [Side::Corrector, Side::Reference]);
    let turned = topology(&[("length: 10 km", "length: 14 km")]);
    assert_eq!(sides(plan(&turned, &RunOptions::default())), [Side::Reference, Side::Corrector]);
    let worse_detector = topology(&[("efficiency: 80 %", "efficiency: 10 %")]);
    assert_eq!(sides(plan(&worse_detector, &RunOptions::default())), [Side::Reference, Side::Corrector]);
}

#[test]
fn both_ends_agree_on_everything_but_their_role() {
    let plan = plan(&nice(), &RunOptions::default());
    let modules: Vec<_> = plan.modules().collect();
    for ends in modules.chunks(2) {
        let [one, other] = [0, 1].map(|end| &ends[end].protocol);
        assert_ne!(one, other);
        assert_eq!(one.in_common(), other.in_common());
    }
}

#[test]
fn options_override_the_document() {
    let written = topology(&[("spec:\n", "spec:\n  run: {speed: 1, for: 10.01 s, seed: 4}\n")]);
    let own = plan(&written, &RunOptions::default());
    assert_eq!((own.speed, own.limit_ps, own.repeatable), (Speed::RealTime(1.0), Some(10_010_000_000_000), true));
    assert_eq!((own.sources().next().unwrap().epochs_limit, own.end_ps()), (Some(501), Some(10_020_000_000_000)));
    let options = RunOptions {
        seed: Some(5),
        speed: Some(Speed::Max),
        duration_ps: Some(2_000_000_000_000),
        ..RunOptions::default()
    };
    let overridden = plan(&written, &options);
    assert_eq!((overridden.speed, overridden.limit_ps), (Speed::Max, options.duration_ps));
    assert_ne!(own.sources().next().unwrap().subseed, overridden.sources().next().unwrap().subseed);
}

#[test]
fn a_seed_warns_and_gives_each_role_a_subseed_of_its_own() {
    let without = plan(&nice(), &RunOptions::default());
    assert!(without.warnings.is_empty() && !without.repeatable);
    assert!(without.sources().all(|source| source.subseed.is_none()));

    let options = RunOptions { seed: Some(1), ..RunOptions::default() };
    let with = plan(&nice(), &options);
    assert_eq!(with, plan(&nice(), &options));
    assert!(with.warnings[0].contains("worthless"));
    let mut seeds: Vec<[u8; 32]> = with.sources().map(|source| *source.subseed.as_ref().unwrap().bytes()).collect();
    for detector in with.detectors() {
        seeds.push(*detector.instrument_subseed.as_ref().unwrap().bytes());
        seeds.push(*detector.module.subseed.as_ref().unwrap().bytes());
    }
    assert_eq!(seeds.len(), 10);
    for (index, seed) in seeds.iter().enumerate() {
        assert!(!seeds[..index].contains(seed));
    }
}

#[test]
fn a_seed_never_shows_in_debug_output() {
    let plan = plan(&nice(), &RunOptions { seed: Some(1), ..RunOptions::default() });
    let source = plan.sources().next().unwrap();
    let hex: String = source.subseed.as_ref().unwrap().bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!format!("{plan:?}").contains(&hex));
    assert!(serde_yaml::to_string(source).unwrap().contains(&hex), "a service started from a file needs it");
}

#[test]
fn disturbances_add_up_to_levels_in_order_of_time() {
    let text = "window: 120 ps
      disturbances:
        - {type: phase, at: 20 s, site: east, step: 0.5 rad}
        - {type: phase, at: 10 s, site: east, step: 0.2 rad}
        - {type: polarisation, at: 5 s, site: west, step: 1 rad}
        - {type: pump, at: 1 s, factor: 0.5}
        - {type: pump, at: 2 s, factor: 0.5}";
    let plan = plan(&topology(&[("window: 120 ps", text)]), &RunOptions::default());
    let source = plan.entangled(&plan.links[0]).unwrap().pairs;
    let levels =
        |steps: &[photonics::config::Step]| steps.iter().map(|step| (step.at_s, step.value)).collect::<Vec<_>>();
    assert_eq!(levels(&source.analysers[1].steps), [(10.0, 0.2), (20.0, 0.7)]);
    assert_eq!(levels(&source.analysers[0].steps), []);
    assert_eq!(levels(&source.arms[0].polarisation.steps), [(5.0, 1.0)]);
    assert_eq!(levels(&source.emitter.steps), [(1.0, 0.5), (2.0, 0.25)]);
}

#[test]
fn fewer_epochs_than_a_round_are_worth_a_warning() {
    let plan = plan(&topology(&[]), &RunOptions { duration_ps: Some(1_000_000_000_000), ..RunOptions::default() });
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].contains("before its first round"));
}

#[test]
fn a_configuration_survives_yaml_and_refuses_what_it_does_not_know() {
    let plan = plan(&nice(), &RunOptions { seed: Some(3), ..RunOptions::default() });
    for service in &plan.services {
        let text = serde_yaml::to_string(&service.config).unwrap();
        let again: ServiceConfig = serde_yaml::from_str(&text).unwrap();
        assert_eq!(again, service.config);
        assert!(serde_yaml::from_str::<ServiceConfig>(&format!("{text}colour: blue\n")).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever passes validation can be planned, with services that exist once each.
    #[test]
    fn valid_documents_give_unique_dns_labels(length_km in 0.0f64..300.0, efficiency in 1u32..100, seed in any::<u64>()) {
        let text = GOOD
            .replace("length: 10 km", &format!("length: {length_km:.3} km"))
            .replace("efficiency: 80 %", &format!("efficiency: {efficiency} %"));
        if let Ok(document) = parse("net.yaml", text.as_bytes()) {
            let plan = plan(&document.topology, &RunOptions { seed: Some(seed), ..RunOptions::default() });
            for (index, service) in plan.services.iter().enumerate() {
                prop_assert!(topology::document::Name::parse(&service.name).is_some());
                prop_assert!(plan.services[..index].iter().all(|other| other.name != service.name));
            }
        }
    }
}
