use super::super::{Emitter, Law, SLICE_BITS_MAX};
use super::*;
use crate::expect::prepared::Inputs;
use crate::expect::pulses::{PulseClass, PulsesInputs};
use crate::expect::response::{BasisChoice, Counted, Receiver};
use crate::random::Subseed;
use proptest::prelude::*;

/// Three intensities, of which each has its share of the clicks, at 1 MHz.
fn decoys() -> Inputs {
    let class = |mean_photons, probability| PulseClass { mean_photons, probability };
    Inputs::Pulses(PulsesInputs {
        pulse_rate_hz: 1e6,
        classes: vec![class(0.5, 0.4), class(0.2, 0.4), class(0.001, 0.2)],
        receiver: Receiver {
            transmission: 0.4,
            basis_choice: BasisChoice::Passive,
            key_basis_probability: [0.7; 2],
            intrinsic_error: [0.03, 0.05],
            noise_probability: [0.02; 2],
            afterpulse_probability: 0.0,
            hold_off_pulses: 0.0,
            counted: [Counted::ALL; 2],
        },
    })
}

fn emitter(subseed: u8) -> Emitter {
    Emitter::new(Law::prepared(&decoys()).unwrap(), 1_000_000_000_000, &Subseed::new([subseed; 32]))
}

#[test]
fn both_halves_together_have_exactly_the_statistics_of_their_slice() {
    for number in 0..7 {
        let slice = emitter(1).slice(3, number, 7);
        let [transmitter, receiver] = &slice.halves;
        let statistics = &slice.statistics;
        for (tallies, own, peer) in [
            (&statistics.key, &transmitter.key, &receiver.key),
            (&statistics.check, &transmitter.check, &receiver.check),
        ] {
            assert!(tallies[..3].iter().all(|tally| tally.bits > 100 && tally.errors > 10), "{tallies:?}");
            assert_eq!(&compare(own, peer), tallies);
            assert_eq!((own.len, own.kinds.len(), peer.kinds.len()), (peer.len, 2, 0));
            let each = (0..own.len).map(|place| own.kind(place));
            assert_eq!(own.counts()[1], each.filter(|kind| *kind == 1).count() as u64);
        }
        let Statistics { mismatched, crossed, doubles, clicks, pulses, .. } = *statistics;
        let sifted = (transmitter.key.len + transmitter.check.len) as u64;
        assert_eq!(receiver.clicks, sifted + mismatched + doubles + 2 * crossed, "every click is accounted for");
        assert_eq!((receiver.clicks, transmitter.clicks), (clicks[1], 0));
        assert_eq!((transmitter.mismatched, transmitter.doubles, receiver.doubles), (0, 0, doubles));
        assert_eq!((transmitter.pulses, receiver.pulses), (pulses, pulses));
    }
    let all: u64 = (0..7).map(|number| emitter(1).slice(3, number, 7).statistics.pulses).sum();
    assert_eq!(all, 1_000_000, "slices share the pulses of an epoch");
}

#[test]
fn a_slice_is_the_same_whenever_it_is_made_and_no_two_are_alike() {
    let of = |seed, epoch, number| emitter(seed).slice(epoch, number, 7).halves.map(|half| half.encode());
    assert_eq!(of(1, 5, 2), of(1, 5, 2));
    for (seed, epoch, number) in [(2, 5, 2), (1, 6, 2), (1, 5, 3)] {
        let (one, other) = (emitter(1).slice(5, 2, 7), emitter(seed).slice(epoch, number, 7));
        let words = |slice: &super::super::Slice| slice.halves[0].key.bits[..50].to_vec();
        let same: u32 = words(&one).iter().zip(words(&other)).map(|(a, b)| (a ^ b).count_zeros()).sum();
        assert!((1400..1800).contains(&same), "{same} of 3200 bits agree");
        assert_ne!(of(1, 5, 2), of(seed, epoch, number));
    }
}

