#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

pub(super) fn random_bits(seed: u64, len: usize) -> Bits {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Bits::from_words((0..len.div_ceil(64)).map(|_| rng.next_u64()).collect(), len)
}

/// The definition, bit by bit.
fn naive(key: &Bits, seed: &Bits, l: usize) -> Bits {
    let n = key.len();
    let mut out = Bits::zeros(l);
    for i in 0..l {
        let bit = (0..n).filter(|j| key.get(*j) && seed.get(i + n - 1 - j)).count() % 2 == 1;
        out.set(i, bit);
    }
    out
}

/// The definition, row by row: a row of the matrix is a window of the reversed seed.
fn by_rows(key: &Bits, seed: &Bits, rows: impl IntoIterator<Item = usize>) -> Vec<(usize, bool)> {
    let n = key.len();
    let mut reversed = Bits::zeros(seed.len());
    (0..seed.len()).for_each(|i| reversed.set(i, seed.get(seed.len() - 1 - i)));
    rows.into_iter()
        .map(|i| {
            // seed[i - j + n - 1] = reversed[len - i - n + j].
            let row = reversed.slice(seed.len() - i - n, n);
            let ones: u32 = row.words().iter().zip(key.words()).map(|(a, b)| (a & b).count_ones()).sum();
            (i, ones % 2 == 1)
        })
        .collect()
}

/// All of a long output, by a schoolbook of its own on words.
pub(super) fn by_words(key: &Bits, seed: &Bits, l: usize) -> Bits {
    let mut product = vec![0u64; key.words().len() + seed.words().len() + 1];
    for (i, a) in key.words().iter().enumerate() {
        for (j, b) in seed.words().iter().enumerate() {
            let p = kernels::gf2::clmul(*a, *b);
            product[i + j] ^= p as u64;
            product[i + j + 1] ^= (p >> 64) as u64;
        }
    }
    let len = 64 * product.len();
    Bits::from_words(product, len).slice(key.len() - 1, l)
}

fn check(key: &Bits, seed: &Bits, l: usize, expected: &Bits) {
    assert!(toeplitz(key, seed, l).ct_eq(expected), "{} to {l} bits", key.len());
}

