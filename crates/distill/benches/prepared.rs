//! Time per click of sifting decoy pulses, at either end: the T12 link at 50 km.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use distill::config::{Emission, Framing, Intensity};
use distill::loops::Setpoints;
use distill::sifting::prepared::config::{Basis, Encoding, Loops, Part, Prepared, Search, Sync};
use distill::sifting::prepared::half;
use distill::sifting::{Choice, Choices, Context, FrameInput, Light, Sifting, SiftingStart};
use photonics::analyser::AnalyserState;
use photonics::nature::pulses::{self, ChoiceKey};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

#[path = "common/core_time.rs"]
mod core_time;
#[allow(dead_code)]
#[path = "../../photonics/benches/common/t12.rs"]
mod t12;
use core_time::core_time;

/// Frames of 20 ms before the measured ones: the preamble and a first tracking interval.
const WARM_UP: usize = 12;
const MEASURED: usize = 25;

struct Sent(pulses::Choices);

impl Choices for Sent {
    fn fill(&self, pulses: &[u64], choices: &mut [Choice]) {
        let mut own = vec![pulses::Choice::new(0, photonics::config::Basis::Z, false); pulses.len()];
        self.0.fill(pulses, &mut own);
        for (choice, own) in choices.iter_mut().zip(own) {
            let x = own.basis() == photonics::config::Basis::X;
            *choice = Choice { x, bit: own.bit(), intensity: own.intensity() as u8 };
        }
    }
}

fn config(part: Part) -> Prepared {
    Prepared {
        part,
        period_ps: 1e12 / t12::RATE_HZ,
        encoding: Encoding::Detectors,
        key_basis: Basis::Z,
        gate_ps: 400.0,
        dead_time_ps: 0.0,
        preamble_pulses: t12::PREAMBLE_PULSES,
        sync: Sync::Photons(Search { reach_ps: 200_000_000, frequency: 1e-7 }),
        tracking_interval_ps: 100_000_000_000,
        loops: Loops::OFF,
    }
}

fn emission() -> Emission {
    let light = t12::transmitter().light;
    let intensity = |(mean_photons, probability)| Intensity { mean_photons, probability };
    let mut intensities = light.mean_photons().into_iter().zip(light.probabilities()).map(intensity);
    Emission::TwoDecoys(std::array::from_fn(|_| intensities.next().unwrap()))
}

/// Frames of the receiver's tags, with their numbers.
fn frames() -> Vec<(u64, Vec<u64>)> {
    let (mut emitter, mut instrument, state) = (t12::emitter(), t12::instrument(), AnalyserState::default());
    let mut frames = Vec::new();
    instrument.start(0);
    for epoch in 0..(WARM_UP + MEASURED) as u64 + 1 {
        let photons = emitter.emit(epoch, [&state; 2]);
        instrument.detect(epoch, &photons.words, &mut frames).unwrap();
    }
    frames.truncate(WARM_UP + MEASURED);
    frames.into_iter().map(|frame| (frame.number, frame.tags.to_vec())).collect()
}

struct End {
    half: Box<dyn Sifting>,
    rng: ChaCha20Rng,
    said: Vec<u8>,
}

impl End {
    fn new(part: Part) -> Self {
        let framing = Framing { frame_ps: t12::EPOCH_PS, round_frames: 50 };
        let start = SiftingStart { latency_steps: 1, setpoints: Setpoints::default() };
        let half = half(framing, &config(part), &emission(), &start);
        Self { half, rng: ChaCha20Rng::from_seed([7; 32]), said: Vec::new() }
    }

    fn step(&mut self, step: u64, frame: FrameInput, heard: &[u8]) {
        let mut events = Vec::new();
        let mut context = Context { step, rng: &mut self.rng, events: &mut events };
        if !heard.is_empty() {
            self.half.hear(heard, &mut context).unwrap();
        }
        self.half.take(frame, &mut context).unwrap();
        self.said = self.half.say(&mut context).unwrap();
        while self.half.next_round().is_some() {}
    }
}

/// Time of each end for the measured frames.
fn run(frames: &[(u64, Vec<u64>)], origin: Instant) -> [Duration; 2] {
    let mut ends = [End::new(Part::Transmitter), End::new(Part::Receiver)];
    let choices: Arc<dyn Choices> =
        Arc::new(Sent(pulses::Choices::new(&t12::transmitter(), ChoiceKey::new(&t12::TRANSMITTER_KEY))));
    let mut spent = [Duration::ZERO; 2];
    for (step, (number, tags)) in (0u64..).zip(frames) {
        let heard = [ends[1].said.clone(), ends[0].said.clone()];
        let sent = (step + 1) * t12::EPOCH_PS / 1000;
        let light = [Light::Pulses { choices: Arc::clone(&choices), sent }, Light::Tags(tags.clone())];
        for (end, light) in light.into_iter().enumerate() {
            let frame = FrameInput { number: *number, light, traceparent: String::new() };
            let begin = core_time(origin);
            ends[end].step(step, frame, &heard[end]);
            if step >= WARM_UP as u64 {
                spent[end] += core_time(origin) - begin;
            }
        }
    }
    let figures = ends[1].half.figures();
    assert!(figures.locked && figures.sifted_key > 0, "{figures:?}");
    spent
}

fn sifting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sift decoys");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    let frames = frames();
    group.throughput(Throughput::Elements(frames[WARM_UP..].iter().map(|frame| frame.1.len() as u64).sum()));
    for (name, end) in [("transmitter, per click", 0), ("receiver, per click", 1)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let origin = Instant::now();
                (0..iterations).map(|_| run(&frames, origin)[end]).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sifting);
criterion_main!(benches);
