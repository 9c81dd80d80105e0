//! Bounds for sending-or-not-sending twin-field QKD with actively odd-parity pairing (SNS, AOPP).
//!
//! A bit of the key says which of two windows an end sent in. It is secret where the light of a herald was one photon of
//! one end: the other end's photon would have looked the same. How often that was the decoys say that an end sent while
//! the other did not (Wang, Yu and Hu, PRA 98, 062323 (2018)); pairing (Xu et al., PRA 101, 042330 (2020)) leaves pairs
//! of such heralds, with phase errors `2 e (1 - e)`. Ends may send differently, as long as a lone photon is as likely of
//! either (Hu et al., PRA 100, 062337 (2019)).
//!
//! The bound of long keys is the chain printed in Bertaina et al., Adv. Quantum Technol. (2024), appendix A. The finite
//! one is a **simplified composition and no proof**: each count is replaced by its Chernoff bound and the epsilon shared
//! in equal parts. The proof for pairs (Jiang et al., New J. Phys. 22, 053048 (2020)) has a term beyond it.

#[cfg(test)]
mod tests;

use super::heralds::{Heralds, Windows};
use super::reason::largest;
use super::{AbortReason, Bounds, Length, Reconciled, entropy_up_to};
use crate::config::{Security, TwinFieldUser};

/// Estimates that may fail, each with the same probability: the vacuum either way, two decoys of each end, errors of
/// interfering windows, pairs of single photons, their phase errors, and smoothing and amplification.
const FAILURES: f64 = 12.0;

type Users = [TwinFieldUser; 2];

/// How different the two ends may be in what must be equal: figures in a document are rounded.
const BALANCE_TOLERANCE: f64 = 2e-3;

/// By how much the light of the first end is off what that of the second asks for, as a factor: the ratio of their weak
/// decoys over the ratio of lone photons in windows for key, and the same of their strong ones over the weak.
pub fn imbalance(users: &Users) -> [f64; 2] {
    let [a, b] = users;
    let [weak, strong] = [0, 1].map(|decoy| a.decoys[decoy] / b.decoys[decoy]);
    [weak * b.one_photon_alone(a) / a.one_photon_alone(b), strong / weak]
}

/// Whether two ends send what the proof takes for granted of them.
pub(super) fn are_sound(users: &Users) -> bool {
    let sound = |user: &TwinFieldUser| {
        let TwinFieldUser { signal, sending_probability, decoys: [weak, strong] } = *user;
        [signal, weak, strong].into_iter().all(|mean| mean.is_finite() && mean > 0.0)
            && weak < strong
            && sending_probability > 0.0
            && sending_probability < 1.0
    };
    users.iter().all(sound) && libm::fabs(imbalance(users)[0] - 1.0) <= BALANCE_TOLERANCE
}

pub(super) fn bounds(
    security: &Security,
    users: &Users,
    heralds: &Heralds<f64>,
    reconciled: &Reconciled<f64>,
) -> Bounds {
    let windows = [heralds.vacuum, heralds.interfering].into_iter().chain(heralds.alone.into_iter().flatten());
    if windows.into_iter().any(|windows| windows.sent <= 0.0) {
        return Bounds::none(AbortReason::NoCheckBits);
    }
    let failure = security.epsilon_secrecy / FAILURES;
    let limit = Secret::of(users, heralds, None);
    let finite = Secret::of(users, heralds, Some(failure));
    // A bit that was dropped takes at most one bit of entropy with it.
    let dropped = heralds.odd_pairs - reconciled.key_bits;
    let others = (heralds.odd_pairs - limit.pairs, AbortReason::MultiPhotonPulses);
    let phase_errors = (limit.pairs * entropy_up_to(limit.phase_error), AbortReason::PhaseErrors);

    let disclosed = dropped + reconciled.leaked_bits + reconciled.verification_bits;
    let asymptotic = Length {
        bits: limit.bits() - disclosed,
        most: largest([others, phase_errors, (disclosed, AbortReason::NothingLeft)]),
    };
    let verification = reconciled.verification_bits.max(super::correctness_bits(security));
    let disclosed = dropped + reconciled.leaked_bits + verification;
    // `2 log2(1 / (sqrt2 eps_PA eps^))`
    let amplification = -2.0 * libm::log2(core::f64::consts::SQRT_2 * failure * failure);
    let uncertain = (limit.bits() - finite.bits() + amplification, AbortReason::ShortBlock);
    let finite_length = Length {
        bits: finite.bits() - disclosed - amplification,
        most: largest([others, phase_errors, (disclosed, AbortReason::NothingLeft), uncertain]),
    };
    Bounds { asymptotic, finite: finite_length, phase_error_finite: finite.phase_error, abort: None }
}

