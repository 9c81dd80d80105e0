//! The additive Fourier transform of Lin, Chung and Han (FOCS 2014) over GF(2^128), with Cantor's basis (Chen,
//! Cheng, Kuo, Li and Yang, arXiv 1708.09746).
//!
//! It multiplies polynomials in y modulo s_k(y), whose coefficients are pieces of a long binary polynomial: 64
//! bits each, so that products of pieces fit the field without reduction.
//!
//! Element `j` of a transform of length 2^k lies in lane `j / 2^(k-2)` of vector `j % 2^(k-2)`: all layers but
//! the first two then work on whole vectors.

use super::basis::{cantor_basis, convert_16, from_basis, second_power, to_basis};
use super::product::{multiply, multiply_add};
use super::simd::{Backend, Factor, Kernel, Lanes, Simd};

/// The last four layers go together.
pub const MIN_LOG_LEN: u32 = 6;
pub const MAX_LOG_LEN: u32 = 30;

/// Vectors whose remaining layers are done in one go: 2^9 of them are 32 KiB, and one layer more is no harm.
const LEAF_LOG: u32 = 10;

/// The largest `a + b` for which coefficients `a - 1 .. a + b` of the product of a polynomial of `a` coefficients
/// and one of `a + b` are not touched by the reduction modulo s_k(y), where 2^k is the transform's length.
///
/// The product's last coefficient is 2a + b - 2. Coefficient 2^k + u returns at u + 2^j at most, 2^j the second
/// power of s_k, which must stay below a - 1.
pub fn unfolded_len(log_len: u32) -> usize {
    let len = 1usize << log_len;
    len - second_power(log_len).map_or(0, |j| 1 << j)
}

/// Tables for the transform of one length.
pub struct Transform {
    backend: Backend,
    log_len: u32,
    /// v_1, v_2, ...: the factor of block b of any layer is the sum of those at the binary digits of b.
    digits: Vec<Factor<u128>>,
    /// Such sums for the blocks of a leaf.
    near: Vec<Factor<u128>>,
    /// What the lane adds to the factors of each layer, layer 0 (neighbours) first.
    lanes: Vec<Factor<Lanes>>,
}

/// `c` x^64: the upper half of `c` returns as x^128 = x^7 + x^2 + x + 1.
fn times_x64(c: u128) -> u128 {
    let high = c >> 64;
    (c << 64) ^ high ^ (high << 1) ^ (high << 2) ^ (high << 7)
}

fn with_shifted(c: u128) -> Factor<u128> {
    Factor { c, c_x64: times_x64(c) }
}

fn with_shifted_lanes(c: [u128; 4]) -> Factor<Lanes> {
    Factor { c: Lanes(c), c_x64: Lanes(c.map(times_x64)) }
}

fn add(a: Factor<u128>, b: Factor<u128>) -> Factor<u128> {
    Factor { c: a.c ^ b.c, c_x64: a.c_x64 ^ b.c_x64 }
}

impl Transform {
    /// For 2^`log_len` coefficients.
    ///
    /// # Panics
    /// If `log_len` is not in `MIN_LOG_LEN..=MAX_LOG_LEN`.
    pub fn new(backend: Backend, log_len: u32) -> Self {
        assert!((MIN_LOG_LEN..=MAX_LOG_LEN).contains(&log_len), "transform of 2^{log_len}");
        let v = cantor_basis();
        let digits: Vec<_> = v[1..=log_len as usize].iter().map(|v| with_shifted(*v)).collect();
        let layers = log_len - 2;
        let mut near = vec![with_shifted(0)];
        for digit in digits.iter().take(layers.min(LEAF_LOG) as usize) {
            let shifted: Vec<_> = near.iter().map(|sum| add(*sum, *digit)).collect();
            near.extend(shifted);
        }
        let lanes = (0..layers)
            .map(|layer| {
                let (low, high) = (v[(layers - layer) as usize], v[(layers - layer) as usize + 1]);
                with_shifted_lanes([0, low, high, low ^ high])
            })
            .collect();
        Self { backend, log_len, digits, near, lanes }
    }

