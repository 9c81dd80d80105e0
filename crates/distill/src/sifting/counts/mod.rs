//! Light as counts: sifted bits of a frame at once, with exact statistics, in place of clicks.
//!
//! Sifting by position is done where the light is drawn; what is left for the ends is what a proof needs of them. The
//! *reference* discloses its bits of the check basis and, where pulses have intensities, the intensity of each of them
//! and how many bits of the key each gave. The *corrector* compares, and answers with its own. That is one announcement
//! a frame each way; both ends have the same evidence, and from there on everything is as with clicks.
//!
//! Bits stand in random order, whatever pulse they came of: a place says nothing of the bits of the key, and of those
//! no intensity is said, only how many there are of each.

mod half;
mod messages;

pub use half::Half;
pub use messages::{Disclosure, Said};

use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use super::Tag;
use crate::bits::Bits;
use crate::config::{Loops, Side};

/// Of every message of this protocol.
pub const TAG: Tag = Tag(3);

/// Frames that may wait for the other end at most.
const FRAMES_WAITING_MAX: usize = 4096;

/// Bytes that may wait at most, of what the peer said and of this end's own frames each.
const BYTES_WAITING_MAX: usize = 1 << 28;

/// Most bits of a frame in the key basis.
pub const FRAME_BITS_MAX: usize = 1 << 28;

/// Most bits of a frame in the check basis: they and their intensities are said in one message.
pub const CHECK_BITS_MAX: usize = 1 << 26;

/// Sifting by counts, at one end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// The reference of a prepared link is its transmitter.
    pub side: Side,
    /// The pump's follows what is measured here. Polarisation and phase are taken as held where their loops are on.
    pub loops: Loops,
}

/// Bits of one basis of one frame. Raw key: zeroized when dropped, never printed.
#[derive(Clone, Default, ZeroizeOnDrop)]
pub struct Labelled {
    pub bits: Bits,
    /// At the transmitter, where pulses have several intensities: the place of the intensity of each bit among them,
    /// from its lowest binary digit.
    pub kinds: Vec<Bits>,
}

/// What an end's instrument gives of a frame.
#[derive(Clone, Default)]
pub struct Frame {
    pub key: Labelled,
    pub check: Labelled,
    /// Pulses that were sent; 0 where pairs are.
    pub pulses: u64,
    /// Clicks of the own receiver, and those of them that make no bit: of another basis than the transmitter's, of both
    /// bases, beyond the first of a pulse. Of what is left beyond the sifted bits nothing was found at the other end.
    pub clicks: u64,
    pub mismatched: u64,
    pub crossed: u64,
    pub merged: u64,
}

impl Frame {
    /// Clicks that it says what became of.
    fn accounted(&self) -> u64 {
        let bits = (self.key.bits.len() + self.check.bits.len()) as u64;
        [self.mismatched, self.crossed, self.merged].into_iter().fold(bits, u64::saturating_add)
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} and {} bits)", self.key.bits.len(), self.check.bits.len())
    }
}

impl Frame {
    /// Bytes that it keeps while it waits.
    fn bytes(&self) -> usize {
        self.key.bytes() + self.check.bytes()
    }
}

impl Labelled {
    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        (1 + self.kinds.len()) * self.bits.len().div_ceil(8)
    }

    /// How many bits each intensity gave, and of which `wrong` are set.
    fn tally<const N: usize>(&self, wrong: Option<&Bits>) -> [u64; N] {
        let mut counts = [0; N];
        // That is how many places the digits can name.
        for (kind, count) in counts.iter_mut().enumerate().take(1 << self.kinds.len()) {
            *count = (0..self.bits.words().len())
                .map(|word| {
                    let of_plane = |(plane, bits): (usize, &Bits)| {
                        let word = bits.words()[word];
                        if kind >> plane & 1 == 1 { word } else { !word }
                    };
                    let valid = match self.bits.len() - 64 * word {
                        left if left < 64 => (1 << left) - 1,
                        _ => u64::MAX,
                    };
                    let of_kind = self.kinds.iter().enumerate().map(of_plane).fold(valid, |all, one| all & one);
                    u64::from((of_kind & wrong.map_or(u64::MAX, |wrong| wrong.words()[word])).count_ones())
                })
                .sum();
        }
        counts
    }
}
