//! One-time tags that show that both ends hold the same block.

use distill::hash::PolyHash;
use keystore::Secret;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Key of the universal hash, then the pad: half of it for each direction.
const HASH_KEY_BYTES: usize = 16;
const TAG_BYTES: usize = 8;

/// Bytes of the first block of a generation that both ends keep apart, behind those of its confirmation.
pub const GENERATION_KEY_BYTES: usize = 32;

/// Bytes of a block that starts here in the stream and do not count: those of its confirmation, and of the first one
/// the generation's key.
pub(super) fn deducted_bytes(start: u64) -> usize {
    CONFIRMATION_BYTES + kept_bytes(start)
}

/// Of them those that are kept.
pub(super) fn kept_bytes(start: u64) -> usize {
    if start == 0 { GENERATION_KEY_BYTES } else { 0 }
}

/// Bytes of each block that its confirmation costs.
pub const CONFIRMATION_BYTES: usize = HASH_KEY_BYTES + 2 * TAG_BYTES;

/// The tags of a block, one per direction.
pub struct BlockTags {
    coordinator: Zeroizing<[u8; TAG_BYTES]>,
    follower: Zeroizing<[u8; TAG_BYTES]>,
}

impl BlockTags {
    /// Nothing where the block is too short to be worth confirming.
    pub fn of(id: &[u8; 16], block: &Secret) -> Option<Self> {
        let (own, rest) = block.expose().split_at_checked(CONFIRMATION_BYTES)?;
        if rest.is_empty() {
            return None;
        }
        let (key, pad) = own.split_at(HASH_KEY_BYTES);
        let mut hash = PolyHash::new(key.try_into().ok()?);
        hash.update(id);
        hash.update(rest);
        let hash = Zeroizing::new(hash.finish());
        let tag = |at: usize| {
            let mut tag = Zeroizing::new([0; TAG_BYTES]);
            for (index, byte) in tag.iter_mut().enumerate() {
                *byte = hash[at + index] ^ pad[at + index];
            }
            tag
        };
        Some(Self { coordinator: tag(0), follower: tag(TAG_BYTES) })
    }

    pub fn coordinators(&self) -> &[u8] {
        &self.coordinator[..]
    }

    pub fn followers(&self) -> &[u8] {
        &self.follower[..]
    }
}

pub fn equal(ours: &[u8], theirs: &[u8]) -> bool {
    ours.ct_eq(theirs).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn equal_blocks_have_equal_tags_and_others_do_not() {
        let tags = |block: &[u8], id: u8| {
            let tags = BlockTags::of(&[id; 16], &Secret::new(block.to_vec())).unwrap();
            [tags.coordinators().to_vec(), tags.followers().to_vec()]
        };
        let block: Vec<u8> = (0..100).collect();
        assert_eq!(tags(&block, 1), tags(&block, 1));
        for at in 0..block.len() {
            let mut other = block.clone();
            other[at] ^= 1;
            let (a, b) = (tags(&block, 1), tags(&other, 1));
            assert!(a[0] != b[0] || a[1] != b[1], "byte {at}");
        }
        assert_ne!(tags(&block, 1), tags(&block, 2));
    }

    #[test]
    fn a_block_without_a_bit_to_deliver_has_no_tags() {
        assert!(BlockTags::of(&[0; 16], &Secret::new(vec![1; CONFIRMATION_BYTES])).is_none());
        assert!(BlockTags::of(&[0; 16], &Secret::new(vec![1; CONFIRMATION_BYTES + 1])).is_some());
    }
}