#[test]
fn places_tell_nothing_of_kinds_errors_and_bits() {
    // By tenth of the string: bits of each kind, errors, ones; chi-square over all slices.
    let mut tenths = [[0f64; 5]; 10];
    let mut sums = [0f64; 5];
    let (mut total, mut of_tenth) = (0.0, [0f64; 10]);
    for number in 0..20 {
        let slice = emitter(3).slice(0, number, 20);
        let [own, peer] = slice.halves.each_ref().map(|half| &half.key);
        for place in 0..own.len {
            let tenth = place * 10 / own.len;
            (total, of_tenth[tenth]) = (total + 1.0, of_tenth[tenth] + 1.0);
            let wrong = own.bit(place) != peer.bit(place);
            let seen = [own.kind(place) == 0, own.kind(place) == 1, own.kind(place) == 2, wrong, own.bit(place)];
            for (what, seen) in seen.into_iter().enumerate() {
                tenths[tenth][what] += f64::from(u8::from(seen));
                sums[what] += f64::from(u8::from(seen));
            }
        }
    }
    for what in 0..5 {
        let share = sums[what] / total;
        let chi: f64 = (0..10)
            .map(|tenth| {
                let expected = of_tenth[tenth] * share;
                (tenths[tenth][what] - expected).powi(2) / (expected * (1.0 - share))
            })
            .sum();
        println!("{what}: chi-square {chi:.1} of 9");
        assert!(chi < 9.0 + 4.0 * 18f64.sqrt(), "{what}: {chi}");
    }
    assert!((sums[4] / total - 0.5).abs() < 0.01);
}

#[test]
fn errors_of_a_kind_are_those_of_its_bits_wherever_they_are() {
    let slice = emitter(4).slice(0, 0, 1);
    let [own, peer] = slice.halves.each_ref().map(|half| &half.key);
    for kind in 0..3 {
        let places: Vec<usize> = (0..own.len).filter(|place| own.kind(*place) == kind).collect();
        let errors =
            |places: &[usize]| places.iter().filter(|place| own.bit(**place) != peer.bit(**place)).count() as f64;
        let (first, second) = places.split_at(places.len() / 2);
        let (a, b) = (errors(first), errors(second));
        assert!((a - b).abs() < 4.0 * (a + b).sqrt(), "{kind}: {a} {b}");
    }
}

#[test]
fn halves_survive_the_wire_and_are_never_printed() {
    for half in &emitter(5).slice(9, 1, 3).halves {
        let bytes = half.encode();
        assert!(bytes.len() <= HALF_BYTES_MAX);
        assert_eq!(&Half::decode(&bytes).unwrap(), half);
        assert!(format!("{half:?}").contains("key: Labelled("));
    }
}

#[test]
fn what_is_no_half_is_refused_with_a_reason() {
    let bytes = emitter(6).slice(0, 0, 50).halves[0].encode();
    let with = |word: usize, value: u64| {
        let mut bytes = bytes.clone();
        bytes[8 * word..8 * word + 8].copy_from_slice(&value.to_le_bytes());
        Half::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 7), HalfError::Magic);
    assert_eq!(with(2, 5), HalfError::Slice { slice: 5, slices: 0 });
    assert_eq!(with(3, SLICE_BITS_MAX + 1), HalfError::TooLong { bits: SLICE_BITS_MAX + 1 });
    assert_eq!(with(5, 3), HalfError::Planes { planes: 3 });
    assert!(matches!(with(4, 1), HalfError::Length { .. }));
    for len in [0, 7, 80, bytes.len() - 1] {
        assert!(matches!(Half::decode(&bytes[..len]).unwrap_err(), HalfError::Length { .. }));
    }
    let key = u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
    assert!(!key.is_multiple_of(64));
    assert_eq!(with(10 + key.div_ceil(64), u64::MAX), HalfError::Tail);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), head in any::<bool>()) {
        if head && bytes.len() >= 48 {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[24..48].fill(0);
        }
        if let Ok(half) = Half::decode(&bytes) {
            prop_assert_eq!(half.encode(), bytes);
        }
    }
}
