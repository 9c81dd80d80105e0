//! Bounds from errors in a check basis.

use super::{AbortReason, Bounds, Reconciled, entropy_up_to, whole_bits};
use crate::config::Security;

/// Statistical deviation of the phase error rate of `key_bits` from the error rate seen in `check_bits`:
/// Tomamichel et al., Nat. Commun. 3, 634 (2012), equation (2), with the logarithm under the root.
pub fn sampling_deviation(key_bits: f64, check_bits: f64, epsilon_secrecy: f64) -> f64 {
    let (n, k) = (key_bits, check_bits);
    libm::sqrt((n + k) / (n * k) * ((k + 1.0) / k) * libm::log(4.0 / epsilon_secrecy))
}

pub fn bounds(security: &Security, check_bits: u64, check_errors: u64, reconciled: &Reconciled) -> Bounds {
    let qber = if check_bits == 0 { 0.0 } else { check_errors as f64 / check_bits as f64 };
    let disclosed = reconciled.leaked_bits as f64 + reconciled.verification_bits as f64;
    let asymptotic = whole_bits(reconciled.key_bits as f64 * (1.0 - entropy_up_to(qber)) - disclosed);
    let (finite, phase_error_finite) = finite_length(security, check_bits, reconciled);
    Bounds { asymptotic, finite, phase_error_finite, abort: abort(security, check_bits, check_errors, reconciled) }
}

fn abort(security: &Security, check_bits: u64, check_errors: u64, reconciled: &Reconciled) -> Option<AbortReason> {
    if reconciled.key_bits == 0 {
        Some(AbortReason::NoKeyBits)
    } else if check_bits == 0 {
        Some(AbortReason::NoCheckBits)
    } else if check_errors > check_bits {
        Some(AbortReason::Inconsistent)
    } else if check_errors as f64 > security.tolerated_qber * check_bits as f64 {
        Some(AbortReason::CheckErrors)
    } else {
        None
    }
}

/// Tomamichel et al. 2012, equation (1): `n (1 - h(Q_tol + mu)) - leak - log2(2 / (eps_sec^2 eps_cor))`, in which the
/// verification hash stands for `log2(2 / eps_cor)` and is counted as it was sent if it was longer.
fn finite_length(security: &Security, check_bits: u64, reconciled: &Reconciled) -> (u64, f64) {
    if reconciled.key_bits == 0 || check_bits == 0 {
        return (0, 0.5);
    }
    let n = reconciled.key_bits as f64;
    let phase_error = security.tolerated_qber + sampling_deviation(n, check_bits as f64, security.epsilon_secrecy);
    let correctness = libm::log2(2.0 / security.epsilon_correctness);
    let verification = (reconciled.verification_bits as f64).max(correctness);
    let secrecy = -2.0 * libm::log2(security.epsilon_secrecy);
    let length = n * (1.0 - entropy_up_to(phase_error)) - reconciled.leaked_bits as f64 - verification - secrecy;
    (whole_bits(length), phase_error.min(0.5))
}
