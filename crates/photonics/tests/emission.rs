//! What leaves the source: counts, times, and what the two photons of a pair know of each other.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use photonics::analyser::AnalyserState;
use photonics::config::Step;
use photonics::nature::pairs::Emitter;
use std::f64::consts::PI;

/// A source weak enough that what coincides within a nanosecond is a pair, without loss.
fn lossless(rate_hz: f64) -> Emitter {
    emitter(&source(rate_hz), [&arm(0.0), &arm(0.0)], &analyser(), &detector(), EPOCH_PS)
}

#[test]
fn every_photon_has_its_partner_where_nothing_is_lost() {
    let [a, b] = emit(&mut lossless(1e5), 0..50, EPOCH_PS, &STILL);
    assert_count(a.len(), 1e5, "photons");
    // Accidental pairs within 401 ps: rate^2 * 802 ps over 1 s.
    let pairs = coincidences(&a, &b, 401).len();
    assert!(pairs >= a.len() - 1 && pairs < a.len() + 30, "{pairs} of {}", a.len());
    for list in [a, b] {
        assert!(list.is_sorted());
    }
}

#[test]
fn thinning_gives_every_port_its_rate() {
    let rate_hz = 3.2e8;
    let [mut x, mut y] = [arm(15.0), arm(18.0)];
    x.delay_ps = 94e6;
    y.delay_ps = 160e6;
    for z in [0.5, 0.9, 0.123] {
        let analyser = photonics::config::EnergyTimeAnalyser { z_probability: z, ..analyser() };
        let detector = photonics::config::Detector { efficiency: 0.8, ..detector() };
        let mut emitter = emitter(&source(rate_hz), [&x, &y], &analyser, &detector, EPOCH_PS);
        let lists = emit(&mut emitter, 0..40, EPOCH_PS, &STILL);
        for (list, arm) in lists.iter().zip([&x, &y]) {
            let rate = rate_hz * 0.8 * 10f64.powf(-arm.loss_db / 10.0) * 0.8;
            for (port, share) in [z, z, 1.0 - z, 1.0 - z].into_iter().enumerate() {
                let count = list.iter().filter(|photon| usize::from(photon.1) == port).count();
                assert_count(count, rate * share / 2.0, &format!("port {port} at {z}"));
            }
            assert!(list[0].0 >= arm.delay_ps as i64);
            assert!(list.last().unwrap().0 < (40 * EPOCH_PS) as i64 + arm.delay_ps as i64);
        }
        let pairs = rate_hz * 0.64 * 10f64.powf(-3.3) * 0.8;
        let accidentals = lists[0].len() as f64 * lists[1].len() as f64 * 901e-12 / 0.8;
        let shifted: Vec<_> = lists[1].iter().map(|&(t, port)| (t - 66_000_000, port)).collect();
        assert_count(coincidences(&lists[0], &shifted, 450).len(), pairs + accidentals, "pairs");
    }
}

#[test]
fn gaps_are_exponential_and_epochs_leave_no_mark() {
    for (loss_db, epoch_ps) in [(10.0, EPOCH_PS), (10.0, 1_000_000_000), (30.0, 1_000_000_000), (45.0, EPOCH_PS)] {
        let rate_hz = 1e8 * 10f64.powf(-loss_db / 10.0);
        let mut emitter =
            emitter(&source(1e8), [&arm(loss_db), &arm(f64::INFINITY)], &analyser(), &detector(), epoch_ps);
        let [list, none] = emit(&mut emitter, 0..200_000_000_000 / epoch_ps, epoch_ps, &STILL);
        assert!(none.is_empty());
        let n = list.len();
        assert_count(n, rate_hz * 0.2, "photons");
        for means in [0.01, 0.5, 1.0, 3.0, 6.0] {
            let gap_ps = means * 1e12 / rate_hz;
            let longer = list.windows(2).filter(|w| (w[1].0 - w[0].0) as f64 > gap_ps).count();
            assert_fraction(longer, n - 1, f64::exp(-means), &format!("gaps beyond {means} means at {loss_db} dB"));
        }
        // Were photons lost or doubled where epochs meet, they would be so in these windows.
        let near: f64 = 0.05;
        let phase = |t: i64| t as f64 / epoch_ps as f64 % 1.0;
        let close = list.iter().filter(|photon| phase(photon.0) < near || phase(photon.0) > 1.0 - near).count();
        assert_fraction(close, n, 2.0 * near, "photons near borders");
    }
}

