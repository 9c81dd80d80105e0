//! Redeeming in advance: where keys are fetched fast, the disk is told once that a whole chunk is gone, and what is
//! asked of it from then on is answered from memory.
//!
//! What of such a chunk was not asked for is put back with the next checkpoint, or before. After a crash it is wasted,
//! as what is left of a lease is.

use std::collections::VecDeque;

use zeroize::Zeroize;

use crate::taken::Chunk;
use crate::{Secret, Use};

/// The use of which chunks are taken in advance: what applications fetch. A relay redeems with commits of its own.
pub(crate) const ADVANCE_USE: Use = Use::SupplyIn;

/// Chunks of a pool that are taken in advance at any time.
const ADVANCES_MAX: usize = 32;

/// A chunk that the disk knows as taken, or will before the first answer from it.
pub(crate) struct Advance {
    /// Tells it from one of the same chunk before.
    pub number: u64,
    pub start: u64,
    key: Secret,
    gone: Chunk,
    handed_out: u64,
    durable: bool,
}

impl Advance {
    /// `key` is all of the chunk, `gone` what of it was redeemed before.
    pub fn new(number: u64, start: u64, mut key: Secret, gone: Chunk) -> Self {
        gone.runs(true).for_each(|(from, to)| key.expose_mut()[from..to].zeroize());
        Self { number, start, key, gone, handed_out: 0, durable: false }
    }

    /// What nobody has asked for, within the chunk.
    pub fn left(&self) -> impl Iterator<Item = (usize, usize)> {
        self.gone.runs(false)
    }

    pub fn handed_out(&self) -> u64 {
        self.handed_out
    }

    pub fn left_bytes(&self) -> u64 {
        (self.gone.bytes - self.gone.taken) as u64
    }

    fn end(&self) -> u64 {
        self.start + self.key.len() as u64
    }

    fn place(&self, start: u64, bytes: u64) -> Option<(usize, usize)> {
        let from = usize::try_from(start.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(usize::try_from(bytes).ok()?)?;
        (from < to && to <= self.key.len()).then_some((from, to))
    }

    fn take(&mut self, (start, bytes): (u64, u64)) -> Option<Secret> {
        let (from, to) = self.place(start, bytes)?;
        if self.gone.taken_in(from, to) > 0 {
            return None;
        }
        let piece = &mut self.key.expose_mut()[from..to];
        let key = Secret::copy_of(piece);
        piece.zeroize();
        self.gone.take(from, to);
        self.handed_out += bytes;
        Some(key)
    }

    fn give_back(&mut self, start: u64, key: &Secret) {
        let Some((from, to)) = self.place(start, key.len() as u64) else { return };
        self.key.expose_mut()[from..to].copy_from_slice(key.expose());
        self.gone.give_back(from, to);
        self.handed_out -= key.len() as u64;
    }
}

/// Of as many chunks as may be taken in advance.
pub(crate) enum Worth {
    /// They are not as many.
    Room,
    /// Most was asked for.
    Much,
    Little,
}

/// What of a pool is taken in advance, the oldest first.
#[derive(Default)]
pub(crate) struct Advances {
    chunks: VecDeque<Advance>,
    /// Requests of late.
    calls: u32,
}

impl Advances {
    /// Counts a request.
    pub fn called(&mut self) {
        self.calls = self.calls.saturating_add(1);
    }

