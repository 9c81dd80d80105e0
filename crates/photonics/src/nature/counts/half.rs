//! What one end gets of a slice, and how it travels.

use super::law::{KINDS_MAX, Statistics};
use super::{SLICE_BITS_MAX, Tally};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bits of one basis, raw key: wiped when dropped, never printed. Bit `i` is bit `i % 64` of word `i / 64`, and those beyond
/// the length are 0.
#[derive(Clone, Default, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Labelled {
    pub len: usize,
    pub bits: Vec<u64>,
    /// At the transmitter, where there are several kinds of pulses: the kind of each bit, plane by plane from the lowest.
    pub kinds: Vec<Vec<u64>>,
}

impl Labelled {
    pub fn bit(&self, place: usize) -> bool {
        self.bits[place / 64] >> (place % 64) & 1 == 1
    }

    /// Kind of pulse of a bit; 0 where they are not told apart.
    pub fn kind(&self, place: usize) -> usize {
        let of_plane = |(plane, words): (usize, &Vec<u64>)| ((words[place / 64] >> (place % 64) & 1) as usize) << plane;
        self.kinds.iter().enumerate().map(of_plane).sum()
    }

    /// Bits of each kind.
    pub fn counts(&self) -> [u64; KINDS_MAX] {
        let mut counts = [0; KINDS_MAX];
        let mut left = self.len;
        for word in 0..self.bits.len() {
            let valid = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
            left = left.saturating_sub(64);
            for (kind, count) in counts.iter_mut().enumerate() {
                let mut of_kind = valid;
                for plane in 0..2 {
                    let words = self.kinds.get(plane).map_or(0, |words| words[word]);
                    of_kind &= if kind >> plane & 1 == 1 { words } else { !words };
                }
                *count += u64::from(of_kind.count_ones());
            }
        }
        counts
    }
}

impl std::fmt::Debug for Labelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Labelled({} bits)", self.len)
    }
}

/// What one end of a link gets of a slice: its own bits and what its own instrument counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Half {
    pub epoch: u64,
    /// This slice of its epoch, from 0, and how many there are.
    pub slice: u32,
    pub slices: u32,
    /// Pulses that were sent; both ends count them by their clocks.
    pub pulses: u64,
    pub clicks: u64,
    /// Events of a prepared link's receiver that make no bit: see [`Statistics`].
    pub mismatched: u64,
    pub crossed: u64,
    /// Events with a random bit.
    pub doubles: u64,
    pub key: Labelled,
    pub check: Labelled,
}

/// Why bytes are no half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HalfError {
    #[error("{bytes} bytes of counts where {expected} are due")]
    Length { bytes: usize, expected: usize },
    #[error("counts do not begin with {:?}", std::str::from_utf8(&MAGIC).unwrap_or_default())]
    Magic,
    #[error("a string of {bits} bits is longer than {SLICE_BITS_MAX}")]
    TooLong { bits: u64 },
    #[error("{planes} planes of kinds, where at most {PLANES_MAX} are known")]
    Planes { planes: u64 },
    #[error("slice {slice} of {slices}")]
    Slice { slice: u32, slices: u32 },
    #[error("bits beyond the end of a string")]
    Tail,
    #[error("a count of {count} events, where at most {COUNT_MAX} are taken")]
    Count { count: u64 },
}

const MAGIC: [u8; 8] = *b"qcounts1";
const HEADER_WORDS: usize = 11;
const PLANES_MAX: u64 = 2;
/// Of any kind of event in a slice: sums of many slices stay within 64 bits.
const COUNT_MAX: u64 = 1 << 48;

/// No encoded half is longer.
pub const HALF_BYTES_MAX: usize = 8 * (HEADER_WORDS + 2 * (1 + PLANES_MAX as usize) * SLICE_BITS_MAX as usize / 64);

impl Half {
    /// Without its strings. The end 0 of a prepared link, its transmitter, has no clicks.
    pub(super) fn new(epoch: u64, slice: u32, slices: u32, end: usize, statistics: &Statistics) -> Self {
        let Statistics { pulses, mismatched, crossed, doubles, clicks, .. } = *statistics;
        let half = Self { epoch, slice, slices, pulses, clicks: clicks[end], ..Self::default() };
        if end == 0 { half } else { Self { mismatched, crossed, doubles, ..half } }
    }

