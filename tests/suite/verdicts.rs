//! An exit code is a verdict, and what beside the key goes wrong does not end a run.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Place, assert_equal_keys, bright, lines, qkdnet, summary};

fn up(place: &Place, args: &[&str]) -> Command {
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(args);
    command
}

/// As [`up`], started by an `env` that has this option.
fn up_through(place: &Place, option: &str) -> Command {
    let mut command = Command::new("env");
    command.args([option, env!("CARGO_BIN_EXE_qkdnet"), "up"]).arg(place.topology());
    command.arg("--data").arg(place.path("data")).env("QKDNET_STATE_DIR", place.path("state"));
    command
}

fn ends(command: &mut Command, code: i32) -> Output {
    let output = command.output().expect("start qkdnet");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(!said.contains("panicked"), "{said}");
    output
}

fn kinds(summary: &Value) -> Vec<&str> {
    let reasons = summary["verdict"]["reasons"].as_array().expect("reasons");
    reasons.iter().filter_map(|reason| reason["kind"].as_str()).collect()
}

/// A run whose JSON lines are read as they come.
struct Watched {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watched {
    fn start(mut command: Command) -> Self {
        command.args(["--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start qkdnet");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    fn until(&mut self, name: &str) {
        for line in &mut self.lines {
            let line: Value = serde_json::from_str(&line.expect("read")).expect("JSON");
            if line["name"] == name {
                return;
            }
        }
        let mut said = String::new();
        let _ = self.child.stderr.take().expect("a pipe").read_to_string(&mut said);
        panic!("the run ended without `{name}`: {said}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("send a signal");
    }

    /// The summary, the exit code and what was said on standard error.
    fn end(mut self) -> (Value, Option<i32>, String) {
        let last = self.lines.by_ref().map(|line| line.expect("read")).last().expect("a summary");
        let mut said = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("read");
        let code = self.child.wait().expect("wait for qkdnet").code();
        (serde_json::from_str(&last).expect("JSON"), code, said)
    }
}

#[test]
fn a_good_run_says_so() {
    let place = Place::new(&bright(&[]));
    let lines = place.up("data", &["--for", "2s"]);
    let verdict = &summary(&lines)["verdict"];
    assert_eq!((&verdict["good"], &verdict["exit_code"]), (&true.into(), &0.into()), "{verdict}");
    assert_eq!(verdict["reasons"], Value::Array(Vec::new()));
}

#[test]
fn a_run_ends_when_its_last_block_is_stored() {
    // It used to wait five seconds for outputs that could not come any more. A busy machine can be slow, but not each time.
    let waited = (0..5).map(|_| {
        let place = Place::new(&bright(&[]));
        let mut run = Watched::start(up(&place, &["--for", "1s"]));
        run.until("ended");
        let stored = Instant::now();
        let (summary, code, said) = run.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(summary["links"][0]["blocks"].as_u64() >= Some(1), "{summary}");
        stored.elapsed()
    });
    assert!(waited.into_iter().any(|waited| waited < Duration::from_secs(4)), "each run waits for a timer");
}

#[test]
fn a_reader_that_goes_drains_the_run_quietly() {
    for args in [&["--output", "json"][..], &[]] {
        let place = Place::new(&bright(&[]));
        let mut command = up(&place, args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start qkdnet");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // Some key is there by then.
        while !lines.next().expect("the run goes on").expect("read").contains("block-stored") {}
        drop(lines);
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("read");
        let status = child.wait().expect("wait for qkdnet");
        assert!(status.success() && !said.contains("error"), "{status}: {said}");
        assert_equal_keys(&place.digest("data"));
    }
}

#[test]
fn an_output_on_a_full_disk_is_a_failure_that_leaves_the_key_alone() {
    let place = Place::new(&bright(&[]));
    let full = fs::File::options().write(true).open("/dev/full").expect("open /dev/full");
    let output = ends(up(&place, &["--for", "2s"]).stdout(full), 1);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the output was not written") && said.contains("No space left"), "{said}");
    assert_equal_keys(&place.digest("data"));
}

#[test]
fn nobody_who_reads_standard_error_is_no_panic() {
    let deaf = |mut command: Command, code: i32| {
        command.env("QKDNET_LOG", "debug").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start qkdnet");
        drop(child.stderr.take());
        assert_eq!(child.wait().expect("wait for qkdnet").code(), Some(code), "{command:?}");
    };
    let place = Place::new(&bright(&[]));
    // With warnings of the plan, log lines, and lines of progress.
    deaf(up(&place, &["--for", "1s", "--seed", "1"]), 0);
    deaf(up(&place, &["--for", "1s", "--isolation", "process"]), 0);
    let bad = Place::new(&bright(&[("pairRate: 1e6 /s", "pairRte: 1e6 /s")]));
    for command in ["validate", "plan", "up", "verify"] {
        let mut refused = qkdnet();
        refused.arg(command).arg(bad.topology());
        deaf(refused, 2);
    }
    let mut digest = qkdnet();
    digest.args(["digest", "--data"]).arg(place.path("absent"));
    deaf(digest, 2);
}

#[test]
fn a_terminal_that_hangs_up_drains_the_run() {
    let place = Place::new(&bright(&[]));
    // Whatever the tests themselves were started with.
    let mut run = Watched::start(up_through(&place, "--default-signal=HUP"));
    run.until("block-stored");
    run.signal(Signal::HUP);
    let (summary, code, said) = run.end();
    assert_eq!(code, Some(0), "{summary} {said}");
    assert_equal_keys(&place.digest("data"));
}

#[test]
fn under_nohup_the_end_of_a_terminal_is_no_end() {
    let place = Place::new(&bright(&[]));
    let mut run = Watched::start(up_through(&place, "--ignore-signal=HUP"));
    run.until("block-stored");
    run.signal(Signal::HUP);
    for _ in 0..3 {
        run.until("block-stored");
    }
    run.signal(Signal::INT);
    let (summary, code, said) = run.end();
    assert_eq!(code, Some(0), "{summary} {said}");
}

#[test]
fn a_second_interrupt_cuts_a_run_short_and_does_not_make_its_keys_differ() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&bright(&[]));
        let mut run = Watched::start(up(&place, &["--isolation", isolation]));
        run.until("block-stored");
        run.signal(Signal::INT);
        run.until("draining");
        run.signal(Signal::INT);
        let (summary, code, said) = run.end();
        // The blocks under way may have been finished before the second one came.
        let cut: &[&str] = if code == Some(0) { &[] } else { &["cut-short"] };
        assert_eq!(kinds(&summary), cut, "{summary} {said}");
        assert_eq!(summary["links"][0]["keys_equal"], true, "{summary}");
    }
}

#[test]
fn a_status_file_that_cannot_be_written_is_told_once_and_the_run_goes_on() {
    let place = Place::new(&bright(&[]));
    fs::create_dir_all(place.path("data/.qkdnet/network.json")).expect("make a folder in its place");
    let output = ends(&mut up(&place, &["--for", "2s", "--output", "json"]), 1);
    let printed = lines(&output);
    let summary = summary(&printed);
    assert_eq!(kinds(summary), ["side-output"], "{summary}");
    let message = summary["verdict"]["reasons"][0]["message"].as_str().expect("a message");
    assert!(message.contains("network.json") && message.matches("os error").count() == 1, "{message}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.lines().all(|line| line.matches("os error").count() < 2), "{said}");
    assert_equal_keys(&place.digest("data"));
}

#[test]
fn no_cause_is_said_twice_in_one_line() {
    let place = Place::new(&bright(&[]));
    fs::create_dir_all(place.path("data/_spans/qkdnet.spans.jsonl")).expect("make a folder in its place");
    let output = ends(&mut up(&place, &["--for", "1s"]), 1);
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("_spans")).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(line.matches("os error 21").count(), 1, "{line}");
}

/// `{:#}` of an error says what an error repeats of its cause once more; `shell::chain` does not.
#[test]
fn chains_of_errors_are_printed_in_one_place() {
    let mut wrong = Vec::new();
    let mut folders = vec![crate::support::repository().join("services"), crate::support::repository().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("list a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != "tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("read a source");
                let lines = text.lines().filter(|line| line.contains("error:#}"));
                wrong.extend(lines.map(|line| format!("{}: {}", path.display(), line.trim())));
            }
        }
    }
    wrong.retain(|line| !line.contains("/benches/"));
    assert!(wrong.is_empty(), "use shell::chain: {wrong:#?}");
}

#[test]
fn a_collector_that_is_dead_or_mute_holds_no_run_up_and_the_verdict_says_that_spans_are_lost() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address");
    // Connections wait in its queue: they are open, and nobody ever answers.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    for address in [closed, mute.local_addr().expect("an address")] {
        for protocol in ["grpc", "http/protobuf"] {
            // Two seconds, and what a busy machine takes to end a process. It can be slow, but not each time.
            let mut waited = (0..4).map(|_| end_without_collector(address, protocol));
            assert!(waited.any(|waited| waited < Duration::from_secs(4)), "{protocol} {address}: each run waits");
        }
    }
}

