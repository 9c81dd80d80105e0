//! Figures of twin-field links that were computed independently.
//!
//! The light here is that of an honest link, written out once more: what the planner takes is in `photonics`.

use super::*;
use crate::bounds::{Evidence, binary_entropy, bounds as of_evidence};
use crate::config::{Bound, Emission};

/// What one end sends in decoy windows, as shares of all windows: nothing, the weak decoy, the strong one.
#[derive(Clone, Copy)]
struct Shares([f64; 3]);

#[derive(Clone, Copy)]
struct Link {
    users: Users,
    transmission: [f64; 2],
    dark: f64,
    error: f64,
    slice: f64,
    shares: Shares,
    efficiency: f64,
}

fn user(signal: f64, sending_probability: f64, decoys: [f64; 2]) -> TwinFieldUser {
    TwinFieldUser { signal, sending_probability, decoys }
}

/// 0.17 dB/km, detectors of 60 %, 1e-9 dark counts, 3 % misalignment, f 1.1; decoys next to nothing, as if endless.
fn set_s(km: f64, signal: f64, sending: f64) -> Link {
    Link {
        users: [user(signal, sending, [1e-3, 2e-3]); 2],
        transmission: [0.6 * libm::pow(10.0, -0.17 * km / 20.0); 2],
        dark: 1e-9,
        error: 0.03,
        slice: 1e-3,
        shares: Shares([0.01; 3]),
        efficiency: 1.1,
    }
}

fn i0_less_1(z: f64) -> f64 {
    let mut term = 1.0;
    (1..60).map(f64::from).fold(0.0, |sum, k| {
        term *= z * z / 4.0 / (k * k);
        sum + term
    })
}

impl Link {
    fn herald(&self, means: [f64; 2]) -> f64 {
        let [a, b] = [0, 1].map(|end| means[end] * self.transmission[end]);
        let (x, y, p) = (a + b, 2.0 * (a * b).sqrt(), self.dark);
        let light = (-x / 2.0).exp_m1() - (-x).exp_m1() + (-x / 2.0).exp() * i0_less_1(y / 2.0);
        2.0 * (1.0 - p) * (light + p * (-x).exp())
    }

    /// Heralds of the bright detector and of the dark one, in the middle of narrow slices.
    fn interfering(&self) -> [f64; 2] {
        let [a, b] = [0, 1].map(|end| self.users[end].decoys[0] * self.transmission[end]);
        let steps = 64;
        let mut sums = [0.0; 2];
        for step in 0..steps {
            let phase = (f64::from(step) + 0.5) / f64::from(steps) * self.slice / 2.0;
            let swing = 2.0 * (a * b).sqrt() * (1.0 - 2.0 * self.error) * phase.cos();
            let [bright, dark] = [(a + b + swing) / 2.0, (a + b - swing) / 2.0];
            let click = |light: f64| self.dark - (1.0 - self.dark) * (-light).exp_m1();
            sums[0] += click(bright) * (1.0 - click(dark)) / f64::from(steps);
            sums[1] += click(dark) * (1.0 - click(bright)) / f64::from(steps);
        }
        sums
    }

