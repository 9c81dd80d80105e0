//! What detectors, clock and converter make of light.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use photonics::config::{Clock, Detector, EnergyTimeAnalyser, Outage, Step};
use photonics::nature::pairs::Emitter;
use photonics::photons::PhotonsError;
use photonics::receiver::{Controls, Instrument, InstrumentError, Shift};
use std::collections::BTreeMap;

/// Light of one output at `rate_hz`, the other one dark.
fn light(rate_hz: f64, epoch_ps: u64) -> Emitter {
    emitter(&source(rate_hz), [&arm(0.0), &arm(f64::INFINITY)], &analyser(), &detector(), epoch_ps)
}

/// Simulated seconds that whole frames cover.
fn seconds(frames: &[photonics::receiver::Frame]) -> f64 {
    frames.len() as f64 * FRAME_PS as f64 * 1e-12
}

#[test]
fn a_perfect_instrument_loses_and_adds_nothing() {
    let rate_hz = 1e6;
    let mut emitter = light(rate_hz, EPOCH_PS);
    let mut photons = vec![];
    let mut instrument = instrument(&detector(), &clock(), EPOCH_PS, "a");
    let mut frames = vec![];
    instrument.start(0);
    for epoch in 0..20 {
        let [list, _] = emitter.emit(epoch, 1.0, [&STILL; 2]);
        photons.extend(unpacked(&list, epoch, EPOCH_PS));
        instrument.detect(epoch, &list.words, &mut frames).unwrap();
    }
    let whole = frames.len();
    frames.extend(instrument.finish());
    assert_eq!(frames.len(), whole + 1);
    let origin_ps = 1_000_000_000_000;
    let expected: Vec<_> = photons.iter().map(|&(t, port)| ((t + origin_ps) / 4 * 4, port)).collect();
    let seen = tags(&frames);
    // Dead time is never shorter than two resolutions of the converter: a handful are lost to it.
    assert!(expected.len() - seen.len() < 20, "{} of {}", seen.len(), expected.len());
    let seen: std::collections::BTreeSet<_> = seen.into_iter().collect();
    let all: std::collections::BTreeSet<_> = expected.into_iter().collect();
    assert!(seen.is_subset(&all));
}

#[test]
fn detectors_that_are_out_give_no_tag_in_those_epochs_and_all_others_are_as_without() {
    const ORIGIN_PS: i64 = 1_000_000_000_000;
    let detector = Detector { dark_rate_hz: 1e5, ..detector() };
    let seen = |outages: &[Outage]| {
        let mut instrument = instrument(&detector, &clock(), EPOCH_PS, "a").with_outages(outages);
        tags(&detect(&mut instrument, &mut light(1e6, EPOCH_PS), 0..20))
    };
    let outages = [
        Outage { first_epoch: 3, epochs: 2, period_epochs: 0 },
        Outage { first_epoch: 6, epochs: 1, period_epochs: 5 },
    ];
    let epoch = |tag: &(i64, u8)| ((tag.0 - ORIGIN_PS) / EPOCH_PS as i64) as u64;
    let is_out = |tag: &(i64, u8)| outages.iter().any(|outage| outage.is_in(epoch(tag)));
    let (all, some) = (seen(&[]), seen(&outages));
    assert!(all.iter().filter(|tag| is_out(tag)).count() > 1000);
    // A click at the very border may be final with the epoch after its own.
    let lit: Vec<_> = all.into_iter().filter(|tag| !is_out(tag)).collect();
    assert!(some.iter().all(|tag| !is_out(tag)) && some.len() > 1000);
    assert!(lit.len().abs_diff(some.len()) <= 5, "{} and {}", lit.len(), some.len());
    let known: std::collections::BTreeSet<_> = lit.into_iter().collect();
    assert!(some.iter().all(|tag| known.contains(tag)));
}