#[test]
fn side_peaks_stand_at_the_analysers_delay() {
    let [a, b] = emit(&mut lossless(5e5), 0..100, EPOCH_PS, &STILL);
    let found = coincidences(&a, &b, 450);
    let n = found.len();
    for (peak_ps, share) in [(-400, 0.25), (0, 0.5), (400, 0.25)] {
        let near = found.iter().filter(|c| (c.0 - peak_ps).abs() <= 4).count();
        assert_fraction(near, n, share, &format!("peak at {peak_ps}"));
    }
}

#[test]
fn z_agrees_in_the_middle_peak_and_tells_its_bit_in_the_side_peaks() {
    for phase_rad in [0.0, 1.0, PI] {
        let state = AnalyserState { phase_rad, ..STILL };
        let [a, b] = emit(&mut lossless(2e5), 0..50, EPOCH_PS, &state);
        let zz: Vec<_> = coincidences(&a, &b, 401).into_iter().filter(|c| c.1 < 2 && c.2 < 2).collect();
        assert!(zz.len() > 40_000);
        let wrong = zz.iter().filter(|c| c.0 != 400 * i64::from(c.2) - 400 * i64::from(c.1)).count();
        assert!(wrong < 30, "{wrong} accidentals at {phase_rad}");
    }
}

#[test]
fn crosstalk_swaps_the_detector_and_not_the_time() {
    let analyser = photonics::config::EnergyTimeAnalyser { crosstalk: 0.02, ..analyser() };
    let mut emitter = emitter(&source(2e5), [&arm(0.0), &arm(0.0)], &analyser, &detector(), EPOCH_PS);
    let [a, b] = emit(&mut emitter, 0..50, EPOCH_PS, &STILL);
    let zz: Vec<_> = coincidences(&a, &b, 4).into_iter().filter(|c| c.1 < 2 && c.2 < 2).collect();
    let different = zz.iter().filter(|c| c.1 != c.2).count();
    assert_fraction(different, zz.len(), 2.0 * 0.02 * 0.98, "errors");
}

#[test]
fn x_follows_the_sum_of_the_phases() {
    let mut source = source(2e5);
    source.visibility = 0.95;
    let analyser = photonics::config::EnergyTimeAnalyser { visibility: 0.98, ..analyser() };
    let visibility = 0.95 * 0.98 * 0.98;
    for (phase_a, phase_b) in [(0.0, 0.0), (0.7, 0.0), (0.7, 0.8), (2.0, -0.5), (PI, 0.0), (-3.0, -2.0)] {
        let mut emitter = emitter(&source, [&arm(0.0), &arm(0.0)], &analyser, &detector(), EPOCH_PS);
        let mut lists = [vec![], vec![]];
        for epoch in 0..50 {
            let states = [AnalyserState { phase_rad: phase_a, ..STILL }, AnalyserState { phase_rad: phase_b, ..STILL }];
            let photons = emitter.emit(epoch, 1.0, [&states[0], &states[1]]);
            for (list, photons) in lists.iter_mut().zip(&photons) {
                list.extend(unpacked(photons, epoch, EPOCH_PS));
            }
        }
        let found = coincidences(&lists[0], &lists[1], 401);
        let xx = |middle: bool| found.iter().filter(move |c| c.1 > 1 && c.2 > 1 && (c.0.abs() < 4) == middle);
        let errors = |middle| xx(middle).filter(|c| c.1 != c.2).count();
        let expected = (1.0 - visibility * f64::cos(phase_a + phase_b)) / 2.0;
        assert_fraction(errors(true), xx(true).count(), expected, &format!("X errors at {phase_a} + {phase_b}"));
        assert_fraction(errors(false), xx(false).count(), 0.5, "X in the side peaks");
        let crossed: Vec<_> = found.iter().filter(|c| (c.1 > 1) != (c.2 > 1)).collect();
        let equal = crossed.iter().filter(|c| c.1 & 1 == c.2 & 1).count();
        assert_fraction(equal, crossed.len(), 0.5, "bits of different bases");
    }
}

