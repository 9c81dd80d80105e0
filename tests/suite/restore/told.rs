//! What somebody knows who sees everything: which key was told to whom, and which pads were used. Nothing of it comes
//! twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rand::seq::{IndexedRandom, IteratorRandom};
use rand_chacha::ChaCha8Rng;

use crate::keys::Key;

/// What was fetched this long before is in the ceilings: T of README.md and docs/backup.md.
pub const FETCHED_IS_KEPT_AFTER: Duration = Duration::from_secs(10);

/// Who asks for keys, and whose they are as well.
pub type Pair = (&'static str, &'static str);

/// A key as its master got it.
struct Given {
    pair: Pair,
    key: String,
}

/// What was drawn of a block.
struct OfBlock {
    /// The generation of the pool that it is in. There is no second one.
    generation: String,
    /// Starts and ends of what was drawn, in that generation.
    ranges: BTreeMap<u64, u64>,
}

#[derive(Default)]
pub struct Told {
    /// By ID.
    keys: BTreeMap<String, Given>,
    /// The ID of each key.
    ids: HashMap<String, String>,
    /// IDs, oldest first.
    order: Vec<String>,
    fetched: BTreeSet<String>,
    /// Fetched in the run that goes on, and when.
    fresh: Vec<(Instant, String)>,
    /// Fetched shortly before a run was killed: not in the ceilings yet, so that these may come once more.
    doubtful: BTreeSet<String>,
    /// What was done with a pad of a reserve: by generation of the reserve and direction.
    pads: BTreeMap<(String, String, String), BTreeSet<u64>>,
    /// What was drawn of each block, as key or as pad, at either site of its pool.
    drawn: BTreeMap<String, OfBlock>,
    /// Of those, how often as a pad of a relay.
    pub relay_pads: usize,
}

impl Told {
    /// Keys that a master got.
    pub fn got(&mut self, pair: Pair, got: Vec<Key>) {
        for (id, key) in got {
            let known = self.keys.get(&id).map(|given| given.pair);
            assert_eq!(known, None, "the ID {id} came twice, now to {pair:?}");
            let known = self.ids.insert(key.clone(), id.clone());
            assert_eq!(known, None, "a key came twice, as {id} to {pair:?}");
            self.order.push(id.clone());
            self.keys.insert(id, Given { pair, key });
        }
    }

    /// Keys that a slave fetched.
    pub fn fetched(&mut self, pair: Pair, fetched: Vec<Key>) {
        for (id, key) in fetched {
            let given = self.keys.get(&id).unwrap_or_else(|| panic!("{id} was never given"));
            assert!(given.pair == pair && given.key == key, "another key than was given under {id}");
            let again = !self.fetched.insert(id.clone());
            assert!(!again || self.doubtful.remove(&id), "{id} was fetched twice");
            self.fresh.push((Instant::now(), id));
        }
    }

    /// When the first key of the run that goes on was fetched.
    pub fn first_fetched(&self) -> Option<Instant> {
        self.fresh.first().map(|(at, _)| *at)
    }

    /// A run was killed at this time, or has ended in order. How much of what was fetched is certainly in the ceilings:
    /// all of it, or what was fetched long enough before.
    pub fn run_ended(&mut self, killed: Option<Instant>) -> usize {
        let fresh = std::mem::take(&mut self.fresh);
        let is_kept =
            |at: Instant| killed.is_none_or(|killed| killed.saturating_duration_since(at) > FETCHED_IS_KEPT_AFTER);
        let (kept, doubtful): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|(at, _)| is_kept(*at));
        self.doubtful.extend(doubtful.into_iter().map(|(_, id)| id));
        kept.len()
    }

    /// IDs that a slave could still fetch: the newest, and one that may be from before whatever was put back.
    pub fn waiting(&self, pair: Pair, newest: usize, random: &mut ChaCha8Rng) -> (Vec<String>, Option<String>) {
        let of_pair = |id: &&String| self.keys[*id].pair == pair && !self.fetched.contains(*id);
        let waiting: Vec<&String> = self.order.iter().rev().filter(of_pair).collect();
        let (new, old) = waiting.split_at(newest.min(waiting.len()));
        (new.iter().copied().cloned().collect(), old.choose(random).copied().cloned())
    }

    /// One that was fetched before.
    pub fn any_fetched(&self, pair: Pair, random: &mut ChaCha8Rng) -> Option<String> {
        self.fetched.iter().filter(|id| self.keys[*id].pair == pair).choose(random).cloned()
    }

    /// How many keys were given and fetched, of a pair in either direction.
    pub fn count(&self, (a, b): Pair) -> (usize, usize) {
        let of_pair = |id: &&String| [(a, b), (b, a)].contains(&self.keys[*id].pair);
        (self.order.iter().filter(of_pair).count(), self.fetched.iter().filter(of_pair).count())
    }

    /// How many pads authenticated something.
    pub fn tags(&self) -> usize {
        self.pads.iter().filter(|((what, ..), _)| what == "sent").map(|(_, tags)| tags.len()).sum()
    }

    /// What the services of a run noted of the pads that they used, a line each. A kill may leave half a line.
    pub fn noted(&mut self, log: &str) {
        for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            if let Some((_, fields)) = line.split_once("channel::pads: ") {
                self.pad_used(&fields_of(fields));
            } else if let Some((_, fields)) = line.split_once("kms::drawn: ") {
                self.bytes_drawn(&fields_of(fields));
            }
        }
    }

    fn pad_used(&mut self, of: &BTreeMap<&str, &str>) {
        let reserve = (of["what"].to_owned(), of["generation"].to_owned(), of["direction"].to_owned());
        let tag: u64 = of["tag"].parse().expect("a number of a tag");
        let first = self.pads.entry(reserve.clone()).or_default().insert(tag);
        assert!(first, "the pad of tag {tag} served twice: {reserve:?}");
    }

    fn bytes_drawn(&mut self, of: &BTreeMap<&str, &str>) {
        let (start, bytes): (u64, u64) =
            (of["start"].parse().expect("a place"), of["bytes"].parse().expect("a length"));
        let end = start + bytes;
        assert!(!of["blocks"].is_empty(), "nobody knows where {of:?} is from");
        for block in of["blocks"].split('+') {
            let new = || OfBlock { generation: of["generation"].to_owned(), ranges: BTreeMap::new() };
            let drawn = self.drawn.entry(block.to_owned()).or_insert_with(new);
            assert_eq!(drawn.generation, of["generation"], "a block is in two generations of a pool: {of:?}");
            let before = drawn.ranges.range(..end).next_back().map(|(start, end)| (*start, *end));
            assert!(
                before.is_none_or(|(_, end)| end <= start),
                "bytes {start}..{end} are used for {of:?}, and {before:?} of them were used before"
            );
            drawn.ranges.insert(start, end);
        }
        self.relay_pads += usize::from(of["purpose"] == "RelayOut");
    }
}

fn fields_of(text: &str) -> BTreeMap<&str, &str> {
    text.split_whitespace()
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect()
}
