//! Commands that the documents and the Makefile name work as named, or it is said here why they are not run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::documented::{Documented, commands, without_assignments};
use crate::keys::eventually;
use crate::support::{Place, bright, qkdnet, repository};

/// Commands by how they begin, and why no test of this suite runs them. The longest beginning counts.
const NOT_RUN: [(&str, &str); 25] = [
    ("make", "targets of the Makefile are a list of their own, below"),
    ("scripts/", "needs a cluster; `make e2e` runs it"),
    ("helm", "needs a cluster; `make e2e` runs the README's"),
    ("kubectl", "needs a cluster; `make e2e` runs the README's"),
    ("docker", "needs a container engine; `containers` starts its own"),
    ("qkdnet down", "needs a container engine; `containers` runs it"),
    (
        "qkdnet up topologies/nice-50km.yaml --data net --on containers",
        "needs a container engine; `containers` runs it",
    ),
    ("qkdnet operator", "needs a cluster; `make e2e` runs it"),
    ("qkdnet collect", "serves until it is stopped; `collect` runs it"),
    ("qkdnet host", "serves until it is stopped; the operator starts it"),
    ("qkdnet rekey", "needs an exhausted reserve; `reserve` runs it"),
    ("qkdnet restore", "needs a folder that was put back; the tests of restored volumes run it"),
    ("qkdnet render FILE | kubectl", "needs a cluster; `make e2e` runs it"),
    ("qkdnet render FILE --namespace", "needs a cluster; `make e2e` runs it"),
    ("qkdnet trace 1 --data /var/lib/qkdnet", "runs inside of a pod; `make e2e` runs it"),
    ("qkdnet fault ...", "stands for the commands of the section that it names, which are run"),
    ("qkdnet fault list |", "each of the three is run"),
    ("qkdnet key", "a group: its commands are run"),
    ("qkdnet replay", "`replay` runs it, on recordings of its own"),
    ("qkdnet validate -", "reads standard input; the tests of the reader run it"),
    ("qkdnet digest --first", "run with the data that it needs"),
    ("qkdnet serve", "serves until it is stopped"),
    ("qkdnet verify --topology", "needs a cluster; `make e2e` runs it"),
    ("qkdnet anchor", "is started by what keeps containers"),
    ("qkdnet completions", "`cli` runs it"),
];

/// What the documents leave open, and what it is in the network of this test.
const OPEN: [(&str, &str); 16] = [
    ("FILE...", "topologies/nice-50km.yaml"),
    ("FILE", "topologies/nice-50km.yaml"),
    ("--record DIR", "--record tags --record-for 1s --for 1s --data recorded"),
    ("--data DIR", "--data net"),
    ("qkdnet restore DIR", "qkdnet restore net"),
    ("--arm SITE", "--arm sophia"),
    ("partition SITE SITE", "partition sophia valrose"),
    ("key-store SITE", "key-store sophia"),
    ("LINK SITE", "valrose-sophia sophia"),
    ("LINK", "valrose-sophia"),
    ("SERVICE", "kms-valrose"),
    ("sae new NAME", "sae new university --out clients"),
    ("SITE", "sophia"),
    ("KEY-ID", "$(cut -d' ' -f1 keys | head -1)"),
    ("BLOCK", "0"),
    ("--first N", "--first 1"),
];

/// What can be asked of a network once it has stopped.
const STOPPED: [&str; 2] = ["qkdnet digest --pools", "qkdnet rotate"];

fn not_run(text: &str) -> Option<&'static str> {
    let text = without_assignments(text);
    let beginning = NOT_RUN.iter().filter(|(beginning, _)| text.starts_with(beginning));
    beginning.max_by_key(|(beginning, _)| beginning.len()).map(|(_, why)| *why)
}

fn filled(text: &str) -> String {
    OPEN.iter().fold(text.to_owned(), |text, (open, filled)| text.replace(open, filled))
}

/// A folder in which the documents' commands mean a bright link, and `qkdnet` is the program under test.
struct Folder {
    place: Place,
}

impl Folder {
    fn new() -> Self {
        let place = Place::new("");
        fs::create_dir_all(place.path("topologies")).expect("make a folder");
        let allowed = "  faults: {allowed: true}\n  sites:\n";
        let mut topology = bright(&[("  sites:\n", allowed)]);
        // What is to be verified is soon known: one error in 300, give or take a half.
        topology +=
            "      reference:\n        - {quantity: qberZ, value: 0.32 %, tolerance: 80 %, source: \"tests\"}\n";
        fs::write(place.path("topologies/nice-50km.yaml"), topology).expect("write the topology");
        for built in ["target/release", "target/quick"] {
            fs::create_dir_all(place.path(built)).expect("make a folder");
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_qkdnet"), place.path(built).join("qkdnet")).expect("link");
        }
        Self { place }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        let here = self.place.path("target/release");
        command.current_dir(self.place.path("")).env("PATH", format!("{}:{path}", here.display()));
        command.env_remove("OTEL_EXPORTER_OTLP_ENDPOINT").env("QKDNET_STATE_DIR", self.place.path("state"));
        command
    }

