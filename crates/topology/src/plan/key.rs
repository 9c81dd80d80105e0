//! From the evidence that the formulae expect to key, by the same bounds as a run's.

use distill::bounds::{Evidence, Length, Reconciled, binary_entropy, bounds};
use distill::config::{Bound, PostProcessing, Security};
use photonics::expect::Prediction;

use super::estimate::RECONCILIATION_EFFICIENCY;

/// What turns sifted bits into key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInputs {
    /// Reconciliation efficiency `f`: disclosed parities over the Shannon limit.
    pub reconciliation_efficiency: f64,
    /// Simulated time of one block.
    pub block_s: f64,
    pub security: Security,
}

/// Key per second by both bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KeyRate {
    pub asymptotic_bps: f64,
    pub finite_bps: f64,
}

impl KeyRate {
    /// The rate by the bound that a topology chooses.
    pub fn by(&self, bound: Bound) -> f64 {
        if bound == Bound::Asymptotic { self.asymptotic_bps } else { self.finite_bps }
    }
}

impl KeyInputs {
    pub fn of(protocol: &PostProcessing) -> Self {
        Self {
            reconciliation_efficiency: RECONCILIATION_EFFICIENCY,
            block_s: protocol.framing.round_s(),
            security: protocol.security.clone(),
        }
    }

    /// Key rate of a link whose blocks are as expected, verification left out but for what correctness takes.
    pub fn rate(&self, expected: &Prediction) -> KeyRate {
        let bits = |rate_hz: f64| rate_hz * self.block_s;
        let (key_bits, check_bits) = (bits(expected.z.sifted_hz), bits(expected.x.sifted_hz));
        let evidence = Evidence::CheckBits { bits: check_bits, errors: check_bits * expected.x.qber };
        let reconciled = Reconciled {
            key_bits,
            key_errors: key_bits * expected.z.qber,
            leaked_bits: self.reconciliation_efficiency * key_bits * binary_entropy(expected.z.qber),
            verification_bits: 0.0,
        };
        let bounds = bounds(&self.security, &evidence, &reconciled);
        let rate_bps = |length: Length| match bounds.abort {
            Some(_) => 0.0,
            None => length.bits.max(0.0) / self.block_s,
        };
        KeyRate { asymptotic_bps: rate_bps(bounds.asymptotic), finite_bps: rate_bps(bounds.finite) }
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
