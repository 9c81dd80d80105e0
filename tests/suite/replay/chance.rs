//! Recordings damaged by chance: whatever was done to them, no click makes key twice, both ends hold the same, and what was
//! wrong is said. `QKDNET_REPLAY_ROUNDS` does more of it, from a seed that is printed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::words::PER_SECOND;
use super::*;
use crate::support::{assert_equal_keys, digest};

const ROUNDS: u64 = 6;

/// What was done to a recording, and whether it must be said.
struct Damaged {
    words: Words,
    cut: usize,
    said: bool,
    what: Vec<String>,
}

impl Damaged {
    fn place(&self, chance: &mut StdRng) -> usize {
        chance.random_range(1..self.words.0.len() - 1)
    }

    fn spoil(&mut self, chance: &mut StdRng) {
        let (at, other) = (self.place(chance), self.place(chance));
        let kind = chance.random_range(0..8);
        // A wrap is no damage.
        self.said |= kind != 0;
        let words = &mut self.words;
        self.what.push(match kind {
            0 => {
                *words = words.later((1 << 54) - (words.0[at] >> 10));
                format!("wraps at word {at}")
            }
            1 => {
                // Farther than to the next clicks, so that it shows.
                let bit = chance.random_range(40..64);
                words.0[at] ^= 1 << bit;
                format!("bit {bit} of word {at} flipped")
            }
            2 => {
                words.0.swap(at, at - 1);
                format!("words {at} and the one before swapped")
            }
            3 => {
                self.cut = chance.random_range(1..8);
                format!("cut {} bytes before the end", self.cut)
            }
            4 => {
                let again = words.0[other..].to_vec();
                words.0.extend(again);
                format!("joined with itself from word {other} on")
            }
            5 => {
                let later = Words(words.0[other.min(at)..].to_vec()).later(chance.random_range(2..40) * PER_SECOND);
                words.0.extend(later.0);
                format!("joined with itself from word {} on, later", other.min(at))
            }
            6 => {
                let tail = Words(words.0.split_off(at)).later(chance.random_range(100..30_000) * PER_SECOND);
                words.0.extend(tail.0);
                format!("jumps at word {at}")
            }
            _ => {
                let word = words.0[at];
                words.0.insert(at, word);
                format!("word {at} twice")
            }
        });
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.words.bytes();
        bytes.truncate(bytes.len() - self.cut);
        bytes
    }
}

#[test]
fn whatever_happens_to_recordings_no_click_makes_key_twice_and_what_was_wrong_is_said() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let rounds = number("QKDNET_REPLAY_ROUNDS");
    let seed = number("QKDNET_REPLAY_SEED").or(rounds.map(|_| rand::random())).unwrap_or(1);
    println!("seed {seed}: QKDNET_REPLAY_SEED repeats it");
    let recorded = Recorded::new("2s");
    let most = assert_equal_keys(&recorded.place.digest("data")).bits * 11 / 10;
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let mut chance = StdRng::seed_from_u64(seed.wrapping_add(round));
        let mut ends_of =
            SITES.map(|site| Damaged { words: recorded.words(site), cut: 0, said: false, what: Vec::new() });
        for _ in 0..chance.random_range(1..4) {
            let end = chance.random_range(0..2);
            ends_of[end].spoil(&mut chance);
        }
        let files = [0, 1].map(|end| recorded.write(&format!("{}.a1", SITES[end]), ends_of[end].bytes()));
        let files = [&*files[0], &*files[1]];
        let what = format!("seed {seed}, round {round}: {:?}, {:?}", ends_of[0].what, ends_of[1].what);
        let data = format!("round-{round}");
        let output = ends(&mut recorded.replay(files, &data, &[]));
        let said = error(&output);
        match output.status.code() {
            Some(2) => assert!(said.contains("error:") && said.contains("hint:"), "{what}: {said}"),
            Some(code @ (0 | 1)) => {
                let printed = lines(&output);
                let summary = summary(&printed);
                assert_eq!(summary["verdict"]["good"], code == 0, "{what}");
                assert!(code == 0 || said.contains("no key"), "{what}: {said}");
                assert!(key_bits(summary) <= most, "{what}: {} of {most}", key_bits(summary));
                for (row, end) in summary["recordings"].as_array().expect("two rows").iter().zip(&ends_of) {
                    let told = row["skipped"] != 0 || row.get("remarks").is_some();
                    assert!(told || !end.said, "{what}: {row}");
                }
                if code == 0 {
                    assert_equal_keys(&digest(&recorded.path(&data)));
                    assert_refused(&mut recorded.replay(files, &data, &[]), &["already"]);
                }
            }
            code => panic!("{what}: {code:?}: {said}"),
        }
    }
}
