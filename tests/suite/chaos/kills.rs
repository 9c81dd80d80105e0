//! Which service dies, when and where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use shell::failpoint;

/// Time that an armed service gets to come to the place where it crashes.
const COMES_BY_WITHIN: Duration = Duration::from_secs(40);
/// Places that nothing leads to here: nobody puts a fresh secret in, and the two ends' reserves need not differ.
const NOT_HERE: [&str; 2] = ["reserve.rekeyed", "reserve.cut"];

pub struct Kills {
    run: PathBuf,
    logs: PathBuf,
    rng: ChaCha8Rng,
    services: Vec<(&'static str, String)>,
    /// Armed services: crashes in their log before, the place, and when they were armed.
    armed: BTreeMap<String, (usize, String, Instant)>,
    killed: u64,
    at_failpoints: BTreeMap<String, u64>,
    never_came: BTreeMap<String, u64>,
}

impl Kills {
    pub fn new(data: &Path, rng: ChaCha8Rng) -> Self {
        let run = data.join(".qkdnet/run");
        let mut services = Vec::new();
        for entry in std::fs::read_dir(&run).expect("read the folder of the run").map(|entry| entry.expect("an entry"))
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(service) = name.strip_suffix(".yaml") else { continue };
            let kinds = ["source", "detector", "channel", "kms", "relay"];
            let kind = kinds.into_iter().find(|kind| service.starts_with(&format!("{kind}-")));
            services.push((kind.expect("a known kind of service"), service.to_owned()));
        }
        services.sort();
        let logs = data.join(".qkdnet/logs");
        let (armed, at_failpoints, never_came) = Default::default();
        Self { run, logs, rng, services, armed, killed: 0, at_failpoints, never_came }
    }

    pub fn run(&mut self, count: u64) {
        while self.killed < count {
            self.look();
            let pause_ms = self.rng.random_range(20..400);
            std::thread::sleep(Duration::from_millis(pause_ms));
            let (kind, service) = self.services[self.rng.random_range(0..self.services.len())].clone();
            // A link that never gets to lock makes no block, and without blocks there is little to lose.
            let spared = matches!(kind, "source" | "detector" | "channel") && self.rng.random_bool(0.5);
            if spared || self.armed.contains_key(&service) {
                continue;
            }
            let place = self.place(kind);
            let Some(pid) = self.pid(&service) else { continue };
            if let Some((place, hit)) = &place {
                std::fs::write(failpoint::file(&self.run, &service), format!("{place}={hit}")).expect("arm a service");
                self.armed.insert(service.clone(), (self.crashes(&service), place.clone(), Instant::now()));
            }
            // One that has just ended by itself is started again, too.
            if kill_process(pid, Signal::KILL).is_ok() {
                self.killed += 1;
            }
        }
        while !self.armed.is_empty() {
            self.look();
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("crashed at {:?}; never came to {:?}", self.at_failpoints, self.never_came);
    }

    /// All that died, and those of them that died at a failpoint.
    pub fn counts(&self) -> (u64, u64) {
        (self.killed, self.at_failpoints.values().sum())
    }

    /// Where a service is to crash at its next start, at the how manieth visit; two times in three, so that about half
    /// of all that die die there.
    fn place(&mut self, kind: &str) -> Option<(String, u64)> {
        let places = failpoint::PLACES.iter().find(|(known, _)| *known == kind)?.1;
        let places: Vec<&str> = places.iter().copied().filter(|place| !NOT_HERE.contains(place)).collect();
        if places.is_empty() || self.rng.random_range(0..10) == 0 {
            return None;
        }
        let place = places[self.rng.random_range(0..places.len())];
        let hits = if place.starts_with("block.") || place == "store.checkpointed" { 2 } else { 6 };
        let hit = if place == "store.checkpointed" { 1 } else { self.rng.random_range(1..=hits) };
        Some((place.to_owned(), hit))
    }

    /// Counts the armed services that have crashed.
    fn look(&mut self) {
        let armed = std::mem::take(&mut self.armed);
        for (service, (before, place, since)) in armed {
            if self.crashes(&service) > before {
                self.killed += 1;
                *self.at_failpoints.entry(place).or_default() += 1;
            } else if since.elapsed() > COMES_BY_WITHIN {
                // Still armed: it may crash at any time, which is no harm, but is counted no more.
                *self.never_came.entry(place).or_default() += 1;
            } else {
                self.armed.insert(service, (before, place, since));
            }
        }
    }

    fn crashes(&self, service: &str) -> usize {
        let log = std::fs::read_to_string(self.logs.join(format!("{service}.log"))).unwrap_or_default();
        log.matches("failpoint `").count()
    }

    /// The process that was started with the service's configuration.
    fn pid(&self, service: &str) -> Option<Pid> {
        let config = self.run.join(format!("{service}.yaml"));
        let config = config.to_str().expect("a path that is text").as_bytes();
        for entry in std::fs::read_dir("/proc").expect("read /proc").filter_map(Result::ok) {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if words.split(|byte| *byte == 0).any(|word| word == config) {
                return Pid::from_raw(pid);
            }
        }
        None
    }
}
