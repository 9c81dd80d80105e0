//! Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
//! easy as 1, 2, 3", SC 2011, section 4.3.
//!
//! Any stretch of its output can be computed on its own, which is what makes a simulation independent of how
//! its work is cut up. It is a statistical generator, not a cipher.

const MULTIPLIER: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Blocks that [`fill`] works on together.
const LANES: usize = 16;

/// Words that [`fill`] makes at a time: lengths that are multiples of this waste nothing.
pub const GROUP: usize = 4 * LANES;

/// One block: the four output words of one counter value.
pub fn block(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let p0 = MULTIPLIER[0] * u64::from(c0);
        let p1 = MULTIPLIER[1] * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// Fills `out` from consecutive counters, the first counter word running (and wrapping) from `counter[0]`.
///
/// The order is the generator's own, group by group of 16 blocks: within a group first word 0 of every block,
/// then word 1 of every block, and so on. That is the order in which vector registers hold them.
pub fn fill(key: [u32; 2], counter: [u32; 4], out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was found just now.
            return unsafe { fill_avx512(key, counter, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { fill_avx2(key, counter, out) };
        }
    }
    fill_portable(key, counter, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn fill_avx512(key: [u32; 2], counter: [u32; 4], out: &mut [u32]) {
    fill_groups(key, counter, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(key: [u32; 2], counter: [u32; 4], out: &mut [u32]) {
    fill_groups(key, counter, out);
}

/// What [`fill`] does on a machine without the vector instructions it knows.
pub fn fill_portable(key: [u32; 2], counter: [u32; 4], out: &mut [u32]) {
    fill_groups(key, counter, out);
}

#[inline(always)]
fn fill_groups(key: [u32; 2], [mut first, tweak, low, high]: [u32; 4], out: &mut [u32]) {
    let (groups, rest) = out.as_chunks_mut::<GROUP>();
    for words in groups {
        group(key, [first, tweak, low, high], words);
        first = first.wrapping_add(LANES as u32);
    }
    if !rest.is_empty() {
        let mut words = [0; GROUP];
        group(key, [first, tweak, low, high], &mut words);
        rest.copy_from_slice(&words[..rest.len()]);
    }
}

/// Sixteen blocks in lanes of 64 bits. Only the low half of a lane is a word; what is left above it never
/// reaches a low half, because the products take low halves alone.
#[inline(always)]
fn group(key: [u32; 2], counter: [u32; 4], out: &mut [u32; GROUP]) {
    let low = |x: u64| x & 0xFFFF_FFFF;
    let mut c0: [u64; LANES] = std::array::from_fn(|lane| u64::from(counter[0].wrapping_add(lane as u32)));
    let mut c1 = [u64::from(counter[1]); LANES];
    let mut c2 = [u64::from(counter[2]); LANES];
    let mut c3 = [u64::from(counter[3]); LANES];
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        for lane in 0..LANES {
            let p0 = MULTIPLIER[0] * low(c0[lane]);
            let p1 = MULTIPLIER[1] * low(c2[lane]);
            c0[lane] = (p1 >> 32) ^ c1[lane] ^ u64::from(k0);
            c1[lane] = p1;
            c2[lane] = (p0 >> 32) ^ c3[lane] ^ u64::from(k1);
            c3[lane] = p0;
        }
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    for lane in 0..LANES {
        out[lane] = c0[lane] as u32;
        out[LANES + lane] = c1[lane] as u32;
        out[2 * LANES + lane] = c2[lane] as u32;
        out[3 * LANES + lane] = c3[lane] as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The known answers published with the generator (Random123, `kat_vectors`).
    #[test]
    fn known_answers() {
        assert_eq!(block([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(block([ones; 2], [ones; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            block([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    proptest! {
        #[test]
        fn fill_is_the_blocks_in_lane_order(key: [u32; 2], counter: [u32; 4], len in 0usize..300) {
            let mut out = vec![0; len];
            fill(key, counter, &mut out);
            for (i, &word) in out.iter().enumerate() {
                let lane = i / GROUP * LANES + i % LANES;
                let first = counter[0].wrapping_add(lane as u32);
                let expected = block(key, [first, counter[1], counter[2], counter[3]]);
                prop_assert_eq!(word, expected[i % GROUP / LANES]);
            }
        }

        #[test]
        fn every_path_gives_the_same(key: [u32; 2], counter: [u32; 4], len in 0usize..300) {
            let (mut fast, mut portable) = (vec![0; len], vec![0; len]);
            fill(key, counter, &mut fast);
            fill_portable(key, counter, &mut portable);
            prop_assert_eq!(&fast, &portable);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the instruction set was found just now.
                unsafe { fill_avx2(key, counter, &mut fast) };
                prop_assert_eq!(&fast, &portable);
            }
        }
    }
}
