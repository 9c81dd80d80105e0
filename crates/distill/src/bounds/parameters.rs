//! Whether the figures of a topology are ones that a bound holds for.

use crate::config::{Emission, Intensity, Security, SinglePhotons};

/// Rounding of probabilities that were written in decimal.
const SUM_TOLERANCE: f64 = 1e-9;

pub fn are_sound(security: &Security) -> bool {
    let Security { bound: _, epsilon_secrecy, epsilon_correctness, tolerated_qber, emission } = security;
    [*epsilon_secrecy, *epsilon_correctness].into_iter().all(is_chance)
        && (0.0..=0.5).contains(tolerated_qber)
        && match emission {
            Emission::Pairs => true,
            // A decoy without light would be a vacuum, which the proofs for one decoy do not divide by.
            Emission::OneDecoy(intensities) => {
                emission.is_ordered() && are_all(intensities) && intensities[1].mean_photons > 0.0
            }
            // Lim et al. 2014 ask for it: what is left of the signal must be more than what the decoys take away.
            Emission::TwoDecoys(intensities) => {
                let [u, v, w] = intensities.each_ref().map(|k| k.mean_photons);
                emission.is_ordered() && are_all(intensities) && u > v + w
            }
            Emission::SinglePhotons(source) => is_source(source),
            Emission::TwinField(users) => super::twin_field::are_sound(users),
        }
}

/// Whether every pulse is of one of these intensities.
fn are_all(intensities: &[Intensity]) -> bool {
    let sum: f64 = intensities.iter().map(|k| k.probability).sum();
    intensities.iter().all(|k| is_chance(k.probability)) && libm::fabs(sum - 1.0) < SUM_TOLERANCE
}

fn is_source(source: &SinglePhotons) -> bool {
    let SinglePhotons { mean_photons, g2, key_basis_probability } = source;
    is_chance(*mean_photons) && (0.0..=1.0).contains(g2) && key_basis_probability.iter().all(|p| is_chance(*p))
}

/// Neither never nor always.
fn is_chance(probability: f64) -> bool {
    probability > 0.0 && probability < 1.0
}