    pub fn log_len(&self) -> u32 {
        self.log_len
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Vectors of a transform.
    pub fn vectors(&self) -> usize {
        1 << (self.log_len - 2)
    }

    /// Values of the polynomial with the given coefficients, which are destroyed.
    ///
    /// # Panics
    /// If there are not 2^k coefficients and as many elements; so for the other methods.
    pub fn forward(&self, coefficients: &mut [u64], values: &mut [Lanes]) {
        self.spread(coefficients, values);
        self.forward_part(values, 0, &mut |_, _| {});
    }

    /// [`Self::forward`], then times `factor`.
    pub fn forward_multiply(&self, coefficients: &mut [u64], factor: &[Lanes], values: &mut [Lanes]) {
        assert_eq!(factor.len(), self.vectors());
        self.spread(coefficients, values);
        self.forward_part(values, 0, &mut |values, start| {
            multiply(self.backend, values, &factor[start..start + values.len()]);
        });
    }

    /// [`Self::forward`] into `work`, then `sum += work factor`, while it is in the cache.
    pub fn forward_multiply_add(
        &self,
        coefficients: &mut [u64],
        factor: &[Lanes],
        work: &mut [Lanes],
        sum: &mut [Lanes],
    ) {
        assert_eq!((factor.len(), sum.len()), (self.vectors(), self.vectors()));
        self.spread(coefficients, work);
        self.forward_part(work, 0, &mut |values, start| {
            let range = start..start + values.len();
            multiply_add(self.backend, &mut sum[range.clone()], values, &factor[range]);
        });
    }

    fn spread(&self, coefficients: &mut [u64], values: &mut [Lanes]) {
        assert_eq!((coefficients.len(), values.len()), (4 * self.vectors(), self.vectors()));
        to_basis(self.backend, coefficients, self.log_len, 1, true);
        self.backend.run(Spread { coefficients, values, transform: self });
    }

    /// The layers within one block, each leaf then handed on with the place of its first vector.
    fn forward_part(&self, values: &mut [Lanes], block: usize, then: &mut impl FnMut(&mut [Lanes], usize)) {
        let log = values.len().trailing_zeros();
        if log <= LEAF_LOG {
            self.backend.run(Leaf::<true> { values, block, transform: self });
            return then(values, block << log);
        }
        self.backend.run(Pass::<true> { values, block, transform: self });
        for (i, part) in values.chunks_exact_mut(1 << (log - 2)).enumerate() {
            self.forward_part(part, 4 * block + i, then);
        }
    }

    /// Coefficients of the polynomial with the given values, which are destroyed. Lane `j % 4` of vector `j / 4`
    /// is coefficient `j`.
    pub fn inverse(&self, values: &mut [Lanes], coefficients: &mut [Lanes]) {
        assert_eq!((coefficients.len(), values.len()), (self.vectors(), self.vectors()));
        self.inverse_part(values, 0);
        self.backend.run(Gather { coefficients, values, transform: self });
        from_basis(self.backend, Lanes::as_words_mut(coefficients), self.log_len, 2, true);
    }

    fn inverse_part(&self, values: &mut [Lanes], block: usize) {
        let log = values.len().trailing_zeros();
        if log <= LEAF_LOG {
            return self.backend.run(Leaf::<false> { values, block, transform: self });
        }
        for (i, part) in values.chunks_exact_mut(1 << (log - 2)).enumerate() {
            self.inverse_part(part, 4 * block + i);
        }
        self.backend.run(Pass::<false> { values, block, transform: self });
    }

    /// Factors of a layer at a block, for the four lanes.
    #[inline(always)]
    fn factor<S: Simd>(&self, simd: S, layer: u32, block: usize) -> Factor<S::V> {
        let mut sum = Factor { c: 0, c_x64: 0 };
        for (i, digit) in self.digits.iter().enumerate() {
            if block >> i & 1 == 1 {
                sum = add(sum, *digit);
            }
        }
        let lanes = &self.lanes[layer as usize];
        Factor {
            c: simd.xor(simd.load(&lanes.c), simd.splat(sum.c)),
            c_x64: simd.xor(simd.load(&lanes.c_x64), simd.splat(sum.c_x64)),
        }
    }
}

/// The first two layers, from coefficients in a row to vectors: quarter q of the coefficients becomes lane q.
struct Spread<'a> {
    coefficients: &'a [u64],
    values: &'a mut [Lanes],
    transform: &'a Transform,
}

