//! Bit arithmetic on packed words: bit `i` is bit `i % 64` of word `i / 64`.

use kernels::words::{sum_of_common, transpose};
use zeroize::Zeroize;

use crate::wiped::Wiped;

/// Frames of which [`Columns`] hold a bit each.
pub(super) const LANES: usize = 64;

/// Words of each frame that are turned at a time: a line of the cache.
const TILE: usize = 8;

/// Up to [`LANES`] frames of one length, position by position: bit `k` of a column is that of frame `k`.
pub(super) struct Columns {
    columns: Wiped<u64>,
    frames: usize,
}

impl Columns {
    pub fn new(frames: &[&[u64]]) -> Self {
        let words = frames.first().map_or(0, |frame| frame.len());
        let mut columns = Wiped::zeros(words * LANES);
        let mut tile = [[0; LANES]; TILE];
        for (i, columns) in columns.chunks_mut(TILE * LANES).enumerate() {
            for (k, frame) in frames.iter().take(LANES).enumerate() {
                for (square, word) in tile.iter_mut().zip(&frame[TILE * i..]) {
                    square[k] = *word;
                }
            }
            transpose(&mut tile);
            for (square, columns) in tile.iter_mut().zip(columns.chunks_mut(LANES)) {
                columns.copy_from_slice(square);
                square.fill(0);
            }
        }
        tile.as_flattened_mut().zeroize();
        Self { columns, frames: frames.len().min(LANES) }
    }

    /// Appends the frames with their bits in another order.
    pub fn rows<T: Copy + Into<u32>>(&self, position_of: &[T], out: &mut Vec<Wiped<u64>>) {
        let (first, words) = (out.len(), position_of.len().div_ceil(64));
        out.extend((0..self.frames).map(|_| Wiped::with_capacity(words)));
        let mut tile = [[0; LANES]; TILE];
        for positions in position_of.chunks(TILE * LANES) {
            for (square, positions) in tile.iter_mut().zip(positions.chunks(LANES)) {
                square[positions.len()..].fill(0);
                for (column, &position) in square.iter_mut().zip(positions) {
                    let position: u32 = position.into();
                    *column = self.columns[position as usize];
                }
            }
            transpose(&mut tile);
            let squares = positions.len().div_ceil(LANES);
            for (k, row) in out[first..].iter_mut().enumerate() {
                row.extend(tile[..squares].iter().map(|square| square[k]));
            }
        }
        tile.as_flattened_mut().zeroize();
    }
}

/// The low `count` bits set, `count <= 63`.
pub(super) fn low_mask(count: usize) -> u64 {
    (1 << count) - 1
}

pub(super) fn set_to(word: &mut u64, bit: usize, value: bool) {
    *word = *word & !(1 << bit) | u64::from(value) << bit;
}

/// The first set bit from bit `start` on.
pub(super) fn first_from(words: &[u64], start: usize) -> Option<usize> {
    let first = words.get(start / 64)? & (u64::MAX << (start % 64));
    let rest = std::iter::once(first).chain(words[start / 64 + 1..].iter().copied());
    let at = rest.enumerate().find(|(_, word)| *word != 0)?;
    Some((start / 64 + at.0) * 64 + at.1.trailing_zeros() as usize)
}

/// The last set bit before bit `end`.
pub(super) fn last_below(words: &[u64], end: usize) -> Option<usize> {
    let last = words.get(end / 64)? & low_mask(end % 64);
    let rest = std::iter::once(last).chain(words[..end / 64].iter().rev().copied());
    let at = rest.enumerate().find(|(_, word)| *word != 0)?;
    Some((end / 64 - at.0) * 64 + 63 - at.1.leading_zeros() as usize)
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

/// Parity of the bits `start..end` that are set in `members`.
pub(super) fn common_parity(start: usize, end: usize, words: &[u64], members: &[u64]) -> bool {
    if start >= end {
        return false;
    }
    let (first, last) = (start / 64, (end - 1) / 64);
    let head = u64::MAX << (start % 64);
    let tail = u64::MAX >> (63 - (end - 1) % 64);
    let at = |i: usize| words[i] & members[i];
    let sum = if first == last {
        at(first) & head & tail
    } else {
        let middle = sum_of_common(&words[first + 1..last], &members[first + 1..last]);
        (at(first) & head) ^ middle ^ (at(last) & tail)
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
