//! Frame bits over the CPU time of both ends of Cascade, tables included; and what each case leaks, over what it must
//! at least (f), with its round trips.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use distill::bits::Bits;
use distill::bounds::binary_entropy;
use distill::cascade::{Corrector, Parameters, Reference};

#[path = "common/core_time.rs"]
mod core_time;
use core_time::core_time;

const FRAMES: usize = 32;
/// Of a link of many megabits per second: they do not fit a cache.
const MANY_FRAMES: usize = 512;

/// SplitMix64 (Steele, Lea and Flood 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn frames(count: usize, len: usize, qber: f64) -> (Vec<Bits>, Vec<Bits>) {
    let mut state = 1;
    let limit = (qber * 2f64.powi(64)) as u64;
    let truth = (0..count).map(|_| {
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

/// Parities that were told, and round trips.
fn reconcile(truth: Vec<Bits>, noisy: Vec<Bits>, parameters: &Parameters) -> (u64, usize) {
    let mut reference = Reference::new(truth, parameters);
    let mut corrector = Corrector::new(noisy, parameters);
    let mut query = Some(corrector.start());
    let mut round_trips = 0;
    while let Some(question) = query {
        let answer = reference.answer(&question).expect("an honest query");
        query = corrector.next(&answer).expect("an honest answer");
        round_trips += 1;
    }
    (corrector.finish().iter().map(|frame| frame.leaked_bits).sum(), round_trips)
}

fn cascade(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cascade");
    group.sample_size(10);
    let few =
        [1 << 14, 1 << 16].into_iter().flat_map(|len| [0.005, 0.01, 0.02, 0.05, 0.08].map(|qber| (FRAMES, len, qber)));
    for (count, len, qber) in few.chain([(MANY_FRAMES, 1 << 16, 0.005)]) {
        let parameters = Parameters { qber, seed: 1 };
        let (truth, noisy) = frames(count, len, qber);
        let errors: usize = truth.iter().zip(&noisy).map(|(truth, noisy)| truth.distance(noisy)).sum();
        let (leaked, round_trips) = reconcile(truth.clone(), noisy.clone(), &parameters);
        let bits = (count * len) as f64;
        let f = leaked as f64 / (bits * binary_entropy(errors as f64 / bits));
        println!("{count} frames of {len} bits, QBER {} %: f {f:.4}, {round_trips} round trips", 100.0 * qber);
        // Frame bits: Mbit/s read as Melem/s.
        group.throughput(Throughput::Elements((count * len) as u64));
        let name = BenchmarkId::new(format!("{count} frames of {len} bits"), format!("QBER {} %", 100.0 * qber));
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
    group.finish();
}

criterion_group!(benches, cascade);
criterion_main!(benches);