    /// A block of so many windows, as it is expected.
    fn block(&self, windows: f64) -> (Heralds<f64>, Reconciled<f64>) {
        let [a, b] = self.users;
        let Shares([vacuum, weak, strong]) = self.shares;
        let key = 1.0 - vacuum - weak - strong;
        let [sa, sb] = [a.sending_probability, b.sending_probability];
        let key_windows = windows * key * key;
        let first = key_windows * sa * (1.0 - sb) * self.herald([a.signal, 0.0]);
        let second = key_windows * sb * (1.0 - sa) * self.herald([0.0, b.signal]);
        let both = key_windows * sa * sb * self.herald([a.signal, b.signal]);
        let neither = key_windows * (1.0 - sa) * (1.0 - sb) * self.herald([0.0; 2]);
        let (ones, zeros) = (first + neither, second + both);
        let odd = first * second + neither * both;
        let odd_pairs = ones.min(zeros) * odd / (ones * zeros);
        let qber = neither * both / odd;

        let of = |sent: f64, chance: f64| Windows { sent, heralded: sent * chance };
        let silent = [sa, sb].map(|sending| vacuum + key * (1.0 - sending));
        let alone = |end: usize| {
            let of_decoy = |decoy: usize, share: f64| {
                let mut means = [0.0; 2];
                means[end] = self.users[end].decoys[decoy];
                of(windows * share * silent[1 - end], self.herald(means))
            };
            [of_decoy(0, weak), of_decoy(1, strong)]
        };
        let [bright, dark] = self.interfering();
        let interfering = windows * weak * weak * self.slice / core::f64::consts::PI;
        let heralds = Heralds {
            key_windows,
            ones,
            zeros,
            odd_pairs,
            vacuum: of(windows * (vacuum * silent[1] + key * (1.0 - sa) * vacuum), self.herald([0.0; 2])),
            alone: [alone(0), alone(1)],
            interfering: of(interfering, bright + dark),
            wrong: interfering * dark,
        };
        let leaked_bits = self.efficiency * odd_pairs * binary_entropy(qber);
        (heralds, Reconciled { key_bits: odd_pairs, key_errors: odd_pairs * qber, leaked_bits, verification_bits: 0.0 })
    }

    fn bounds(&self, windows: f64) -> Bounds {
        let (heralds, reconciled) = self.block(windows);
        of_evidence(&self.security(), &Evidence::TwinField(heralds), &reconciled)
    }

    fn security(&self) -> Security {
        Security {
            bound: Bound::Finite,
            epsilon_secrecy: 1e-10,
            epsilon_correctness: 1e-15,
            tolerated_qber: 0.5,
            emission: Emission::TwinField(self.users),
        }
    }

    /// Bits per window that both ends chose for key.
    fn per_key_window(&self) -> f64 {
        let windows = 1e20;
        let Shares(shares) = self.shares;
        let key = 1.0 - shares.iter().sum::<f64>();
        self.bounds(windows).asymptotic.bits / (windows * key * key)
    }
}

/// Largest value of a function near a point, by ever smaller steps along its arguments.
fn optimum<const K: usize>(mut point: [f64; K], value: impl Fn(&[f64; K]) -> f64) -> ([f64; K], f64) {
    let mut best = value(&point);
    let mut step = 0.1;
    while step > 1e-6 {
        let before = best;
        for (axis, sign) in (0..K).flat_map(|axis| [(axis, 1.0), (axis, -1.0)]) {
            let mut moved = point;
            moved[axis] *= 1.0 + sign * step;
            let found = value(&moved);
            if found > best {
                (point, best) = (moved, found);
            }
        }
        if best <= before {
            step /= 2.0;
        }
    }
    (point, best)
}

/// A26, A27: decoys without end, at the best signal and sending probability, which are the same whatever the loss.
#[test]
fn pairs_give_the_rates_that_were_computed_beside_them() {
    let table = [
        (200.0, 1.70720e-4),
        (300.0, 2.39865e-5),
        (400.0, 3.37889e-6),
        (500.0, 4.71539e-7),
        (600.0, 6.21234e-8),
        (700.0, 5.52100e-9),
    ];
    for (km, rate) in table {
        let ([signal, sending], found) =
            optimum([0.45, 0.25], |[signal, sending]| set_s(km, *signal, *sending).per_key_window());
        assert!((found / rate - 1.0).abs() < 2e-3, "{km} km: {found:e} against {rate:e}");
        if (300.0..=500.0).contains(&km) {
            assert!((signal - 0.500).abs() < 0.005 && (sending - 0.281).abs() < 0.005, "{km}: {signal} {sending}");
        }
    }
}

/// C10: the rate falls as the square root of the transmission, and passes what a fibre without a station could carry.
#[test]
fn the_rate_falls_as_the_square_root_of_the_transmission() {
    let rate = |km: f64| set_s(km, 0.5, 0.281).per_key_window();
    let slope = libm::log10(rate(200.0) / rate(500.0)) / (0.17 * 30.0);
    assert!((slope - 0.50).abs() < 0.02, "{slope}");
    let repeaterless = |km: f64| -libm::log2(1.0 - libm::pow(10.0, -0.017 * km));
    assert!(rate(200.0) < repeaterless(200.0) && rate(300.0) > repeaterless(300.0));
}

