//! The topologies that come with the project.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use topology::plan::{RunOptions, ServiceConfig, SourceConfig, plan};
use topology::provenance::{Origin, physical_values};
use topology::{Document, parse};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topologies")
}

fn read(file: &str) -> Document {
    let bytes = std::fs::read(folder().join(file)).unwrap();
    parse(file, &bytes).unwrap_or_else(|problems| panic!("{problems}"))
}

fn shipped() -> Vec<String> {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    assert!(names.contains(&"nice.yaml".to_owned()));
    names
}

#[test]
fn every_shipped_topology_is_valid_without_warnings() {
    for file in shipped() {
        let document = read(&file);
        assert!(document.warnings.is_empty(), "{}", document.warnings);
        assert_eq!(plan(&document.topology, &RunOptions::default()).warnings, Vec::<String>::new());
    }
}

/// Services in processes and containers are told by files; hosted ones by files that say the kind, too.
#[test]
fn what_a_service_is_told_comes_through_its_file() {
    for file in shipped() {
        let plan = plan(&read(&file).topology, &RunOptions { seed: Some(7), ..RunOptions::default() });
        for service in &plan.services {
            let text = serde_yaml::to_string(&service.config).unwrap();
            let read: ServiceConfig = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read, service.config, "{file}");
            if let ServiceConfig::Source(config) = &service.config {
                let text = serde_yaml::to_string(config).unwrap();
                let read: SourceConfig = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
                assert_eq!(read, **config, "{file}");
            }
        }
    }
}

#[test]
fn every_physical_value_of_a_shipped_topology_says_where_it_is_from() {
    for file in shipped() {
        let values = physical_values(&read(&file).topology);
        assert!(values.len() > 50);
        let silent: Vec<&str> =
            values.iter().filter(|value| value.source.is_none()).map(|value| value.path.as_str()).collect();
        assert!(silent.is_empty(), "{file}: {silent:#?}");
        for origin in [Origin::Published, Origin::Inferred, Origin::Assumed] {
            assert!(values.iter().any(|value| value.origin == origin), "{file}: nothing is {origin:?}");
        }
    }
}

#[test]
fn the_links_of_nice_have_their_published_losses() {
    let plan = plan(&read("nice.yaml").topology, &RunOptions::default());
    for (link, total_db, arms_db) in [("valrose-sophia", 33.5, [15.1, 18.4]), ("valrose-calern", 45.0, [15.1, 29.9])] {
        let link = plan.link(link).unwrap();
        assert!((link.total_loss_db() - total_db).abs() < 1e-4, "{}", link.total_loss_db());
        for (end, expected) in link.ends.iter().zip(arms_db) {
            assert!((end.loss_db - expected).abs() < 0.05, "{}", end.loss_db);
        }
        assert_eq!(link.reference(), 1, "the end with fewer clicks announces");
    }
}

#[test]
fn the_coincidence_peaks_of_nice_have_their_inferred_widths() {
    let plan = plan(&read("nice.yaml").topology, &RunOptions::default());
    for (link, expected_ps) in plan.links.iter().zip([87.0, 202.0]) {
        let source = plan.entangled(link).unwrap().pairs;
        let dispersion: f64 = source.arms.iter().map(|arm| arm.dispersion_ps_per_nm).sum();
        let spread_ps = dispersion * source.emitter.bandwidth_nm;
        let jitter: f64 = source.detectors.iter().map(|detector| detector.jitter_fwhm_ps.powi(2)).sum();
        let width_ps = (jitter + spread_ps.powi(2)).sqrt();
        assert!((width_ps - expected_ps).abs() < 1.0, "{}: {width_ps}", link.name);
    }
}

#[test]
fn authentication_costs_less_than_a_hundredth_of_the_key_of_nice() {
    // One tag of 128 bits per direction and round.
    const TAG_BITS_PER_ROUND: f64 = 256.0;
    let plan = plan(&read("nice.yaml").topology, &RunOptions::default());
    for (link, source) in plan.links.iter().zip(plan.sources()) {
        let round_s = source.round_epochs as f64 * source.epoch_ps as f64 * 1e-12;
        let key_bits = link.references[0].published * round_s;
        assert!(TAG_BITS_PER_ROUND < 0.01 * key_bits, "{}", link.name);
    }
}

#[test]
fn the_short_file_holds_the_same_50_km_link() {
    let (long, short) = (read("nice.yaml").topology, read("nice-50km.yaml").topology);
    assert_eq!(short.spec.links, long.spec.links[..1]);
    assert_eq!(short.spec.sites, long.spec.sites[..3]);
    assert_eq!(short.spec.run, long.spec.run);
}

#[test]
fn a_shipped_topology_survives_being_written_and_read_again() {
    for file in shipped() {
        let topology = read(&file).topology;
        let text = serde_yaml::to_string(&topology).unwrap();
        let again = parse("again.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(again.topology, topology);
    }
}
