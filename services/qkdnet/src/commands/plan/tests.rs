use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

/// What `qkdnet plan` says of a shipped network with these arguments.
fn shipped(name: &str, args: &[&str]) -> Report {
    let path = format!("{}/../../topologies/{name}", env!("CARGO_MANIFEST_DIR"));
    let words = ["qkdnet", "plan", path.as_str()].into_iter().chain(args.iter().copied());
    let Command::Plan(args) = Cli::try_parse_from(words).unwrap().command else { panic!("plan") };
    let topology = topology::parse(name, &std::fs::read(&path).unwrap()).unwrap().topology;
    report(&topology::plan::plan(&topology, &topology::plan::RunOptions::default()), &args)
}

/// The shipped network of entangled pairs.
fn nice() -> Vec<PairsReport> {
    let links = shipped("nice.yaml", &[]).links;
    links.into_iter().map(|link| if let LinkReport::Pairs(link) = link { *link } else { panic!("pairs") }).collect()
}

/// The one link of pulses of a shipped topology.
fn pulses(name: &str, args: &[&str]) -> PulsesReport {
    match shipped(name, args).links.pop() {
        Some(LinkReport::Pulses(link)) => *link,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_shipped_network_is_predicted_to_reach_what_was_published() {
    let links = nice();
    let short = links.iter().find(|link| link.name == "valrose-sophia").unwrap();
    assert!((short.total_loss_db - 33.5).abs() < 0.01);
    assert!((short.operating.skr_asymptotic_bps / 7069.0 - 1.0).abs() < 0.05, "{:?}", short.operating);
    assert!((short.operating.qber_z - 0.0424).abs() < 0.002, "{:?}", short.operating);
    assert!((short.operating.qber_x - 0.047).abs() < 0.002, "{:?}", short.operating);
    assert!(short.authentication_fraction < 0.01);
    let long = links.iter().find(|link| link.name == "valrose-calern").unwrap();
    assert!((long.total_loss_db - 45.0).abs() < 0.01);
    let rate_bps = long.operating.skr_asymptotic_bps;
    assert!(rate_bps * 1.3 > 175.0 && rate_bps < 175.0 * 1.3, "{rate_bps}");
    assert!((long.skr_loss_only_bps.unwrap() / 510.0 - 1.0).abs() < 0.05, "{:?}", long.skr_loss_only_bps);
}

#[test]
fn the_optimum_is_never_below_the_operating_point() {
    for link in nice() {
        assert!(link.optimum.skr_asymptotic_bps >= link.operating.skr_asymptotic_bps);
        assert!(link.optimum.qber_z > 0.045 && link.optimum.qber_z < 0.06);
    }
}

#[test]
fn text_and_json_hold_the_same_figures() {
    let report = shipped("nice.yaml", &[]);
    let text = text::render(&report);
    for needle in ["valrose - plaine-du-var - sophia", "= 33.50 dB", "operating point", "optimum", "% of the key"] {
        assert!(text.contains(needle), "{needle} is missing in\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["links"][0]["name"], "valrose-sophia");
    assert!(json["links"][0]["operating"]["skr_asymptotic_bps"].as_f64().unwrap() > 1000.0);
}

#[test]
fn every_link_says_what_its_tags_cost_an_hour_beside_its_key() {
    for name in ["nice.yaml", "quantum-dot-120.yaml", "cambridge.yaml"] {
        let report = shipped(name, &[]);
        let text = text::render(&report);
        assert_eq!(text.matches("bit/h, closed each").count(), report.links.len(), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        for link in json["links"].as_array().unwrap() {
            let figures = if link["operating"].is_null() { &link["figures"] } else { &link["operating"]["figures"] };
            let of = |name: &str| figures[name].as_f64().unwrap();
            let (tags, key) = (of("tagBitsPerHour"), of("keyBitsPerHour"));
            assert!(tags > 0.0 && tags < 0.01 * key && of("checkpointInterval") > 0.0, "{figures}");
            assert!((of("authenticationShare") - tags / key).abs() < 1e-9, "{figures}");
        }
    }
}

/// Gains, error rates and key of the published systems; the efficiency of reconciliation is the fitted or assumed one
/// of each.
#[test]
fn the_shipped_links_of_pulses_are_predicted_near_what_was_published() {
    let t12 = pulses("t12-50km.yaml", &["--efficiency", "1.088"]);
    println!("{t12:#?}");
    for (row, (gain, tolerance)) in t12.intensities.iter().zip([(4.812e-3, 0.001), (7.537e-4, 0.02), (3.056e-4, 0.01)])
    {
        assert!((row.gain / gain - 1.0).abs() < tolerance, "{row:?}");
    }
    assert!((t12.qber_key - 0.0426).abs() < 0.002 && (t12.qber_check - 0.0364).abs() < 0.002, "{t12:?}");
    assert!((t12.skr_bps / 1.09e6 - 1.0).abs() < 0.05, "{}", t12.skr_bps);
    let dot = pulses("quantum-dot-120.yaml", &["--efficiency", "1.16"]);
    println!("{dot:#?}");
    assert!((dot.qber_key - 0.0685).abs() < 0.001 && (dot.qber_check - 0.0960).abs() < 0.001, "{dot:?}");
    assert!((dot.skr_bps / 15.2 - 1.0).abs() < 0.2, "{}", dot.skr_bps);
    let reach_km = 120.0 + dot.margin_asymptotic_db.unwrap() / 0.1956;
    assert!((reach_km - 126.8).abs() < 1.5, "{reach_km} km");
    let deployed = pulses("quantum-dot-79.yaml", &["--efficiency", "1.16"]);
    println!("{deployed:#?}");
    assert!((deployed.skr_bps / 10.9e3 - 1.0).abs() < 0.05, "{}", deployed.skr_bps);
    let copenhagen = pulses("quantum-dot-18.yaml", &["--efficiency", "1.16"]);
    println!("{copenhagen:#?}");
    assert!((copenhagen.skr_bps / 2e3 - 1.0).abs() < 0.1, "{}", copenhagen.skr_bps);
    for (name, efficiency, rates) in [
        ("cambridge.yaml", "1.088", &[4.84e6, 4.51e6, 6.75e6][..]),
        ("ukqn-backbone.yaml", "1.09", &[41.2e3, 22.2e3, 297e3, 297e3][..]),
    ] {
        let links = shipped(name, &["--efficiency", efficiency]).links;
        assert_eq!(links.len(), rates.len());
        for (link, rate_bps) in links.iter().zip(rates) {
            let LinkReport::Pulses(link) = link else { panic!("pulses") };
            assert!((link.skr_bps / rate_bps - 1.0).abs() < 0.05, "{}: {}", link.name, link.skr_bps);
        }
    }
}

#[test]
fn an_optimum_is_not_below_today_and_its_snippet_is_what_it_says() {
    let args = ["--optimise", "--block", "20 min", "--efficiency", "1.1"];
    for name in ["t12-50km.yaml", "quantum-dot-79.yaml", "nice-50km.yaml"] {
        let report = shipped(name, &args);
        let [proposal] = report.proposals.as_slice() else { panic!("one link") };
        println!("{}", text::render(&report));
        assert!(proposal.best_bps >= proposal.today_bps * 0.999, "{proposal:?}");
        assert_eq!(*proposal, shipped(name, &args).proposals[0]);
        let snippet: serde_yaml::Value = serde_yaml::from_str(&proposal.snippet).unwrap();
        assert!(snippet.get("source").is_some(), "{}", proposal.snippet);
    }
    assert!(shipped("t12-50km.yaml", &[]).proposals.is_empty());
}

#[test]
fn a_twin_field_is_planned_beside_what_was_published_and_does_not_run() {
    for (name, verdict) in [
        ("twin-field-404.yaml", "fitted, no verdict"),
        ("twin-field-518.yaml", "agrees"),
        ("twin-field-616.yaml", "does not agree"),
        ("twin-field-511.yaml", "fitted, no verdict"),
        ("twin-field-1002.yaml", "fitted, no verdict"),
    ] {
        let report = shipped(name, &[]);
        let text = text::render(&report);
        println!("{text}");
        let [LinkReport::TwinField(link)] = report.links.as_slice() else { panic!("{name}") };
        assert_eq!(link.references[0].verdict, verdict, "{name}");
        for needle in [verdict, "plan only", "odd pairs", "finite (simplified)", "0 services"] {
            assert!(text.contains(needle), "{needle} is missing in\n{text}");
        }
        assert_eq!(link.no_key.is_some(), name == "twin-field-616.yaml");
        let path = format!("{}/../../topologies/{name}", env!("CARGO_MANIFEST_DIR"));
        let topology = topology::parse(name, &std::fs::read(&path).unwrap()).unwrap().topology;
        let refused = crate::commands::up::can_run(&topology).unwrap_err();
        assert!(refused.to_string().contains("plan only"), "{refused}");
    }
}
