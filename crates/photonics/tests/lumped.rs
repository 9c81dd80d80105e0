//! Two ways to what is expected of a prepared link: by lumped figures, and by its instruments as they are configured.

#![allow(clippy::unwrap_used)]

mod common;

use common::prepared::*;
use photonics::config::{BasisChoice, Encoding, GatedAvalanche};
use photonics::expect::math::transmission;
use photonics::expect::prepared::expect;
use photonics::expect::pulses::{self, PulseClass, PulsesInputs};
use photonics::expect::response;

/// Toshiba's T12 over 50 km (Lucamarini et al., Opt. Express 21, 24550, 2013).
#[test]
fn lumped_figures_of_the_t12_give_what_its_instruments_give() {
    let w = 1.0 / 256.0;
    let mut transmitter = transmitter(1e9, &[(0.425, 1.0 - 3.0 * w), (0.044, 2.0 * w), (0.001, w)]);
    (transmitter.encoding, transmitter.z_probability) = (Encoding::Phase, 15.0 / 16.0);
    transmitter.intrinsic_error = [0.01277, 0.00616];
    let detectors =
        GatedAvalanche { efficiency: 0.205, dark_probability: 2.1e-5, afterpulse_probability: 0.0525, ..gated() };
    let mut link = Link::gated(transmitter, BasisChoice::Active, detectors.clone());
    (link.analyser.encoding, link.analyser.z_probability) = (Encoding::Phase, 15.0 / 16.0);
    link.arm.loss_db = 10.0 + 2.84;
    let instruments = expect(&link.transmitter, &link.arm, &link.analyser, &detectors);
    let class = |mean_photons, probability| PulseClass { mean_photons, probability };
    let lumped = pulses::predict(&PulsesInputs {
        pulse_rate_hz: 1e9,
        classes: vec![class(0.425, 1.0 - 3.0 * w), class(0.044, 2.0 * w), class(0.001, w)],
        receiver: response::Receiver {
            transmission: 0.205 * transmission(link.arm.loss_db),
            basis_choice: response::BasisChoice::Active,
            key_basis_probability: [15.0 / 16.0; 2],
            intrinsic_error: [0.01277, 0.00616],
            noise_probability: 1.0 - (1.0f64 - 2.1e-5).powi(2),
            afterpulse_probability: 0.0525,
            hold_off_pulses: 0.0,
        },
    });
    for (kind, rates) in lumped.kinds.iter().enumerate() {
        for (basis, rates) in rates.iter().enumerate() {
            assert!(
                (rates.gain / instruments.gains[kind] - 1.0).abs() < 1e-9,
                "gain {kind}: {rates:?} {instruments:?}"
            );
            // One of them leaves out clicks of light and noise at once.
            let other = instruments.error_rates[kind][basis];
            assert!((rates.qber - other).abs() < 2e-4, "error rate {kind} {basis}: {} {other}", rates.qber);
        }
    }
}
