//! Numbers of pulses, from photons alone.

use std::collections::HashMap;

use distill::sifting::prepared::config::{Encoding, Part, Prepared, Sync};
use distill::sifting::prepared::recovery::{Numbered, Recovery, RecoveryError};
use photonics::config::{Intensity, PhaseDrift, Transmitter};
use photonics::nature::pulses::{ChoiceKey, Choices};

use crate::light::{FRAME_PS, Light, decoy, single_photons};

/// What recovery makes of the light, and what is true of it.
struct Seen {
    frames: Vec<Numbered>,
    /// Clicks of real pulses that were given another number, and all that were given one.
    wrong: u64,
    numbered: u64,
    recovery: Recovery,
}

fn recover(light: &Light, frames: u64) -> Result<Seen, RecoveryError> {
    light.config.check(FRAME_PS, &light.emission).unwrap();
    let mut recovery = Recovery::new(&light.config, &light.emission, FRAME_PS);
    let (mut numbered, mut truth) = (Vec::new(), Vec::new());
    for (frame, tags) in light.tags(frames).into_iter().enumerate() {
        truth.push(tags.iter().filter_map(|(_, pulse)| *pulse).collect::<Vec<u64>>());
        recovery.push(light.first_frame + frame as u64, tags.into_iter().map(|(tag, _)| tag).collect())?;
        if frame as u64 + 1 == frames {
            recovery.finish();
        }
        while let Some(next) = recovery.next_frame()? {
            numbered.push(next);
        }
    }
    assert_eq!(numbered.len() as u64, frames);
    Ok(judged(light, numbered, truth, recovery))
}

/// Compares what was numbered with the truth.
fn judged(light: &Light, numbered: Vec<Numbered>, truth: Vec<Vec<u64>>, recovery: Recovery) -> Seen {
    let mut seen = Seen { frames: numbered, wrong: 0, numbered: 0, recovery };
    for (frame, truth) in seen.frames.iter().zip(truth) {
        let truth: HashMap<u64, u64> = truth.into_iter().map(|pulse| (pulse, 1)).collect();
        for happening in frame.happenings.iter() {
            assert!(frame.pulses.contains(&happening.pulse));
            seen.numbered += 1;
            seen.wrong += u64::from(!truth.contains_key(&happening.pulse));
        }
        let counts = frame.counts;
        let used: u64 = frame.happenings.iter().map(|happening| u64::from(happening.clicks)).sum();
        let rest =
            counts.invalid + counts.unlocked + counts.preamble + counts.outside_gate + counts.dead + counts.repeated;
        assert_eq!(counts.clicks, used + rest, "frame {}", frame.frame);
    }
    let mut next = light.config.preamble_pulses;
    for frame in &seen.frames {
        assert!(frame.pulses.start >= next, "frame {}", frame.frame);
        next = frame.pulses.end;
    }
    seen
}

/// All is right but for dark counts that happened to fall into a gate.
fn assert_right(light: &Light, frames: u64) -> Seen {
    let seen = recover(light, frames).unwrap();
    let wrong = seen.wrong as f64 / seen.numbered as f64;
    assert!(seen.numbered > 500 && wrong < 0.02, "{} of {} wrong", seen.wrong, seen.numbered);
    seen
}

#[test]
fn pulses_have_their_numbers_whatever_the_clocks_do() {
    for (frequency, drift_per_s) in [(0.0, 0.0), (1.9e-7, 0.0), (-1.9e-7, 2e-9), (5e-8, -1e-8)] {
        for offset_ps in [-150_000_000.0, 0.0, 199_000_000.0] {
            let light = Light { frequency, drift_per_s, offset_ps, ..Light::new(decoy(Part::Receiver), 1) };
            let seen = assert_right(&light, 20);
            let status = seen.recovery.status();
            assert!((status.frequency - frequency).abs() < 2e-9, "{} for {frequency}", status.frequency);
            assert!(status.measurements > 3 && status.losses == 0);
        }
    }
}

#[test]
fn a_frequency_that_drifts_is_followed_over_many_intervals() {
    // 2e-6 per second for 0.4 s: phase would be 160 periods off without tracking, and 5 ps in an interval.
    let light = Light { drift_per_s: 2e-8, ..Light::new(decoy(Part::Receiver), 2) };
    let seen = assert_right(&light, 200);
    assert!(seen.recovery.status().residual_ps.abs() < 20.0, "{}", seen.recovery.status().residual_ps);
}

#[test]
fn a_session_may_begin_in_the_middle_of_a_receivers_time() {
    for first_frame in [1, 17, 4_000_000] {
        let light = Light { first_frame, ..Light::new(decoy(Part::Receiver), 3) };
        let seen = assert_right(&light, 12);
        assert_eq!(seen.frames[0].frame, first_frame);
    }
}

