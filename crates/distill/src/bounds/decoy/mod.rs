//! Bounds for laser pulses of random phase and randomly chosen intensity: decoy states.
//!
//! How many bits come of pulses with one photon follows from how often pulses of each intensity were detected, because
//! nobody can tell of a photon which intensity it is of. Every proof here is of the same form: estimates of what vacuum
//! and single photons contributed ([`Contributions`]), the phase error of the latter from the check basis, and a price
//! of secrecy. All intensities make key.
//!
//! The bound of long keys is Ma et al., PRA 72, 012326 (2005), equations (21), (25), (34) to (37): the same estimates
//! without uncertainty, and nothing for the vacuum. (So a finite bound, which counts bits of the vacuum as secret, may
//! be above it where a block is long and the noise high.)

mod one;
#[cfg(test)]
mod tests;
mod two;

use super::evidence::{Detections, sum};
use super::reason::{Basis, Class, largest};
use super::sampling::phase_error;
use super::{AbortReason, Bounds, Length, Reconciled, entropy_up_to};
use crate::config::{Bound, Emission, INTENSITIES, Intensity, Security};

type Rows = [Detections<f64>; INTENSITIES];

/// A finite proof: how it divides its epsilon, and what secrecy costs.
struct Proof {
    /// Into how many equal parts the secrecy parameter is divided.
    parts: f64,
    price: fn(f64) -> f64,
}

/// Lim et al., PRA 89, 022307 (2014), equation (1): `6 log2(21 / eps)`.
const LIM_2014: Proof = Proof { parts: 21.0, price: |epsilon| 6.0 * libm::log2(21.0 / epsilon) };
/// Rusca et al., APL 112, 171104 (2018): `6 log2(19 / eps)`.
const RUSCA_2018: Proof = Proof { parts: 19.0, price: |epsilon| 6.0 * libm::log2(19.0 / epsilon) };
/// Wiesemann et al., arXiv:2405.16578: `4 log2(15 / (2^(1/4) eps))`.
const WIESEMANN_2024: Proof = Proof { parts: 15.0, price: |epsilon| 4.0 * libm::log2(15.0 / epsilon) - 1.0 };

/// What the light contributed to a block.
struct Contributions {
    /// Bits of the key from pulses without a photon: at least.
    vacuum: f64,
    /// Bits of the key from pulses with one: at least. Negative where decoys show that there are none.
    single: f64,
    /// The same of the check basis, and how many of those are wrong: at most.
    check_single: f64,
    check_single_errors: f64,
    /// Bits that the bound of the vacuum took from `single`.
    vacuum_cost: f64,
}

/// Intensities, and how far a count may be from what is expected of it.
struct Statistics<'a> {
    intensities: &'a [Intensity],
    /// Probability that one estimate fails; none in the limit of long blocks.
    failure: Option<f64>,
}

impl Statistics<'_> {
    /// Hoeffding: how far a part of `total` counts may be from its expectation.
    fn deviation(&self, total: f64) -> f64 {
        self.failure.map_or(0.0, |failure| libm::sqrt(total / 2.0 * -libm::log(failure)))
    }

    /// `e^k / p_k n_k` of one intensity, with a count off by `deviation`.
    fn scaled(&self, index: usize, count: f64, deviation: f64) -> f64 {
        let Intensity { mean_photons, probability } = self.intensities[index];
        libm::exp(mean_photons) / probability * (count + deviation)
    }

    /// Probability that a pulse of any intensity has no photon.
    fn tau_0(&self) -> f64 {
        self.intensities.iter().map(|k| k.probability * libm::exp(-k.mean_photons)).sum()
    }

    /// Probability that it has one.
    fn tau_1(&self) -> f64 {
        self.intensities.iter().map(|k| k.probability * libm::exp(-k.mean_photons) * k.mean_photons).sum()
    }

    fn mean(&self, index: usize) -> f64 {
        self.intensities[index].mean_photons
    }

    fn contributions(&self, rows: &Rows, reconciled: &Reconciled<f64>) -> Contributions {
        if self.intensities.len() == INTENSITIES {
            two::contributions(self, rows)
        } else {
            one::contributions(self, rows, reconciled)
        }
    }
}

