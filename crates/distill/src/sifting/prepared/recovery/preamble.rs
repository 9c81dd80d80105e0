//! The preamble of a session: public states by which a receiver finds the numbers of pulses.
//!
//! Pulse `n` is word `n` of the stream of ChaCha with 12 rounds under a key of zeros, which everybody knows: bit 0 is
//! the bit, bit 1 the basis (set for X), and bit 2 is set where the pulse is of the dimmest intensity and not of the
//! brightest. A transmitter sends the same.

use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use super::OUTCOMES;

/// States of a preamble's pulse, numbered by the bits above.
const STATES: usize = 8;
/// Weight of an outcome that is as likely as on average and as likely again.
const UNIT: f64 = 8.0;
/// Clicks that are compared with the pattern.
const CLICKS_MAX: usize = 768;
/// With fewer there is nothing to find.
const CLICKS_MIN: usize = 48;
/// The sum of a wrong place has a standard deviation; the right one must exceed it by this factor. The best of 2^25
/// wrong ones reaches 5.6.
const SIGNIFICANCE_MIN: f64 = 8.0;
/// Places that are tried at a time: their sums stay in the cache.
const BLOCK: usize = 1 << 13;

/// A click in or near the preamble: its place in pulses from any origin, and what was seen (Z0, Z1, X0, X1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub place: i64,
    pub outcome: usize,
}

/// Where the preamble begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    /// Place of pulse 0.
    pub place: i64,
    pub significance: f64,
}

/// How much more likely than on average each outcome is where a pulse of each state comes.
fn weights(brightest: f64, dimmest: f64) -> [[i8; STATES]; OUTCOMES] {
    let rate = |outcome: usize, state: usize| {
        let mean = if state & 4 == 0 { brightest } else { dimmest };
        let (basis, bit) = (state >> 1 & 1, state & 1);
        let share = if outcome >> 1 != basis { 0.5 } else { f64::from(u8::from(outcome & 1 == bit)) };
        mean * share
    };
    std::array::from_fn(|outcome| {
        let mean = (0..STATES).map(|state| rate(outcome, state)).sum::<f64>() / STATES as f64;
        std::array::from_fn(|state| libm::round(UNIT * (rate(outcome, state) / mean - 1.0)) as i8)
    })
}

/// Adds up the weights of all clicks for each place where pulse 0 may be, `first..first + sums`, and gives the best
/// one.
pub(super) fn find(seen: &[Seen], pulses: u64, intensities: [f64; 2], first: i64, places: usize) -> Option<Found> {
    let used = spread(seen, first, first + places as i64 - 1 + pulses as i64);
    if used.len() < CLICKS_MIN || places == 0 {
        return None;
    }
    let weights = weights(intensities[0], intensities[1]);
    let states = states(pulses);
    let mut sums = vec![0i16; places];
    let mut pattern = vec![0i8; states.len()];
    let mut variance = 0.0;
    for (outcome, weights) in weights.iter().enumerate() {
        let clicks: Vec<i64> = used.iter().filter(|click| click.outcome == outcome).map(|click| click.place).collect();
        pattern.iter_mut().zip(&states).for_each(|(weight, state)| *weight = weights[usize::from(*state)]);
        add(&clicks, &pattern, first, &mut sums);
        let square = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum::<f64>() / STATES as f64;
        variance += clicks.len() as f64 * square;
    }
    let (index, best) = sums.iter().enumerate().max_by_key(|(index, sum)| (**sum, usize::MAX - index))?;
    let significance = f64::from(*best) / variance.sqrt();
    (significance >= SIGNIFICANCE_MIN).then_some(Found { place: first + index as i64, significance })
}

/// At most [`CLICKS_MAX`] of the clicks between two places, from all over the range.
fn spread(seen: &[Seen], from: i64, to: i64) -> Vec<Seen> {
    let inside: Vec<Seen> = seen.iter().copied().filter(|click| (from..to).contains(&click.place)).collect();
    let count = inside.len().min(CLICKS_MAX);
    (0..count).map(|i| inside[i * inside.len() / count]).collect()
}

