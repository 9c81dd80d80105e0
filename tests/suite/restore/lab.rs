//! A network whose data are put back now and then.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::told::{Pair, Told};
use crate::keys::keys;
use crate::support::{Place, qkdnet, success};

/// However busy the machine, nothing here takes so long.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// What services note of the pads and of the key that they use: places, no bits.
const NOTES: &str = "off,kms::drawn=trace,channel::pads=trace";

pub struct Lab {
    pub place: Place,
    pub told: Told,
    pub random: ChaCha8Rng,
}

/// A run of it.
pub struct Run {
    child: Option<Child>,
    data: PathBuf,
    state: PathBuf,
    said: PathBuf,
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
#[derive(Debug)]
pub struct Ended {
    /// Nothing where it was killed.
    pub code: Option<i32>,
    pub summary: Value,
    pub events: Vec<Value>,
    /// What it wrote to standard error, without the notes.
    pub errors: String,
    /// Keys fetched in it that must not come again, whatever is put back.
    pub kept: usize,
}

impl Ended {
    /// Site and store of everything that was put back.
    pub fn rolled_back(&self) -> BTreeSet<(String, String)> {
        stores(&self.summary["rolled_back"])
    }
}

pub fn stores(rows: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    rows.as_array().into_iter().flatten().map(|row| (text(&row["site"]), text(&row["store"]))).collect()
}

impl Lab {
    pub fn new(topology: &str) -> Self {
        Self::with_seed(topology, 2026)
    }

    pub fn with_seed(topology: &str, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { place: Place::new(topology), told: Told::default(), random }
    }

    pub fn data(&self) -> PathBuf {
        self.place.path("data")
    }

    fn qkdnet(&self) -> Command {
        let mut command = qkdnet();
        command.env("QKDNET_STATE_DIR", self.place.path("state"));
        command
    }

    pub fn start(&self, isolation: &str) -> Run {
        let file = |name: &str| File::create(self.place.path(name)).expect("make a file");
        let mut command = self.qkdnet();
        command.args(["--log", NOTES, "up"]).arg(self.place.topology()).arg("--data").arg(self.data());
        command.args(["--isolation", isolation, "--output", "json", "--speed", "4"]);
        let child = command.stdout(file("said.json")).stderr(file("noted.log")).spawn().expect("start qkdnet");
        let (state, said) = (self.place.path("state"), self.place.path("said.json"));
        Run { child: Some(child), data: self.data(), state, said }
    }

    /// Ends a run in order, and sees that no pad served twice.
    pub fn stop(&mut self, mut run: Run) -> Ended {
        let mut child = run.child.take().expect("a network that runs");
        let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
        let code = child.wait().expect("wait for qkdnet").code();
        self.ended(code, None)
    }

    /// Kills a run, and sees that no pad served twice.
    pub fn kill(&mut self, mut run: Run) -> Ended {
        let mut child = run.child.take().expect("a network that runs");
        let killed = Instant::now();
        child.kill().expect("kill qkdnet");
        let code = child.wait().expect("wait for qkdnet").code();
        self.ended(code, Some(killed))
    }

    fn ended(&mut self, code: Option<i32>, killed: Option<Instant>) -> Ended {
        let read = |name: &str| fs::read_to_string(self.place.path(name)).expect("read what was said");
        let (said, log) = (read("said.json"), read("noted.log"));
        let (mut events, mut summary) = (Vec::new(), Value::Null);
        // A kill may leave half a line.
        for line in said.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line: Value = serde_json::from_str(line).expect("JSON");
            match line["event"].as_str() {
                Some("note") => events.push(line),
                Some("summary") => summary = line,
                _ => {}
            }
        }
        self.told.noted(&log);
        // Nobody saw when one ended by itself: all that was fetched in it may have been too late.
        let killed = killed.or_else(|| self.told.first_fetched().filter(|_| summary.is_null()));
        let kept = self.told.run_ended(killed);
        let errors = log.lines().filter(|line| !line.contains(" TRACE ")).map(|line| format!("{line}\n")).collect();
        Ended { code, summary, events, errors, kept }
    }

