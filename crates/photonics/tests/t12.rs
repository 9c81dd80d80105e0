//! Toshiba's T12 at 50 km (Lucamarini et al., Opt. Express 21, 24550, 2013), simulated click by click.

#![allow(clippy::unwrap_used)]

mod common;

use common::prepared::*;
use photonics::config::{Basis, BasisChoice, Encoding, GatedAvalanche, PreparedDetectors};
use photonics::expect::prepared::expect;

/// The published parameters without hold-off; loss and error rates as derived from the published counts.
fn t12() -> Link {
    let w = 1.0 / 256.0;
    let mut transmitter = transmitter(1e9, &[(0.425, 1.0 - 3.0 * w), (0.044, 2.0 * w), (0.001, w)]);
    transmitter.encoding = Encoding::Phase;
    transmitter.z_probability = 15.0 / 16.0;
    transmitter.intrinsic_error = [0.01277, 0.00616];
    transmitter.pulse_fwhm_ps = 50.0;
    let detectors = GatedAvalanche {
        efficiency: 0.205,
        jitter_fwhm_ps: 100.0,
        gate_width_ps: 400.0,
        dark_probability: 2.1e-5,
        afterpulse_probability: 0.0525,
        ..gated()
    };
    let mut link = Link::gated(transmitter, BasisChoice::Active, detectors);
    link.analyser.encoding = Encoding::Phase;
    link.analyser.z_probability = 15.0 / 16.0;
    link.arm.loss_db = 10.0 + 2.84;
    link
}

/// Detections of an intensity, and by basis those of it where transmitter and receiver agree, and their errors.
#[derive(Clone, Copy, Default)]
struct Counts {
    detections: f64,
    sifted: [f64; 2],
    errors: [f64; 2],
}

/// Counts, and the pulses that were looked at.
fn count(link: &Link, epochs: u64) -> ([Counts; 3], f64) {
    let mut counts = [Counts::default(); 3];
    let (tally, pulses) = link.detections(epochs, |_, choice, detection| {
        let counts = &mut counts[choice.intensity()];
        counts.detections += 1.0;
        let basis = if detection.pattern & 0b11 != 0 { Basis::Z } else { Basis::X };
        if basis == choice.basis() {
            counts.sifted[basis as usize] += 1.0;
            // Half of the random bits of double clicks are wrong.
            counts.errors[basis as usize] +=
                reading(&detection).map_or(0.5, |(_, bit)| if bit == choice.bit() { 0.0 } else { 1.0 });
        }
    });
    println!("{tally:?}");
    (counts, pulses)
}

#[test]
fn t12_at_50_km_has_the_published_gains_and_error_rates() {
    let link = t12();
    let (counts, pulses) = count(&link, 150);
    let PreparedDetectors::GatedAvalanche(detectors) = &link.detectors else { unreachable!() };
    let expected = expect(&link.transmitter, &link.arm, &link.analyser, detectors);
    let published = [(4.812e-3, 0.001), (7.537e-4, 0.02), (3.056e-4, 0.01)];
    let probabilities = link.transmitter.light.probabilities();
    for (k, (gain, tolerance)) in published.into_iter().enumerate() {
        let sent = pulses * probabilities[k];
        let measured = counts[k].detections / sent;
        // Afterpulses come in bunches, which widens the scatter a little.
        let sigma = (1.1 * measured / sent).sqrt();
        println!("gain {k}: {measured:.4e} +- {sigma:.1e}, formula {:.4e}, published {gain:.4e}", expected.gains[k]);
        assert!((measured - expected.gains[k]).abs() < 3.0 * sigma, "gain {k} against the formula");
        assert!((measured - gain).abs() < tolerance * gain + 3.0 * sigma, "gain {k} against the published one");
    }
    for (basis, published) in [0.0426, 0.0364].into_iter().enumerate() {
        let (errors, sifted) = (counts[0].errors[basis], counts[0].sifted[basis]);
        let qber = errors / sifted;
        let sigma = (qber / sifted).sqrt();
        println!("QBER of basis {basis}: {:.3} +- {:.3} %", 100.0 * qber, 100.0 * sigma);
        assert!((qber - published).abs() < 0.002, "{qber} in basis {basis}");
        assert!((qber - expected.error_rates[0][basis]).abs() < 3.0 * sigma + 1e-4, "{qber} against {expected:?}");
    }
    // B38: both choose Z with 15/16.
    let kept: f64 = counts.iter().flat_map(|counts| counts.sifted).sum();
    let all: f64 = counts.iter().map(|counts| counts.detections).sum();
    assert!((kept / all - 0.8828).abs() < 5e-4, "{}", kept / all);
}