#[test]
fn time_bins_are_told_apart_at_half_a_period_and_at_less() {
    for separation_ps in [500.0, 300.0, 333.0] {
        let config =
            Prepared { encoding: Encoding::TimeBin { separation_ps }, gate_ps: 240.0, ..decoy(Part::Receiver) };
        let light = Light { transmittance: 0.03, ..Light::new(config, 4) };
        assert_right(&light, 12);
    }
}

#[test]
fn single_photons_are_numbered_by_their_states_alone() {
    let light = Light { jitter_ps: 300.0, dark_rate_hz: 200.0, ..Light::single_photons(single_photons(), 5) };
    let seen = assert_right(&light, 200);
    assert!(seen.recovery.status().settled);
}

#[test]
fn light_that_comes_back_soon_has_the_right_numbers_and_what_came_between_is_not_used() {
    let light = Light { dark_frames: 20..60, dark_rate_hz: 50_000.0, ..Light::new(decoy(Part::Receiver), 6) };
    let seen = recover(&light, 100).unwrap();
    let unlocked: u64 = seen.frames.iter().map(|frame| frame.counts.unlocked).sum();
    assert!(unlocked > 500);
    let after: usize = seen.frames[90..].iter().map(|frame| frame.happenings.len()).sum();
    assert!(after > 10_000 && (seen.wrong as f64) < 0.03 * seen.numbered as f64, "{after}, {} wrong", seen.wrong);
}

#[test]
fn a_clock_that_is_known_well_bridges_a_darkness_of_seconds() {
    let steady = Light { drift_per_s: 0.0, transmittance: 4e-3, ..Light::new(decoy(Part::Receiver), 19) };
    let light = Light { dark_frames: 200..1200, ..steady };
    let seen = assert_right(&light, 1230);
    let after: usize = seen.frames[1220..].iter().map(|frame| frame.happenings.len()).sum();
    assert!(after > 10_000 && seen.frames[400..1200].iter().all(|frame| frame.happenings.is_empty()), "{after}");
    assert_eq!((seen.recovery.status().losses, seen.recovery.darkness()), (0, None));
}

/// Frames that were numbered until recovery gave up, and why it did.
fn until_light(light: &Light, frames: u64) -> (Vec<Numbered>, RecoveryError) {
    let mut recovery = Recovery::new(&light.config, &light.emission, FRAME_PS);
    let mut numbered = Vec::new();
    for (frame, tags) in light.tags(frames).into_iter().enumerate() {
        let tags = tags.into_iter().map(|(tag, _)| tag).collect();
        recovery.push(light.first_frame + frame as u64, tags).unwrap();
        loop {
            match recovery.next_frame() {
                Ok(Some(next)) => numbered.push(next),
                Ok(None) => break,
                Err(error) => return (numbered, error),
            }
        }
    }
    panic!("nothing was noticed in {frames} frames");
}

#[test]
fn a_session_that_starts_in_darkness_waits_for_light_and_ends_when_it_comes() {
    let time_bin = Encoding::TimeBin { separation_ps: 500.0 };
    let time_bin = Prepared { encoding: time_bin, gate_ps: 240.0, ..decoy(Part::Receiver) };
    let dot = Prepared { preamble_pulses: 1 << 19, ..single_photons() };
    let dot = Light { transmittance: 0.1, dark_rate_hz: 500.0, ..Light::single_photons(dot, 13) };
    // With as many dark counts in a preamble as there is light in it, too.
    let noisy = Light { dark_rate_hz: 5e5, transmittance: 2e-3, ..Light::new(decoy(Part::Receiver), 14) };
    let dim = |light: Light| Light { transmittance: 4e-3, ..light };
    for light in [dim(Light::new(decoy(Part::Receiver), 15)), dim(Light::one_decoy(time_bin, 16)), noisy, dot] {
        let dark = 300;
        let light = Light { dark_frames: 0..dark, ..light };
        let (seen, why) = until_light(&light, dark + 20);
        assert_eq!(why, RecoveryError::LateLight);
        // A preamble takes up to four frames; the first stretch with light may have little of it.
        assert!((dark..dark + 10).contains(&(seen.len() as u64)), "{} frames", seen.len());
        let first = light.config.preamble_pulses;
        for frame in &seen {
            assert!(frame.pulses == (first..first) && frame.happenings.is_empty());
            assert_eq!(frame.counts.unlocked + frame.counts.invalid, frame.counts.clicks);
        }
    }
}

