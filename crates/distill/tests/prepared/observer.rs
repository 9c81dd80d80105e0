//! What somebody who hears everything that both ends say, in its order, can say about bits of the key.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use distill::ledger::{Book, Item, Line};
use distill::sifting::prepared::Said;
use distill::sifting::prepared::announce::Due;
use distill::sifting::prepared::config::{Encoding, Part, Prepared, Sync};
use prost::Message;

use crate::halves::{End, Sent, run};
use crate::light::{Light, decoy};

/// What became of an announced event, as anybody knows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    OtherBasis,
    /// What was sent, what was seen, and the intensity.
    Check(bool, bool, u8),
    Key,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    pulse: u64,
    x: bool,
    fate: Fate,
}

/// All events of a run in their order.
fn heard(ends: &[End; 2]) -> Vec<Heard> {
    let [of_transmitter, of_receiver] = ends.each_ref().map(|end| {
        let said = end.said.iter().filter(|said| !said.is_empty());
        said.map(|said| Said::decode(said.as_slice()).unwrap()).collect::<Vec<_>>()
    });
    let bit = |bytes: &[u8], index: usize| bytes[index / 8] >> (index % 8) & 1 == 1;
    let replies = of_transmitter.iter().flat_map(|said| &said.replies);
    let announcements = of_receiver.iter().flat_map(|said| &said.announcements);
    let disclosures = of_receiver.iter().flat_map(|said| &said.disclosures);
    let due = Due { frame: None, pulse: 0, pulses_max: u64::MAX };
    let mut events = Vec::new();
    for ((announcement, reply), disclosure) in announcements.zip(replies).zip(disclosures) {
        let announced = announcement.read(&due).unwrap();
        let mut checked = 0;
        for (index, pulse) in announced.pulses.iter().enumerate() {
            let x = announced.bases.get(index);
            let fate = match (bit(&reply.matches, index), x) {
                (false, _) => Fate::OtherBasis,
                (true, false) => Fate::Key,
                (true, true) => {
                    let intensity = reply.check_intensities[checked / 4] >> (2 * (checked % 4)) & 3;
                    let (sent, seen) = (bit(&reply.check_bits, checked), bit(&disclosure.check_bits, checked));
                    checked += 1;
                    Fate::Check(sent, seen, intensity)
                }
            };
            events.push(Heard { pulse: *pulse, x, fate });
        }
    }
    events
}

/// One bit of the key, what is known of its neighbourhood, and what an observer wants to know.
#[derive(Clone, Copy)]
struct Bit {
    pulse: u64,
    before: Option<Heard>,
    after: Option<Heard>,
    /// The bit of the key before it, and the number of its pulse.
    last_key: Option<(u64, bool)>,
    /// Pulses since the last check bit, and what was seen.
    last_check: Option<(u64, bool)>,
    value: bool,
}

fn bits(heard: &[Heard], key: &[bool]) -> Vec<Bit> {
    let (mut key, mut last_key, mut last_check) = (key.iter().copied(), None, None);
    let mut bits = Vec::new();
    for (index, event) in heard.iter().enumerate() {
        match event.fate {
            Fate::OtherBasis => {}
            Fate::Check(_, seen, _) => last_check = Some((event.pulse, seen)),
            Fate::Key => {
                let value = key.next().unwrap();
                let before = index.checked_sub(1).map(|before| heard[before]);
                let after = heard.get(index + 1).copied();
                bits.push(Bit { pulse: event.pulse, before, after, last_key, last_check, value });
                last_key = Some((event.pulse, value));
            }
        }
    }
    assert!(key.next().is_none());
    bits
}

/// Learns the likelier answer for each thing that is known from one half of the bits and guesses the other half: how
/// many standard deviations the guesses are better than chance.
fn advantage(bits: &[Bit], known: impl Fn(&Bit) -> u64, answer: impl Fn(&Bit) -> bool) -> f64 {
    let (learn, guess) = bits.split_at(bits.len() / 2);
    let mut votes: BTreeMap<u64, i64> = BTreeMap::new();
    for bit in learn {
        *votes.entry(known(bit)).or_default() += if answer(bit) { 1 } else { -1 };
    }
    let right = guess.iter().filter(|bit| (votes.get(&known(bit)).copied().unwrap_or(0) > 0) == answer(bit)).count();
    (right as f64 - guess.len() as f64 / 2.0) / (guess.len() as f64 / 4.0).sqrt()
}

