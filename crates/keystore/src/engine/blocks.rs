//! Blocks: offered, then confirmed into the stream or quarantined.

use std::ops::Bound;

use redb::{ReadableTable, WriteTransaction};

use super::{Engine, limit};
use crate::crypt::{offered_aad, stream_aad};
use crate::keeper::POSITION_BITS;
use crate::tables::{
    BLOCKS, BlockRow, CHUNK_BYTES, Counters, DECIDED, Fate, OFFERED, ORIGINS, OriginRow, Place, STREAM,
};
use crate::types::{
    BLOCK_BYTES_MAX, BLOCKS_REMEMBERED, BlockStatus, NAME_BYTES_MAX, ORIGIN_BYTES_MAX, Offer, OfferedBlock, OriginPiece,
};
use crate::{Secret, StoreError};

impl Engine {
    pub fn offer(&mut self, peer: &str, offer: &Offer) -> Result<BlockStatus, StoreError> {
        let bytes = offer.key.len();
        if bytes == 0 || bytes > BLOCK_BYTES_MAX {
            return Err(limit("the length of a block in bytes", BLOCK_BYTES_MAX, bytes));
        }
        if offer.origin.len() > ORIGIN_BYTES_MAX {
            return Err(limit("the length of an origin in bytes", ORIGIN_BYTES_MAX, offer.origin.len()));
        }
        let id = u128::from_be_bytes(offer.id);
        let digest = self.sealer.digest(&[b"block", offer.key.expose()]);
        if let Ok(pool) = self.pool_of(peer)
            && let Some(known) = self.block(pool, id)?
        {
            return if known.bytes == bytes as u64 && known.digest == digest {
                Ok(status(known.fate))
            } else {
                Err(StoreError::BlockConflict { was: "offered with other bytes" })
            };
        }
        let pool = self.pool_or_new(peer)?;
        self.check_capacity(pool, bytes as u64)?;
        self.write(|engine, txn| {
            let fate = Fate::Offered { origin: offer.origin.clone(), span: offer.span, offered_ms: offer.offered_ms };
            let sealed = engine.sealer.seal(&offered_aad(peer, id), offer.key.expose())?;
            let place = (engine.pools[pool].row.id, id);
            txn.open_table(OFFERED)?.insert(place, sealed.as_slice())?;
            let row = BlockRow { bytes: bytes as u64, digest, fate };
            txn.open_table(BLOCKS)?.insert(place, row.encode().as_slice())?;
            let pool = engine.change(pool);
            pool.offered.insert(id);
            let counters = &mut pool.row.counters;
            counters.offered += bytes as u64;
            counters.relayed += if offer.relayed { bytes as u64 } else { 0 };
            counters.pending += bytes as u64;
            counters.pending_blocks += 1;
            Ok(BlockStatus::Offered)
        })
    }

    fn check_capacity(&self, pool: usize, bytes: u64) -> Result<(), StoreError> {
        let pool = &self.pools[pool];
        let state = pool.face.lock();
        let stored_bytes = state.held_bytes() - state.counters.pending + pool.row.counters.pending;
        let capacity_bytes = self.settings.capacity_bytes;
        if stored_bytes + bytes > capacity_bytes {
            return Err(StoreError::PoolFull { stored_bytes, capacity_bytes });
        }
        Ok(())
    }

    fn block(&mut self, pool: usize, id: u128) -> Result<Option<BlockRow>, StoreError> {
        let place = (self.pools[pool].row.id, id);
        self.look(|_, txn| {
            let table = txn.open_table(BLOCKS)?;
            let row = table.get(place)?;
            row.map(|row| BlockRow::decode(row.value())).transpose()
        })
    }

    pub fn block_status(&mut self, peer: &str, id: &[u8; 16]) -> Result<BlockStatus, StoreError> {
        let pool = self.pool_of(peer)?;
        let row = self.block(pool, u128::from_be_bytes(*id))?.ok_or(StoreError::UnknownBlock)?;
        Ok(status(row.fate))
    }

    /// The blocks that still wait, those behind `after`, at most `max` of them.
    pub fn offered(
        &mut self,
        peer: &str,
        after: Option<[u8; 16]>,
        max: usize,
    ) -> Result<Vec<OfferedBlock>, StoreError> {
        let pool = self.pool_of(peer)?;
        let behind = after.map_or(Bound::Unbounded, |after| Bound::Excluded(u128::from_be_bytes(after)));
        let ids: Vec<u128> = self.pools[pool].offered.range((behind, Bound::Unbounded)).take(max).copied().collect();
        self.look(|engine, txn| {
            let (number, rows) = (engine.pools[pool].row.id, txn.open_table(BLOCKS)?);
            let mut blocks = Vec::with_capacity(ids.len());
            for id in ids {
                let row = rows.get((number, id))?.ok_or_else(|| StoreError::corrupt("an offered block has no row"))?;
                let BlockRow { bytes, fate, .. } = BlockRow::decode(row.value())?;
                let Fate::Offered { origin, offered_ms, .. } = fate else {
                    return Err(StoreError::corrupt("an offered block was decided before"));
                };
                blocks.push(OfferedBlock { id: id.to_be_bytes(), bytes, origin, offered_ms });
            }
            Ok(blocks)
        })
    }