#[test]
fn a_darkness_in_which_numbers_are_lost_is_waited_out_and_ends_the_session_when_light_is_back() {
    // So soon after lock the frequency is not known well.
    let light = Light { dark_frames: 6..700, transmittance: 4e-3, ..Light::new(decoy(Part::Receiver), 17) };
    let (seen, why) = until_light(&light, 720);
    assert_eq!(why, RecoveryError::LockLost);
    assert!((700..710).contains(&seen.len()), "{} frames", seen.len());
    let used = |frames: &[Numbered]| frames.iter().map(|frame| frame.happenings.len()).sum::<usize>();
    assert!(used(&seen[..6]) > 5000 && used(&seen[200..]) == 0);
}

#[test]
fn a_clock_beside_the_light_numbers_pulses_after_any_darkness_and_from_a_dark_start_on() {
    // Pulses so close that the clocks alone would be uncertain of them in a few seconds.
    let sync = Sync::Distributed { delay_ps: 0.0 };
    let config = Prepared { period_ps: 100.0, gate_ps: 60.0, preamble_pulses: 0, sync, ..decoy(Part::Receiver) };
    let steady = Light { offset_ps: 0.0, frequency: 0.0, drift_per_s: 0.0, ..Light::new(config, 18) };
    let light = Light { jitter_ps: 8.0, transmittance: 1e-4, dark_rate_hz: 2000.0, ..steady };
    for dark_frames in [0..2500, 20..2500] {
        let back = dark_frames.end as usize;
        let before = dark_frames.start as usize;
        let light = Light { dark_frames, ..light.clone() };
        let seen = recover(&light, 2600).unwrap();
        let used = |frames: &[Numbered]| frames.iter().map(|frame| frame.happenings.len()).sum::<usize>();
        assert!(used(&seen.frames[back + 20..]) > 10_000 && used(&seen.frames[before + 200..back]) == 0);
        assert!((seen.wrong as f64) < 0.05 * seen.numbered as f64, "{} of {} wrong", seen.wrong, seen.numbered);
        let status = seen.recovery.status();
        assert_eq!((status.losses, status.acquisitions), (0, 1));
    }
}

#[test]
fn a_clock_beside_the_light_needs_no_preamble() {
    let config = Prepared { preamble_pulses: 0, sync: Sync::Distributed { delay_ps: 120.0 }, ..decoy(Part::Receiver) };
    let light = Light { offset_ps: 150.0, frequency: 0.0, drift_per_s: 0.0, ..Light::new(config, 7) };
    let seen = assert_right(&light, 12);
    assert_eq!(seen.frames[0].pulses.start, 0);
}

#[test]
fn a_wrong_preamble_is_refused_and_a_wrong_period_is_as_good_as_darkness() {
    let good = Light::new(decoy(Part::Receiver), 8);
    let mut other = good.clone();
    other.chosen.preamble_key = [1; 32];
    assert_eq!(recover(&other, 8).err(), Some(RecoveryError::NoPreamble));
    let late = Light { offset_ps: 260_000_000.0, ..good.clone() };
    assert_eq!(recover(&late, 8).err(), Some(RecoveryError::NoPreamble));
    for nothing in [Light { frequency: -3e-5, ..good.clone() }, Light { transmittance: 1e-9, ..good }] {
        let seen = recover(&nothing, 40).unwrap();
        assert_eq!((seen.numbered, seen.recovery.darkness()), (0, Some(&RecoveryError::LateLight)));
    }
}

#[test]
fn a_session_that_ends_within_its_preamble_numbers_nothing() {
    let mut config = decoy(Part::Receiver);
    config.preamble_pulses = 8 << 20;
    let seen = recover(&Light::new(config, 9), 3).unwrap();
    assert_eq!(seen.numbered, 0);
    assert!(seen.frames.iter().all(|frame| frame.counts.unlocked == frame.counts.clicks && frame.pulses.is_empty()));
}

#[test]
fn the_preamble_that_is_looked_for_is_the_one_that_a_transmitter_sends() {
    let light = Light::new(decoy(Part::Receiver), 10);
    let intensity = |mean_photons: &f64| Intensity { mean_photons: *mean_photons, probability: 1.0 / 3.0 };
    let transmitter = Transmitter {
        repetition_rate_hz: 1e9,
        encoding: photonics::config::Encoding::Polarisation,
        light: photonics::config::Light::Coherent(light.emission.mean_photons().iter().map(intensity).collect()),
        z_probability: 0.8,
        intrinsic_error: [0.0; 2],
        pulse_fwhm_ps: 0.0,
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
        preamble_pulses: light.config.preamble_pulses,
        steps: vec![],
    };
    let choices = Choices::new(&transmitter, ChoiceKey::new(&[5; 32]));
    for pulse in (0..2000).chain(light.config.preamble_pulses - 2000..light.config.preamble_pulses) {
        let sent = choices.at(pulse);
        let state = (sent.basis() as usize, usize::from(sent.bit()), sent.intensity());
        // The light of these tests, whose preamble recovery finds.
        assert_eq!(state, light.chosen.at(pulse), "pulse {pulse}");
    }
}