impl Kernel for Spread<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let factor = splat(simd, &self.transform.digits[0]);
        let (low, high) = self.coefficients.split_at(self.coefficients.len() / 2);
        let (q0, q1) = low.as_chunks::<4>().0.split_at(self.values.len() / 4);
        let (q2, q3) = high.as_chunks::<4>().0.split_at(self.values.len() / 4);
        let out = self.values.as_chunks_mut::<4>().0;
        for ((((out, a), b), c), d) in out.iter_mut().zip(q0).zip(q1).zip(q2).zip(q3) {
            let (a, b) = (simd.low_words(a), simd.low_words(b));
            let (c, d) = (simd.low_words(c), simd.low_words(d));
            // Factors are 0 in the first layer, 0 and v_1 in the second.
            let (c, d) = (simd.xor(a, c), simd.xor(b, d));
            let b = simd.xor(a, b);
            let (c, d) = butterfly(simd, c, d, factor);
            let [a, b, c, d] = simd.transpose([a, b, c, d]);
            simd.store(&mut out[0], a);
            simd.store(&mut out[1], b);
            simd.store(&mut out[2], c);
            simd.store(&mut out[3], d);
        }
    }
}

/// The inverse of [`Spread`]; coefficients have the full 128 bits here.
struct Gather<'a> {
    values: &'a [Lanes],
    coefficients: &'a mut [Lanes],
    transform: &'a Transform,
}

impl Kernel for Gather<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let factor = splat(simd, &self.transform.digits[0]);
        let (low, high) = self.coefficients.split_at_mut(self.values.len() / 2);
        let (q0, q1) = low.split_at_mut(self.values.len() / 4);
        let (q2, q3) = high.split_at_mut(self.values.len() / 4);
        let values = self.values.as_chunks::<4>().0;
        for ((((v, q0), q1), q2), q3) in values.iter().zip(q0).zip(q1).zip(q2).zip(q3) {
            let v = [simd.load(&v[0]), simd.load(&v[1]), simd.load(&v[2]), simd.load(&v[3])];
            let [a, b, c, d] = simd.transpose(v);
            let b = simd.xor(a, b);
            let (c, d) = inverse_butterfly(simd, c, d, factor);
            simd.store(q0, a);
            simd.store(q1, b);
            simd.store(q2, simd.xor(a, c));
            simd.store(q3, simd.xor(b, d));
        }
    }
}

/// Two layers over a block that is too large for the first cache.
struct Pass<'a, const FORWARD: bool> {
    values: &'a mut [Lanes],
    block: usize,
    transform: &'a Transform,
}

impl<const FORWARD: bool> Kernel for Pass<'_, FORWARD> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let log = self.values.len().trailing_zeros();
        let outer = self.transform.factor(simd, log - 1, self.block);
        let inner = self.transform.factor(simd, log - 2, 2 * self.block);
        let factors = Factors::new(simd, self.transform, outer, inner);
        four::<S, FORWARD>(simd, self.values, &factors);
    }
}

/// All remaining layers of a block, and the change of basis within 16 vectors.
struct Leaf<'a, const FORWARD: bool> {
    values: &'a mut [Lanes],
    block: usize,
    transform: &'a Transform,
}

