//! Checkpoint: what the journal holds goes into the database, and the journal starts over.

use redb::WriteTransaction;

use super::{Engine, put_grant, store_fact};
use crate::StoreError;
use crate::tables::{STREAM, TAKEN};

impl Engine {
    /// Writes every map of taken bytes, erases the chunks that are taken whole, and moves to the next epoch. The
    /// journal follows once this is committed.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.checkpoint_due = true;
        // Their marks are in the maps; a record of them would only be read twice.
        self.entries.clear();
        self.advanced.clear();
        (0..self.pools.len()).for_each(|pool| self.end_advances(pool, |_| true));
        self.shared.counts.checkpoints.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.write(|engine, txn| {
            for pool in 0..engine.pools.len() {
                if !engine.pools[pool].touched_grants.is_empty() {
                    engine.checkpoint_pool(txn, pool)?;
                }
            }
            store_fact(txn, "journal_epoch", &(engine.journals.epoch() + 1).to_le_bytes())
        })
    }

    fn checkpoint_pool(&mut self, txn: &WriteTransaction, number: usize) -> Result<(), StoreError> {
        let pool = self.change(number);
        let (id, generation) = (pool.row.id, pool.row.generation);
        let (mut stream, mut taken) = (txn.open_table(STREAM)?, txn.open_table(TAKEN)?);
        for (start, chunk) in pool.taken.iter_mut().filter(|(_, chunk)| chunk.dirty) {
            let place = (id, generation, *start);
            chunk.dirty = false;
            if chunk.is_full() {
                stream.remove(place)?;
                taken.remove(place)?;
            } else {
                taken.insert(place, chunk.encode().as_slice())?;
            }
        }
        pool.taken.retain(|_, chunk| !chunk.is_full());
        pool.redeemed_since = [0; 4];
        for seq in std::mem::take(&mut pool.touched_grants) {
            let Some(grant) = pool.grants.get(&seq).copied() else { continue };
            let grant = if grant.taken == grant.bytes { pool.finish_grant(seq).unwrap_or(grant) } else { grant };
            put_grant(txn, &pool.row, seq, &grant)?;
        }
        Ok(())
    }
}