/// Clicks at these times and detectors, whose clock comes beside the light: numbers and outcomes of what is used.
fn numbered(encoding: Encoding, clicks: &[(u64, u64)]) -> (Vec<(u64, u8, u32)>, u64) {
    let sync = Sync::Distributed { delay_ps: -500.0 };
    let base = decoy(Part::Receiver);
    let config = Prepared { preamble_pulses: 0, sync, encoding, gate_ps: 240.0, dead_time_ps: 4000.0, ..base };
    let light = Light::new(config, 11);
    let mut recovery = Recovery::new(&light.config, &light.emission, FRAME_PS);
    // In two frames: a dead detector knows nothing of them. The session began a frame before.
    recovery.push(0, Vec::new()).unwrap();
    assert!(recovery.next_frame().unwrap().unwrap().happenings.is_empty());
    let (mut used, mut dead) = (Vec::new(), 0);
    for frame in 0..2 {
        let of_frame = clicks.iter().filter(|(at_ps, _)| at_ps / FRAME_PS == frame);
        let tags = of_frame.map(|(at_ps, port)| ((FRAME_PS + at_ps) / 4) << 10 | 1 << port).collect();
        recovery.push(frame + 1, tags).unwrap();
        let next = recovery.next_frame().unwrap().unwrap();
        let before = FRAME_PS / 1000;
        used.extend(next.happenings.iter().map(|seen| (seen.pulse - before, seen.outcomes, seen.clicks)));
        dead += next.counts.dead;
    }
    (used, dead)
}

#[test]
fn clicks_of_one_pulse_are_one_detection_and_those_of_a_dead_receiver_are_dropped_of_both_bases_alike() {
    let numbered = |clicks: &[(u64, u64)]| numbered(Encoding::Detectors, clicks);
    let doubles = [(1000, 0), (1100, 1), (10_000, 2), (20_000, 3), (20_100, 2)];
    assert_eq!(numbered(&doubles), (vec![(1, 0b11, 2), (10, 0b100, 1), (20, 0b1100, 2)], 0));
    // The third click is dropped because of the second one, which was dropped itself; so is a second click of its
    // pulse.
    let dead = [(1000, 0), (4000, 2), (7000, 1), (7100, 0), (12_000, 3), (17_000, 0)];
    assert_eq!(numbered(&dead), (vec![(1, 1, 1), (12, 0b1000, 1), (17, 1, 1)], 3));
    // A click that is of no pulse makes its detector dead all the same, in the next frame too.
    assert_eq!(numbered(&[(1500, 0), (4000, 1), (9000, 1)]), (vec![(9, 0b10, 1)], 1));
    let late = FRAME_PS - 2000;
    let number = late / 1000;
    assert_eq!(
        numbered(&[(late, 0), (late + 4000, 1), (late + 9000, 2)]),
        (vec![(number, 1, 1), (number + 9, 4, 1)], 1)
    );
}

#[test]
fn detectors_may_be_dead_when_a_session_starts_by_clicks_that_were_before_it() {
    for first_frame in [0, 7] {
        let sync = Sync::Distributed { delay_ps: -500.0 };
        let config =
            Prepared { preamble_pulses: 0, sync, gate_ps: 240.0, dead_time_ps: 4000.0, ..decoy(Part::Receiver) };
        let light = Light::new(config, 12);
        let mut recovery = Recovery::new(&light.config, &light.emission, FRAME_PS);
        let tag = |at_ps: u64| ((first_frame * FRAME_PS + at_ps) / 4) << 10 | 1;
        recovery.push(first_frame, [4000, 9000].map(tag).to_vec()).unwrap();
        let seen = recovery.next_frame().unwrap().unwrap();
        assert_eq!(seen.happenings.iter().map(|seen| seen.pulse).collect::<Vec<_>>(), [9]);
        assert_eq!(seen.counts.dead, 1);
    }
}

#[test]
fn a_detector_that_comes_back_between_early_and_late_says_nothing_of_that_pulse() {
    let time_bin = Encoding::TimeBin { separation_ps: 500.0 };
    // Dead until 5000: the whole of pulse 5 would be seen, but for what its gate leaves; pulse 6 counts.
    assert_eq!(numbered(time_bin, &[(1000, 0), (5500, 0)]), (vec![(1, 1, 1)], 1));
    assert_eq!(numbered(time_bin, &[(1000, 0), (6500, 0)]), (vec![(1, 1, 1), (6, 0b10, 1)], 0));
}
