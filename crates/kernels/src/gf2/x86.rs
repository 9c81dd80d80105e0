//! The vector instructions of x86-64: AVX-512 with VPCLMULQDQ, and AVX2 with PCLMULQDQ.

use std::arch::x86_64::*;

use super::simd::{Kernel, Lanes, Simd};

/// Proof that the processor has AVX-512 (F, BW, DQ, VL) and VPCLMULQDQ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("pclmulqdq");
        found.then_some(Self(()))
    }
}

/// Proof that the processor has AVX2 and PCLMULQDQ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pclmul(());

impl Pclmul {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq");
        found.then_some(Self(()))
    }
}

/// Compiles a kernel for AVX-512.
///
/// # Safety
/// The processor must have the features named.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,vpclmulqdq,pclmulqdq")]
unsafe fn run_avx512<K: Kernel>(kernel: K, simd: Avx512) -> K::Output {
    kernel.run(simd)
}

/// Compiles a kernel for AVX2.
///
/// # Safety
/// The processor must have the features named.
#[target_feature(enable = "avx2,pclmulqdq")]
unsafe fn run_pclmul<K: Kernel>(kernel: K, simd: Pclmul) -> K::Output {
    kernel.run(simd)
}

impl Simd for Avx512 {
    type V = __m512i;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` is only made by `detect`, which found the features.
        unsafe { run_avx512(kernel, self) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> __m512i {
        // SAFETY: features as `self` proves; `Lanes` is 64 bytes, aligned to 64.
        unsafe { _mm512_load_si512(std::ptr::from_ref(from).cast()) }
    }

    #[inline(always)]
    fn store(self, to: &mut Lanes, v: __m512i) {
        // SAFETY: features as `self` proves; `Lanes` is 64 bytes, aligned to 64.
        unsafe { _mm512_store_si512(std::ptr::from_mut(to).cast(), v) }
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> __m512i {
        // SAFETY: features as `self` proves; 64 bytes are read, no alignment is asked.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 64]) -> __m512i {
        // SAFETY: features as `self` proves; 64 bytes are read, no alignment is asked.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn low_words(self, words: &[u64; 4]) -> __m512i {
        // SAFETY: features as `self` proves; 32 bytes are read, no alignment is asked.
        unsafe {
            let words = _mm512_castsi256_si512(_mm256_loadu_si256(words.as_ptr().cast()));
            _mm512_maskz_permutexvar_epi64(0b0101_0101, _mm512_setr_epi64(0, 0, 1, 0, 2, 0, 3, 0), words)
        }
    }

    #[inline(always)]
    fn splat(self, x: u128) -> __m512i {
        // SAFETY: features as `self` proves; 16 bytes are read, no alignment is asked.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(std::ptr::from_ref(&x).cast())) }
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn clmul_low_low(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe { _mm512_clmulepi64_epi128::<0x00>(a, b) }
    }

    #[inline(always)]
    fn clmul_low_high(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe { _mm512_clmulepi64_epi128::<0x10>(a, b) }
    }

    #[inline(always)]
    fn clmul_high_low(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe { _mm512_clmulepi64_epi128::<0x01>(a, b) }
    }

    #[inline(always)]
    fn clmul_high_high(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe { _mm512_clmulepi64_epi128::<0x11>(a, b) }
    }

    #[inline(always)]
    fn shift_up(self, a: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe { _mm512_bslli_epi128::<8>(a) }
    }

    #[inline(always)]
    fn shift_down(self, a: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe { _mm512_bsrli_epi128::<8>(a) }
    }

    #[inline(always)]
    fn sum_to_first(self, a: __m512i) -> __m512i {
        // SAFETY: features as `self` proves.
        unsafe {
            let pairs = _mm512_xor_si512(a, _mm512_shuffle_i64x2::<0b01_00_11_10>(a, a));
            let sum = _mm512_xor_si512(pairs, _mm512_shuffle_i64x2::<0b10_11_00_01>(pairs, pairs));
            _mm512_maskz_mov_epi64(0b11, sum)
        }
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: features as `self` proves.
        unsafe {
            let ab_low = _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b);
            let ab_high = _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b);
            let cd_low = _mm512_shuffle_i64x2::<0b01_00_01_00>(c, d);
            let cd_high = _mm512_shuffle_i64x2::<0b11_10_11_10>(c, d);
            [
                _mm512_shuffle_i64x2::<0b10_00_10_00>(ab_low, cd_low),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(ab_low, cd_low),
                _mm512_shuffle_i64x2::<0b10_00_10_00>(ab_high, cd_high),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(ab_high, cd_high),
            ]
        }
    }
}

impl Pclmul {
    #[inline(always)]
    fn zip(a: [__m128i; 4], b: [__m128i; 4], f: impl Fn(__m128i, __m128i) -> __m128i) -> [__m128i; 4] {
        [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
    }

    #[inline(always)]
    fn zero(self) -> __m128i {
        // SAFETY: features as `self` proves.
        unsafe { _mm_setzero_si128() }
    }
}

impl Simd for Pclmul {
    type V = [__m128i; 4];

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` is only made by `detect`, which found the features.
        unsafe { run_pclmul(kernel, self) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Self::V {
        // SAFETY: features as `self` proves; each lane is 16 bytes, aligned to 16.
        std::array::from_fn(|i| unsafe { _mm_load_si128(std::ptr::from_ref(&from.0[i]).cast()) })
    }

    #[inline(always)]
    fn store(self, to: &mut Lanes, v: Self::V) {
        for (lane, v) in to.0.iter_mut().zip(v) {
            // SAFETY: features as `self` proves; each lane is 16 bytes, aligned to 16.
            unsafe { _mm_store_si128(std::ptr::from_mut(lane).cast(), v) }
        }
    }

    #[inline(always)]
    fn load_words(self, words: &[u64; 8]) -> Self::V {
        // SAFETY: features as `self` proves; 16 of the 64 bytes are read each time, no alignment is asked.
        std::array::from_fn(|i| unsafe { _mm_loadu_si128(words.as_ptr().add(2 * i).cast()) })
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 64]) -> Self::V {
        // SAFETY: features as `self` proves; 16 of the 64 bytes are read each time, no alignment is asked.
        std::array::from_fn(|i| unsafe { _mm_loadu_si128(bytes.as_ptr().add(16 * i).cast()) })
    }

