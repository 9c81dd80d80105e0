//! What people write, by hand or on the command line: topologies, configurations, names.

use std::path::Path;

use etsi014::Fingerprint;
use etsi014::supply::{KeyId, SaeId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shell::launch::ServiceFile;
use telemetry::trace::{parse_traceparent, traceparent};
use topology::document::Fidelity;
use topology::plan::{Plan, RunOptions, ServiceConfig};

use crate::engine::{Target, verdict};

pub fn shipped(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../topologies").join(name)).unwrap()
}

pub fn plan(name: &str) -> Plan {
    let document = topology::parse(name, &shipped(name)).unwrap_or_else(|why| panic!("{why}"));
    topology::plan::plan(&document.topology, &RunOptions::default())
}

/// With the light of every link as counts.
pub fn plan_at_counts(name: &str) -> Plan {
    let document = topology::parse(name, &shipped(name)).unwrap_or_else(|why| panic!("{why}"));
    let options = RunOptions { fidelity: Some(Fidelity::Counts), ..RunOptions::default() };
    topology::plan::plan(&document.topology, &options)
}

#[test]
fn a_topology_is_planned_or_every_problem_of_it_is_said() {
    let small = include_bytes!("../../crates/topology/tests/minimal.yaml").to_vec();
    const WORDS: &[&str] = &[
        "km",
        " dB",
        "1e999",
        "-0",
        "NaN",
        ".inf",
        "&a ",
        "*a",
        "<<: *a",
        "!!binary ",
        "? ",
        "- ",
        ": ",
        "{",
        "}",
        "\n  ",
        "\t",
        "spec:",
        "sites:",
        "links:",
        "arms:",
        "name: ",
        "source:",
        "keyManagement: {",
        "saes: [",
        "null",
        "~",
        "---\n",
        "|\n",
    ];
    let target = Target { words: WORDS, share: 5, ..Target::new("topologies", vec![small, shipped("nice-50km.yaml")]) };
    target.fuzz(|input| match topology::parse("fuzz.yaml", input) {
        Ok(document) => {
            topology::plan::plan(&document.topology, &RunOptions::default());
            "good".to_owned()
        }
        Err(problems) => {
            let text = problems.to_string();
            assert!(!text.is_empty());
            text.lines().next().unwrap_or_default().to_owned()
        }
    });
}

/// A configuration that is read comes out as it went in.
fn configuration<C: DeserializeOwned + Serialize>(input: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(input) else { return "no text".to_owned() };
    let read: Result<ServiceFile<C>, _> = serde_yaml::from_str(text);
    if let Ok(file) = &read {
        let again = serde_yaml::to_string(file).unwrap();
        let second: ServiceFile<C> = serde_yaml::from_str(&again).unwrap();
        assert_eq!(serde_yaml::to_string(&second).unwrap(), again);
    }
    verdict(&read)
}

#[test]
fn configurations_of_services_are_read_or_refused() {
    let plan = plan("nice.yaml");
    let file = |service: &ServiceConfig| {
        let inner = match service {
            ServiceConfig::Source(config) => serde_yaml::to_value(config),
            ServiceConfig::Detector(config) => serde_yaml::to_value(config),
            ServiceConfig::Transmitter(config) => serde_yaml::to_value(config),
            ServiceConfig::Channel(config) => serde_yaml::to_value(config),
            ServiceConfig::Kms(config) => serde_yaml::to_value(config),
            ServiceConfig::Relay(config) => serde_yaml::to_value(config),
            ServiceConfig::Pacer(config) => serde_yaml::to_value(config),
        };
        let own = serde_yaml::to_string(&serde_yaml::Value::Mapping(
            [("service".into(), inner.unwrap())].into_iter().collect(),
        ));
        format!("{}topology: nice\npki: p\nrun_dir: r\ndata: d\npeers: {{a: '127.0.0.1:1'}}\n", own.unwrap())
    };
    type Read = fn(&[u8]) -> String;
    let readers: [(&str, &'static str, Read); 6] = [
        ("source", "source configurations", configuration::<topology::plan::SourceConfig>),
        ("detector", "detector configurations", configuration::<topology::plan::DetectorConfig>),
        ("channel", "channel configurations", configuration::<topology::plan::ChannelConfig>),
        ("kms", "key store configurations", configuration::<topology::plan::KmsConfig>),
        ("relay", "relay configurations", configuration::<topology::plan::RelayConfig>),
        ("pacer", "pacer configurations", configuration::<topology::plan::PacerConfig>),
    ];
    for (kind, name, read) in readers {
        let of_kind = plan.services.iter().filter(|service| service.config.kind() == kind);
        let good: Vec<Vec<u8>> = of_kind.take(2).map(|service| file(&service.config).into_bytes()).collect();
        assert!(good.iter().all(|text| read(text) == "good"), "{kind}: {}", read(&good[0]));
        Target { words: &["null", "- ", ": ", "1e400", "{}", "[]", "\n"], share: 5, ..Target::new(name, good) }
            .fuzz(read);
    }
}

#[test]
fn names_are_read_and_written_alike() {
    let good = [
        "bc490419-7d60-487f-adc1-4ddcc177c139",
        "SAE A/1 é",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "127.0.0.1:4317",
        "file:/run/kms.addr",
        &"ab:".repeat(31),
        "33.5 dB",
        "120 ps",
    ];
    Target::new("names", good.iter().map(|text| text.as_bytes().to_vec()).collect()).fuzz(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return "no text".to_owned() };
        let mut kinds = String::new();
        if let Ok(id) = text.parse::<KeyId>() {
            assert_eq!(id.to_string(), text.to_ascii_lowercase());
            kinds += "key ID ";
        }
        if let Ok(sae) = SaeId::new(text) {
            assert_eq!(sae.as_str(), text);
            kinds += "SAE ID ";
        }
        if let Ok(print) = text.parse::<Fingerprint>() {
            assert_eq!(print.to_string().parse::<Fingerprint>(), Ok(print));
            kinds += "fingerprint ";
        }
        if let Some(context) = parse_traceparent(text) {
            assert_eq!(parse_traceparent(&traceparent(&context)), Some(context));
            kinds += "trace ";
        }
        if let Ok(endpoint) = text.parse::<shell::Endpoint>() {
            assert!(endpoint.to_string().parse::<shell::Endpoint>().is_ok());
            kinds += "endpoint ";
        }
        if let Ok(loss) = text.parse::<topology::quantity::Loss>() {
            assert!(loss.to_string().parse::<topology::quantity::Loss>().is_ok(), "{loss}");
            kinds += "loss ";
        }
        if let Ok(time) = text.parse::<topology::quantity::Duration>() {
            assert!(time.to_string().parse::<topology::quantity::Duration>().is_ok(), "{time}");
            kinds += "duration ";
        }
        kinds
    });
}
