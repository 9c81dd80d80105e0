use super::*;

/// The shipped network.
fn nice() -> Report {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../topologies/nice.yaml");
    let document = topology::parse("nice.yaml", &std::fs::read(path).unwrap()).unwrap();
    report(&topology::plan::plan(&document.topology, &topology::plan::RunOptions::default()))
}

#[test]
fn the_shipped_network_is_predicted_to_reach_what_was_published() {
    let report = nice();
    let short = report.links.iter().find(|link| link.name == "valrose-sophia").unwrap();
    assert!((short.total_loss_db - 33.5).abs() < 0.01);
    assert!((short.operating.skr_asymptotic_bps / 7069.0 - 1.0).abs() < 0.05, "{:?}", short.operating);
    assert!((short.operating.qber_z - 0.0424).abs() < 0.002, "{:?}", short.operating);
    assert!((short.operating.qber_x - 0.047).abs() < 0.002, "{:?}", short.operating);
    assert!(short.authentication_fraction < 0.01);
    let long = report.links.iter().find(|link| link.name == "valrose-calern").unwrap();
    assert!((long.total_loss_db - 45.0).abs() < 0.01);
    let rate_bps = long.operating.skr_asymptotic_bps;
    assert!(rate_bps * 1.3 > 175.0 && rate_bps < 175.0 * 1.3, "{rate_bps}");
    assert!((long.skr_loss_only_bps.unwrap() / 510.0 - 1.0).abs() < 0.05, "{:?}", long.skr_loss_only_bps);
}

#[test]
fn the_optimum_is_never_below_the_operating_point() {
    for link in nice().links {
        assert!(link.optimum.skr_asymptotic_bps >= link.operating.skr_asymptotic_bps);
        assert!(link.optimum.qber_z > 0.045 && link.optimum.qber_z < 0.06);
    }
}

#[test]
fn text_and_json_hold_the_same_figures() {
    let report = nice();
    let text = text::render(&report);
    for needle in ["valrose - plaine-du-var - sophia", "= 33.50 dB", "operating point", "optimum", "% of the key"] {
        assert!(text.contains(needle), "{needle} is missing in\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["links"][0]["name"], "valrose-sophia");
    assert!(json["links"][0]["operating"]["skr_asymptotic_bps"].as_f64().unwrap() > 1000.0);
}
