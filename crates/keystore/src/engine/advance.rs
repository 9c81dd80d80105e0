//! Taking chunks in advance, and putting back what nobody asked for.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::Engine;
use super::redeem::Mark;
use crate::advance::{ADVANCE_USE, Advance, Worth};
use crate::journal;
use crate::queue::Answer;
use crate::taken::Chunk;
use crate::{Secret, StoreError, Use};

/// Taken with one commit: keys are mostly fetched in the order in which they were drawn.
const CHUNKS_AT_ONCE: usize = 4;
/// Less than this is not worth to be taken in advance.
const ADVANCE_BYTES_MIN: usize = 512;
/// Less than this is what keys of the usual lengths leave over.
const REMNANT_BYTES: u64 = 32;

impl Engine {
    /// The bytes at `position`, as far as they lie in one chunk, if that was taken in advance and they are there still.
    pub(super) fn take_in_advance(&self, pool: usize, use_: Use, position: u64, end: u64) -> Option<Secret> {
        if use_ == ADVANCE_USE { self.pools[pool].face.lock().advances.take_from(position, end) } else { None }
    }

    /// Where keys are fetched fast, takes what is left of the chunks that a request marked, and of a few behind each.
    pub(super) fn advance(&mut self, pool: usize, use_: Use, marks: &[Mark]) -> Result<(), StoreError> {
        if use_ != ADVANCE_USE || self.pools[pool].face.lock().advances.calls() < self.settings.redeem_in_advance_from {
            return Ok(());
        }
        for (start, _, _, seq) in marks {
            let Some(grant) = self.pools[pool].grants.get(seq).copied() else { continue };
            let mut next = *start;
            for _ in 0..CHUNKS_AT_ONCE {
                if next >= grant.end() || !self.has_room_to_advance(pool) {
                    break;
                }
                next = self.advance_chunk(pool, next, grant.end())?;
            }
        }
        Ok(())
    }

    /// A crash wastes what was taken in advance since the last checkpoint. So where there is much of it, it is put back
    /// by a checkpoint, if that was worth it, or nothing more is taken.
    fn has_room_to_advance(&mut self, pool: usize) -> bool {
        self.end_advances(pool, |advance| advance.left_bytes() < REMNANT_BYTES);
        let mut state = self.pools[pool].face.lock();
        match state.advances.worth() {
            Worth::Room => return true,
            Worth::Much => self.checkpoint_due = true,
            Worth::Little => state.advances.rest(),
        }
        false
    }

    /// Takes what is left of the chunk at `start`, if that is worth it; where the next one starts.
    fn advance_chunk(&mut self, pool: usize, start: u64, grant_end: u64) -> Result<u64, StoreError> {
        let piece = self.piece(pool, start, grant_end, &mut Vec::new().into_iter().peekable())?;
        // One that was taken whole may be gone from the disk.
        let Some(piece) = piece.filter(|piece| piece.chunk_start == start) else { return Ok(grant_end) };
        let (known, end) = (&mut self.pools[pool], start + piece.chunk_bytes as u64);
        let taken = known.taken.get(&start).map_or(0, |chunk| chunk.taken);
        if piece.chunk_bytes - taken < ADVANCE_BYTES_MIN {
            return Ok(end);
        }
        let chunk = known.taken.entry(start).or_insert_with(|| Chunk::new(piece.chunk_bytes));
        self.advances_made += 1;
        let advance = Advance::new(self.advances_made, start, piece.key, chunk.clone());
        for (from, to) in advance.left() {
            chunk.take(from, to);
            let (start, bytes) = (start + from as u64, (to - from) as u32);
            let (pool, generation) = (known.row.id, known.row.generation);
            self.entries.push(journal::Entry { pool, generation, start, bytes, in_advance: true });
        }
        self.advanced.push((pool, advance.number));
        known.face.lock().advances.add(advance);
        Ok(end)
    }

    /// Counts what was handed out of these chunks, and unmarks the rest. A crash before the next checkpoint wastes that
    /// all the same: what is redeemed of it before has a record of its own.
    pub(super) fn end_advances(&mut self, pool: usize, which: impl Fn(&Advance) -> bool) {
        let index = ADVANCE_USE.index();
        self.news.insert(pool);
        let pool = &mut self.pools[pool];
        let mut state = pool.face.lock();
        for advance in state.advances.remove(which) {
            let handed_out = advance.handed_out();
            // What callers see must not change before the writer shows its own counts.
            state.counters.uses[index].handed_out += handed_out;
            state.left_in[index] = state.left_in[index].saturating_sub(handed_out);
            pool.row.counters.uses[index].handed_out += handed_out;
            pool.redeemed_since[index] += handed_out;
            pool.left_in[index] -= handed_out;
            if let Some((_, seq)) = pool.starts.range(..=advance.start).next_back()
                && let Some(grant) = pool.grants.get_mut(seq)
            {
                grant.taken += handed_out;
                pool.touched_grants.insert(*seq);
            }
            if let Entry::Occupied(mut chunk) = pool.taken.entry(advance.start) {
                advance.left().for_each(|(from, to)| chunk.get_mut().give_back(from, to));
                if chunk.get().taken == 0 {
                    chunk.remove();
                }
            }
        }
    }

    /// Lets callers take from the chunks of this group, once its record is on the disk.
    pub(super) fn announcements(&mut self) -> Vec<Answer> {
        let announced = std::mem::take(&mut self.advanced).into_iter().map(|(pool, number)| -> Answer {
            let face = Arc::clone(&self.pools[pool].face);
            Box::new(move |failed| {
                if failed.is_none() {
                    face.lock().advances.is_durable(number);
                }
            })
        });
        let claims = std::mem::take(&mut self.claims).into_iter().map(|(pool, lane, end, bytes)| -> Answer {
            let face = Arc::clone(&self.pools[pool].face);
            Box::new(move |failed| {
                if failed.is_none() {
                    face.lock().claim(lane, end, bytes);
                }
            })
        });
        announced.chain(claims).collect()
    }
}