/// Every way in which this observer guesses, with its advantage.
fn advantages(bits: &[Bit]) -> Vec<(&'static str, f64)> {
    let fate = |event: &Heard| match event.fate {
        Fate::OtherBasis => u64::from(event.x),
        Fate::Key => 2,
        Fate::Check(sent, seen, intensity) => 3 + u64::from(sent) + 2 * u64::from(seen) + 4 * u64::from(intensity),
    };
    let gap = |from: Option<u64>, to: u64| from.map_or(255, |from| (to - from).min(255));
    let before = |bit: &Bit| gap(bit.before.map(|event| event.pulse), bit.pulse);
    let after = |bit: &Bit| bit.after.map_or(255, |event| (event.pulse - bit.pulse).min(255));
    let fates = |bit: &Bit| bit.before.as_ref().map_or(99, fate) * 100 + bit.after.as_ref().map_or(99, fate);
    let since_key = |bit: &Bit| gap(bit.last_key.map(|(pulse, _)| pulse), bit.pulse);
    let value = |bit: &Bit| bit.value;
    let differs = |bit: &Bit| bit.last_key.is_some_and(|(_, last)| last != bit.value);
    let check = |bit: &Bit| {
        let (pulse, seen) = bit.last_check.unwrap_or((0, false));
        2 * gap(Some(pulse), bit.pulse) + u64::from(seen)
    };
    vec![
        ("distance to the event before", advantage(bits, before, value)),
        ("distance to the event after", advantage(bits, after, value)),
        ("distance to the key before", advantage(bits, since_key, value)),
        ("fates of the neighbours", advantage(bits, fates, value)),
        ("fate and distance of the event before", advantage(bits, |b| fates(b) / 100 * 256 + before(b), value)),
        ("check bit and distance", advantage(bits, check, value)),
        ("number", advantage(bits, |b| b.pulse % 64, value)),
        ("from the key before, by distance", advantage(bits, since_key, differs)),
        ("from the key before, by neighbours", advantage(bits, fates, differs)),
        ("from the key before, by the event between", advantage(bits, |b| since_key(b) * 256 + before(b), differs)),
    ]
}

/// Many clicks on detectors that are dead for 40 pulses. With time bins a detector comes back between early and late.
fn light(encoding: Encoding) -> Light {
    let sync = Sync::Distributed { delay_ps: 0.0 };
    let dead_time_ps = if encoding == Encoding::Detectors { 40_000.0 } else { 40_250.0 };
    let config = Prepared { preamble_pulses: 0, sync, encoding, gate_ps: 240.0, dead_time_ps, ..decoy(Part::Receiver) };
    let quiet = Light::new(config, 61);
    Light { transmittance: 0.08, dead_time_ps, offset_ps: 0.0, frequency: 0.0, drift_per_s: 0.0, ..quiet }
}

/// What an observer knows of the bits of either end.
fn observed(light: &Light) -> [Vec<Bit>; 2] {
    let ends = run(light, &Sent::new(&light.chosen), 10, 5).unwrap();
    let heard = heard(&ends);
    for round in &ends[1].rounds {
        let mut account = round.account.clone();
        account.abort();
        account.check().unwrap();
        let dead = account.get(Line(Book::Receiver, Item::DeadTimeDropped));
        assert_eq!(dead > 10_000, light.config.dead_time_ps > 0.0, "{dead}");
    }
    ends.map(|end| {
        let key = end.rounds.iter().flat_map(|round| (0..round.key.len()).map(|index| round.key.get(index)));
        bits(&heard, &key.collect::<Vec<_>>())
    })
}

/// Those that come this many pulses after another event.
fn after(bits: &[Bit], pulses: RangeInclusive<u64>) -> Vec<Bit> {
    let near = |bit: &&Bit| bit.before.is_some_and(|before| pulses.contains(&(bit.pulse - before.pulse)));
    bits.iter().filter(near).copied().collect()
}

const ENCODINGS: [Encoding; 2] = [Encoding::Detectors, Encoding::TimeBin { separation_ps: 500.0 }];

#[test]
fn an_observer_predicts_bits_of_the_key_no_better_than_chance() {
    for encoding in ENCODINGS {
        for bits in observed(&light(encoding)) {
            assert!(bits.len() > 30_000, "{encoding:?}: {} bits", bits.len());
            let near = after(&bits, 41..=45);
            assert!(near.len() > 1000, "{encoding:?}: {} near bits", near.len());
            for (way, sigma) in advantages(&bits).into_iter().chain(advantages(&near)) {
                assert!(sigma.abs() < 4.0, "{encoding:?}, {way}: {sigma} standard deviations");
            }
        }
    }
}

#[test]
fn without_the_dead_time_rule_an_observer_would_predict_them() {
    for encoding in ENCODINGS {
        let mut light = light(encoding);
        light.config.dead_time_ps = 0.0;
        for bits in observed(&light) {
            let best = advantages(&after(&bits, 39..=40)).into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            assert!(best.1 > 10.0, "{encoding:?}: {best:?}");
        }
    }
}
