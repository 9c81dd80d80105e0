use super::super::inputs::{Bbm92Inputs, DetectorModel, Matching};
use super::super::math::transmission;
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
    assert_near(prediction.end_rate_hz(0), 6.4e6, 0.01);
    assert_near(prediction.tag_rate_hz, 13e6, 0.02);
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
    assert_near(predict(&inputs).z.sifted_hz, predict(&calibrated()).z.sifted_hz, 1e-3);
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
    assert_eq!((prediction.z.sifted_hz, prediction.z.qber, prediction.tag_rate_hz), (0.0, 0.0, 0.0));
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