#[test]
fn dead_time_follows_the_renewal_rate() {
    for (rate_hz, dead_ps) in [(4e6, 30_000.0), (1e7, 60_000.0), (2e6, 1e6)] {
        let detector = Detector { dead_time_ps: dead_ps, ..detector() };
        let mut instrument = instrument(&detector, &clock(), EPOCH_PS, "a");
        let frames = detect(&mut instrument, &mut light(rate_hz, EPOCH_PS), 0..60);
        let list = tags(&frames);
        let per_detector = rate_hz / 4.0;
        let load = 1.0 + per_detector * dead_ps * 1e-12;
        for port in 0..4 {
            let clicks: Vec<_> = list.iter().filter(|tag| tag.1 == port).map(|tag| tag.0).collect();
            let mean = per_detector / load * seconds(&frames);
            // The variance of a renewal process with a fixed dead time.
            let sigma = (mean / (load * load)).sqrt();
            assert!((clicks.len() as f64 - mean).abs() < 3.0 * sigma, "{} of {mean} +- {sigma}", clicks.len());
            let shortest = clicks.windows(2).map(|w| w[1] - w[0]).min().unwrap();
            assert!(shortest >= dead_ps as i64 - 4, "{shortest}");
        }
    }
}

#[test]
fn the_window_catches_what_the_error_function_says() {
    let detector = Detector { jitter_fwhm_ps: 55.0, ..detector() };
    let analyser = EnergyTimeAnalyser { z_probability: 1.0, ..analyser() };
    let mut emitter = emitter(&source(4e5), [&arm(0.0), &arm(0.0)], &analyser, &detector, EPOCH_PS);
    let mut ends = ["a", "b"].map(|end| instrument(&detector, &clock(), EPOCH_PS, end));
    let mut frames = [vec![], vec![]];
    ends.iter_mut().for_each(|instrument| instrument.start(0));
    for epoch in 0..100 {
        let photons = emitter.emit(epoch, 1.0, [&STILL; 2]);
        for i in 0..2 {
            ends[i].detect(epoch, &photons[i].words, &mut frames[i]).unwrap();
        }
    }
    let [a, b] = [tags(&frames[0]), tags(&frames[1])];
    let same: Vec<_> = coincidences(&a, &b, 600).into_iter().filter(|c| c.1 == c.2).collect();
    let fwhm_ps = 55.0 * 2f64.sqrt();
    for ratio in [0.5, 1.0, 1.2, 1.5, 2.0, 3.0] {
        let half_ps = (ratio * fwhm_ps / 2.0 / 4.0).floor() as i64 * 4 + 2;
        let inside = same.iter().filter(|c| c.0.abs() < half_ps).count();
        let ratio = 2.0 * half_ps as f64 / fwhm_ps;
        // Two converters of 4 ps make a triangle of 4 ps rms 1.63: part of the width, and the window is exact.
        let widened = (fwhm_ps * fwhm_ps + 8.0 * 2f64.ln() * 16.0 / 6.0).sqrt();
        let expected = libm::erf(2f64.ln().sqrt() * ratio * fwhm_ps / widened);
        let n = same.len() as f64;
        let sigma = (n * expected * (1.0 - expected)).sqrt();
        // Accidentals between equal detectors: 1e5^2 per second and pair of detectors, two of them, 2 s.
        let accidentals = 2.0 * 2e5f64.powi(2) * 2.0 * 1.2e-9;
        let difference = (inside as f64 - n * expected).abs();
        assert!(difference < 3.0 * sigma + accidentals, "{ratio}: {inside} of {n}, expected {}", n * expected);
    }
}

#[test]
fn dark_counts_come_at_their_rate_in_the_dark() {
    for epoch_ps in [EPOCH_PS, 3_000_000_000] {
        let detector = Detector { dark_rate_hz: 2000.0, jitter_fwhm_ps: 50.0, ..detector() };
        let mut instrument = instrument(&detector, &clock(), epoch_ps, "a");
        let frames = detect(&mut instrument, &mut light(0.0, epoch_ps), 0..10_000_000_000_000 / epoch_ps);
        let list = tags(&frames);
        for port in 0..4 {
            let count = list.iter().filter(|tag| tag.1 == port).count();
            assert_count(count, 2000.0 * seconds(&frames), &format!("detector {port}"));
        }
    }
}

