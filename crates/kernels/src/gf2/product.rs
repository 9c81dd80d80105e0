//! Products element by element.

use super::simd::{Backend, Kernel, Lanes, Simd};

/// `a *= b` element by element.
///
/// # Panics
/// If the lengths differ; so for the functions below.
pub(super) fn multiply(backend: Backend, a: &mut [Lanes], b: &[Lanes]) {
    assert_eq!(a.len(), b.len());
    backend.run(Multiply { a, b });
}

/// `sum += a b` element by element.
pub(super) fn multiply_add(backend: Backend, sum: &mut [Lanes], a: &[Lanes], b: &[Lanes]) {
    assert_eq!((sum.len(), sum.len()), (a.len(), b.len()));
    backend.run(MultiplyAdd { sum, a, b });
}

struct Multiply<'a> {
    a: &'a mut [Lanes],
    b: &'a [Lanes],
}

impl Kernel for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (a, b) in self.a.iter_mut().zip(self.b) {
            let product = simd.mul(simd.load(a), simd.load(b));
            simd.store(a, product);
        }
    }
}

struct MultiplyAdd<'a> {
    sum: &'a mut [Lanes],
    a: &'a [Lanes],
    b: &'a [Lanes],
}

impl Kernel for MultiplyAdd<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for ((sum, a), b) in self.sum.iter_mut().zip(self.a).zip(self.b) {
            let product = simd.mul(simd.load(a), simd.load(b));
            let total = simd.xor(simd.load(sum), product);
            simd.store(sum, total);
        }
    }
}
