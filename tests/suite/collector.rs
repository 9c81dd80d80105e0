//! A real OpenTelemetry collector (rotel, from PyPI) between a network and a receiver (oteltap) that writes down what
//! arrives. `make collector` installs both into `target/collector`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

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
    _receiver: Program,
    _collector: Program,
    endpoint: String,
    received: PathBuf,
}

/// Where `make collector` puts the two programs; `None` with a loud word where they are not.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let folder = repository().join("target/collector");
    let (receiver, collector) = (folder.join("bin/oteltap"), folder.join("rotel-agent"));
    if receiver.is_file() && collector.is_file() {
        return Some((receiver, collector));
    }
    eprintln!("SKIPPED: NO COLLECTOR IN {}: run `make collector`, which needs PyPI", folder.display());
    None
}

/// A port that nothing listens at.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address")
}

fn listening(address: SocketAddr) {
    eventually("a program that listens", || TcpStream::connect(address).ok()).expect("it does not listen");
}

impl Collector {
    fn start(folder: &Path) -> Option<Self> {
        let (receiver, collector) = programs()?;
        let received = folder.join("received.ndjson");
        let (tap, grpc, http) = (free_port(), free_port(), free_port());
        let output = fs::File::create(&received).expect("make a file");
        let errors = fs::File::create(folder.join("oteltap.log")).expect("make a file");
        let receiver = Command::new(receiver)
            .args(["--port", &tap.port().to_string()])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(output)
            .stderr(errors)
            .spawn()
            .expect("start oteltap");
        let receiver = Program(receiver);
        listening(tap);
        let log = fs::File::create(folder.join("rotel.log")).expect("make a file");
        let collector = Command::new(collector)
            .args(["start", "--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
            .args(["--otlp-exporter-endpoint", &format!("http://{tap}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share a file"))
            .stderr(log)
            .spawn()
            .expect("start rotel");
        let collector = Program(collector);
        listening(grpc);
        Some(Self { _receiver: receiver, _collector: collector, endpoint: format!("http://{grpc}"), received })
    }

    /// Every span that has arrived, whole lines alone.
    fn spans(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.received).expect("read what arrived");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut spans = Vec::new();
        for line in whole.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line:.200}"));
            collect(&value, &mut spans);
        }
        spans
    }
}

/// Objects with a span ID and a name, however deep they are.
fn collect(value: &Value, spans: &mut Vec<Value>) {
    match value {
        Value::Object(members) => {
            if member(value, "spanId").is_some() && members.contains_key("name") {
                spans.push(value.clone());
            } else {
                members.values().for_each(|inner| collect(inner, spans));
            }
        }
        Value::Array(items) => items.iter().for_each(|inner| collect(inner, spans)),
        _ => {}
    }
}

/// A member in the spelling of JSON or of protobuf.
fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let snake: String =
        name.chars().flat_map(|c| if c.is_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] }).collect();
    value.get(name).or_else(|| value.get(snake))
}

fn text(value: &Value, name: &str) -> String {
    member(value, name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn links(span: &Value) -> Vec<String> {
    let links = member(span, "links").and_then(Value::as_array).cloned().unwrap_or_default();
    links.iter().map(|link| text(link, "traceId")).collect()
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
        let names: BTreeSet<String> = spans.iter().map(|span| text(span, "name")).collect();
        let keys = spans.iter().filter(|span| text(span, "name") == "qkd.kms.key").count();
        (wanted.iter().all(|name| names.contains(*name)) && keys >= 8).then_some(spans)
    });
    let spans = arrived.unwrap_or_else(|| {
        let names: BTreeSet<String> = collector.spans().iter().map(|span| text(span, "name")).collect();
        panic!("of {wanted:?} only {names:?} arrived")
    });
    let mut traces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for span in &spans {
        traces.entry(text(span, "traceId")).or_default().insert(text(span, "name"));
    }
    let mut linked = BTreeSet::new();
    for key in spans.iter().filter(|span| text(span, "name") == "qkd.kms.key") {
        let made_of = links(key);
        assert!(!made_of.is_empty(), "the span of a key has no links: {key}");
        for trace in made_of {
            linked.extend(traces.get(&trace).unwrap_or_else(|| panic!("the trace {trace} did not arrive")).clone());
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
