//! Clicks against the closed formulae: dead time on, drifts, loops and afterpulses off.

#![allow(clippy::unwrap_used)]

mod common;

use common::{EPOCH_PS, FRAME_PS, STILL, analyser, arm, clock, detector, emitter, source, subseed, tags};
use photonics::config::{Detector, EnergyTimeAnalyser, SpdcCw};
use photonics::expect::{Bbm92Inputs, Matching, predict};
use photonics::receiver::{Frame, Instrument};

/// Differences of tags are multiples of 4 ps: those up to 60 ps are 31 steps, a window of 124 ps.
const LARGEST_DIFFERENCE_PS: i64 = 60;
const WINDOW_PS: f64 = 124.0;

/// The 50 km link of Nice.
struct Link {
    source: SpdcCw,
    losses_db: [f64; 2],
    analyser: EnergyTimeAnalyser,
    detector: Detector,
}

fn nice() -> Link {
    let mut source = source(3.25e8);
    source.visibility = 0.9925;
    let mut analyser = analyser();
    (analyser.visibility, analyser.crosstalk) = (0.997, 0.0015);
    let mut detector = detector();
    (detector.efficiency, detector.jitter_fwhm_ps) = (0.85, 64.0);
    (detector.dark_rate_hz, detector.dead_time_ps) = (100.0, 30_000.0);
    Link { source, losses_db: [14.394, 17.694], analyser, detector }
}

impl Link {
    fn inputs(&self) -> Bbm92Inputs {
        let arms = self.losses_db.map(arm);
        let (arms, analysers) = ([&arms[0], &arms[1]], [&self.analyser; 2]);
        photonics::expect::from_config(&self.source, arms, analysers, [&self.detector; 2], WINDOW_PS, 1.0)
    }

    /// Hands the clicks of both ends to `see`, frame by frame.
    fn run(&self, seconds: f64, mut see: impl FnMut(&[(i64, u8)], &[(i64, u8)])) -> f64 {
        let arms = self.losses_db.map(arm);
        let mut emitter = emitter(&self.source, [&arms[0], &arms[1]], &self.analyser, &self.detector, EPOCH_PS);
        let mut ends = ["a", "b"].map(|end| {
            let subseed = subseed().derive(end);
            Instrument::new(&self.detector, &clock(), &self.analyser, EPOCH_PS, FRAME_PS, &subseed)
        });
        ends.iter_mut().for_each(|end| end.start(0));
        let mut waiting: [Vec<Frame>; 2] = [vec![], vec![]];
        let mut frames = 0u64;
        for epoch in 0..(seconds * 1e12 / EPOCH_PS as f64) as u64 {
            let photons = emitter.emit(epoch, 1.0, [&STILL; 2]);
            for ((end, photons), waiting) in ends.iter_mut().zip(&photons).zip(&mut waiting) {
                end.detect(epoch, &photons.words, waiting).unwrap();
            }
            while !waiting[0].is_empty() && !waiting[1].is_empty() {
                let [a, b] = [waiting[0].remove(0), waiting[1].remove(0)];
                assert_eq!(a.number, b.number);
                see(&tags(&[a]), &tags(&[b]));
                frames += 1;
            }
        }
        frames as f64 * FRAME_PS as f64 * 1e-12
    }
}

#[derive(Default)]
struct Basis {
    kept: u64,
    wrong: u64,
}

/// Fails where a measured value is further than 3 standard deviations from what was predicted.
#[track_caller]
fn assert_within(what: &str, measured: f64, predicted: f64, sigma: f64) {
    let off = (measured - predicted) / sigma;
    println!("{what}: {measured:.6e} predicted {predicted:.6e} ({off:+.2} sigma, {:+.2e})", measured / predicted - 1.0);
    assert!(off.abs() <= 3.0, "{what}: {measured} is {off:.1} standard deviations from {predicted}");
}

fn assert_basis(what: &str, counted: &Basis, predicted: &photonics::expect::bbm92::BasisPrediction, seconds: f64) {
    let (kept, mean) = (counted.kept as f64, predicted.sifted_hz * seconds);
    assert_within(&format!("sifted {what}"), kept, mean, mean.sqrt());
    let sigma = (predicted.qber * (1.0 - predicted.qber) / kept).sqrt();
    assert_within(&format!("QBER {what}"), counted.wrong as f64 / kept, predicted.qber, sigma);
}