#[test]
fn afterpulses_follow_their_clicks() {
    let (p, decay_ps, dead_ps) = (0.05, 1e6, 3e5);
    let detector =
        Detector { afterpulse_probability: p, afterpulse_decay_ps: decay_ps, dead_time_ps: dead_ps, ..detector() };
    let rate_hz = 8e3;
    let mut instrument = instrument(&detector, &clock(), EPOCH_PS, "a");
    let frames = detect(&mut instrument, &mut light(rate_hz, EPOCH_PS), 0..1000);
    let list = tags(&frames);
    // Photons are far apart: what follows closely on the same detector is an afterpulse.
    let mut last = [i64::MIN / 2; 4];
    let (mut pulses, mut late) = (0, 0);
    for &(t, port) in &list {
        let gap = (t - last[usize::from(port)]) as f64 - dead_ps;
        if gap < 12.0 * decay_ps {
            assert!(gap >= -4.0, "within the dead time");
            pulses += 1;
            late += usize::from(gap > decay_ps);
        }
        last[usize::from(port)] = t;
    }
    // Photons that fall behind another by chance, on 2e3 per second and detector.
    let chance = 2e3 * 12.0 * decay_ps * 1e-12;
    assert_fraction(pulses, list.len(), p + (1.0 - p) * chance, "afterpulses");
    assert_fraction(late, pulses, f64::exp(-1.0) * p / (p + chance) + chance / (p + chance) * 11.0 / 12.0, "late");
    assert_count(list.len(), rate_hz / (1.0 - p) * seconds(&frames), "clicks");
}

#[test]
fn a_latched_detector_is_blind_until_it_is_reset() {
    let (p, reset_ps) = (1e-3, 5e9);
    let detector = Detector { latch_probability: p, latch_reset_ps: reset_ps, ..detector() };
    let rate_hz = 4e5;
    let mut instrument = instrument(&detector, &clock(), EPOCH_PS, "a");
    let frames = detect(&mut instrument, &mut light(rate_hz, EPOCH_PS), 0..1000);
    let list = tags(&frames);
    // A detector clicks 1/p times, then rests: the share of time that it sees.
    let seeing = 1.0 / (1.0 + 1e5 * p * reset_ps * 1e-12);
    let expected = rate_hz * seeing * seconds(&frames);
    // Clicks between two latchings vary as a geometric number does.
    let latchings = expected * p;
    let sigma = expected / latchings.sqrt() * (1.0 - seeing);
    assert!((list.len() as f64 - expected).abs() < 3.0 * sigma, "{} of {expected} +- {sigma}", list.len());
    let mut last = BTreeMap::new();
    let mut gaps = list.iter().filter_map(|&(t, port)| last.insert(port, t).map(|before| t - before));
    assert!(gaps.any(|gap| gap as f64 >= reset_ps));
}

#[test]
fn skew_shifts_each_detector() {
    let skewed = Detector { skew_ps: [0.0, 1000.0, -2000.0, 40.0], ..detector() };
    let run = |detector| {
        let mut instrument = instrument(&detector, &clock(), EPOCH_PS, "a");
        tags(&detect(&mut instrument, &mut light(1e6, EPOCH_PS), 0..10))
    };
    let (straight, skewed) = (run(detector()), run(skewed));
    for (port, skew_ps) in [0, 1000, -2000, 40].into_iter().enumerate() {
        let of = |list: &[(i64, u8)], by_ps: i64| {
            list.iter().filter(|t| usize::from(t.1) == port).map(|t| (t.0 + by_ps, 0)).collect::<Vec<_>>()
        };
        let seen = of(&skewed, 0);
        let matched = coincidences(&of(&straight, skew_ps), &seen, 0).len();
        // All but those that fall out of the last frame or into the dead time of another.
        assert!(matched + 20 > seen.len(), "{matched} of {} at {skew_ps}", seen.len());
    }
}

#[test]
fn the_clock_runs_with_its_offset_and_frequency() {
    let run = |clock: &Clock| {
        let mut instrument = instrument(&detector(), clock, EPOCH_PS, "a");
        tags(&detect(&mut instrument, &mut light(2e5, EPOCH_PS), 0..250))
    };
    let truth = run(&clock());
    for (offset_ps, frequency_error) in [(7.3e9, 0.0), (-9.9e9, 2e-7), (0.0, -2e-7), (123.4, 7e-12)] {
        let local = run(&Clock { offset_ps, frequency_error, ..clock() });
        // Clicks of the same photon: by their place, after those before the first frame.
        let expected: Vec<_> = truth
            .iter()
            .map(|&(t, port)| (t + (offset_ps + frequency_error * (t as f64 - 1e12)).round() as i64, port))
            .collect();
        let matched = coincidences(&expected, &local, 4).iter().filter(|c| c.1 == c.2).count();
        assert!(matched + 8000 > truth.len().min(local.len()), "{matched} of {} and {}", truth.len(), local.len());
    }
}

