//! What a bound is given of a block.

use serde::{Deserialize, Serialize};

use super::Heralds;
use crate::config::INTENSITIES;

/// What the two ends of a round learned in public about an eavesdropper; equal at both.
///
/// Measured counts are whole numbers; expected ones are real, and go to the same bounds ([`super::bounds`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence<N = u64> {
    /// Bits of the check basis that were disclosed and how many of them differ, where every bit of the key comes of one
    /// pair.
    CheckBits { bits: N, errors: N },
    /// Detections of laser pulses, by intensity in the order of [`crate::config::Emission`]. Those that a protocol
    /// lacks stay 0.
    Decoy([Detections<N>; INTENSITIES]),
    /// Detections of single photons. The key basis and the check basis are what both ends chose.
    SinglePhoton {
        /// Pulses that were sent while the block was made, in any basis.
        pulses: N,
        key: N,
        check: Tally<N>,
    },
    /// Heralds of a station between two transmitters.
    TwinField(Heralds<N>),
}

/// Bits, and how many of them are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally<N = u64> {
    pub bits: N,
    pub errors: N,
}

/// What was detected of the pulses of one intensity, where both ends chose the same basis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detections<N = u64> {
    /// In the key basis: all that became bits of the sifted key.
    pub key: N,
    /// How many of those that were corrected and verified were wrong. Only a protocol with one decoy needs it, and its
    /// ends say it once reconciliation is over ([`crate::pipeline`]); without it every error of the key counts as one
    /// of the vacuum.
    pub key_errors: Option<N>,
    pub check: Tally<N>,
}

/// What reconciliation left of a block, and what it gave away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled<N = u64> {
    /// Reconciled and verified bits of the key basis.
    pub key_bits: N,
    /// How many of them were wrong.
    pub key_errors: N,
    /// Parities that the reference side disclosed about them.
    pub leaked_bits: N,
    /// Bits of verification hashes of them.
    pub verification_bits: N,
}

impl Evidence {
    /// With the errors of the key of signal and decoy, which are known after the rest.
    pub fn with_key_errors(mut self, errors: [u64; 2]) -> Self {
        if let Self::Decoy(rows) = &mut self {
            rows.iter_mut().zip(errors).for_each(|(row, errors)| row.key_errors = Some(errors));
        }
        self
    }

    /// Of both together, where they are of the same kind; errors of the key are known of neither yet.
    pub fn plus(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::CheckBits { bits, errors }, Self::CheckBits { bits: more_bits, errors: more_errors }) => {
                let (bits, errors) = (bits.checked_add(more_bits)?, errors.checked_add(more_errors)?);
                Some(Self::CheckBits { bits, errors })
            }
            (Self::Decoy(mut rows), Self::Decoy(more)) => {
                for (row, more) in rows.iter_mut().zip(more) {
                    row.key = row.key.checked_add(more.key)?;
                    row.check = row.check.plus(more.check)?;
                }
                Some(Self::Decoy(rows))
            }
            (
                Self::SinglePhoton { pulses, key, check },
                Self::SinglePhoton { pulses: sent, key: bits, check: more },
            ) => {
                let (pulses, key, check) = (pulses.checked_add(sent)?, key.checked_add(bits)?, check.plus(more)?);
                Some(Self::SinglePhoton { pulses, key, check })
            }
            (Self::TwinField(heralds), Self::TwinField(more)) => heralds.plus(&more).map(Self::TwinField),
            _ => None,
        }
    }

    pub(super) fn real(&self) -> Evidence<f64> {
        match self {
            Self::CheckBits { bits, errors } => Evidence::CheckBits { bits: *bits as f64, errors: *errors as f64 },
            Self::Decoy(rows) => Evidence::Decoy(rows.each_ref().map(Detections::real)),
            Self::SinglePhoton { pulses, key, check } => {
                Evidence::SinglePhoton { pulses: *pulses as f64, key: *key as f64, check: check.real() }
            }
            Self::TwinField(heralds) => Evidence::TwinField(heralds.real()),
        }
    }

    /// Error rate of what was compared, of signal pulses where there are decoys; 0 where nothing was.
    pub fn qber(&self) -> f64 {
        self.real().check().rate()
    }
}

impl Evidence<f64> {
    /// What was compared: of signal pulses alone where there are decoys, because pulses that carry next to no light are
    /// wrong half of the time.
    pub(super) fn check(&self) -> Tally<f64> {
        match self {
            Self::CheckBits { bits, errors } => Tally { bits: *bits, errors: *errors },
            Self::Decoy([signal, ..]) => signal.check,
            Self::SinglePhoton { check, .. } => *check,
            Self::TwinField(heralds) => heralds.check(),
        }
    }

    /// All bits that were compared.
    pub(super) fn check_bits(&self) -> f64 {
        match self {
            Self::Decoy(rows) => sum(rows, |row| row.check.bits),
            _ => self.check().bits,
        }
    }

    /// Whether all counts are numbers and none is more than what it is part of.
    pub(super) fn is_consistent(&self, reconciled: &Reconciled<f64>) -> bool {
        let Reconciled { key_bits, key_errors, leaked_bits, verification_bits } = *reconciled;
        if ![key_bits, key_errors, leaked_bits, verification_bits].into_iter().all(is_count) {
            return false;
        }
        match self {
            Self::CheckBits { bits, errors } => Tally { bits: *bits, errors: *errors }.is_consistent(),
            Self::Decoy(rows) => {
                let fits = |row: &Detections<f64>| {
                    let errors = Tally { bits: row.key, errors: row.key_errors.unwrap_or(0.0) };
                    errors.is_consistent() && row.check.is_consistent()
                };
                rows.iter().all(fits) && key_bits <= sum(rows, |row| row.key) && key_errors <= key_bits
            }
            Self::SinglePhoton { pulses, key, check } => {
                is_count(*pulses) && check.is_consistent() && key + check.bits <= *pulses && key_bits <= *key
            }
            Self::TwinField(heralds) => {
                heralds.is_consistent() && key_bits <= heralds.odd_pairs && key_errors <= key_bits
            }
        }
    }
}

impl Tally {
    fn plus(self, other: Self) -> Option<Self> {
        Some(Self { bits: self.bits.checked_add(other.bits)?, errors: self.errors.checked_add(other.errors)? })
    }

    fn real(&self) -> Tally<f64> {
        Tally { bits: self.bits as f64, errors: self.errors as f64 }
    }
}

impl Tally<f64> {
    pub(super) fn rate(&self) -> f64 {
        if self.bits > 0.0 { self.errors / self.bits } else { 0.0 }
    }

    fn is_consistent(&self) -> bool {
        is_count(self.bits) && is_count(self.errors) && self.errors <= self.bits
    }
}

impl Detections {
    fn real(&self) -> Detections<f64> {
        Detections {
            key: self.key as f64,
            key_errors: self.key_errors.map(|errors| errors as f64),
            check: self.check.real(),
        }
    }
}

impl Reconciled {
    pub(super) fn real(&self) -> Reconciled<f64> {
        Reconciled {
            key_bits: self.key_bits as f64,
            key_errors: self.key_errors as f64,
            leaked_bits: self.leaked_bits as f64,
            verification_bits: self.verification_bits as f64,
        }
    }
}

pub fn sum(rows: &[Detections<f64>], of: impl Fn(&Detections<f64>) -> f64) -> f64 {
    rows.iter().map(of).sum()
}

fn is_count(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}
