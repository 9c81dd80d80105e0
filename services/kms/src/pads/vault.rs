//! Where shares of keys wait that are not key yet, so that they outlive a crash.
//!
//! A vault is a pool of the key store that no other site shares: nothing in it is ever confirmed or drawn. What it
//! holds is sealed as any block is, and dropping it erases it and leaves the reason.

use std::sync::Arc;

use keystore::{BlockStatus, KeyStore, Offer, SPAN_BYTES, Secret, StoreError};
use serde::{Deserialize, Serialize};
use transfer::{Header, Path, TransferId};

/// Most entries of one vault: as many as the store lists at once.
const ENTRIES_MAX: u64 = 1000;

/// How an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Never,
    Held,
    /// Dropped, and why.
    Gone(String),
}

/// What is told of an entry without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub group: TransferId,
    pub share: u8,
    pub of: u8,
    pub path: Path,
    /// Wall time at which it came.
    pub since_ms: u64,
}

impl About {
    pub fn of(header: &Header) -> Self {
        let Header { group, share, of, ref path, .. } = *header;
        Self { group, share, of, path: path.clone(), since_ms: crate::now_ms() }
    }
}

/// A share, and what was sent of it.
pub struct Entry {
    pub about: About,
    pub key: Secret,
    pub payload: Vec<u8>,
}

impl Entry {
    /// Lengths before parts, in one buffer that never grows.
    fn encode(&self) -> Result<Secret, StoreError> {
        let about = serde_json::to_vec(&self.about).map_err(|_| BAD_ENTRY)?;
        let parts = [about.as_slice(), self.key.expose(), self.payload.as_slice()];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum());
        for part in parts {
            bytes.extend_from_slice(&u32::try_from(part.len()).map_err(|_| BAD_ENTRY)?.to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Ok(Secret::new(bytes))
    }

    /// The entry as its vault keeps it.
    pub fn offer(&self, transfer: TransferId) -> Result<Offer, StoreError> {
        let (key, offered_ms) = (self.encode()?, crate::now_ms());
        Ok(Offer { id: transfer.0, key, origin: String::new(), span: [0; SPAN_BYTES], offered_ms, relayed: false })
    }

    fn decode(bytes: &Secret) -> Option<Self> {
        let mut rest = bytes.expose();
        let mut part = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(part)
        };
        let about = serde_json::from_slice(part()?).ok()?;
        Some(Self { about, key: Secret::copy_of(part()?), payload: part()?.to_vec() })
    }
}

const BAD_ENTRY: StoreError = StoreError::BadRequest { what: "a share cannot be kept" };

pub struct Vault {
    store: Arc<KeyStore>,
    /// No site has a name like this.
    name: &'static str,
}

impl Vault {
    pub fn new(store: Arc<KeyStore>, name: &'static str) -> Self {
        Self { store, name }
    }

    pub async fn status(&self, transfer: TransferId) -> Result<Kept, StoreError> {
        match self.store.block_status(self.name, transfer.0).await {
            Ok(BlockStatus::Quarantined { reason } | BlockStatus::Abandoned { reason }) => Ok(Kept::Gone(reason)),
            Ok(_) => Ok(Kept::Held),
            Err(StoreError::UnknownBlock | StoreError::UnknownPeer { .. }) => Ok(Kept::Never),
            Err(error) => Err(error),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Keeps an entry; durable when it returns. False where the transfer is known with another one.
    pub async fn put(&self, transfer: TransferId, entry: &Entry) -> Result<bool, StoreError> {
        match self.store.offer(self.name, entry.offer(transfer)?).await {
            Ok(_) => {
                shell::failpoint::hit("share.kept");
                Ok(true)
            }
            Err(StoreError::BlockConflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub async fn get(&self, transfer: TransferId) -> Result<Option<Entry>, StoreError> {
        match self.store.offered_key(self.name, transfer.0).await {
            Ok(bytes) => Ok(Entry::decode(&bytes)),
            Err(StoreError::UnknownBlock | StoreError::UnknownPeer { .. } | StoreError::BlockConflict { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Erases an entry, durably; of one that is gone the first reason stays.
    pub async fn erase(&self, transfer: TransferId, why: &str) -> Result<(), StoreError> {
        match self.store.quarantine(self.name, transfer.0, why).await {
            Ok(_) | Err(StoreError::UnknownBlock | StoreError::UnknownPeer { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub fn is_full(&self) -> bool {
        self.store.levels(self.name).is_ok_and(|levels| levels.offered_blocks >= ENTRIES_MAX)
    }

    pub async fn all(&self) -> Result<Vec<TransferId>, StoreError> {
        match self.store.offered(self.name, None).await {
            Ok(held) => Ok(held.into_iter().map(|entry| TransferId(entry.id)).collect()),
            Err(StoreError::UnknownPeer { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use transfer::SiteName;

    use super::*;

    #[test]
    fn an_entry_survives_the_store_and_a_cut_one_is_none() {
        let path = ["a", "b", "c"].map(|site| SiteName::parse(site).unwrap()).to_vec();
        let about = About { group: TransferId([7; 16]), share: 1, of: 2, path: Path::new(path).unwrap(), since_ms: 5 };
        let entry = Entry { about: about.clone(), key: Secret::copy_of(&[1, 2, 3]), payload: vec![9; 40] };
        let bytes = entry.encode().unwrap();
        let again = Entry::decode(&bytes).unwrap();
        assert_eq!((again.about, again.key.expose(), again.payload), (about, &[1, 2, 3][..], vec![9; 40]));
        for length in 0..bytes.len() {
            assert!(Entry::decode(&Secret::copy_of(&bytes.expose()[..length])).is_none(), "{length}");
        }
    }
}
