//! The secret bits that tags are made from: which bits belong to which tag, and what a store of them must promise.
//!
//! Each direction has a string of secret bits of its own, read in cells of 128 bits. Tags are numbered from 0 and
//! gathered in groups of N: a group takes one cell as hash key and N cells as pads. Which cells a tag uses follows
//! from its number alone, so that both ends agree whatever else was lost.

use std::cmp::Ordering;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Direction, MaskKey, Side};
use crate::bits::Bits;

/// Bits of a cell, of a tag and of a hash key.
pub const CELL_BITS: u64 = 128;

/// 128 secret bits.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Cell([u8; 16]);

impl Cell {
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cell(128 bits)")
    }
}

/// Where the cells of a tag lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    tags_per_hash_key: u64,
}

impl Layout {
    /// At least one tag is made under a hash key.
    pub fn new(tags_per_hash_key: u64) -> Self {
        Self { tags_per_hash_key: tags_per_hash_key.clamp(1, u64::from(u32::MAX)) }
    }

    pub fn tags_per_hash_key(&self) -> u64 {
        self.tags_per_hash_key
    }

    /// The cell of the hash key under which `tag` is made; `None` beyond all reserves.
    pub fn hash_cell(&self, tag: u64) -> Option<u64> {
        (tag / self.tags_per_hash_key).checked_mul(self.tags_per_hash_key + 1)
    }

    /// The cell that masks `tag`.
    pub fn pad_cell(&self, tag: u64) -> Option<u64> {
        self.hash_cell(tag)?.checked_add(1 + tag % self.tags_per_hash_key)
    }

    /// How many tags `bits` of one direction make.
    pub fn tags_in(&self, bits: u64) -> u64 {
        let cells = bits / CELL_BITS;
        let group = self.tags_per_hash_key + 1;
        cells / group * self.tags_per_hash_key + (cells % group).saturating_sub(1)
    }
}

/// Key bits that a round costs, both directions together: a pad and a share of a hash key each, in whole bits.
pub fn refill_bits(tags_per_hash_key: u64) -> u64 {
    2 * (CELL_BITS + CELL_BITS.div_ceil(tags_per_hash_key.max(1)))
}

/// Refills that a hello names, so that both ends find the last one they share.
pub const MARKS: usize = 16;

/// How far a reserve was filled by some refill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bits per direction that were ever put in.
    pub bits: u64,
    /// Number of the last block that put some in, plus one.
    pub next_block: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    #[error("the authentication reserve is exhausted")]
    Exhausted,
    #[error("tag {0} was already used")]
    Used(u64),
    #[error("a cell that is used up is no longer kept")]
    Dropped,
    #[error("refill of {0} bits cannot be split between two directions")]
    Odd(usize),
    #[error("the reserves of the two ends do not fit together: {0}")]
    Diverged(String),
    /// Only an end whose volume was put back misses that many.
    #[error("{} end missed more than {MARKS} refills", if *own { "this" } else { "the peer's" })]
    Missed { own: bool },
    #[error("the file of the authentication reserve: {0}")]
    Store(#[from] std::io::Error),
}

/// A durable store of cells. Whoever implements it promises that the number of a tag is on disk as used before the cell
/// to send it with is returned, and that no such cell is ever returned again.
///
/// A cell to verify with is looked at, and counts as used once a tag has verified: what does not verify may come from
/// anybody, so it moves no count. Whoever tries q forgeries succeeds with a probability of at most q times the hash's
/// epsilon, be it under one pad or under q of them.
pub trait Reserve {
    fn layout(&self) -> Layout;
    /// Number of the next tag that this end may send: all before are used.
    fn next_send(&self) -> u64;
    /// Number behind the last tag of the peer that has verified here. The peer has sent all before, whatever has
    /// crashed.
    fn next_receive(&self) -> u64;
    /// How many tags are left.
    fn remaining_send(&self) -> u64;
    fn remaining_receive(&self) -> u64;
    /// The key of the masks; reserves of an older form have none.
    fn mask_key(&self) -> Option<&MaskKey>;
    /// The hash key under which a tag is made. Not used up by reading, because it hides behind the pads.
    fn hash_key(&self, direction: Direction, tag: u64) -> Result<Cell, ReserveError>;
    /// The pad of the next tag to send; `tag` and all before it are used from now on.
    fn take_send(&mut self, tag: u64) -> Result<Cell, ReserveError>;
    /// The pad of a tag to verify.
    fn pad_to_verify(&self, tag: u64) -> Result<Cell, ReserveError>;
    /// `tag` has verified: it and all before it are used from now on.
    fn verified(&mut self, tag: u64) -> Result<(), ReserveError>;
    /// Whether this reserve is known to be older than what was done with it; then nothing is made of it any more.
    fn is_rolled_back(&self) -> bool;
    /// Notes that it is, and what shows it, until it is replaced.
    fn roll_back(&mut self, why: &str) -> Result<(), ReserveError>;
    /// How often the reserve was replaced by hand; tags are numbered from zero each time.
    fn generation(&self) -> u64;
    /// The last [`MARKS`] refills, the latest last.
    fn marks(&self) -> Vec<Mark>;
    /// Appends key of a block: the first half to the forward direction, the second to the backward one. Blocks come in
    /// order; doing it again with the same block, or with one whose turn has passed, does nothing.
    fn append(&mut self, block: u64, bits: &Bits) -> Result<(), ReserveError>;
    /// Drops refills that not both ends got, so that they go on alike.
    fn align(&mut self, peer: &[Mark]) -> Result<(), ReserveError>;
}