    fn run(&self, line: &str) -> Output {
        let mut bash = self.command("bash");
        bash.args(["-euo", "pipefail", "-c", line]).stdin(Stdio::null()).output().expect("run bash")
    }

    fn succeed(&self, documented: &Documented, line: &str) -> String {
        let output = self.run(line);
        let (said, printed) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        let Documented { file, line: number, text, .. } = documented;
        assert!(
            output.status.success(),
            "{file}:{number}: `{text}`, run as `{line}`: {}\n{said}{printed}",
            output.status
        );
        printed.into_owned()
    }
}

/// A network that is asked to end.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.0.wait();
    }
}

#[test]
fn every_command_of_the_documents_is_one_that_the_program_knows() {
    let mut seen = BTreeSet::new();
    for Documented { file, line, text, .. } in commands() {
        let whole = text.split([';', '&', '>']).next().unwrap_or_default().split(" | ").next().unwrap_or_default();
        if !whole.starts_with("qkdnet ") || whole.contains("fault ...") {
            continue;
        }
        let words = filled(whole).replace("run|crd", "run").replace("...", "");
        let words: Vec<&str> = words.split_whitespace().skip(1).take_while(|word| !word.starts_with("$(")).collect();
        if !seen.insert(words.join(" ")) {
            continue;
        }
        // Options are looked at one after the other; the last one ends it well.
        let output = qkdnet().args(&words).arg("--help").output().expect("start qkdnet");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}:{line}: `{text}`: {said}");
    }
    assert!(seen.len() > 25, "{seen:?}");
}

#[test]
fn the_commands_of_the_documents_do_what_they_say() {
    let folder = Folder::new();
    let (mut running, mut stopped) = (Vec::new(), Vec::new());
    let all = commands();
    for documented in &all {
        let text = &documented.text;
        if documented.is_name() {
            continue;
        }
        if not_run(text).is_some() && !text.starts_with("qkdnet key ") && !text.starts_with("qkdnet fault list |") {
            continue;
        }
        let known = text.starts_with("qkdnet ") || text.starts_with("curl ");
        assert!(known, "{}:{}: `{text}` is neither run nor said why not", documented.file, documented.line);
        if STOPPED.iter().any(|beginning| text.starts_with(beginning)) {
            stopped.push(documented);
        } else {
            running.push(documented);
        }
    }
    let mut up = folder.command("qkdnet");
    up.args(["up", "topologies/nice-50km.yaml", "--data", "net"]).stdout(Stdio::null()).stderr(Stdio::inherit());
    let up = Up(up.spawn().expect("start qkdnet"));
    let ready = || folder.run("qkdnet status --data net --output json | grep -q '\"ready\":true'").status.success();
    eventually("a network that is ready", || ready().then_some(())).expect("it is not ready");
    // The first keys are there for those that ask for a key's trace.
    let mut done = BTreeSet::new();
    running.sort_by_key(|documented| !documented.text.starts_with("qkdnet key get"));
    for documented in running {
        let text = documented.text.as_str();
        let runs_already = text.starts_with("qkdnet up") && text.trim_end_matches(" &").ends_with("--data net");
        if runs_already || !done.insert(text) {
            continue;
        }
        for line in lines(text) {
            let line = filled(&line);
            let line = if line.starts_with("curl ") { at_its_port(&folder, &line) } else { line };
            let printed = folder.succeed(documented, &line);
            if line.contains("echo same") {
                assert!(printed.ends_with("same\n"), "{printed}");
            }
        }
    }
    folder.run("qkdnet fault clear --all --data net");
    drop(up);
    for documented in stopped {
        folder.succeed(documented, &filled(&documented.text));
    }
    for wanted in ["qkdnet verify", "qkdnet trace KEY-ID", "qkdnet fault cut", "qkdnet render", "curl "] {
        assert!(done.iter().any(|text| text.starts_with(wanted)), "{wanted} was not run: {done:?}");
    }
}

