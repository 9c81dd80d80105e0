//! What two ends compare to see that they hold the same key.

use distill::bits::Bits;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{BlockStore, StoreError};

/// Length and SHA-256 of a string of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDigest {
    pub bits: u64,
    pub sha256: [u8; 32],
}

impl BlockStore {
    /// SHA-256 of all committed bits in block order: the bits of consecutive blocks joined without padding, packed
    /// into bytes with the first bit least significant, the last byte filled up with zeros.
    pub fn digest(&self) -> Result<KeyDigest, StoreError> {
        self.digest_of_first(usize::MAX)
    }

    /// As [`digest`](Self::digest), of so many committed blocks at most: two ends that go on have them in common.
    pub fn digest_of_first(&self, blocks: usize) -> Result<KeyDigest, StoreError> {
        let mut hasher = Sha256::new();
        let mut pending = Bits::default();
        let mut total = 0u64;
        for block in self.committed().take(blocks) {
            let block = block?;
            total += block.key.len() as u64;
            pending.extend(&block.key);
            let whole = pending.len() / 8 * 8;
            let bytes = Zeroizing::new(pending.to_bytes());
            hasher.update(&bytes[..whole / 8]);
            pending = pending.slice(whole, pending.len() - whole);
        }
        hasher.update(&*Zeroizing::new(pending.to_bytes()));
        Ok(KeyDigest { bits: total, sha256: hasher.finalize().into() })
    }
}
