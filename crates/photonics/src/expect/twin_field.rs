//! Twin fields: laser pulses of random phase from two ends, which interfere at a station between them.
//!
//! The station announces the windows in which one of its two detectors clicks and the other does not: *heralds*. Of pulses
//! whose phases are random their probability is, with `x` the photons that both would make click together and `y` twice
//! the root of the product of each end's,
//!
//! `S = 2 (1 - p) [exp(-x/2) - exp(-x) + exp(-x/2) (I0(y/2) - 1) + p exp(-x)]`
//!
//! for a dark probability `p` of each detector: the square law of the detectors averaged over the phase, nothing else.
//! Where phases lie together within a slice, one detector is bright and the other dark but for the visibility. Left out
//! are dead times and afterpulses: a click in 1e5 windows is a bright twin field.

use core::f64::consts::PI;

/// What one end sends, and what of it would click.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct User {
    /// Probability that a window is for key.
    pub key_probability: f64,
    /// Probability that a pulse is sent in such a window, and its mean number of photons.
    pub sending_probability: f64,
    pub signal: f64,
    /// Mean numbers of photons of the decoys, weak and strong.
    pub decoys: [f64; 2],
    /// Probability of a window with either, of all windows; what is left has no light and is for decoys as well.
    pub decoy_probability: [f64; 2],
    /// From the transmitter to a click, the detectors' efficiency included.
    pub transmission: f64,
}

impl User {
    /// Probability of a window that tells that nothing was sent, where the other end sends a decoy or tells as well.
    fn vacuum_probability(&self) -> f64 {
        1.0 - self.key_probability - self.decoy_probability.iter().sum::<f64>()
    }

    /// Probability that nothing is sent in a window that is not for key at the other end: that may be told.
    fn silent_probability(&self) -> f64 {
        self.vacuum_probability() + self.key_probability * (1.0 - self.sending_probability)
    }
}

/// A link of twin fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TwinFieldInputs {
    /// Windows per second.
    pub window_rate_hz: f64,
    pub users: [User; 2],
    /// Clicks without light per window and detector.
    pub dark_probability: f64,
    /// Interference visibility of light of one phase: what optics and a drifting phase leave.
    pub visibility: f64,
    /// Full width of a slice: phases lie together if they differ by less than half of it, up to half a turn.
    pub slice_rad: f64,
}

/// Probabilities per window that is sent so, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TwinField {
    /// Share of the windows that both ends choose for key.
    pub key_share: f64,
    /// Heralds of these: the first end alone sent, the second alone, both, neither.
    pub key: [f64; 4],
    pub vacuum_share: f64,
    pub vacuum: f64,
    /// By the end that sent, weak and strong: share of the windows, and heralds of these.
    pub alone: [[(f64, f64); 2]; 2],
    /// Windows with weak decoys of both whose phases lie together: their share, heralds of the bright detector and of the
    /// dark one.
    pub interfering_share: f64,
    pub bright: f64,
    pub dark: f64,
}

/// What becomes of the bits once a 1 and a 0 of the second end are paired, all per window that is for key at both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairing {
    pub ones: f64,
    pub zeros: f64,
    pub odd_pairs: f64,
    /// Error rate of the bits of odd pairs.
    pub qber: f64,
}

impl TwinField {
    /// Bits before pairing, and how many of them differ: all of which both sent or neither.
    pub fn unpaired(&self) -> (f64, f64) {
        let [_, _, both, neither] = self.key;
        (self.key.iter().sum(), both + neither)
    }

    /// Xu et al., PRA 101, 042330 (2020): odd pairs are two right bits or two wrong ones.
    pub fn pairing(&self) -> Pairing {
        let [first, second, both, neither] = self.key;
        let (ones, zeros) = (first + neither, second + both);
        let odd = first * second + neither * both;
        let odd_pairs = if ones > 0.0 && zeros > 0.0 { ones.min(zeros) * odd / (ones * zeros) } else { 0.0 };
        Pairing { ones, zeros, odd_pairs, qber: if odd > 0.0 { neither * both / odd } else { 0.0 } }
    }

    /// Error rate of windows in which weak decoys interfered.
    pub fn interference_error(&self) -> f64 {
        let all = self.bright + self.dark;
        if all > 0.0 { self.dark / all } else { 0.0 }
    }
}

