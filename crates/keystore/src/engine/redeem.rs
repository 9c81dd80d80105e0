//! Redeeming: any range of an In grant, each byte once.

use std::iter::Peekable;
use std::vec;

use super::{Engine, Pool, chunk_at, limit};
use crate::ahead::{Piece, Pieces, piece_at};
use crate::journal::Entry;
use crate::tables::STREAM;
use crate::taken::Chunk;
use crate::types::{DRAW_BYTES_MAX, ITEMS_MAX};
use crate::{Secret, StoreError, Use};

/// A range that this request has marked: chunk, from, to, grant.
pub(super) type Mark = (u64, usize, usize, u64);

/// What a request has done so far, to be undone if it is refused.
#[derive(Default)]
struct Done {
    marks: Vec<Mark>,
    /// Taken in advance before: position and bytes.
    advanced: Vec<(u64, Secret)>,
}
pub(super) type Ahead = Peekable<vec::IntoIter<Piece>>;

impl Engine {
    /// As [`Engine::redeem_unclaimed`], for somebody who knows of these bytes by the site that drew them.
    pub fn redeem(
        &mut self,
        peer: &str,
        use_: Use,
        generation: u32,
        ranges: &[(u64, u64)],
        ahead: Pieces,
    ) -> Result<Vec<Secret>, StoreError> {
        let keys = self.redeem_unclaimed(peer, use_, generation, ranges, ahead)?;
        ranges.iter().try_for_each(|range| self.note_claim(peer, use_, *range))?;
        Ok(keys)
    }

    pub(super) fn note_claim(&mut self, peer: &str, use_: Use, (start, bytes): (u64, u64)) -> Result<(), StoreError> {
        if let Some(lane) = use_.mirrored().lane() {
            self.claims.push((self.pool_of(peer)?, lane, start + bytes, bytes));
        }
        Ok(())
    }

    /// The claims of this group are on the disk.
    pub(super) fn claim(&mut self) {
        for (pool, lane, end, bytes) in self.claims.drain(..) {
            self.pools[pool].face.lock().claim(lane, end, bytes);
        }
    }

    pub(super) fn redeem_unclaimed(
        &mut self,
        peer: &str,
        use_: Use,
        generation: u32,
        ranges: &[(u64, u64)],
        ahead: Pieces,
    ) -> Result<Vec<Secret>, StoreError> {
        if use_.is_out() {
            return Err(StoreError::WrongUse { use_ });
        }
        check_ranges(ranges)?;
        let pool = self.pool_of(peer)?;
        self.pools[pool].check_usable()?;
        self.check_generation(pool, generation)?;
        let fresh = ahead.commits == self.commits;
        let mut ahead = if fresh { ahead.pieces } else { Vec::new() }.into_iter().peekable();
        let (mut keys, mut done) = (Vec::with_capacity(ranges.len()), Done::default());
        for range in ranges {
            match self.redeem_range(pool, use_, *range, &mut ahead, &mut done) {
                Ok(key) => keys.push(key),
                Err(refusal) => {
                    self.undo(pool, &done);
                    return Err(refusal);
                }
            }
        }
        if self.txn.is_none() {
            // For the next ones to read ahead from.
            self.committed()?;
        }
        self.settle(pool, use_, &done.marks);
        let id = self.pools[pool].row.id;
        let entry = |(start, bytes): &(u64, u64)| {
            let (pool, start, bytes) = (id, *start, *bytes as u32);
            Entry { pool, generation, start, bytes, in_advance: false }
        };
        // Also those that were taken in advance: of that the disk may not know yet.
        self.entries.extend(ranges.iter().map(entry));
        self.advance(pool, use_, &done.marks)?;
        Ok(keys)
    }

