//! Plain integer arithmetic, for machines without carry-less multiplication and as the reference of the tests.

use super::simd::{Kernel, Lanes, REDUCTION, Simd};

/// Every fourth bit, from bit 0.
const COMB: u64 = 0x1111_1111_1111_1111;

/// Carry-less product of two 64-bit polynomials, in constant time.
///
/// Integer multiplication of operands that have only every fourth bit set: each column then sums at most eight
/// ones (one operand is cut to 32 bits), so no carry reaches the next column of the comb.
pub fn clmul(a: u64, b: u64) -> u128 {
    clmul_half(a & 0xffff_ffff, b) ^ (clmul_half(a >> 32, b) << 32)
}

/// As [`clmul`], for `a` below 2^32.
#[inline]
fn clmul_half(a: u64, b: u64) -> u128 {
    let comb = u128::from(COMB) | (u128::from(COMB) << 64);
    let mut product = 0;
    for column in 0..4 {
        let mut sum = 0;
        for i in 0..4 {
            let j = (column + 4 - i) % 4;
            sum ^= u128::from(a & (COMB << i)) * u128::from(b & (COMB << j));
        }
        product |= sum & (comb << column);
    }
    product
}

/// Product in GF(2^128).
pub fn mul128(a: u128, b: u128) -> u128 {
    let middle = clmul(low(a), high(b)) ^ clmul(high(a), low(b));
    let lower = clmul(low(a), low(b)) ^ (middle << 64);
    let upper = clmul(high(a), high(b)) ^ (middle >> 64);
    // x^192 first: its image reaches seven bits into x^128.
    let top = clmul(high(upper), REDUCTION as u64);
    lower ^ (top << 64) ^ clmul(low(upper) ^ high(top), REDUCTION as u64)
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Portable {
    #[inline(always)]
    fn zip(a: [u128; 4], b: [u128; 4], f: impl Fn(u128, u128) -> u128) -> [u128; 4] {
        [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
    }
}

#[inline(always)]
fn low(x: u128) -> u64 {
    x as u64
}

#[inline(always)]
fn high(x: u128) -> u64 {
    (x >> 64) as u64
}

impl Simd for Portable {
    type V = [u128; 4];

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Self::V {
        from.0
    }

    #[inline(always)]
    fn store(self, to: &mut Lanes, v: Self::V) {
        to.0 = v;
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> Self::V {
        std::array::from_fn(|i| u128::from(words[2 * i]) | (u128::from(words[2 * i + 1]) << 64))
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 64]) -> Self::V {
        std::array::from_fn(|i| {
            let mut block = [0; 16];
            block.copy_from_slice(&bytes[16 * i..16 * i + 16]);
            u128::from_le_bytes(block)
        })
    }

    #[inline(always)]
    fn low_words(self, words: &[u64; 4]) -> Self::V {
        words.map(u128::from)
    }

    #[inline(always)]
    fn splat(self, x: u128) -> Self::V {
        [x; 4]
    }

    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a ^ b)
    }

    #[inline(always)]
    fn clmul_low_low(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| clmul(low(a), low(b)))
    }

    #[inline(always)]
    fn clmul_low_high(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| clmul(low(a), high(b)))
    }

    #[inline(always)]
    fn clmul_high_low(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| clmul(high(a), low(b)))
    }

    #[inline(always)]
    fn clmul_high_high(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| clmul(high(a), high(b)))
    }

    #[inline(always)]
    fn shift_up(self, a: Self::V) -> Self::V {
        a.map(|a| a << 64)
    }

    #[inline(always)]
    fn shift_down(self, a: Self::V) -> Self::V {
        a.map(|a| a >> 64)
    }

    #[inline(always)]
    fn sum_to_first(self, a: Self::V) -> Self::V {
        [a[0] ^ a[1] ^ a[2] ^ a[3], 0, 0, 0]
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4] {
        std::array::from_fn(|i| [rows[0][i], rows[1][i], rows[2][i], rows[3][i]])
    }
}
