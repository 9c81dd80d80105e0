//! Four elements of GF(2^128) at a time, on whatever the processor has.
//!
//! A value of a type that implements [`Simd`] is the proof that its instructions are there (it is only made after
//! asking the processor), so that everything written against the trait is safe code.

use zeroize::DefaultIsZeroes;

use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx512, Pclmul};

/// Four elements of GF(2^128), as they lie in memory.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub struct Lanes(pub [u128; 4]);

impl DefaultIsZeroes for Lanes {}

impl Lanes {
    /// The same memory as 64-bit words, to add whole stretches; the order of the two words of an element is the
    /// machine's.
    pub fn as_words_mut(lanes: &mut [Lanes]) -> &mut [u64] {
        let words = std::mem::size_of_val(lanes) / 8;
        // SAFETY: `Lanes` is 64 plain bytes without padding (repr(C) of four u128), any bit pattern is a valid
        // u64, the alignment of u64 is smaller, and the borrow of `lanes` is carried over.
        unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast::<u64>(), words) }
    }
}

/// The irreducible polynomial of the field without its leading term.
pub const REDUCTION: u128 = 0x87;

/// Code that is compiled once per instruction set.
pub trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, and so must be what it calls, to be compiled for the instruction set of `S`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

pub trait Simd: Copy {
    /// Four lanes of 128 bits.
    type V: Copy;

    /// Runs a kernel compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    fn load(self, from: &Lanes) -> Self::V;
    fn store(self, to: &mut Lanes, v: Self::V);
    fn load_words(self, words: &[u64; 8]) -> Self::V;
    fn load_bytes(self, bytes: &[u8; 64]) -> Self::V;
    /// One word in the low half of each lane.
    fn low_words(self, words: &[u64; 4]) -> Self::V;
    fn splat(self, x: u128) -> Self::V;
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;

    /// Lane by lane, product of the low half of `a` and the low half of `b`; and so on.
    fn clmul_low_low(self, a: Self::V, b: Self::V) -> Self::V;
    fn clmul_low_high(self, a: Self::V, b: Self::V) -> Self::V;
    fn clmul_high_low(self, a: Self::V, b: Self::V) -> Self::V;
    fn clmul_high_high(self, a: Self::V, b: Self::V) -> Self::V;

    /// Every lane times x^64, the upper half dropped.
    fn shift_up(self, a: Self::V) -> Self::V;
    /// Every lane divided by x^64, the remainder dropped.
    fn shift_down(self, a: Self::V) -> Self::V;

    /// Lane i of vector j becomes lane j of vector i.
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4];
    /// The sum of the lanes in lane 0, zero in the others.
    fn sum_to_first(self, a: Self::V) -> Self::V;

    /// Product in the field with a constant of which c x^64 is known too: five carry-less products.
    #[inline(always)]
    fn mul_by(self, a: Self::V, c: Factor<Self::V>) -> Self::V {
        let low = self.xor(self.clmul_low_low(a, c.c), self.clmul_high_low(a, c.c_x64));
        let middle = self.xor(self.clmul_low_high(a, c.c), self.clmul_high_high(a, c.c_x64));
        let folded = self.clmul_high_low(middle, self.splat(REDUCTION));
        self.xor(self.xor(low, self.shift_up(middle)), folded)
    }

    /// Product that is not reduced yet: such products may be summed first.
    #[inline(always)]
    fn mul_wide(self, a: Self::V, b: Self::V) -> Wide<Self::V> {
        Wide {
            low: self.clmul_low_low(a, b),
            middle: self.xor(self.clmul_low_high(a, b), self.clmul_high_low(a, b)),
            high: self.clmul_high_high(a, b),
        }
    }

    #[inline(always)]
    fn reduce(self, wide: Wide<Self::V>) -> Self::V {
        let r = self.splat(REDUCTION);
        let low = self.xor(wide.low, self.shift_up(wide.middle));
        let high = self.xor(wide.high, self.shift_down(wide.middle));
        // x^192 first: its image reaches seven bits into x^128.
        let top = self.clmul_high_low(high, r);
        let low = self.xor(low, self.shift_up(top));
        let high = self.xor(high, self.shift_down(top));
        self.xor(low, self.clmul_low_low(high, r))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        self.reduce(self.mul_wide(a, b))
    }
}

/// A constant to multiply with, and the same times x^64.
#[derive(Clone, Copy)]
pub struct Factor<V> {
    pub c: V,
    pub c_x64: V,
}

/// low + middle x^64 + high x^128.
#[derive(Clone, Copy)]
pub struct Wide<V> {
    pub low: V,
    pub middle: V,
    pub high: V,
}

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug)]
pub struct Backend(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Pclmul(Pclmul),
    Portable(Portable),
}

impl Backend {
    pub const PORTABLE: Self = Self(Kind::Portable(Portable));

    /// All that this machine has, fastest first; the portable one is always there.
    pub fn available() -> Vec<Backend> {
        #[cfg(target_arch = "x86_64")]
        let vector = [Avx512::detect().map(Kind::Avx512), Pclmul::detect().map(Kind::Pclmul)];
        #[cfg(not(target_arch = "x86_64"))]
        let vector: [Option<Kind>; 0] = [];
        vector.into_iter().flatten().map(Self).chain([Self::PORTABLE]).collect()
    }

    /// The fastest of this machine.
    pub fn best() -> Backend {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = Avx512::detect() {
                return Self(Kind::Avx512(simd));
            }
            if let Some(simd) = Pclmul::detect() {
                return Self(Kind::Pclmul(simd));
            }
        }
        Self::PORTABLE
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512-vpclmulqdq",
            #[cfg(target_arch = "x86_64")]
            Kind::Pclmul(_) => "avx2-pclmulqdq",
            Kind::Portable(_) => "portable",
        }
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Pclmul(simd) => simd.run(kernel),
            Kind::Portable(simd) => simd.run(kernel),
        }
    }
}