    fn redeem_range(
        &mut self,
        pool: usize,
        use_: Use,
        (start, bytes): (u64, u64),
        ahead: &mut Ahead,
        done: &mut Done,
    ) -> Result<Secret, StoreError> {
        let end = start + bytes;
        let mut key = Secret::with_capacity(bytes as usize);
        let mut position = start;
        while position < end {
            let known = &self.pools[pool];
            let at = known.starts.range(..=position).next_back();
            let grant = at.and_then(|(_, seq)| Some((*seq, known.grants.get(seq)?)));
            let Some((seq, grant)) = grant.filter(|(_, grant)| position < grant.end()) else {
                return Err(self.why_not(pool, use_, position, (start, bytes))?);
            };
            if grant.use_ != use_ {
                return Err(StoreError::NotGranted { start, bytes });
            }
            if let Some(piece) = self.take_in_advance(pool, use_, position, end) {
                key.extend(piece.expose());
                let next = position + piece.len() as u64;
                done.advanced.push((std::mem::replace(&mut position, next), piece));
                continue;
            }
            let Some(piece) = self.piece(pool, position, end, ahead)? else {
                return Err(StoreError::AlreadyTaken { start, bytes });
            };
            let known = &mut self.pools[pool];
            let from = (position - piece.chunk_start) as usize;
            let to = from + piece.key.len();
            let map = known.taken.entry(piece.chunk_start).or_insert_with(|| Chunk::new(piece.chunk_bytes));
            if map.taken_in(from, to) > 0 {
                return Err(StoreError::AlreadyTaken { start, bytes });
            }
            key.extend(piece.key.expose());
            map.take(from, to);
            done.marks.push((piece.chunk_start, from, to, seq));
            position += (to - from) as u64;
        }
        Ok(key)
    }

    /// The bytes at `position`, as far as they lie in one chunk: read ahead, or from what is committed, or from the
    /// group's transaction.
    pub(super) fn piece(
        &mut self,
        pool: usize,
        position: u64,
        end: u64,
        ahead: &mut Ahead,
    ) -> Result<Option<Piece>, StoreError> {
        let place = (self.pools[pool].row.id, self.pools[pool].row.generation, position);
        if self.txn.is_some() {
            return self.look(|engine, txn| {
                let table = txn.open_table(STREAM)?;
                piece_at(&table, &engine.sealer, &engine.pools[pool].peer, place, end)
            });
        }
        if let Some(piece) = ahead.next_if(|piece| piece.position == position) {
            return Ok(Some(piece));
        }
        self.committed()?.piece(&self.pools[pool].peer, place, end)
    }

    fn why_not(
        &mut self,
        pool: usize,
        use_: Use,
        position: u64,
        (start, bytes): (u64, u64),
    ) -> Result<StoreError, StoreError> {
        let granted = position < self.pools[pool].row.granted_end;
        let of_other_use = granted && self.finished_use_at(pool, position)?.is_some_and(|known| known != use_);
        Ok(if granted && !of_other_use {
            StoreError::AlreadyTaken { start, bytes }
        } else {
            StoreError::NotGranted { start, bytes }
        })
    }

    fn undo(&mut self, pool: usize, done: &Done) {
        let Pool { taken, face, .. } = &mut self.pools[pool];
        let mut state = face.lock();
        done.advanced.iter().for_each(|(start, key)| state.advances.give_back(*start, key));
        for (chunk, from, to, _) in &done.marks {
            let Some(map) = taken.get_mut(chunk) else { continue };
            map.give_back(*from, *to);
            // A refused request must not leave maps behind, or refusals would cost memory.
            if map.taken == 0 {
                taken.remove(chunk);
            }
        }
    }

    /// Counts what was marked.
    pub(super) fn settle(&mut self, pool: usize, use_: Use, marks: &[Mark]) {
        self.news.insert(pool);
        let (pool, index) = (&mut self.pools[pool], use_.index());
        for (_, from, to, seq) in marks {
            let bytes = (to - from) as u64;
            pool.row.counters.uses[index].handed_out += bytes;
            pool.redeemed_since[index] += bytes;
            pool.left_in[index] -= bytes;
            pool.touched_grants.insert(*seq);
            if let Some(grant) = pool.grants.get_mut(seq) {
                grant.taken += bytes;
            }
        }
    }

