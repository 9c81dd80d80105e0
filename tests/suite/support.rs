//! Running the binary on a short, bright link: the same instruments and protocol as Nice, in seconds.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The folder of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A shipped topology with other values, and without what was published for the values that it had.
pub fn shipped_but(file: &str, changes: &[(&str, &str)]) -> String {
    let path = repository().join("topologies").join(file);
    let mut text = std::fs::read_to_string(path).expect("read a topology");
    for (from, to) in changes {
        assert!(text.contains(from), "{file} has no `{from}`");
        text = text.replace(from, to);
    }
    let reference = text.find("      reference:").expect("a reference block");
    text.truncate(reference);
    text
}

/// The 50 km link of Nice with little loss, few pairs and short rounds. What it tests is not its rate.
pub fn bright(extra: &[(&str, &str)]) -> String {
    let changes = [
        ("deviceLoss: 9.84214 dB", "deviceLoss: 1 dB"),
        ("attenuation: 0.239 dB/km", "attenuation: 0.05 dB/km"),
        ("pairRate: 3.21e8 /s", "pairRate: 1e6 /s"),
        ("round: 10 s", "round: 1 s"),
    ];
    shipped_but("nice-50km.yaml", &[&changes, extra].concat())
}

/// As [`bright`], with other key management and with further applications at Valrose.
pub fn bright_with(key_management: &str, further_saes: &str) -> String {
    let management = format!("  keyManagement: {{{key_management}}}\n  sites:\n");
    let saes = format!("saes: [university{further_saes}]");
    bright(&[("  sites:\n", &management), ("saes: [university]", &saes)])
}

/// As [`bright_network`], with relayed key in small transfers, which need less of the slow link.
pub fn bright_network_with_small_transfers() -> String {
    let relay = "relay: {transfer: 2048 bit, lowWater: 8192 bit, highWater: 16384 bit}";
    bright_network().replacen("  sites:\n", &format!("  keyManagement: {{{relay}}}\n  sites:\n"), 1)
}

/// A quantum dot's link of 18 km as it is shipped: single photons, from a transmitter to a receiver.
pub fn quantum_dot() -> String {
    std::fs::read_to_string(repository().join("topologies/quantum-dot-18.yaml")).expect("read the topology of a dot")
}

/// That of 120 km, whose blocks take six hours.
pub fn quantum_dot_of_120_km() -> String {
    shipped_but("quantum-dot-120.yaml", &[])
}

/// All of Nice with little loss, few pairs and short rounds: three key stores, and two sites without a link.
pub fn bright_network() -> String {
    let changes = [
        ("deviceLoss: 9.84214 dB", "deviceLoss: 1 dB"),
        ("attenuation: 0.239 dB/km", "attenuation: 0.05 dB/km"),
        ("deviceLoss: 9.82234 dB", "deviceLoss: 1 dB"),
        ("pairRate: 3.21e8 /s", "pairRate: 1e6 /s"),
        ("pairRate: 1.86e8 /s", "pairRate: 1e6 /s"),
        ("round: 10 s", "round: 1 s"),
        ("round: 300 s", "round: 1 s"),
    ];
    shipped_network_but("nice.yaml", &changes)
}

/// As [`shipped_but`], of a topology with several links.
pub fn shipped_network_but(file: &str, changes: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(repository().join("topologies").join(file)).expect("read a topology");
    let text = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{file} has no `{from}`");
        text.replace(from, to)
    });
    without_references(&text)
}

/// What was published does not hold for a link that was changed.
fn without_references(text: &str) -> String {
    let mut kept = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("reference:") {
            inside = true;
        } else if inside && !line.trim().is_empty() && indent <= 6 {
            inside = false;
        }
        if !inside {
            kept.push(line);
        }
    }
    kept.join("\n")
}

/// A folder with a topology file, and room for data.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new(topology: &str) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        std::fs::write(folder.path().join("link.yaml"), topology).expect("write the topology");
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn topology(&self) -> PathBuf {
        self.path("link.yaml")
    }

    /// `qkdnet up`, to its end; the objects it printed.
    pub fn up(&self, data: &str, args: &[&str]) -> Vec<Value> {
        let mut command = qkdnet();
        command.arg("up").arg(self.topology()).arg("--data").arg(self.path(data)).args(["--output", "json"]).args(args);
        lines(&success(command))
    }

    /// Names of the spans in the trace of a block or a key.
    pub fn trace(&self, what: &str) -> Vec<String> {
        let mut command = qkdnet();
        command.arg("trace").arg(what).arg("--data").arg(self.path("data")).args(["--output", "json"]);
        let spans: Value = serde_json::from_slice(&success(command).stdout).expect("JSON");
        let names = spans.as_array().expect("a list").iter().filter_map(|span| span["name"].as_str());
        names.map(str::to_owned).collect()
    }

    pub fn digest(&self, data: &str) -> Vec<Digest> {
        digest(&self.path(data))
    }
}

/// What `qkdnet digest` says of one end.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    pub site: String,
    pub bits: u64,
    pub sha256: String,
}

pub fn digest(data: &Path) -> Vec<Digest> {
    let mut command = qkdnet();
    command.arg("digest").arg("--data").arg(data);
    let output = success(command);
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [site, _, bits, sha256] = words[..] else { panic!("not a digest: {line}") };
            Digest { site: site.to_owned(), bits: bits.parse().expect("a number"), sha256: sha256.to_owned() }
        })
        .collect()
}

/// Every place at which a service of this kind can be told to crash, where blocks are sifted at one go.
pub fn failpoints(kind: &str) -> impl Iterator<Item = &'static str> {
    let places = shell::failpoint::PLACES.iter().find(|(known, _)| *known == kind);
    let places = places.expect("a kind of service with failpoints").1.iter().copied();
    places.filter(|place| !place.starts_with("stretch."))
}

/// That these services of a run of processes did crash at a failpoint: one that is never reached proves nothing.
pub fn assert_crashed(data: &Path, services: &[&str], point: &str) {
    for service in services {
        let log = std::fs::read_to_string(data.join(format!(".qkdnet/logs/{service}.log"))).expect("read a log");
        assert!(log.contains(&format!("failpoint `{point}`: aborting")), "{service} never came to {point}");
    }
}

/// Two ends that hold the same bits, and some.
pub fn assert_equal_keys(digests: &[Digest]) -> Digest {
    let [a, b] = digests else { panic!("expected two ends, got {digests:?}") };
    assert_eq!((a.bits, &a.sha256), (b.bits, &b.sha256), "the two ends differ");
    assert!(a.bits > 0, "no key was distilled");
    a.clone()
}

pub fn qkdnet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qkdnet"));
    command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    // Nothing is written into the home of the person who tests.
    command.env("QKDNET_STATE_DIR", state_dir());
    command
}

/// Where runs keep what is not in their data. Each run of the tests has its own: data of a fixture that is opened a second
/// time is data that was put back.
pub fn state_dir() -> &'static Path {
    static STATE: OnceLock<TempDir> = OnceLock::new();
    STATE.get_or_init(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("make a folder")).path()
}

pub fn success(mut command: Command) -> Output {
    let output = command.output().expect("start qkdnet");
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The JSON objects of a run, one a line.
pub fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

/// The last object, which must be the summary.
pub fn summary(lines: &[Value]) -> &Value {
    let last = lines.last().expect("some output");
    assert_eq!(last["event"], "summary");
    last
}
