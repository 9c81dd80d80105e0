//! An authentication reserve that runs empty: the link closes, says so, and lives again with a fresh secret.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use module::store::BlockStore;

use crate::support::{Place, assert_equal_keys, bright, digest, lines, qkdnet, success, summary};

const SITES: [&str; 2] = ["valrose", "sophia"];
const DIFFER: &str = "reserves-differ";
const EXHAUSTED: &str = "authentication-exhausted";
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends the run where the test gives up.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn stored(place: &Place) -> (u64, u64) {
    let path = module::store::path(&place.path("data"), "valrose", "valrose-sophia");
    BlockStore::open_read_only(path).map_or((0, 0), |store| store.committed_totals())
}

fn config(place: &Place, service: &str, site: &str) -> PathBuf {
    place.path("data").join(".qkdnet/run").join(format!("{service}-valrose-sophia-{site}.yaml"))
}

/// Whether the detector of a site says that key flows.
fn flows(place: &Place, site: &str) -> bool {
    let mut command = qkdnet();
    command.args(["health", "--service", "qkdnet.link", "--config"]).arg(config(place, "detector", site));
    let output = command.output().expect("ask for health");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said == "serving\n" || said == "not serving\n", "{output:?}");
    output.status.success()
}

/// Waits for what another process does; asking for it all the time would take the machine from that process.
fn wait_up_to(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let until = Instant::now() + patience;
    while !condition() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    assert!(wait_up_to(PATIENCE, condition), "waited in vain for {what}");
}

fn rekey(config: &Path, secret: &Path) -> Command {
    let mut command = qkdnet();
    command.arg("rekey").arg("--config").arg(config).arg("--secret").arg(secret);
    command
}

