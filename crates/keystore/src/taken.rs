//! Which bytes of the stream were redeemed: one bit per byte, for the chunks that are partly taken.

use std::collections::BTreeMap;

use crate::StoreError;
use crate::tables::CHUNK_BYTES;

const WORDS: usize = CHUNK_BYTES.div_ceil(64);

/// Consumption of one chunk.
#[derive(Clone)]
pub(crate) struct Chunk {
    pub bytes: usize,
    pub taken: usize,
    /// Differs from what the database holds.
    pub dirty: bool,
    bits: Box<[u64; WORDS]>,
}

impl Chunk {
    pub fn new(bytes: usize) -> Self {
        Self { bytes, taken: 0, dirty: false, bits: Box::new([0; WORDS]) }
    }

    pub fn decode(bytes: usize, row: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::corrupt("a map of taken bytes has the wrong length");
        let mut chunk = Self::new(bytes);
        if bytes > CHUNK_BYTES || row.len() != WORDS * 8 {
            return Err(damaged());
        }
        for (word, raw) in chunk.bits.iter_mut().zip(row.chunks_exact(8)) {
            *word = u64::from_le_bytes(raw.try_into().map_err(|_| damaged())?);
        }
        chunk.taken = chunk.bits.iter().map(|word| word.count_ones() as usize).sum();
        if chunk.taken > bytes { Err(damaged()) } else { Ok(chunk) }
    }

    pub fn encode(&self) -> Vec<u8> {
        self.bits.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub fn is_full(&self) -> bool {
        self.taken == self.bytes
    }

    /// Bytes of `from..to` that were taken before.
    pub fn taken_in(&self, from: usize, to: usize) -> usize {
        masks(from, to).map(|(word, mask)| (self.bits[word] & mask).count_ones() as usize).sum()
    }

    /// The longest stretches that are taken, or that are not.
    pub fn runs(&self, taken: bool) -> impl Iterator<Item = (usize, usize)> {
        let is = move |at: &usize| (self.bits[at / 64] >> (at % 64) & 1 == 1) == taken;
        let mut at = 0;
        std::iter::from_fn(move || {
            let from = (at..self.bytes).find(&is)?;
            let to = (from..self.bytes).find(|at| !is(at)).unwrap_or(self.bytes);
            at = to;
            Some((from, to))
        })
    }

    /// Marks `from..to`; says how many of these bytes are newly taken.
    pub fn take(&mut self, from: usize, to: usize) -> usize {
        let new = (to - from) - self.taken_in(from, to);
        masks(from, to).for_each(|(word, mask)| self.bits[word] |= mask);
        self.taken += new;
        self.dirty |= new > 0;
        new
    }

    /// Takes back a [`Chunk::take`] that found every byte free.
    pub fn give_back(&mut self, from: usize, to: usize) {
        masks(from, to).for_each(|(word, mask)| self.bits[word] &= !mask);
        self.taken -= to - from;
    }
}

/// Words and masks that cover the bits `from..to`.
fn masks(from: usize, to: usize) -> impl Iterator<Item = (usize, u64)> {
    (from / 64..to.div_ceil(64)).map(move |word| {
        let low = from.saturating_sub(word * 64);
        let high = (to - word * 64).min(64);
        let below = if high == 64 { u64::MAX } else { (1 << high) - 1 };
        (word, below & (u64::MAX << low))
    })
}

/// Partly taken chunks of one pool and generation, by start.
pub(crate) type TakenMap = BTreeMap<u64, Chunk>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_agree_with_a_plain_array_of_flags() {
        let mut chunk = Chunk::new(CHUNK_BYTES);
        let mut flags = [false; CHUNK_BYTES];
        let mut state = 7u64;
        println!("seed {state}");
        for _ in 0..2000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let from = (state >> 33) as usize % CHUNK_BYTES;
            let to = (from + 1 + (state >> 20) as usize % 200).min(CHUNK_BYTES);
            let before = flags[from..to].iter().filter(|flag| **flag).count();
            assert_eq!(chunk.taken_in(from, to), before);
            if before == 0 && state & 64 == 0 {
                chunk.take(from, to);
                chunk.give_back(from, to);
            } else {
                assert_eq!(chunk.take(from, to), to - from - before);
                flags[from..to].fill(true);
            }
            assert_eq!(chunk.taken, flags.iter().filter(|flag| **flag).count());
            let mut by_runs = [false; CHUNK_BYTES];
            chunk.runs(true).for_each(|(from, to)| by_runs[from..to].fill(true));
            assert_eq!(by_runs, flags);
            assert_eq!(chunk.runs(false).map(|(from, to)| to - from).sum::<usize>(), CHUNK_BYTES - chunk.taken);
        }
        assert!(chunk.is_full(), "2000 ranges cover the chunk");
        let read = Chunk::decode(CHUNK_BYTES, &chunk.encode()).unwrap();
        assert!(read.is_full());
        assert!(Chunk::decode(CHUNK_BYTES - 1, &chunk.encode()).is_err());
    }
}