fn states(pulses: u64) -> Vec<u8> {
    let mut stream = ChaCha12Rng::from_seed([0; 32]);
    (0..pulses).map(|_| (stream.next_u64() & 7) as u8).collect()
}

/// A click at place `p` says of pulse 0 at place `q` what the pattern has at `p - q`, and nothing beyond its ends.
fn add(clicks: &[i64], pattern: &[i8], first: i64, sums: &mut [i16]) {
    let mut pattern = pattern.to_vec();
    pattern.reverse();
    let last = pattern.len() as i64 - 1;
    for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
        let begin = first + (block * BLOCK) as i64;
        for click in clicks {
            // Backwards, the pattern runs along with the places.
            let at = last - (click - begin);
            let skip = (-at).clamp(0, sums.len() as i64);
            let from = (at + skip).clamp(0, pattern.len() as i64) as usize;
            let weights = &pattern[from..];
            for (sum, weight) in sums[skip as usize..].iter_mut().zip(weights) {
                *sum += i16::from(*weight);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const PULSES: u64 = 200_000;

    /// Clicks of a preamble whose pulse 0 is at `origin`, and as many as `noise` of them that mean nothing.
    fn light(origin: i64, rate: f64, intensities: [f64; 2], noise: f64, seed: u64) -> Vec<Seen> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || f64::from(rng.next_u32()) / 4_294_967_296.0;
        let mut seen = Vec::new();
        for (pulse, state) in states(PULSES).into_iter().enumerate() {
            let mean = if state & 4 == 0 { intensities[0] } else { intensities[1] };
            let basis = usize::from(uniform() < 0.5);
            let bit = if basis == usize::from(state >> 1 & 1) {
                usize::from(state & 1)
            } else {
                usize::from(uniform() < 0.5)
            };
            let noisy = uniform() < noise;
            if uniform() < rate * if noisy { intensities[0] } else { mean } {
                let outcome = if noisy { (uniform() * 4.0) as usize } else { 2 * basis + bit };
                seen.push(Seen { place: origin + pulse as i64, outcome });
            }
        }
        seen
    }

    #[test]
    fn the_pattern_is_found_where_it_is_and_by_brightness_or_states_alone() {
        for (intensities, noise) in [([0.5, 0.001], 0.2), ([0.5, 0.5], 0.2), ([0.5, 0.0], 0.5)] {
            for origin in [-4000, 0, 12_345] {
                let seen = light(origin, 0.01, intensities, noise, 5);
                let found = find(&seen, PULSES, intensities, -20_000, 40_001).unwrap();
                assert_eq!(found.place, origin, "{intensities:?}");
                assert!(found.significance > 8.0);
            }
        }
    }

    #[test]
    fn another_pattern_and_too_few_clicks_are_not_found() {
        let mut seen = light(0, 0.01, [0.5, 0.001], 0.0, 6);
        let few = seen[..40].to_vec();
        seen.iter_mut().for_each(|click| click.place = -click.place + PULSES as i64);
        assert_eq!(find(&seen, PULSES, [0.5, 0.001], -20_000, 40_001), None);
        assert_eq!(find(&few, PULSES, [0.5, 0.001], -20_000, 40_001), None);
    }

    #[test]
    fn only_part_of_the_preamble_is_enough() {
        let seen: Vec<Seen> =
            light(0, 0.02, [0.5, 0.001], 0.1, 7).into_iter().filter(|click| click.place > 120_000).collect();
        assert_eq!(find(&seen, PULSES, [0.5, 0.001], -5000, 10_001).unwrap().place, 0);
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_definition(
            clicks in prop::collection::vec(-300i64..300, 0..20),
            pattern in prop::collection::vec(any::<i8>(), 1..100),
            first in -200i64..200,
            places in 1usize..200,
        ) {
            let mut sums = vec![0i16; places];
            add(&clicks, &pattern, first, &mut sums);
            for (index, sum) in sums.iter().enumerate() {
                let place = first + index as i64;
                let at = |click: &i64| usize::try_from(click - place).ok().and_then(|i| pattern.get(i));
                let expected: i16 = clicks.iter().filter_map(at).map(|weight| i16::from(*weight)).sum();
                prop_assert_eq!(*sum, expected);
            }
        }
    }
}
