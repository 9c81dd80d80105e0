//! Frame bits over the CPU time of both ends of Cascade, tables included.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use distill::bits::Bits;
use distill::cascade::{Corrector, Parameters, Reference};

#[path = "common/core_time.rs"]
mod core_time;
use core_time::core_time;

const FRAMES: usize = 32;

/// SplitMix64 (Steele, Lea and Flood 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn frames(len: usize, qber: f64) -> (Vec<Bits>, Vec<Bits>) {
    let mut state = 1;
    let limit = (qber * 2f64.powi(64)) as u64;
    let truth = (0..FRAMES).map(|_| {
        let words = (0..len.div_ceil(64)).map(|_| random(&mut state)).collect();
        let frame = Bits::from_words(words, len);
        let mut noisy = frame.clone();
        for i in 0..len {
            if random(&mut state) < limit {
                noisy.set(i, !noisy.get(i));
            }
        }
        (frame, noisy)
    });
    truth.unzip()
}

fn reconcile(truth: Vec<Bits>, noisy: Vec<Bits>, parameters: &Parameters) -> u64 {
    let mut reference = Reference::new(truth, parameters);
    let mut corrector = Corrector::new(noisy, parameters);
    let mut query = Some(corrector.start());
    while let Some(question) = query {
        let answer = reference.answer(&question).expect("an honest query");
        query = corrector.next(&answer).expect("an honest answer");
    }
    corrector.finish().iter().map(|frame| frame.leaked_bits).sum()
}

fn cascade(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cascade");
    group.sample_size(10);
    for len in [1 << 14, 1 << 16] {
        for qber in [0.02, 0.03, 0.04, 0.05] {
            let parameters = Parameters { qber, seed: 1 };
            let (truth, noisy) = frames(len, qber);
            // Frame bits: Mbit/s read as Melem/s.
            group.throughput(Throughput::Elements((len * FRAMES) as u64));
            let name = BenchmarkId::new(format!("{len} bits"), format!("QBER {} %", 100.0 * qber));
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|times| {
                    let inputs: Vec<_> = (0..times).map(|_| (truth.clone(), noisy.clone())).collect();
                    let origin = Instant::now();
                    let begin = core_time(origin);
                    for (truth, noisy) in inputs {
                        black_box(reconcile(truth, noisy, &parameters));
                    }
                    core_time(origin) - begin
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, cascade);
criterion_main!(benches);
