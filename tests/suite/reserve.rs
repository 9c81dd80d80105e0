//! An authentication reserve that runs empty: the link closes, says so, and lives again with a fresh secret.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use detector::store::BlockStore;
use proto::channel::v1::FaultKind;

use crate::attacks::order;
use crate::support::{Place, assert_equal_keys, bright, digest, lines, qkdnet, success, summary};

const SITES: [&str; 2] = ["valrose", "sophia"];
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
    let path = detector::store::path(&place.path("data"), "valrose", "valrose-sophia");
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

#[test]
fn an_empty_reserve_closes_the_link_and_a_fresh_secret_at_both_ends_revives_it() {
    let allowed = (
        "run: {speed: max, epoch: 20 ms, latency: 8}",
        "run: {speed: 4, epoch: 20 ms, latency: 8}\n  faults: {allowed: true}",
    );
    // A hash key and seven tags in each direction: every stored block pays for its own, every spoilt round costs one.
    let place = Place::new(&bright(&[allowed, ("reserve: 65536 bit", "reserve: 1024 bit")]));
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--isolation", "process", "--output", "json", "--for", "60s"]);
    let said = std::fs::File::create(place.path("said.json")).expect("make a file");
    let mut running = Running(Some(command.stdout(said).stderr(Stdio::inherit()).spawn().expect("start qkdnet")));
    let notes = |name: &str| {
        let text = std::fs::read_to_string(place.path("said.json")).unwrap_or_default();
        text.matches(&format!("\"name\":\"{name}\"")).count()
    };
    let is_exhausted = || notes("authentication-exhausted") > 0;
    wait("the first block", || stored(&place).0 >= 1 && SITES.iter().all(|site| flows(&place, site)));
    // What is said is spoilt, one frame for each session, until no tag is left.
    for spoilt in 0.. {
        assert!(spoilt < 100, "{spoilt} spoilt sessions have not emptied the reserve");
        let lost = notes("session-lost");
        order(&place, FaultKind::Tamper);
        // A spoilt greeting is said again, and costs no session.
        wait_up_to(Duration::from_secs(10), || notes("session-lost") > lost || is_exhausted());
        if is_exhausted() {
            break;
        }
    }
    wait("the health of both ends", || SITES.iter().all(|site| !flows(&place, site)));
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
    let output = running.0.take().expect("a run").wait_with_output().expect("wait for qkdnet");
    assert!(output.status.success());
    let said =
        std::process::Output { stdout: std::fs::read(place.path("said.json")).expect("what was said"), ..output };
    let printed = lines(&said);
    let exhausted = printed.iter().filter(|line| line["name"] == "authentication-exhausted").count();
    assert!((1..=2).contains(&exhausted), "said {exhausted} times: once by each end that it is true of");
    let shown = |line: &serde_json::Value| line["links"][0]["state"] == "authentication-exhausted";
    assert!(printed.iter().any(shown), "the state is shown");
    assert!(summary(&printed)["links"][0]["keys_equal"] == true);
    assert!(assert_equal_keys(&digest(&place.path("data"))).bits > empty.1);
}
