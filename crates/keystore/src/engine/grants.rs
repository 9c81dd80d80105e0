//! Grants: which part of the stream is for what.

use redb::{ReadableTable, WriteTransaction};

use super::{Engine, chunk_at, open_chunk, put_grant};
use crate::crypt::stream_aad;
use crate::lane::Run;
use crate::tables::{GRANTS, GrantRow, STREAM};
use crate::types::Grant;
use crate::{StoreError, Use};

impl Engine {
    /// Adds a grant, or finds that it is there. Answers with the grant as it stands (`active` may have become true).
    pub fn grant(&mut self, peer: &str, grant: &Grant) -> Result<Grant, StoreError> {
        let pool = self.pool_of(peer)?;
        self.pools[pool].check_usable()?;
        let row = &self.pools[pool].row;
        self.check_generation(pool, grant.generation)?;
        let refused = |what| Err(StoreError::GrantConflict { seq: grant.seq, what });
        if grant.seq < row.next_seq {
            let Some(known) = self.grant_row(pool, grant.seq)? else {
                return refused("was made too long ago to be compared");
            };
            let same = (known.use_, known.start, known.bytes) == (grant.use_, grant.start, grant.bytes);
            return if same {
                Ok(Grant { active: known.active, granted_ms: known.granted_ms, ..*grant })
            } else {
                refused("was made before, with another range or use")
            };
        }
        if grant.seq > row.next_seq {
            return refused("does not follow the last one");
        }
        if grant.bytes == 0 {
            return refused("is empty");
        }
        if grant.start != row.granted_end {
            return refused("does not start where the last one ends");
        }
        if grant.bytes > row.stream_end - row.granted_end {
            return refused("is longer than what is confirmed");
        }
        self.write(|engine, txn| engine.add_grant(txn, pool, grant))?;
        Ok(*grant)
    }

    fn add_grant(&mut self, txn: &WriteTransaction, pool: usize, grant: &Grant) -> Result<(), StoreError> {
        let new = GrantRow {
            use_: grant.use_,
            active: grant.active,
            done: false,
            start: grant.start,
            bytes: grant.bytes,
            granted_ms: grant.granted_ms,
            mark: grant.start,
            taken: 0,
        };
        self.split_chunk(txn, pool, new.end())?;
        let changed = self.change(pool);
        changed.row.next_seq += 1;
        changed.row.granted_end = new.end();
        changed.row.counters.uses[new.use_.index()].granted += new.bytes;
        changed.grants.insert(grant.seq, new);
        changed.starts.insert(new.start, grant.seq);
        match new.use_.lane() {
            None => changed.left_in[new.use_.index()] += new.bytes,
            Some(lane) if !new.active => changed.inactive[lane] += new.bytes,
            Some(lane) => changed.news[lane].runs.push(run(grant.seq, &new)),
        }
        put_grant(txn, &self.pools[pool].row, grant.seq, &new)
    }

    /// Cuts the chunk that crosses `at` in two, so that what is granted can be erased without the rest.
    fn split_chunk(&mut self, txn: &WriteTransaction, pool: usize, at: u64) -> Result<(), StoreError> {
        let pool = &self.pools[pool];
        let place = (pool.row.id, pool.row.generation, at);
        let mut table = txn.open_table(STREAM)?;
        let Some(chunk) = chunk_at(&table, place)?.filter(|(start, _)| *start < at) else { return Ok(()) };
        let first = chunk.0;
        let key = open_chunk(&self.sealer, &pool.peer, place.1, chunk)?;
        let (head, tail) = key.expose().split_at((at - first) as usize);
        for (start, piece) in [(first, head), (at, tail)] {
            let sealed = self.sealer.seal(&stream_aad(&pool.peer, place.1, start, piece.len()), piece)?;
            table.insert((place.0, place.1, start), sealed.as_slice())?;
        }
        Ok(())
    }

    /// Makes an Out grant drawable. In grants are redeemable as they are.
    pub fn activate_grant(&mut self, peer: &str, generation: u32, seq: u64) -> Result<(), StoreError> {
        let pool = self.pool_of(peer)?;
        self.pools[pool].check_usable()?;
        self.check_generation(pool, generation)?;
        let Some(grant) = self.pools[pool].grants.get(&seq).copied() else {
            if seq >= self.pools[pool].row.next_seq {
                return Err(StoreError::GrantConflict { seq, what: "does not exist" });
            }
            // Used up or expired: nothing is left to activate.
            return Ok(());
        };
        let Some(lane) = grant.use_.lane().filter(|_| !grant.active) else { return Ok(()) };
        let active = GrantRow { active: true, ..grant };
        self.write(|engine, txn| {
            let changed = engine.change(pool);
            changed.grants.insert(seq, active);
            changed.inactive[lane] -= active.left_to_draw();
            if active.left_to_draw() > 0 {
                changed.news[lane].runs.push(run(seq, &active));
            }
            put_grant(txn, &engine.pools[pool].row, seq, &active)
        })
    }

    /// The grants of this generation from `seq` on, finished ones included, at most `max`.
    pub fn grants(&mut self, peer: &str, seq: u64, max: usize) -> Result<Vec<Grant>, StoreError> {
        let row = self.pools[self.pool_of(peer)?].row;
        self.look(|_, txn| {
            let table = txn.open_table(GRANTS)?;
            let mut grants = Vec::new();
            for found in table.range((row.id, row.generation, seq)..=(row.id, row.generation, u64::MAX))?.take(max) {
                let (place, grant) = found?;
                let GrantRow { use_, start, bytes, granted_ms, active, .. } = GrantRow::decode(grant.value())?;
                let (generation, seq) = (row.generation, place.value().2);
                grants.push(Grant { generation, seq, use_, start, bytes, granted_ms, active });
            }
            Ok(grants)
        })
    }

    pub(super) fn check_generation(&self, pool: usize, asked: u32) -> Result<(), StoreError> {
        let current = self.pools[pool].row.generation;
        if asked == current { Ok(()) } else { Err(StoreError::OtherGeneration { asked, current }) }
    }

    fn grant_row(&mut self, pool: usize, seq: u64) -> Result<Option<GrantRow>, StoreError> {
        if let Some(grant) = self.pools[pool].grants.get(&seq) {
            return Ok(Some(*grant));
        }
        let row = self.pools[pool].row;
        self.look(|_, txn| {
            let table = txn.open_table(GRANTS)?;
            let found = table.get((row.id, row.generation, seq))?;
            found.map(|grant| GrantRow::decode(grant.value())).transpose()
        })
    }

    /// The use of a position whose grant is used up, as far as it is remembered. Starts grow with the numbers.
    pub(super) fn finished_use_at(&mut self, pool: usize, position: u64) -> Result<Option<Use>, StoreError> {
        let (mut low, mut high) = (0, self.pools[pool].row.next_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.grant_row(pool, middle)? {
                Some(grant) if (grant.start..grant.end()).contains(&position) => return Ok(Some(grant.use_)),
                Some(grant) if position < grant.start => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(None)
    }
}

pub(super) fn run(seq: u64, grant: &GrantRow) -> Run {
    Run { seq, start: grant.mark, end: grant.end(), granted_ms: grant.granted_ms }
}