#[test]
fn dispersion_of_both_arms_adds_and_can_cancel() {
    let spread = |dispersion: [f64; 2]| {
        let [mut x, mut y] = [arm(0.0), arm(0.0)];
        x.dispersion_ps_per_nm = dispersion[0];
        y.dispersion_ps_per_nm = dispersion[1];
        let mut emitter = emitter(&source(1e5), [&x, &y], &analyser(), &detector(), EPOCH_PS);
        let [a, b] = emit(&mut emitter, 0..50, EPOCH_PS, &STILL);
        assert!(a.is_sorted() && b.is_sorted());
        // Short-short pairs only, so that the side peaks do not widen the middle one.
        let found: Vec<_> = coincidences(&a, &b, 2000).into_iter().filter(|c| c.1 == 0 && c.2 == 0).collect();
        let (n, sum) = (found.len() as f64, found.iter().map(|c| c.0 * c.0).sum::<i64>() as f64);
        (n, (sum / n).sqrt())
    };
    let sigma_nm: f64 = 0.8 / 2.354_820_045;
    for (dispersion, sum) in [([100.0, 150.0], 250.0), ([-200.0, -50.0], 250.0), ([500.0, -400.0], 100.0)] {
        let (n, sigma_ps) = spread(dispersion);
        let expected = f64::sqrt((sigma_nm * sum).powi(2) + 1.0 / 6.0);
        assert!((sigma_ps / expected - 1.0).abs() < 4.0 / (2.0 * n).sqrt(), "{dispersion:?}: {sigma_ps} {expected}");
    }
}

#[test]
fn delay_drifts_without_tearing() {
    let mut x = arm(0.0);
    x.delay_ps = 94e6;
    x.delay_drift_amplitude_ps = 5000.0;
    x.delay_drift_period_s = 4.0;
    let mut emitter = emitter(&source(1e5), [&x, &arm(0.0)], &analyser(), &detector(), EPOCH_PS);
    let [a, b] = emit(&mut emitter, 0..100, EPOCH_PS, &STILL);
    let delay_ps = |t: i64| 94e6 + 5000.0 * (PI / 2.0 * t as f64 * 1e-12).sin();
    let back: Vec<_> = a.iter().map(|&(t, port)| (t - delay_ps(t - 94_000_000).round() as i64, port)).collect();
    let found = coincidences(&back, &b, 450);
    let exact = found.iter().filter(|c| [-400i64, 0, 400].iter().any(|p| (c.0 - p).abs() <= 2)).count();
    assert!(exact + 20 >= a.len(), "{exact} of {}", a.len());
}

#[test]
fn photons_cross_the_borders_of_epochs() {
    // Epochs so short that every few pairs fall on a border.
    let epoch_ps = 1_000_000;
    let [mut x, mut y] = [arm(0.0), arm(3.0)];
    x.dispersion_ps_per_nm = 2000.0;
    y.dispersion_ps_per_nm = 2000.0;
    let mut emitter = emitter(&source(1e7), [&x, &y], &analyser(), &detector(), epoch_ps);
    let [a, b] = emit(&mut emitter, 0..5_000, epoch_ps, &STILL);
    assert_count(a.len(), 5e4, "photons");
    assert_count(b.len(), 5e4 * 10f64.powf(-0.3), "photons of the lossy arm");
    assert!(a.is_sorted() && b.is_sorted());
}

#[test]
fn the_same_seed_gives_the_same_photons() {
    let make = || {
        let mut x = arm(12.0);
        x.delay_ps = 1e8;
        x.dispersion_ps_per_nm = 50.0;
        emitter(&source(1e8), [&x, &arm(13.0)], &analyser(), &detector(), EPOCH_PS)
    };
    let (mut first, mut second) = (make(), make());
    for epoch in 5..10 {
        assert_eq!(first.emit(epoch, 1.0, [&STILL; 2]), second.emit(epoch, 1.0, [&STILL; 2]));
    }
    let [a, b] = first.emit(10, 1.0, [&STILL; 2]);
    assert_ne!(a, b);
    assert_ne!([a, b], second.emit(11, 1.0, [&STILL; 2]));
}