/// Where a reserve with these refills ends once both ends have dropped those that only one of them got.
pub fn aligned_bits(own: &[Mark], peer: &[Mark], used_bits: u64) -> Result<u64, ReserveError> {
    let common = last_shared(own, peer)?;
    if own.last().is_some_and(|last| common.bits < last.bits) && common.bits < used_bits {
        return Err(ReserveError::Diverged(format!(
            "they agree up to {} bits, of which this end has used {used_bits}",
            common.bits
        )));
    }
    Ok(common.bits)
}

/// The last refill that two ends have both seen, by what each of them remembers.
fn last_shared(own: &[Mark], peer: &[Mark]) -> Result<Mark, ReserveError> {
    if let Some(shared) = own.iter().rev().find(|mark| peer.contains(mark)) {
        return Ok(*shared);
    }
    // Where all is well the last refills of the two differ by one.
    let last = |marks: &[Mark]| marks.last().map_or(0, |mark| mark.next_block);
    Err(match last(own).cmp(&last(peer)) {
        Ordering::Less => ReserveError::Missed { own: true },
        Ordering::Greater => ReserveError::Missed { own: false },
        Ordering::Equal => ReserveError::Diverged("no refill is known to both".to_owned()),
    })
}

/// Bits of both directions and how they came in: the part of a reserve that is the same whatever holds it.
#[derive(Default)]
pub struct Cells {
    /// Bits of each direction that are no longer kept, from its beginning: used up, and a whole number of cells.
    dropped_bits: u64,
    forward: Bits,
    backward: Bits,
    /// Where the reserve ended after each refill, the initial secret first.
    marks: Vec<Mark>,
}

impl Cells {
    /// Splits a secret both ends hold into the two directions.
    pub fn new(secret: &Bits) -> Result<Self, ReserveError> {
        let mut cells = Self::default();
        cells.push(secret, 0)?;
        Ok(cells)
    }

    /// Bits per direction that were ever put in.
    pub fn bits(&self) -> u64 {
        self.dropped_bits + self.forward.len() as u64
    }

    /// Bits of each direction, from its beginning, that are no longer kept.
    pub fn dropped_bits(&self) -> u64 {
        self.dropped_bits
    }

    /// Bits and marks that were written down before; `None` where they do not fit together.
    pub fn restored(dropped_bits: u64, forward: Bits, backward: Bits, marks: Vec<Mark>) -> Option<Self> {
        let last = marks.last()?;
        let ordered =
            marks.windows(2).all(|pair| pair[0].bits <= pair[1].bits && pair[0].next_block <= pair[1].next_block);
        let bits = dropped_bits.checked_add(forward.len() as u64);
        let fits = forward.len() == backward.len() && bits == Some(last.bits);
        let fits = fits && dropped_bits.is_multiple_of(CELL_BITS);
        (ordered && fits).then_some(Self { dropped_bits, forward, backward, marks })
    }

    /// The bits of a direction that are kept.
    pub fn direction(&self, direction: Direction) -> &Bits {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    /// Whether a refill with this block would be appended.
    pub fn takes(&self, block: u64) -> bool {
        block >= self.next_block() && block != u64::MAX
    }

    fn next_block(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.next_block)
    }