    #[inline(always)]
    fn low_words(self, words: &[u64; 4]) -> Self::V {
        // SAFETY: features as `self` proves.
        words.map(|word| unsafe { _mm_set_epi64x(0, word.cast_signed()) })
    }

    #[inline(always)]
    fn splat(self, x: u128) -> Self::V {
        // SAFETY: features as `self` proves; 16 bytes are read, no alignment is asked.
        [unsafe { _mm_loadu_si128(std::ptr::from_ref(&x).cast()) }; 4]
    }

    #[inline(always)]
    fn xor(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features as `self` proves.
        Self::zip(a, b, |a, b| unsafe { _mm_xor_si128(a, b) })
    }

    #[inline(always)]
    fn clmul_low_low(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features as `self` proves.
        Self::zip(a, b, |a, b| unsafe { _mm_clmulepi64_si128::<0x00>(a, b) })
    }

    #[inline(always)]
    fn clmul_low_high(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features as `self` proves.
        Self::zip(a, b, |a, b| unsafe { _mm_clmulepi64_si128::<0x10>(a, b) })
    }

    #[inline(always)]
    fn clmul_high_low(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features as `self` proves.
        Self::zip(a, b, |a, b| unsafe { _mm_clmulepi64_si128::<0x01>(a, b) })
    }

    #[inline(always)]
    fn clmul_high_high(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features as `self` proves.
        Self::zip(a, b, |a, b| unsafe { _mm_clmulepi64_si128::<0x11>(a, b) })
    }

    #[inline(always)]
    fn shift_up(self, a: Self::V) -> Self::V {
        // SAFETY: features as `self` proves.
        a.map(|a| unsafe { _mm_slli_si128::<8>(a) })
    }

    #[inline(always)]
    fn shift_down(self, a: Self::V) -> Self::V {
        // SAFETY: features as `self` proves.
        a.map(|a| unsafe { _mm_srli_si128::<8>(a) })
    }

    #[inline(always)]
    fn sum_to_first(self, a: Self::V) -> Self::V {
        let sum = self.xor(self.xor([a[0]; 4], [a[1]; 4]), self.xor([a[2]; 4], [a[3]; 4]));
        [sum[0], self.zero(), self.zero(), self.zero()]
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::V; 4]) -> [Self::V; 4] {
        std::array::from_fn(|i| [rows[0][i], rows[1][i], rows[2][i], rows[3][i]])
    }
}
