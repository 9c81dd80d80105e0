//! Exponential gaps between the events of a Poisson process, in whole picoseconds, many at a time.
//!
//! The logarithm is a polynomial in plain IEEE single-precision operations (no fused multiply-add, no
//! library), so that every machine and every instruction set draws the same gaps. Its error, below 2e-7 of the
//! mean gap, is far below what any run can resolve.

/// Gaps made by one call.
pub const CHUNK: usize = 1024;

/// Random words that [`Gaps::photons`] takes: one for each gap and one for every four ports.
pub const PHOTON_WORDS: usize = CHUNK + CHUNK / 4;

/// Longest mean gap, ps. Rarer events are few, and are drawn one by one elsewhere.
pub const MEAN_MAX_PS: f64 = (1u32 << 24) as f64;

/// One more than the largest threshold of [`Gaps::photons`] that still leaves a choice.
pub const THRESHOLD_ONE: u32 = 1 << 23;

/// A gap drawn from the smallest random word is 32 ln 2 = 22.2 means long.
const LONGEST_GAP_MEANS: f64 = 22.5;

/// ln(1.5 + x) for |x| <= 1/2: interpolated at the nine Chebyshev points of the interval.
const LOGARITHM: [f32; 9] = [
    0.405_465_1,
    0.666_666_15,
    -0.222_221_93,
    0.098_791_44,
    -0.049_398_385,
    0.025_969_792,
    -0.014_410_553,
    0.010_238_18,
    -0.006_006_605,
];

/// Draws exponential gaps of one mean.
///
/// A gap is held in fixed point while it is put together, so that its resolution does not depend on its size.
#[derive(Clone, Copy)]
pub struct Gaps {
    mean: f32,
    octave: i32,
    fraction_bits: u32,
}

impl Gaps {
    /// `None` unless the mean is positive and at most [`MEAN_MAX_PS`].
    pub fn new(mean_ps: f64) -> Option<Self> {
        if !(mean_ps > 0.0 && mean_ps <= MEAN_MAX_PS) {
            return None;
        }
        let mut fraction_bits = 1;
        let mut scaled = mean_ps * 2.0;
        while fraction_bits < 20 && LONGEST_GAP_MEANS * scaled * 2.0 < f64::from(i32::MAX) {
            scaled *= 2.0;
            fraction_bits += 1;
        }
        Some(Self { mean: scaled as f32, octave: (scaled * std::f64::consts::LN_2 + 0.5) as i32, fraction_bits })
    }