    pub fn cell(&self, direction: Direction, cell: Option<u64>) -> Result<Cell, ReserveError> {
        let bits = self.direction(direction);
        let start = cell.and_then(|cell| cell.checked_mul(CELL_BITS)).ok_or(ReserveError::Exhausted)?;
        let start = start.checked_sub(self.dropped_bits).ok_or(ReserveError::Dropped)?;
        let end = start.checked_add(CELL_BITS).ok_or(ReserveError::Exhausted)?;
        if end > bits.len() as u64 {
            return Err(ReserveError::Exhausted);
        }
        let bytes = Zeroizing::new(bits.slice(start as usize, CELL_BITS as usize).to_bytes());
        let mut cell = Cell([0; 16]);
        cell.0.copy_from_slice(&bytes);
        Ok(cell)
    }

    /// False where nothing was appended: the block was before, or its turn has passed.
    pub fn append(&mut self, block: u64, bits: &Bits) -> Result<bool, ReserveError> {
        if !self.takes(block) {
            return Ok(false);
        }
        self.push(bits, block + 1)?;
        Ok(true)
    }

    fn push(&mut self, bits: &Bits, next_block: u64) -> Result<(), ReserveError> {
        if !bits.len().is_multiple_of(2) {
            return Err(ReserveError::Odd(bits.len()));
        }
        let half = bits.len() / 2;
        self.forward.extend(&bits.slice(0, half));
        self.backward.extend(&bits.slice(half, half));
        self.marks.push(Mark { bits: self.bits(), next_block });
        Ok(())
    }

    /// The last refills, the latest last.
    pub fn marks(&self) -> &[Mark] {
        &self.marks[self.marks.len().saturating_sub(MARKS)..]
    }

    /// The length to which this end must cut its reserve to agree with the peer's refills. Bits that tags were made
    /// of cannot be given back.
    pub fn aligned_bits(&self, peer: &[Mark], used_bits: u64) -> Result<u64, ReserveError> {
        aligned_bits(self.marks(), peer, used_bits)
    }

    pub fn truncate(&mut self, bits: u64) {
        self.marks.retain(|mark| mark.bits <= bits);
        let kept = bits.saturating_sub(self.dropped_bits) as usize;
        self.forward = self.forward.slice(0, kept);
        self.backward = self.backward.slice(0, kept);
    }

    /// Erases what no tag from `used` on is made of: `side` has sent and seen the tags before. Groups of tags that both
    /// directions are through with are dropped, used pads of later groups become zeros.
    pub fn erase_used(&mut self, side: Side, layout: Layout, used: Offsets) {
        let group = layout.tags_per_hash_key();
        let first = used.send.min(used.receive) / group * group;
        let drop_to = layout.hash_cell(first).and_then(|cell| cell.checked_mul(CELL_BITS));
        let drop_to = drop_to.unwrap_or(0).min(self.bits() / CELL_BITS * CELL_BITS);
        if let Some(more) = drop_to.checked_sub(self.dropped_bits).filter(|more| *more > 0) {
            let kept = self.forward.len() - more as usize;
            self.forward = self.forward.slice(more as usize, kept);
            self.backward = self.backward.slice(more as usize, kept);
            self.dropped_bits = drop_to;
        }
        let end = layout.tags_in(self.bits());
        for tag in first..used.send.min(end) {
            self.clear(side.direction(), layout.pad_cell(tag));
        }
        for tag in first..used.receive.min(end) {
            self.clear(side.other().direction(), layout.pad_cell(tag));
        }
    }

    /// Makes a cell zeros, if it is kept.
    pub fn clear(&mut self, direction: Direction, cell: Option<u64>) {
        let start = cell.and_then(|cell| cell.checked_mul(CELL_BITS)?.checked_sub(self.dropped_bits));
        let bits = match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        };
        if let Some(start) = start.filter(|start| start + CELL_BITS <= bits.len() as u64) {
            bits.clear(start as usize, CELL_BITS as usize);
        }
    }

    /// Whether two ends hold the same bits from `start_bits` of each direction on.
    pub fn same_from(&self, other: &Self, start_bits: u64) -> bool {
        let start = start_bits.max(self.dropped_bits).max(other.dropped_bits).min(self.bits());
        let part = |cells: &Self, direction| {
            let bits = cells.direction(direction);
            let from = (start - cells.dropped_bits) as usize;
            bits.slice(from, bits.len() - from)
        };
        let same = |direction| part(self, direction).ct_eq(&part(other, direction));
        self.bits() == other.bits() && same(Direction::Forward) && same(Direction::Backward)
    }
}

