use super::super::inputs::{Bbm92Inputs, DetectorModel, KeyInputs, Matching};
use super::super::math::transmission;
use super::super::optimum::{at_qber_z, optimum};
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
        key: KeyInputs { reconciliation_efficiency: 1.1, ..KeyInputs::default() },
    }
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
fn the_calibrated_point_is_reproduced() {
    let prediction = predict(&calibrated());
    assert_near(prediction.z.sifted_hz, 15.7e3, 0.005);
    assert!((prediction.z.qber - 0.0424).abs() < 1e-4, "{}", prediction.z.qber);
    assert!((prediction.x.qber - 0.0468).abs() < 1e-4, "{}", prediction.x.qber);
    assert_near(prediction.skr_bps, 7060.0, 0.002);
    assert_near(prediction.end_rate_hz(0), 6.4e6, 0.01);
    assert_near(prediction.tag_rate_hz, 13e6, 0.02);
}

#[test]
fn dead_time_costs_what_was_computed() {
    let without = predict(&calibrated());
    for (dead_time_ns, skr_bps) in [(30.0, 6420.0), (60.0, 5870.0)] {
        let prediction = predict(&with_dead_time(calibrated(), dead_time_ns));
        // Blindness that both ends share, half a per cent, is beyond the simple formula.
        assert_near(prediction.skr_bps, skr_bps, 0.01);
        assert!((prediction.z.qber - without.z.qber).abs() < 5e-4);
    }
}

#[test]
fn the_refits_with_dead_time_give_the_published_rate() {
    for (dead_time_ns, peak_fwhm_ps, pair_rate_hz) in [(30.0, 87.0, 3.21e8), (60.0, 74.0, 3.38e8)] {
        let mut inputs = with_dead_time(calibrated(), dead_time_ns);
        inputs.peak_fwhm_ps = peak_fwhm_ps;
        inputs.pair_rate_hz = pair_rate_hz;
        let prediction = predict(&inputs);
        assert_near(prediction.skr_bps, 7070.0, 0.01);
        assert!((prediction.z.qber - 0.0424).abs() < 5e-4, "{}", prediction.z.qber);
    }
}

#[test]
fn secret_fraction_matches_the_published_error_rates() {
    for (efficiency, fraction) in
        [(1.0, 0.4733), (1.05, 0.4606), (1.06, 0.458), (1.1, 0.4480), (1.16, 0.4328), (1.2, 0.4227)]
    {
        let found = secret_fraction(0.0424, 0.047, efficiency);
        assert!((found - fraction).abs() < 2e-4, "f {efficiency}: {found}");
    }
    assert_eq!(secret_fraction(0.2, 0.2, 1.1), 0.0);
}

#[test]
fn the_optimum_error_rate_is_flat_and_above_the_published_set_point() {
    for (efficiency, percent, cost) in [(1.1, 5.4, 0.05), (1.2, 5.0, 0.03)] {
        let mut inputs = calibrated();
        inputs.key.reconciliation_efficiency = efficiency;
        let best = optimum(&inputs);
        assert!((100.0 * best.prediction.z.qber - percent).abs() < 0.08, "f {efficiency}: {}", best.prediction.z.qber);
        let held = at_qber_z(&inputs, 0.0424);
        assert!((held.prediction.z.qber - 0.0424).abs() < 1e-9);
        assert!((1.0 - held.prediction.skr_bps / best.prediction.skr_bps - cost).abs() < 0.006);
    }
}

#[test]
fn loss_alone_does_not_explain_the_long_link() {
    // From 33.5 dB to 45 dB the pump loop holds the error rate, so the rate falls with the loss.
    let mut inputs = calibrated();
    inputs.transmission = [transmission(22.5); 2];
    let held = at_qber_z(&inputs, 0.0424);
    assert_near(held.prediction.skr_bps, 500.0, 0.02);
}

