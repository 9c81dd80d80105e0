//! What is expected of a prepared link by its instruments as they are configured, against lumped figures and against
//! clicks.

#![allow(clippy::unwrap_used)]

mod common;

use common::prepared::*;
use common::*;
use photonics::config::{BasisChoice, Detector, Encoding, GatedAvalanche, Light, PreparedDetectors, QuantumDot};
use photonics::expect::math::transmission;
use photonics::expect::prepared::Inputs;
use photonics::expect::response::{self, Counted};
use std::collections::BTreeMap;
use std::f64::consts::TAU;

/// Toshiba's T12 over 50 km (Lucamarini et al., Opt. Express 21, 24550, 2013).
#[test]
fn instruments_of_the_t12_are_reduced_to_its_lumped_figures() {
    let w = 1.0 / 256.0;
    let mut transmitter = transmitter(1e9, &[(0.425, 1.0 - 3.0 * w), (0.044, 2.0 * w), (0.001, w)]);
    (transmitter.encoding, transmitter.z_probability) = (Encoding::Phase, 15.0 / 16.0);
    transmitter.intrinsic_error = [0.01277, 0.00616];
    let detectors =
        GatedAvalanche { efficiency: 0.205, dark_probability: 2.1e-5, afterpulse_probability: 0.0525, ..gated() };
    let mut link = Link::gated(transmitter, BasisChoice::Active, detectors);
    (link.analyser.encoding, link.analyser.z_probability) = (Encoding::Phase, 15.0 / 16.0);
    link.arm.loss_db = 10.0 + 2.84;
    let Inputs::Pulses(inputs) = link.inputs(1000.0) else { panic!("laser pulses") };
    let means: Vec<f64> = inputs.classes.iter().map(|class| class.mean_photons).collect();
    assert_eq!((inputs.pulse_rate_hz, means.as_slice()), (1e9, &[0.425, 0.044, 0.001][..]));
    let receiver = inputs.receiver;
    assert!((receiver.transmission / (0.205 * transmission(12.84)) - 1.0).abs() < 1e-12);
    assert!(
        (receiver.intrinsic_error[0] - 0.01277).abs() < 1e-12 && (receiver.intrinsic_error[1] - 0.00616).abs() < 1e-12
    );
    let noise = 1.0 - (1.0f64 - 2.1e-5).powi(2);
    assert!(receiver.noise_probability.iter().all(|of_basis| (of_basis / noise - 1.0).abs() < 1e-9));
    assert_eq!((receiver.basis_choice, receiver.counted), (response::BasisChoice::Active, [Counted::ALL; 2]));
    assert_eq!((receiver.afterpulse_probability, receiver.hold_off_pulses), (0.0525, 0.0));
    assert_eq!(receiver.key_basis_probability, [15.0 / 16.0; 2]);
}

/// Sifted bits and errors by basis of clicks within `gate_ps` around the moments of time bins 1 ns apart, in periods of
/// 5 ns.
fn sift_time_bins(link: &Link, gate_ps: i64, epochs: u64) -> ([[usize; 2]; 2], f64) {
    let clicks = link.clicks(epochs);
    let mut seen: BTreeMap<i64, u8> = BTreeMap::new();
    for &(at_ps, port) in &clicks {
        assert_ne!(port, 1, "one detector reads Z");
        // Gates reach over the period.
        let pulse = (at_ps - 1000).div_euclid(5000);
        let after_birth_ps = at_ps - 5000 * pulse - 2500;
        // A tag is a step of 4 ps, so that windows are half open.
        let within = |moment_ps: i64| (-gate_ps / 2..gate_ps / 2).contains(&(after_birth_ps - moment_ps));
        let outcome = match port {
            0 if within(0) => 0b0001,
            0 if within(1000) => 0b0010,
            2 | 3 if within(1000) => 1 << port,
            _ => continue,
        };
        *seen.entry(pulse).or_default() |= outcome;
    }
    let choices = link.choices();
    let mut bases = [[0; 2]; 2];
    for (pulse, outcomes) in seen {
        let basis = match (outcomes & 0b0011 != 0, outcomes & 0b1100 != 0) {
            (true, false) => 0,
            (false, true) => 1,
            _ => continue,
        };
        let choice = choices.at(u64::try_from(pulse).unwrap());
        if choice.basis() as usize == basis {
            let one = outcomes & 0b1010 != 0;
            // Every second double click is wrong.
            let wrong = if outcomes.count_ones() == 2 { pulse % 2 == 0 } else { one != choice.bit() };
            bases[basis][usize::from(wrong)] += 1;
        }
    }
    // With jitter the first frame is not complete.
    let pulses = (clicks.last().unwrap().0 - clicks[0].0) as f64 / 5000.0;
    (bases, pulses)
}

