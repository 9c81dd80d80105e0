//! What the corrector knows about one pass: the frame in the order of the pass, cut into segments of known parity.
//! Inner nodes of a search tree need no room of their own: their parities are sums of those of the leaves.

use std::collections::BTreeMap;

use kernels::words::prefetch;
use zeroize::DefaultIsZeroes;

use super::words::{first_from, last_below, range_parity, set_to};
use crate::wiped::Wiped;

/// Weight of a place in an odd segment, times the length of that segment; that of one in an even segment is its
/// length less one.
const ODD_WEIGHT: u32 = 4096;
const MAX_WEIGHED_LEN: u32 = 64;

/// A stretch of places and the place at which it is to be cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Segment {
    pub start: u32,
    pub middle: u32,
    pub end: u32,
}

pub(super) enum Segments {
    /// One bit for each place; for passes with many segments.
    Dense(Dense),
    /// Start to what is known; for passes with few.
    Sparse(BTreeMap<u32, Known>),
}

pub(super) struct Dense {
    /// The end is marked like a start, and one cell is spare: what comes next can be looked up everywhere.
    cells: Wiped<Cell>,
    /// Cells in which a segment starts: long segments need not be walked through.
    start_cells: Vec<u64>,
    /// Cells with an odd segment.
    odd_cells: Vec<u64>,
}

/// What is known of 64 places. All of it in one line of the cache: frames are many, and what is looked at lies far
/// apart.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
struct Cell {
    /// A segment starts here.
    starts: u64,
    /// The segment that starts here has an odd number of errors.
    odd: u64,
    /// The frame as corrected so far, in the order of the pass.
    bits: u64,
    /// The reference's parity of all before this place, where a segment starts.
    prefix: u64,
}

impl DefaultIsZeroes for Cell {}

#[derive(Clone, Copy)]
pub(super) struct Known {
    prefix: bool,
    odd: bool,
}

impl Segments {
    /// One segment without known errors.
    pub fn sparse() -> Self {
        Self::Sparse(BTreeMap::from([(0, Known { prefix: false, odd: false })]))
    }

    /// Corrects the bit at a place: the segment that holds it turns from odd to even or back.
    #[inline]
    pub fn correct(&mut self, place: usize) {
        match self {
            Self::Dense(dense) => dense.correct(place),
            Self::Sparse(known) => {
                if let Some((_, known)) = known.range_mut(..=place as u32).next_back() {
                    known.odd ^= true;
                }
            }
        }
    }

    /// Says whether the only segment, of a pass that was just opened, has an odd number of errors.
    pub fn set_whole(&mut self, odd: bool) {
        match self {
            Self::Dense(dense) => dense.set_odd(0, odd),
            Self::Sparse(known) => *known = BTreeMap::from([(0, Known { prefix: false, odd })]),
        }
    }

    /// Cuts a segment in two; `prefix` is the reference's parity of all before the cut, `own_parity` that of the own
    /// bits from `start` to the cut. Returns which of the two pieces are odd.
    #[inline]
    pub fn cut(&mut self, start: u32, middle: u32, prefix: bool, own_parity: bool) -> (bool, bool) {
        match self {
            Self::Dense(dense) => dense.cut(start as usize, middle as usize, prefix, own_parity),
            Self::Sparse(known) => {
                let Some(segment) = known.get_mut(&start) else { return (false, false) };
                let left = segment.prefix ^ prefix ^ own_parity;
                let right = segment.odd ^ left;
                segment.odd = left;
                known.insert(middle, Known { prefix, odd: right });
                (left, right)
            }
        }
    }

    /// Appends the odd segments in order, each with its cut in the middle; of a sparse pass `limit` at most.
    pub fn odd_segments(&self, len: usize, limit: usize, out: &mut Vec<Segment>) {
        match self {
            Self::Dense(dense) => dense.odd_segments(out),
            Self::Sparse(known) => {
                let ends = known.keys().skip(1).map(|&next| next as usize).chain([len]);
                let odd = known.iter().zip(ends).filter(|((_, known), _)| known.odd).take(limit);
                out.extend(odd.map(|((&start, _), end)| Segment::halved(start as usize, end)));
            }
        }
    }
}

impl Segment {
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    fn halved(start: usize, end: usize) -> Self {
        Self { start: start as u32, middle: (start + (end - start) / 2) as u32, end: end as u32 }
    }
}

