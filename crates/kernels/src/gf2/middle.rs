//! The middle of a product of short polynomials, by the schoolbook.

use super::simd::{Backend, Kernel, Lanes, Simd};

/// Vectors of results that are summed at once: their latencies overlap.
const TILE: usize = 4;

/// Zero words that must follow the longer operand of [`middle_product`].
pub const MIDDLE_PADDING: usize = 8 * TILE + 8;

/// Words `a .. a + b` of the product of `short` (a words) and `long` (a + b words, then [`MIDDLE_PADDING`] more of
/// any value), b being the length of `out`.
///
/// # Panics
/// If `long` is shorter than that.
pub fn middle_product(backend: Backend, short: &[u64], long: &[u64], out: &mut [u64]) {
    assert!(long.len() >= short.len() + out.len() + MIDDLE_PADDING, "padding is missing");
    if short.is_empty() {
        return out.fill(0);
    }
    backend.run(Middle { short, long, out });
}

struct Middle<'a> {
    short: &'a [u64],
    long: &'a [u64],
    out: &'a mut [u64],
}

impl Kernel for Middle<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // A sum of products at word i spills into word i + 1: begin one word early.
        let mut carry = 0;
        let mut first = self.short.len() - 1;
        let mut written = 0;
        let mut discard = 1;
        while written < self.out.len() {
            let mut sums = [Lanes::default(); 2 * TILE];
            tile(simd, self.short, self.long, first, &mut sums);
            for pair in sums.chunks_exact(2) {
                for i in 0..8 {
                    let sum = pair[i % 2].0[i / 2];
                    let word = sum as u64 ^ carry;
                    carry = (sum >> 64) as u64;
                    if discard > 0 {
                        discard -= 1;
                    } else if let Some(slot) = self.out.get_mut(written) {
                        *slot = word;
                        written += 1;
                    }
                }
            }
            first += 8 * TILE;
        }
    }
}

/// Sums of products of words i at `first + 8 v + 2 lane` (even `sums`) and one more (odd `sums`).
#[inline(always)]
fn tile<S: Simd>(simd: S, short: &[u64], long: &[u64], first: usize, sums: &mut [Lanes; 2 * TILE]) {
    let zero = simd.splat(0);
    let mut even = [zero; TILE];
    let mut odd = [zero; TILE];
    for (j, word) in short.iter().enumerate() {
        let factor = simd.splat(u128::from(*word));
        let window = &long[first - j..first - j + 8 * TILE];
        for ((words, even), odd) in window.as_chunks::<8>().0.iter().zip(&mut even).zip(&mut odd) {
            let words = simd.load_words(words);
            *even = simd.xor(*even, simd.clmul_low_low(words, factor));
            *odd = simd.xor(*odd, simd.clmul_high_low(words, factor));
        }
    }
    for ((pair, even), odd) in sums.chunks_exact_mut(2).zip(even).zip(odd) {
        simd.store(&mut pair[0], even);
        simd.store(&mut pair[1], odd);
    }
}