    /// Requests of late, of which those of long ago count less.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Called in slow regular intervals.
    pub fn calm_down(&mut self) {
        self.calls /= 2;
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Handed out of these chunks so far.
    pub fn handed_out(&self) -> u64 {
        self.chunks.iter().map(Advance::handed_out).sum()
    }

    /// What of `position..end` lies in the chunk of `position`. May be told once the request's own record is on the disk.
    pub fn take_from(&mut self, position: u64, end: u64) -> Option<Secret> {
        let advance = self.chunks.iter_mut().find(|advance| (advance.start..advance.end()).contains(&position))?;
        advance.take((position, end.min(advance.end()) - position))
    }

    /// All of these ranges, to be told at once, or none.
    pub fn take_durable(&mut self, ranges: &[(u64, u64)]) -> Option<Vec<Secret>> {
        let mut keys = Vec::with_capacity(ranges.len());
        for range in ranges {
            let durable = self.chunks.iter_mut().filter(|advance| advance.durable);
            match durable.rev().find_map(|advance| advance.take(*range)) {
                Some(key) => keys.push(key),
                None => {
                    ranges.iter().zip(&keys).for_each(|((start, _), key)| self.give_back(*start, key));
                    return None;
                }
            }
        }
        Some(keys)
    }

    pub fn give_back(&mut self, start: u64, key: &Secret) {
        if let Some(advance) = self.chunks.iter_mut().find(|advance| advance.place(start, key.len() as u64).is_some()) {
            advance.give_back(start, key);
        }
    }

    pub fn add(&mut self, advance: Advance) {
        self.chunks.push_back(advance);
    }

    /// Whether more may be taken, and else what good it has done.
    pub fn worth(&self) -> Worth {
        let left: u64 = self.chunks.iter().map(Advance::left_bytes).sum();
        match self.chunks.len() {
            0..ADVANCES_MAX => Worth::Room,
            _ if self.handed_out() >= left => Worth::Much,
            _ => Worth::Little,
        }
    }

    /// Requests are counted from zero again.
    pub fn rest(&mut self) {
        self.calls = 0;
    }

    /// The disk knows of this one.
    pub fn is_durable(&mut self, number: u64) {
        self.chunks.iter_mut().filter(|advance| advance.number == number).for_each(|advance| advance.durable = true);
    }

    pub fn remove(&mut self, which: impl Fn(&Advance) -> bool) -> Vec<Advance> {
        let (gone, kept) = std::mem::take(&mut self.chunks).into_iter().partition(which);
        self.chunks = kept;
        gone.into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn advances() -> Advances {
        let mut gone = Chunk::new(100);
        gone.take(0, 10);
        let mut advances = Advances::default();
        advances.add(Advance::new(1, 1_000, Secret::new((0..100).collect()), gone));
        advances
    }

    #[test]
    fn nothing_is_told_before_the_disk_knows_and_nothing_twice() {
        let mut advances = advances();
        assert!(advances.take_durable(&[(1_010, 20)]).is_none(), "the disk does not know yet");
        advances.is_durable(2);
        assert!(advances.take_durable(&[(1_010, 20)]).is_none(), "it knows of another one");
        advances.is_durable(1);
        let keys = advances.take_durable(&[(1_010, 20), (1_040, 5)]).unwrap();
        assert_eq!(keys[0].expose(), (10..30).collect::<Vec<u8>>());
        assert_eq!(advances.handed_out(), 25);
        for again in [(1_010, 1), (1_029, 2), (1_044, 1), (1_000, 5), (1_090, 11), (990, 5), (1_050, 0)] {
            assert!(advances.take_durable(&[again]).is_none(), "{again:?}");
        }
        assert!(advances.take_durable(&[(1_060, 4), (1_062, 4)]).is_none(), "all or none");
        assert_eq!(advances.handed_out(), 25);
        assert_eq!(advances.take_durable(&[(1_060, 4)]).unwrap()[0].expose(), [60, 61, 62, 63]);
    }

    #[test]
    fn what_is_left_is_what_nobody_asked_for() {
        let mut advances = advances();
        assert_eq!(advances.take_from(1_020, 1_050).unwrap().len(), 30);
        let ended = advances.remove(|_| true).remove(0);
        assert_eq!(ended.left().collect::<Vec<_>>(), [(10, 20), (50, 100)]);
        assert_eq!(ended.key.expose()[..10], [0; 10], "what was redeemed before is not kept");
        assert_eq!(ended.key.expose()[20..50], [0; 30]);
    }

    #[test]
    fn a_range_that_goes_on_behind_the_chunk_is_taken_as_far_as_the_chunk_goes() {
        let mut advances = advances();
        assert!(advances.take_from(999, 1_020).is_none() && advances.take_from(1_005, 1_020).is_none());
        assert_eq!(advances.take_from(1_090, 1_200).unwrap().expose(), (90..100).collect::<Vec<u8>>());
        assert!(advances.take_from(1_080, 1_200).is_none() && advances.take_from(1_100, 1_200).is_none());
        advances.give_back(1_090, &Secret::new((90..100).collect()));
        assert_eq!(advances.take_from(1_080, 1_200).unwrap().expose(), (80..100).collect::<Vec<u8>>());
    }

    #[test]
    fn there_is_room_for_a_few_chunks_and_then_it_must_have_been_worth_it() {
        let mut advances = Advances::default();
        for number in 0..ADVANCES_MAX as u64 {
            assert!(matches!(advances.worth(), Worth::Room));
            advances.add(Advance::new(number, 100 * number, Secret::new(vec![1; 100]), Chunk::new(100)));
        }
        assert!(matches!(advances.worth(), Worth::Little));
        (0..ADVANCES_MAX as u64)
            .for_each(|number| assert!(advances.take_from(100 * number, 100 * number + 50).is_some()));
        assert!(matches!(advances.worth(), Worth::Much));
    }
}
