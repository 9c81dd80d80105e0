//! What two ends compare to see that they hold the same key, once the bits themselves are gone.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::record::DIGEST_BYTES;
use super::{BlockState, BlockStore};

/// Length of a string of bits, and a digest of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDigest {
    pub bits: u64,
    pub sha256: [u8; DIGEST_BYTES],
}

/// Digest of the key of one block: SHA-256 over its length in bits (8 bytes, little-endian) and its bytes, the first
/// bit least significant, the last byte filled up with zeros.
pub(super) fn of_key(bits: u64, bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    Sha256::new().chain_update(bits.to_le_bytes()).chain_update(bytes).finalize().into()
}

/// A committed block, as two ends compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDigest {
    pub session: u64,
    pub bits: u64,
    pub sha256: [u8; DIGEST_BYTES],
}

impl BlockStore {
    /// Committed blocks from number `first` on, by number.
    pub fn digests_from(&self, first: u64) -> BTreeMap<u64, BlockDigest> {
        super::past::compared_from(self.past.as_ref(), self.latest_in(BlockState::Committed), first)
    }

    /// SHA-256 over the digests of all committed blocks, joined in the order of their numbers.
    pub fn digest(&self) -> KeyDigest {
        self.digest_of_first(usize::MAX)
    }

    /// As [`digest`](Self::digest), of the first `blocks` committed blocks: two ends that go on have them in common.
    pub fn digest_of_first(&self, blocks: usize) -> KeyDigest {
        let (mut hasher, mut bits) = (Sha256::new(), 0);
        let of_past = self.past.iter().flat_map(|past| &past.rows).map(|row| (row.bits, row.digest));
        let kept = self.latest_in(BlockState::Committed).map(|entry| (entry.header.key_bits, entry.digest));
        for (of_block, digest) in of_past.chain(kept).take(blocks) {
            bits += of_block;
            hasher.update(digest);
        }
        KeyDigest { bits, sha256: hasher.finalize().into() }
    }
}
