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
const NOT_HERE: [&str; 5] = ["reserve.rekeyed", "reserve.cut", "stretch.kept", "stretch.settled", "stretch.spent"];

/// A service that is to crash at a failpoint.
struct Armed {
    /// Crashes in its log before.
    crashes: usize,
    place: String,
    since: Instant,
    /// Where it crashes after that: its file is in place for the start that follows the crash.
    next: Option<String>,
}

pub struct Kills {
    run: PathBuf,
    logs: PathBuf,
    rng: ChaCha8Rng,
    services: Vec<(&'static str, String)>,
    armed: BTreeMap<String, Armed>,
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
            let Some(service) = name.strip_suffix(".yaml").filter(|name| *name != "directory") else { continue };
            let kinds = ["source", "detector", "transmitter", "channel", "kms", "relay", "pacer"];
            let kind = kinds.into_iter().find(|kind| service.split('-').next() == Some(kind));
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
            let spared = matches!(kind, "source" | "detector" | "transmitter" | "channel") && self.rng.random_bool(0.5);
            if spared || self.armed.contains_key(&service) {
                continue;
            }
            let Some(pid) = self.pid(&service) else { continue };
            if self.rng.random_range(0..10) > 0
                && let Some(place) = self.arm(&service)
            {
                let crashes = self.crashes(&service);
                self.armed.insert(service, Armed { crashes, place, since: Instant::now(), next: None });
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

    /// Arms a service for its next start, in a place and at a visit that chance names, if there is such a place.
    fn arm(&mut self, service: &str) -> Option<String> {
        let kind = &self.services.iter().find(|(_, name)| name == service)?.0;
        let places = failpoint::PLACES.iter().find(|(known, _)| known == kind)?.1;
        let places: Vec<&str> = places.iter().copied().filter(|place| !NOT_HERE.contains(place)).collect();
        let place = places[self.rng.random_range(0..places.len())];
        let hits = match place {
            "store.checkpointed" => 1,
            _ if place.starts_with("block.") => 2,
            _ => 6,
        };
        let hit = self.rng.random_range(1..=hits);
        std::fs::write(failpoint::file(&self.run, service), format!("{place}={hit}")).expect("arm a service");
        Some(place.to_owned())
    }

    /// Counts the armed services that have crashed. While fewer than half of all have died that way, those that were
    /// started armed are armed for their next start, too.
    fn look(&mut self) {
        let armed = std::mem::take(&mut self.armed);
        for (service, mut at) in armed {
            let crashes = self.crashes(&service);
            let file = failpoint::file(&self.run, &service);
            if crashes > at.crashes {
                self.killed += 1;
                *self.at_failpoints.entry(at.place).or_default() += 1;
                let Some(place) = at.next else { continue };
                at = Armed { crashes, place, since: Instant::now(), next: None };
            } else if at.since.elapsed() > COMES_BY_WITHIN {
                // Still armed: it may crash at any time, which is no harm, but is counted no more.
                *self.never_came.entry(at.place).or_default() += 1;
                let _ = std::fs::remove_file(file);
                continue;
            } else if at.next.is_none() && !file.exists() && self.few_at_failpoints() {
                at.next = self.arm(&service);
            }
            self.armed.insert(service, at);
        }
    }

    fn few_at_failpoints(&self) -> bool {
        2 * self.at_failpoints.values().sum::<u64>() < self.killed
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