pub fn bounds(security: &Security, rows: &Rows, reconciled: &Reconciled<f64>) -> Bounds {
    let intensities = security.emission.intensities();
    // Key of an intensity that the proof knows nothing of would pass for key without a photon in it.
    if rows[intensities.len()..].iter().any(|row| row.key + row.check.bits > 0.0) {
        return Bounds::none(AbortReason::OtherLight);
    }
    if let Some(reason) = undetected(&rows[..intensities.len()]) {
        return Bounds::none(reason);
    }
    let proof = proof(security);
    let failure = security.epsilon_secrecy / proof.parts;
    let key = sum(rows, |row| row.key);
    let [limit, finite] = [None, Some(failure)].map(|failure| {
        let statistics = Statistics { intensities, failure };
        Secret::of(&statistics.contributions(rows, reconciled), key, failure)
    });
    // A bit that was dropped takes at most one bit of entropy with it.
    let dropped = key - reconciled.key_bits;
    let terms = [
        (key - limit.single.max(0.0) - limit.vacuum_cost, AbortReason::MultiPhotonPulses),
        (limit.vacuum_cost, AbortReason::VacuumCounts),
        (limit.single.max(0.0) * entropy_up_to(limit.phase_error), AbortReason::PhaseErrors),
    ];
    let [multi_photon, vacuum, phase_errors] = terms;

    let disclosed = dropped + reconciled.leaked_bits + reconciled.verification_bits;
    let asymptotic = Length {
        bits: limit.of_single() - disclosed,
        most: largest([multi_photon, vacuum, phase_errors, (disclosed, AbortReason::NothingLeft)]),
    };
    let verification = reconciled.verification_bits.max(super::correctness_bits(security));
    let disclosed = dropped + reconciled.leaked_bits + verification;
    let price = (proof.price)(security.epsilon_secrecy);
    let uncertain = (limit.of_single() - finite.of_single() + price, AbortReason::ShortBlock);
    let finite_length = Length {
        bits: finite.vacuum + finite.of_single() - disclosed - price,
        most: largest([multi_photon, vacuum, phase_errors, (disclosed, AbortReason::NothingLeft), uncertain]),
    };
    Bounds { asymptotic, finite: finite_length, phase_error_finite: finite.phase_error, abort: None }
}

fn proof(security: &Security) -> Proof {
    match (security.bound, &security.emission) {
        (Bound::Rusca2018, _) => RUSCA_2018,
        (_, Emission::OneDecoy(_)) => WIESEMANN_2024,
        _ => LIM_2014,
    }
}

/// Signal and decoy must have been seen in both bases. Of the third intensity, which is all but dark, no click at all
/// is what a good receiver shows; what it may be all the same is in the bounds.
fn undetected(rows: &[Detections<f64>]) -> Option<AbortReason> {
    for (row, class) in rows.iter().zip([Class::Signal, Class::Decoy]) {
        for (bits, basis) in [(row.key, Basis::Key), (row.check.bits, Basis::Check)] {
            if bits <= 0.0 {
                return Some(AbortReason::NothingDetected { class, basis });
            }
        }
    }
    None
}

/// What of a key nobody else knows.
struct Secret {
    vacuum: f64,
    single: f64,
    vacuum_cost: f64,
    phase_error: f64,
    /// Single photons that the check basis lacks, if it is shown to have none.
    missing: f64,
}

impl Secret {
    /// Of `key` bits. No estimate may exceed them together.
    fn of(contributions: &Contributions, key: f64, failure: Option<f64>) -> Self {
        let single = contributions.single.min(key);
        let vacuum = contributions.vacuum.clamp(0.0, key - single.max(0.0));
        let check = contributions.check_single;
        let phase_error = if single > 0.0 && check > 0.0 {
            phase_error(contributions.check_single_errors, check, single, failure)
        } else {
            0.5
        };
        Self { vacuum, single, vacuum_cost: contributions.vacuum_cost, phase_error, missing: check.min(0.0) }
    }

    /// Secret bits of single photons; negative where there are none, by as much as are missing.
    fn of_single(&self) -> f64 {
        let secret =
            if self.single > 0.0 { self.single * (1.0 - entropy_up_to(self.phase_error)) } else { self.single };
        secret + self.missing
    }
}