/// Which tags were used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub send: u64,
    pub receive: u64,
}

impl Offsets {
    /// Bits per direction that the used tags reach into.
    pub fn used_bits(&self, layout: Layout) -> u64 {
        let last = self.send.max(self.receive);
        let cell = last.checked_sub(1).and_then(|tag| layout.pad_cell(tag));
        cell.map_or(0, |cell| cell.saturating_add(1).saturating_mul(CELL_BITS))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::MemoryReserve;
    use std::collections::BTreeSet;

    fn secret(bits: usize) -> Bits {
        let words = (0..bits.div_ceil(64) as u64).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        Bits::from_words(words, bits)
    }

    #[test]
    fn used_cells_are_erased_and_all_others_stay_as_they_were() {
        let bits = secret(2 * 128 * 40);
        let whole = Cells::new(&bits).unwrap();
        for n in [1, 2, 3, 7, 100] {
            let (layout, side) = (Layout::new(n), Side::Initiator);
            let mut cells = Cells::new(&bits).unwrap();
            for (send, receive) in [(0, 0), (1, 0), (3, 2), (5, 9), (9, 9), (14, 10), (10_000, 12)] {
                let used = Offsets { send, receive };
                cells.erase_used(side, layout, used);
                assert_eq!(cells.bits(), whole.bits());
                assert!(cells.same_from(&whole, used.used_bits(layout)), "{n} {used:?}");
                for (direction, count) in [(side.direction(), send), (side.other().direction(), receive)] {
                    for tag in 0..layout.tags_in(whole.bits()) {
                        let pad = cells.cell(direction, layout.pad_cell(tag));
                        if tag < count {
                            assert!(pad.is_err() || *pad.unwrap().expose() == [0; 16], "{n} {used:?} tag {tag}");
                            continue;
                        }
                        let same = |cell| {
                            *cells.cell(direction, cell).unwrap().expose()
                                == *whole.cell(direction, cell).unwrap().expose()
                        };
                        assert!(same(layout.pad_cell(tag)) && same(layout.hash_cell(tag)), "{n} {used:?} tag {tag}");
                    }
                }
            }
            assert!(n == 100 || cells.dropped_bits() > 0, "groups that are over are dropped");
        }
    }

    #[test]
    fn no_cell_has_two_uses_and_none_is_wasted() {
        for n in [1, 2, 3, 7, 100] {
            let layout = Layout::new(n);
            let mut used = BTreeSet::new();
            for tag in 0..3 * n {
                if tag % n == 0 {
                    assert!(used.insert(layout.hash_cell(tag).unwrap()));
                }
                assert!(used.insert(layout.pad_cell(tag).unwrap()));
            }
            assert_eq!(used, (0..3 * (n + 1)).collect());
        }
    }

    #[test]
    fn tags_in_counts_what_can_be_taken() {
        for n in [1, 2, 3, 7, 100] {
            let layout = Layout::new(n);
            for bits in (0..400 * 128).step_by(64) {
                let tags = layout.tags_in(bits);
                assert!(tags == 0 || (layout.pad_cell(tags - 1).unwrap() + 1) * 128 <= bits);
                assert!((layout.pad_cell(tags).unwrap() + 1) * 128 > bits);
            }
        }
    }

    #[test]
    fn a_refill_per_round_keeps_the_reserve_level() {
        for n in [1, 2, 3, 7, 100, 128, 1000] {
            let mut filled = 0;
            let layout = Layout::new(n);
            let initial = (n + 1) * 128;
            for round in 1..=5000 {
                filled += refill_bits(n) / 2;
                assert!(layout.tags_in(initial + filled) >= round, "N {n}, round {round}");
            }
        }
        assert_eq!(refill_bits(1), 512);
        assert_eq!(refill_bits(128), 258);
        assert_eq!(refill_bits(1000), 258);
    }

    #[test]
    fn authentication_costs_under_one_percent_when_rounds_are_long_enough() {
        // Key rates of the three published points of the Nice network and the shortest rounds for them.
        for (rate_bps, round_s) in [(7069.0, 3.65), (175.0, 147.5), (1.8, 3.985 * 3600.0)] {
            let cost = refill_bits(1000) as f64 / (rate_bps * round_s);
            assert!(cost < 0.01, "{cost}");
            assert!(refill_bits(1000) as f64 / (rate_bps * round_s * 0.95) > 0.01);
        }
    }

    #[test]
    fn pads_are_taken_once_and_gaps_are_void() {
        let mut reserve = MemoryReserve::new(Side::Initiator, Layout::new(4), &secret(2 * 128 * 20)).unwrap();
        assert_eq!(reserve.remaining_send(), 16);
        reserve.take_send(0).unwrap();
        reserve.take_send(3).unwrap();
        for tag in 0..=3 {
            assert!(matches!(reserve.take_send(tag), Err(ReserveError::Used(t)) if t == tag));
        }
        assert_eq!(reserve.remaining_send(), 12);
        assert!(matches!(reserve.take_send(16), Err(ReserveError::Exhausted)));
        assert!(matches!(reserve.pad_to_verify(u64::MAX), Err(ReserveError::Exhausted)));
        reserve.pad_to_verify(2).unwrap();
        assert_eq!(reserve.next_receive(), 0, "what was only looked at is not used");
        reserve.verified(2).unwrap();
        assert!(matches!(reserve.pad_to_verify(2), Err(ReserveError::Used(2))));
        assert!(matches!(reserve.verified(1), Err(ReserveError::Used(1))));
    }

    #[test]
    fn both_ends_hold_the_same_cells_in_opposite_directions() {
        let secret = secret(2 * 128 * 6);
        let mut a = MemoryReserve::new(Side::Initiator, Layout::new(4), &secret).unwrap();
        let mut b = MemoryReserve::new(Side::Responder, Layout::new(4), &secret).unwrap();
        let (forward, backward) = (a.take_send(2).unwrap(), b.take_send(2).unwrap());
        assert_ne!(forward.expose(), backward.expose());
        assert_eq!(forward.expose(), b.pad_to_verify(2).unwrap().expose());
        assert_eq!(backward.expose(), a.pad_to_verify(2).unwrap().expose());
    }

    #[test]
    fn refills_count_once_and_in_order() {
        let mut reserve = MemoryReserve::new(Side::Initiator, Layout::new(4), &secret(256)).unwrap();
        reserve.append(3, &secret(258)).unwrap();
        reserve.append(3, &secret(258)).unwrap();
        assert_eq!(reserve.marks().last(), Some(&Mark { bits: 128 + 129, next_block: 4 }));
        reserve.append(2, &secret(258)).unwrap();
        assert_eq!(reserve.marks().last(), Some(&Mark { bits: 128 + 129, next_block: 4 }));
        assert!(matches!(reserve.append(4, &secret(257)), Err(ReserveError::Odd(257))));
    }

    #[test]
    fn refills_that_only_one_end_got_are_dropped() {
        let mut a = MemoryReserve::new(Side::Initiator, Layout::new(4), &secret(1280)).unwrap();
        let mut b = MemoryReserve::new(Side::Responder, Layout::new(4), &secret(1280)).unwrap();
        for block in [0, 1, 2] {
            a.append(block, &secret(258)).unwrap();
        }
        for block in [0, 2] {
            b.append(block, &secret(258)).unwrap();
        }
        let (marks_a, marks_b) = (a.marks(), b.marks());
        a.align(&marks_b).unwrap();
        b.align(&marks_a).unwrap();
        assert_eq!(a.marks(), b.marks());
        assert_eq!(a.marks().last(), Some(&Mark { bits: 640 + 129, next_block: 1 }));
        a.append(1, &secret(258)).unwrap();
        let strange = |next_block| Mark { bits: 700, next_block };
        assert!(matches!(a.align(&[strange(2)]), Err(ReserveError::Diverged(_))));
        assert!(matches!(a.align(&[strange(1)]), Err(ReserveError::Missed { own: false })));
        assert!(matches!(a.align(&[strange(3)]), Err(ReserveError::Missed { own: true })));
    }

    #[test]
    fn used_bits_are_never_given_back() {
        let mut reserve = MemoryReserve::new(Side::Initiator, Layout::new(4), &secret(256)).unwrap();
        let empty = reserve.marks();
        reserve.append(0, &secret(256 * 4)).unwrap();
        reserve.take_send(0).unwrap();
        assert!(matches!(reserve.align(&empty), Err(ReserveError::Diverged(_))));
    }
}
