//! Volumes that are put back from copies: no key comes twice and no pad serves twice, or it is said before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::keys::{Key, keys};
use crate::support::{Place, bright, bright_network_with_small_transfers, qkdnet, success};

/// However busy the machine, nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(300);
/// A network that neither makes key nor says why is given up after so long.
const SILENCE: Duration = Duration::from_secs(30);
const LINK: &str = "valrose-sophia";
/// Applications at the sites of the link: who gets keys, and who fetches them.
const MASTER: &str = "university";
const SLAVE: &str = "inria";

/// What the applications were told, and which pads were used.
#[derive(Default)]
struct Told {
    keys: BTreeMap<String, String>,
    /// Their IDs, oldest first.
    order: Vec<String>,
    fetched: BTreeSet<String>,
    /// Tags sent, by reserve and generation.
    sent: BTreeMap<(String, String), u64>,
}

impl Told {
    /// Keys that a master got.
    fn got(&mut self, got: Vec<Key>) {
        for (id, key) in got {
            assert!(!self.keys.contains_key(&id), "the ID {id} came twice");
            assert!(!self.keys.values().any(|known| *known == key), "a key came twice, under another ID");
            self.order.push(id.clone());
            self.keys.insert(id, key);
        }
    }

    fn fetched(&mut self, fetched: Vec<Key>) {
        for (id, key) in fetched {
            assert_eq!(self.keys.get(&id), Some(&key), "another key than was given under {id}");
            assert!(self.fetched.insert(id.clone()), "{id} was fetched twice");
        }
    }

    /// Newest first.
    fn not_fetched(&self) -> Vec<String> {
        self.order.iter().rev().filter(|id| !self.fetched.contains(*id)).cloned().collect()
    }
}

/// A network whose data are put back now and then, and what was told meanwhile.
struct Lab {
    place: Place,
    told: Told,
}

/// A run of it.
struct Run {
    child: Option<Child>,
    data: PathBuf,
    state: PathBuf,
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a run came to its end.
struct Ended {
    code: Option<i32>,
    summary: Value,
    events: Vec<Value>,
}

impl Ended {
    /// Site and store of everything that was put back.
    fn rolled_back(&self) -> BTreeSet<(String, String)> {
        stores(&self.summary["rolled_back"])
    }
}

fn stores(rows: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    rows.as_array().into_iter().flatten().map(|row| (text(&row["site"]), text(&row["store"]))).collect()
}

impl Lab {
    fn new(topology: &str) -> Self {
        Self { place: Place::new(topology), told: Told::default() }
    }

    fn data(&self) -> PathBuf {
        self.place.path("data")
    }

    fn qkdnet(&self) -> Command {
        let mut command = qkdnet();
        command.env("QKDNET_STATE_DIR", self.place.path("state"));
        command
    }

    fn start(&self, isolation: &str) -> Run {
        let said = File::create(self.place.path("said.json")).expect("make a file");
        let mut command = self.qkdnet();
        command.arg("up").arg(self.place.topology()).arg("--data").arg(self.data());
        command.args(["--isolation", isolation, "--output", "json", "--speed", "4"]);
        let child = command.stdout(said).stderr(Stdio::null()).spawn().expect("start qkdnet");
        Run { child: Some(child), data: self.data(), state: self.place.path("state") }
    }

    /// Ends a run, and sees that no pad of a reserve was used twice.
    fn stop(&mut self, mut run: Run) -> Ended {
        let mut child = run.child.take().expect("a network that runs");
        let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
        let code = child.wait().expect("wait for qkdnet").code();
        for (store, name, count) in run.ceilings() {
            if name.starts_with("send/") {
                let known = self.told.sent.entry((store.clone(), name.clone())).or_default();
                assert!(count >= *known, "{store} {name}: {known} tags were sent, and then it counted {count}");
                *known = count;
            }
        }
        let text = fs::read_to_string(self.place.path("said.json")).expect("read what was said");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let (mut events, mut summary) = (Vec::new(), Value::Null);
        for line in lines {
            let line: Value = line;
            match line["event"].as_str() {
                Some("note") => events.push(line),
                Some("summary") => summary = line,
                _ => {}
            }
        }
        Ended { code, summary, events }
    }

    /// Takes keys from a network as far as it gives any, and fetches some of all that were ever given.
    fn use_keys(&mut self, run: &Run, get: usize, fetch: usize) -> (usize, usize) {
        let got = run.key(self, &["get", "--sae", MASTER, "--to", SLAVE, "--number", &get.to_string()]);
        let got = if got.status.success() { keys(&got.stdout) } else { Vec::new() };
        let number = got.len();
        self.told.got(got);
        // What was fetched before must not come again.
        for id in self.told.fetched.iter().rev().take(2) {
            let again = run.key(self, &["fetch", "--sae", SLAVE, "--from", MASTER, id]);
            assert!(!again.status.success(), "{id} was fetched a second time");
        }
        let waiting = self.told.not_fetched();
        let mut fetched = Vec::new();
        // The newest, and one that may be from before whatever was put back.
        let older = waiting.get(waiting.len() / 2).filter(|_| waiting.len() > 2 * fetch);
        for id in waiting.iter().take(fetch).chain(older) {
            let one = run.key(self, &["fetch", "--sae", SLAVE, "--from", MASTER, id]);
            if one.status.success() {
                fetched.extend(keys(&one.stdout));
            }
        }
        let both = (number, fetched.len());
        self.told.fetched(fetched);
        both
    }