#[test]
fn a_clock_that_is_set_wrong_stamps_no_time_twice_and_is_right_again_afterwards() {
    let run = |shifts: &[Shift]| {
        let mut instrument = instrument(&detector(), &clock(), EPOCH_PS, "a");
        instrument.shift_clock(shifts);
        // Strictly ascending, frame after frame, which `tags` checks.
        tags(&detect(&mut instrument, &mut light(2e5, EPOCH_PS), 0..60))
    };
    let truth = run(&[]);
    for by_ps in [3_000_000_000, -3_000_000_000] {
        let local = run(&[Shift { epoch_first: 20, epoch_end: 40, by_ps }]);
        let origin_ps = 1_000_000_000_000;
        let border = |epoch: u64| origin_ps + (epoch * EPOCH_PS) as i64;
        let within = |t: i64| (border(20)..border(40)).contains(&t);
        // What would be stamped when the clock has been there already is not stamped at all.
        let (lost_from, lost_to) =
            if by_ps < 0 { (border(20), border(20) - by_ps) } else { (border(40), border(40) + by_ps) };
        let expected: Vec<_> = truth
            .iter()
            .filter(|(t, _)| !(lost_from..lost_to).contains(t))
            .map(|&(t, port)| (if within(t) { t + by_ps } else { t }, port))
            .collect();
        let matched = coincidences(&expected, &local, 4).iter().filter(|c| c.1 == c.2).count();
        assert!(matched + 10 > expected.len(), "{matched} of {} for {by_ps} ps", expected.len());
        assert!(local.len() <= expected.len() + 10, "{} of {}", local.len(), expected.len());
    }
}

#[test]
fn the_clocks_walks_have_their_size_and_go_on_after_a_restart() {
    let walk = |clock: &Clock, end: &str| {
        let mut instrument = instrument(&detector(), clock, EPOCH_PS, end);
        let frames = detect(&mut instrument, &mut light(5e3, EPOCH_PS), 0..300);
        let mut second = Instrument::new(&detector(), clock, &analyser(), EPOCH_PS, FRAME_PS, &subseed().derive(end));
        let again = detect(&mut second, &mut light(5e3, EPOCH_PS), 200..300);
        let common: Vec<_> = frames.iter().filter(|f| f.number >= again[0].number).cloned().collect();
        assert_eq!(tags(&common)[..], tags(&again)[..], "a restarted clock is the same clock");
        tags(&frames)
    };
    let noisy = [
        (Clock { phase_walk_ps_per_sqrt_s: 1000.0, ..clock() }, 1000.0 * f64::sqrt(5.0)),
        (Clock { frequency_walk_per_sqrt_s: 1e-9, ..clock() }, 1e3 * f64::sqrt(5f64.powi(3) / 3.0)),
    ];
    for (clock_config, sigma_ps) in noisy {
        let mut squares = 0.0;
        let ends: Vec<String> = (0..24).map(|i| format!("end {i}")).collect();
        for end in &ends {
            let truth = walk(&clock(), end);
            let local = walk(&clock_config, end);
            let at = |list: &[(i64, u8)]| list.iter().copied().filter(|t| t.0 > 5_990_000_000_000).collect::<Vec<_>>();
            let found = coincidences(&at(&truth), &at(&local), 20_000);
            let mut differences: Vec<_> = found.iter().filter(|c| c.1 == c.2).map(|c| c.0).collect();
            differences.sort_unstable();
            squares += (differences[differences.len() / 2] as f64).powi(2);
        }
        let n = ends.len() as f64;
        let ratio = squares / n / (sigma_ps * sigma_ps);
        assert!((ratio - 1.0).abs() < 3.0 * (2.0 / n).sqrt(), "variance {ratio} of what it should be");
    }
}

#[test]
fn coarse_converters_write_multiples_of_their_resolution() {
    let detector = Detector { tdc_resolution_ps: 100.0, ..detector() };
    let mut instrument = instrument(&detector, &clock(), EPOCH_PS, "a");
    let list = tags(&detect(&mut instrument, &mut light(1e6, EPOCH_PS), 0..10));
    assert!(list.len() > 100_000 && list.iter().all(|tag| tag.0 % 100 == 0));
}

