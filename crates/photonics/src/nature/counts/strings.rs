//! Strings of bits of which exactly so many are wrong, at random places.

use super::half::Labelled;
use super::law::{KINDS_MAX, Tally};
use crate::random::{Draws, Subseed};
use kernels::chacha;
use zeroize::Zeroize;

/// Words of a key stream that are made at a time.
const BATCH: usize = 256;

/// What is special about a bit: its kind, and above that whether it is wrong.
const WRONG: u8 = 4;

/// Fills both ends' strings of one basis. `ends[0]` gets the kinds too, where there are several.
pub(super) fn fill(
    tallies: &[Tally; KINDS_MAX],
    kinds: usize,
    key: &Subseed,
    draws: &mut Draws,
    ends: [&mut Labelled; 2],
) {
    let [first, second] = ends;
    let bits: u64 = tallies.iter().map(|tally| tally.bits).sum();
    let len = bits as usize;
    (first.len, second.len) = (len, len);
    first.bits = stream(key, len);
    // Most bits are right and of one kind: only the others are placed, each at a place of its own.
    let right = |kind: &usize| tallies[*kind].bits - tallies[*kind].errors;
    let usual = (0..KINDS_MAX).max_by_key(right).unwrap_or(0);
    let mut others = Vec::new();
    for (kind, tally) in tallies.iter().enumerate() {
        others.resize(others.len() + tally.errors as usize, WRONG | kind as u8);
        if kind != usual {
            others.resize(others.len() + right(&kind) as usize, kind as u8);
        }
    }
    if others.windows(2).any(|pair| pair[0] != pair[1]) {
        shuffle(&mut others, draws);
    }
    let mut places = subset(len, others.len(), draws);
    first.kinds =
        planes(kinds).map(|plane| vec![if usual >> plane & 1 == 1 { u64::MAX } else { 0 }; len.div_ceil(64)]).collect();
    second.bits.clone_from(&first.bits);
    for (&place, &other) in places.iter().zip(&others) {
        let (word, bit) = (place as usize / 64, place % 64);
        second.bits[word] ^= u64::from(other >= WRONG) << bit;
        let change = u64::from(other & (WRONG - 1)) ^ usual as u64;
        for (plane, words) in first.kinds.iter_mut().enumerate() {
            words[word] ^= (change >> plane & 1) << bit;
        }
    }
    first.kinds.iter_mut().for_each(|words| clear_tail(words, len));
    others.zeroize();
    places.zeroize();
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
    let mut places = [0; BATCH];
    for (batch, words) in words.chunks_mut(BATCH).enumerate() {
        let places = &mut places[..words.len()];
        places.iter_mut().zip((batch * BATCH) as u64..).for_each(|(place, number)| *place = number);
        chacha::words(&key, places, words);
    }
    key.zeroize();
    clear_tail(&mut words, len);
    words
}

fn clear_tail(words: &mut [u64], len: usize) {
    if let (Some(last), false) = (words.last_mut(), len.is_multiple_of(64)) {
        *last &= (1 << (len % 64)) - 1;
    }
}

/// Fisher and Yates.
fn shuffle(items: &mut [u8], draws: &mut Draws) {
    for left in (2..=items.len()).rev() {
        items.swap(left - 1, draws.below(left as u32) as usize);
    }
}

/// `count` of `len` places, every subset alike.
///
/// Geometric gaps give a subset that is uniform among those of its size. What that misses of `count`, or has too much, is
/// added or taken away at random, which leaves it uniform.
fn subset(len: usize, count: usize, draws: &mut Draws) -> Vec<u32> {
    if count >= len {
        return (0..len as u32).collect();
    }
    let p = count as f64 / len as f64;
    let scale = if count > 0 { 1.0 / libm::log1p(-p) } else { f64::NEG_INFINITY };
    let mut places = Vec::with_capacity(count + count / 8 + 64);
    let mut next = 0u64;
    while count > 0 {
        // Saturates.
        next = next.saturating_add((draws.log_uniform() * scale) as u64);
        if next >= len as u64 {
            break;
        }
        places.push(next as u32);
        next += 1;
    }
    while places.len() > count {
        let place = draws.below(places.len() as u32);
        places.swap_remove(place as usize);
    }
    if places.len() < count {
        let mut taken = vec![0u64; len.div_ceil(64)];
        places.iter().for_each(|place| taken[*place as usize / 64] |= 1 << (place % 64));
        while places.len() < count {
            let place = draws.below(len as u32);
            let (word, bit) = (&mut taken[place as usize / 64], 1 << (place % 64));
            if *word & bit == 0 {
                *word |= bit;
                places.push(place);
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(epoch: u64) -> Draws {
        Subseed::new([4; 32]).stream("subset").draws(epoch)
    }

    #[test]
    fn every_subset_of_a_size_is_as_likely_as_any_other() {
        // All 56 subsets of three of eight places.
        let mut draws = draws(0);
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..112_000 {
            let mut places = subset(8, 3, &mut draws);
            places.sort_unstable();
            *seen.entry(places).or_insert(0u32) += 1;
        }
        assert_eq!(seen.len(), 56);
        let chi: f64 = seen.values().map(|count| (f64::from(*count) - 2000.0).powi(2) / 2000.0).sum();
        println!("chi-square {chi:.1} of 55");
        assert!(chi < 55.0 + 4.0 * 110f64.sqrt(), "{chi}");
    }

    #[test]
    fn subsets_have_their_size_and_no_place_twice() {
        for (len, count) in
            [(0, 0), (1, 0), (1, 1), (64, 64), (1000, 999), (1000, 1), (100_000, 5000), (100_000, 70_000)]
        {
            let mut places = subset(len, count, &mut draws(1));
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), count, "{count} of {len}");
            assert!(places.last().is_none_or(|last| (*last as usize) < len));
        }
    }

    #[test]
    fn a_shuffle_puts_everything_everywhere() {
        let mut draws = draws(2);
        let mut seen = [[0u32; 4]; 4];
        for _ in 0..40_000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut items, &mut draws);
            items.iter().enumerate().for_each(|(place, item)| seen[place][usize::from(*item)] += 1);
        }
        assert!(seen.iter().flatten().all(|count| count.abs_diff(10_000) < 350), "{seen:?}");
    }
}
