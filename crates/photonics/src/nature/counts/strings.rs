//! Strings of bits with an exact number of wrong bits, at random places.

use super::half::Labelled;
use super::law::{KINDS_MAX, Tally};
use crate::random::{Stream, Subseed};
use kernels::chacha;
use zeroize::Zeroize;

/// What is special about some bits of a string: their kind, and whether they are wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    kind: usize,
    wrong: bool,
}

/// Fills both ends' strings of one basis. `ends[0]` gets the kinds too, where there are several.
pub(super) fn fill(
    tallies: &[Tally; KINDS_MAX],
    kinds: usize,
    key: &Subseed,
    random: &mut Words,
    ends: [&mut Labelled; 2],
) {
    let [first, second] = ends;
    let bits: u64 = tallies.iter().map(|tally| tally.bits).sum();
    let len = bits as usize;
    (first.len, second.len) = (len, len);
    first.bits = stream(key, len);
    second.bits.clone_from(&first.bits);
    // By how many bits they are of, the most first.
    let mut marks: Vec<(u64, Mark)> = Vec::new();
    for (kind, tally) in tallies.iter().enumerate() {
        marks.push((tally.bits - tally.errors, Mark { kind, wrong: false }));
        marks.push((tally.errors, Mark { kind, wrong: true }));
    }
    marks.sort_by_key(|mark| std::cmp::Reverse(mark.0));
    let usual = marks[0].1;
    let filled = |set: bool| vec![if set { u64::MAX } else { 0 }; len.div_ceil(64)];
    first.kinds = planes(kinds).map(|plane| filled(usual.kind >> plane & 1 == 1)).collect();
    if usual.wrong {
        second.bits.iter_mut().for_each(|word| *word = !*word);
    }
    // All bits get the first mark, all but as many as it is of get the second one instead, and so on: which of the rest
    // go on is any subset of its size.
    let mut left = len;
    let mut places: Option<Vec<u32>> = None;
    for pair in marks.windows(2) {
        let [(count, before), (_, mark)] = *pair else { continue };
        left -= count as usize;
        // Indices into `places` first, which become the places themselves.
        let mut next = subset(places.as_ref().map_or(len, Vec::len), left, random);
        if let Some(places) = &places {
            next.iter_mut().for_each(|index| *index = places[*index as usize]);
        }
        let change = before.kind ^ mark.kind;
        for &place in &next {
            let (word, bit) = (place as usize / 64, place % 64);
            second.bits[word] ^= u64::from(before.wrong != mark.wrong) << bit;
            for (plane, words) in first.kinds.iter_mut().enumerate() {
                words[word] ^= ((change >> plane & 1) as u64) << bit;
            }
        }
        std::mem::swap(places.get_or_insert_default(), &mut next);
        next.zeroize();
        if left == 0 {
            break;
        }
    }
    places.zeroize();
    first.kinds.iter_mut().chain([&mut second.bits]).for_each(|words| clear_tail(words, len));
}

/// Bits of a kind, if there are several kinds.
fn planes(kinds: usize) -> std::ops::Range<usize> {
    0..match kinds {
        0 | 1 => 0,
        2 => 1,
        _ => 2,
    }
}

/// `len` bits of a key stream.
fn stream(key: &Subseed, len: usize) -> Vec<u64> {
    let mut key = key.bytes().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let mut key: [u32; 8] = std::array::from_fn(|_| key.next().unwrap_or(0));
    let mut words = vec![0; len.div_ceil(64)];
    chacha::stream(&key, &mut words);
    key.zeroize();
    clear_tail(&mut words, len);
    words
}

fn clear_tail(words: &mut [u64], len: usize) {
    if let (Some(last), false) = (words.last_mut(), len.is_multiple_of(64)) {
        *last &= (1 << (len % 64)) - 1;
    }
}

/// Random words in the order of their stream, made many at a time.
pub(super) struct Words {
    stream: Stream,
    next: u64,
    words: Box<[u32; WORDS]>,
    used: usize,
}

const WORDS: usize = 1024;

