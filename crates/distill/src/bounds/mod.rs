//! How long a key may be: the asymptotic figure that papers quote and the finite-key bound.
//!
//! What was learned in public about an eavesdropper is [`Evidence`], of a kind for each family of protocols; the bounds
//! for a kind are in a module of their own, and [`bounds`] alone chooses among them. What a proof takes for granted of
//! the light comes with the configuration ([`Emission`]).
//!
//! Reconciliation by Cascade talks in both directions, so the error pattern of a block counts as public. For qubit
//! protocols whose phase errors are bounded from the check basis that costs nothing beyond the parities of the
//! reference string (Tupkary and Lütkenhaus, arXiv:2307.00576, section V): the phase-error entropy is bounded without
//! conditioning on the bit errors. So the ends may say which bits were wrong, too, and a protocol with one decoy does.

mod check_bits;
mod decoy;
mod evidence;
mod heralds;
mod parameters;
#[cfg(test)]
mod properties;
mod reason;
mod sampling;
mod single_photon;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod twin_field;

use serde::{Deserialize, Serialize};

pub use check_bits::sampling_deviation;
pub use evidence::{Detections, Evidence, Reconciled, Tally};
pub use heralds::{Heralds, Windows};
pub use reason::{AbortReason, Basis, Class};
pub use twin_field::imbalance;

use crate::config::{Bound, Emission, Security};

/// Binary entropy in bits; zero outside the open unit interval.
pub fn binary_entropy(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return 0.0;
    }
    -(p * libm::log2(p) + (1.0 - p) * libm::log2(1.0 - p))
}

/// Entropy of an error rate that is only known to be at most `rate`.
fn entropy_up_to(rate: f64) -> f64 {
    if rate >= 0.5 { 1.0 } else { binary_entropy(rate) }
}

/// Error rate, equal in both bases, at which `1 - (1 + f) h(E)` vanishes.
pub fn threshold_qber(efficiency: f64) -> f64 {
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if 1.0 - (1.0 + efficiency) * binary_entropy(middle) > 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The length of a block's key by both bounds, and which one counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyLength {
    pub asymptotic: u64,
    pub finite: u64,
    /// What privacy amplification may keep; zero exactly when `abort` says why.
    pub chosen: u64,
    /// Phase error rate that the finite bound assumes, its statistical deviation included.
    pub phase_error_finite: f64,
    /// Secrecy plus correctness; add it up over blocks with [`total_epsilon`].
    pub epsilon: f64,
    pub abort: Option<AbortReason>,
}

/// What the bounds say of a block in real numbers, which may be negative: by how much key is missed. For searches, and
/// for what is expected of a block; a measured one asks [`key_length`].
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    pub asymptotic: Length,
    pub finite: Length,
    pub phase_error_finite: f64,
    /// Why the block gives no key whatever its lengths are.
    pub abort: Option<AbortReason>,
}

/// A length of key, and which term took the most bits of the block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length {
    pub bits: f64,
    pub most: AbortReason,
}

impl Bounds {
    fn none(reason: AbortReason) -> Self {
        let nothing = Length { bits: 0.0, most: reason };
        Self { asymptotic: nothing, finite: nothing, phase_error_finite: 0.5, abort: Some(reason) }
    }

    /// The length that counts.
    pub fn chosen(&self, bound: Bound) -> &Length {
        if bound == Bound::Asymptotic { &self.asymptotic } else { &self.finite }
    }
}

/// The longest key that `security` allows to be extracted from a block.
pub fn key_length(security: &Security, evidence: &Evidence, reconciled: &Reconciled) -> KeyLength {
    let bounds = bounds(security, &evidence.real(), &reconciled.real());
    let chosen = *bounds.chosen(security.bound);
    // A count that is no exact double (above 2^53) may be rounded up; the key is not.
    let (bits, abort) = match (bounds.abort, whole_bits(chosen.bits).min(reconciled.key_bits)) {
        (Some(reason), _) => (0, Some(reason)),
        (None, 0) => (0, Some(chosen.most)),
        (None, bits) => (bits, None),
    };
    KeyLength {
        asymptotic: whole_bits(bounds.asymptotic.bits),
        finite: whole_bits(bounds.finite.bits),
        chosen: bits,
        phase_error_finite: bounds.phase_error_finite,
        epsilon: security.epsilon_secrecy + security.epsilon_correctness,
        abort,
    }
}

/// The same formulae for counts that are expected rather than measured.
pub fn bounds(security: &Security, evidence: &Evidence<f64>, reconciled: &Reconciled<f64>) -> Bounds {
    if let Some(reason) = unusable(security, evidence, reconciled) {
        return Bounds::none(reason);
    }
    let mut bounds = match (evidence, &security.emission) {
        (Evidence::CheckBits { .. }, Emission::Pairs) => check_bits::bounds(security, evidence.check(), reconciled),
        (Evidence::Decoy(rows), Emission::OneDecoy(_) | Emission::TwoDecoys(_)) => {
            decoy::bounds(security, rows, reconciled)
        }
        (Evidence::SinglePhoton { pulses, key, check }, Emission::SinglePhotons(source)) => {
            let counts = single_photon::Counts { pulses: *pulses, key: *key, check: *check };
            single_photon::bounds(security, source, &counts, reconciled)
        }
        (Evidence::TwinField(heralds), Emission::TwinField(users)) => {
            twin_field::bounds(security, users, heralds, reconciled)
        }
        _ => return Bounds::none(AbortReason::OtherLight),
    };
    let check = evidence.check();
    if bounds.abort.is_none() && check.errors > security.tolerated_qber * check.bits {
        bounds.abort = Some(AbortReason::CheckErrors);
    }
    bounds
}

/// What keeps a block from being judged at all.
fn unusable(security: &Security, evidence: &Evidence<f64>, reconciled: &Reconciled<f64>) -> Option<AbortReason> {
    if !parameters::are_sound(security) {
        Some(AbortReason::Parameters)
    } else if !security.bound.fits(&security.emission) {
        Some(AbortReason::OtherBound)
    } else if !evidence.is_consistent(reconciled) {
        Some(AbortReason::Inconsistent)
    } else if reconciled.key_bits == 0.0 {
        Some(AbortReason::NoKeyBits)
    } else if evidence.check_bits() == 0.0 {
        Some(AbortReason::NoCheckBits)
    } else {
        None
    }
}

/// Bits that a verification hash must have for the correctness parameter: `log2(2 / eps_cor)`.
fn correctness_bits(security: &Security) -> f64 {
    libm::log2(2.0 / security.epsilon_correctness)
}

fn whole_bits(length: f64) -> u64 {
    if length.is_finite() && length > 0.0 { libm::floor(length) as u64 } else { 0 }
}

/// Epsilon of all key made so far: secrecy and correctness of blocks add up.
pub fn total_epsilon(security: &Security, blocks: u64) -> f64 {
    blocks as f64 * (security.epsilon_secrecy + security.epsilon_correctness)
}