/// What `qkdnet status` says, while the network runs.
fn status(place: &Place) -> Option<serde_json::Value> {
    let mut command = qkdnet();
    command.args(["status", "--output", "json", "--data"]).arg(place.path("data"));
    let output = command.output().expect("run qkdnet status");
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn ends_with_different_secrets_say_so_with_the_way_out_and_the_run_is_no_success() {
    let place = Place::new(&bright(&[]));
    for data in ["data", "other"] {
        place.up(data, &["--for", "4s"]);
    }
    // What a backup from before a re-keying is to the other end. Each reserve is as its ceilings have it.
    let reserve = |data: &str| place.path(data).join("sophia/valrose-sophia/authentication.reserve");
    std::fs::copy(reserve("other"), reserve("data")).expect("put a reserve back");
    let stored_before = stored(&place);
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--output", "json"]);
    let said = std::fs::File::create(place.path("said.json")).expect("make a file");
    let mut running = Running(Some(command.stdout(said).stderr(Stdio::inherit()).spawn().expect("start qkdnet")));
    let told = || {
        let status = status(&place)?;
        let waiting = status["waiting"].as_array()?.first()?.clone();
        (waiting["state"] == DIFFER).then_some(waiting)
    };
    wait("the state in `qkdnet status`", || told().is_some());
    let waiting = told().expect("the state lasts");
    assert_eq!(waiting["link"], "valrose-sophia");
    let way_out = waiting["way_out"].as_str().expect("words");
    assert!(way_out.contains("`qkdnet rekey`") && way_out.contains("`qkdnet restore`"), "{way_out}");
    let mut text = qkdnet();
    text.args(["status", "--data"]).arg(place.path("data"));
    let text = String::from_utf8(success(text).stdout).expect("text");
    assert!(text.contains(DIFFER) && text.contains("`qkdnet rekey`"), "{text}");
    let said = || std::fs::read_to_string(place.path("said.json")).unwrap_or_default();
    let events = || -> Vec<serde_json::Value> {
        let whole =
            said().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<serde_json::Value>>();
        whole.into_iter().filter(|event| event["name"] == DIFFER).collect()
    };
    wait("both ends to say it", || events().len() == 2);
    let run = running.0.take().expect("a run");
    let pid = rustix::process::Pid::from_raw(run.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("ask it to end");
    let output = run.wait_with_output().expect("wait for qkdnet");
    assert_eq!(output.status.code(), Some(1), "{}", said());
    assert_eq!(events().len(), 2, "said once at each end");
    let last: serde_json::Value = serde_json::from_str(said().lines().last().expect("a summary")).expect("JSON");
    let reasons = last["verdict"]["reasons"].as_array().expect("reasons").clone();
    assert!(reasons.iter().any(|reason| reason["kind"] == DIFFER && reason["link"] == "valrose-sophia"), "{last}");
    assert_eq!(stored(&place), stored_before, "something was stored without authentication");
}

#[test]
fn an_empty_reserve_closes_the_link_and_a_fresh_secret_at_both_ends_revives_it() {
    let allowed =
        ("{speed: max, epoch: 20 ms, latency: 8}", "{speed: 4, epoch: 20 ms, latency: 8}\n  faults: {allowed: true}");
    let dim = ("pairRate: 1e6 /s", "pairRate: 1e5 /s");
    let still = ("pump: {enabled: true, targetQber: 4.3 %}", "pump: {enabled: false}");
    // Four tags with a hash key each, in each direction.
    let place = Place::new(&bright(&[
        allowed,
        dim,
        still,
        ("reserve: 65536 bit, tagsPerHashKey: 1024", "reserve: 1024 bit, tagsPerHashKey: 1"),
    ]));
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--isolation", "process", "--output", "json"]);
    let said = std::fs::File::create(place.path("said.json")).expect("make a file");
    let mut running = Running(Some(command.stdout(said).stderr(Stdio::inherit()).spawn().expect("start qkdnet")));
    let shown = || {
        let text = std::fs::read_to_string(place.path("said.json")).unwrap_or_default();
        text.lines().rfind(|line| line.contains("\"links\"")).is_some_and(|line| line.contains(EXHAUSTED))
    };
    // An end that waits for the refill of a block under way may say so and go on. One that has nothing stays so,
    // also when its module comes back, which it does within two seconds.
    let is_exhausted = || shown() && !wait_up_to(Duration::from_secs(4), || !shown());
    wait("the first block", || stored(&place).0 >= 1 && SITES.iter().all(|site| flows(&place, site)));
    // A channel that crashes over its first tag, each time it comes back, until no tag is left: each round costs one,
    // and no block pays it back.
    let service = format!("channel-valrose-sophia-{}", SITES[0]);
    let failpoint = shell::failpoint::file(&place.path("data/.qkdnet/run"), &service);
    let arm = || std::fs::write(&failpoint, "tag.persisted=1").expect("arm a failpoint");
    arm();
    let mut stop = qkdnet();
    stop.args(["fault", "stop", &service, "--for", "100ms", "--data"]).arg(place.path("data"));
    success(stop);
    // Whoever has read the file takes it away.
    let is_empty = || {
        is_exhausted()
            || (!failpoint.exists() && {
                arm();
                false
            })
    };
    wait("an exhausted reserve", is_empty);
    let _ = std::fs::remove_file(&failpoint);
    wait("both ends to say that no key flows", || SITES.iter().all(|site| !flows(&place, site)));
    let empty = stored(&place);

    // An end alone does not revive the link, and a secret is taken once.
    let secret = place.path("fresh.secret");
    std::fs::write(&secret, [7, 1, 200, 33].repeat(4096)).expect("write a secret");
    let first = config(&place, "channel", SITES[0]);
    success(rekey(&first, &secret));
    let again = rekey(&first, &secret).output().expect("run rekey");
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("used before"), "{again:?}");
    assert_eq!(stored(&place), empty, "something was stored without authentication");
    assert!(SITES.iter().all(|site| !flows(&place, site)));

    success(rekey(&config(&place, "channel", SITES[1]), &secret));
    wait("key with the fresh secret", || stored(&place).0 > empty.0 && SITES.iter().all(|site| flows(&place, site)));
    let run = running.0.take().expect("a run");
    let pid = rustix::process::Pid::from_raw(run.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("ask it to end");
    let output = run.wait_with_output().expect("wait for qkdnet");
    assert!(output.status.success());
    let said =
        std::process::Output { stdout: std::fs::read(place.path("said.json")).expect("what was said"), ..output };
    let printed = lines(&said);
    assert!(printed.iter().any(|line| line["name"] == EXHAUSTED), "the state is said");
    // Who replaced it is told at both ends.
    let replaced = |site: &str| {
        let of_site = printed.iter().filter(|line| line["name"] == "reserve-replaced" && line["site"] == site);
        of_site.filter(|line| line["message"].as_str().is_some_and(|said| said.contains("`control`"))).count()
    };
    assert_eq!(SITES.map(replaced), [1, 1]);
    assert!(summary(&printed)["links"][0]["keys_equal"] == true);
    assert!(assert_equal_keys(&digest(&place.path("data"))).bits > empty.1);
}

/// A run in the background that says what happens into a file.
fn start(place: &Place) -> Running {
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--isolation", "process", "--output", "json"]);
    let said = std::fs::File::create(place.path("said.json")).expect("make a file");
    Running(Some(command.stdout(said).stderr(Stdio::inherit()).spawn().expect("start qkdnet")))
}

fn said(place: &Place) -> String {
    std::fs::read_to_string(place.path("said.json")).unwrap_or_default()
}

#[test]
fn a_reserve_that_was_put_back_is_named_with_its_site_and_a_fresh_secret_at_both_ends_revives_the_link() {
    let place = Place::new(&bright(&[]));
    let reserve = channel::reserve_path(&place.path("data"), SITES[1], "valrose-sophia");
    place.up("data", &["--for", "2s", "--isolation", "process"]);
    let backup = std::fs::read(&reserve).expect("back a reserve up");
    for site in SITES {
        assert!(!channel::secret_path(&place.path("data"), site, "valrose-sophia").exists(), "it was taken");
    }
    place.up("data", &["--for", "20s", "--isolation", "process"]);
    std::fs::write(&reserve, backup).expect("put it back");
    let before = stored(&place);
    let mut running = start(&place);
    // It is said once, with its site, by however many it is noticed.
    let told = r#""site":"sophia","name":"rolled-back","message":"authentication reserve of valrose-sophia, since "#;
    wait("whose volume it is", || said(&place).contains(told));
    assert!(SITES.iter().all(|site| !flows(&place, site)));
    assert_eq!(stored(&place), before, "something was stored without authentication");
    let secret = place.path("fresh.secret");
    std::fs::write(&secret, [7, 1, 200, 33].repeat(4096)).expect("write a secret");
    for site in SITES {
        success(rekey(&config(&place, "channel", site), &secret));
    }
    wait("key with the fresh secret", || stored(&place).0 > before.0 && SITES.iter().all(|site| flows(&place, site)));
    let mut run = running.0.take().expect("a run");
    let pid = rustix::process::Pid::from_raw(run.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("ask it to end");
    assert!(run.wait().expect("wait for qkdnet").success(), "{}", said(&place));
    assert_equal_keys(&digest(&place.path("data")));
}

#[test]
fn a_reserve_that_is_lost_is_not_replaced() {
    let place = Place::new(&bright(&[]));
    place.up("data", &["--for", "2s"]);
    std::fs::remove_file(channel::reserve_path(&place.path("data"), SITES[0], "valrose-sophia")).expect("lose it");
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--for", "2s"]);
    let output = command.output().expect("run qkdnet");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is lost") && said.contains("qkdnet rekey"), "{said}");
}
