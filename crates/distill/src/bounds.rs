//! How long a key may be: the asymptotic figure that papers quote and the finite-key bound.
//!
//! Reconciliation by Cascade talks in both directions, so the error pattern of a block counts as public. For qubit
//! protocols whose phase errors are bounded from the check basis that costs nothing beyond the parities of the
//! reference string (Tupkary and Lütkenhaus, arXiv:2307.00576, section V): the phase-error entropy is bounded without
//! conditioning on the bit errors.

use serde::{Deserialize, Serialize};

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

/// Statistical deviation of the phase error rate of `key_bits` from the error rate seen in `check_bits`:
/// Tomamichel et al., Nat. Commun. 3, 634 (2012), equation (2), with the logarithm under the root.
pub fn sampling_deviation(key_bits: f64, check_bits: f64, epsilon_secrecy: f64) -> f64 {
    let (n, k) = (key_bits, check_bits);
    libm::sqrt((n + k) / (n * k) * ((k + 1.0) / k) * libm::log(4.0 / epsilon_secrecy))
}

/// What a finished block measured and gave away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Reconciled and verified bits of the key basis.
    pub key_bits: u64,
    /// Parities that the reference side disclosed about them.
    pub leaked_bits: u64,
    /// Bits of verification hashes of them.
    pub verification_bits: u64,
    /// Disclosed bits of the check basis and how many of them differ.
    pub check_bits: u64,
    pub check_errors: u64,
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