impl TwinFieldInputs {
    pub fn predict(&self) -> TwinField {
        let [a, b] = &self.users;
        let lone = |end: usize, decoy: usize| {
            let (own, peer) = (&self.users[end], &self.users[1 - end]);
            let means = if end == 0 { [own.decoys[decoy], 0.0] } else { [0.0, own.decoys[decoy]] };
            (own.decoy_probability[decoy] * peer.silent_probability(), self.herald(means))
        };
        let [send_a, send_b] = [a.sending_probability, b.sending_probability];
        let [bright, dark] = self.interfering([a.decoys[0], b.decoys[0]]);
        TwinField {
            key_share: a.key_probability * b.key_probability,
            key: [
                send_a * (1.0 - send_b) * self.herald([a.signal, 0.0]),
                send_b * (1.0 - send_a) * self.herald([0.0, b.signal]),
                send_a * send_b * self.herald([a.signal, b.signal]),
                (1.0 - send_a) * (1.0 - send_b) * self.herald([0.0, 0.0]),
            ],
            vacuum_share: a.vacuum_probability() * b.silent_probability()
                + a.key_probability * (1.0 - send_a) * b.vacuum_probability(),
            vacuum: self.herald([0.0, 0.0]),
            alone: [[lone(0, 0), lone(0, 1)], [lone(1, 0), lone(1, 1)]],
            interfering_share: a.decoy_probability[0] * b.decoy_probability[0] * self.slice_rad / PI,
            bright,
            dark,
        }
    }

    /// Probability of a herald where both ends send these, with random phases.
    pub fn herald(&self, mean_photons: [f64; 2]) -> f64 {
        let [a, b] = self.arriving(mean_photons);
        let (x, y) = (a + b, 2.0 * libm::sqrt(a * b));
        let p = self.dark_probability;
        let light = libm::expm1(-x / 2.0) - libm::expm1(-x);
        2.0 * (1.0 - p) * (light + libm::exp(-x / 2.0) * bessel_i0_less_1(y / 2.0) + p * libm::exp(-x))
    }

    /// Heralds of the bright and of the dark detector, of phases within a slice.
    fn interfering(&self, mean_photons: [f64; 2]) -> [f64; 2] {
        /// Even at the widest slice the rest is below 1e-6.
        const POINTS: u32 = 256;
        let [a, b] = self.arriving(mean_photons);
        let (x, y) = (a + b, 2.0 * libm::sqrt(a * b) * self.visibility);
        let p = self.dark_probability;
        // That one clicks and the other does not.
        let herald = |own: f64, other: f64| (p - (1.0 - p) * libm::expm1(-own)) * (1.0 - p) * libm::exp(-other);
        let mut sums = [0.0; 2];
        for point in 0..POINTS {
            let phase = (f64::from(point) + 0.5) / f64::from(POINTS) * self.slice_rad / 2.0;
            let swing = y * libm::cos(phase);
            let [bright, dark] = [(x + swing) / 2.0, (x - swing) / 2.0];
            sums[0] += herald(bright, dark);
            sums[1] += herald(dark, bright);
        }
        sums.map(|sum| sum / f64::from(POINTS))
    }

    /// Photons that would click, of each end.
    fn arriving(&self, mean_photons: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|end| mean_photons[end] * self.users[end].transmission)
    }
}

/// Visibility of light whose phase is wrong by an optical error, and by a Gaussian of this standard deviation.
pub fn visibility(error: f64, residual_phase_rad: f64) -> f64 {
    (1.0 - 2.0 * error) * libm::exp(-residual_phase_rad * residual_phase_rad / 2.0)
}

