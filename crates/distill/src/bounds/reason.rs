//! Why no key may be made of a block.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Why no key may be made of a block: what was wrong with it, or which term of the bound took the most of its bits.
///
/// Names are part of stored and printed forms: one that was given stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum AbortReason {
    #[error("no bits of the key basis are left")]
    NoKeyBits,
    #[error("no bits of the check basis were seen")]
    NoCheckBits,
    #[error("the counts of the block contradict one another: something is less than nothing, or more than its whole")]
    Inconsistent,
    #[error("the check basis shows more errors than the topology tolerates")]
    CheckErrors,
    #[error("what was disclosed leaves no secret bit")]
    NothingLeft,
    #[error("errors of the check basis leave no secret bit")]
    PhaseErrors,
    #[error("the block is too short: the statistical uncertainty of its counts leaves no secret bit")]
    ShortBlock,
    #[error("clicks without light: the bound of vacuum counts leaves no secret bit")]
    VacuumCounts,
    #[error("multi-photon pulses: what decoys show of them leaves no secret bit")]
    MultiPhotonPulses,
    #[error("multi-photon pulses: g2 too high for {loss_db:.1} dB (at most {g2:.3} is certain)")]
    MultiPhotonSource {
        g2: f64,
        /// From the transmitter's output to the clicks.
        loss_db: f64,
    },
    #[error("no {class} pulse was detected in the {basis} basis")]
    NothingDetected { class: Class, basis: Basis },
    #[error("the epsilons, error rate, intensities or probabilities of the topology are none that a bound holds for")]
    Parameters,
    #[error("the bound that the topology chooses is not one for the light of this link")]
    OtherBound,
    #[error("what was measured is not evidence of the light that the topology states")]
    OtherLight,
}

/// A basis by what its bits are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    Key,
    Check,
}

/// Pulses by their intensity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Signal,
    Decoy,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Check => "check",
        })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal => "signal",
            Self::Decoy => "decoy",
        })
    }
}

/// The reason of the term that took the most bits.
pub fn largest<const K: usize>(terms: [(f64, AbortReason); K]) -> AbortReason {
    let mut most = (f64::NEG_INFINITY, AbortReason::NothingLeft);
    for term in terms {
        if term.0 > most.0 {
            most = term;
        }
    }
    most.1
}