    /// The bytes of a block that waits: for its MAC, before it is confirmed.
    pub fn offered_key(&mut self, peer: &str, id: &[u8; 16]) -> Result<Secret, StoreError> {
        let (pool, id) = (self.pool_of(peer)?, u128::from_be_bytes(*id));
        self.look(|engine, txn| engine.open_offered(txn, pool, id))
    }

    fn open_offered(&self, txn: &WriteTransaction, pool: usize, id: u128) -> Result<Secret, StoreError> {
        let pool = &self.pools[pool];
        let table = txn.open_table(OFFERED)?;
        let sealed = table.get((pool.row.id, id))?.ok_or(StoreError::UnknownBlock)?;
        let key = self.sealer.open(&offered_aad(&pool.peer, id), sealed.value().to_vec());
        key.ok_or_else(|| StoreError::corrupt("an offered block does not decrypt"))
    }

    pub fn confirm(
        &mut self,
        peer: &str,
        id: &[u8; 16],
        (generation, start): (u32, u64),
        (deducted, kept): (u64, u64),
    ) -> Result<BlockStatus, StoreError> {
        let (pool, id) = (self.pool_of(peer)?, u128::from_be_bytes(*id));
        self.pools[pool].check_usable()?;
        let block = self.block(pool, id)?.ok_or(StoreError::UnknownBlock)?;
        let confirmed = Fate::Confirmed { generation, start, deducted };
        let (origin, span) = match block.fate {
            Fate::Offered { origin, span, .. } => (origin, span),
            known if known == confirmed => return Ok(status(known)),
            Fate::Confirmed { .. } => return Err(StoreError::BlockConflict { was: "confirmed otherwise" }),
            Fate::Quarantined { .. } => return Err(StoreError::BlockConflict { was: "quarantined" }),
            Fate::Abandoned { .. } => return Err(StoreError::BlockConflict { was: "abandoned" }),
        };
        let row = &self.pools[pool].row;
        if generation != row.generation {
            return Err(StoreError::OtherGeneration { asked: generation, current: row.generation });
        }
        if start != row.stream_end {
            return Err(StoreError::NotContiguous { start, end_bytes: row.stream_end });
        }
        let room = (1u64 << POSITION_BITS) - 1;
        if start + block.bytes > room {
            return Err(StoreError::Limit { what: "the bytes of a generation", max: room, given: start + block.bytes });
        }
        if kept > deducted {
            return Err(StoreError::BadRequest { what: "more is kept than is deducted" });
        }
        if deducted >= block.bytes {
            return Err(StoreError::Limit { what: "the deducted bytes", max: block.bytes - 1, given: deducted });
        }
        self.write(|engine, txn| {
            let key = engine.open_offered(txn, pool, id)?;
            let (own, rest) = key.expose().split_at(deducted as usize);
            if kept > 0 {
                engine.keep_generation_key(txn, pool, &own[(deducted - kept) as usize..])?;
            }
            let place = (engine.pools[pool].row.id, generation, start);
            engine.append_stream(txn, peer, place, rest)?;
            let origin = OriginRow { bytes: rest.len() as u64, block: id, span, origin };
            txn.open_table(ORIGINS)?.insert(place, origin.encode().as_slice())?;
            engine.decide(txn, pool, id, BlockRow { fate: confirmed.clone(), ..block })?;
            let row = &mut engine.change(pool).row;
            row.stream_end += rest.len() as u64;
            row.counters.confirmed += block.bytes;
            row.counters.deducted += deducted;
            Ok(status(confirmed))
        })
    }

    fn append_stream(&self, txn: &WriteTransaction, peer: &str, place: Place, key: &[u8]) -> Result<(), StoreError> {
        let (id, generation, start) = place;
        let mut table = txn.open_table(STREAM)?;
        for (number, chunk) in key.chunks(CHUNK_BYTES).enumerate() {
            let at = start + (number * CHUNK_BYTES) as u64;
            let sealed = self.sealer.seal(&stream_aad(peer, generation, at, chunk.len()), chunk)?;
            table.insert((id, generation, at), sealed.as_slice())?;
        }
        Ok(())
    }

    /// Erases an offered block whose two ends differ.
    pub fn quarantine(&mut self, peer: &str, id: &[u8; 16], reason: &str) -> Result<BlockStatus, StoreError> {
        let fate = Fate::Quarantined { reason: reason.to_owned() };
        self.erase(peer, id, reason, fate, |counters| &mut counters.quarantined)
    }