/// C11, for pairs: what Wang, Yu and Hu claim for single heralds.
#[test]
fn misalignment_far_beyond_that_of_other_protocols_leaves_key() {
    for (km, error) in [(700.0, 0.15), (500.0, 0.35)] {
        let link = |signal: f64, sending: f64| Link {
            transmission: [0.8 * libm::pow(10.0, -0.2 * km / 20.0); 2],
            dark: 1e-11,
            error,
            ..set_s(km, signal, sending)
        };
        let rate = link(0.4, 0.02).single_heralds();
        assert!(optimum([0.4, 0.02], |[signal, sending]| link(*signal, *sending).single_heralds()).1 > 0.0, "{rate}");
    }
}

impl Link {
    /// Without pairing: Wang, Yu and Hu 2018.
    fn single_heralds(&self) -> f64 {
        let (heralds, _) = self.block(1e20);
        let secret = Secret::of(&self.users, &heralds, None);
        let [a, b] = self.users;
        let yields = [0, 1]
            .map(|end| one_photon(&self.users[end], &heralds.alone[end], &heralds.vacuum, &Chances { failure: None }));
        let single = a.one_photon_alone(&b) * yields[0] + b.one_photon_alone(&a) * yields[1];
        let [sa, sb] = [a.sending_probability, b.sending_probability];
        let wrong = sa * sb * self.herald([a.signal, b.signal]) + (1.0 - sa) * (1.0 - sb) * self.herald([0.0; 2]);
        let all = (heralds.ones + heralds.zeros) / heralds.key_windows;
        single * (1.0 - binary_entropy(secret.single_phase_error)) - self.efficiency * all * binary_entropy(wrong / all)
    }
}

/// Zhou et al., Nat. Commun. 14, 928 (2023) in key windows alone, the misalignment fitted at 404 km.
fn zhou(losses_db: [f64; 2], error: f64) -> Link {
    Link {
        users: [user(0.493, 0.269, [0.105, 0.493]); 2],
        transmission: losses_db.map(|db| 0.625 * libm::pow(10.0, -db / 10.0)),
        dark: 8e-9,
        error,
        slice: 0.2,
        shares: Shares([0.05, 0.15, 0.065]),
        efficiency: 1.1,
    }
}

/// B23 in the limit of long keys, with decoys of one end at a time: 12.31 bit/s at 518 km, and nothing at 616 km.
#[test]
fn one_error_fitted_at_404_km_gives_the_rate_at_518_km_and_none_at_616_km() {
    let bps = |losses_db: [f64; 2], error: f64| 5e8 * 0.735 * 0.735 * zhou(losses_db, error).per_key_window();
    let (mut low, mut high) = (0.0, 0.3);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if bps([38.47, 38.42], middle) > 146.7 { low = middle } else { high = middle }
    }
    assert!((low - 0.0736).abs() < 5e-4, "{low}");
    let rate = bps([47.07, 46.95], low);
    assert!((rate / 12.31 - 1.0).abs() < 2e-3, "{rate}");
    assert!((rate / 14.38 - 1.0).abs() < 0.2);
    assert!(bps([55.05, 55.22], low) < 0.0);
}

