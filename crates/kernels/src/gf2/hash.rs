//! Evaluation of polynomials at a secret point: the inner loop of universal hashes.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::simd::{Backend, Kernel, Lanes, Simd};

/// Vectors that are multiplied by their powers of the key before one reduction.
const VECTORS: usize = 8;

/// Bytes that are hashed at once.
pub const HASH_STRIDE_BYTES: usize = 64 * VECTORS;

/// Powers of a key in GF(2^128).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct HashKey {
    #[zeroize(skip)]
    backend: Backend,
    key: u128,
    /// Vector v, lane l: key^(4 (VECTORS - v) - l).
    powers: [Lanes; VECTORS],
}

impl HashKey {
    pub fn new(backend: Backend, key: u128) -> Self {
        let mut powers = [Lanes::default(); VECTORS];
        let mut power = 1;
        for slot in powers.iter_mut().rev().flat_map(|lanes| lanes.0.iter_mut().rev()) {
            power = backend.run(Step { hash: power, key });
            *slot = power;
        }
        Self { backend, key, powers }
    }

    /// Appends blocks m_1 .. m_t of 16 little-endian bytes: (...((h + m_1) k + m_2) k + ... + m_t) k.
    ///
    /// # Panics
    /// If `blocks` is not whole blocks.
    pub fn absorb(&self, hash: u128, blocks: &[u8]) -> u128 {
        assert!(blocks.len().is_multiple_of(16), "part of a block");
        let (strides, rest) = blocks.as_chunks::<HASH_STRIDE_BYTES>();
        let hash = if strides.is_empty() { hash } else { self.backend.run(Absorb { key: self, hash, strides }) };
        rest.as_chunks::<16>().0.iter().fold(hash, |hash, block| {
            self.backend.run(Step { hash: hash ^ u128::from_le_bytes(*block), key: self.key })
        })
    }
}

struct Step {
    hash: u128,
    key: u128,
}

impl Kernel for Step {
    type Output = u128;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u128 {
        let mut out = Lanes::default();
        simd.store(&mut out, simd.mul(simd.splat(self.hash), simd.splat(self.key)));
        out.0[0]
    }
}

struct Absorb<'a> {
    key: &'a HashKey,
    hash: u128,
    strides: &'a [[u8; HASH_STRIDE_BYTES]],
}

impl Kernel for Absorb<'_> {
    type Output = u128;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u128 {
        let mut hash = simd.load(&Lanes([self.hash, 0, 0, 0]));
        for stride in self.strides {
            let blocks = stride.as_chunks::<64>().0;
            let mut sum = simd.mul_wide(simd.xor(hash, simd.load_bytes(&blocks[0])), simd.load(&self.key.powers[0]));
            for (block, power) in blocks.iter().zip(&self.key.powers).skip(1) {
                let product = simd.mul_wide(simd.load_bytes(block), simd.load(power));
                sum.low = simd.xor(sum.low, product.low);
                sum.middle = simd.xor(sum.middle, product.middle);
                sum.high = simd.xor(sum.high, product.high);
            }
            hash = simd.sum_to_first(simd.reduce(sum));
        }
        let mut out = Lanes::default();
        simd.store(&mut out, hash);
        out.0[0]
    }
}

/// The irreducible polynomial of GF(2^64), x^64 + x^4 + x^3 + x + 1, without its leading term.
const REDUCTION_64: u128 = 0x1b;

/// Appends words m_1 .. m_t to a hash over GF(2^64): (...((h + m_1) k + m_2) k + ... + m_t) k.
pub fn hash_words(backend: Backend, key: u64, hash: u64, words: &[u64]) -> u64 {
    backend.run(Words { key, hash, words })
}

struct Words<'a> {
    key: u64,
    hash: u64,
    words: &'a [u64],
}

impl Kernel for Words<'_> {
    type Output = u64;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u64 {
        let (key, reduction) = (simd.splat(u128::from(self.key)), simd.splat(REDUCTION_64));
        // The upper halves collect what is left of the reductions and are never read.
        let mut hash = simd.splat(u128::from(self.hash));
        for word in self.words {
            let product = simd.clmul_low_low(simd.xor(hash, simd.splat(u128::from(*word))), key);
            let once = simd.clmul_high_low(product, reduction);
            let twice = simd.clmul_high_low(once, reduction);
            hash = simd.xor(simd.xor(product, once), twice);
        }
        let mut out = Lanes::default();
        simd.store(&mut out, hash);
        out.0[0] as u64
    }
}
