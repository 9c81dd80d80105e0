//! ChaCha with 12 rounds (D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008), read at places that lie anywhere.
//!
//! A cipher's key stream as a table that nobody has to keep: word `n` of 64 bits costs the same wherever it is. What is
//! wanted at one time are single words of many blocks, so blocks are worked on side by side. The stream is the one of
//! `rand_chacha::ChaCha12Rng`. Twelve rounds are what Rust's standard generator takes; the best attack reaches seven.

use zeroize::Zeroize;

const DOUBLE_ROUNDS: usize = 6;
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Words of 64 bits in a block.
const BLOCK: u64 = 8;

/// Writes the words of the stream of `key` that stand at `places`.
///
/// # Panics
/// If the two slices differ in length.
pub fn words(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    assert_eq!(places.len(), out.len());
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
    words_in_lanes::<16>(key, places, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn words_avx2(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    words_in_lanes::<8>(key, places, out);
}

/// What [`words`] does on a machine without the vector instructions it knows.
pub fn words_portable(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    words_in_lanes::<4>(key, places, out);
}

#[inline(always)]
fn words_in_lanes<const LANES: usize>(key: &[u32; 8], places: &[u64], out: &mut [u64]) {
    let mut blocks = [[0; LANES]; 16];
    for (places, out) in places.chunks(LANES).zip(out.chunks_mut(LANES)) {
        let mut counters = [0; LANES];
        for (counter, place) in counters.iter_mut().zip(places) {
            *counter = place / BLOCK;
        }
        fill(key, &counters, &mut blocks);
        for (lane, (place, out)) in places.iter().zip(out).enumerate() {
            let first = (place % BLOCK) as usize * 2;
            *out = u64::from(blocks[first][lane]) | u64::from(blocks[first + 1][lane]) << 32;
        }
    }
    blocks.as_flattened_mut().zeroize();
}

/// The blocks of `counters`, word by word, a lane for each.
#[inline(always)]
fn fill<const LANES: usize>(key: &[u32; 8], counters: &[u64; LANES], blocks: &mut [[u32; LANES]; 16]) {
    let mut first = [[0; LANES]; 16];
    for (row, word) in first.iter_mut().zip(CONSTANTS.iter().chain(key)) {
        *row = [*word; LANES];
    }
    first[12] = counters.map(|counter| counter as u32);
    first[13] = counters.map(|counter| (counter >> 32) as u32);
    let mut x = first;
    for _ in 0..DOUBLE_ROUNDS {
        for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            quarter_round(&mut x, a, b, c, d);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter_round(&mut x, a, b, c, d);
        }
    }
    for ((block, x), first) in blocks.iter_mut().zip(&x).zip(&first) {
        for lane in 0..LANES {
            block[lane] = x[lane].wrapping_add(first[lane]);
        }
    }
}

#[inline(always)]
fn quarter_round<const LANES: usize>(x: &mut [[u32; LANES]; 16], a: usize, b: usize, c: usize, d: usize) {
    for (into, from, turned, bits) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        let added = x[from];
        x[into].iter_mut().zip(added).for_each(|(into, added)| *into = into.wrapping_add(added));
        let mixed = x[into];
        x[turned].iter_mut().zip(mixed).for_each(|(turned, mixed)| *turned = (*turned ^ mixed).rotate_left(bits));
    }
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
    }
}
