//! `qkdnet up --on containers`, where a container engine answers; elsewhere a loud line says what was not tested.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::counts::every_kind;
use crate::support::{Place, assert_equal_keys, bright, bright_network, qkdnet, quantum_dot, repository};

const PATIENCE: Duration = Duration::from_secs(180);

/// An engine, and an image of the program under test.
struct Engine {
    program: &'static str,
    image: String,
}

impl Engine {
    /// `None`, and a line that nobody overlooks, where no engine answers. With QKDNET_NO_SKIP that is a failure.
    fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Engine>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let answers = |program: &&str| {
                let output = Command::new(program).arg("info").output();
                output.is_ok_and(|output| output.status.success())
            };
            let program = ["docker", "podman"].into_iter().find(answers)?;
            Some(Self { program, image: build_image(program) })
        });
        if found.is_none() {
            assert!(std::env::var_os("QKDNET_NO_SKIP").is_none(), "no container engine answers");
            // Past the test harness, which would swallow it.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no container engine answers, containers are not tested");
        }
        found.as_ref()
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new(self.program).args(args).output().expect("run the container engine");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Names of the containers of the network on this data, by service.
    fn containers(&self, data: &Path) -> Vec<(String, String)> {
        let format = "{{.Label \"qkdnet.dev/service\"}} {{.Names}}";
        let text = self.run(&["ps", "--all", "--filter", &network_label(data), "--format", format]);
        text.lines().filter_map(|line| line.split_once(' ')).map(|(s, n)| (s.to_owned(), n.to_owned())).collect()
    }

    fn is_clean(&self, data: &Path) -> bool {
        let networks = self.run(&["network", "ls", "--quiet", "--filter", &network_label(data)]);
        self.containers(data).is_empty() && networks.trim().is_empty()
    }
}

fn network_label(data: &Path) -> String {
    format!("label=qkdnet.dev/network={}", &hash(&data.canonicalize().expect("the data directory"))[..10])
}