impl<const FORWARD: bool> Kernel for Leaf<'_, FORWARD> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { values, block, transform } = self;
        let log = values.len().trailing_zeros();
        let pairs = (log - 4) / 2;
        if !FORWARD {
            last_four::<S, false>(simd, values, block, transform);
        }
        if log % 2 == 1 && FORWARD {
            two::<S, true>(simd, values, transform.factor(simd, log - 1, block));
        }
        for i in 0..pairs {
            let layer = 4 + 2 * if FORWARD { pairs - 1 - i } else { i };
            layer_pair::<S, FORWARD>(simd, values, block, transform, layer);
        }
        if log % 2 == 1 && !FORWARD {
            two::<S, false>(simd, values, transform.factor(simd, log - 1, block));
        }
        if FORWARD {
            last_four::<S, true>(simd, values, block, transform);
        }
    }
}

/// The four layers within 16 vectors, and the change of basis within them: it commutes with the layers above.
#[inline(always)]
fn last_four<S: Simd, const FORWARD: bool>(simd: S, values: &mut [Lanes], block: usize, t: &Transform) {
    let log = values.len().trailing_zeros();
    let base_3 = t.factor(simd, 3, block << (log - 4));
    let base_2 = t.factor(simd, 2, block << (log - 3));
    let base_1 = t.factor(simd, 1, block << (log - 2));
    let base_0 = t.factor(simd, 0, block << (log - 1));
    for (i, part) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let mut v = [simd.load(&part[0]); 16];
        for j in 1..16 {
            v[j] = simd.load(&part[j]);
        }
        let upper = Factors::new(simd, t, plus(simd, base_3, &t.near[i]), plus(simd, base_2, &t.near[2 * i]));
        if FORWARD {
            convert_16::<S, true>(simd, &mut v);
            for j in 0..4 {
                quad::<S, FORWARD>(simd, &mut v, [j, j + 4, j + 8, j + 12], &upper);
            }
        }
        for j in 0..4 {
            let outer = plus(simd, base_1, &t.near[4 * i + j]);
            let lower = Factors::new(simd, t, outer, plus(simd, base_0, &t.near[8 * i + 2 * j]));
            quad::<S, FORWARD>(simd, &mut v, [4 * j, 4 * j + 1, 4 * j + 2, 4 * j + 3], &lower);
        }
        if !FORWARD {
            for j in 0..4 {
                quad::<S, FORWARD>(simd, &mut v, [j, j + 4, j + 8, j + 12], &upper);
            }
            convert_16::<S, false>(simd, &mut v);
        }
        for j in 0..16 {
            simd.store(&mut part[j], v[j]);
        }
    }
}

#[inline(always)]
fn quad<S: Simd, const FORWARD: bool>(simd: S, v: &mut [S::V; 16], at: [usize; 4], f: &Factors<S::V>) {
    let four = [v[at[0]], v[at[1]], v[at[2]], v[at[3]]];
    let four = if FORWARD { quad_forward(simd, four, f) } else { quad_inverse(simd, four, f) };
    (v[at[0]], v[at[1]], v[at[2]], v[at[3]]) = (four[0], four[1], four[2], four[3]);
}

/// Layers `layer + 1` and `layer` within a leaf.
#[inline(always)]
fn layer_pair<S: Simd, const FORWARD: bool>(simd: S, values: &mut [Lanes], block: usize, t: &Transform, layer: u32) {
    let log = values.len().trailing_zeros();
    let outer = t.factor(simd, layer + 1, block << (log - layer - 2));
    let inner = t.factor(simd, layer, block << (log - layer - 1));
    for (i, part) in values.chunks_exact_mut(4 << layer).enumerate() {
        let factors = Factors::new(simd, t, plus(simd, outer, &t.near[i]), plus(simd, inner, &t.near[2 * i]));
        four::<S, FORWARD>(simd, part, &factors);
    }
}

