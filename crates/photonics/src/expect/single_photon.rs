//! Pulses of a source of single photons, some of which have two.

use super::response::{Receiver, Response};

/// A source with what lies behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct SinglePhotonInputs {
    pub pulse_rate_hz: f64,
    /// Mean number of photons of a pulse as it leaves the transmitter.
    pub mean_photons: f64,
    /// Second-order correlation at zero delay, within the temporal filter.
    pub g2: f64,
    pub receiver: Receiver,
}

/// Probabilities of no, one and two photons; more are not in the model. `g2 = 2 p2 / mean^2` defines the last.
pub fn photon_numbers(mean_photons: f64, g2: f64) -> [f64; 3] {
    let two = g2 * mean_photons * mean_photons / 2.0;
    let one = mean_photons - 2.0 * two;
    [1.0 - one - two, one, two]
}

/// Click probability and error rates by basis, of the only kind of pulses that there is.
pub fn predict(inputs: &SinglePhotonInputs) -> Response {
    let [_, one, two] = photon_numbers(inputs.mean_photons, inputs.g2);
    inputs.receiver.respond(&[1.0], |_, eta| one * eta + two * (2.0 * eta - eta * eta))
}

#[cfg(test)]
mod tests {
    use super::super::math::transmission;
    use super::super::response::{BasisChoice, CHECK, Counted, KEY};
    use super::*;

    #[test]
    fn photon_numbers_have_the_mean_and_the_correlation_that_they_are_of() {
        let [none, one, two] = photon_numbers(0.2, 0.05);
        assert!((none + one + two - 1.0).abs() < 1e-15 && (one + 2.0 * two - 0.2).abs() < 1e-15);
        assert!((2.0 * two / 0.04 - 0.05).abs() < 1e-15);
    }

    /// Wang et al., Light: Science & Applications (2026): 6.85 % and 9.60 % over 120 km of 0.1956 dB/km. Brightness,
    /// transmission of the receiver, noise and errors of the states were not published and are chosen to give them.
    #[test]
    fn the_120_km_dot_has_its_published_error_rates() {
        let response = predict(&SinglePhotonInputs {
            pulse_rate_hz: 75.947e6,
            mean_photons: 0.01223,
            g2: 0.0085,
            receiver: Receiver {
                transmission: 0.132 * transmission(0.1956 * 120.0),
                basis_choice: BasisChoice::Active,
                key_basis_probability: [0.84; 2],
                intrinsic_error: [0.0566, 0.0849],
                noise_probability: [2e-7; 2],
                afterpulse_probability: 0.0,
                hold_off_pulses: 0.0,
                counted: [Counted::ALL; 2],
            },
        });
        let [z, x] = [KEY, CHECK].map(|basis| 100.0 * response.kinds[0][basis].qber);
        assert!((z - 6.85).abs() < 0.05 && (x - 9.60).abs() < 0.05, "{z} % {x} %");
    }
}