    /// Fills `gaps` with gaps in ps from equally many random words.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn fill(&self, random: &[u32], gaps: &mut [u32]) {
        assert_eq!(random.len(), gaps.len());
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                // SAFETY: the instruction set was found just now.
                return unsafe { fill_avx512(*self, random, gaps) };
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                return unsafe { fill_avx2(*self, random, gaps) };
            }
        }
        self.fill_body(random, gaps);
    }

    /// Fills `photons` with words `gap << 2 | port` and returns the sum of the gaps.
    ///
    /// The high bit of a port is clear with probability `threshold / 2^23`, its low bit with one half.
    pub fn photons(&self, threshold: u32, random: &[u32; PHOTON_WORDS], photons: &mut [u32; CHUNK]) -> u64 {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                // SAFETY: the instruction set was found just now.
                return unsafe { photons_avx512(*self, threshold, random, photons) };
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                return unsafe { photons_avx2(*self, threshold, random, photons) };
            }
        }
        self.photons_body(threshold, random, photons)
    }

    /// [`Gaps::photons`] without vector instructions of its own.
    pub fn photons_portable(&self, threshold: u32, random: &[u32; PHOTON_WORDS], photons: &mut [u32; CHUNK]) -> u64 {
        self.photons_body(threshold, random, photons)
    }

    #[inline(always)]
    fn gap(&self, random: u32) -> u32 {
        // -ln(v / 2^31) with v = 31 random bits + 1/2, as octaves and a mantissa in [1, 2).
        let v = (random >> 1) as i32 as f32 + 0.5;
        let bits = v.to_bits();
        let octaves = 31 + 127 - (bits >> 23) as i32;
        let x = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000) - 1.5;
        let mut logarithm = LOGARITHM[8];
        for coefficient in LOGARITHM[..8].iter().rev() {
            logarithm = logarithm * x + coefficient;
        }
        // SAFETY: the logarithm is in [-1e-6, 0.7] and the scaled mean at most 2^31 / 22.5.
        let mantissa: i32 = unsafe { (logarithm * self.mean).to_int_unchecked() };
        let gap = octaves * self.octave - mantissa;
        ((gap.max(0) + (1 << (self.fraction_bits - 1))) >> self.fraction_bits) as u32
    }

    #[inline(always)]
    fn fill_body(&self, random: &[u32], gaps: &mut [u32]) {
        for (gap, &word) in gaps.iter_mut().zip(random) {
            *gap = self.gap(word);
        }
    }

    #[inline(always)]
    fn photons_body(&self, threshold: u32, random: &[u32; PHOTON_WORDS], photons: &mut [u32; CHUNK]) -> u64 {
        let (gaps, ports) = random.split_at(CHUNK);
        let quarter = CHUNK / 4;
        for (part, out) in photons.chunks_exact_mut(quarter).enumerate() {
            let gaps = &gaps[part * quarter..][..quarter];
            for ((out, &gap), &port) in out.iter_mut().zip(gaps).zip(ports) {
                // A byte chooses the port; where its seven bits do not decide, the lowest bits of the
                // gap's word do, which the gap itself does not feel.
                let byte = port >> (8 * part) & 0xFF;
                let high = u32::from((byte >> 1) << 16 | gap & 0xFFFF >= threshold);
                *out = self.gap(gap) << 2 | high << 1 | byte & 1;
            }
        }
        photons.iter().map(|&word| u64::from(word >> 2)).sum()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn fill_avx512(gaps: Gaps, random: &[u32], out: &mut [u32]) {
    gaps.fill_body(random, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(gaps: Gaps, random: &[u32], out: &mut [u32]) {
    gaps.fill_body(random, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn photons_avx512(gaps: Gaps, threshold: u32, random: &[u32; PHOTON_WORDS], out: &mut [u32; CHUNK]) -> u64 {
    gaps.photons_body(threshold, random, out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn photons_avx2(gaps: Gaps, threshold: u32, random: &[u32; PHOTON_WORDS], out: &mut [u32; CHUNK]) -> u64 {
    gaps.photons_body(threshold, random, out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::philox;
    use proptest::prelude::*;

    fn random(key: u32) -> [u32; PHOTON_WORDS] {
        let mut words = [0; PHOTON_WORDS];
        philox::fill([key, 1], [0; 4], &mut words);
        words
    }

    #[test]
    fn gap_is_the_logarithm() {
        for mean in [1e2, 101_000.0, 3.3e6, MEAN_MAX_PS] {
            let gaps = Gaps::new(mean).unwrap();
            let words: Vec<u32> = (0..200_000u32).map(|i| i.wrapping_mul(21_475)).chain([0, u32::MAX]).collect();
            let mut out = vec![0; words.len()];
            gaps.fill(&words, &mut out);
            for (&word, &gap) in words.iter().zip(&out) {
                let exact = -((f64::from(word >> 1) + 0.5) / f64::from(1u32 << 31)).ln() * mean;
                assert!((f64::from(gap) - exact).abs() <= 0.51 + 3e-7 * mean, "{word} {gap} {exact} of {mean}");
            }
        }
    }

    #[test]
    fn means_out_of_range_are_refused() {
        for mean in [0.0, -1.0, f64::NAN, f64::INFINITY, MEAN_MAX_PS * 1.01] {
            assert!(Gaps::new(mean).is_none());
        }
    }

    #[test]
    fn sum_is_the_sum() {
        let mut photons = [0; CHUNK];
        let sum = Gaps::new(5e4).unwrap().photons(THRESHOLD_ONE / 2, &random(3), &mut photons);
        assert_eq!(sum, photons.iter().map(|&w| u64::from(w >> 2)).sum::<u64>());
    }

    #[test]
    fn thresholds_at_the_ends_leave_no_choice() {
        let gaps = Gaps::new(5e4).unwrap();
        let mut photons = [0; CHUNK];
        gaps.photons(0, &random(1), &mut photons);
        assert!(photons.iter().all(|w| w & 2 == 2));
        gaps.photons(THRESHOLD_ONE, &random(1), &mut photons);
        assert!(photons.iter().all(|w| w & 2 == 0));
    }

    proptest! {
        #[test]
        fn every_path_gives_the_same(key: u32, mean in 1.0..MEAN_MAX_PS, threshold in 0..=THRESHOLD_ONE) {
            let gaps = Gaps::new(mean).unwrap();
            let (mut fast, mut portable) = ([0; CHUNK], [0; CHUNK]);
            let sum = gaps.photons(threshold, &random(key), &mut fast);
            prop_assert_eq!(sum, gaps.photons_portable(threshold, &random(key), &mut portable));
            prop_assert_eq!(fast, portable);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the instruction set was found just now.
                prop_assert_eq!(sum, unsafe { photons_avx2(gaps, threshold, &random(key), &mut fast) });
                prop_assert_eq!(fast, portable);
            }
        }
    }
}