/// Finite blocks over 400 km at settings that were optimised elsewhere for 1e12 windows, under a composition that
/// shares its epsilon in another way.
#[test]
fn finite_blocks_are_near_what_another_composition_gives() {
    let link = Link {
        users: [user(0.500, 0.279, [0.049, 0.301]); 2],
        slice: core::f64::consts::PI / 8.0,
        shares: Shares([0.0021, 0.076, 0.0029]),
        ..set_s(400.0, 0.5, 0.279)
    };
    let at = |windows: f64| {
        let found = optimum(
            [0.5, 0.279, 0.049, 0.301, 0.0021, 0.076, 0.0029],
            |&[signal, sending, weak, strong, vacuum, p, q]| {
                let users = [user(signal, sending, [weak, strong]); 2];
                if weak >= strong || vacuum + p + q >= 1.0 || sending >= 1.0 {
                    return f64::NEG_INFINITY;
                }
                Link { users, shares: Shares([vacuum, p, q]), ..link }.bounds(windows).finite.bits / windows
            },
        );
        found.1
    };
    for (windows, rate) in [(1e11, 1.498e-6), (1e12, 2.160e-6), (1e13, 2.586e-6)] {
        let found = at(windows);
        assert!((found / rate - 1.0).abs() < 0.03, "{windows:e}: {found:e} against {rate:e}");
    }
    let own = link.bounds(1e12);
    assert!(own.finite.bits > 0.0 && own.finite.bits < own.asymptotic.bits);
    let short = link.bounds(1e8);
    assert!(short.finite.bits <= 0.0 && short.asymptotic.bits > 0.0, "{short:?}");
}

/// Unequal arms: each end sends so that a lone photon is as likely of either, and no other way.
#[test]
fn unequal_arms_need_light_that_is_balanced() {
    let [near, far] = [user(0.35, 0.24, [0.02, 0.2]), user(0.6, 0.3, [0.05, 0.5])];
    let [weak, strong] = imbalance(&[near, far]);
    let balanced = user(near.signal, near.sending_probability, [near.decoys[0] / weak, near.decoys[1] / weak / strong]);
    let after = imbalance(&[balanced, far]);
    assert!(after.iter().all(|ratio| (ratio - 1.0).abs() < 1e-12), "{after:?}");
    let link = |users: Users| Link { users, transmission: [2e-3, 6e-4], ..zhou([0.0; 2], 0.03) };
    assert_eq!(link([near, far]).bounds(1e14).abort, Some(AbortReason::Parameters));
    let bounds = link([balanced, far]).bounds(1e14);
    assert!(bounds.abort.is_none() && bounds.finite.bits > 0.0, "{bounds:?}");
}

/// A station that withholds or swaps heralds changes what the windows say, never what the bound takes them for.
#[test]
fn a_station_that_lies_gains_nothing() {
    let link = zhou([38.47, 38.42], 0.03);
    let (heralds, reconciled) = link.block(1e14);
    let length = |heralds: Heralds<f64>, reconciled: Reconciled<f64>| {
        let bounds = of_evidence(&link.security(), &Evidence::TwinField(heralds), &reconciled);
        if bounds.abort.is_some() { 0.0 } else { bounds.finite.bits.max(0.0) }
    };
    let honest = length(heralds, reconciled);
    assert!(honest > 0.0);

    // It says the other detector: all interference is wrong.
    let bits = heralds.interfering.heralded;
    assert_eq!(length(Heralds { wrong: bits - heralds.wrong, ..heralds }, reconciled), 0.0);
    // It says a detector at random.
    assert_eq!(length(Heralds { wrong: bits / 2.0, ..heralds }, reconciled), 0.0);
    // It announces windows in which nothing clicked: it cannot tell for what a window is, so these are dark counts.
    let forging = Link { dark: 1e-5, ..link };
    assert!(forging.bounds(1e14).asymptotic.bits <= 0.0);
    // It keeps half of its heralds to itself, of whatever windows: fewer bits, each no more secret.
    let kept = |windows: Windows<f64>| Windows { heralded: windows.heralded / 2.0, ..windows };
    let half = Heralds {
        key_windows: heralds.key_windows,
        ones: heralds.ones / 2.0,
        zeros: heralds.zeros / 2.0,
        odd_pairs: heralds.odd_pairs / 2.0,
        vacuum: kept(heralds.vacuum),
        alone: heralds.alone.map(|of_end| of_end.map(kept)),
        interfering: kept(heralds.interfering),
        wrong: heralds.wrong / 2.0,
    };
    let left = Reconciled {
        key_bits: reconciled.key_bits / 2.0,
        key_errors: reconciled.key_errors / 2.0,
        leaked_bits: reconciled.leaked_bits / 2.0,
        ..reconciled
    };
    assert!(length(half, left) < honest / 2.0);
}
