//! The Cantor basis of GF(2^128) and the change between powers of y and the basis of the transform.
//!
//! Cantor, J. Comb. Theory A 50, 285 (1989): v_0 = 1, v_(i+1)^2 + v_(i+1) = v_i. Its subspaces
//! V_i = <v_0 .. v_(i-1)> vanish under s_i, where s_0(y) = y and s_(i+1) = s_i^2 + s_i, so that
//! s_i(y) = sum of y^(2^j) over the j whose binary digits are among those of i (Lucas).
//!
//! Lin, Chung and Han, FOCS 2014: the polynomials X_i = product of s_j over the binary digits j of i are a basis
//! in which evaluation on a subspace takes N log N / 2 products.

use std::sync::OnceLock;

use super::portable::mul128;
use super::simd::{Backend, Kernel, Simd};

/// `v_0 .. v_127`.
pub fn cantor_basis() -> &'static [u128; 128] {
    static BASIS: OnceLock<[u128; 128]> = OnceLock::new();
    BASIS.get_or_init(|| {
        let mut basis = [0; 128];
        // s_127 is the trace, so any element of trace one will do for v_127; x^121 has it (Newton's identities).
        let mut v = 1u128 << 121;
        for slot in basis.iter_mut().rev() {
            *slot = v;
            v ^= mul128(v, v);
        }
        basis
    })
}

/// The second highest power of y in `s_log`, itself a power of two: the exponent of that, and none for s_0.
pub(super) fn second_power(log: u32) -> Option<u32> {
    (log > 0).then(|| log & (log - 1))
}

/// Coefficients within which the change of basis is left to [`convert_16`], which works on vectors.
const INNER_LOG: u32 = 4;

/// From coefficients of powers of y to those of the basis X, but for the change within each 16 of them.
///
/// `data` holds 2^`log` coefficients of `unit` words each, `inner` tells those recursions that hold the lowest
/// binary digits of the index. Gao and Mateer's Taylor expansion at y^(2^t) + y, t a power of two, halves `log`
/// each time (IEEE Trans. Inf. Theory 56, 6265 (2010)); only additions.
pub(super) fn to_basis(backend: Backend, data: &mut [u64], log: u32, unit: usize, inner: bool) {
    if log < 2 || (inner && log <= INNER_LOG) {
        return;
    }
    if inner && log == 8 {
        return backend.run(Small::<true> { data, unit });
    }
    let t = split(log);
    expand(backend, data, log, t, unit);
    to_basis(backend, data, log - t, unit << t, false);
    for part in data.chunks_exact_mut(unit << t) {
        to_basis(backend, part, t, unit, inner);
    }
}

/// The inverse of [`to_basis`].
pub(super) fn from_basis(backend: Backend, data: &mut [u64], log: u32, unit: usize, inner: bool) {
    if log < 2 || (inner && log <= INNER_LOG) {
        return;
    }
    if inner && log == 8 {
        return backend.run(Small::<false> { data, unit });
    }
    let t = split(log);
    for part in data.chunks_exact_mut(unit << t) {
        from_basis(backend, part, t, unit, inner);
    }
    from_basis(backend, data, log - t, unit << t, false);
    collapse(backend, data, log, t, unit);
}

/// The largest power of two below `log`.
#[inline(always)]
fn split(log: u32) -> u32 {
    1 << (31 - (log - 1).leading_zeros())
}

/// Writes f(y) as polynomial in z = y^(2^t) + y with coefficients of degree below 2^t: the top half first, then
/// each half, so that what fits a cache stays there.
fn expand(backend: Backend, data: &mut [u64], log: u32, t: u32, unit: usize) {
    if log == t {
        return;
    }
    backend.run(Divide::<true> { data, shift: unit << (log - 1 - t) });
    let (low, high) = data.split_at_mut(data.len() / 2);
    expand(backend, low, log - 1, t, unit);
    expand(backend, high, log - 1, t, unit);
}

fn collapse(backend: Backend, data: &mut [u64], log: u32, t: u32, unit: usize) {
    if log == t {
        return;
    }
    let (low, high) = data.split_at_mut(data.len() / 2);
    collapse(backend, low, log - 1, t, unit);
    collapse(backend, high, log - 1, t, unit);
    backend.run(Divide::<false> { data, shift: unit << (log - 1 - t) });
}

