//! The numbers of the T12 link at 50 km: time per click of every stage of a prepared link.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use photonics::analyser::AnalyserState;
use photonics::config::{
    Arm, Basis, BasisChoice, Clock, Encoding, GatedAvalanche, Intensity, Light, PhaseDrift, Polarisation,
    PreparedAnalyser, PreparedDetectors, Transmitter,
};
use photonics::nature::pulses::{Choice, ChoiceKey, Choices, Emitter};
use photonics::photons::Photons;
use photonics::random::Subseed;
use photonics::receiver::{Frame, Guard, Instrument};
use std::hint::black_box;

const EPOCH_PS: u64 = 20_000_000_000;
const EPOCHS: u64 = 20;
const RATE_HZ: f64 = 1e9;
const EFFICIENCY: f64 = 0.205;

fn transmitter() -> Transmitter {
    let w = 1.0 / 256.0;
    let intensity = |(mean_photons, probability)| Intensity { mean_photons, probability };
    Transmitter {
        repetition_rate_hz: RATE_HZ,
        encoding: Encoding::Phase,
        light: Light::Coherent([(0.425, 1.0 - 3.0 * w), (0.044, 2.0 * w), (0.001, w)].map(intensity).to_vec()),
        z_probability: 15.0 / 16.0,
        intrinsic_error: [0.01277, 0.00616],
        pulse_fwhm_ps: 50.0,
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
        preamble_pulses: 0,
        steps: vec![],
    }
}

fn arm() -> Arm {
    Arm {
        length_km: 50.0,
        loss_db: 12.84,
        delay_ps: 245e6,
        delay_drift_amplitude_ps: 1000.0,
        delay_drift_period_s: 86_400.0,
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

fn analyser() -> PreparedAnalyser {
    PreparedAnalyser {
        encoding: Encoding::Phase,
        basis_choice: BasisChoice::Active,
        z_probability: 15.0 / 16.0,
        error: [0.0; 2],
        bin_separation_ps: 0.0,
        phase: PhaseDrift::default(),
    }
}

fn detectors() -> PreparedDetectors {
    PreparedDetectors::GatedAvalanche(GatedAvalanche {
        efficiency: EFFICIENCY,
        jitter_fwhm_ps: 100.0,
        gate_width_ps: 400.0,
        dark_probability: 2.1e-5,
        afterpulse_probability: 0.0525,
        afterpulse_decay_gates: 20.0,
        hold_off_gates: 0,
        saturation_hz: 0.0,
        tdc_resolution_ps: 4.0,
        skew_ps: [0.0; 4],
    })
}

fn emitter() -> Emitter {
    let mut emitter = Emitter::new(&transmitter(), &arm(), &analyser(), EFFICIENCY, EPOCH_PS, &Subseed::new([1; 32]));
    emitter.start(0, ChoiceKey::new(&[3; 32]), Some(ChoiceKey::new(&[4; 32])));
    emitter
}

fn instrument() -> Instrument {
    let clock = Clock {
        offset_ps: 3e9,
        frequency_error: 7e-12,
        frequency_walk_per_sqrt_s: 1e-13,
        phase_walk_ps_per_sqrt_s: 1.0,
    };
    let subseed = Subseed::new([2; 32]);
    let mut instrument = Instrument::pulsed(&detectors(), &clock, &analyser(), RATE_HZ, EPOCH_PS, EPOCH_PS, &subseed);
    instrument.choose_bases(0, Some(ChoiceKey::new(&[4; 32])));
    instrument
}

/// The photons of some epochs.
fn light() -> Vec<Photons> {
    let (mut emitter, state) = (emitter(), AnalyserState::default());
    (0..EPOCHS).map(|epoch| emitter.emit(epoch, [&state; 2])).collect()
}

/// The tags that they make.
fn frames() -> Vec<Frame> {
    let (mut instrument, mut frames) = (instrument(), Vec::new());
    instrument.start(0);
    for (epoch, photons) in (0..).zip(light()) {
        instrument.detect(epoch, &photons.words, &mut frames).expect("the emitter's own photons");
    }
    frames
}

fn prepared(c: &mut Criterion) {
    let mut group = c.benchmark_group("prepared");
    let (mut emitter, state) = (emitter(), AnalyserState::default());
    let mut epoch = 0;
    let count = emitter.emit(0, [&state; 2]).count;
    group.throughput(Throughput::Elements(u64::from(count)));
    group.bench_function("emit, per photon", |b| {
        b.iter(|| {
            epoch += 1;
            black_box(emitter.emit(epoch, [&state; 2]))
        });
    });

    let light = light();
    let mut instrument = instrument();
    let mut out = Vec::new();
    group.throughput(Throughput::Elements(light.iter().map(|photons| u64::from(photons.count)).sum()));
    group.bench_function("detect, per photon", |b| {
        b.iter(|| {
            instrument.start(0);
            for (epoch, photons) in (0..).zip(&light) {
                instrument.detect(epoch, &photons.words, &mut out).expect("the emitter's own photons");
                out.drain(..).for_each(|frame| instrument.recycle(frame));
            }
        });
    });

    let frames = frames();
    let tags: u64 = frames.iter().map(|frame| frame.tags.len() as u64).sum();
    group.throughput(Throughput::Elements(tags));
    let mut detections = Vec::new();
    group.bench_function("guard, per tag", |b| {
        b.iter(|| {
            let mut guard = Guard::new(450.0, 0.0);
            detections.clear();
            frames.iter().for_each(|frame| guard.take(&frame.tags, &mut detections));
            guard.tally()
        });
    });

    let choices = Choices::new(&transmitter(), ChoiceKey::new(&[3; 32]));
    let pulses: Vec<u64> = (0..100_000).map(|click| click * 208).collect();
    let mut chosen = vec![Choice::new(0, Basis::Z, false); pulses.len()];
    group.throughput(Throughput::Elements(pulses.len() as u64));
    group.bench_function("look up what a pulse was", |b| b.iter(|| choices.fill(&pulses, black_box(&mut chosen))));
    group.finish();
}

criterion_group!(benches, prepared);
criterion_main!(benches);