    pub fn encode(&self) -> Vec<u8> {
        let planes = self.key.kinds.len().max(self.check.kinds.len());
        let header: [u64; HEADER_WORDS] = [
            u64::from_le_bytes(MAGIC),
            self.epoch,
            u64::from(self.slice) | u64::from(self.slices) << 32,
            self.key.len as u64,
            self.check.len as u64,
            planes as u64,
            self.pulses,
            self.clicks,
            self.mismatched,
            self.crossed,
            self.doubles,
        ];
        let strings = || [&self.key, &self.check].into_iter().flat_map(|of| std::iter::once(&of.bits).chain(&of.kinds));
        let words = HEADER_WORDS + strings().map(Vec::len).sum::<usize>();
        let mut bytes = Vec::with_capacity(8 * words);
        header.iter().chain(strings().flatten()).for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, HalfError> {
        let (words, _) = bytes.as_chunks::<8>();
        let short = HalfError::Length { bytes: bytes.len(), expected: 8 * HEADER_WORDS };
        let Some((header, mut rest)) = words.split_at_checked(HEADER_WORDS) else { return Err(short) };
        let header: [u64; HEADER_WORDS] = std::array::from_fn(|word| u64::from_le_bytes(header[word]));
        let [magic, epoch, place, key, check, planes, pulses, clicks, mismatched, crossed, doubles] = header;
        if magic.to_le_bytes() != MAGIC {
            return Err(HalfError::Magic);
        }
        let (slice, slices) = (place as u32, (place >> 32) as u32);
        if slice >= slices {
            return Err(HalfError::Slice { slice, slices });
        }
        if planes > PLANES_MAX {
            return Err(HalfError::Planes { planes });
        }
        let counts = [pulses, clicks, mismatched, crossed, doubles];
        if let Some(count) = counts.into_iter().find(|count| *count > COUNT_MAX) {
            return Err(HalfError::Count { count });
        }
        if let Some(bits) = [key, check].into_iter().find(|bits| *bits > SLICE_BITS_MAX) {
            return Err(HalfError::TooLong { bits });
        }
        let string = |bits: u64| (1 + planes as usize) * (bits as usize).div_ceil(64);
        let expected = 8 * (HEADER_WORDS + string(key) + string(check));
        if bytes.len() != expected {
            return Err(HalfError::Length { bytes: bytes.len(), expected });
        }
        let mut take = |len: u64| {
            let len = len as usize;
            let (words, left) = rest.split_at(len.div_ceil(64));
            rest = left;
            let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            let beyond = words.last().is_some_and(|last| !len.is_multiple_of(64) && last >> (len % 64) != 0);
            if beyond { Err(HalfError::Tail) } else { Ok(words) }
        };
        let mut labelled = |len: u64| {
            let bits = take(len)?;
            let kinds = (0..planes).map(|_| take(len)).collect::<Result<_, _>>()?;
            Ok(Labelled { len: len as usize, bits, kinds })
        };
        let (key, check) = (labelled(key)?, labelled(check)?);
        Ok(Self { epoch, slice, slices, pulses, clicks, mismatched, crossed, doubles, key, check })
    }
}

/// Errors by kind of pulse: what nobody can say who has one half alone.
pub fn compare(reference: &Labelled, other: &Labelled) -> [Tally; KINDS_MAX] {
    let mut tallies = [Tally::default(); KINDS_MAX];
    for (tally, bits) in tallies.iter_mut().zip(reference.counts()) {
        tally.bits = bits;
    }
    for (word, (own, peer)) in reference.bits.iter().zip(&other.bits).enumerate() {
        let mut wrong = own ^ peer;
        while wrong != 0 {
            tallies[reference.kind(64 * word + wrong.trailing_zeros() as usize)].errors += 1;
            wrong &= wrong - 1;
        }
    }
    tallies
}

#[cfg(test)]
#[path = "half_tests.rs"]
mod tests;