#[inline(always)]
fn plus<S: Simd>(simd: S, base: Factor<S::V>, near: &Factor<u128>) -> Factor<S::V> {
    Factor { c: simd.xor(base.c, simd.splat(near.c)), c_x64: simd.xor(base.c_x64, simd.splat(near.c_x64)) }
}

#[inline(always)]
fn splat<S: Simd>(simd: S, factor: &Factor<u128>) -> Factor<S::V> {
    Factor { c: simd.splat(factor.c), c_x64: simd.splat(factor.c_x64) }
}

/// Factors of two layers at a block of the outer one.
struct Factors<V> {
    outer: Factor<V>,
    even: Factor<V>,
    odd: Factor<V>,
}

impl<V> Factors<V> {
    #[inline(always)]
    fn new<S: Simd<V = V>>(simd: S, transform: &Transform, outer: Factor<V>, even: Factor<V>) -> Self
    where
        V: Copy,
    {
        Self { outer, even, odd: plus(simd, even, &transform.digits[0]) }
    }
}

/// One layer: (f, g) to the values f + c g and f + (c + 1) g.
#[inline(always)]
fn two<S: Simd, const FORWARD: bool>(simd: S, values: &mut [Lanes], factor: Factor<S::V>) {
    let (low, high) = values.split_at_mut(values.len() / 2);
    for (low, high) in low.iter_mut().zip(high) {
        let (a, b) = (simd.load(low), simd.load(high));
        let (a, b) = if FORWARD { butterfly(simd, a, b, factor) } else { inverse_butterfly(simd, a, b, factor) };
        simd.store(low, a);
        simd.store(high, b);
    }
}

#[inline(always)]
fn butterfly<S: Simd>(simd: S, a: S::V, b: S::V, factor: Factor<S::V>) -> (S::V, S::V) {
    let a = simd.xor(a, simd.mul_by(b, factor));
    (a, simd.xor(a, b))
}

#[inline(always)]
fn inverse_butterfly<S: Simd>(simd: S, a: S::V, b: S::V, factor: Factor<S::V>) -> (S::V, S::V) {
    let b = simd.xor(a, b);
    (simd.xor(a, simd.mul_by(b, factor)), b)
}

/// Two layers in one pass through memory.
#[inline(always)]
fn four<S: Simd, const FORWARD: bool>(simd: S, values: &mut [Lanes], f: &Factors<S::V>) {
    let (low, high) = values.split_at_mut(values.len() / 2);
    let (q0, q1) = low.split_at_mut(low.len() / 2);
    let (q2, q3) = high.split_at_mut(high.len() / 2);
    for (((q0, q1), q2), q3) in q0.iter_mut().zip(q1).zip(q2).zip(q3) {
        let v = [simd.load(q0), simd.load(q1), simd.load(q2), simd.load(q3)];
        let v = if FORWARD { quad_forward(simd, v, f) } else { quad_inverse(simd, v, f) };
        simd.store(q0, v[0]);
        simd.store(q1, v[1]);
        simd.store(q2, v[2]);
        simd.store(q3, v[3]);
    }
}

#[inline(always)]
fn quad_forward<S: Simd>(simd: S, [a, b, c, d]: [S::V; 4], f: &Factors<S::V>) -> [S::V; 4] {
    let (a, c) = butterfly(simd, a, c, f.outer);
    let (b, d) = butterfly(simd, b, d, f.outer);
    let (a, b) = butterfly(simd, a, b, f.even);
    let (c, d) = butterfly(simd, c, d, f.odd);
    [a, b, c, d]
}

#[inline(always)]
fn quad_inverse<S: Simd>(simd: S, [a, b, c, d]: [S::V; 4], f: &Factors<S::V>) -> [S::V; 4] {
    let (a, b) = inverse_butterfly(simd, a, b, f.even);
    let (c, d) = inverse_butterfly(simd, c, d, f.odd);
    let (a, c) = inverse_butterfly(simd, a, c, f.outer);
    let (b, d) = inverse_butterfly(simd, b, d, f.outer);
    [a, b, c, d]
}