/// How long a run takes from its last block to its end, when nobody takes its spans.
fn end_without_collector(address: std::net::SocketAddr, protocol: &str) -> Duration {
    let place = Place::new(&bright(&[]));
    let mut command = up(&place, &["--for", "2s"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    let mut run = Watched::start(command);
    run.until("ended");
    let ended = Instant::now();
    let (summary, code, said) = run.end();
    let waited = ended.elapsed();
    assert_eq!(code, Some(1), "{said}");
    assert!(kinds(&summary).contains(&"side-output"), "{summary}");
    assert_equal_keys(&place.digest("data"));
    waited
}

#[test]
fn telemetry_that_cannot_be_honoured_is_refused_before_anything_is_done() {
    let place = Place::new(&bright(&[]));
    let mut command = up(&place, &["--for", "1s"]);
    let output = ends(command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), 2);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("OTEL_EXPORTER_OTLP_PROTOCOL: `http/json` is not spoken"), "{said}");
    assert!(!place.path("data").exists(), "something was made");
}

#[test]
fn a_key_is_traced_right_after_it_was_given_and_one_that_never_was_is_not_waited_for_in_vain() {
    for isolation in ["tasks", "process"] {
        let place = Place::new(&bright(&[]));
        let network = crate::keys::Network::start(&place, isolation);
        for (key, _) in network.get("university", "inria", "3") {
            let names = place.trace(&key);
            assert!(names.iter().any(|name| name == "qkd.kms.key"), "{isolation}: {names:?}");
        }
        let mut unknown = qkdnet();
        unknown.args(["trace", "00000000-0000-4000-8000-000000000000", "--data"]).arg(place.path("data"));
        let running = ends(&mut unknown, 1);
        let said = String::from_utf8_lossy(&running.stderr);
        assert!(said.contains("no trace of 00000000"), "{said}");
        network.stop();
        let stopped = ends(&mut unknown, 1);
        let said = String::from_utf8_lossy(&stopped.stderr);
        assert!(said.contains("is kept") && !said.contains("yet"), "{said}");
    }
}
