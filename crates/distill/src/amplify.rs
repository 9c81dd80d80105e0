//! Privacy amplification: Toeplitz hashing of n key bits to l.
//!
//! A seed of n + l - 1 bits is the l x n Toeplitz matrix `T[i][j] = seed[i - j + n - 1]`, constant along its
//! diagonals, and
//!
//! ```text
//! out[i] = XOR over j of seed[i - j + n - 1] key[j],    0 <= i < l, 0 <= j < n.
//! ```
//!
//! The family is universal for uniform seeds (Krawczyk, EUROCRYPT '95; two different keys collide for 2^-l of the
//! seeds), which is what the leftover hash lemma asks for. The seed may be public but must be drawn after the key.
//!
//! As polynomials over GF(2) the output is the middle, bits n - 1 to n + l - 2, of the product of seed and key.
//! Short ones are multiplied directly; long keys are cut into stretches, each multiplied with its window of the
//! seed by an additive Fourier transform, whose sum is transformed back once. Only the middle of each product is
//! wanted, so it may be taken modulo the transform's vanishing polynomial as long as what folds back falls below
//! it ([`kernels::gf2::unfolded_len`]).
//!
//! A key of which nearly all is left is hashed by another family, which costs a third: `extended` has it.
//! [`hash`] and [`hash_seed_len`] take the one that suits.

mod extended;
mod plan;

use kernels::gf2::{Backend, Lanes, MIDDLE_PADDING, Transform, middle_product};

use crate::bits::Bits;
use crate::wiped::Wiped;
use plan::Plan;

/// Longest key or output: 2^32 bits.
pub const MAX_LEN: usize = 1 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmplifyError {
    #[error("a seed of {found} bits where {expected} are needed")]
    SeedLength { expected: usize, found: usize },
    #[error("amplification of {n} to {l} bits is beyond the limit of {MAX_LEN}")]
    TooLong { n: usize, l: usize },
}

/// Seed bits for hashing `n` bits to `l`.
pub fn seed_len(n: usize, l: usize) -> usize {
    if n == 0 || l == 0 { 0 } else { n.saturating_add(l) - 1 }
}

/// Seed bits with which [`hash`] takes `n` bits to `l`.
pub fn hash_seed_len(n: usize, l: usize) -> usize {
    if extended::suits(n, l) { n - 1 } else { seed_len(n, l) }
}

/// Hashes `key` to `l` bits with a seed that is used once, by the family that suits the two lengths.
///
/// # Panics If the seed has not [`hash_seed_len`] bits, or key or output exceed [`MAX_LEN`]: what a peer sends is
/// checked before.
pub fn hash(key: &Bits, seed: &Bits, l: usize) -> Bits {
    if !extended::suits(key.len(), l) || key.len() > MAX_LEN {
        return toeplitz(key, seed, l);
    }
    assert_eq!(seed.len(), key.len() - 1, "a seed of another length than the key's");
    extended::hash(Backend::best(), key, seed, l)
}

/// Hashes `key` to `l` bits with a Toeplitz matrix whose seed is used once.
///
/// # Panics
/// If the seed has not [`seed_len`] bits, or key or output exceed [`MAX_LEN`]: what a peer sends is checked before.
pub fn toeplitz(key: &Bits, seed: &Bits, l: usize) -> Bits {
    match Amplifier::new(seed, key.len(), l) {
        Ok(amplifier) => amplifier.amplify(key),
        Err(error) => panic!("{error}"),
    }
}

/// A Toeplitz matrix, ready for any number of keys.
pub struct Amplifier {
    n: usize,
    l: usize,
    backend: Backend,
    method: Method,
}

enum Method {
    Empty,
    /// The seed, aligned so that the output begins at a word.
    Direct {
        seed: Wiped<u64>,
    },
    Transform {
        plan: Plan,
        transform: Box<Transform>,
        windows: Vec<Wiped<Lanes>>,
    },
}

impl Amplifier {
    /// Takes the seed and transforms it.
    pub fn new(seed: &Bits, n: usize, l: usize) -> Result<Self, AmplifyError> {
        Self::with_backend(Backend::best(), seed, n, l)
    }

    fn with_backend(backend: Backend, seed: &Bits, n: usize, l: usize) -> Result<Self, AmplifyError> {
        if n > MAX_LEN || l > MAX_LEN {
            return Err(AmplifyError::TooLong { n, l });
        }
        if seed.len() != seed_len(n, l) {
            return Err(AmplifyError::SeedLength { expected: seed_len(n, l), found: seed.len() });
        }
        let plan = Plan::choose(n.div_ceil(64), l.div_ceil(64));
        Ok(Self { n, l, backend, method: Method::new(backend, seed, n, plan) })
    }