    /// Takes keys from a network as far as it gives any, and fetches some of all that were ever given. How many of both.
    pub fn use_keys(&mut self, run: &Run, pair: Pair, get: usize, fetch: usize) -> (usize, usize) {
        let (master, slave) = pair;
        let got = run.key(self, &["get", "--sae", master, "--to", slave, "--number", &get.to_string()]);
        let got = if got.status.success() { keys(&got.stdout) } else { Vec::new() };
        let number = got.len();
        self.told.got(pair, got);
        let (new, old) = self.told.waiting(pair, fetch, &mut self.random);
        // What was fetched before must not come again; the model sees to that.
        let again = self.told.any_fetched(pair, &mut self.random);
        let mut all = 0;
        for ids in [new].into_iter().chain(old.map(|id| vec![id])).chain(again.map(|id| vec![id])) {
            let mut words = vec!["fetch", "--sae", slave, "--from", master];
            words.extend(ids.iter().map(String::as_str));
            let fetched = if ids.is_empty() { continue } else { run.key(self, &words) };
            if fetched.status.success() {
                let fetched = keys(&fetched.stdout);
                all += fetched.len();
                self.told.fetched(pair, fetched);
            }
        }
        (number, all)
    }

    pub fn restore(&self, words: &[&str]) -> Output {
        let mut command = self.qkdnet();
        command.arg("restore").arg(self.data()).args(words);
        success(command)
    }

    /// What `restore` answers where it refuses.
    pub fn restore_refused(&self) -> Output {
        self.qkdnet().arg("restore").arg(self.data()).output().expect("run qkdnet")
    }

    /// Makes a copy of what the network has on its disk.
    pub fn back_up(&self, name: &str) -> PathBuf {
        let copy = self.place.path(name);
        copy_folder(&self.data(), &copy);
        copy
    }

    /// Puts a part of the data back as it was.
    pub fn put_back(&self, copy: &Path, part: &str) {
        let (from, to) = (copy.join(part), self.data().join(part));
        if to.is_dir() {
            fs::remove_dir_all(&to).expect("remove a folder");
        } else if to.exists() {
            fs::remove_file(&to).expect("remove a file");
        }
        if from.is_dir() {
            copy_folder(&from, &to);
        } else if from.exists() {
            fs::copy(&from, &to).expect("copy a file");
        }
    }
}

impl Run {
    pub fn status(&self) -> Option<Value> {
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

    pub fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < until, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a network makes key on every link, says that it cannot, or has ended by itself.
    pub fn settle(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            let told = |status: &Value| {
                status["ready"] == true || !status["rolled_back"].is_null() || !status["waiting"].is_null()
            };
            if status.as_ref().is_some_and(told) || self.has_ended() {
                return;
            }
            assert!(Instant::now() < until, "it neither makes key nor says why: {status:?}\n{}", self.last_said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().expect("a network that runs");
        child.try_wait().expect("look at qkdnet").is_some()
    }

    fn last_said(&self) -> String {
        let text = fs::read_to_string(&self.said).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(12).collect();
        last.into_iter().rev().map(|line| format!("{line}\n")).collect()
    }

    /// Sum of the ceilings whose name begins so.
    pub fn counts(&self, name: &str) -> u64 {
        let Ok(entries) = fs::read_dir(self.state.join("anchors")) else { return 0 };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let read = |path: PathBuf| -> Option<Value> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
        let ceilings = files.filter_map(read).flat_map(|file| file["ceilings"].as_object().cloned()).flatten();
        ceilings.filter(|(other, _)| other.starts_with(name)).filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// Interrupts a run of which nothing is looked at any more.
    pub fn interrupt(mut self) {
        let mut child = self.child.take().expect("a network that runs");
        let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
        let _ = child.wait();
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let entry = entry.expect("read a folder");
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            // Traces are nobody's state.
            if entry.file_name() != "_spans" {
                copy_folder(&path, &copy);
            }
        } else if path.is_file() {
            fs::copy(&path, &copy).expect("copy a file");
        }
    }
}
