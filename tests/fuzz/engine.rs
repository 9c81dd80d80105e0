//! Changing inputs, and judging what comes of them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::MEMORY;

/// Inputs of each target in `make test`.
const INPUTS: u64 = 1500;
/// Longest input that is made.
const INPUT_BYTES_MAX: usize = 256 << 10;
/// Inputs that are kept to be changed further.
const KEPT_MAX: usize = 2000;
/// Time on the processor that one input may take, in a build without optimisation.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);
/// Memory that one input may take, beside so much for each of its bytes.
const MEMORY_BYTES_MAX: usize = 96 << 20;
const MEMORY_PER_BYTE_MAX: usize = 512;

/// One target at a time: what is allocated meanwhile is its own.
static ALONE: Mutex<()> = Mutex::new(());

/// A parser with good inputs to begin from.
pub struct Target {
    pub name: &'static str,
    pub good: Vec<Vec<u8>>,
    /// What the format is made of, to be put anywhere.
    pub words: &'static [&'static str],
    /// Of the usual number of inputs this part, where each costs a lot.
    pub share: u64,
}

impl Target {
    pub fn new(name: &'static str, good: Vec<Vec<u8>>) -> Self {
        Self { name, good, words: &[], share: 1 }
    }

    /// `judge` says in a few words what became of an input; what it panics at is found.
    pub fn fuzz(self, judge: impl Fn(&[u8]) -> String) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan::read();
        println!("{}: seed {}, {}", self.name, plan.seed, plan.describe());
        let mut run = Run {
            rng: StdRng::seed_from_u64(plan.seed ^ fingerprint(self.name.as_bytes())),
            kept: self.good.clone(),
            seen: BTreeSet::new(),
            target: self,
            plan,
        };
        // What people send every day has to pass through as well.
        for input in run.target.good.clone() {
            run.judge(&input, &judge);
        }
        let (begun, mut inputs) = (Instant::now(), 0);
        while run.plan.goes_on(inputs, begun, run.target.share) {
            let input = run.input();
            run.judge(&input, &judge);
            inputs += 1;
        }
        println!("{}: {inputs} inputs, {} kinds of answers", run.target.name, run.seen.len());
    }
}

/// How long, and from which seed.
struct Plan {
    seed: u64,
    time: Option<Duration>,
}

impl Plan {
    fn read() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let time = number("QKDNET_FUZZ_SECONDS").map(Duration::from_secs);
        let chance = time.map(|_| rand::random());
        Self { seed: number("QKDNET_FUZZ_SEED").or(chance).unwrap_or(1), time }
    }

    fn describe(&self) -> String {
        self.time.map_or("a fixed number of inputs".to_owned(), |time| format!("for {} s", time.as_secs()))
    }

    fn goes_on(&self, inputs: u64, begun: Instant, share: u64) -> bool {
        self.time.map_or(inputs < INPUTS / share, |time| begun.elapsed() < time)
    }
}

struct Run {
    target: Target,
    plan: Plan,
    rng: StdRng,
    kept: Vec<Vec<u8>>,
    seen: BTreeSet<String>,
}