fn hash(path: &Path) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(path.as_os_str().as_encoded_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The program under test, by the same file as the real image.
fn build_image(engine: &str) -> String {
    // One image per checkout; the one before would pile up without a name.
    let image = format!("qkdnet-suite:{}", &hash(repository().canonicalize().expect("the repository").as_path())[..12]);
    let id = || {
        let output = Command::new(engine).args(["images", "--quiet", "--no-trunc", &image]).output();
        String::from_utf8(output.expect("run the container engine").stdout).expect("text").trim().to_owned()
    };
    let before = id();
    let mut build = Command::new(repository().join("scripts/image"));
    build.arg(&image).env("PROGRAM", env!("CARGO_BIN_EXE_qkdnet")).env("ENGINE", engine).stdout(Stdio::null());
    assert!(build.status().expect("run scripts/image").success(), "the image was not built");
    if !before.is_empty() && before != id() {
        // Another run of this test may be using it.
        let _ = Command::new(engine).args(["rmi", &before]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    image
}

/// A network in containers.
struct Network<'p> {
    engine: &'static Engine,
    place: &'p Place,
    child: Child,
}

impl<'p> Network<'p> {
    fn start(engine: &'static Engine, place: &'p Place, args: &[&str]) -> Self {
        let mut command = qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
        command.args(["--on", "containers", "--engine", engine.program, "--image", &engine.image]).args(args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("start qkdnet");
        Self { engine, place, child }
    }

    fn data(&self) -> PathBuf {
        self.place.path("data")
    }

    fn ready(&mut self) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut command = qkdnet();
            command.arg("status").arg("--data").arg(self.data()).args(["--output", "json"]);
            let output = command.output().expect("run qkdnet");
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if status["ready"] == true {
                return status;
            }
            let ended = self.child.try_wait().expect("ask for the state of qkdnet");
            assert!(ended.is_none(), "the network has ended: {ended:?}");
            assert!(Instant::now() < until, "no key flows: {output:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The last lines of every service.
    fn logs(&self) -> String {
        let folder = self.data().join(".qkdnet/logs");
        let last_lines = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{}:\n{}\n", entry.path().display(), lines[lines.len().saturating_sub(12)..].join("\n"))
        };
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(last_lines).collect()
    }

    fn key(&self, words: &[&str]) -> std::process::Output {
        let mut command = qkdnet();
        command.arg("key").arg(words[0]).arg("--data").arg(self.data()).args(&words[1..]);
        command.output().expect("run qkdnet")
    }

    /// One application gets keys into a file, the other fetches and compares them.
    fn exchange(&self, master: &str, slave: &str) {
        let file = self.place.path(&format!("{master}-{slave}"));
        let path = file.to_str().expect("text");
        let mut last = String::new();
        eventually("keys are supplied", || {
            let output = self.key(&["get", "--sae", master, "--to", slave, "--number", "2", "--out", path]);
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(())
        });
        eventually("the same keys are fetched", || {
            let output = self.key(&["fetch", "--sae", slave, "--from", master, "--check", path]);
            output.status.success().then_some(())
        });
        std::fs::remove_file(file).expect("remove the keys");
    }

    fn container(&self, service: &str) -> String {
        let found = self.engine.containers(&self.data()).into_iter().find(|(name, _)| name == service);
        found.unwrap_or_else(|| panic!("no container of {service}")).1
    }

    fn log(&self, service: &str) -> String {
        std::fs::read_to_string(self.data().join(format!(".qkdnet/logs/{service}.log"))).expect("a log")
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(status.expect("run kill").success());
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // Of a test that failed; what the containers are, the process that outlives it removes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn equal_seeds_give_equal_keys_in_containers_and_as_tasks_and_nothing_is_left_of_them() {
    let Some(engine) = Engine::find() else { return };
    let seeded = ["--for", "3s", "--seed", "7"];
    let tasks = Place::new(&bright(&[]));
    tasks.up("data", &seeded);
    let place = Place::new(&bright(&[]));
    let on = ["--on", "containers", "--engine", engine.program, "--image", &engine.image];
    place.up("data", &[&seeded[..], &on].concat());
    assert_eq!(assert_equal_keys(&place.digest("data")), assert_equal_keys(&tasks.digest("data")));
    assert!(engine.is_clean(&place.path("data")), "containers are left");
    let dot = Place::new(&quantum_dot());
    let seeded = ["--for", "20s", "--seed", "7"];
    dot.up("tasks", &seeded);
    dot.up("data", &[&seeded[..], &on].concat());
    assert_eq!(assert_equal_keys(&dot.digest("data")), assert_equal_keys(&dot.digest("tasks")), "a prepared link");
    for topology in every_kind() {
        let (counts, seeded) = (Place::new(&topology), ["--for", "4s", "--seed", "7"]);
        counts.up("tasks", &seeded);
        counts.up("data", &[&seeded[..], &on].concat());
        assert_eq!(assert_equal_keys(&counts.digest("data")), assert_equal_keys(&counts.digest("tasks")), "at counts");
    }
    assert!(place.trace("1").iter().any(|span| span == "qkd.source.emit"), "spans are not brought back");
}

#[test]
fn applications_take_keys_from_containers_that_die_come_back_and_are_taken_away_at_the_end() {
    let Some(engine) = Engine::find() else { return };
    let place = Place::new(&bright_network());
    let mut network = Network::start(engine, &place, &[]);
    let before = network.ready();
    network.exchange("university", "inria");
    assert_restricted(&network, "kms-valrose");
    // Out of the program's sight, as the engine or the kernel would.
    engine.run(&["kill", "--signal", "KILL", &network.container("kms-valrose")]);
    engine.run(&["kill", "--signal", "KILL", &network.container("detector-valrose-sophia-sophia")]);
    network.exchange("university", "inria");
    network.exchange("observatory", "inria");
    assert_eq!(network.ready()["sites"], before["sites"], "key stores are where they were");
    assert!(network.log("kms-valrose").contains("ended with code 137"), "{}", network.log("kms-valrose"));

    let mut second = qkdnet();
    second.arg("up").arg(place.topology()).arg("--data").arg(network.data());
    let refused = second.output().expect("run qkdnet");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another run uses"), "{refused:?}");

    let mut down = qkdnet();
    down.arg("down").arg("--data").arg(network.data());
    let output = down.output().expect("run qkdnet");
    assert!(output.status.success(), "{output:?}");
    assert!(network.child.wait().expect("wait for qkdnet").success());
    assert!(engine.is_clean(&network.data()));
    assert!(network.log("relay-valrose").contains("ended with code 0"), "{}", network.log("relay-valrose"));
}

/// What a service's container may do: as little as it needs.
fn assert_restricted(network: &Network<'_>, service: &str) {
    let text = network.engine.run(&["container", "inspect", &network.container(service)]);
    let inspected: Value = serde_json::from_str(&text).expect("JSON");
    let (config, host) = (&inspected[0]["Config"], &inspected[0]["HostConfig"]);
    assert_eq!(host["ReadonlyRootfs"], true);
    assert!(host["Memory"].as_u64() > Some(0), "no memory limit");
    assert!(host["SecurityOpt"].to_string().contains("no-new-privileges"), "{}", host["SecurityOpt"]);
    let user = config["User"].as_str().expect("a user");
    assert!(!user.starts_with("0") && user.contains(':'), "user {user}");
    if network.engine.program == "docker" {
        assert_eq!(host["CapDrop"][0], "ALL");
    }
    let mounts: Vec<&str> =
        inspected[0]["Mounts"].as_array().expect("mounts").iter().filter_map(|m| m["Source"].as_str()).collect();
    assert!(!mounts.iter().any(|source| source.ends_with(".qkdnet/pki")), "every key is in sight: {mounts:?}");
    let pki = network.data().join(format!(".qkdnet/containers/{service}/pki"));
    let mut files: Vec<String> = std::fs::read_dir(pki)
        .expect("certificates")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, ["ca.pem".to_owned(), format!("{service}.key"), format!("{service}.pem")]);
}

#[test]
fn of_a_run_that_was_killed_nothing_is_left() {
    let Some(engine) = Engine::find() else { return };
    let place = Place::new(&bright(&[]));
    let mut network = Network::start(engine, &place, &[]);
    network.ready();
    assert_eq!(engine.containers(&network.data()).len(), 7);
    network.signal("-KILL");
    eventually("everything is removed", || engine.is_clean(&network.data()).then_some(()));
    // And the data is good: a run goes on with it.
    place.up("data", &["--for", "3s"]);
    assert_equal_keys(&place.digest("data"));
}

#[test]
fn without_an_engine_it_is_said_what_is_missing_and_what_to_do() {
    let place = Place::new(&bright(&[]));
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--on", "containers"]);
    let output = command.env("PATH", "/nowhere").output().expect("start qkdnet");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["no container engine answers", "docker:", "podman:", "--isolation process"] {
        assert!(said.contains(part), "{said}");
    }
}
