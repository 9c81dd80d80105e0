//! Any subset of the volumes of any sites, of any age, whatever ended the run before.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::lab::{Ended, Lab, PATIENCE, Run};
use super::told::{FETCHED_IS_KEPT_AFTER, Pair};
use crate::support::bright_network_with_small_transfers;

/// Applications at the ends of either link, and at the two sites that share none: their key is relayed.
const PAIRS: [Pair; 3] = [("university", "inria"), ("university", "observatory"), ("inria", "observatory")];
const RELAYED: Pair = PAIRS[2];
const COPIES_MAX: usize = 5;
/// In one round in this many a run that is killed runs long enough before.
const LONG_ROUNDS: u32 = 6;

/// What somebody puts back as one: paths within the data.
struct Volume {
    whole: String,
    /// Parts of it that a person may put back alone, each of some files.
    parts: Vec<Vec<String>>,
}

/// Every volume that a network has on this disk.
fn volumes(data: &Path) -> Vec<Volume> {
    let mut volumes = Vec::new();
    for site in names(data).into_iter().filter(|name| !name.starts_with(['.', '_'])) {
        for store in names(&data.join(&site)) {
            let whole = format!("{site}/{store}");
            let files = names(&data.join(&whole)).into_iter();
            let within = |of: fn(&str) -> bool| -> Vec<String> {
                files.clone().filter(|name| of(name)).map(|name| format!("{whole}/{name}")).collect()
            };
            let parts = match store.as_str() {
                "kms" => vec![within(|name| name == "keys.redb"), within(|name| name.starts_with("redeemed-"))],
                "relay" => Vec::new(),
                _ => {
                    let is_reserve: fn(&str) -> bool = |name| name.starts_with("authentication.");
                    vec![
                        within(|name| name == "authentication.reserve"),
                        within(|name| !name.starts_with("authentication.")),
                        within(is_reserve),
                    ]
                }
            };
            volumes.push(Volume { whole, parts: parts.into_iter().filter(|files| !files.is_empty()).collect() });
        }
    }
    volumes
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("read a folder").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

/// Puts a random subset back, of one age or of several. What it was.
fn put_back(lab: &mut Lab, copies: &[PathBuf]) -> Vec<String> {
    let Some(copy) = copies.choose(&mut lab.random) else { return Vec::new() };
    let (each_its_age, often) = (lab.random.random_bool(0.5), [0.1, 0.35, 0.8].choose(&mut lab.random).copied());
    let mut done = Vec::new();
    for volume in volumes(&lab.data()) {
        if !lab.random.random_bool(often.unwrap_or(0.5)) {
            continue;
        }
        let copy = copies.choose(&mut lab.random).filter(|_| each_its_age).unwrap_or(copy);
        let part = volume.parts.choose(&mut lab.random).filter(|_| lab.random.random_bool(0.3));
        for path in part.unwrap_or(&vec![volume.whole]) {
            lab.put_back(copy, path);
            done.push(format!("{path} of {}", copy.file_name().unwrap_or_default().to_string_lossy()));
        }
    }
    done
}

/// What happened in all rounds.
#[derive(Debug, Default)]
struct Figures {
    put_back: usize,
    killed: usize,
    /// Keys that were fetched so long before a kill that they must not come again.
    kept_at_kills: usize,
    rolled_back: BTreeMap<String, usize>,
    /// Runs that ended by themselves, with an error.
    refused: usize,
    restored: usize,
}

struct Rounds {
    lab: Lab,
    copies: Vec<PathBuf>,
    /// Nothing was put back since the network was made or restored.
    is_sound: bool,
    figures: Figures,
}

impl Rounds {
    /// A network in which every pair has key that was given, and key that was fetched: something to put back.
    fn begin(&mut self) {
        let mut run = self.lab.start("tasks");
        run.settle();
        let until = Instant::now() + PATIENCE;
        for (a, b) in PAIRS {
            for pair in [(a, b), (b, a)] {
                let (mut given, mut fetched) = (0, 0);
                while given == 0 || fetched == 0 {
                    let more = self.lab.use_keys(&run, pair, 8, 3);
                    (given, fetched) = (given + more.0, fetched + more.1);
                    assert!(Instant::now() < until, "no key for {pair:?}");
                }
            }
        }
        let ended = self.lab.stop(run);
        assert_eq!(ended.code, Some(0), "{} {}", ended.summary, ended.errors);
        self.back_up("begun".to_owned());
    }

    fn run(&mut self, round: u32) {
        if self.lab.random.random_bool(0.75) {
            let done = put_back(&mut self.lab, &self.copies);
            self.is_sound &= done.is_empty();
            self.figures.put_back += usize::from(!done.is_empty());
            eprintln!("round {round}: put back {done:?}");
        }
        let mut run = self.lab.start("tasks");
        run.settle();
        self.use_keys(&run);
        let is_killed = self.lab.random.random_bool(0.3);
        if is_killed && round.is_multiple_of(LONG_ROUNDS) {
            self.use_keys_until_some_are_kept(&run);
        }
        let ended = if is_killed { self.lab.kill(run) } else { self.lab.stop(run) };
        self.figures.killed += usize::from(is_killed);
        self.figures.kept_at_kills += if is_killed { ended.kept } else { 0 };
        let is_well = self.judge(round, &ended);
        self.back_up(format!("copy-{round}"));
        // Now and then somebody starts it once more without, and puts something else back.
        if self.lab.random.random_bool(if is_well { 0.1 } else { 0.8 }) {
            self.lab.restore(&[]);
            (self.is_sound, self.figures.restored) = (true, self.figures.restored + 1);
            if self.lab.random.random_bool(0.3) {
                self.back_up(format!("restored-{round}"));
            }
        }
    }

    fn back_up(&mut self, name: String) {
        let copy = self.lab.back_up(&name);
        self.copies.push(copy);
        if self.copies.len() > COPIES_MAX {
            fs::remove_dir_all(self.copies.remove(0)).expect("remove a folder");
        }
    }

    fn use_keys(&mut self, run: &Run) {
        for _ in 0..self.lab.random.random_range(2..5) {
            let (a, b) = *PAIRS.choose(&mut self.lab.random).expect("a pair");
            let pair = if self.lab.random.random_bool(0.5) { (a, b) } else { (b, a) };
            let (get, fetch) = (self.lab.random.random_range(1..40), self.lab.random.random_range(0..5));
            self.lab.use_keys(run, pair, get, fetch);
        }
    }

    /// Until what was fetched first is too old to come again, if anything was.
    fn use_keys_until_some_are_kept(&mut self, run: &Run) {
        while self.lab.told.first_fetched().is_some_and(|first| first.elapsed() <= FETCHED_IS_KEPT_AFTER) {
            self.use_keys(run);
        }
    }

    /// Whether a run says that all is well.
    fn judge(&mut self, round: u32, ended: &Ended) -> bool {
        let rolled_back = ended.rolled_back();
        for (_, store) in &rolled_back {
            *self.figures.rolled_back.entry(store.clone()).or_default() += 1;
        }
        let is_well = match (&ended.summary, ended.code) {
            // Killed before it could say anything.
            (serde_json::Value::Null, None) => !ended.events.iter().any(|event| event["name"] == "rolled-back"),
            (serde_json::Value::Null, _) => {
                self.figures.refused += 1;
                eprintln!("round {round}: {}", ended.errors);
                false
            }
            (summary, code) => {
                assert!(rolled_back.is_empty() || code == Some(1), "round {round}: {summary}");
                code == Some(0)
            }
        };
        let said = (&ended.code, &ended.summary, &ended.errors);
        assert!(is_well || !self.is_sound, "round {round}: nothing was put back, and it says {said:?}");
        is_well
    }
}

fn number<N: std::str::FromStr>(name: &str, usual: N) -> N {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn nothing_comes_twice_whatever_is_put_back_and_however_old() {
    let (rounds, seed): (u32, u64) = (number("QKDNET_RESTORE_ROUNDS", 20), number("QKDNET_RESTORE_SEED", 2026));
    eprintln!("{rounds} rounds of restore with seed {seed}");
    let lab = Lab::with_seed(&bright_network_with_small_transfers(), seed);
    let mut all = Rounds { lab, copies: Vec::new(), is_sound: true, figures: Figures::default() };
    all.begin();
    (0..rounds).for_each(|round| all.run(round));
    let told = &all.lab.told;
    let counts = PAIRS.map(|pair| told.count(pair));
    eprintln!(
        "{:?}; keys given and fetched {counts:?}; {} tags, {} pads of relays",
        all.figures,
        told.tags(),
        told.relay_pads
    );
    let (given, fetched) = told.count(RELAYED);
    assert!(counts.iter().all(|(given, fetched)| *given > 0 && *fetched > 0), "too little happened");
    assert!(given > 0 && fetched > 0 && told.relay_pads > 0 && told.tags() > 0, "too little happened");
    assert!(!all.figures.rolled_back.is_empty() && all.figures.killed > 0, "too little happened");
}
