//! Bounds for pulses of single photons, of which some have two.
//!
//! Every pulse that may have had more than one photon is the eavesdropper's, and every error is charged to the others:
//! the analysis of Waks, Santori and Yamamoto, PRA 66, 042315 (2002), which is the bound of long keys here, and the
//! finite form of it by Morrison et al., Nat. Commun. 14, 3573 (2023).

#[cfg(test)]
mod tests;

use super::reason::largest;
use super::sampling::phase_error;
use super::{AbortReason, Bounds, Length, Reconciled, Tally, entropy_up_to};
use crate::config::{Security, SinglePhotons};

/// Estimates that may fail, each with the same probability: emissions in two bases, the phase error, and twice in
/// privacy amplification.
const FAILURES: f64 = 5.0;

/// What a block detected.
#[derive(Clone, Copy)]
pub struct Counts {
    pub pulses: f64,
    pub key: f64,
    pub check: Tally<f64>,
}

pub fn bounds(security: &Security, source: &SinglePhotons, counts: &Counts, reconciled: &Reconciled<f64>) -> Bounds {
    let limit = Secret::of(source, counts, None);
    let epsilon = security.epsilon_secrecy / FAILURES;
    let finite = Secret::of(source, counts, Some(epsilon));
    // A bit that was dropped takes at most one bit of entropy with it.
    let dropped = counts.key - reconciled.key_bits;
    let multi_photon = (limit.multi_photon, source_reason(source, counts));
    let phase_errors = (limit.single.max(0.0) * entropy_up_to(limit.phase_error), AbortReason::PhaseErrors);

    let disclosed = dropped + reconciled.leaked_bits + reconciled.verification_bits;
    let asymptotic = Length {
        bits: limit.bits() - disclosed,
        most: largest([multi_photon, phase_errors, (disclosed, AbortReason::NothingLeft)]),
    };
    let verification = reconciled.verification_bits.max(super::correctness_bits(security));
    let disclosed = dropped + reconciled.leaked_bits + verification;
    let amplification = -2.0 * libm::log2(2.0 * epsilon);
    let uncertain = (limit.bits() - finite.bits() + amplification, AbortReason::ShortBlock);
    let finite_length = Length {
        bits: finite.bits() - disclosed - amplification,
        most: largest([multi_photon, phase_errors, (disclosed, AbortReason::NothingLeft), uncertain]),
    };
    Bounds { asymptotic, finite: finite_length, phase_error_finite: finite.phase_error, abort: None }
}

/// Bits of the key basis that are of one photon, and what is known of them.
struct Secret {
    multi_photon: f64,
    /// At least; negative where more pulses with several photons may have been sent than were detected.
    single: f64,
    phase_error: f64,
}

impl Secret {
    /// In the limit of long blocks where no probability of failure is given.
    fn of(source: &SinglePhotons, counts: &Counts, epsilon: Option<f64>) -> Self {
        // Exact where the mean is small, and an upper bound of the two-photon probability in any case.
        let probability = source.g2 * source.mean_photons * source.mean_photons / 2.0;
        let [a, b] = source.key_basis_probability;
        let sent = |share: f64| {
            let mean = counts.pulses * share * probability;
            epsilon.map_or(mean, |epsilon| at_most(mean, epsilon))
        };
        let multi_photon = sent(a * b);
        let single = counts.key - multi_photon;
        let check_single = counts.check.bits - sent((1.0 - a) * (1.0 - b));
        let phase_error = if single > 0.0 && check_single > 0.0 {
            phase_error(counts.check.errors, check_single, single, epsilon)
        } else {
            0.5
        };
        Self { multi_photon, single, phase_error }
    }

    /// How many of them nobody else knows; negative where there are none by as much as are missing.
    fn bits(&self) -> f64 {
        if self.single > 0.0 { self.single * (1.0 - entropy_up_to(self.phase_error)) } else { self.single }
    }
}

/// How many events there are at most if `mean` are expected: Chernoff, as in Yin et al., Sci. Rep. 10, 14312 (2020).
fn at_most(mean: f64, epsilon: f64) -> f64 {
    let b = -libm::log(epsilon);
    mean + b / 2.0 + libm::sqrt(2.0 * b * mean + b * b / 4.0)
}

/// Names the source's purity and the loss that it is too low for.
fn source_reason(source: &SinglePhotons, counts: &Counts) -> AbortReason {
    let [a, b] = source.key_basis_probability;
    let click_probability = counts.key / (counts.pulses * a * b);
    let loss_db = -10.0 * libm::log10(click_probability / source.mean_photons);
    AbortReason::MultiPhotonSource { g2: source.g2, loss_db }
}
