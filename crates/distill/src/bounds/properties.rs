//! What holds of every bound, whatever a block is like.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::config::{Intensity, SinglePhotons, TwinFieldUser};

const TOLERATED: f64 = 0.5;

/// A link with what it makes of a block.
#[derive(Clone, Debug)]
struct Case {
    security: Security,
    evidence: Evidence,
    reconciled: Reconciled,
}

impl Case {
    fn length(&self) -> KeyLength {
        key_length(&self.security, &self.evidence, &self.reconciled)
    }
}

fn intensities() -> impl Strategy<Value = Emission> {
    let two = (0.1..0.9f64, 0.05..0.6f64, 0.0..0.3f64, 0.2..0.9f64, 0.1..0.9f64).prop_map(|(u, v, w, p, q)| {
        let [u, v] = [u, u * v];
        let of = |mean_photons, probability| Intensity { mean_photons, probability };
        Emission::TwoDecoys([of(u, p), of(v, (1.0 - p) * q), of(v * w, (1.0 - p) * (1.0 - q))])
    });
    let one = (0.1..0.9f64, 0.05..0.8f64, 0.2..0.9f64).prop_map(|(u, v, p)| {
        let of = |mean_photons, probability| Intensity { mean_photons, probability };
        Emission::OneDecoy([of(u, p), of(u * v, 1.0 - p)])
    });
    prop_oneof![two, one]
}

/// A block of an honest link: transmission, noise, misalignment and length of any kind.
fn decoys() -> impl Strategy<Value = Case> {
    let block = (1e-5..0.3f64, 1e-9..1e-4f64, 0.0..0.08f64, 5.0..11.5f64, 0.5..0.97f64);
    (intensities(), block, 0..5u8, any::<bool>()).prop_map(
        |(emission, (eta, noise, wrong, digits, q), bound, known)| {
            let pulses = libm::pow(10.0, digits);
            let mut rows = [Detections::default(); 3];
            let mut errors = 0;
            for (row, k) in rows.iter_mut().zip(emission.intensities()) {
                let light = -libm::expm1(-eta * k.mean_photons);
                let count = |share: f64, p: f64| (pulses * k.probability * share * p) as u64;
                let (gain, wrong) = (noise + light, noise / 2.0 + wrong * light);
                let (key, check) = (q * q, (1.0 - q) * (1.0 - q));
                errors += count(key, wrong);
                *row = Detections {
                    key: count(key, gain),
                    key_errors: known.then(|| count(key, wrong)),
                    check: Tally { bits: count(check, gain), errors: count(check, wrong) },
                };
            }
            let bounds = [Bound::Asymptotic, Bound::Finite, Bound::Lim2014, Bound::Rusca2018, Bound::Wiesemann2024];
            let bound = bounds[usize::from(bound)];
            let bound = if bound.fits(&emission) { bound } else { Bound::Finite };
            case(bound, emission, Evidence::Decoy(rows), rows.iter().map(|row| row.key).sum(), errors)
        },
    )
}

fn single_photons() -> impl Strategy<Value = Case> {
    let block = (1e-4..0.3f64, 1e-9..1e-5f64, 0.0..0.08f64, 6.0..12.0f64, 0.5..0.97f64);
    (0.005..0.5f64, 0.0..0.05f64, block, any::<bool>()).prop_map(
        |(mean_photons, g2, (eta, noise, wrong, digits, q), finite)| {
            let pulses = libm::pow(10.0, digits);
            let (gain, wrong) = (noise + eta * mean_photons, noise / 2.0 + wrong * eta * mean_photons);
            let count = |share: f64, p: f64| (pulses * share * p) as u64;
            let (key, check) = (q * q, (1.0 - q) * (1.0 - q));
            let evidence = Evidence::SinglePhoton {
                pulses: pulses as u64,
                key: count(key, gain),
                check: Tally { bits: count(check, gain), errors: count(check, wrong) },
            };
            let source = SinglePhotons { mean_photons, g2, key_basis_probability: [q; 2] };
            let bound = if finite { Bound::Finite } else { Bound::Asymptotic };
            case(bound, Emission::SinglePhotons(source), evidence, count(key, gain), count(key, wrong))
        },
    )
}