    /// Erases an offered block that the other site does not have.
    pub fn abandon(&mut self, peer: &str, id: &[u8; 16], reason: &str) -> Result<BlockStatus, StoreError> {
        let fate = Fate::Abandoned { reason: reason.to_owned() };
        self.erase(peer, id, reason, fate, |counters| &mut counters.abandoned)
    }

    fn erase(
        &mut self,
        peer: &str,
        id: &[u8; 16],
        reason: &str,
        fate: Fate,
        counter: fn(&mut Counters) -> &mut u64,
    ) -> Result<BlockStatus, StoreError> {
        if reason.len() > NAME_BYTES_MAX {
            return Err(limit("the length of a reason in bytes", NAME_BYTES_MAX, reason.len()));
        }
        let (pool, id) = (self.pool_of(peer)?, u128::from_be_bytes(*id));
        let block = self.block(pool, id)?.ok_or(StoreError::UnknownBlock)?;
        match block.fate {
            Fate::Offered { .. } => {}
            Fate::Confirmed { .. } => return Err(StoreError::BlockConflict { was: "confirmed" }),
            // The first reason stays.
            known => return Ok(status(known)),
        }
        self.write(|engine, txn| {
            engine.decide(txn, pool, id, BlockRow { fate: fate.clone(), ..block })?;
            *counter(&mut engine.change(pool).row.counters) += block.bytes;
            Ok(status(fate))
        })
    }

    /// Erases the offered bytes, writes what was decided, and forgets the oldest decision if there are too many.
    fn decide(&mut self, txn: &WriteTransaction, pool: usize, id: u128, block: BlockRow) -> Result<(), StoreError> {
        let pool = self.change(pool);
        pool.offered.remove(&id);
        let row = &mut pool.row;
        row.counters.pending -= block.bytes;
        row.counters.pending_blocks -= 1;
        txn.open_table(OFFERED)?.remove((row.id, id))?;
        let mut blocks = txn.open_table(BLOCKS)?;
        blocks.insert((row.id, id), block.encode().as_slice())?;
        let mut decided = txn.open_table(DECIDED)?;
        decided.insert((row.id, row.decided_next), id)?;
        row.decided_next += 1;
        while row.decided_next - row.decided_first > BLOCKS_REMEMBERED {
            let oldest = decided.remove((row.id, row.decided_first))?.map(|id| id.value());
            row.decided_first += 1;
            let Some(oldest) = oldest else { continue };
            let fate = match blocks.remove((row.id, oldest))? {
                Some(old) => BlockRow::decode(old.value())?.fate,
                None => continue,
            };
            if let Fate::Confirmed { generation, start, .. } = fate {
                txn.open_table(ORIGINS)?.remove((row.id, generation, start))?;
            }
        }
        Ok(())
    }

    pub fn origins(
        &mut self,
        peer: &str,
        generation: u32,
        start: u64,
        bytes: u64,
    ) -> Result<Vec<OriginPiece>, StoreError> {
        let id = self.pools[self.pool_of(peer)?].row.id;
        let end = start.saturating_add(bytes);
        self.look(|_, txn| {
            let mut pieces = Vec::new();
            for (at, row) in origin_rows(txn, (id, generation, start), end)? {
                let (first, last) = (at.max(start), (at + row.bytes).min(end));
                pieces.push(OriginPiece {
                    start: first,
                    bytes: last - first,
                    block_id: row.block.to_be_bytes(),
                    origin: row.origin,
                    span: row.span,
                });
            }
            Ok(pieces)
        })
    }
}

/// The blocks of which some byte lies within `start..end`, with their starts.
pub(super) fn origin_rows(
    txn: &WriteTransaction,
    (id, generation, start): Place,
    end: u64,
) -> Result<Vec<(u64, OriginRow)>, StoreError> {
    let table = txn.open_table(ORIGINS)?;
    let before = table.range((id, generation, 0)..=(id, generation, start))?.next_back().transpose()?;
    let first = before.map_or(start, |(place, _)| place.value().2);
    let mut rows = Vec::new();
    for found in table.range((id, generation, first)..(id, generation, end.max(first)))? {
        let (place, row) = found?;
        let (at, row) = (place.value().2, OriginRow::decode(row.value())?);
        if at + row.bytes > start {
            rows.push((at, row));
        }
        if rows.len() > crate::types::ITEMS_MAX {
            break;
        }
    }
    Ok(rows)
}

fn status(fate: Fate) -> BlockStatus {
    match fate {
        Fate::Offered { .. } => BlockStatus::Offered,
        Fate::Confirmed { generation, start, .. } => BlockStatus::Confirmed { generation, start },
        Fate::Quarantined { reason } => BlockStatus::Quarantined { reason },
        Fate::Abandoned { reason } => BlockStatus::Abandoned { reason },
    }
}