/// Pairs of lone photons among the bits of the key, and what is known of them.
#[derive(Clone, Copy)]
pub(super) struct Secret {
    /// At least.
    pub pairs: f64,
    /// At most.
    pub phase_error: f64,
    /// Of single heralds, before they are paired.
    #[cfg_attr(not(test), allow(dead_code))]
    pub single_phase_error: f64,
}

impl Secret {
    /// In the limit of long blocks where no probability of failure is given.
    fn of(users: &Users, heralds: &Heralds<f64>, failure: Option<f64>) -> Self {
        let nothing = Self { pairs: 0.0, phase_error: 0.5, single_phase_error: 0.5 };
        let chances = Chances { failure };
        let [a, b] = users;
        let yields = [0, 1].map(|end| one_photon(&users[end], &heralds.alone[end], &heralds.vacuum, &chances));
        let single = phase_error(users, &yields, heralds, &chances);
        // A bit 1 of the pairing end is one in which the other end sent.
        let lone =
            |own: &TwinFieldUser, peer, end: usize| heralds.key_windows * own.one_photon_alone(peer) * yields[end];
        let ones = lone(a, b, 0).min(heralds.ones);
        let zeros = lone(b, a, 1).min(heralds.zeros);
        if ones <= 0.0 || zeros <= 0.0 || single >= 0.5 {
            return nothing;
        }
        let expected = heralds.ones.min(heralds.zeros) * (ones / heralds.ones) * (zeros / heralds.zeros);
        let pairs = chances.fewest(expected).min(heralds.odd_pairs);
        if pairs <= 0.0 {
            return nothing;
        }
        let errors = chances.most(pairs * 2.0 * single * (1.0 - single));
        Self { pairs, phase_error: (errors / pairs).min(0.5), single_phase_error: single }
    }

    /// How many bits of them nobody else knows.
    fn bits(&self) -> f64 {
        self.pairs * (1.0 - entropy_up_to(self.phase_error))
    }
}

/// Probability that a photon of this end alone is heralded: at least.
fn one_photon(user: &TwinFieldUser, alone: &[Windows<f64>; 2], vacuum: &Windows<f64>, chances: &Chances) -> f64 {
    let [weak, strong] = user.decoys;
    let [w2, s2] = [weak * weak, strong * strong];
    let of_weak = s2 * libm::exp(weak) * chances.at_least(&alone[0]);
    let of_strong = w2 * libm::exp(strong) * chances.at_most(&alone[1]);
    let of_vacuum = (s2 - w2) * chances.at_most(vacuum);
    (of_weak - of_strong - of_vacuum) / (weak * strong * (strong - weak))
}

/// Phase error rate of heralds by one photon: at most. What windows without a photon contributed to the errors is wrong
/// half of the time.
fn phase_error(users: &Users, yields: &[f64; 2], heralds: &Heralds<f64>, chances: &Chances) -> f64 {
    let [a, b] = users.each_ref().map(|user| user.decoys[0]);
    let none = libm::exp(-a - b);
    let wrong = Windows { sent: heralds.interfering.sent, heralded: heralds.wrong };
    let errors = chances.at_most(&wrong) - none * chances.at_least(&heralds.vacuum) / 2.0;
    let single = none * (a * yields[0] + b * yields[1]);
    if yields.iter().any(|of| *of <= 0.0) { 0.5 } else { (errors.max(0.0) / single).min(0.5) }
}

/// What counts say of what was expected, and the reverse: Chernoff, but with a probability of failure.
struct Chances {
    failure: Option<f64>,
}

impl Chances {
    fn b(&self) -> f64 {
        self.failure.map_or(0.0, |failure| -libm::log(failure))
    }

    /// Probability of a herald: at least.
    fn at_least(&self, windows: &Windows<f64>) -> f64 {
        let (b, x) = (self.b(), windows.heralded);
        (x - b / 2.0 - libm::sqrt(2.0 * b * x + b * b / 4.0)).max(0.0) / windows.sent
    }

    /// The same: at most.
    fn at_most(&self, windows: &Windows<f64>) -> f64 {
        let (b, x) = (self.b(), windows.heralded);
        (x + b + libm::sqrt(2.0 * b * x + b * b)) / windows.sent
    }

    /// Events where `mean` are expected: at least.
    fn fewest(&self, mean: f64) -> f64 {
        mean - libm::sqrt(2.0 * self.b() * mean)
    }

    /// The same: at most.
    fn most(&self, mean: f64) -> f64 {
        let b = self.b();
        mean + b / 2.0 + libm::sqrt(2.0 * b * mean + b * b / 4.0)
    }
}
