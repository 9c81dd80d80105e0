//! Published links, simulated click by click: Toshiba's T12 at 50 km (Lucamarini et al., Opt. Express 21, 24550, 2013)
//! and a quantum dot at 120 km (Wang et al., Light Sci. Appl. 2026).

#![allow(clippy::unwrap_used)]

mod common;

use common::assert_count;
use common::prepared::*;
use photonics::config::Basis;
use photonics::expect::response::Rates;

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
    let expected = link.expected();
    let published = [(4.812e-3, 0.001), (7.537e-4, 0.02), (3.056e-4, 0.01)];
    let probabilities = link.transmitter.light.probabilities();
    for (k, (gain, tolerance)) in published.into_iter().enumerate() {
        let sent = pulses * probabilities[k];
        let measured = counts[k].detections / sent;
        // Afterpulses come in bunches, which widens the scatter a little.
        let sigma = (1.1 * measured / sent).sqrt();
        let formula = expected.detected(k) / probabilities[k];
        println!("gain {k}: {measured:.4e} +- {sigma:.1e}, formula {formula:.4e}, published {gain:.4e}");
        assert!((measured - formula).abs() < 3.0 * sigma, "gain {k} against the formula");
        assert!((measured - gain).abs() < tolerance * gain + 3.0 * sigma, "gain {k} against the published one");
    }
    for (basis, published) in [0.0426, 0.0364].into_iter().enumerate() {
        let (errors, sifted) = (counts[0].errors[basis], counts[0].sifted[basis]);
        let qber = errors / sifted;
        let sigma = (qber / sifted).sqrt();
        println!("QBER of basis {basis}: {:.3} +- {:.3} %", 100.0 * qber, 100.0 * sigma);
        assert!((qber - published).abs() < 0.002, "{qber} in basis {basis}");
        assert!((qber - expected.kinds[0][basis].qber).abs() < 3.0 * sigma, "{qber} against {expected:?}");
    }
    // B38: both choose Z with 15/16.
    let kept: f64 = counts.iter().flat_map(|counts| counts.sifted).sum();
    let all: f64 = counts.iter().map(|counts| counts.detections).sum();
    assert!((kept / all - 0.8828).abs() < 5e-4, "{}", kept / all);
}

#[test]
fn a_dot_at_120_km_has_the_published_error_rates() {
    let link = dot_at_120_km();
    // Ten minutes.
    let mut bases = [[0usize; 2]; 2];
    let (tally, pulses) = link.detections(30_000, |_, choice, detection| {
        if let Some((basis, bit)) = reading(&detection)
            && basis == choice.basis()
        {
            bases[basis as usize][usize::from(bit != choice.bit())] += 1;
        }
    });
    let expected = link.expected();
    println!("{tally:?} of {pulses} pulses, expected {expected:?}");
    assert_count(tally.detections as usize, expected.detected(0) * pulses, "detections");
    for (basis, published) in [0.0685, 0.0960].into_iter().enumerate() {
        let [right, wrong] = bases[basis];
        let sifted = (right + wrong) as f64;
        let qber = wrong as f64 / sifted;
        let sigma = (published * (1.0 - published) / sifted).sqrt();
        println!(
            "QBER of basis {basis}: {:.3} +- {:.3} %, published {:.2} %",
            100.0 * qber,
            100.0 * sigma,
            100.0 * published
        );
        let Rates { qber: formula, .. } = expected.kinds[0][basis];
        assert!((formula - published).abs() < 5e-4, "{expected:?}");
        assert!((qber - published).abs() < 5e-4 + 3.0 * sigma, "{qber} +- {sigma}");
    }
}