    /// The start of the first chunk behind a gap, or `end`.
    fn next_chunk(&mut self, pool: usize, position: u64, end: u64) -> Result<u64, StoreError> {
        let (id, generation) = (self.pools[pool].row.id, self.pools[pool].row.generation);
        let committed = self.committed()?;
        let next = committed.stream.range((id, generation, position)..(id, generation, end))?.next().transpose()?;
        Ok(next.map_or(end, |(place, _)| place.value().2))
    }

    /// Marks again what the journals say was redeemed, first what was asked for. What is gone since then is left out.
    pub(super) fn replay(&mut self, mut entries: Vec<Entry>) -> Result<(), StoreError> {
        entries.sort_by_key(|entry| entry.in_advance);
        for entry in entries {
            let Some(pool) = self.pools.iter().position(|pool| pool.row.id == entry.pool) else {
                self.replayed_beyond = true;
                continue;
            };
            let row = &self.pools[pool].row;
            let end = entry.start + u64::from(entry.bytes);
            self.replayed_beyond |=
                entry.generation > row.generation || (entry.generation == row.generation && end > row.granted_end);
            if entry.generation != row.generation {
                continue;
            }
            if !entry.in_advance
                && let Some(lane) = self.lane_of_redeemed(pool, entry.start)
            {
                let mut state = self.pools[pool].face.lock();
                state.redeemed_end[lane] = state.redeemed_end[lane].max(end);
            }
            let mut position = entry.start;
            while position < end {
                position = self.replay_from(pool, position, end, entry.in_advance)?;
            }
        }
        Ok(())
    }

    /// The use of an In grant that is not used up, as [`Use::lane`] counts them at the peer.
    fn lane_of_redeemed(&self, pool: usize, start: u64) -> Option<usize> {
        let known = &self.pools[pool];
        let (_, seq) = known.starts.range(..=start).next_back()?;
        known.grants.get(seq)?.use_.mirrored().lane()
    }

    fn replay_from(&mut self, pool: usize, position: u64, end: u64, in_advance: bool) -> Result<u64, StoreError> {
        let place = (self.pools[pool].row.id, self.pools[pool].row.generation, position);
        let Some((start, sealed)) = chunk_at(&self.committed()?.stream, place)? else {
            return self.next_chunk(pool, position, end);
        };
        let known = &mut self.pools[pool];
        let found = known.starts.range(..=position).next_back().map(|(_, seq)| *seq);
        let found = found.and_then(|seq| Some((seq, known.grants.get(&seq)?.use_)));
        let Some((seq, use_)) = found.filter(|(_, use_)| !use_.is_out()) else { return Ok(end) };
        let length = sealed.len().saturating_sub(crate::crypt::SEAL_BYTES);
        let (from, to) = ((position - start) as usize, ((end - start) as usize).min(length));
        let new = known.taken.entry(start).or_insert_with(|| Chunk::new(length)).take(from, to);
        self.settle(pool, use_, &[(start, 0, new, seq)]);
        if in_advance {
            // Of these nobody knows whether they were asked for.
            let (pool, index) = (&mut self.pools[pool], use_.index());
            pool.row.counters.uses[index].handed_out -= new as u64;
            pool.row.counters.uses[index].wasted += new as u64;
            pool.redeemed_since[index] -= new as u64;
        }
        Ok(start + to as u64)
    }
}

fn check_ranges(ranges: &[(u64, u64)]) -> Result<(), StoreError> {
    if ranges.len() > ITEMS_MAX {
        return Err(limit("the number of ranges", ITEMS_MAX, ranges.len()));
    }
    let mut total = 0u64;
    for (start, bytes) in ranges {
        total = total.saturating_add(*bytes);
        if *bytes == 0 || start.checked_add(*bytes).is_none() {
            return Err(StoreError::BadRequest { what: "a range is empty or beyond any stream" });
        }
    }
    if total > DRAW_BYTES_MAX as u64 {
        return Err(StoreError::Limit { what: "the bytes of a request", max: DRAW_BYTES_MAX as u64, given: total });
    }
    Ok(())
}