/// Division with remainder by y^h + y^shift, h half the length: the remainder replaces the lower half, the
/// quotient the upper; or back.
struct Divide<'a, const FORWARD: bool> {
    data: &'a mut [u64],
    shift: usize,
}

impl<const FORWARD: bool> Kernel for Divide<'_, FORWARD> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        divide::<FORWARD>(self.data, self.shift);
    }
}

#[inline(always)]
fn divide<const FORWARD: bool>(data: &mut [u64], shift: usize) {
    let half = data.len() / 2;
    let (low, high) = data.split_at_mut(half);
    let (start, end) = high.split_at_mut(half - shift);
    if FORWARD {
        add(&mut start[..shift], end);
    }
    add(&mut low[shift..], start);
    if !FORWARD {
        add(&mut start[..shift], end);
    }
}

#[inline(always)]
fn add(to: &mut [u64], from: &[u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

/// The change of basis of 2^8 coefficients, again without that within each 16: every loop bound is a constant.
struct Small<'a, const FORWARD: bool> {
    data: &'a mut [u64],
    unit: usize,
}

impl<const FORWARD: bool> Kernel for Small<'_, FORWARD> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        match self.unit {
            1 => small::<1, FORWARD>(self.data),
            _ => small::<2, FORWARD>(self.data),
        }
    }
}

#[inline(always)]
fn small<const UNIT: usize, const FORWARD: bool>(data: &mut [u64]) {
    // The expansion at y^16 + y, then the whole change of basis of 2^4 coefficients of 16.
    if FORWARD {
        divide_each::<UNIT, 256, 8, true>(data);
        divide_each::<UNIT, 128, 4, true>(data);
        divide_each::<UNIT, 64, 2, true>(data);
        divide_each::<UNIT, 32, 1, true>(data);
        divide_each::<UNIT, 256, 32, true>(data);
        divide_each::<UNIT, 128, 16, true>(data);
        divide_each::<UNIT, 256, 64, true>(data);
        divide_each::<UNIT, 64, 16, true>(data);
    } else {
        divide_each::<UNIT, 64, 16, false>(data);
        divide_each::<UNIT, 256, 64, false>(data);
        divide_each::<UNIT, 128, 16, false>(data);
        divide_each::<UNIT, 256, 32, false>(data);
        divide_each::<UNIT, 32, 1, false>(data);
        divide_each::<UNIT, 64, 2, false>(data);
        divide_each::<UNIT, 128, 4, false>(data);
        divide_each::<UNIT, 256, 8, false>(data);
    }
}

#[inline(always)]
fn divide_each<const UNIT: usize, const LEN: usize, const SHIFT: usize, const FORWARD: bool>(data: &mut [u64]) {
    for part in data.chunks_exact_mut(LEN * UNIT) {
        divide::<FORWARD>(part, SHIFT * UNIT);
    }
}

/// The change of basis within 16 coefficients, each a vector.
#[inline(always)]
pub(super) fn convert_16<S: Simd, const FORWARD: bool>(simd: S, v: &mut [S::V; 16]) {
    if FORWARD {
        divide_vectors::<S, 16, 2, true>(simd, v);
        divide_vectors::<S, 8, 1, true>(simd, v);
        divide_vectors::<S, 16, 4, true>(simd, v);
        divide_vectors::<S, 4, 1, true>(simd, v);
    } else {
        divide_vectors::<S, 4, 1, false>(simd, v);
        divide_vectors::<S, 16, 4, false>(simd, v);
        divide_vectors::<S, 8, 1, false>(simd, v);
        divide_vectors::<S, 16, 2, false>(simd, v);
    }
}

/// As [`divide`], for each `LEN` vectors.
#[inline(always)]
fn divide_vectors<S: Simd, const LEN: usize, const SHIFT: usize, const FORWARD: bool>(simd: S, v: &mut [S::V; 16]) {
    let half = LEN / 2;
    for part in 0..16 / LEN {
        let start = part * LEN;
        if FORWARD {
            for i in start..start + SHIFT {
                v[half + i] = simd.xor(v[half + i], v[LEN - SHIFT + i]);
            }
        }
        for i in start + SHIFT..start + half {
            v[i] = simd.xor(v[i], v[half + i - SHIFT]);
        }
        if !FORWARD {
            for i in start..start + SHIFT {
                v[half + i] = simd.xor(v[half + i], v[LEN - SHIFT + i]);
            }
        }
    }
}
