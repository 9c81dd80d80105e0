//! The orders in which the passes read a frame. Places are positions in the order of a pass, positions are those of
//! the frame.

use super::words::{Columns, LANES, common_parity, low_mask, select};
use crate::wiped::Wiped;

/// So few frames are put in an order one by one.
const FEW: usize = 4;

pub(super) enum Order {
    /// As it is.
    Natural,
    /// A random permutation.
    Shuffled { position_of: Table, place_of: Table },
    /// Random classes one after the other, each with rising positions.
    Classes(Classes),
}

/// Positions or places. The tables of a long frame compete with the frames for the cache: half the size is worth a
/// branch that is always the same.
pub(super) enum Table {
    /// Of a frame of at most 2^16 bits.
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

/// A random partition of the positions. A frame need not be put in this order to find a parity of it: that suits
/// passes that ask little.
pub(super) struct Classes {
    /// For each class, then each word of the frame: the positions that are in the class.
    members: Vec<u64>,
    /// Alike, the place of the first position of the class at or after the word; then the place after the last class.
    rank: Vec<u32>,
    count: usize,
    words: usize,
    len: usize,
}

/// The generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). The orders are public; they need to be spread well
/// and equal everywhere, not to be secret.
pub(super) struct SplitMix {
    state: u64,
}

impl SplitMix {
    pub fn new(seed: u64, len: usize, pass: usize) -> Self {
        let mut mixer = Self { state: seed };
        for word in [len as u64, pass as u64] {
            mixer.state = mixer.next() ^ word;
        }
        Self { state: mixer.next() }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl Order {
    /// The corrector needs the way back too.
    pub fn shuffled(len: usize, mut random: SplitMix, both_ways: bool) -> Self {
        let back = if both_ways { len } else { 0 };
        let (position_of, place_of) = if len <= 1 << 16 {
            let there: Vec<u16> = shuffle((0..len).map(|i| i as u16).collect(), &mut random);
            let mut places = vec![0; back];
            for (place, &position) in there.iter().enumerate().take(back) {
                places[position as usize] = place as u16;
            }
            (Table::Narrow(there), Table::Narrow(places))
        } else {
            let there: Vec<u32> = shuffle((0..len).map(|i| i as u32).collect(), &mut random);
            let mut places = vec![0; back];
            for (place, &position) in there.iter().enumerate().take(back) {
                places[position as usize] = place as u32;
            }
            (Table::Wide(there), Table::Wide(places))
        };
        Self::Shuffled { position_of, place_of }
    }

    pub fn position(&self, place: usize) -> usize {
        match self {
            Self::Natural => place,
            Self::Shuffled { position_of, .. } => position_of.get(place),
            Self::Classes(classes) => classes.position(place),
        }
    }

    pub fn place(&self, position: usize) -> usize {
        match self {
            Self::Natural => position,
            Self::Shuffled { place_of, .. } => place_of.get(position),
            Self::Classes(classes) => classes.place(position),
        }
    }
}

/// Fisher and Yates.
fn shuffle<T>(mut items: Vec<T>, random: &mut SplitMix) -> Vec<T> {
    for i in (1..items.len()).rev() {
        // Multiply-shift; the bias of (i + 1) / 2^32 is of no account here.
        let j = ((random.next() >> 32) * (i as u64 + 1)) >> 32;
        items.swap(i, j as usize);
    }
    items
}

impl Table {
    #[inline]
    pub fn get(&self, index: usize) -> usize {
        match self {
            Self::Narrow(items) => items[index] as usize,
            Self::Wide(items) => items[index] as usize,
        }
    }

    /// Frames of one length in the order of the table. Many at once: a position is looked up for [`LANES`] of them.
    pub fn gather_all(&self, frames: &[&[u64]]) -> Vec<Wiped<u64>> {
        let mut gathered = Vec::with_capacity(frames.len());
        for frames in frames.chunks(LANES) {
            if frames.len() < FEW {
                gathered.extend(frames.iter().map(|frame| self.gather(frame)));
                continue;
            }
            let columns = Columns::new(frames);
            match self {
                Self::Narrow(positions) => columns.rows(positions, &mut gathered),
                Self::Wide(positions) => columns.rows(positions, &mut gathered),
            }
        }
        gathered
    }

    /// A frame in the order of the table, as packed words.
    fn gather(&self, words: &[u64]) -> Wiped<u64> {
        Wiped::new(match self {
            Self::Narrow(positions) => gather(words, positions),
            Self::Wide(positions) => gather(words, positions),
        })
    }
}

fn gather<T: Copy + Into<u32>>(words: &[u64], position_of: &[T]) -> Vec<u64> {
    let chunks = position_of.chunks(64).map(|positions| {
        positions.iter().rev().fold(0, |word, &position| {
            let position: u32 = position.into();
            word << 1 | words[position as usize / 64] >> (position % 64) & 1
        })
    });
    chunks.collect()
}

impl Classes {
    /// `2^bits` classes of about equal size.
    pub fn new(len: usize, bits: u32, mut random: SplitMix) -> Self {
        let (words, count) = (len.div_ceil(64), 1 << bits);
        let mut members = vec![0; words * count];
        for i in 0..words {
            let masks: Vec<u64> = (0..bits).map(|_| random.next()).collect();
            let valid = if i == len / 64 { low_mask(len % 64) } else { u64::MAX };
            for class in 0..count {
                members[class * words + i] = masks.iter().enumerate().fold(valid, |members, (b, mask)| {
                    // All ones if bit b of the class is clear.
                    members & (mask ^ ((class >> b & 1) as u64).wrapping_sub(1))
                });
            }
        }
        let mut place = 0;
        let ranks = members.iter().map(|word| {
            let before = place;
            place += word.count_ones();
            before
        });
        let mut rank: Vec<u32> = ranks.collect();
        rank.push(place);
        Self { members, rank, count, words, len }
    }

    /// Where the classes begin, without the first; a start may come twice or be the end if classes are empty.
    pub fn starts(&self) -> impl Iterator<Item = usize> {
        (1..self.count).map(|class| self.start(class))
    }

    /// Parity of places `start..end` of a frame.
    pub fn parity(&self, start: usize, end: usize, words: &[u64]) -> bool {
        let (mut odd, mut start) = (false, start);
        while start < end {
            let class = self.class_at(start);
            let class_end = self.start(class + 1);
            let stop = class_end.min(end);
            // Before the first member of a class there is none.
            let first = if start == self.start(class) { 0 } else { self.position_in(class, start) };
            let last = if stop == class_end { self.len } else { self.position_in(class, stop) };
            let members = &self.members[class * self.words..][..self.words];
            odd ^= common_parity(first, last, words, members);
            start = stop;
        }
        odd
    }

    pub fn place(&self, position: usize) -> usize {
        let (i, bit) = (position / 64, position % 64);
        let here = |class: &usize| self.members[class * self.words + i] >> bit & 1 == 1;
        let class = (0..self.count).find(here).unwrap_or(0);
        let before = self.members[class * self.words + i] & low_mask(bit);
        (self.rank[class * self.words + i] + before.count_ones()) as usize
    }

    fn position(&self, place: usize) -> usize {
        self.position_in(self.class_at(place), place)
    }

    fn position_in(&self, class: usize, place: usize) -> usize {
        let rank = &self.rank[class * self.words..][..self.words];
        let i = rank.partition_point(|&rank| rank as usize <= place).saturating_sub(1);
        i * 64 + select(self.members[class * self.words + i], place as u32 - rank[i])
    }

    fn start(&self, class: usize) -> usize {
        self.rank[class * self.words] as usize
    }

    /// The class, not empty, that holds a place.
    fn class_at(&self, place: usize) -> usize {
        let (mut low, mut high) = (0, self.count);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.start(middle) <= place { low = middle } else { high = middle }
        }
        low
    }
}
