use distill::config::Emission;
use photonics::expect::math::transmission;
use photonics::expect::optimum::{at_qber_z, optimum};
use photonics::expect::{Bbm92Inputs, DetectorModel, Matching, predict};

use super::*;

/// The calibrated point of the Nice 50 km link: 33.5 dB split evenly, no dead time, Neumann's counting.
fn calibrated() -> Bbm92Inputs {
    let crosstalk = 0.5 * (1.0 - (1.0 - 2.0 * 0.0030f64).sqrt());
    let detector = DetectorModel { dark_rate_hz: 500.0, ..DetectorModel::default() };
    Bbm92Inputs {
        pair_rate_hz: 3.05e8,
        transmission: [transmission(33.5 / 2.0); 2],
        z_probability: [0.5; 2],
        crosstalk: [crosstalk; 2],
        analyser_delay_ps: [400.0; 2],
        visibility: 1.0 - 2.0 * 0.0078,
        mean_cos_phase: 1.0,
        detectors: [detector.clone(), detector],
        window_ps: 120.0,
        peak_fwhm_ps: 98.0,
        matching: Matching::default(),
    }
}

fn key(reconciliation_efficiency: f64) -> KeyInputs {
    let security = Security {
        bound: Bound::Asymptotic,
        epsilon_secrecy: 1e-10,
        epsilon_correctness: 1e-15,
        tolerated_qber: 0.06,
        emission: Emission::Pairs,
    };
    KeyInputs { reconciliation_efficiency, block_s: 10.0, security }
}

fn rate_bps(inputs: &Bbm92Inputs) -> f64 {
    key(1.1).rate(&predict(inputs)).asymptotic_bps
}

fn with_dead_time(mut inputs: Bbm92Inputs, dead_time_ns: f64) -> Bbm92Inputs {
    for detector in &mut inputs.detectors {
        detector.dead_time_ps = dead_time_ns * 1e3;
    }
    inputs
}

fn assert_near(found: f64, expected: f64, relative: f64) {
    assert!((found / expected - 1.0).abs() <= relative, "{found} against {expected}");
}

#[test]
fn the_calibrated_point_makes_the_published_key() {
    assert_near(rate_bps(&calibrated()), 7060.0, 0.002);
    // From 33.5 dB to 45 dB the pump loop holds the error rate, so the rate falls with the loss.
    let mut inputs = calibrated();
    inputs.transmission = [transmission(22.5); 2];
    assert_near(key(1.1).rate(&at_qber_z(&inputs, 0.0424).prediction).asymptotic_bps, 500.0, 0.02);
    inputs.transmission = [transmission(15.1), transmission(18.4)];
    assert_near(rate_bps(&inputs), rate_bps(&calibrated()), 1e-3);
}

#[test]
fn dead_time_costs_what_was_computed() {
    let without = predict(&calibrated());
    for (dead_time_ns, skr_bps) in [(30.0, 6420.0), (60.0, 5870.0)] {
        let prediction = predict(&with_dead_time(calibrated(), dead_time_ns));
        // Blindness that both ends share, half a per cent, is beyond the simple formula.
        assert_near(key(1.1).rate(&prediction).asymptotic_bps, skr_bps, 0.01);
        assert!((prediction.z.qber - without.z.qber).abs() < 5e-4);
    }
}

#[test]
fn the_refits_with_dead_time_give_the_published_rate() {
    for (dead_time_ns, peak_fwhm_ps, pair_rate_hz) in [(30.0, 87.0, 3.21e8), (60.0, 74.0, 3.38e8)] {
        let mut inputs = with_dead_time(calibrated(), dead_time_ns);
        inputs.peak_fwhm_ps = peak_fwhm_ps;
        inputs.pair_rate_hz = pair_rate_hz;
        assert_near(rate_bps(&inputs), 7070.0, 0.01);
        let qber_z = predict(&inputs).z.qber;
        assert!((qber_z - 0.0424).abs() < 5e-4, "{qber_z}");
    }
}

#[test]
fn the_optimum_error_rate_is_flat_and_above_the_published_set_point() {
    for (efficiency, percent, cost) in [(1.1, 5.4, 0.05), (1.2, 5.0, 0.03)] {
        let rate_bps = |prediction: &Prediction| key(efficiency).rate(prediction).asymptotic_bps;
        let best = optimum(&calibrated(), rate_bps);
        assert!((100.0 * best.prediction.z.qber - percent).abs() < 0.08, "f {efficiency}: {}", best.prediction.z.qber);
        let held = at_qber_z(&calibrated(), 0.0424);
        assert!((held.prediction.z.qber - 0.0424).abs() < 1e-9);
        assert!((1.0 - rate_bps(&held.prediction) / rate_bps(&best.prediction) - cost).abs() < 0.006);
    }
}

#[test]
fn nothing_arriving_makes_no_key() {
    let mut inputs = calibrated();
    inputs.pair_rate_hz = 0.0;
    for detector in &mut inputs.detectors {
        detector.dark_rate_hz = 0.0;
    }
    assert_eq!(key(1.1).rate(&predict(&inputs)), KeyRate::default());
}

#[test]
fn finite_key_approaches_the_tolerated_asymptote_with_longer_blocks() {
    let mut key = key(1.1);
    key.security.tolerated_qber = 0.05;
    let prediction = predict(&calibrated());
    let mut last = 0.0;
    for block_s in [1.0, 10.0, 100.0, 1e3, 1e5] {
        key.block_s = block_s;
        let rate = key.rate(&prediction).finite_bps;
        assert!(rate >= last, "{block_s} s: {rate} after {last}");
        last = rate;
    }
    let limit = prediction.z.sifted_hz * (1.0 - 1.1 * binary_entropy(prediction.z.qber) - binary_entropy(0.05));
    assert_near(last, limit, 0.02);
    key.security.tolerated_qber = 0.04;
    assert_eq!(key.rate(&prediction).finite_bps, 0.0);
}

#[test]
fn no_key_is_predicted_where_every_block_aborts() {
    let mut key = key(1.1);
    let error_rate = predict(&calibrated()).x.qber;
    for (tolerated, makes_key) in [(error_rate + 1e-9, true), (error_rate - 1e-9, false)] {
        key.security.tolerated_qber = tolerated;
        assert_eq!(key.rate(&predict(&calibrated())).asymptotic_bps > 0.0, makes_key, "{tolerated}");
    }
    // The best pump is then the largest one at which blocks do not abort.
    let best = optimum(&calibrated(), |prediction| key.rate(prediction).asymptotic_bps);
    assert!(key.rate(&best.prediction).asymptotic_bps > 0.0 && best.pump < 1.0, "{best:?}");
    assert!((best.prediction.x.qber / key.security.tolerated_qber - 1.0).abs() < 1e-6, "{best:?}");
}