fn pairs() -> impl Strategy<Value = Case> {
    (0..10_000_000u64, 0..10_000_000u64, 0.0..0.2f64, any::<bool>()).prop_map(|(key, bits, wrong, finite)| {
        let errors = (bits as f64 * wrong) as u64;
        let bound = if finite { Bound::Finite } else { Bound::Asymptotic };
        let evidence = Evidence::CheckBits { bits, errors };
        case(bound, Emission::Pairs, evidence, key, (key as f64 * wrong) as u64)
    })
}

/// A twin field of equal ends: transmission, noise, misalignment and length of any kind.
fn twin_fields() -> impl Strategy<Value = Case> {
    let light = (0.1..0.8f64, 0.05..0.5f64, 0.02..0.2f64, 1.5..5.0f64);
    (light, (1e-6..1e-2f64, 1e-11..1e-7f64, 0.0..0.2f64, 9.0..14.0f64), any::<bool>()).prop_map(
        |((signal, sending_probability, weak, ratio), (eta, noise, wrong, digits), finite)| {
            let windows = libm::pow(10.0, digits);
            let herald = |mean: f64| 2.0 * noise + eta * mean;
            let count = |share: f64, p: f64| (windows * share * p) as u64;
            let of = |share: f64, mean: f64| Windows { sent: count(share, 1.0), heralded: count(share, herald(mean)) };
            let (s, quiet) = (sending_probability, 1.0 - sending_probability);
            let key = |share: f64, mean: f64| windows * 0.5 * share * herald(mean);
            let (lone, both, neither) = (key(s * quiet, signal), key(s * s, 2.0 * signal), key(quiet * quiet, 0.0));
            let (ones, zeros) = (lone + neither, lone + both);
            let odd = ones.min(zeros) * (lone * lone + both * neither) / (ones * zeros);
            let strong = weak * ratio;
            let alone = [of(0.05, weak), of(0.02, strong)];
            let heralds = Heralds {
                key_windows: count(0.5, 1.0),
                ones: ones as u64,
                zeros: zeros as u64,
                odd_pairs: (odd as u64).min(ones.min(zeros) as u64),
                vacuum: of(0.01, 0.0),
                alone: [alone; 2],
                interfering: of(0.01, 2.0 * weak),
                wrong: count(0.01, noise + wrong * eta * 2.0 * weak),
            };
            let errors = odd * both * neither / (lone * lone + both * neither);
            let user = TwinFieldUser { signal, sending_probability, decoys: [weak, strong] };
            let bound = if finite { Bound::Finite } else { Bound::Asymptotic };
            let evidence = Evidence::TwinField(heralds);
            case(bound, Emission::TwinField([user; 2]), evidence, heralds.odd_pairs, errors as u64)
        },
    )
}

fn case(bound: Bound, emission: Emission, evidence: Evidence, key_bits: u64, key_errors: u64) -> Case {
    let qber = key_errors as f64 / (key_bits as f64).max(1.0);
    let leaked_bits = (1.1 * key_bits as f64 * binary_entropy(qber)) as u64;
    let tolerated_qber = if emission.is_pairs() { 0.1 } else { TOLERATED };
    let security = Security { bound, epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15, tolerated_qber, emission };
    Case { security, evidence, reconciled: Reconciled { key_bits, key_errors, leaked_bits, verification_bits: 64 } }
}

fn any_link() -> impl Strategy<Value = Case> {
    prop_oneof![decoys(), single_photons(), pairs(), twin_fields()]
}

