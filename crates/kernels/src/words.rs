//! Long rows of packed bits.

/// The sum (XOR) of `a & b` word by word; what one of them has more is left out.
pub fn sum_of_common(a: &[u64], b: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was found just now.
            return unsafe { sum_of_common_avx512(a, b) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { sum_of_common_avx2(a, b) };
        }
    }
    sum_of_common_portable(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_of_common_avx512(a: &[u64], b: &[u64]) -> u64 {
    sum_of_common_portable(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_of_common_avx2(a: &[u64], b: &[u64]) -> u64 {
    sum_of_common_portable(a, b)
}

/// Compiled for each instruction set: a compiler makes vector code of it.
#[inline(always)]
fn sum_of_common_portable(a: &[u64], b: &[u64]) -> u64 {
    a.iter().zip(b).fold(0, |sum, (a, b)| sum ^ (a & b))
}

/// Turns squares of 64 by 64 bits: bit `k` of word `j` goes to bit `j` of word `k`.
pub fn transpose(squares: &mut [[u64; 64]]) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was found just now.
            return unsafe { transpose_avx512(squares) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { transpose_avx2(squares) };
        }
    }
    transpose_portable(squares);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(squares: &mut [[u64; 64]]) {
    transpose_portable(squares);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn transpose_avx2(squares: &mut [[u64; 64]]) {
    transpose_portable(squares);
}

#[inline(always)]
fn transpose_portable(squares: &mut [[u64; 64]]) {
    for square in squares {
        swap_quarters::<32>(square, 0x0000_0000_ffff_ffff);
        swap_quarters::<16>(square, 0x0000_ffff_0000_ffff);
        swap_quarters::<8>(square, 0x00ff_00ff_00ff_00ff);
        swap_quarters::<4>(square, 0x0f0f_0f0f_0f0f_0f0f);
        swap_quarters::<2>(square, 0x3333_3333_3333_3333);
        swap_quarters::<1>(square, 0x5555_5555_5555_5555);
    }
}

/// In squares of twice `WIDTH`, the upper right quarter and the lower left one.
#[inline(always)]
fn swap_quarters<const WIDTH: usize>(square: &mut [u64; 64], mask: u64) {
    for rows in square.chunks_exact_mut(2 * WIDTH) {
        let (upper, lower) = rows.split_at_mut(WIDTH);
        for (upper, lower) in upper.iter_mut().zip(lower) {
            let change = (*upper >> WIDTH ^ *lower) & mask;
            *upper ^= change << WIDTH;
            *lower ^= change;
        }
    }
}

/// Asks for an item to be brought near, without waiting for it. What does not exist is not asked for.
#[inline(always)]
pub fn prefetch<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = items.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 CPU has it, and it reads nothing that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sum_is_that_of_all_words(pairs in prop::collection::vec(any::<(u64, u64)>(), 0..100)) {
            let (a, b): (Vec<u64>, Vec<u64>) = pairs.iter().copied().unzip();
            let expected = pairs.iter().fold(0, |sum, (a, b)| sum ^ (a & b));
            prop_assert_eq!(sum_of_common(&a, &b), expected);
            prop_assert_eq!(sum_of_common_portable(&a, &b), expected);
        }

        #[test]
        fn rows_become_columns(words in prop::collection::vec(any::<u64>(), 64..=64)) {
            let square: [u64; 64] = std::array::from_fn(|row| words[row]);
            let expected: [u64; 64] =
                std::array::from_fn(|k| (0..64).fold(0, |word, j| word | (square[j] >> k & 1) << j));
            let mut turned = [square];
            transpose(&mut turned);
            prop_assert_eq!(turned[0], expected);
            let mut turned = [square];
            transpose_portable(&mut turned);
            prop_assert_eq!(turned[0], expected);
        }
    }
}
