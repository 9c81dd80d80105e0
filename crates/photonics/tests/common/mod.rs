//! Instruments without faults, for tests to spoil one thing at a time.

#![allow(dead_code)]

pub mod guard;
pub mod prepared;

use photonics::analyser::AnalyserState;
use photonics::config::{Arm, Clock, Detector, EnergyTimeAnalyser, Polarisation, SpdcCw};
use photonics::nature::pairs::Emitter;
use photonics::photons::{Photons, unpack};
use photonics::random::Subseed;
use photonics::receiver::{Frame, Instrument};
use photonics::tag::{UNIT_PS, units};

pub const EPOCH_PS: u64 = 20_000_000_000;
pub const FRAME_PS: u64 = 20_000_000_000;
pub const SEED: u8 = 42;

pub fn subseed() -> Subseed {
    println!("seed {SEED}");
    Subseed::new([SEED; 32]).derive("link")
}

pub fn source(pair_rate_hz: f64) -> SpdcCw {
    SpdcCw { pair_rate_hz, visibility: 1.0, bandwidth_nm: 0.8, pump_max: 2.0, steps: vec![] }
}

pub fn arm(loss_db: f64) -> Arm {
    Arm {
        length_km: 0.0,
        loss_db,
        delay_ps: 0.0,
        delay_drift_amplitude_ps: 0.0,
        delay_drift_period_s: 0.0,
        dispersion_ps_per_nm: 0.0,
        polarisation: Polarisation {
            initial_rad: [0.0; 2],
            drift_amplitude_rad: 0.0,
            drift_period_s: 0.0,
            dependent_loss: 0.0,
            steps: vec![],
        },
    }
}

pub fn analyser() -> EnergyTimeAnalyser {
    EnergyTimeAnalyser {
        delay_ps: 400.0,
        z_probability: 0.5,
        visibility: 1.0,
        crosstalk: 0.0,
        phase_initial_rad: 0.0,
        phase_drift_rad_per_s: 0.0,
        phase_noise_rad_per_sqrt_s: 0.0,
        steps: vec![],
    }
}

pub fn detector() -> Detector {
    Detector {
        efficiency: 1.0,
        jitter_fwhm_ps: 0.0,
        dark_rate_hz: 0.0,
        dead_time_ps: 0.0,
        afterpulse_probability: 0.0,
        afterpulse_decay_ps: 0.0,
        latch_probability: 0.0,
        latch_reset_ps: 0.0,
        tdc_resolution_ps: 4.0,
        skew_ps: [0.0; 4],
    }
}

pub fn clock() -> Clock {
    Clock { offset_ps: 0.0, frequency_error: 0.0, frequency_walk_per_sqrt_s: 0.0, phase_walk_ps_per_sqrt_s: 0.0 }
}

/// An emitter with equal ends.
pub fn emitter(
    source: &SpdcCw,
    arms: [&Arm; 2],
    analyser: &EnergyTimeAnalyser,
    detector: &Detector,
    epoch_ps: u64,
) -> Emitter {
    Emitter::new(source, arms, [analyser; 2], [detector; 2], epoch_ps, &subseed().derive("source"))
}

pub fn instrument(detector: &Detector, clock: &Clock, epoch_ps: u64, end: &str) -> Instrument {
    Instrument::new(detector, clock, &analyser(), epoch_ps, FRAME_PS, &subseed().derive(end))
}

pub const STILL: AnalyserState = AnalyserState { phase_rad: 0.0, polarisation_rad: [0.0; 2] };

/// Photons of an epoch with absolute times.
pub fn unpacked(photons: &Photons, epoch: u64, epoch_ps: u64) -> Vec<(i64, u8)> {
    let list = unpack(&photons.words).unwrap();
    assert_eq!(list.len(), photons.count as usize);
    list.into_iter().map(|(t, port)| (t + (epoch * epoch_ps) as i64, port)).collect()
}

/// The photons of both outputs over some epochs.
pub fn emit(
    emitter: &mut Emitter,
    epochs: std::ops::Range<u64>,
    epoch_ps: u64,
    state: &AnalyserState,
) -> [Vec<(i64, u8)>; 2] {
    let mut all = [vec![], vec![]];
    for epoch in epochs {
        let photons = emitter.emit(epoch, 1.0, [state, &STILL]);
        for (all, photons) in all.iter_mut().zip(&photons) {
            all.extend(unpacked(photons, epoch, epoch_ps));
        }
    }
    all
}

/// Lets an instrument see what an emitter's first output gives; all frames, and the last incomplete one.
pub fn detect(instrument: &mut Instrument, emitter: &mut Emitter, epochs: std::ops::Range<u64>) -> Vec<Frame> {
    let mut frames = vec![];
    instrument.start(epochs.start);
    for epoch in epochs {
        let [photons, _] = emitter.emit(epoch, 1.0, [&STILL; 2]);
        instrument.detect(epoch, &photons.words, &mut frames).unwrap();
    }
    frames
}

/// Times in ps and ports of all tags, after checking that they are in order and in their frames.
pub fn tags(frames: &[Frame]) -> Vec<(i64, u8)> {
    let mut previous = 0;
    let mut list = vec![];
    for (i, frame) in frames.iter().enumerate() {
        assert_eq!(frame.number, frames[0].number + i as u64);
        for &tag in &frame.tags {
            assert!(tag > previous, "strictly ascending");
            previous = tag;
            let pattern = tag & 0x3FF;
            assert_eq!(pattern.count_ones(), 1);
            assert_eq!(units(tag) * UNIT_PS / FRAME_PS, frame.number);
            list.push(((units(tag) * UNIT_PS) as i64, pattern.trailing_zeros() as u8));
        }
    }
    list
}

/// Pairs of events of two lists closer than `within_ps`, as (difference of second and first, ports).
pub fn coincidences(a: &[(i64, u8)], b: &[(i64, u8)], within_ps: i64) -> Vec<(i64, u8, u8)> {
    let mut found = vec![];
    let mut first = 0;
    for &(ta, pa) in a {
        while first < b.len() && b[first].0 < ta - within_ps {
            first += 1;
        }
        for &(tb, pb) in b[first..].iter().take_while(|&&(tb, _)| tb <= ta + within_ps) {
            found.push((tb - ta, pa, pb));
        }
    }
    found
}

/// Fails where a count is further than 3 standard deviations from a binomial's mean.
#[track_caller]
pub fn assert_fraction(hits: usize, of: usize, p: f64, what: &str) {
    let (n, hits) = (of as f64, hits as f64);
    let sigma = (n * p * (1.0 - p)).sqrt();
    assert!((hits - n * p).abs() <= 3.0 * sigma + 1e-9, "{what}: {hits} of {n}, expected {} +- {sigma}", n * p);
}

/// Fails where a count is further than 3 standard deviations from a Poisson mean.
#[track_caller]
pub fn assert_count(count: usize, mean: f64, what: &str) {
    let sigma = mean.sqrt();
    assert!((count as f64 - mean).abs() <= 3.0 * sigma, "{what}: {count}, expected {mean} +- {sigma}");
}
