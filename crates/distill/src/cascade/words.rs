//! Bit arithmetic on packed words: bit `i` is bit `i % 64` of word `i / 64`.

/// The low `count` bits set, `count <= 63`.
pub(super) fn low_mask(count: usize) -> u64 {
    (1 << count) - 1
}

pub(super) fn set_to(word: &mut u64, bit: usize, value: bool) {
    *word = *word & !(1 << bit) | u64::from(value) << bit;
}

/// Parity of bits `start..end` of the words that `word` yields.
#[inline]
pub(super) fn range_parity(start: usize, end: usize, word: impl Fn(usize) -> u64) -> bool {
    if start >= end {
        return false;
    }
    let (first, last) = (start / 64, (end - 1) / 64);
    let head = u64::MAX << (start % 64);
    let tail = u64::MAX >> (63 - (end - 1) % 64);
    let sum = if first == last {
        word(first) & head & tail
    } else {
        let middle = (first + 1..last).fold(0, |sum, i| sum ^ word(i));
        (word(first) & head) ^ middle ^ (word(last) & tail)
    };
    sum.count_ones() & 1 == 1
}

/// Bit `i` of the result is the parity of the first `i` bits.
pub(super) fn prefix_parities(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let mut carry = 0u64;
    words.map(move |word| {
        let mut sums = word;
        for shift in [1, 2, 4, 8, 16, 32] {
            sums ^= sums << shift;
        }
        // All ones if the parity up to here is odd.
        let before = carry.wrapping_neg();
        carry ^= sums >> 63;
        sums << 1 ^ before
    })
}

/// Index of the set bit of rank `rank` (0 the lowest) in a word that has more than `rank`.
pub(super) fn select(word: u64, rank: u32) -> usize {
    let mut rest = word;
    for _ in 0..rank {
        rest &= rest.wrapping_sub(1);
    }
    rest.trailing_zeros().min(63) as usize
}