#[test]
fn the_length_of_epochs_changes_no_statistics() {
    let detector = Detector {
        jitter_fwhm_ps: 300.0,
        dark_rate_hz: 1000.0,
        dead_time_ps: 50_000.0,
        afterpulse_probability: 0.01,
        afterpulse_decay_ps: 2e5,
        ..detector()
    };
    let rate_hz = 2e6;
    for epoch_ps in [1_000_000, 50_000_000, EPOCH_PS] {
        let mut instrument = instrument(&detector, &clock(), epoch_ps, "a");
        let span_ps = if epoch_ps < 10_000_000 { 60_000_000_000 } else { 500_000_000_000 };
        let frames = detect(&mut instrument, &mut light(rate_hz, epoch_ps), 0..span_ps / epoch_ps);
        let list = tags(&frames);
        let events = rate_hz / 4.0 + 1000.0;
        // An afterpulse that meets no photon in its way is one click more for every click.
        let load = 1.0 + events * 5e-8;
        let clicks = 4.0 * events / (load - 0.01) * seconds(&frames);
        assert!(
            (list.len() as f64 - clicks).abs() < 3.0 * clicks.sqrt() + 0.001 * clicks,
            "{} of {clicks}",
            list.len()
        );
        let shortest = (0..4)
            .map(|port| {
                let times: Vec<_> = list.iter().filter(|t| t.1 == port).map(|t| t.0).collect();
                times.windows(2).map(|w| w[1] - w[0]).min().unwrap()
            })
            .min();
        assert!(shortest.unwrap() >= 49_996, "dead time holds over borders");
    }
}

#[test]
fn arms_longer_than_an_epoch_are_no_different() {
    let epoch_ps = 1_000_000_000;
    let mut far = arm(0.0);
    far.delay_ps = 4.7e9;
    let run = |arm: &photonics::config::Arm| {
        let mut emitter = emitter(&source(1e6), [arm, &common::arm(f64::INFINITY)], &analyser(), &detector(), epoch_ps);
        let clock = Clock { frequency_error: 1e-7, ..clock() };
        let mut instrument = instrument(&detector(), &clock, epoch_ps, "a");
        tags(&detect(&mut instrument, &mut emitter, 0..200))
    };
    let (near, far) = (run(&arm(0.0)), run(&far));
    let shifted: Vec<_> = near.iter().map(|&(t, port)| (t + 4_700_000_470, port)).collect();
    let matched = coincidences(&shifted, &far, 4).iter().filter(|c| c.1 == c.2).count();
    assert!(matched > 150_000, "{matched} of {} and {}", near.len(), far.len());
}