impl Words {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, next: 0, words: Box::new([0; WORDS]), used: WORDS }
    }

    #[inline]
    fn word(&mut self) -> u32 {
        if self.used == WORDS {
            self.stream.fill(0, self.next, &mut self.words[..]);
            (self.next, self.used) = (self.next + WORDS as u64, 0);
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    #[inline]
    fn pair(&mut self) -> u64 {
        u64::from(self.word()) << 32 | u64::from(self.word())
    }

    /// Uniform in the open interval (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.pair() >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform below `end`, which is not 0, without any bias: Lemire, ACM TOMACS 29, 3 (2019).
    fn below(&mut self, end: u32) -> u32 {
        let mut product = u64::from(self.word()) * u64::from(end);
        if (product as u32) < end {
            let threshold = end.wrapping_neg() % end;
            while (product as u32) < threshold {
                product = u64::from(self.word()) * u64::from(end);
            }
        }
        (product >> 32) as u32
    }
}

/// Shares from this on are drawn bit by bit, 64 at a time; below, gaps are quicker.
const DENSE: f64 = 1.0 / 64.0;
/// Binary digits of a share.
const SHARE_BITS: u32 = 10;

/// `count` of `len` places, every subset alike.
///
/// Independent choices with one probability give a subset that is uniform among those of its size, whatever the
/// probability is. What that misses of `count`, or has too much, is added or taken away at random, which leaves it
/// uniform.
fn subset(len: usize, count: usize, random: &mut Words) -> Vec<u32> {
    if count >= len {
        return (0..len as u32).collect();
    } else if count == 0 {
        return Vec::new();
    }
    let share = count as f64 / len as f64;
    let mut places = Vec::with_capacity(count + count / 8 + 64);
    if share < DENSE {
        let scale = 1.0 / libm::log1p(-share);
        let mut next = 0u64;
        loop {
            // Saturates.
            next = next.saturating_add((libm::log(random.uniform()) * scale) as u64);
            if next >= len as u64 {
                break;
            }
            places.push(next as u32);
            next += 1;
        }
    } else {
        let digits = libm::round(share * f64::from(1 << SHARE_BITS)) as u64;
        for word in 0..len.div_ceil(64) {
            let mut chosen = bernoulli(digits, random);
            if len - 64 * word < 64 {
                chosen &= (1 << (len % 64)) - 1;
            }
            while chosen != 0 {
                places.push((64 * word) as u32 + chosen.trailing_zeros());
                chosen &= chosen - 1;
            }
        }
    }
    while places.len() > count {
        let place = random.below(places.len() as u32);
        places.swap_remove(place as usize);
    }
    if places.len() < count {
        let mut taken = vec![0u64; len.div_ceil(64)];
        places.iter().for_each(|place| taken[*place as usize / 64] |= 1 << (place % 64));
        while places.len() < count {
            let place = random.below(len as u32);
            let (word, bit) = (&mut taken[place as usize / 64], 1 << (place % 64));
            if *word & bit == 0 {
                *word |= bit;
                places.push(place);
            }
        }
        taken.zeroize();
    }
    places
}

/// 64 bits, each set with probability `digits / 2^SHARE_BITS`: from the last digit on, a random word is added where it
/// is 1 and taken where it is 0.
#[inline]
fn bernoulli(digits: u64, random: &mut Words) -> u64 {
    if digits >> SHARE_BITS != 0 {
        return u64::MAX;
    }
    let mut chosen = 0;
    for digit in digits.trailing_zeros().min(SHARE_BITS)..SHARE_BITS {
        let word = random.pair();
        chosen = if digits >> digit & 1 == 1 { chosen | word } else { chosen & word };
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(label: &str) -> Words {
        Words::new(Subseed::new([4; 32]).stream(label))
    }

    #[test]
    fn bits_are_set_with_their_probability() {
        let mut random = random("bits");
        for digits in [0, 1, 16, 333, 512, 1000, 1023, 1024] {
            let ones: u32 = (0..4000).map(|_| bernoulli(digits, &mut random).count_ones()).sum();
            let (n, p) = (256_000.0, digits as f64 / 1024.0);
            assert!((f64::from(ones) - n * p).abs() <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{ones} at {digits}");
        }
    }

    #[test]
    fn every_subset_of_a_size_is_as_likely_as_any_other() {
        // All 56 subsets of three of eight places; all 120 of one of 120, by gaps.
        for (len, count, subsets, samples) in [(8, 3, 56, 112_000), (120, 1, 120, 120_000)] {
            let mut random = random("subsets");
            let mut seen = std::collections::BTreeMap::new();
            for _ in 0..samples {
                let mut places = subset(len, count, &mut random);
                places.sort_unstable();
                *seen.entry(places).or_insert(0u32) += 1;
            }
            assert_eq!(seen.len(), subsets);
            let expected = f64::from(samples) / subsets as f64;
            let chi: f64 = seen.values().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
            let degrees = subsets as f64 - 1.0;
            println!("chi-square {chi:.1} of {degrees}");
            assert!(chi < degrees + 4.0 * (2.0 * degrees).sqrt(), "{chi}");
        }
    }

    #[test]
    fn subsets_have_their_size_and_no_place_twice() {
        for (len, count) in
            [(0, 0), (1, 0), (1, 1), (64, 64), (1000, 999), (1000, 1), (100_000, 5000), (100_000, 70_000)]
        {
            let mut places = subset(len, count, &mut random("sizes"));
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), count, "{count} of {len}");
            assert!(places.last().is_none_or(|last| (*last as usize) < len));
        }
    }
}