#[test]
fn the_error_rate_in_x_follows_the_phase_and_z_does_not() {
    let mut inputs = calibrated();
    let aligned = predict(&inputs);
    inputs.mean_cos_phase = 0.0;
    let quadrature = predict(&inputs);
    assert!((quadrature.x.qber - 0.5).abs() < 1e-12);
    assert_eq!(quadrature.z.qber, aligned.z.qber);
    inputs.mean_cos_phase = -1.0;
    assert!(predict(&inputs).x.qber > 0.95);
}

#[test]
fn unequal_arms_change_dead_time_but_not_the_product_of_losses() {
    let mut inputs = calibrated();
    inputs.transmission = [transmission(15.1), transmission(18.4)];
    assert_near(predict(&inputs).skr_bps, predict(&calibrated()).skr_bps, 1e-3);
    let prediction = predict(&with_dead_time(inputs, 30.0));
    assert!(prediction.live_share[0][0] < prediction.live_share[1][0]);
    assert_near(prediction.click_rate_hz[0][0], 2.2e6, 0.03);
}

#[test]
fn side_peaks_leak_when_the_peak_is_wide() {
    let mut inputs = calibrated();
    inputs.peak_fwhm_ps = 564.0;
    inputs.pair_rate_hz = 1e6;
    assert!(predict(&inputs).z.qber > 0.10);
}

#[test]
fn nothing_arriving_is_nothing_predicted() {
    let mut inputs = calibrated();
    inputs.pair_rate_hz = 0.0;
    for detector in &mut inputs.detectors {
        detector.dark_rate_hz = 0.0;
    }
    let prediction = predict(&inputs);
    assert_eq!((prediction.skr_bps, prediction.z.qber, prediction.tag_rate_hz), (0.0, 0.0, 0.0));
    assert_eq!(prediction.skr_finite_bps, 0.0);
}

#[test]
fn finite_key_approaches_the_tolerated_asymptote_with_longer_blocks() {
    let mut inputs = calibrated();
    inputs.key.tolerated_qber = 0.05;
    let mut last = 0.0;
    for block_s in [1.0, 10.0, 100.0, 1e3, 1e5] {
        inputs.key.block_s = block_s;
        let rate = predict(&inputs).skr_finite_bps;
        assert!(rate >= last, "{block_s} s: {rate} after {last}");
        last = rate;
    }
    let prediction = predict(&inputs);
    let limit = prediction.z.sifted_hz * secret_fraction(prediction.z.qber, 0.05, 1.1);
    assert_near(last, limit, 0.02);
    inputs.key.tolerated_qber = 0.04;
    assert_eq!(predict(&inputs).skr_finite_bps, 0.0);
}

#[test]
fn no_key_is_predicted_where_every_block_aborts() {
    let mut inputs = calibrated();
    let error_rate = predict(&inputs).x.qber;
    for (tolerated, key) in [(error_rate + 1e-9, true), (error_rate - 1e-9, false)] {
        inputs.key.tolerated_qber = tolerated;
        assert_eq!(predict(&inputs).skr_bps > 0.0, key, "{tolerated}");
    }
    // The best pump is then the largest one at which blocks do not abort.
    let best = optimum(&inputs);
    assert!(best.prediction.skr_bps > 0.0 && best.pump < 1.0, "{best:?}");
    assert!((best.prediction.x.qber / inputs.key.tolerated_qber - 1.0).abs() < 1e-6, "{best:?}");
}

#[test]
fn unique_matching_costs_little_and_rightly() {
    let mut inputs = with_dead_time(calibrated(), 30.0);
    let counted = predict(&inputs);
    inputs.matching = Matching { merge_doubles: true, kept_dead_time_ps: 30e3 };
    let merged = predict(&inputs);
    let lost = 1.0 - merged.z.sifted_hz / counted.z.sifted_hz;
    assert!(lost > 1e-3 && lost < 6e-3, "{lost}");
    // Accidentals of clicks whose partner is there as well are no longer counted.
    assert!(merged.z.accidental_hz < counted.z.accidental_hz * 0.995);
    assert!((merged.z.qber - counted.z.qber).abs() < 1e-3);
}