#[test]
fn the_first_frame_is_the_first_whole_one() {
    for (offset_ps, epoch, number) in [(0.0, 0, 51), (3e9, 0, 51), (-3e9, 0, 50), (1e9, 7, 58)] {
        let clock = Clock { offset_ps, ..clock() };
        let detector = Detector { jitter_fwhm_ps: 50.0, ..detector() };
        let mut instrument = instrument(&detector, &clock, EPOCH_PS, "a");
        let frames = detect(&mut instrument, &mut light(1e5, EPOCH_PS), epoch..epoch + 5);
        assert_eq!(frames[0].number, number, "offset {offset_ps} epoch {epoch}");
        for frame in &frames {
            assert_count(frame.tags.len(), 2000.0, "clicks of a whole frame");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_tags() {
    let detector = Detector {
        jitter_fwhm_ps: 60.0,
        dark_rate_hz: 1e4,
        dead_time_ps: 30_000.0,
        afterpulse_probability: 0.01,
        afterpulse_decay_ps: 1e5,
        latch_probability: 1e-5,
        latch_reset_ps: 1e8,
        ..detector()
    };
    let clock = Clock { frequency_walk_per_sqrt_s: 1e-10, phase_walk_ps_per_sqrt_s: 3.0, ..clock() };
    let run = || detect(&mut instrument(&detector, &clock, EPOCH_PS, "a"), &mut light(1e6, EPOCH_PS), 0..20);
    assert_eq!(run(), run());
}

#[test]
fn phase_drifts_walks_steps_and_is_set() {
    let config = EnergyTimeAnalyser {
        phase_initial_rad: 0.5,
        phase_drift_rad_per_s: 1e-3,
        steps: vec![Step { at_s: 10.0, value: 0.25 }],
        ..analyser()
    };
    let make = |config: &EnergyTimeAnalyser, i: usize| {
        Instrument::new(&detector(), &clock(), config, EPOCH_PS, FRAME_PS, &subseed().derive(&format!("end {i}")))
    };
    let mut instrument = make(&config, 0);
    let controls = Controls { phase_rad: -0.1, polarisation_rad: [0.2, 0.3] };
    let state = instrument.analyser_state(100, &controls);
    assert!((state.phase_rad - 0.402).abs() < 1e-12);
    assert_eq!(state.polarisation_rad, controls.polarisation_rad);
    assert!((instrument.analyser_state(500, &controls).phase_rad - 0.66).abs() < 1e-12);

    let noisy = EnergyTimeAnalyser { phase_noise_rad_per_sqrt_s: 0.02, ..analyser() };
    let n = 100;
    let mut squares = 0.0;
    for i in 0..n {
        let at = |epoch| make(&noisy, i).analyser_state(epoch, &Controls::default()).phase_rad;
        let mut instrument = make(&noisy, i);
        let later = instrument.analyser_state(5000, &Controls::default()).phase_rad;
        assert_eq!(instrument.analyser_state(10, &Controls::default()).phase_rad, at(10));
        assert_eq!(later, at(5000));
        squares += later * later;
    }
    let ratio = squares / n as f64 / (0.02f64.powi(2) * 100.0);
    assert!((ratio - 1.0).abs() < 3.0 * (2.0 / n as f64).sqrt(), "{ratio}");
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let make = || instrument(&Detector { jitter_fwhm_ps: 50.0, ..detector() }, &clock(), EPOCH_PS, "a");
    let mut emitter = light(1e5, EPOCH_PS);
    let epochs: Vec<_> = (0..4).map(|epoch| emitter.emit(epoch, 1.0, [&STILL; 2])[0].words.clone()).collect();
    let (mut plain, mut bothered) = (make(), make());
    let (mut expected, mut frames) = (vec![], vec![]);
    assert_eq!(bothered.detect(0, &epochs[0], &mut frames), Err(InstrumentError::NotStarted { epoch: 0 }));
    plain.start(0);
    bothered.start(0);
    for (epoch, words) in (0..).zip(&epochs) {
        plain.detect(epoch, words, &mut expected).unwrap();
        let mut refused = |bytes: &[u8]| match bothered.detect(epoch, bytes, &mut frames) {
            Err(InstrumentError::Photons(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused(&words[..words.len() - 3]), PhotonsError::NotWords { .. }));
        assert!(matches!(refused(&words[..words.len() - 4]), PhotonsError::Unfinished));
        assert!(matches!(refused(&words[..words.len() - 8]), PhotonsError::Unfinished));
        assert!(matches!(refused(&[]), PhotonsError::Unfinished));
        assert!(matches!(refused(&[0xFF; 8000]), PhotonsError::Span { .. }));
        bothered.detect(epoch, words, &mut frames).unwrap();
        let wrong = bothered.detect(epoch, words, &mut frames);
        assert_eq!(wrong, Err(InstrumentError::WrongEpoch { epoch, expected: epoch + 1 }));
    }
    assert_eq!(frames, expected);
    bothered.start(u64::MAX);
    let far = bothered.detect(u64::MAX, &epochs[0], &mut frames);
    assert_eq!(far, Err(InstrumentError::EpochOutOfRange { epoch: u64::MAX }));
}

#[test]
fn light_beyond_the_end_of_a_tag_is_refused_and_no_tag_wraps() {
    let mut instrument = instrument(&detector(), &clock(), EPOCH_PS, "a");
    let last = photonics::tag::END_PS / EPOCH_PS;
    let mut emitter = light(1e5, EPOCH_PS);
    // The clock starts a second ahead of simulated time and the light may come a second late.
    let first = last - 3_000_000_000_000 / EPOCH_PS;
    instrument.start(first);
    let (mut frames, mut refused) = (vec![], None);
    for epoch in first..last {
        let light = emitter.emit(epoch, 1.0, [&STILL; 2]);
        if let Err(error) = instrument.detect(epoch, &light[0].words, &mut frames) {
            refused = Some((epoch, error));
            break;
        }
    }
    let Some((epoch, error)) = refused else { panic!("light up to the end of the tag word was taken") };
    assert_eq!(error, InstrumentError::TagsEnd { epoch });
    assert!(error.to_string().contains("20 hours"), "{error}");
    assert!(epoch > first + 10, "refused in epoch {epoch}, {first} was the first");
    let times: Vec<u64> = frames.iter().flat_map(|frame| &frame.tags).copied().collect();
    assert!(times.len() > 1000 && times.is_sorted());
}