#[test]
fn nothing_comes_through_infinite_loss_or_without_pump() {
    let dark = f64::INFINITY;
    let mut emitter = emitter(&source(1e8), [&arm(dark), &arm(dark)], &analyser(), &detector(), EPOCH_PS);
    assert!(emitter.emit(0, 1.0, [&STILL; 2]).iter().all(|photons| photons.count == 0));
    let mut emitter = lossless(1e6);
    for pump in [0.0, -1.0, f64::NAN] {
        assert!(emitter.emit(0, pump, [&STILL; 2]).iter().all(|photons| photons.count == 0), "{pump}");
    }
}

#[test]
fn loss_that_is_added_takes_its_part_of_one_arm_and_goes_again() {
    let mut emitter = lossless(1e7);
    for (epoch, loss_db) in [(0, [0.0, 0.0]), (1, [3.0, 0.0]), (2, [f64::INFINITY, 10.0]), (3, [0.0, 0.0])] {
        emitter.attenuate(loss_db);
        let photons = emitter.emit(epoch, 1.0, [&STILL; 2]);
        for (photons, loss_db) in photons.iter().zip(loss_db) {
            assert_count(photons.count as usize, 2e5 * 10f64.powf(-loss_db / 10.0), &format!("{loss_db} dB"));
        }
    }
}

#[test]
fn an_arm_of_another_loss_has_that_beside_what_is_added() {
    let mut emitter = lossless(1e7);
    emitter.attenuate([0.0, 10.0]);
    for (epoch, loss_db, total_db) in [(0, [3.0, 0.0], [3.0, 10.0]), (1, [0.0, 5.0], [0.0, 15.0])] {
        emitter.set_loss_db(loss_db);
        let photons = emitter.emit(epoch, 1.0, [&STILL; 2]);
        for (photons, total_db) in photons.iter().zip(total_db) {
            assert_count(photons.count as usize, 2e5 * 10f64.powf(-total_db / 10.0), &format!("{total_db} dB"));
        }
    }
}

#[test]
fn pump_follows_its_set_point_and_its_steps() {
    let mut source = source(1e6);
    source.steps = vec![Step { at_s: 1.0, value: 0.5 }, Step { at_s: 2.0, value: 1.2 }];
    let mut emitter = emitter(&source, [&arm(0.0), &arm(0.0)], &analyser(), &detector(), EPOCH_PS);
    for (epoch, pump, factor) in [(0, 1.0, 1.0), (10, 0.3, 0.3), (20, 9.0, 2.0), (60, 1.0, 0.5), (150, 0.5, 0.6)] {
        let [photons, _] = emitter.emit(epoch, pump, [&STILL; 2]);
        assert_count(photons.count as usize, 2e4 * factor, &format!("epoch {epoch}"));
    }
}

#[test]
fn polarisation_costs_what_its_error_costs() {
    let mut x = arm(0.0);
    x.polarisation.initial_rad = [0.3, -0.4];
    x.polarisation.dependent_loss = 0.5;
    x.polarisation.steps = vec![Step { at_s: 1.0, value: 1.7 }];
    let mut emitter = emitter(&source(2e6), [&x, &arm(0.0)], &analyser(), &detector(), EPOCH_PS);
    let cost = |error: f64| 1.0 - 0.5 * (error / 2.0).sin().powi(2);
    for (epoch, polarisation_rad, error) in [
        (0, [0.0, 0.0], 0.5),
        (1, [0.3, -0.4], 0.0),
        (50, [0.3, -0.4], 1.7),
        (51, [2.0, -0.4], 0.0),
        (52, [0.0, -0.4], 2.0),
    ] {
        let state = AnalyserState { phase_rad: 0.0, polarisation_rad };
        let [a, b] = emitter.emit(epoch, 1.0, [&state, &STILL]);
        assert_count(a.count as usize, 4e4 * cost(error), &format!("epoch {epoch}"));
        assert_count(b.count as usize, 4e4, "the other arm");
    }
}