/// The longest key that `security` allows to be extracted from a block.
pub fn key_length(security: &Security, measured: &Measured) -> KeyLength {
    let m = measured;
    let (n, k) = (m.key_bits as f64, m.check_bits as f64);
    let check_qber = if m.check_bits == 0 { 0.0 } else { m.check_errors as f64 / k };
    let disclosed = m.leaked_bits as f64 + m.verification_bits as f64;
    let asymptotic = whole_bits(n * (1.0 - entropy_up_to(check_qber)) - disclosed);
    let (finite, phase_error_finite) = finite_length(security, m);
    let mut length = KeyLength {
        asymptotic,
        finite,
        chosen: 0,
        check_qber,
        phase_error_finite,
        epsilon: security.epsilon_secrecy + security.epsilon_correctness,
        abort: abort_before_length(security, m),
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

fn abort_before_length(security: &Security, m: &Measured) -> Option<AbortReason> {
    if m.key_bits == 0 {
        Some(AbortReason::NoKeyBits)
    } else if m.check_bits == 0 {
        Some(AbortReason::NoCheckBits)
    } else if m.check_errors > m.check_bits {
        Some(AbortReason::Inconsistent)
    } else if m.check_errors as f64 > security.tolerated_qber * m.check_bits as f64 {
        Some(AbortReason::CheckErrors)
    } else {
        None
    }
}

/// Tomamichel et al. 2012, equation (1): `n (1 - h(Q_tol + mu)) - leak - log2(2 / (eps_sec^2 eps_cor))`, in which the
/// verification hash stands for `log2(2 / eps_cor)` and is counted as it was sent if it was longer.
fn finite_length(security: &Security, m: &Measured) -> (u64, f64) {
    if m.key_bits == 0 || m.check_bits == 0 {
        return (0, 0.5);
    }
    let n = m.key_bits as f64;
    let phase_error = security.tolerated_qber + sampling_deviation(n, m.check_bits as f64, security.epsilon_secrecy);
    let correctness = libm::log2(2.0 / security.epsilon_correctness);
    let verification = (m.verification_bits as f64).max(correctness);
    let secrecy = -2.0 * libm::log2(security.epsilon_secrecy);
    let length = n * (1.0 - entropy_up_to(phase_error)) - m.leaked_bits as f64 - verification - secrecy;
    (whole_bits(length), phase_error.min(0.5))
}

fn whole_bits(length: f64) -> u64 {
    if length.is_finite() && length > 0.0 { libm::floor(length) as u64 } else { 0 }
}

/// Epsilon of all key made so far: secrecy and correctness of blocks add up.
pub fn total_epsilon(security: &Security, blocks: u64) -> f64 {
    blocks as f64 * (security.epsilon_secrecy + security.epsilon_correctness)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn security(bound: Bound, tolerated_qber: f64) -> Security {
        Security { bound, epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15, tolerated_qber }
    }

    #[test]
    fn thresholds_follow_the_efficiency() {
        let table = [(1.0, 11.00), (1.05, 10.60), (1.1, 10.23), (1.16, 9.81), (1.2, 9.55), (1.22, 9.42)];
        for (efficiency, percent) in table {
            let own = 100.0 * threshold_qber(efficiency);
            assert!((own - percent).abs() < 0.0051, "f {efficiency}: {own} %");
        }
    }

    #[test]
    fn secret_fraction_of_the_nice_point() {
        // 15.7 kbit/s of sifted bits for a thousand seconds at QBERs 4.24 % and 4.7 %.
        for (efficiency, fraction) in [(1.1, 0.448), (1.06, 0.458)] {
            let n = 15_700_000u64;
            let measured = Measured {
                key_bits: n,
                leaked_bits: (efficiency * n as f64 * binary_entropy(0.0424)) as u64,
                verification_bits: 64,
                check_bits: n,
                check_errors: (0.047 * n as f64) as u64,
            };
            let length = key_length(&security(Bound::Asymptotic, 0.06), &measured);
            let own = length.chosen as f64 / n as f64;
            assert!((own - fraction).abs() < 0.002, "f {efficiency}: {own}");
        }
    }

    /// Expected key per sifted-plus-lost signal as Table II of Tomamichel et al. 2012 defines it: optimised over the
    /// number of check bits and the tolerated error rate, times the chance that an honest block does not abort.
    fn table_two_rate(n: f64, qber: f64) -> f64 {
        let mut best = 0.0f64;
        for i in 1..=160 {
            let k = libm::floor(n * 0.02 * libm::pow(1.05, f64::from(i)));
            let sent = (libm::sqrt(n) + libm::sqrt(k)) * (libm::sqrt(n) + libm::sqrt(k));
            for j in 1..=200 {
                let tolerated = qber * (1.0 + 0.02 * f64::from(j));
                let divergence = tolerated * libm::log(tolerated / qber)
                    + (1.0 - tolerated) * libm::log((1.0 - tolerated) / (1.0 - qber));
                let kept = 1.0 - libm::exp(-k * divergence);
                let rate = kept * self_consistent_length(n, k, tolerated) / sent;
                best = best.max(rate);
            }
        }
        best
    }

    /// Length with `epsilon / length` fixed at 1e-14.
    fn self_consistent_length(n: f64, k: f64, tolerated_qber: f64) -> f64 {
        let measured = Measured {
            key_bits: n as u64,
            leaked_bits: libm::ceil(1.1 * n * binary_entropy(tolerated_qber)) as u64,
            verification_bits: 0,
            check_bits: k as u64,
            check_errors: 0,
        };
        let mut length = 0.3 * n;
        for _ in 0..3 {
            let epsilon = 1e-14 * length.max(1.0);
            let security = Security {
                bound: Bound::Finite,
                epsilon_secrecy: 0.9 * epsilon,
                epsilon_correctness: 0.1 * epsilon,
                tolerated_qber,
            };
            length = key_length(&security, &measured).finite as f64;
        }
        length
    }

    #[test]
    fn finite_bound_reproduces_table_two() {
        // Block, QBER, own figure with the same robustness bound, published figure and its tolerance.
        let table = [
            (1e4, 0.010, 13.6, 11.7, 0.20),
            (1e4, 0.025, 8.1, 6.8, 0.20),
            (1e5, 0.010, 31.5, 30.4, 0.05),
            (1e5, 0.025, 21.9, 21.5, 0.05),
            (1e6, 0.010, 48.3, 47.8, 0.02),
            (1e6, 0.025, 35.6, 35.7, 0.02),
        ];
        for (n, qber, reference, published, tolerance) in table {
            let own = 100.0 * table_two_rate(n, qber);
            println!("n {n:e} Q {qber}: {own:.2} %, reference {reference} %, published {published} %");
            assert!((own / reference - 1.0).abs() < 0.01, "n {n:e} Q {qber}: {own} against {reference}");
            assert!((own / published - 1.0).abs() < tolerance, "n {n:e} Q {qber}: {own} against {published}");
        }
    }

    #[test]
    fn block_above_the_tolerated_error_rate_aborts() {
        let measured = Measured {
            key_bits: 100_000,
            leaked_bits: 20_000,
            verification_bits: 64,
            check_bits: 10_000,
            check_errors: 600,
        };
        let at_limit = key_length(&security(Bound::Asymptotic, 0.06), &measured);
        assert_eq!(at_limit.abort, None);
        assert!(at_limit.chosen > 0 && at_limit.chosen == at_limit.asymptotic);
        let above = Measured { check_errors: 601, ..measured };
        let above = key_length(&security(Bound::Asymptotic, 0.06), &above);
        assert_eq!((above.abort, above.chosen), (Some(AbortReason::CheckErrors), 0));
        assert!(above.asymptotic > 0, "both figures are shown even so");
    }

    #[test]
    fn degenerate_blocks_give_no_key_and_say_why() {
        let nothing = Measured { key_bits: 0, leaked_bits: 0, verification_bits: 0, check_bits: 0, check_errors: 0 };
        let cases = [
            (nothing, AbortReason::NoKeyBits),
            (Measured { key_bits: 10, ..nothing }, AbortReason::NoCheckBits),
            (Measured { key_bits: 10, check_bits: 3, check_errors: 4, ..nothing }, AbortReason::Inconsistent),
            (Measured { key_bits: 10, check_bits: 3, leaked_bits: u64::MAX, ..nothing }, AbortReason::NothingLeft),
        ];
        for bound in [Bound::Asymptotic, Bound::Finite] {
            for (measured, reason) in cases {
                let length = key_length(&security(bound, 0.06), &measured);
                assert_eq!((length.abort, length.chosen), (Some(reason), 0));
            }
        }
    }

    #[test]
    fn finite_is_below_asymptotic_and_approaches_it() {
        let mut last = 0.0;
        for exponent in 4..10 {
            let n = 10u64.pow(exponent);
            let measured = Measured {
                key_bits: n,
                leaked_bits: n / 4,
                verification_bits: 64,
                check_bits: n,
                check_errors: n * 4 / 100,
            };
            let length = key_length(&security(Bound::Finite, 0.04), &measured);
            assert!(length.finite <= length.asymptotic);
            let ratio = length.finite as f64 / length.asymptotic as f64;
            assert!(ratio >= last);
            last = ratio;
        }
        assert!(last > 0.99);
    }

    #[test]
    fn epsilons_add_up() {
        let security = security(Bound::Finite, 0.06);
        assert!((total_epsilon(&security, 1000) - 1000.0 * (1e-10 + 1e-15)).abs() < 1e-20);
    }
}