/// Every transform length that can do it, and the schoolbook.
fn check_every_plan(backend: Backend, key: &Bits, seed: &Bits, l: usize, expected: &Bits) {
    let (key_words, out_words) = (key.words().len(), l.div_ceil(64));
    let direct = Plan { key_words, out_words, stretch_words: key_words, stretches: 1, log_len: 0 };
    let plans = (6..=14).filter_map(|log_len| Plan::with_transform(key_words, out_words, log_len)).chain([direct]);
    for plan in plans.filter(|plan| plan.stretches < 40) {
        let amplifier = Amplifier { n: key.len(), l, backend, method: Method::new(backend, seed, key.len(), plan) };
        let out = amplifier.amplify(key);
        assert!(out.ct_eq(expected), "{} to {l} bits, {plan:?}, {}", key.len(), backend.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equals_the_definition(n in 1usize..700, l in 1usize..700, seed: u64) {
        let (key, matrix) = (random_bits(seed, n), random_bits(!seed, seed_len(n, l)));
        check(&key, &matrix, l, &naive(&key, &matrix, l));
    }

    #[test]
    fn equals_the_definition_whatever_the_plan(n in 1usize..9000, l in 1usize..5000, seed: u64) {
        let (key, matrix) = (random_bits(seed, n), random_bits(!seed, seed_len(n, l)));
        let expected = by_words(&key, &matrix, l);
        for backend in Backend::available().into_iter().filter(|b| b.name() != "portable" || n + l < 3000) {
            check_every_plan(backend, &key, &matrix, l, &expected);
        }
    }
}

#[test]
fn windows_of_the_seed_are_its_bits_and_zeros_around() {
    let seed = random_bits(9, 200);
    for start in -300i64..300 {
        for words in 0..8 {
            let mut out = vec![u64::MAX; words];
            copy_bits(seed.words(), start, &mut out);
            for i in 0..64 * words {
                let bit = usize::try_from(start + i as i64).is_ok_and(|at| at < 200 && seed.get(at));
                assert_eq!(out[i / 64] >> (i % 64) & 1 == 1, bit, "bit {i} from {start}, {words} words");
            }
        }
    }
}

#[test]
fn edge_sizes_equal_the_definition() {
    for n in [1, 2, 63, 64, 65, 127, 128, 129, 1000] {
        for l in [1, 2, 63, 64, 65, 128, 513] {
            let (key, seed) = (random_bits(n as u64, n), random_bits(l as u64, seed_len(n, l)));
            check(&key, &seed, l, &naive(&key, &seed, l));
        }
    }
}

#[test]
fn everyday_blocks_equal_the_schoolbook() {
    for (n, l) in [(100_003, 45_001), (200_000, 61_111), (65_536, 65_536), (131_073, 1)] {
        let (key, seed) = (random_bits(1, n), random_bits(2, seed_len(n, l)));
        check(&key, &seed, l, &by_words(&key, &seed, l));
    }
}

#[test]
fn a_million_bits_equal_rows_of_the_definition_and_the_schoolbook() {
    let (n, l) = (1_100_003, 499_999);
    let (key, seed) = (random_bits(3, n), random_bits(4, seed_len(n, l)));
    let out = toeplitz(&key, &seed, l);
    // Primes apart from every power of two, and both ends.
    let rows = (0..l).step_by(997).chain(0..70).chain(l - 70..l);
    for (i, bit) in by_rows(&key, &seed, rows) {
        assert_eq!(out.get(i), bit, "output bit {i}");
    }
    let direct = Plan {
        key_words: key.words().len(),
        out_words: l.div_ceil(64),
        stretch_words: key.words().len(),
        stretches: 1,
        log_len: 0,
    };
    assert_ne!(Plan::choose(direct.key_words, direct.out_words), direct, "the schoolbook is not independent of itself");
    let method = Method::new(Backend::best(), &seed, n, direct);
    assert!(Amplifier { n, l, backend: Backend::best(), method }.amplify(&key).ct_eq(&out));
}

#[test]
fn one_amplifier_serves_many_keys_and_is_linear() {
    let (n, l) = (150_001, 70_003);
    let amplifier = Amplifier::new(&random_bits(5, seed_len(n, l)), n, l).unwrap();
    let (a, b) = (random_bits(6, n), random_bits(7, n));
    let sum =
        |a: &Bits, b: &Bits| Bits::from_words(a.words().iter().zip(b.words()).map(|(a, b)| a ^ b).collect(), a.len());
    let separate = sum(&amplifier.amplify(&a), &amplifier.amplify(&b));
    assert!(amplifier.amplify(&sum(&a, &b)).ct_eq(&separate));
}

#[test]
fn nothing_gives_nothing() {
    assert_eq!((seed_len(0, 5), seed_len(5, 0), seed_len(5, 3)), (0, 0, 7));
    assert_eq!(toeplitz(&Bits::zeros(0), &Bits::zeros(0), 5).len(), 5);
    assert!(toeplitz(&random_bits(1, 9), &Bits::zeros(0), 0).is_empty());
}

#[test]
fn wrong_lengths_are_refused() {
    let seed = random_bits(1, 14);
    assert_eq!(Amplifier::new(&seed, 10, 4).map(|_| ()), Err(AmplifyError::SeedLength { expected: 13, found: 14 }));
    let refused = Amplifier::new(&seed, MAX_LEN + 1, 5).map(|_| ());
    assert_eq!(refused, Err(AmplifyError::TooLong { n: MAX_LEN + 1, l: 5 }));
}

#[test]
fn debug_shows_lengths_only() {
    let amplifier = Amplifier::new(&random_bits(1, 14), 10, 5).unwrap();
    assert_eq!(format!("{amplifier:?}"), "Amplifier(10 to 5 bits)");
}