/// One row of the decoys, or the check basis of the others, with this many more errors.
fn with_errors(case: &Case, row: usize, more: u64) -> Case {
    let mut case = case.clone();
    let add = |tally: &mut Tally| tally.errors = (tally.errors + more).min(tally.bits);
    match &mut case.evidence {
        Evidence::CheckBits { bits, errors } => *errors = (*errors + more).min(*bits),
        Evidence::SinglePhoton { check, .. } => add(check),
        Evidence::Decoy(rows) => add(&mut rows[row].check),
        Evidence::TwinField(heralds) => heralds.wrong = (heralds.wrong + more).min(heralds.interfering.heralded),
    }
    case
}

/// The same block, `times` as long.
fn longer(case: &Case, times: u64) -> Case {
    let mut case = case.clone();
    let tally = |t: Tally| Tally { bits: t.bits * times, errors: t.errors * times };
    case.evidence = match case.evidence {
        Evidence::CheckBits { bits, errors } => Evidence::CheckBits { bits: bits * times, errors: errors * times },
        Evidence::SinglePhoton { pulses, key, check } => {
            Evidence::SinglePhoton { pulses: pulses * times, key: key * times, check: tally(check) }
        }
        Evidence::Decoy(rows) => Evidence::Decoy(rows.map(|row| Detections {
            key: row.key * times,
            key_errors: row.key_errors.map(|errors| errors * times),
            check: tally(row.check),
        })),
        Evidence::TwinField(heralds) => {
            Evidence::TwinField(Heralds::of_counts(heralds.counts().map(|count| count * times)))
        }
    };
    let Reconciled { key_bits, key_errors, leaked_bits, verification_bits } = case.reconciled;
    case.reconciled = Reconciled {
        key_bits: key_bits * times,
        key_errors: key_errors * times,
        leaked_bits: leaked_bits * times,
        verification_bits,
    };
    case
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_key_is_longer_than_its_bits_less_what_was_disclosed_and_none_is_without_a_reason(case in any_link()) {
        let length = case.length();
        let disclosed = case.reconciled.leaked_bits + case.reconciled.verification_bits;
        prop_assert!(length.chosen <= case.reconciled.key_bits.saturating_sub(disclosed), "{length:?}");
        prop_assert_eq!(length.chosen == 0, length.abort.is_some());
        prop_assert!(length.phase_error_finite >= 0.0 && length.phase_error_finite <= 0.5);
    }

    /// Of decoys those of the brightest pulses that the bound asks for: errors of darker ones stand for the background,
    /// which is taken off.
    #[test]
    fn errors_of_the_check_basis_never_make_a_key_longer(case in any_link(), more in 1..1_000_000u64) {
        let row = usize::from(matches!(case.security.emission, Emission::TwoDecoys(_)));
        let (before, after) = (case.length(), with_errors(&case, row, more).length());
        prop_assert!(after.chosen <= before.chosen, "{before:?} {after:?}");
    }

    #[test]
    fn errors_of_the_key_basis_never_make_a_key_longer(case in decoys(), more in 1..1_000_000u64) {
        let mut worse = case.clone();
        if let Evidence::Decoy(rows) = &mut worse.evidence {
            for row in rows {
                row.key_errors = row.key_errors.map(|errors| (errors + more).min(row.key));
            }
        }
        worse.reconciled.key_errors = (case.reconciled.key_errors + more).min(case.reconciled.key_bits);
        prop_assert!(worse.length().chosen <= case.length().chosen);
    }

    #[test]
    fn bits_that_are_dropped_never_make_a_key_longer(case in any_link(), dropped in 1..1_000_000u64) {
        let mut less = case.clone();
        less.reconciled.key_bits = case.reconciled.key_bits.saturating_sub(dropped);
        less.reconciled.key_errors = less.reconciled.key_errors.min(less.reconciled.key_bits);
        prop_assert!(less.length().chosen <= case.length().chosen);
    }

    /// A longer block of the same kind gives more key, and at least as much of each bit.
    #[test]
    fn a_longer_block_gives_more_key_per_bit(case in any_link(), times in 2..50u64) {
        let (short, long) = (case.length().chosen as f64, longer(&case, times).length().chosen as f64);
        prop_assert!(long + 1.0 >= short * times as f64, "{short} {long}");
    }

    #[test]
    fn nonsense_is_a_reason_and_never_a_panic(
        case in any_link(),
        counts in prop::array::uniform12(prop_oneof![Just(0u64), Just(u64::MAX), Just(1), any::<u64>(), 0..1000u64]),
        figures in prop::array::uniform6(
            prop_oneof![Just(f64::NAN), Just(0.0), Just(-1.0), Just(1.0), Just(f64::INFINITY), 0.0..1.0f64]
        ),
        mixed in any_link(),
    ) {
        let mut wild = case.clone();
        let [a, b, c, d, e, f, g, h, i, j, k, l] = counts;
        wild.reconciled = Reconciled { key_bits: a, key_errors: b, leaked_bits: c, verification_bits: d };
        wild.evidence = match case.evidence {
            Evidence::CheckBits { .. } => Evidence::CheckBits { bits: e, errors: f },
            Evidence::SinglePhoton { .. } => {
                Evidence::SinglePhoton { pulses: e, key: f, check: Tally { bits: g, errors: h } }
            }
            Evidence::Decoy(_) => Evidence::Decoy([
                Detections { key: e, key_errors: Some(f), check: Tally { bits: g, errors: h } },
                Detections { key: i, key_errors: None, check: Tally { bits: j, errors: k } },
                Detections { key: l, ..Detections::default() },
            ]),
            Evidence::TwinField(_) => Evidence::TwinField(Heralds::of_counts([
                e, f, g, h, i, j, k, l, a, b, c, d, e, f, g, h, i,
            ])),
        };
        let length = wild.length();
        prop_assert!(length.chosen <= a && (length.chosen == 0) == length.abort.is_some());
        let [epsilon_secrecy, epsilon_correctness, tolerated_qber, mean_photons, probability, g2] = figures;
        let mut unsound = case.clone();
        unsound.security.epsilon_secrecy = epsilon_secrecy;
        unsound.security.epsilon_correctness = epsilon_correctness;
        unsound.security.tolerated_qber = tolerated_qber;
        match &mut unsound.security.emission {
            Emission::Pairs => {}
            Emission::OneDecoy(all) => all[1] = Intensity { mean_photons, probability },
            Emission::TwoDecoys(all) => all[2] = Intensity { mean_photons, probability },
            Emission::SinglePhotons(source) => (source.g2, source.mean_photons) = (g2, mean_photons),
            Emission::TwinField(users) => {
                users[0] = TwinFieldUser { signal: mean_photons, sending_probability: probability, decoys: [g2, 1.0] }
            }
        }
        let length = unsound.length();
        prop_assert!(length.chosen <= unsound.reconciled.key_bits && (length.chosen == 0) == length.abort.is_some());
        let length = Case { evidence: mixed.evidence, ..case }.length();
        prop_assert_eq!(length.chosen == 0, length.abort.is_some());
    }

    /// No click of one kind of pulse in one basis: no key, and the reason says which. Only the vacuum may be dark.
    #[test]
    fn a_basis_or_an_intensity_without_clicks_gives_no_key(
        case in decoys(),
        row in 0..2usize,
        key_basis in any::<bool>(),
    ) {
        let Evidence::Decoy(mut rows) = case.evidence else { return Ok(()) };
        if key_basis {
            rows[row] = Detections { key: 0, key_errors: None, ..rows[row] };
        } else {
            rows[row].check = Tally::default();
        }
        let key_bits = rows.iter().map(|row| row.key).sum();
        let reconciled = Reconciled { key_bits, key_errors: 0, leaked_bits: 0, verification_bits: 64 };
        let length = Case { evidence: Evidence::Decoy(rows), reconciled, ..case }.length();
        let nothing = matches!(
            length.abort,
            Some(AbortReason::NothingDetected { .. } | AbortReason::NoKeyBits | AbortReason::NoCheckBits)
        );
        prop_assert!(length.chosen == 0 && nothing, "{length:?}");
    }
}