/// The modified Bessel function of order 0, less 1, to the last bits also where it is next to nothing.
fn bessel_i0_less_1(z: f64) -> f64 {
    let quarter = z * z / 4.0;
    let (mut term, mut sum) = (1.0, 0.0);
    for k in 1..200u32 {
        term *= quarter / f64::from(k * k);
        sum += term;
        if term <= sum * 1e-17 {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::math::{plob_bits_per_use, transmission};
    use super::*;

    fn user(signal: f64, transmission: f64) -> User {
        User {
            key_probability: 0.735,
            sending_probability: 0.269,
            signal,
            decoys: [0.105, 0.493],
            decoy_probability: [0.2, 0.05],
            transmission,
        }
    }

    fn link(transmissions: [f64; 2]) -> TwinFieldInputs {
        TwinFieldInputs {
            window_rate_hz: 5e8,
            users: transmissions.map(|eta| user(0.493, eta)),
            dark_probability: 8e-9,
            visibility: 0.9,
            slice_rad: 0.2,
        }
    }

    /// The average over the phase of what two detectors do, summed point by point.
    fn herald_by_phases(link: &TwinFieldInputs, means: [f64; 2]) -> f64 {
        let [a, b] = link.arriving(means);
        let p = link.dark_probability;
        let at = |phase: f64| {
            let swing = 2.0 * (a * b).sqrt() * phase.cos();
            let [one, two] = [(a + b + swing) / 2.0, (a + b - swing) / 2.0];
            let click = |light: f64| p - (1.0 - p) * (-light).exp_m1();
            click(one) * (1.0 - click(two)) + click(two) * (1.0 - click(one))
        };
        (0..4096).map(|point| at((f64::from(point) + 0.5) / 4096.0 * 2.0 * PI)).sum::<f64>() / 4096.0
    }

    #[test]
    fn heralds_are_the_average_over_the_phase() {
        for transmissions in [[0.3, 0.3], [1e-2, 3e-2], [1e-6, 2e-6], [0.0, 1e-9]] {
            let link = link(transmissions);
            for means in [[0.5, 0.5], [0.1, 0.0], [0.0, 0.0], [2.0, 0.7]] {
                let (closed, summed) = (link.herald(means), herald_by_phases(&link, means));
                assert!((closed / summed - 1.0).abs() < 1e-9, "{transmissions:?} {means:?}: {closed:e} {summed:e}");
            }
        }
    }

    #[test]
    fn slices_of_all_phases_are_as_good_as_none() {
        let link = TwinFieldInputs { slice_rad: PI, visibility: 1.0, ..link([1e-3, 2e-3]) };
        let rates = link.predict();
        // Slices that meet leave no window out: both detectors together see what random phases give.
        let all = link.herald([link.users[0].decoys[0], link.users[1].decoys[0]]);
        assert!(((rates.bright + rates.dark) / all - 1.0).abs() < 1e-6);
        let share = link.users.iter().map(|user| user.decoy_probability[0]).product::<f64>();
        assert!((rates.interfering_share - share).abs() < 1e-12);
        // Equal light of both ends in a narrow slice leaves one detector dark.
        let equal = self::link([1e-3; 2]);
        let narrow = TwinFieldInputs { slice_rad: 0.01, visibility: 1.0, ..equal };
        assert!(narrow.predict().interference_error() < 1e-4 && rates.interference_error() > 0.1);
    }

    #[test]
    fn shares_of_windows_are_what_is_left_of_one() {
        let rates = link([1e-3, 1e-3]).predict();
        // Key, one decoy and silence, silence; the rest is decoys that met, or key that met a decoy.
        let alone: f64 = rates.alone.iter().flatten().map(|(share, _)| share).sum();
        let user = user(0.493, 1e-3);
        let (vacuum, decoys) = (user.vacuum_probability(), user.decoy_probability.iter().sum::<f64>());
        let sent = user.key_probability * user.sending_probability;
        let met = decoys * decoys + 2.0 * decoys * sent + 2.0 * vacuum * sent;
        assert!((rates.key_share + alone + rates.vacuum_share + met - 1.0).abs() < 1e-12);
    }

    #[test]
    fn pairing_leaves_right_bits_and_few_wrong_ones() {
        let rates = link([1e-4, 1e-4]).predict();
        let (bits, wrong) = rates.unpaired();
        let pairing = rates.pairing();
        assert!(wrong / bits > 0.2 && pairing.qber < 1e-3, "{} {}", wrong / bits, pairing.qber);
        assert!(pairing.odd_pairs < pairing.ones.min(pairing.zeros));
        assert!((pairing.ones + pairing.zeros - bits).abs() < 1e-15);
    }

    /// What clicks falls with the square root of what a fibre between the ends would let through.
    #[test]
    fn bits_fall_with_the_square_root_of_the_transmission_and_pass_what_a_fibre_could_carry() {
        let at = |km: f64| link([0.6 * transmission(0.17 * km / 2.0); 2]).predict().pairing().odd_pairs;
        let slope = (at(200.0) / at(500.0)).log10() / (0.17 * 300.0 / 10.0);
        assert!((slope - 0.5).abs() < 0.02, "{slope}");
        assert!(at(500.0) > plob_bits_per_use(transmission(0.17 * 500.0)));
    }

    #[test]
    fn phases_that_drift_take_visibility() {
        assert!((visibility(0.0, 0.099) - 0.995_11).abs() < 1e-5);
        assert_eq!(visibility(0.5, 0.0), 0.0);
    }
}
