#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// One bit at a time.
fn naive_clmul(a: u64, b: u64) -> u128 {
    (0..64).filter(|i| b >> i & 1 == 1).fold(0, |sum, i| sum ^ (u128::from(a) << i))
}

fn naive_mul128(a: u128, b: u128) -> u128 {
    let mut product = 0;
    for i in (0..128).rev() {
        let carry = product >> 127;
        product = (product << 1) ^ (carry * 0x87);
        if b >> i & 1 == 1 {
            product ^= a;
        }
    }
    product
}

/// Words from a seed, without a generator of another crate.
fn words(seed: u64, count: usize) -> Vec<u64> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
        .collect()
}

/// All words of a product, by the schoolbook.
fn naive_product(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut product = vec![0; a.len() + b.len()];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            let p = clmul(*a, *b);
            product[i + j] ^= p as u64;
            product[i + j + 1] ^= (p >> 64) as u64;
        }
    }
    product
}

proptest! {
    #[test]
    fn carry_less_products_agree_with_shifts(a: u64, b: u64) {
        prop_assert_eq!(clmul(a, b), naive_clmul(a, b));
    }

    #[test]
    fn field_products_agree_with_shifts(a: u128, b: u128) {
        prop_assert_eq!(mul128(a, b), naive_mul128(a, b));
    }

    #[test]
    fn middle_products_agree_with_the_schoolbook_on_every_backend(a in 1usize..70, b in 0usize..90, seed: u64) {
        let (short, mut long) = (words(seed, a), words(!seed, a + b));
        let product = naive_product(&short, &long);
        long.extend(words(seed ^ 1, MIDDLE_PADDING));
        for backend in Backend::available() {
            let mut out = vec![0; b];
            middle_product(backend, &short, &long, &mut out);
            prop_assert_eq!(&out[..], &product[a..a + b], "{}", backend.name());
        }
    }

    #[test]
    fn hashes_agree_with_horner_on_every_backend(key: u128, start: u128, blocks in 0usize..100, seed: u64) {
        let bytes: Vec<u8> = words(seed, 2 * blocks).iter().flat_map(|w| w.to_le_bytes()).collect();
        let expected = bytes.as_chunks::<16>().0.iter()
            .fold(start, |h, m| naive_mul128(h ^ u128::from_le_bytes(*m), key));
        for backend in Backend::available() {
            prop_assert_eq!(HashKey::new(backend, key).absorb(start, &bytes), expected, "{}", backend.name());
        }
    }

    #[test]
    fn word_hashes_agree_with_horner_on_every_backend(key: u64, start: u64, count in 0usize..40, seed: u64) {
        let words = words(seed, count);
        let mul = |a: u64, b: u64| (0..64).rev().fold(0u64, |p, i| {
            (p << 1) ^ ((p >> 63) * 0x1b) ^ ((b >> i & 1) * a)
        });
        let expected = words.iter().fold(start, |h, m| mul(h ^ m, key));
        for backend in Backend::available() {
            prop_assert_eq!(hash_words(backend, key, start, &words), expected, "{}", backend.name());
        }
    }
}

#[test]
fn cantor_basis_begins_with_one_and_descends() {
    let v = cantor_basis();
    assert_eq!(v[0], 1);
    for i in 1..128 {
        assert_eq!(mul128(v[i], v[i]) ^ v[i], v[i - 1], "v_{i}");
    }
}

#[test]
fn transform_values_are_those_of_the_polynomial() {
    let v = cantor_basis();
    for log in [6u32, 7, 8, 9, 12] {
        let mut coefficients = words(3, 1 << log);
        let original = coefficients.clone();
        let transform = Transform::new(Backend::best(), log);
        let mut values = vec![Lanes::default(); transform.vectors()];
        transform.forward(&mut coefficients, &mut values);
        for j in (0..1usize << log).step_by(if log > 8 { 29 } else { 1 }) {
            let point = (0..log as usize).filter(|i| j >> i & 1 == 1).fold(0, |p, i| p ^ v[i]);
            let horner = original.iter().rev().fold(0, |h, c| mul128(h, point) ^ u128::from(*c));
            assert_eq!(values[j % transform.vectors()].0[j / transform.vectors()], horner, "point {j} of 2^{log}");
        }
    }
}

#[test]
fn inverse_returns_the_coefficients_at_every_length_and_backend() {
    for backend in Backend::available() {
        for log in MIN_LOG_LEN..=if backend.name() == "portable" { 12 } else { 18 } {
            let original = words(u64::from(log), 1 << log);
            let transform = Transform::new(backend, log);
            let mut values = vec![Lanes::default(); transform.vectors()];
            let mut back = values.clone();
            transform.forward(&mut original.clone(), &mut values);
            transform.inverse(&mut values, &mut back);
            let back: Vec<u128> = back.iter().flat_map(|lanes| lanes.0).collect();
            let same = back.iter().zip(&original).all(|(b, o)| *b == u128::from(*o));
            assert!(same, "2^{log} on {}", backend.name());
        }
    }
}

#[test]
fn products_below_the_unfolded_length_are_exact() {
    for log in MIN_LOG_LEN..=12 {
        let total = unfolded_len(log);
        for a in [1, 2, total / 3, total / 2, total - 1] {
            let (short, long) = (words(1, a), words(2, total));
            let transform = Transform::new(Backend::best(), log);
            let padded = |words: &[u64]| [words, &vec![0; (1 << log) - words.len()]].concat();
            let mut factor = vec![Lanes::default(); transform.vectors()];
            let (mut product, mut sum, mut work) = (factor.clone(), factor.clone(), factor.clone());
            transform.forward(&mut padded(&long), &mut factor);
            transform.forward_multiply(&mut padded(&short), &factor, &mut product);
            transform.forward_multiply_add(&mut padded(&short), &factor, &mut work, &mut sum);
            assert!(sum.iter().zip(&product).all(|(sum, product)| sum.0 == product.0), "0 + x is not x");
            transform.inverse(&mut product, &mut work);
            let coefficients: Vec<u128> = work.iter().flat_map(|lanes| lanes.0).collect();
            let expected = naive_product(&short, &long);
            for i in a..total {
                let word = coefficients[i] as u64 ^ (coefficients[i - 1] >> 64) as u64;
                assert_eq!(word, expected[i], "word {i}, {a} of {total} coefficients, 2^{log}");
            }
        }
    }
}