/// What a line of a document stands for.
fn lines(text: &str) -> Vec<String> {
    match text {
        "qkdnet fault list | clear NAME | clear --all" => {
            ["list", "clear --all"].map(|what| format!("qkdnet fault {what} --data net")).to_vec()
        }
        _ if text.starts_with("qkdnet fault ") => vec![format!("{text} --data net")],
        // It is long enough that both are seen.
        _ if text.contains("--for 60s") => vec![text.replace("--for 60s", "--for 3s") + " --data first"],
        _ if text == "qkdnet status" => vec![format!("{text} --data net")],
        _ => vec![text.to_owned()],
    }
}

/// The port of the key store is another one each time.
fn at_its_port(folder: &Folder, line: &str) -> String {
    let status = folder.run("qkdnet status --data net --output json").stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    let sites = status["sites"].as_array().expect("sites");
    let url = sites.iter().find(|site| site["site"] == "sophia").and_then(|site| site["url"].as_str()).expect("a URL");
    let (before, after) = line.split_once("https://").expect("a URL");
    let path = after.split_once('/').map_or("", |(_, path)| path);
    format!("{before}{url}/{path} --silent --fail")
}

/// Targets of the Makefile; those that are not run, with the reason.
const TARGETS: [(&str, Option<&str>); 23] = [
    ("help", None),
    ("up", None),
    ("verify", None),
    ("clean", None),
    ("quick", Some("compiles; the others run the one under test in its place")),
    ("build", Some("compiles an optimised program; the others run the one under test in its place")),
    ("image", Some("needs a container engine; CI runs it")),
    ("collector", Some("needs PyPI; `make test` runs it first")),
    ("fpfind", Some("needs PyPI; `make test` runs it first")),
    ("test", Some("is what runs this test")),
    ("check", Some("is fmt, deny, clippy and doc")),
    ("fmt", Some("a step of CI")),
    ("clippy", Some("a step of CI; compiles everything once more")),
    ("deny", Some("a step of CI; compiles cargo-deny")),
    ("doc", Some("a step of CI; compiles everything once more")),
    ("chart", Some("needs helm; `chart` compares what it renders to")),
    ("kind", Some("makes a cluster; `make e2e` is the same with tests")),
    ("kind-down", Some("removes a cluster")),
    ("observe", Some("makes a cluster")),
    ("e2e", Some("makes a cluster and takes half an hour; a job of CI")),
    ("e2e-soak", Some("makes a cluster and takes hours")),
    ("bench", Some("measures for an hour on a machine of its own")),
    ("soak", Some("takes hours")),
];

fn make(folder: &Folder, target: &str, options: &[&str]) -> Output {
    let mut make = folder.command("make");
    // Nothing is compiled: the program is there.
    make.arg("-f").arg(repository().join("Makefile")).arg(target).arg("CARGO=true").args(options);
    make.arg("TOPOLOGY=topologies/nice-50km.yaml").stdin(Stdio::null()).output().expect("run make")
}

fn targets(makefile: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(makefile).expect("read the Makefile");
    let target = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        (plain && !name.is_empty() && !rest.starts_with('=')).then(|| name.to_owned())
    };
    text.lines().filter_map(target).collect()
}

#[test]
fn every_target_of_the_makefile_works_or_it_is_said_why_it_is_not_run() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets(&repository().join("Makefile")), known, "the list in this test and the Makefile differ");
    let folder = Folder::new();
    // An `up` without an end would run until it is stopped.
    let file = folder.place.path("topologies/nice-50km.yaml");
    let text = fs::read_to_string(&file).expect("read").replace("run: {speed: max,", "run: {for: 2 s, speed: max,");
    for (target, why_not) in TARGETS {
        let output = make(&folder, target, &["--dry-run"]);
        assert!(output.status.success(), "make {target}: {}", String::from_utf8_lossy(&output.stderr));
        if why_not.is_some() {
            continue;
        }
        let limited = if target == "up" { text.clone() } else { text.replace("for: 2 s, ", "") };
        fs::write(&file, limited).expect("write the topology");
        let output = make(&folder, target, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "make {target}: {said}{}", String::from_utf8_lossy(&output.stdout));
        if target == "verify" {
            assert!(said.contains("a fifth of its tolerance"), "{said}");
            assert!(String::from_utf8_lossy(&output.stdout).contains("agrees"));
        }
    }
    assert!(!folder.place.path("qkdnet-data").exists(), "`make clean` leaves data behind");
}

#[test]
fn no_reason_is_kept_for_a_target_of_no_need() {
    let reasons: Vec<&str> = NOT_RUN.iter().map(|(_, why)| *why).collect();
    assert!(reasons.iter().all(|why| why.len() > 10));
    assert_eq!(not_run("qkdnet verify FILE"), None);
    assert!(not_run("qkdnet verify --topology NAME --for 60s").is_some());
}