    fn restore(&self, words: &[&str]) -> Output {
        let mut command = self.qkdnet();
        command.arg("restore").arg(self.data()).args(words);
        success(command)
    }

    /// Makes a copy of what the network has on its disk.
    fn back_up(&self, name: &str) -> PathBuf {
        let copy = self.place.path(name);
        copy_folder(&self.data(), &copy);
        copy
    }

    /// Puts a part of the data back as it was.
    fn put_back(&self, copy: &Path, part: &str) {
        let (from, to) = (copy.join(part), self.data().join(part));
        if to.is_dir() {
            fs::remove_dir_all(&to).expect("remove a folder");
        }
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copy a file");
        }
    }

    /// A network that makes key until its stores have counted so much that no chunk hides it when they are put back.
    fn wear(&mut self, isolation: &str) -> Ended {
        let run = self.start(isolation);
        run.wait("key", || run.status().is_some_and(|status| status["ready"] == true));
        let before = run.counts("send/");
        run.wait("tags", || run.counts("send/") >= before + 2 * 24);
        for _ in 0..8 {
            self.use_keys(&run, 100, 3);
        }
        self.stop(run)
    }
}

impl Run {
    fn status(&self) -> Option<Value> {
        let mut command = qkdnet();
        let output = command.arg("status").arg("--data").arg(&self.data).args(["--output", "json"]).output();
        let output = output.expect("run qkdnet");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn key(&self, lab: &Lab, words: &[&str]) -> Output {
        let mut command = lab.qkdnet();
        command.arg("key").arg(words[0]).arg("--data").arg(&self.data).args(&words[1..]);
        command.args(["--output", "json"]).output().expect("run qkdnet")
    }

    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < until, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the network makes key on every link, or says that it cannot; false where it does neither.
    fn settle(&self) -> bool {
        let until = Instant::now() + SILENCE;
        while Instant::now() < until {
            if let Some(status) = self.status()
                && (status["ready"] == true || !status["rolled_back"].is_null() || !status["waiting"].is_null())
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }

    /// Store, name and count of all that is anchored.
    fn ceilings(&self) -> Vec<(String, String, u64)> {
        let Ok(entries) = fs::read_dir(self.state.join("anchors")) else { return Vec::new() };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let read = |path: PathBuf| -> Option<Value> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
        files
            .filter_map(read)
            .flat_map(|file| {
                let store = file["store"].as_str().unwrap_or_default().to_owned();
                let ceilings = file["ceilings"].as_object().cloned().unwrap_or_default();
                ceilings.into_iter().map(move |(name, count)| (store.clone(), name, count.as_u64().unwrap_or(0)))
            })
            .collect()
    }

    /// Sum of the counts whose name begins so.
    fn counts(&self, name: &str) -> u64 {
        self.ceilings().into_iter().filter(|(_, other, _)| other.starts_with(name)).map(|(_, _, count)| count).sum()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let entry = entry.expect("read a folder");
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else if path.is_file() {
            fs::copy(&path, &copy).expect("copy a file");
        }
    }
}

/// After a restore the network makes key as if nothing had been.
fn flows_again(lab: &mut Lab, isolation: &str) {
    let run = lab.start(isolation);
    run.wait("key after a restore", || run.status().is_some_and(|status| status["ready"] == true));
    let until = Instant::now() + PATIENCE;
    let (mut got, mut fetched) = (0, 0);
    while got < 10 || fetched < 5 {
        let more = lab.use_keys(&run, 5, 5);
        (got, fetched) = (got + more.0, fetched + more.1);
        assert!(Instant::now() < until, "no keys after a restore");
    }
    let ended = lab.stop(run);
    assert_eq!((ended.code, ended.rolled_back().len()), (Some(0), 0), "{}", ended.summary);
}

/// A network is put back in parts, says of which sites, gives nothing that it gave before, and flows again when restored.
fn put_back_and_restored(isolation: &str, parts: &[&str], expected: &[(&str, &str)]) {
    let mut lab = Lab::new(&bright(&[]));
    assert_eq!(lab.wear(isolation).code, Some(0));
    let copy = lab.back_up("copy");
    assert_eq!(lab.wear(isolation).code, Some(0));
    parts.iter().for_each(|part| lab.put_back(&copy, part));

    let run = lab.start(isolation);
    let wanted: BTreeSet<(String, String)> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    run.wait("what was put back", || {
        run.status().is_some_and(|status| stores(&status["rolled_back"]).is_superset(&wanted))
    });
    lab.use_keys(&run, 5, 5);
    let ended = lab.stop(run);
    assert_eq!(ended.code, Some(1), "{}", ended.summary);
    assert_eq!(ended.rolled_back(), wanted, "{}", ended.summary);
    let said = ended.events.iter().filter(|event| event["name"] == "rolled-back" && event["link"] == "");
    assert_eq!(said.count(), wanted.len(), "{:?}", ended.events);

    let dry = String::from_utf8(lab.restore(&["--dry-run"]).stdout).expect("text");
    assert!(dry.contains("key store of valrose: ") && dry.contains("nothing was changed"), "{dry}");
    lab.restore(&[]);
    // It may be repeated.
    lab.restore(&[]);
    flows_again(&mut lab, isolation);
}

#[test]
fn both_sites_that_are_put_back_say_so_and_give_nothing_twice() {
    put_back_and_restored(
        "tasks",
        &["valrose/kms", "sophia/kms"],
        &[("valrose", "key store"), ("sophia", "key store")],
    );
}

#[test]
fn a_key_store_that_is_put_back_alone_is_named() {
    put_back_and_restored("process", &["sophia/kms"], &[("sophia", "key store")]);
}

#[test]
fn a_reserve_that_is_put_back_alone_is_named() {
    let reserve = format!("authentication reserve of {LINK}");
    let part = format!("valrose/{LINK}/authentication.reserve");
    put_back_and_restored("tasks", &[&part], &[("valrose", &reserve)]);
}

#[test]
fn a_relay_that_is_put_back_alone_does_not_stop_its_links() {
    let mut lab = Lab::new(&bright_network_with_small_transfers());
    let worn = |lab: &mut Lab| {
        let run = lab.start("tasks");
        run.wait("relayed key", || {
            let status = run.status();
            status.is_some_and(|status| status["ready"] == true) && lab_relayed(&run) > 0
        });
        lab.stop(run)
    };
    assert_eq!(worn(&mut lab).code, Some(0));
    let copy = lab.back_up("copy");
    assert_eq!(worn(&mut lab).code, Some(0));
    lab.put_back(&copy, "valrose/relay");
    assert_eq!(worn(&mut lab).code, Some(0), "a relay holds no key: what was under way is given up");
}

/// Transfers that the relays of a network have completed.
fn lab_relayed(run: &Run) -> u64 {
    let text = fs::read_to_string(run.data.parent().expect("a folder").join("said.json")).unwrap_or_default();
    let Some(line) = text.lines().rfind(|line| line.contains("\"stores\"")) else { return 0 };
    let Ok(status) = serde_json::from_str::<Value>(line) else { return 0 };
    let pools = status["stores"].as_array().into_iter().flatten().flat_map(|store| store["pools"].as_array()).flatten();
    pools.filter(|pool| pool["relayed"] == true).filter_map(|pool| pool["confirmed_bits"].as_u64()).sum()
}

#[test]
fn a_restore_waits_until_nobody_uses_the_data() {
    let lab = Lab::new(&bright(&[]));
    let mut run = lab.start("tasks");
    run.wait("a network", || run.status().is_some());
    let mut command = lab.qkdnet();
    let refused = command.arg("restore").arg(lab.data()).output().expect("run qkdnet");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another run uses"), "{refused:?}");
    let mut child = run.child.take().expect("a network that runs");
    let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    let _ = child.wait();
}

#[test]
fn nothing_comes_twice_whatever_is_put_back_and_however_old() {
    let rounds: u32 = std::env::var("QKDNET_RESTORE_ROUNDS").map_or(20, |text| text.parse().expect("a number"));
    let seed: u64 = std::env::var("QKDNET_RESTORE_SEED").map_or(2026, |text| text.parse().expect("a number"));
    eprintln!("{rounds} rounds of restore with seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = Lab::new(&bright(&[]));
    let volumes = ["valrose/kms", "sophia/kms"];
    let mut copies: Vec<PathBuf> = Vec::new();
    let (mut said, mut silent) = (0, 0);
    for round in 0..rounds {
        if let Some(copy) = copies.choose(&mut random) {
            volumes.iter().filter(|_| random.random_bool(0.4)).for_each(|part| lab.put_back(copy, part));
        }
        let run = lab.start("tasks");
        let settled = run.settle();
        for _ in 0..random.random_range(1..4) {
            lab.use_keys(&run, random.random_range(1..60), random.random_range(0..4));
        }
        let ended = lab.stop(run);
        let rolled_back = ended.rolled_back();
        assert!(rolled_back.is_empty() || ended.code == Some(1), "round {round}: {}", ended.summary);
        said += usize::from(!rolled_back.is_empty());
        silent += usize::from(!settled);
        if ended.code != Some(0) || random.random_bool(0.1) {
            lab.restore(&[]);
        }
        let copy = lab.back_up(&format!("copy-{round}"));
        copies.push(copy);
        if copies.len() > 5 {
            fs::remove_dir_all(copies.remove(0)).expect("remove a folder");
        }
    }
    eprintln!(
        "{} keys, {} fetched; {said} times rolled back, {silent} times silent",
        lab.told.keys.len(),
        lab.told.fetched.len()
    );
    assert!(lab.told.fetched.len() > rounds as usize / 2 && said > 0, "too little happened to show anything");
}
