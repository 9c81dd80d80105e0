//! A real OpenTelemetry collector (rotel, from PyPI), which writes down every span that it receives, with its links.
//! `make collector` installs it into `target/collector`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::keys::{Network, eventually, keys};
use crate::support::{Place, bright_network_with_small_transfers, repository};

/// A program that is killed in the end.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Collector {
    _program: Program,
    endpoint: String,
    log: PathBuf,
}

/// Where `make collector` puts the program; `None` with a loud word where it is not.
fn program() -> Option<PathBuf> {
    let program = repository().join("target/collector/rotel-agent");
    if program.is_file() {
        return Some(program);
    }
    eprintln!("SKIPPED: NO COLLECTOR AT {}: run `make collector`, which needs PyPI", program.display());
    None
}

/// A port that nothing listens at.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address")
}

impl Collector {
    fn start(folder: &Path) -> Option<Self> {
        let program = program()?;
        let (log, grpc, http) = (folder.join("rotel.log"), free_port(), free_port());
        let output = fs::File::create(&log).expect("make a file");
        let child = Command::new(program)
            .args(["start", "--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()])
            .args(["--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("share a file"))
            .stderr(output)
            .spawn()
            .expect("start rotel");
        let program = Program(child);
        eventually("a collector that listens", || TcpStream::connect(grpc).ok()).expect("it does not listen");
        Some(Self { _program: program, endpoint: format!("http://{grpc}"), log })
    }

    /// Every span that has arrived.
    fn spans(&self) -> Vec<Arrived> {
        let text = fs::read(&self.log).expect("read what arrived");
        let mut spans: Vec<Arrived> = Vec::new();
        for line in String::from_utf8_lossy(&text).lines() {
            if line.starts_with("Span #") {
                spans.push(Arrived::default());
            }
            let (Some(span), Some((name, value))) = (spans.last_mut(), line.trim().split_once(':')) else { continue };
            let value = value.trim().to_owned();
            match name.trim() {
                "Trace ID" => span.trace = value,
                "Name" => span.name = value,
                // Of a link.
                "-> Trace ID" => span.links.push(value),
                _ => {}
            }
        }
        spans
    }
}

/// A span as the collector writes it down.
#[derive(Clone, Debug, Default)]
struct Arrived {
    trace: String,
    name: String,
    /// Traces that it is linked to.
    links: Vec<String>,
}

#[test]
fn a_collector_receives_the_spans_of_a_delivered_key_with_links_to_its_blocks() {
    let place = Place::new(&bright_network_with_small_transfers());
    let Some(collector) = Collector::start(&place.path("")) else { return };
    let network = Network::start_with(&place, "process", |command| {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "200");
    });
    for (master, slave) in [("university", "inria"), ("inria", "observatory")] {
        let got = network.get(master, slave, "2");
        let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
        let fetched = network.fetch(slave, master, &ids);
        assert!(keys(&fetched.stdout) == got, "{}", String::from_utf8_lossy(&fetched.stderr));
    }
    network.stop();

    let wanted = [
        "qkd.source.emit",
        "qkd.block",
        "qkd.store",
        "qkd.kms.ingest",
        "qkd.kms.supply",
        "qkd.kms.fetch",
        "qkd.kms.key",
        "qkd.kms.relay",
        "qkd.relay.transfer",
    ];
    let arrived = eventually("every kind of span has arrived", || {
        let spans = collector.spans();
        let keys = spans.iter().filter(|span| span.name == "qkd.kms.key").count();
        let all = wanted.iter().all(|name| spans.iter().any(|span| span.name == *name));
        (all && keys >= 8).then_some(spans)
    });
    let spans = arrived.unwrap_or_else(|| {
        let names: BTreeSet<String> = collector.spans().into_iter().map(|span| span.name).collect();
        panic!("of {wanted:?} only {names:?} arrived")
    });
    let mut traces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for span in &spans {
        traces.entry(span.trace.clone()).or_default().insert(span.name.clone());
    }
    let mut linked = BTreeSet::new();
    for key in spans.iter().filter(|span| span.name == "qkd.kms.key") {
        assert!(!key.links.is_empty(), "the span of a key has no links: {key:?}");
        for trace in &key.links {
            linked.extend(traces.get(trace).unwrap_or_else(|| panic!("the trace {trace} did not arrive")).clone());
        }
    }
    // From light to both kinds of pools.
    for name in ["qkd.source.emit", "qkd.block", "qkd.kms.ingest", "qkd.relay.transfer"] {
        assert!(linked.contains(name), "no key is linked to {name}: {linked:?}");
    }
    // Where a collector takes them, spans are not kept beside it.
    let kept = fs::read_dir(place.path("data").join("_spans")).map_or(0, |files| {
        let spans = files.filter_map(Result::ok).filter(|file| file.file_name().to_string_lossy().contains(".spans."));
        spans.filter(|file| file.metadata().is_ok_and(|data| data.len() > 0)).count()
    });
    assert_eq!(kept, 0);
}