    /// Hashes a key.
    ///
    /// # Panics
    /// If the key has not n bits.
    pub fn amplify(&self, key: &Bits) -> Bits {
        assert_eq!(key.len(), self.n, "a key of another length than the matrix");
        let mut out = vec![0; self.l.div_ceil(64)];
        match &self.method {
            Method::Empty => {}
            Method::Direct { seed } => middle_product(self.backend, key.words(), seed, &mut out),
            Method::Transform { plan, transform, windows } => {
                through_transform(plan, transform, windows, key.words(), &mut out);
            }
        }
        Bits::from_words(out, self.l)
    }
}

impl std::fmt::Debug for Amplifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Amplifier({} to {} bits)", self.n, self.l)
    }
}

impl Method {
    fn new(backend: Backend, seed: &Bits, n: usize, plan: Plan) -> Self {
        if plan.out_words == 0 || plan.key_words == 0 {
            return Self::Empty;
        }
        // With the stretch c of the key at bit 64 B c, bit t of its window of the seed is that at
        // t + n - 1 - 64 B (c + 1): output bit i is then bit i + 64 B of the product.
        let start = |stretch: usize| n as i64 - 1 - 64 * (plan.stretch_words * (stretch + 1)) as i64;
        let window_words = plan.stretch_words + plan.out_words;
        if plan.log_len == 0 {
            let mut aligned = Wiped::zeros(window_words + MIDDLE_PADDING);
            copy_bits(seed.words(), start(0), &mut aligned[..window_words]);
            return Self::Direct { seed: aligned };
        }
        let transform = Box::new(Transform::new(backend, plan.log_len));
        let mut coefficients = Wiped::zeros(1 << plan.log_len);
        let windows = (0..plan.stretches)
            .map(|stretch| {
                copy_bits(seed.words(), start(stretch), &mut coefficients[..window_words]);
                coefficients[window_words..].fill(0);
                let mut values = Wiped::zeros(transform.vectors());
                transform.forward(&mut coefficients, &mut values);
                values
            })
            .collect();
        Self::Transform { plan, transform, windows }
    }
}

/// The sum over the stretches of the key, in values, and its middle.
fn through_transform(plan: &Plan, transform: &Transform, windows: &[Wiped<Lanes>], key: &[u64], out: &mut [u64]) {
    let mut coefficients = Wiped::zeros(1 << plan.log_len);
    let mut work = Wiped::zeros(transform.vectors());
    let mut sum = Wiped::zeros(transform.vectors());
    for (stretch, (key, window)) in key.chunks(plan.stretch_words).zip(windows).enumerate() {
        coefficients[..key.len()].copy_from_slice(key);
        coefficients[key.len()..].fill(0);
        if stretch == 0 {
            transform.forward_multiply(&mut coefficients, window, &mut sum);
        } else {
            transform.forward_multiply_add(&mut coefficients, window, &mut work, &mut sum);
        }
    }
    middle(plan, transform, &mut sum, &mut work, out);
}

/// Words of the middle of a product that is given by its values.
fn middle(plan: &Plan, transform: &Transform, sum: &mut Wiped<Lanes>, work: &mut Wiped<Lanes>, out: &mut [u64]) {
    transform.inverse(sum, work);
    // Coefficients are products of 64-bit pieces: the upper half of each belongs to the next word.
    let coefficient = |i: usize| work[i / 4].0[i % 4];
    let mut carry = (coefficient(plan.stretch_words - 1) >> 64) as u64;
    for (i, word) in out.iter_mut().enumerate() {
        let sum = coefficient(plan.stretch_words + i);
        *word = sum as u64 ^ carry;
        carry = (sum >> 64) as u64;
    }
}

/// Copies bits from bit `start` on, which may be negative; zeros where there are none.
fn copy_bits(from: &[u64], start: i64, to: &mut [u64]) {
    let (first, shift) = (start.div_euclid(64), start.rem_euclid(64) as u32);
    // Zeros before the first word, of which the last may take bits from it.
    let gap = usize::try_from(-first).unwrap_or(0);
    let (zeros, to) = to.split_at_mut(gap.min(to.len()));
    zeros.fill(0);
    let from = from.get(usize::try_from(first).unwrap_or(0)..).unwrap_or(&[]);
    if let (Some(last), Some(first)) = (zeros.get_mut(gap.wrapping_sub(1)), from.first()) {
        *last = above(*first, shift);
    }
    let whole = to.len().min(from.len().saturating_sub(1));
    for (to, pair) in to.iter_mut().zip(from.windows(2)) {
        *to = (pair[0] >> shift) | above(pair[1], shift);
    }
    to[whole..].fill(0);
    if let (Some(to), Some(last)) = (to.get_mut(whole), from.get(whole)) {
        *to = last >> shift;
    }
}

/// What a word adds to the one before it when bits move down by `shift` below 64; two shifts, since one by 64 is
/// an error.
fn above(word: u64, shift: u32) -> u64 {
    word << 1 << (63 - shift)
}

#[cfg(test)]
mod tests;
