//! Ends of life: grants that are too old, and pools that are given up.

use redb::WriteTransaction;

use super::lease::OUT_USES;
use super::{Engine, erase_stream, put_grant};
use crate::StoreError;
use crate::keeper::GENERATIONS_MAX;
use crate::tables::{GRANTS, STREAM, TAKEN};
use crate::types::NAME_BYTES_MAX;

impl Engine {
    /// Erases what is too old, and deposits that nobody fetched. Also tidies up: called every few seconds or minutes.
    pub fn expire(&mut self, now_ms: u64) -> Result<(), StoreError> {
        for pool in 0..self.pools.len() {
            self.expire_pool(pool, now_ms)?;
            let least_bytes = self.settings.lease_bytes;
            let mut drawn_from = false;
            let mut state = self.pools[pool].face.lock();
            state.advances.calm_down();
            for lane in &mut state.lanes {
                lane.calm_down(least_bytes);
                drawn_from |= lane.handed_out > 0;
            }
            drop(state);
            if drawn_from {
                self.write(|engine, txn| {
                    engine.change(pool);
                    engine.release_passed(txn, pool)
                })?;
            }
        }
        self.expire_deposits(now_ms)
    }

    fn expire_pool(&mut self, pool: usize, now_ms: u64) -> Result<(), StoreError> {
        let (out_ms, in_ms) = (self.settings.retention_out_ms, self.settings.retention_in_ms);
        let old: Vec<u64> = self.pools[pool]
            .grants
            .iter()
            .filter(|(_, grant)| {
                let retention_ms = if grant.use_.is_out() { out_ms } else { in_ms };
                grant.granted_ms.saturating_add(retention_ms) <= now_ms
            })
            .map(|(seq, _)| *seq)
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        // Redemptions that only the journal holds must not be counted twice.
        self.checkpoint()?;
        self.write(|engine, txn| {
            engine.expire_out(pool, &old);
            for seq in old {
                engine.end_grant(txn, pool, seq)?;
            }
            Ok(())
        })
    }

    /// Takes old grants out of the lanes, and counts what was left of them.
    fn expire_out(&mut self, pool: usize, old: &[u64]) {
        let is_old = |seq: u64| old.binary_search(&seq).is_ok();
        let changed = self.change(pool);
        let mut state = changed.face.lock();
        for (lane, use_) in OUT_USES.into_iter().enumerate() {
            let left = state.lanes[lane].remove(is_old);
            let news = &mut changed.news[lane];
            let unseen: u64 = news.runs.iter().filter(|run| is_old(run.seq)).map(|run| run.end - run.start).sum();
            news.runs.retain(|run| !is_old(run.seq));
            news.left += left;
            let of_lane = |seq: &&u64| changed.grants.get(seq).is_some_and(|grant| grant.use_ == use_ && !grant.active);
            let asleep: u64 = old.iter().filter(of_lane).map(|seq| changed.grants[seq].left_to_draw()).sum();
            changed.inactive[lane] -= asleep;
            changed.row.counters.uses[use_.index()].expired += left + unseen + asleep;
        }
    }

    fn end_grant(&mut self, txn: &WriteTransaction, pool: usize, seq: u64) -> Result<(), StoreError> {
        let changed = self.change(pool);
        let Some(grant) = changed.finish_grant(seq) else { return Ok(()) };
        let (id, generation) = (changed.row.id, changed.row.generation);
        let index = grant.use_.index();
        if !grant.use_.is_out() {
            let left = grant.bytes - grant.taken;
            changed.row.counters.uses[index].expired += left;
            changed.left_in[index] -= left;
            changed.taken.retain(|start, _| !(grant.start..grant.end()).contains(start));
            let range = (id, generation, grant.start)..(id, generation, grant.end());
            txn.open_table(TAKEN)?.retain_in(range, |_, _| false)?;
        }
        erase_stream(txn, (id, generation, grant.start), grant.end())?;
        put_grant(txn, &self.pools[pool].row, seq, &grant)
    }

    /// Gives up everything that a pool holds, and starts the next generation at byte 0. `generation` is the one to
    /// end; if it has ended already nothing happens. Answers with the current generation.
    pub fn void_pool(&mut self, peer: &str, generation: u32, reason: &str) -> Result<u32, StoreError> {
        let pool = self.pool_of(peer)?;
        let current = self.pools[pool].row.generation;
        if generation > current {
            return Err(StoreError::OtherGeneration { asked: generation, current });
        }
        self.void_pool_to(peer, generation.saturating_add(1), reason)
    }

    /// As [`Engine::void_pool`], for all generations before `next`.
    pub fn void_pool_to(&mut self, peer: &str, next: u32, reason: &str) -> Result<u32, StoreError> {
        if reason.len() > NAME_BYTES_MAX {
            return Err(super::limit("the length of a reason in bytes", NAME_BYTES_MAX, reason.len()));
        }
        let pool = self.pool_or_new(peer)?;
        let current = self.pools[pool].row.generation;
        if next <= current {
            return Ok(current);
        }
        if next >= GENERATIONS_MAX {
            return Err(StoreError::BadRequest { what: "the pool has no further generation" });
        }
        tracing::warn!(peer, generation = current, reason, "a pool is voided");
        self.checkpoint()?;
        self.begin_generation(pool, next)
    }

    /// Nothing that the journals hold may be left to count.
    pub(super) fn begin_generation(&mut self, pool: usize, next: u32) -> Result<u32, StoreError> {
        let current = self.pools[pool].row.generation;
        self.write(|engine, txn| {
            engine.void_counters(pool);
            engine.clear_rolled_back(txn, pool)?;
            let changed = engine.change(pool);
            let all = (changed.row.id, current, 0)..=(changed.row.id, current, u64::MAX);
            txn.open_table(STREAM)?.retain_in(all.clone(), |_, _| false)?;
            txn.open_table(TAKEN)?.retain_in(all.clone(), |_, _| false)?;
            txn.open_table(GRANTS)?.retain_in(all, |_, _| false)?;
            let row = &mut changed.row;
            (row.generation, row.stream_end, row.granted_end, row.next_seq) = (next, 0, 0, 0);
            row.leased = [0; 2];
            let mut state = changed.face.lock();
            state.redeemed_end = [0; 2];
            state.lanes.iter_mut().for_each(|lane| (lane.drawn_end, lane.drawn_end_most) = (0, 0));
            drop(state);
            Ok(next)
        })
    }

    fn void_counters(&mut self, pool: usize) {
        let changed = self.change(pool);
        let mut state = changed.face.lock();
        let counters = &mut changed.row.counters;
        counters.voided += changed.row.stream_end - changed.row.granted_end;
        for lane in 0..OUT_USES.len() {
            let left = state.lanes[lane].remove(|_| true);
            let news = &mut changed.news[lane];
            let unseen: u64 = news.runs.drain(..).map(|run| run.end - run.start).sum();
            news.left += left;
            news.wasted += left + unseen + std::mem::take(&mut changed.inactive[lane]);
        }
        for (counted, left) in counters.uses.iter_mut().zip(&mut changed.left_in) {
            counted.wasted += std::mem::take(left);
        }
        changed.grants.clear();
        changed.starts.clear();
        changed.taken.clear();
        changed.touched_grants.clear();
    }
}
