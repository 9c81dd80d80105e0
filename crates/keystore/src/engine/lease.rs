//! Leases: how far drawing may go is on the disk before any byte of it is handed out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use redb::WriteTransaction;

use super::blocks::origin_rows;
use super::{Engine, Pool, chunk_at, erase_stream, open_chunk, put_grant};
use crate::lane::{Lane, OriginSpan, Run, Segment};
use crate::tables::STREAM;
use crate::types::OriginRef;
use crate::{Secret, StoreError, Use};

impl Engine {
    /// Advances the mark of a lane and reads what it now covers; callers get it once the mark is durable.
    pub(super) fn lease(&mut self, pool: usize, lane: usize) -> Result<(), StoreError> {
        if self.pools[pool].check_usable().is_err() {
            return Ok(());
        }
        // No other thread takes from the runs.
        let end = self.pools[pool].face.lock().lanes[lane].next_lease_end();
        if end.is_some_and(|end| !self.may_lease(pool, lane, end)) {
            // It is asked for again once the ceiling is raised; the callers wait.
            return Ok(());
        }
        let runs = self.pools[pool].face.lock().lanes[lane].start_lease_to(end);
        self.news.insert(pool);
        if runs.is_empty() {
            self.pools[pool].news[lane].segments = Some(Vec::new());
            return Ok(());
        }
        self.shared.counts.leases.fetch_add(1, Relaxed);
        let segments = self.write(|engine, txn| {
            engine.release_passed(txn, pool)?;
            let mut segments = Vec::with_capacity(runs.len());
            for run in &runs {
                segments.push(engine.read_segment(txn, pool, run)?);
                engine.advance_mark(txn, pool, run)?;
            }
            Ok(segments)
        })?;
        self.pools[pool].news[lane].segments = Some(segments);
        Ok(())
    }

    fn advance_mark(&mut self, txn: &WriteTransaction, pool: usize, run: &Run) -> Result<(), StoreError> {
        let changed = self.change(pool);
        let lost = || StoreError::corrupt("a lease belongs to no grant");
        let grant = changed.grants.get_mut(&run.seq).ok_or_else(lost)?;
        grant.mark = run.end;
        let grant = *grant;
        if let Some(lane) = grant.use_.lane() {
            changed.row.leased[lane] = changed.row.leased[lane].max(run.end);
        }
        put_grant(txn, &self.pools[pool].row, run.seq, &grant)
    }

    fn read_segment(&self, txn: &WriteTransaction, pool: usize, run: &Run) -> Result<Segment, StoreError> {
        let pool = &self.pools[pool];
        let (id, generation) = (pool.row.id, pool.row.generation);
        let table = txn.open_table(STREAM)?;
        let mut key = Secret::with_capacity((run.end - run.start) as usize);
        let mut position = run.start;
        while position < run.end {
            let missing = || StoreError::corrupt("key bytes of a grant are missing");
            let chunk = chunk_at(&table, (id, generation, position))?.ok_or_else(missing)?;
            let start = chunk.0;
            let plain = open_chunk(&self.sealer, &pool.peer, generation, chunk)?;
            let to = ((run.end - start) as usize).min(plain.len());
            let piece = &plain.expose()[(position - start) as usize..to];
            key.extend(piece);
            position += piece.len() as u64;
        }
        drop(table);
        let rows = origin_rows(txn, (id, generation, run.start), run.end)?;
        let origins: Arc<[OriginSpan]> = rows
            .into_iter()
            .map(|(start, row)| OriginSpan {
                start,
                end: start + row.bytes,
                origin: OriginRef { block_id: row.block.to_be_bytes(), span: row.span },
            })
            .collect();
        Ok(Segment { seq: run.seq, start: run.start, key, used: 0, origins })
    }

    /// Erases what was drawn or wasted, and ends the grants that this uses up.
    pub(super) fn release_passed(&mut self, txn: &WriteTransaction, pool: usize) -> Result<(), StoreError> {
        let positions = self.pools[pool].positions();
        let row = self.pools[pool].row;
        let mut finished = Vec::new();
        for (seq, grant) in &self.pools[pool].grants {
            let Some(lane) = grant.use_.lane().filter(|_| grant.mark > grant.start) else { continue };
            let passed = positions[lane].get(seq).copied().unwrap_or(grant.mark);
            erase_stream(txn, (row.id, row.generation, grant.start), passed)?;
            if passed == grant.end() {
                finished.push(*seq);
            }
        }
        for seq in finished {
            let changed = self.change(pool);
            if let Some(grant) = changed.finish_grant(seq) {
                put_grant(txn, &self.pools[pool].row, seq, &grant)?;
            }
        }
        Ok(())
    }

    /// Stops drawing and moves the marks back to where drawing came.
    pub(super) fn give_back_leases(&mut self, pool: usize, why: &StoreError) -> Result<(), StoreError> {
        self.pools[pool].face.lock().stopped.get_or_insert_with(|| why.clone());
        let positions = self.pools[pool].positions();
        self.write(|engine, txn| {
            engine.release_passed(txn, pool)?;
            let changed = engine.change(pool);
            let mut moved = Vec::new();
            for (seq, grant) in &mut changed.grants {
                let drawn_to = grant.use_.lane().and_then(|lane| positions[lane].get(seq));
                if let Some(position) = drawn_to {
                    grant.mark = *position;
                    moved.push((*seq, *grant));
                }
            }
            changed.row.leased = changed.face.lock().lanes.each_ref().map(|lane| lane.drawn_end_most);
            for (seq, grant) in moved {
                put_grant(txn, &engine.pools[pool].row, seq, &grant)?;
            }
            engine.pools[pool].face.stop(why);
            Ok(())
        })
    }
}

impl Pool {
    /// Where drawing stands, by lane and grant, in all that is on lease: with the callers, or about to be.
    pub(super) fn positions(&self) -> [BTreeMap<u64, u64>; 2] {
        let state = self.face.lock();
        let mut positions = state.lanes.each_ref().map(Lane::positions);
        for (positions, news) in positions.iter_mut().zip(&self.news) {
            for segment in news.segments.iter().flatten() {
                positions.entry(segment.seq).or_insert(segment.start);
            }
        }
        positions
    }
}

/// Uses that are drawn from, by lane.
pub(super) const OUT_USES: [Use; 2] = [Use::SupplyOut, Use::RelayOut];