impl Run {
    fn judge(&mut self, input: &[u8], judge: &impl Fn(&[u8]) -> String) {
        MEMORY.reset_peak_usage();
        let (before, begun) = (MEMORY.current_usage(), processor_time());
        let answer = catch_unwind(AssertUnwindSafe(|| judge(input)));
        let (took, memory) = (processor_time().saturating_sub(begun), MEMORY.peak_usage().saturating_sub(before));
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) => self.report(input, "it panics"),
        };
        if memory > MEMORY_BYTES_MAX + MEMORY_PER_BYTE_MAX * input.len() {
            self.report(input, &format!("it takes {memory} bytes of memory"));
        }
        if took > INPUT_TIME_MAX {
            self.report(input, &format!("it takes {took:?}"));
        }
        // Numbers in a message make no new kind of answer.
        let kind: String = answer.chars().filter(|c| !c.is_ascii_digit()).take(200).collect();
        if self.seen.insert(kind) && self.kept.len() < KEPT_MAX {
            self.kept.push(input.to_vec());
        }
    }

    /// Keeps the input for whoever looks after it, and fails.
    fn report(&self, input: &[u8], what: &str) -> ! {
        let name = self.target.name;
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz");
        let path = folder.join(format!("{}-{:016x}", name.replace(' ', "-"), fingerprint(input)));
        let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
        let place = kept.map_or_else(|error| format!("nowhere: {error}"), |()| path.display().to_string());
        let start: String = input.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
        panic!("{name}, seed {}: {what}; the input of {} bytes is in {place}: {start}", self.plan.seed, input.len())
    }

    /// A good input, or one that was kept, with a few changes.
    fn input(&mut self) -> Vec<u8> {
        let mut input = match self.rng.random_range(0..20) {
            0 => (0..self.rng.random_range(0..200)).map(|_| self.rng.random()).collect(),
            _ => self.pick(),
        };
        for _ in 0..1 << self.rng.random_range(0..5) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn pick(&mut self) -> Vec<u8> {
        match self.kept.len() {
            0 => Vec::new(),
            kept => self.kept[self.rng.random_range(0..kept)].clone(),
        }
    }

    fn place(&mut self, input: &[u8]) -> usize {
        self.rng.random_range(0..=input.len())
    }

    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.place(input);
        let longest = (input.len() - start).min(1 << self.rng.random_range(0..12));
        start..start + self.rng.random_range(0..=longest)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        match self.rng.random_range(0..12) {
            0 => self.flip(input),
            1 => {
                let range = self.range(input);
                input.drain(range);
            }
            2 => {
                let (range, at) = (self.range(input), self.place(input));
                let copy = input[range].to_vec();
                input.splice(at..at, copy);
            }
            3 => {
                let at = self.place(input);
                input.truncate(at);
            }
            4 => self.number(input),
            5 => self.varint(input),
            6 => {
                // The start of one and the end of another.
                let (at, other) = (self.place(input), self.pick());
                let from = self.place(&other);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            7 => {
                let (at, times) = (self.place(input), 1 << self.rng.random_range(0..14));
                let byte: u8 = if self.rng.random() { self.rng.random() } else { b'[' };
                input.splice(at..at, std::iter::repeat_n(byte, times));
            }
            8 | 9 if !self.target.words.is_empty() => {
                let word = self.target.words[self.rng.random_range(0..self.target.words.len())];
                let range = if self.rng.random() {
                    self.range(input)
                } else {
                    let at = self.place(input);
                    at..at
                };
                input.splice(range, word.bytes());
            }
            10 => self.decimal(input),
            _ => {
                let at = self.place(input);
                let byte = self.rng.random();
                input.insert(at, byte);
            }
        }
    }

    fn flip(&mut self, input: &mut [u8]) {
        if !input.is_empty() {
            let at = self.rng.random_range(0..input.len());
            input[at] ^= 1 << self.rng.random_range(0..8);
        }
    }

    fn extreme(&mut self) -> u64 {
        let power = 1u64.checked_shl(self.rng.random_range(0..65)).unwrap_or(0);
        match self.rng.random_range(0..4) {
            0 => power,
            1 => power.wrapping_sub(1),
            2 => power.wrapping_neg(),
            _ => self.rng.random(),
        }
    }

    /// A number at the end of a range, in place of what is there.
    fn number(&mut self, input: &mut [u8]) {
        let width = 1 << self.rng.random_range(0..4);
        if input.len() >= width {
            let at = self.rng.random_range(0..=input.len() - width);
            let bytes = self.extreme().to_le_bytes();
            input[at..at + width].copy_from_slice(&bytes[..width]);
            if self.rng.random() {
                input[at..at + width].reverse();
            }
        }
    }

    /// The same as protobuf writes it, in place of a byte.
    fn varint(&mut self, input: &mut Vec<u8>) {
        let (at, mut value, mut bytes) = (self.place(input), self.extreme(), Vec::new());
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        let end = (at + usize::from(self.rng.random::<bool>())).min(input.len());
        input.splice(at..end, bytes);
    }

    /// The same as people write it, in place of digits where there are some.
    fn decimal(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input);
        let digits = |range: &[u8]| range.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let start = input[at..].iter().position(u8::is_ascii_digit).map_or(at, |gap| at + gap);
        let end = start + digits(&input[start..]);
        let number = self.extreme();
        let text = match self.rng.random_range(0..4) {
            0 => format!("-{number}"),
            1 => format!("{number}.5e{}", self.rng.random_range(0..400)),
            _ => number.to_string(),
        };
        input.splice(start..end, text.into_bytes());
    }
}

/// Time that this thread has had on a processor, whatever else the machine does.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// FNV-1a: the same on every machine.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// What became of an input, in a few words.
pub fn verdict<T, E: std::fmt::Display>(result: &Result<T, E>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "good".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_or_takes_too_much_is_found() {
        let target = |name| Target { words: &["boom"], ..Target::new(name, vec![b"good input".to_vec()]) };
        let panics = |input: &[u8]| {
            assert!(!input.windows(4).any(|part| part == b"boom"), "found");
            "good".to_owned()
        };
        let takes = |input: &[u8]| {
            let asked = if input.starts_with(b"good") { 0 } else { MEMORY_BYTES_MAX * 2 };
            format!("{}", Vec::<u8>::with_capacity(asked).capacity() > 0)
        };
        assert!(catch_unwind(|| target("a parser that panics").fuzz(panics)).is_err());
        assert!(catch_unwind(|| target("a parser that takes memory").fuzz(takes)).is_err());
    }
}
