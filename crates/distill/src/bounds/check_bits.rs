//! Bounds from errors in a check basis, where every bit of the key comes of one pair.

use super::reason::largest;
use super::{AbortReason, Bounds, Length, Reconciled, Tally, entropy_up_to};
use crate::config::Security;

/// Statistical deviation of the phase error rate of `key_bits` from the error rate seen in `check_bits`:
/// Tomamichel et al., Nat. Commun. 3, 634 (2012), equation (2), with the logarithm under the root.
pub fn sampling_deviation(key_bits: f64, check_bits: f64, epsilon_secrecy: f64) -> f64 {
    let (n, k) = (key_bits, check_bits);
    libm::sqrt((n + k) / (n * k) * ((k + 1.0) / k) * libm::log(4.0 / epsilon_secrecy))
}

pub fn bounds(security: &Security, check: Tally<f64>, reconciled: &Reconciled<f64>) -> Bounds {
    let (n, entropy) = (reconciled.key_bits, entropy_up_to(check.rate()));
    let disclosed = reconciled.leaked_bits + reconciled.verification_bits;
    let asymptotic = Length {
        bits: n * (1.0 - entropy) - disclosed,
        most: largest([(disclosed, AbortReason::NothingLeft), (n * entropy, AbortReason::PhaseErrors)]),
    };
    let (finite, phase_error_finite) = finite_length(security, check.bits, reconciled);
    Bounds { asymptotic, finite, phase_error_finite, abort: None }
}

/// Tomamichel et al. 2012, equation (1): `n (1 - h(Q_tol + mu)) - leak - log2(2 / (eps_sec^2 eps_cor))`, in which the
/// verification hash stands for `log2(2 / eps_cor)` and is counted as it was sent if it was longer.
fn finite_length(security: &Security, check_bits: f64, reconciled: &Reconciled<f64>) -> (Length, f64) {
    let (n, leaked) = (reconciled.key_bits, reconciled.leaked_bits);
    let phase_error = security.tolerated_qber + sampling_deviation(n, check_bits, security.epsilon_secrecy);
    let verification = reconciled.verification_bits.max(super::correctness_bits(security));
    let secrecy = -2.0 * libm::log2(security.epsilon_secrecy);
    let length = n * (1.0 - entropy_up_to(phase_error)) - leaked - verification - secrecy;
    let tolerated = n * entropy_up_to(security.tolerated_qber);
    let most = largest([
        (leaked, AbortReason::NothingLeft),
        (tolerated, AbortReason::PhaseErrors),
        (n * entropy_up_to(phase_error) - tolerated + verification + secrecy, AbortReason::ShortBlock),
    ]);
    (Length { bits: length, most }, phase_error.min(0.5))
}
