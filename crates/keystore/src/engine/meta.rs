//! Small values of a pool, and the wrapping of the data key.

use redb::{ReadableTable, WriteTransaction};

use super::{Engine, limit, store_fact};
use crate::crypt::meta_aad;
use crate::master::MasterKey;
use crate::tables::{META, STORE};
use crate::types::{META_BYTES_MAX, NAME_BYTES_MAX};
use crate::{Secret, StoreError};

/// Of the store itself; callers name none like this.
const GENERATION_KEY: &str = "~generation-key";
/// Most values of one pool.
const VALUES_MAX: usize = 64;

impl Engine {
    pub fn meta_put(&mut self, peer: &str, name: &str, value: &Secret) -> Result<(), StoreError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(limit("the length of a value's name", NAME_BYTES_MAX, name.len()));
        }
        if value.len() > META_BYTES_MAX {
            return Err(limit("the length of a value in bytes", META_BYTES_MAX, value.len()));
        }
        let pool = self.pool_or_new(peer)?;
        let id = self.pools[pool].row.id;
        self.write(|engine, txn| {
            let mut table = txn.open_table(META)?;
            if table.get((id, name))?.is_none() {
                let next = id.checked_add(1).ok_or(StoreError::BadRequest { what: "too many pools" })?;
                let held = table.range((id, "")..(next, ""))?.count();
                if held >= VALUES_MAX {
                    return Err(limit("the number of values of a pool", VALUES_MAX, held + 1));
                }
            }
            let sealed = engine.sealer.seal(&meta_aad(peer, name), value.expose())?;
            table.insert((id, name), sealed.as_slice())?;
            Ok(())
        })
    }

    pub fn meta_get(&mut self, peer: &str, name: &str) -> Result<Option<Secret>, StoreError> {
        let Ok(pool) = self.pool_of(peer) else { return Ok(None) };
        let id = self.pools[pool].row.id;
        self.look(|engine, txn| {
            let table = txn.open_table(META)?;
            let Some(sealed) = table.get((id, name))? else { return Ok(None) };
            let value = engine.sealer.open(&meta_aad(peer, name), sealed.value().to_vec());
            value.map(Some).ok_or_else(|| StoreError::corrupt("a value of a pool does not decrypt"))
        })
    }

    /// Keeps the key of the present generation. That of the one before is gone.
    pub(super) fn keep_generation_key(
        &mut self,
        txn: &WriteTransaction,
        pool: usize,
        key: &[u8],
    ) -> Result<(), StoreError> {
        let pool = &self.pools[pool];
        let value = Secret::new([&pool.row.generation.to_le_bytes()[..], key].concat());
        let sealed = self.sealer.seal(&meta_aad(&pool.peer, GENERATION_KEY), value.expose())?;
        txn.open_table(META)?.insert((pool.row.id, GENERATION_KEY), sealed.as_slice())?;
        Ok(())
    }

    pub fn generation_key(&mut self, peer: &str, generation: u32) -> Result<Option<Secret>, StoreError> {
        let known = self.meta_get(peer, GENERATION_KEY)?;
        Ok(known.and_then(|known| {
            let (of, key) = known.expose().split_first_chunk::<4>()?;
            (u32::from_le_bytes(*of) == generation).then(|| Secret::copy_of(key))
        }))
    }

    /// Wraps the data key with another master key. Only who holds the present one can.
    pub fn rotate(&mut self, present: &MasterKey, new: &MasterKey) -> Result<(), StoreError> {
        self.write(|_, txn| {
            let data_key = {
                let table = txn.open_table(STORE)?;
                let wrapped = table.get("data_key")?.ok_or_else(|| StoreError::corrupt("the data key is missing"))?;
                present.unwrap_key(wrapped.value())?
            };
            store_fact(txn, "data_key", &new.wrap(&data_key)?)
        })
    }
}
