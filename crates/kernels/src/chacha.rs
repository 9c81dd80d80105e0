//! ChaCha with 12 rounds (D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008), read at places that lie anywhere.
//!
//! A cipher's key stream as a table that nobody has to keep: word `n` of 64 bits costs the same wherever it is. What is
//! wanted at one time are single words of many blocks, so blocks are worked on side by side. The stream is the one of
//! `rand_chacha::ChaCha12Rng`. Twelve rounds are what Rust's standard generator takes; the best attack reaches seven.

use zeroize::Zeroize;

const DOUBLE_ROUNDS: usize = 6;
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// So few words are made one by one: lanes cost the same however many of them are wanted.
const SCALAR_MAX: usize = 2;

/// Words of 64 bits in a block.
const BLOCK: u64 = 8;

/// Writes the words of the stream of `key` that stand at `places`.
///
/// # Panics
/// If the two slices differ in length.
pub fn words(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    assert_eq!(places.len(), out.len());
    if places.len() <= SCALAR_MAX {
        return words_in_lanes::<1>(key, places, out, rounds);
    }
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was found just now.
            return unsafe { words_avx512(key, places, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { words_avx2(key, places, out) };
        }
    }
    words_portable(key, places, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn words_avx512(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    words_in_lanes::<16>(key, places, out, |first, blocks| simd::rounds_avx512(first, blocks));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn words_avx2(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    words_in_lanes::<8>(key, places, out, |first, blocks| simd::rounds_avx2(first, blocks));
}

/// What [`words`] does on a machine without the vector instructions it knows.
pub fn words_portable(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    words_in_lanes::<4>(key, places, out, rounds);
}

/// Writes the stream of `key` from its beginning: what [`words`] gives at 0, 1, 2 and so on, for an eighth of the work.
pub fn stream(key: &[u32; 8], out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was found just now.
            return unsafe { stream_avx512(key, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { stream_avx2(key, out) };
        }
    }
    stream_in_lanes::<4>(key, out, rounds);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn stream_avx512(key: &[u32; 8], out: &mut [u64]) {
    stream_in_lanes::<16>(key, out, |first, blocks| simd::rounds_avx512(first, blocks));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn stream_avx2(key: &[u32; 8], out: &mut [u64]) {
    stream_in_lanes::<8>(key, out, |first, blocks| simd::rounds_avx2(first, blocks));
}

/// Blocks one after the other, a lane for each.
#[inline(always)]
fn stream_in_lanes<const LANES: usize>(
    key: &[u32; 8],
    out: &mut [u64],
    rounds: impl Fn(&[[u32; LANES]; 16], &mut [[u32; LANES]; 16]),
) {
    let mut first = first_states(key);
    let mut blocks = [[0; LANES]; 16];
    let mut counter = 0u64;
    for out in out.chunks_mut(LANES * BLOCK as usize) {
        let [.., low, high, _, _] = &mut first;
        for (low, high) in low.iter_mut().zip(high) {
            (*low, *high) = (counter as u32, (counter >> 32) as u32);
            counter += 1;
        }
        rounds(&first, &mut blocks);
        for (lane, out) in out.chunks_mut(BLOCK as usize).enumerate() {
            for (word, out) in out.iter_mut().enumerate() {
                *out = u64::from(blocks[2 * word][lane]) | u64::from(blocks[2 * word + 1][lane]) << 32;
            }
        }
    }
    blocks.as_flattened_mut().zeroize();
    first.as_flattened_mut().zeroize();
}

/// What blocks begin with, but for their counters.
fn first_states<const LANES: usize>(key: &[u32; 8]) -> [[u32; LANES]; 16] {
    let mut first = [[0; LANES]; 16];
    for (row, word) in first.iter_mut().zip(CONSTANTS.iter().chain(key)) {
        *row = [*word; LANES];
    }
    first
}

/// Words of the blocks that `rounds` makes of their first states, a lane for each.
#[inline(always)]
fn words_in_lanes<const LANES: usize>(
    key: &[u32; 8],
    places: &[u64],
    out: &mut [u64],
    rounds: impl Fn(&[[u32; LANES]; 16], &mut [[u32; LANES]; 16]),
) {
    let mut first = first_states(key);
    let mut blocks = [[0; LANES]; 16];
    for (places, out) in places.chunks(LANES).zip(out.chunks_mut(LANES)) {
        for (lane, place) in places.iter().enumerate() {
            let counter = place / BLOCK;
            (first[12][lane], first[13][lane]) = (counter as u32, (counter >> 32) as u32);
        }
        rounds(&first, &mut blocks);
        for (lane, (place, out)) in places.iter().zip(out).enumerate() {
            let word = (place % BLOCK) as usize * 2;
            *out = u64::from(blocks[word][lane]) | u64::from(blocks[word + 1][lane]) << 32;
        }
    }
    blocks.as_flattened_mut().zeroize();
    first.as_flattened_mut().zeroize();
}

/// The blocks of first states.
#[inline(always)]
fn rounds<const LANES: usize>(first: &[[u32; LANES]; 16], blocks: &mut [[u32; LANES]; 16]) {
    let mut x = *first;
    for _ in 0..DOUBLE_ROUNDS {
        // A loop over lanes without another one in it is what a compiler may turn into vector code.
        for lane in 0..LANES {
            let mut s: [u32; 16] = std::array::from_fn(|word| x[word][lane]);
            quarter_round(&mut s, 0, 4, 8, 12);
            quarter_round(&mut s, 1, 5, 9, 13);
            quarter_round(&mut s, 2, 6, 10, 14);
            quarter_round(&mut s, 3, 7, 11, 15);
            quarter_round(&mut s, 0, 5, 10, 15);
            quarter_round(&mut s, 1, 6, 11, 12);
            quarter_round(&mut s, 2, 7, 8, 13);
            quarter_round(&mut s, 3, 4, 9, 14);
            for (row, word) in x.iter_mut().zip(s) {
                row[lane] = word;
            }
        }
    }
    for ((block, x), first) in blocks.iter_mut().zip(&x).zip(first) {
        for lane in 0..LANES {
            block[lane] = x[lane].wrapping_add(first[lane]);
        }
    }
}

#[inline(always)]
fn quarter_round(s: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(16);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(12);
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(8);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(7);
}

/// The same with a vector register for each word of the state: left to itself, the compiler keeps them in memory.
#[cfg(target_arch = "x86_64")]
mod simd {
    use super::DOUBLE_ROUNDS;
    use std::arch::x86_64::*;

    macro_rules! rounds {
        ($name:ident, $feature:literal, $lanes:literal, $load:ident, $store:ident, $add:ident, $xor:ident, $turn:ident) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(first: &[[u32; $lanes]; 16], blocks: &mut [[u32; $lanes]; 16]) {
                // SAFETY: a row is as long as a register, and no alignment is asked for.
                let first = first.each_ref().map(|row| unsafe { $load(row.as_ptr().cast()) });
                let mut x = first;
                macro_rules! quarter_round {
                    ($a:literal, $b:literal, $c:literal, $d:literal) => {
                        x[$a] = $add(x[$a], x[$b]);
                        x[$d] = $turn!($xor(x[$d], x[$a]), 16);
                        x[$c] = $add(x[$c], x[$d]);
                        x[$b] = $turn!($xor(x[$b], x[$c]), 12);
                        x[$a] = $add(x[$a], x[$b]);
                        x[$d] = $turn!($xor(x[$d], x[$a]), 8);
                        x[$c] = $add(x[$c], x[$d]);
                        x[$b] = $turn!($xor(x[$b], x[$c]), 7);
                    };
                }
                for _ in 0..DOUBLE_ROUNDS {
                    quarter_round!(0, 4, 8, 12);
                    quarter_round!(1, 5, 9, 13);
                    quarter_round!(2, 6, 10, 14);
                    quarter_round!(3, 7, 11, 15);
                    quarter_round!(0, 5, 10, 15);
                    quarter_round!(1, 6, 11, 12);
                    quarter_round!(2, 7, 8, 13);
                    quarter_round!(3, 4, 9, 14);
                }
                for ((block, x), first) in blocks.iter_mut().zip(x).zip(first) {
                    // SAFETY: as above.
                    unsafe { $store(block.as_mut_ptr().cast(), $add(x, first)) };
                }
            }
        };
    }

    macro_rules! turn512 {
        ($x:expr, $bits:literal) => {
            _mm512_rol_epi32::<$bits>($x)
        };
    }

    macro_rules! turn256 {
        ($x:expr, $bits:literal) => {{
            let x = $x;
            _mm256_or_si256(_mm256_slli_epi32::<$bits>(x), _mm256_srli_epi32::<{ 32 - $bits }>(x))
        }};
    }

    rounds!(
        rounds_avx512,
        "avx512f",
        16,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_add_epi32,
        _mm512_xor_si512,
        turn512
    );
    rounds!(
        rounds_avx2,
        "avx2",
        8,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_add_epi32,
        _mm256_xor_si256,
        turn256
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Key stream of 256-bit key 0 with 12 rounds, from draft-strombergson-chacha-test-vectors-01, TC1.
    #[test]
    fn known_answer() {
        let mut out = [0; 2];
        words(&[0; 8], &[0, 1], &mut out);
        let bytes: Vec<u8> = out.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(
            bytes,
            [0x9b, 0xf4, 0x9a, 0x6a, 0x07, 0x55, 0xf9, 0x53, 0x81, 0x1f, 0xce, 0x12, 0x5f, 0x26, 0x83, 0xd5]
        );
    }

    proptest! {
        #[test]
        fn every_width_gives_the_same_words(key: [u32; 8], places in prop::collection::vec(any::<u64>(), 0..70)) {
            let (mut fast, mut slow) = (vec![0; places.len()], vec![0; places.len()]);
            words(&key, &places, &mut fast);
            for (place, word) in places.iter().zip(&mut slow) {
                words_portable(&key, &[*place], std::slice::from_mut(word));
            }
            prop_assert_eq!(fast, slow);
        }

        #[test]
        fn a_stream_is_its_words_one_after_the_other(key: [u32; 8], length in 0usize..700) {
            let places: Vec<u64> = (0..length as u64).collect();
            let mut one_by_one = vec![0; length];
            words_portable(&key, &places, &mut one_by_one);
            let mut fast = vec![0; length];
            stream(&key, &mut fast);
            prop_assert_eq!(&fast, &one_by_one);
            let mut slow = vec![0; length];
            stream_in_lanes::<4>(&key, &mut slow, rounds);
            prop_assert_eq!(&slow, &one_by_one);
        }
    }
}
