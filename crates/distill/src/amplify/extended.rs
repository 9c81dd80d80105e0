//! Keys that lose little: the identity beside a Toeplitz matrix.
//!
//! Of n bits the first l go into the output as they are, and the other n - l, few of them, are hashed onto them:
//!
//! ```text
//! out[i] = key[i] XOR (XOR over j of seed[i - j + n - l - 1] key[l + j]),    0 <= i < l, 0 <= j < n - l.
//! ```
//!
//! This family is universal too (Hayashi and Tsurumaki, IEEE Trans. Inf. Theory 62, 2213 (2016)): keys that differ in
//! their first l bits alone never collide, others do for 2^-l of the seeds. It takes n - 1 bits of seed in place of n +
//! l - 1, and the output is made stretch by stretch with short transforms, all by the transform of the same few bits.

use kernels::gf2::{Backend, Transform, unfolded_len};

use super::plan::Plan;
use super::{copy_bits, middle};
use crate::bits::Bits;
use crate::wiped::Wiped;

/// Keys that lose at most one bit in this many are hashed that way.
const LOSS: usize = 4;
/// Shortest transform that pays.
const SHORTEST_LOG: u32 = 10;

/// Whether hashing `n` bits to `l` loses so little.
pub(super) fn suits(n: usize, l: usize) -> bool {
    n.checked_sub(l).is_some_and(|lost| lost > 0 && lost <= n / LOSS)
}

/// Hashes a key to `l` bits with a seed of one bit less than the key.
pub(super) fn hash(backend: Backend, key: &Bits, seed: &Bits, l: usize) -> Bits {
    let lost = key.len() - l;
    let (few, out_words) = (key.slice(l, lost), l.div_ceil(64));
    let lost_words = lost.div_ceil(64);
    // Windows a few times as long as what they are multiplied with: little of each is lost, and it fits a cache.
    let longest = (lost_words + out_words).next_power_of_two().ilog2() + 1;
    let log_len = (4 * lost_words).next_power_of_two().ilog2().clamp(SHORTEST_LOG, longest.max(SHORTEST_LOG));
    let stretch_words = unfolded_len(log_len) - lost_words;
    let plan = Plan { key_words: lost_words, out_words, stretch_words: lost_words, stretches: 1, log_len };
    let transform = Transform::new(backend, log_len);
    let (mut coefficients, mut values) = (Wiped::zeros(1 << log_len), Wiped::zeros(transform.vectors()));
    coefficients[..lost_words].copy_from_slice(few.words());
    transform.forward(&mut coefficients, &mut values);
    let (mut sum, mut work) = (Wiped::zeros(transform.vectors()), Wiped::zeros(transform.vectors()));
    let mut out = vec![0; out_words];
    for (stretch, (out, own)) in out.chunks_mut(stretch_words).zip(key.words().chunks(stretch_words)).enumerate() {
        let window_words = lost_words + out.len();
        let first_row = 64 * (stretch * stretch_words) as i64;
        let start = first_row + lost as i64 - 1 - 64 * lost_words as i64;
        copy_bits(seed.words(), start, &mut coefficients[..window_words]);
        coefficients[window_words..].fill(0);
        transform.forward_multiply(&mut coefficients, &values, &mut sum);
        middle(&plan, &transform, &mut sum, &mut work, out);
        out.iter_mut().zip(own).for_each(|(out, own)| *out ^= own);
    }
    Bits::from_words(out, l)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{by_words, random_bits};
    use super::*;

    /// The definition.
    fn by_definition(key: &Bits, seed: &Bits, l: usize) -> Bits {
        let hashed = by_words(&key.slice(l, key.len() - l), seed, l);
        let words = hashed.words().iter().zip(key.words()).map(|(hashed, own)| hashed ^ own).collect();
        Bits::from_words(words, l)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn equals_the_definition(n in 4usize..3000, part in 1usize..100, seed: u64) {
            let l = n - (n * part / 400).max(1);
            prop_assume!(suits(n, l));
            let (key, matrix) = (random_bits(seed, n), random_bits(!seed, n - 1));
            let expected = by_definition(&key, &matrix, l);
            for backend in Backend::available() {
                prop_assert!(hash(backend, &key, &matrix, l).ct_eq(&expected), "{n} to {l} bits, {}", backend.name());
            }
        }
    }

    #[test]
    fn long_keys_are_hashed_stretch_by_stretch() {
        for (n, l) in [(200_000, 199_000), (100_000, 75_001), (1 << 17, (1 << 17) - 64)] {
            let (key, seed) = (random_bits(1, n), random_bits(2, n - 1));
            let expected = by_definition(&key, &seed, l);
            assert!(hash(Backend::best(), &key, &seed, l).ct_eq(&expected), "{n} to {l}");
        }
    }

    #[test]
    fn it_suits_keys_that_lose_some_bits_and_few_of_them() {
        for (n, l, suitable) in
            [(0, 0, false), (100, 100, false), (100, 101, false), (100, 99, true), (100, 75, true), (100, 74, false)]
        {
            assert_eq!(suits(n, l), suitable, "{n} to {l}");
        }
    }
}
