//! `qkdnet collect`: what services without a common disk tell of themselves.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, bright, qkdnet, success};

/// A collector that runs.
struct Collector {
    child: Child,
    otlp: String,
    metrics: String,
}

impl Collector {
    fn start(data: &Path) -> Self {
        let mut command = qkdnet();
        command.args([
            "--log",
            "info",
            "collect",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
            "--data",
        ]);
        let mut child = command.arg(data).env("NO_COLOR", "1").stderr(Stdio::piped()).spawn().expect("start qkdnet");
        let mut lines = BufReader::new(child.stderr.take().expect("standard error")).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("collecting")).expect("a start");
        // Whoever writes to a pipe that nobody reads comes to a halt.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("collector: {line}")));
        let address = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {line}"));
            rest.split_whitespace().next().expect("an address").to_owned()
        };
        Self { child, otlp: address("otlp"), metrics: address("metrics") }
    }

    fn exposition(&self) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&self.metrics).expect("connect");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_trace_of_a_block_comes_together_from_services_that_share_no_disk_and_so_do_their_metrics() {
    let place = Place::new(&bright(&[]));
    let collector = Collector::start(&place.path("collected"));
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--isolation", "process", "--for", "6s", "--seed", "5", "--output", "json"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.otlp));
    success(command);
    let names = |what: &str| {
        let mut command = qkdnet();
        command.arg("trace").arg(what).arg("--data").arg(place.path("collected")).args(["--output", "json"]);
        let output = command.output().expect("run qkdnet");
        let spans: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let spans = spans.as_array().cloned().unwrap_or_default();
        spans.iter().filter_map(|span| span["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    // Exporters send what they have left when their process ends.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let names = names("1");
        let whole = ["qkd.source.emit", "qkd.block", "qkd.sift", "qkd.reconcile", "qkd.store", "qkd.kms.ingest"];
        if whole.iter().all(|name| names.iter().any(|known| known == name)) {
            break;
        }
        assert!(Instant::now() < until, "{names:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let exposition = collector.exposition();
    assert!(exposition.contains("\nqkd_link_skr{"), "{exposition}");
    assert!(exposition.contains("topology=\"nice-50km\""), "{exposition}");
    for site in ["valrose", "sophia"] {
        let label = format!("qkd_site_id=\"{site}\"");
        assert!(exposition.lines().any(|line| line.starts_with("qkd_link_key_bits{") && line.contains(&label)));
    }
}

#[test]
fn health_is_asked_over_plain_http() {
    let place = Place::new(&bright(&[]));
    let collector = Collector::start(&place.path("collected"));
    let ask = |url: String| Command::new(env!("CARGO_BIN_EXE_qkdnet")).args(["health", "--url", &url]).output();
    let output = ask(format!("http://{}/healthz", collector.metrics)).expect("run qkdnet");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"serving\n"[..]));
    let output = ask(format!("http://{}/nothing", collector.metrics)).expect("run qkdnet");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"not serving\n"[..]));
    assert_eq!(ask("https://127.0.0.1/".to_owned()).expect("run qkdnet").status.code(), Some(2));
}
