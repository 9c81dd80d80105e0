//! The numbers of the T12 link at 50 km: time per click of every stage of a prepared link.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use photonics::analyser::AnalyserState;
use photonics::config::Basis;
use photonics::nature::pulses::{Choice, ChoiceKey, Choices};
use photonics::photons::Photons;
use std::hint::black_box;

#[path = "common/t12.rs"]
mod t12;
use t12::{TRANSMITTER_KEY, emitter, instrument, transmitter};

const EPOCHS: u64 = 20;

/// The photons of some epochs.
fn light() -> Vec<Photons> {
    let (mut emitter, state) = (emitter(), AnalyserState::default());
    (0..EPOCHS).map(|epoch| emitter.emit(epoch, [&state; 2])).collect()
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

    let choices = Choices::new(&transmitter(), ChoiceKey::new(&TRANSMITTER_KEY));
    let pulses: Vec<u64> = (0..100_000).map(|click| click * 208).collect();
    let mut chosen = vec![Choice::new(0, Basis::Z, false); pulses.len()];
    group.throughput(Throughput::Elements(pulses.len() as u64));
    group.bench_function("look up what a pulse was", |b| b.iter(|| choices.fill(&pulses, black_box(&mut chosen))));
    group.finish();
}

criterion_group!(benches, prepared);
criterion_main!(benches);
