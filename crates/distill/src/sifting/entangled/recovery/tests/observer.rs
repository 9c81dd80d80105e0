//! What somebody who reads every announcement, every reply and every check bit can say about key bits.

use std::collections::BTreeMap;

use super::*;
use crate::sifting::entangled::announce::tests::unpacked;

/// One kept event of the key basis, as an observer sees it, and what he wants to know.
struct Seen {
    time: u64,
    index: u32,
    /// Delay after, and number of, announced events of the same basis since the kept one before.
    same_basis_gap: u64,
    same_basis_between: u64,
    /// Longest step between them.
    longest_step: u64,
    gap_before: u64,
    gap_after: u64,
    gap_kept: u64,
    last_x: bool,
    bit: bool,
    bit_before: bool,
}

fn bucket(value: u64) -> u64 {
    u64::from(64 - value.leading_zeros())
}

/// Everything kept in some seconds of a link with many pairs, as the announcer's clicks were announced.
fn observe(dead_time_ps: u64, steps: usize) -> Vec<Seen> {
    // Dense streams, so that clicks within a dead time are frequent.
    let link = Link { own_rate: 3e6, peer_rate: 5e6, pair_rate: 2e6, error_rate: 0.0, ..shuffled(Link::short(201)) };
    let mut bench = Bench::new(link, Entangled { dead_time_ps, ..config() });
    let mut seen = Vec::new();
    let (mut last_x, mut bit_before, mut last_time) = (false, false, 0);
    for _ in 0..steps {
        for judged in bench.step() {
            let events = unpacked(&judged.announcement).unwrap();
            let start = judged.announcement.frame * 5_000_000_000;
            let mut last_kept = None;
            for kept in judged.result.kept.iter() {
                let index = kept.index as usize;
                if kept.basis == Basis::X {
                    last_x = kept.bit;
                    continue;
                }
                let time = start + (events[index] >> 1);
                let at = |i: Option<usize>| i.and_then(|i| events.get(i)).map_or(0, |e| e >> 1);
                let from = last_kept.unwrap_or(index);
                let chain: Vec<u64> = events[from..=index].iter().filter(|e| **e & 1 == 0).map(|e| e >> 1).collect();
                seen.push(Seen {
                    time,
                    index: kept.index,
                    same_basis_gap: chain.last().unwrap() - chain[0],
                    same_basis_between: chain.len() as u64,
                    longest_step: chain.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(u64::MAX),
                    gap_before: (events[index] >> 1) - at(index.checked_sub(1)),
                    gap_after: at(Some(index + 1)).saturating_sub(events[index] >> 1),
                    gap_kept: time - last_time,
                    last_x,
                    bit: judged.own.bit(index),
                    bit_before,
                });
                bit_before = judged.own.bit(index);
                last_time = time;
                last_kept = Some(index);
            }
        }
    }
    seen
}

/// Learns the likelier answer for every value of `key` from one half of what was seen and guesses the other
/// half: how many standard deviations the guesses are better than chance.
fn advantage(seen: &[Seen], key: impl Fn(&Seen) -> u64, answer: impl Fn(&Seen) -> bool) -> f64 {
    let (learn, guess) = seen.split_at(seen.len() / 2);
    let mut votes: BTreeMap<u64, i64> = BTreeMap::new();
    for s in learn {
        *votes.entry(key(s)).or_default() += if answer(s) { 1 } else { -1 };
    }
    let right = guess.iter().filter(|s| (votes.get(&key(s)).copied().unwrap_or(0) > 0) == answer(s)).count();
    (right as f64 - guess.len() as f64 / 2.0) / (guess.len() as f64 / 4.0).sqrt()
}

/// Detectors alternate along a chain whose steps are all shorter than the dead time.
fn chained(seen: Vec<Seen>) -> Vec<Seen> {
    seen.into_iter().filter(|s| s.longest_step < 7500).collect()
}

#[test]
fn an_observer_predicts_kept_bits_no_better_than_chance() {
    let seen = observe(30_000, 100);
    assert!(seen.len() > 100_000, "{} bits", seen.len());
    let bit = |s: &Seen| s.bit;
    let same = |s: &Seen| s.bit != s.bit_before;
    let results = [
        ("time", advantage(&seen, |s| s.time & 0xff, bit)),
        ("index", advantage(&seen, |s| u64::from(s.index) & 0xff, bit)),
        ("gaps", advantage(&seen, |s| bucket(s.gap_before) << 8 | bucket(s.gap_after), bit)),
        ("check bit", advantage(&seen, |s| bucket(s.gap_kept) << 1 | u64::from(s.last_x), bit)),
        ("distance", advantage(&seen, |s| s.gap_kept / 500, bit)),
        ("neighbour by distance", advantage(&seen, |s| (s.gap_kept / 500).min(1000), same)),
        ("neighbour by gaps", advantage(&seen, |s| bucket(s.same_basis_gap) << 8 | s.same_basis_between, same)),
    ];
    for (name, sigma) in results {
        assert!(sigma.abs() < 3.0, "{name}: {sigma} standard deviations (seed 201)");
    }
    assert!(chained(seen).is_empty());
}

#[test]
fn without_the_dead_time_rule_an_observer_would_see_bits_alternate() {
    let seen = chained(observe(0, 40));
    assert!(seen.len() > 100, "{} bits", seen.len());
    let sigma = advantage(&seen, |s| s.same_basis_between, |s| s.bit != s.bit_before);
    assert!(sigma > 5.0, "{sigma} standard deviations (seed 201)");
}
