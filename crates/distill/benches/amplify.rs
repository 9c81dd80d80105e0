//! Toeplitz hashing in input bits per second, with and without the seed's transform, and the polynomial hashes in
//! bytes per second. One core.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use distill::amplify::{Amplifier, seed_len, toeplitz};
use distill::bits::Bits;
use distill::hash::{PolyHash, frame_tag};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random_bits(seed: u64, len: usize) -> Bits {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Bits::from_words((0..len.div_ceil(64)).map(|_| rng.next_u64()).collect(), len)
}

fn amplification(criterion: &mut Criterion, name: &str, n: usize, l: usize) {
    let (key, seed) = (random_bits(1, n), random_bits(2, seed_len(n, l)));
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(n as u64));
    group.bench_function("seed-transformed-before", |bencher| {
        let amplifier = Amplifier::new(&seed, n, l).expect("lengths agree");
        bencher.iter(|| amplifier.amplify(black_box(&key)));
    });
    group.bench_function("seed-transform-counted", |bencher| {
        bencher.iter(|| toeplitz(black_box(&key), black_box(&seed), l));
    });
    group.finish();
}

fn amplify(criterion: &mut Criterion) {
    amplification(criterion, "amplify-16-kbit", 1 << 14, 7 << 10);
    amplification(criterion, "amplify-64-kbit", 1 << 16, 29 << 10);
    amplification(criterion, "amplify-150-kbit", 150_000, 67_500);
    amplification(criterion, "amplify-4-Mbit", 4 << 20, 1_887_437);
    amplification(criterion, "amplify-1e8-bit", 100_000_000, 30_000_000);
}

fn hashes(criterion: &mut Criterion) {
    let bytes = random_bits(3, 8 << 20).to_bytes();
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    for piece in [bytes.len(), 1400, 100] {
        group.bench_function(format!("poly-128-in-pieces-of-{piece}-bytes"), |bencher| {
            bencher.iter(|| {
                let mut hash = PolyHash::new([9; 16]);
                black_box(&bytes).chunks(piece).for_each(|piece| hash.update(piece));
                hash.finish()
            });
        });
    }
    let frame = random_bits(4, 1 << 16);
    group.throughput(Throughput::Bytes(8 << 10));
    group.bench_function("frame-tag-64-kbit", |bencher| bencher.iter(|| frame_tag(black_box(&frame), 77)));
    group.finish();
}

criterion_group!(benches, amplify, hashes);
criterion_main!(benches);