#[test]
fn clicks_and_coincidences_are_what_the_formulae_say() {
    let link = nice();
    let mut clicks = [[0u64; 4]; 2];
    let mut bases = [Basis::default(), Basis::default()];
    let seconds = link.run(6.0, |a, b| {
        for (end, clicked) in [a, b].into_iter().enumerate() {
            clicked.iter().for_each(|(_, port)| clicks[end][usize::from(*port)] += 1);
        }
        for (_, pa, pb) in common::coincidences(a, b, LARGEST_DIFFERENCE_PS) {
            if pa / 2 == pb / 2 {
                let basis = &mut bases[usize::from(pa / 2)];
                basis.kept += 1;
                basis.wrong += u64::from(pa != pb);
            }
        }
    });
    let prediction = predict(&link.inputs());
    for (end, clicks) in clicks.iter().enumerate() {
        for (port, &count) in clicks.iter().enumerate() {
            let sigma = prediction.click_count_sigma(end, port, seconds);
            let mean = prediction.click_rate_hz[end][port] * seconds;
            assert_within(&format!("clicks of end {end}, port {port}"), count as f64, mean, sigma);
        }
    }
    assert_basis("Z", &bases[0], &prediction.z, seconds);
    assert_basis("X", &bases[1], &prediction.x, seconds);
}

/// An event as a module announces it: time of the first click, basis, and the bit if it is not random.
struct Event {
    time_ps: i64,
    basis: u8,
    bit: Option<u8>,
}

/// Clicks within a window of the one before are one event; of both bases it is none.
fn events(clicks: &[(i64, u8)]) -> Vec<Event> {
    let mut events = vec![];
    let mut first = 0;
    while first < clicks.len() {
        let near = |i: &usize| clicks[*i].0 - clicks[*i - 1].0 <= 2 * LARGEST_DIFFERENCE_PS;
        let end = (first + 1..clicks.len()).take_while(near).last().map_or(first + 1, |last| last + 1);
        let (time_ps, port) = clicks[first];
        if clicks[first..end].iter().all(|(_, other)| other / 2 == port / 2) {
            events.push(Event { time_ps, basis: port / 2, bit: (end == first + 1).then_some(port % 2) });
        }
        first = end;
    }
    events
}

#[test]
fn unique_matching_costs_what_the_formulae_say() {
    let link = nice();
    let dead_time_ps = link.detector.dead_time_ps as i64;
    let mut bases = [Basis::default(), Basis::default()];
    let mut random = 0u64;
    let seconds = link.run(6.0, |a, b| {
        let [a, b] = [events(a), events(b)];
        let (mut start, mut last_kept_ps) = (0, i64::MIN / 2);
        for event in &a {
            while start < b.len() && b[start].time_ps < event.time_ps - LARGEST_DIFFERENCE_PS {
                start += 1;
            }
            let near = b[start..].iter().take_while(|other| other.time_ps <= event.time_ps + LARGEST_DIFFERENCE_PS);
            let [other] = near.collect::<Vec<_>>()[..] else { continue };
            if other.basis != event.basis || event.time_ps - last_kept_ps <= dead_time_ps {
                continue;
            }
            last_kept_ps = event.time_ps;
            let basis = &mut bases[usize::from(event.basis)];
            basis.kept += 1;
            basis.wrong += match (event.bit, other.bit) {
                (Some(own), Some(peer)) => u64::from(own != peer),
                // Every second random bit is wrong.
                _ => {
                    random += 1;
                    random % 2
                }
            };
        }
    });
    let mut inputs = link.inputs();
    inputs.matching = Matching { merge_doubles: true, kept_dead_time_ps: dead_time_ps as f64 };
    let prediction = predict(&inputs);
    assert_basis("Z", &bases[0], &prediction.z, seconds);
    assert_basis("X", &bases[1], &prediction.x, seconds);
    assert!(random > 0);
}