impl Dense {
    /// One segment without known errors; `words` is the frame in the order of the pass.
    pub fn new(len: usize, words: &[u64]) -> Self {
        let mut cells = Wiped::with_capacity(len / 64 + 2);
        cells.extend(words.iter().map(|&bits| Cell { bits, ..Cell::default() }));
        cells.resize(len / 64 + 2, Cell::default());
        cells[0].starts = 1;
        cells[len / 64].starts |= 1 << (len % 64);
        let odd_cells = vec![0; cells.len().div_ceil(64)];
        let mut start_cells = odd_cells.clone();
        start_cells[0] = 1;
        start_cells[len / 64 / 64] |= 1 << (len / 64 % 64);
        Self { cells, start_cells, odd_cells }
    }

    /// Brings near what is known of the places around a cut.
    #[inline]
    pub fn prefetch(&self, segment: &Segment) {
        prefetch(&self.cells, segment.start as usize / 64);
        prefetch(&self.cells, segment.middle as usize / 64);
    }

    #[inline]
    pub fn parity(&self, start: usize, end: usize) -> bool {
        range_parity(start, end, |i| self.cells[i].bits)
    }

    fn correct(&mut self, place: usize) {
        self.cells[place / 64].bits ^= 1 << (place % 64);
        let start = self.start_of(place);
        let odd = self.cells[start / 64].odd >> (start % 64) & 1 == 1;
        self.set_odd(start, !odd);
    }

    /// Without branches that depend on what the reference said: no one could predict them.
    #[inline]
    fn cut(&mut self, start: usize, middle: usize, prefix: bool, own_parity: bool) -> (bool, bool) {
        let cell = &self.cells[start / 64];
        let (before, odd) = (cell.prefix >> (start % 64) & 1 == 1, cell.odd >> (start % 64) & 1 == 1);
        let left = before ^ prefix ^ own_parity;
        let right = odd ^ left;
        let cell = &mut self.cells[middle / 64];
        cell.starts |= 1 << (middle % 64);
        cell.prefix |= u64::from(prefix) << (middle % 64);
        self.start_cells[middle / 64 / 64] |= 1 << (middle / 64 % 64);
        self.set_odd(start, left);
        self.set_odd(middle, right);
        (left, right)
    }

    #[inline]
    fn set_odd(&mut self, start: usize, odd: bool) {
        let (i, bit) = (start / 64, start % 64);
        let cell = &mut self.cells[i];
        set_to(&mut cell.odd, bit, odd);
        set_to(&mut self.odd_cells[i / 64], i % 64, cell.odd != 0);
    }

    /// How likely an error is at a place, relative to others, by the segment around it: 0 if the place is known
    /// exactly. Of a segment only what lies in the cell is looked at, but a place alone in its segment is one for sure.
    #[inline]
    pub fn weight(&self, place: usize) -> u32 {
        let (i, bit) = (place / 64, place % 64);
        let cell = &self.cells[i];
        // A segment ends after place b of the cell if the next begins at b + 1.
        let ends = cell.starts >> 1 | self.cells[i + 1].starts << 63;
        let after = (ends >> bit).trailing_zeros();
        let before = (cell.starts << (63 - bit)).leading_zeros();
        let odd =
            cell.odd.checked_shr(bit as u32 - before.min(bit as u32)).unwrap_or(0) & 1 == 1 && before <= bit as u32;
        let len = (before + after + 1).min(MAX_WEIGHED_LEN);
        if odd { ODD_WEIGHT / len } else { len - 1 }
    }

    fn start_of(&self, place: usize) -> usize {
        let i = place / 64;
        let starts = self.cells[i].starts & (u64::MAX >> (63 - place % 64));
        // The first place is a start: there is one before.
        let (i, starts) = match starts {
            0 => last_below(&self.start_cells, i).map_or((0, 1), |i| (i, self.cells[i].starts)),
            _ => (i, starts),
        };
        i * 64 + 63 - starts.leading_zeros().min(63) as usize
    }

    /// The first start after a place, or the end, which is marked like a start.
    fn next_start(&self, place: usize) -> usize {
        let i = place / 64;
        // Shifted in two steps, for a shift by 64 is none.
        let starts = self.cells[i].starts & (u64::MAX << (place % 64) << 1);
        let (i, starts) = match starts {
            0 => first_from(&self.start_cells, i + 1).map_or((i, 0), |i| (i, self.cells[i].starts)),
            _ => (i, starts),
        };
        i * 64 + starts.trailing_zeros() as usize
    }

    fn odd_segments(&self, out: &mut Vec<Segment>) {
        for (i, &word) in self.odd_cells.iter().enumerate() {
            let mut cells = word;
            while cells != 0 {
                let cell = i * 64 + cells.trailing_zeros() as usize;
                cells &= cells - 1;
                let mut odd = self.cells[cell].odd;
                while odd != 0 {
                    let start = cell * 64 + odd.trailing_zeros() as usize;
                    odd &= odd - 1;
                    out.push(Segment::halved(start, self.next_start(start)));
                }
            }
        }
    }
}
