//! Files of 64-bit words: time above, detectors below.

use std::io::Read;

use super::TagFileError;
use super::input::Input;
use super::read::{Entry, What};
use super::units::Unit;
use crate::tag::{PATTERN_MASK, ROLLOVER};

pub(super) const WORD_BYTES: usize = 8;

/// Where the parts of a word stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The 32-bit half with the high bits comes first in the file.
    pub(super) high_first: bool,
    /// Bits below the time.
    pub(super) time_shift: u32,
    pub(super) unit: Unit,
    /// Bit 4 says that a word only tells the time.
    pub(super) rollover: bool,
}

impl Layout {
    pub(super) const A1: Self = Self { high_first: false, time_shift: 10, unit: Unit::A1, rollover: true };
    pub(super) const A1_HIGH_FIRST: Self = Self { high_first: true, ..Self::A1 };
    pub(super) const A1_4PS: Self = Self { unit: Unit::TICK, ..Self::A1 };
    /// 49 bits of 1/8 ns; what stands between them and the detectors is the instrument's own.
    pub(super) const RAW_125PS: Self =
        Self { high_first: true, time_shift: 15, unit: Unit::EIGHTH_NS, rollover: false };

    /// Times count modulo this plus one.
    pub(super) fn mask(self) -> u64 {
        u64::MAX >> self.time_shift
    }

    pub(super) fn word(self, bytes: [u8; WORD_BYTES]) -> u64 {
        let word = u64::from_le_bytes(bytes);
        if self.high_first { word.rotate_left(32) } else { word }
    }

    pub(super) fn bytes(self, word: u64) -> [u8; WORD_BYTES] {
        if self.high_first { word.rotate_left(32).to_le_bytes() } else { word.to_le_bytes() }
    }

    /// The word of one detector at this number of units.
    pub(super) fn compose(self, count: u128, detectors: u64) -> u64 {
        (count as u64 & self.mask()) << self.time_shift | detectors & PATTERN_MASK
    }

    pub(super) fn entry(self, word: u64, offset: u64) -> Entry {
        let time = word >> self.time_shift;
        let what = match word & PATTERN_MASK {
            _ if self.rollover && word & ROLLOVER != 0 => What::Time,
            0 => What::Nothing,
            detectors => What::Detectors(detectors as u8),
        };
        Entry { time, offset, what }
    }
}

pub(super) fn decode<R: Read>(
    layout: Layout,
    input: &mut Input<R>,
    entries: &mut Vec<Entry>,
) -> Result<bool, TagFileError> {
    if !input.fill()? {
        return Ok(false);
    }
    let (words, rest) = input.data().as_chunks::<WORD_BYTES>();
    let offset = input.offset();
    let places = (0..).map(|index: u64| offset + index * WORD_BYTES as u64);
    entries.extend(words.iter().zip(places).map(|(&bytes, offset)| layout.entry(layout.word(bytes), offset)));
    let (words, rest) = (words.len(), rest.len());
    input.consume(words * WORD_BYTES);
    if rest > 0 && input.is_last() {
        let offset = input.offset();
        input.consume(rest);
        return Err(TagFileError::CutShort { offset, bytes: rest, word: WORD_BYTES });
    }
    Ok(true)
}
