//! The numbers of the Nice 50 km link: time per photon of every stage.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kernels::exponential::{CHUNK, Gaps, PHOTON_WORDS};
use kernels::philox;
use photonics::analyser::AnalyserState;
use photonics::config::{Arm, Clock, Detector, EnergyTimeAnalyser, Polarisation, SpdcCw};
use photonics::nature::pairs::Emitter;
use photonics::photons::Photons;
use photonics::random::Subseed;
use photonics::receiver::Instrument;
use std::hint::black_box;

const EPOCH_PS: u64 = 20_000_000_000;
const EFFICIENCY: f64 = 0.85;

fn arm(total_db: f64, length_km: f64) -> Arm {
    Arm {
        length_km,
        loss_db: total_db + 10.0 * EFFICIENCY.log10(),
        delay_ps: length_km * 4.9e6,
        delay_drift_amplitude_ps: 1000.0,
        delay_drift_period_s: 86_400.0,
        dispersion_ps_per_nm: 30.0,
        polarisation: Polarisation {
            initial_rad: [0.1, 0.0],
            drift_amplitude_rad: 0.5,
            drift_period_s: 36_000.0,
            dependent_loss: 0.1,
            steps: vec![],
        },
    }
}

fn analyser() -> EnergyTimeAnalyser {
    EnergyTimeAnalyser {
        delay_ps: 400.0,
        z_probability: 0.5,
        visibility: 0.997,
        crosstalk: 0.001,
        phase_initial_rad: 0.1,
        phase_drift_rad_per_s: 1e-7,
        phase_noise_rad_per_sqrt_s: 1e-4,
        steps: vec![],
    }
}

fn detector() -> Detector {
    Detector {
        efficiency: EFFICIENCY,
        jitter_fwhm_ps: 55.0,
        dark_rate_hz: 100.0,
        dead_time_ps: 30_000.0,
        afterpulse_probability: 1e-3,
        afterpulse_decay_ps: 1e5,
        latch_probability: 1e-9,
        latch_reset_ps: 1e9,
        tdc_resolution_ps: 4.0,
        skew_ps: [0.0, 1.0, -1.0, 2.0],
    }
}

fn emitter() -> Emitter {
    let source = SpdcCw { pair_rate_hz: 3.2e8, visibility: 0.99, bandwidth_nm: 0.8, pump_max: 2.0, steps: vec![] };
    let arms = [&arm(15.1, 19.2), &arm(18.4, 32.7)];
    Emitter::new(&source, arms, [&analyser(); 2], [&detector(); 2], EPOCH_PS, &Subseed::new([1; 32]))
}

fn instrument() -> Instrument {
    let clock = Clock {
        offset_ps: 3e9,
        frequency_error: 7e-12,
        frequency_walk_per_sqrt_s: 1e-13,
        phase_walk_ps_per_sqrt_s: 1.0,
    };
    Instrument::new(&detector(), &clock, &analyser(), EPOCH_PS, EPOCH_PS, &Subseed::new([2; 32]))
}

fn random(c: &mut Criterion) {
    let mut group = c.benchmark_group("random");
    let mut words = vec![0; 4096];
    group.throughput(Throughput::Elements(words.len() as u64));
    group.bench_function("philox word", |b| b.iter(|| philox::fill([1, 2], [0; 4], black_box(&mut words))));
    group.bench_function("philox word, portable", |b| {
        b.iter(|| philox::fill_portable([1, 2], [0; 4], black_box(&mut words)));
    });
    let mut random = [0; PHOTON_WORDS];
    philox::fill([1, 2], [0; 4], &mut random);
    let mut photons = [0; CHUNK];
    let gaps = Gaps::new(1e5).expect("the mean is in range");
    group.throughput(Throughput::Elements(CHUNK as u64));
    group.bench_function("gap and port", |b| b.iter(|| gaps.photons(1 << 22, &random, black_box(&mut photons))));
    group.finish();
}

fn emit(c: &mut Criterion) {
    let mut group = c.benchmark_group("emit");
    let mut emitter = emitter();
    let state = AnalyserState::default();
    let mut epoch = 0;
    let count: u32 = emitter.emit(0, 1.0, [&state; 2]).iter().map(|photons| photons.count).sum();
    group.throughput(Throughput::Elements(u64::from(count)));
    group.bench_function("photon of both outputs", |b| {
        b.iter(|| {
            epoch += 1;
            black_box(emitter.emit(epoch, 1.0, [&state; 2]))
        });
    });
    group.finish();
}

fn detect(c: &mut Criterion) {
    let mut group = c.benchmark_group("detect");
    let mut emitter = emitter();
    let state = AnalyserState::default();
    let epochs: Vec<[Photons; 2]> = (0..20).map(|epoch| emitter.emit(epoch, 1.0, [&state; 2])).collect();
    for output in 0..2 {
        let photons = epochs.iter().map(|photons| u64::from(photons[output].count)).sum();
        group.throughput(Throughput::Elements(photons));
        let mut instrument = instrument();
        let mut frames = Vec::new();
        group.bench_function(format!("photon of output {output}"), |b| {
            b.iter_batched_ref(
                || (),
                |()| {
                    instrument.start(0);
                    for (epoch, photons) in epochs.iter().enumerate() {
                        let result = instrument.detect(epoch as u64, &photons[output].words, &mut frames);
                        result.expect("the emitter's own photons");
                        for frame in frames.drain(..) {
                            instrument.recycle(frame);
                        }
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, random, emit, detect);
criterion_main!(benches);
