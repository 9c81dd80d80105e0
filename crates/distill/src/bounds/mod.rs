//! How long a key may be: the asymptotic figure that papers quote and the finite-key bound.
//!
//! What was learned in public about an eavesdropper is [`Evidence`], of a kind for each family of protocols; the bounds for
//! a kind are in a module of their own, and [`key_length`] alone chooses among them.
//!
//! Reconciliation by Cascade talks in both directions, so the error pattern of a block counts as public. For qubit
//! protocols whose phase errors are bounded from the check basis that costs nothing beyond the parities of the
//! reference string (Tupkary and Lütkenhaus, arXiv:2307.00576, section V): the phase-error entropy is bounded without
//! conditioning on the bit errors.

mod check_bits;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use serde::{Deserialize, Serialize};

pub use check_bits::sampling_deviation;

use crate::config::{Bound, Security};

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

/// What the two ends of a round learned in public about an eavesdropper; equal at both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Bits of the check basis that were disclosed and how many of them differ, where every bit of the key comes of one
    /// pair or photon.
    CheckBits { bits: u64, errors: u64 },
}

impl Evidence {
    /// Error rate of what was compared; 0 where nothing was.
    pub fn qber(&self) -> f64 {
        match self {
            Self::CheckBits { bits, errors } => *errors as f64 / (*bits as f64).max(1.0),
        }
    }
}

/// What reconciliation left of a block, and what it gave away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// Reconciled and verified bits of the key basis.
    pub key_bits: u64,
    /// Parities that the reference side disclosed about them.
    pub leaked_bits: u64,
    /// Bits of verification hashes of them.
    pub verification_bits: u64,
}

/// Why no key may be made of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum AbortReason {
    #[error("no bits of the key basis are left")]
    NoKeyBits,
    #[error("no bits of the check basis were seen")]
    NoCheckBits,
    #[error("more errors than bits were reported for the check basis")]
    Inconsistent,
    #[error("the check basis shows more errors than the topology tolerates")]
    CheckErrors,
    #[error("what was disclosed leaves no secret bit")]
    NothingLeft,
}

/// The length of a block's key by both bounds, and which one counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyLength {
    pub asymptotic: u64,
    pub finite: u64,
    /// What privacy amplification may keep; zero exactly when `abort` says why.
    pub chosen: u64,
    pub check_qber: f64,
    /// Phase error rate that the finite bound assumes: tolerated QBER plus deviation.
    pub phase_error_finite: f64,
    /// Secrecy plus correctness; add it up over blocks with [`total_epsilon`].
    pub epsilon: f64,
    pub abort: Option<AbortReason>,
}

/// What the bounds for one kind of evidence say of a block.
struct Bounds {
    asymptotic: u64,
    finite: u64,
    phase_error_finite: f64,
    abort: Option<AbortReason>,
}

/// The longest key that `security` allows to be extracted from a block.
pub fn key_length(security: &Security, evidence: &Evidence, reconciled: &Reconciled) -> KeyLength {
    let bounds = match *evidence {
        Evidence::CheckBits { bits, errors } => check_bits::bounds(security, bits, errors, reconciled),
    };
    let Bounds { asymptotic, finite, phase_error_finite, abort } = bounds;
    let mut length = KeyLength {
        asymptotic,
        finite,
        chosen: 0,
        check_qber: evidence.qber(),
        phase_error_finite,
        epsilon: security.epsilon_secrecy + security.epsilon_correctness,
        abort,
    };
    if length.abort.is_some() {
        return length;
    }
    length.chosen = match security.bound {
        Bound::Asymptotic => asymptotic,
        Bound::Finite => finite,
    };
    if length.chosen == 0 {
        length.abort = Some(AbortReason::NothingLeft);
    }
    length
}

fn whole_bits(length: f64) -> u64 {
    if length.is_finite() && length > 0.0 { libm::floor(length) as u64 } else { 0 }
}

/// Epsilon of all key made so far: secrecy and correctness of blocks add up.
pub fn total_epsilon(security: &Security, blocks: u64) -> f64 {
    blocks as f64 * (security.epsilon_secrecy + security.epsilon_correctness)
}
