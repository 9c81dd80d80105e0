//! Recognising clicks again, whatever the file around them: cut, joined, shifted in time or written in another format.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Prints that two recordings must share to have clicks in common. By chance they share none.
pub const SHARED_MIN: usize = 4;

/// Gaps that a print is made of.
const GAPS: usize = 8;
/// How many of them must be different.
const DISTINCT_MIN: usize = 6;
/// Prints that are kept of one recording.
const KEPT_MAX: usize = 1 << 14;
/// One click in this many has a print, unless there are too many.
const FIRST_SHARE: u64 = 512;

/// A sample of hashes over the gaps between clicks. The choice of the sample depends on the gaps alone, so that two
/// recordings choose the same places of what they share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prints {
    /// Every print is below it.
    limit: u64,
    prints: BTreeSet<u64>,
    #[serde(skip)]
    repeated: BTreeSet<u64>,
    #[serde(skip)]
    gaps: [u64; GAPS],
    #[serde(skip)]
    clicks: u64,
    #[serde(skip)]
    last: u128,
}

impl Prints {
    pub fn new() -> Self {
        Self { limit: u64::MAX / FIRST_SHARE, ..Self::default() }
    }

    /// Takes the next click, at a time in ticks.
    pub fn take(&mut self, time: u128) {
        let gap = time.saturating_sub(self.last) as u64;
        self.last = time;
        self.gaps.rotate_left(1);
        self.gaps[GAPS - 1] = gap;
        self.clicks += 1;
        if self.clicks <= GAPS as u64 {
            return;
        }
        let print = self.gaps.iter().fold(0, |hash, gap| mix(hash ^ gap));
        if print > self.limit {
            return;
        }
        // Gaps that repeat, of a clock instead of light, say nothing.
        if self.gaps.iter().collect::<BTreeSet<_>>().len() < DISTINCT_MIN {
            return;
        }
        if !self.prints.insert(print) {
            self.repeated.insert(print);
        }
        while self.prints.len() > KEPT_MAX {
            self.limit /= 2;
            self.prints.split_off(&(self.limit + 1));
            self.repeated.split_off(&(self.limit + 1));
        }
    }

    pub fn count(&self) -> usize {
        self.prints.len()
    }

    /// Prints that both have.
    pub fn shared(&self, other: &Self) -> usize {
        self.prints.intersection(&other.prints).count()
    }

    /// Prints that this recording has more than once.
    pub fn repeated(&self) -> usize {
        self.repeated.len()
    }
}

/// The finaliser of `SplitMix64`.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}
