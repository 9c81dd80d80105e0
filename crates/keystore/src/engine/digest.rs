//! What two sites compare to see that their pools agree: digests of what is left, under a key that both have.

use std::collections::BTreeMap;

use redb::ReadableTable;
use ring::hmac;

use super::Engine;
use crate::ahead::piece_at;
use crate::tables::STREAM;
use crate::types::{ITEMS_MAX, StreamDigest};
use crate::{Secret, StoreError};

impl Engine {
    /// What is not assigned, and what is left of Out grants, in order: start and bytes.
    pub fn held(&mut self, peer: &str) -> Result<Vec<(u64, u64)>, StoreError> {
        let number = self.pool_of(peer)?;
        let drawn_to: BTreeMap<u64, u64> = self.pools[number].positions().into_iter().flatten().collect();
        let pool = &self.pools[number];
        let mut held = Vec::new();
        for (seq, grant) in pool.grants.iter().filter(|(_, grant)| grant.use_.is_out()) {
            let from = drawn_to.get(seq).copied().unwrap_or(grant.mark);
            held.push((from, grant.end() - from));
        }
        held.push((pool.row.granted_end, pool.row.stream_end - pool.row.granted_end));
        held.retain(|(_, bytes)| *bytes > 0);
        held.sort_unstable();
        Ok(held)
    }

    pub fn digest(
        &mut self,
        peer: &str,
        generation: u32,
        ranges: &[(u64, u64)],
        key: &Secret,
    ) -> Result<StreamDigest, StoreError> {
        if ranges.len() > ITEMS_MAX * ITEMS_MAX {
            return Err(super::limit("the number of ranges", ITEMS_MAX * ITEMS_MAX, ranges.len()));
        }
        let pool = self.pool_of(peer)?;
        self.check_generation(pool, generation)?;
        if !self.pools[pool].face.lock().advances.is_empty() {
            // What was taken in advance and not asked for is here, too.
            self.checkpoint()?;
        }
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
        let mut total = 0;
        for (start, bytes) in ranges {
            total += self.digest_range(pool, *start, start.saturating_add(*bytes), &mut context)?;
        }
        let mut hmac_sha256 = [0; 32];
        hmac_sha256.copy_from_slice(context.sign().as_ref());
        Ok(StreamDigest { bytes: total, hmac_sha256 })
    }

    /// Byte by byte with its place, so that it does not matter in which chunks a site keeps them.
    fn digest_range(
        &mut self,
        pool: usize,
        start: u64,
        end: u64,
        context: &mut hmac::Context,
    ) -> Result<u64, StoreError> {
        self.look(|engine, txn| {
            let table = txn.open_table(STREAM)?;
            let pool = &engine.pools[pool];
            let (mut position, mut bytes) = (start, 0);
            while position < end {
                let place = (pool.row.id, pool.row.generation, position);
                let Some(piece) = piece_at(&table, &engine.sealer, &pool.peer, place, end)? else {
                    let next = table.range(place..(place.0, place.1, end))?.next().transpose()?;
                    position = next.map_or(end, |(place, _)| place.value().2);
                    continue;
                };
                let taken = pool.taken.get(&piece.chunk_start);
                let first = (position - piece.chunk_start) as usize;
                for (at, byte) in piece.key.expose().iter().enumerate() {
                    if taken.is_none_or(|chunk| chunk.taken_in(first + at, first + at + 1) == 0) {
                        context.update(&(position + at as u64).to_le_bytes());
                        context.update(std::slice::from_ref(byte));
                        bytes += 1;
                    }
                }
                position += piece.key.len() as u64;
            }
            Ok(bytes)
        })
    }
}