#[test]
fn light_and_noise_of_time_bins_have_the_weights_of_what_sifting_keeps() {
    let gates = GatedAvalanche {
        gate_width_ps: 3200.0,
        dark_probability: 0.002,
        jitter_fwhm_ps: 200.0,
        afterpulse_probability: 0.02,
        ..gated()
    };
    // As many dark counts per time as in the gates.
    let free = Detector { dark_rate_hz: 0.002 / 3.2e-9, jitter_fwhm_ps: 200.0, ..detector() };
    let detectors = [PreparedDetectors::GatedAvalanche(gates), PreparedDetectors::FreeRunning(free)];
    for (detectors, basis_choice) in detectors
        .into_iter()
        .flat_map(|d| [BasisChoice::Passive, BasisChoice::Active].map(|choice| (d.clone(), choice)))
    {
        let what = format!("{basis_choice:?} {detectors:?}");
        let mut transmitter = transmitter(2e8, &[(0.002, 1.0)]);
        transmitter.encoding = Encoding::TimeBin;
        transmitter.bin_separation_ps = 1000.0;
        transmitter.intrinsic_error = [0.03, 0.04];
        transmitter.pulse_fwhm_ps = 150.0;
        let mut link = Link::new(transmitter, prepared_analyser(basis_choice), detectors);
        link.analyser.encoding = Encoding::TimeBin;
        link.analyser.bin_separation_ps = 1000.0;
        let (bases, pulses) = sift_time_bins(&link, 400, 50);
        let response = link.inputs(400.0).predict();
        for (basis, [right, wrong]) in bases.into_iter().enumerate() {
            let rates = response.kinds[0][basis];
            let sifted = right + wrong;
            println!("{what}: basis {basis}: {sifted} of {}, {rates:?}", rates.sifted * pulses);
            // A click before the moment that counts, which is left out, takes one part in 500.
            let expected = rates.sifted * pulses;
            assert!((sifted as f64 - expected).abs() < 3.0 * expected.sqrt() + 0.002 * expected, "{sifted} {expected}");
            assert!(rates.qber > 0.15, "noise is high: {rates:?}");
            assert_fraction(wrong, sifted, rates.qber, "errors");
        }
    }
}

#[test]
fn a_window_costs_light_and_noise_by_their_shares_in_it() {
    let detectors = GatedAvalanche { gate_width_ps: 600.0, dark_probability: 1e-3, ..gated() };
    let mut link = Link::gated(transmitter(1e9, &[(0.004, 1.0)]), BasisChoice::Passive, detectors);
    link.transmitter.pulse_fwhm_ps = 300.0;
    for gate_ps in [200.0, 400.0, 800.0] {
        let clicks = link.clicks(10);
        let within =
            clicks.iter().filter(|click| (-gate_ps / 2.0..gate_ps / 2.0).contains(&((click.0 % 1000) as f64 - 500.0)));
        let pulses = clicks.last().unwrap().0 as f64 / 1000.0;
        let response = link.inputs(gate_ps).predict();
        let expected = (response.detected(0) + response.unsifted[0].crossed + response.unsifted[0].doubles) * pulses;
        assert_count(within.count(), expected, &format!("clicks within {gate_ps} ps"));
    }
}

/// Where light is when clicks are folded at the period, which is what a receiver's clock follows.
fn folded_ps(times_ps: &[f64], period_ps: f64) -> f64 {
    let angles = times_ps.iter().map(|time_ps| TAU * time_ps / period_ps);
    let (sine, cosine) = angles.fold((0.0, 0.0), |(sine, cosine), angle| (sine + angle.sin(), cosine + angle.cos()));
    sine.atan2(cosine) / TAU * period_ps
}

#[test]
fn a_gate_lies_where_the_light_of_a_dot_arrives_in_the_mean() {
    const PERIOD_PS: f64 = 10_000.0;
    let detector = Detector { dark_rate_hz: 1e5, jitter_fwhm_ps: 50.0, ..detector() };
    let mut link = Link::free_running(transmitter(1e8, &[]), prepared_analyser(BasisChoice::Passive), detector);
    for (lifetime_ps, gate_ps) in [(1000.0, 600.0), (1000.0, 3000.0), (200.0, 300.0)] {
        let dot = QuantumDot { mean_photons: 0.02, g2: 0.01, lifetime_ps, temporal_filter: None };
        link.transmitter.light = Light::QuantumDot(dot);
        let clicks = link.clicks(30);
        // Somewhere within the 4 ps of its tag, or the edges of the gate would count by whole steps.
        let within_step = |index: usize| 4.0 * (index as f64 * 0.618_034).fract();
        let times_ps: Vec<f64> =
            clicks.iter().enumerate().map(|(index, click)| click.0 as f64 + within_step(index)).collect();
        let middle_ps = folded_ps(&times_ps, PERIOD_PS);
        let within = |time_ps: &&f64| {
            let late_ps = (**time_ps - middle_ps + 0.5 * PERIOD_PS).rem_euclid(PERIOD_PS) - 0.5 * PERIOD_PS;
            late_ps.abs() < 0.5 * gate_ps
        };
        let counted = times_ps.iter().filter(within).count();
        let pulses = (clicks.last().unwrap().0 - clicks[0].0) as f64 / PERIOD_PS;
        let response = link.inputs(gate_ps).predict();
        let expected = (response.detected(0) + response.unsifted[0].crossed + response.unsifted[0].doubles) * pulses;
        println!("lifetime {lifetime_ps} ps, gate {gate_ps} ps: {counted}, expected {expected:.0}");
        assert_count(counted, expected, &format!("clicks within {gate_ps} ps"));
    }
}
