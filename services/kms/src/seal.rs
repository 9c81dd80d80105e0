//! Key under one-time pad, from one site to its neighbour in the pool sense: both draw the pad from the same range.
//!
//! Pad and authentication come from one draw: as many bytes as the key has, then a hash key and a mask for one
//! Wegman-Carter tag.
//!
//! All of that is added to the output of a pseudorandom function under a key of the pool's generation, which both ends
//! keep apart, and a nonce that the sender draws for each message. A fresh pad is information-theoretically secure
//! either way. Should a pad serve twice (a store was put back and nobody noticed), what the two messages have in common
//! is hidden as well as AES-256 hides it. The nonce travels with the message, so that it opens whenever it arrives.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use anyhow::{Context, Result, bail};
use distill::hash::PolyHash;
use keystore::{Drawn, Secret, StoreError, Use};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::pair::Pool;
use crate::told;

const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 16;
/// What authentication adds to the pad of a sealed key.
pub const SEAL_OVERHEAD_BYTES: usize = 2 * TAG_BYTES;

/// A key that only the other site of a pool can read.
pub struct Sealed {
    pub generation: u32,
    pub start: u64,
    pub bytes: Vec<u8>,
    pub tag: [u8; TAG_BYTES],
    pub nonce: Nonce,
}

/// Drawn for one message.
pub type Nonce = [u8; NONCE_BYTES];

impl Sealed {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + TAG_BYTES + NONCE_BYTES + self.bytes.len());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.tag);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.bytes);
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk::<4>()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        Some(Self {
            generation: u32::from_le_bytes(*generation),
            start: u64::from_le_bytes(*start),
            tag: *tag,
            nonce: *nonce,
            bytes: rest.to_vec(),
        })
    }
}

/// Why a sealed key was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the tag does not verify")]
    BadTag,
    #[error("the pad is not known here, or was used before")]
    UnknownPad,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Why a pad could not be taken.
    pub fn of(error: StoreError) -> Self {
        match error {
            StoreError::NotGranted { .. }
            | StoreError::AlreadyTaken { .. }
            | StoreError::OtherGeneration { .. }
            | StoreError::UnknownPeer { .. }
            | StoreError::RolledBack { .. }
            | StoreError::Limit { .. } => Self::UnknownPad,
            error => Self::Store(error),
        }
    }
}

/// Seals `key` for the other site. What it is for (`context`) is covered by the tag.
pub async fn seal(pool: &Pool, use_: Use, key: &Secret, context: &[u8]) -> Result<Sealed, StoreError> {
    let bytes = key.len() + SEAL_OVERHEAD_BYTES;
    let mut drawn = pool.store.draw_many_async(&pool.peer, use_, bytes, 1).await?;
    told::drawn(pool, use_, &drawn);
    let drawn = drawn.pop().ok_or(StoreError::Exhausted { asked_bytes: bytes as u64, available_bytes: 0 })?;
    let hidden = Hidden::fresh(pool, drawn.generation).await?;
    Ok(seal_under(&drawn, &hidden, key, context))
}

/// Seals `key` under a pad that was drawn for it: as long as the key and [`SEAL_OVERHEAD_BYTES`], and used only here.
pub fn seal_under(drawn: &Drawn, hidden: &Hidden, key: &Secret, context: &[u8]) -> Sealed {
    let pad = hidden.added_to(&drawn.key, drawn.start);
    let (pad, authentication) = pad.expose().split_at(key.len());
    let bytes = xor(key.expose(), pad);
    let tag = tag(authentication, context, &bytes);
    Sealed { generation: drawn.generation, start: drawn.start, bytes, tag, nonce: hidden.nonce }
}

/// What a pad is hidden by beside itself: the key of the pool's generation and the nonce of a message.
#[derive(Clone)]
pub struct Hidden {
    /// None in a generation that an earlier release began, at both ends.
    key: Option<Secret>,
    nonce: Nonce,
}

impl Hidden {
    /// For a message to be sent.
    pub async fn fresh(pool: &Pool, generation: u32) -> Result<Self, StoreError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|error| StoreError::Io { doing: "read random bytes", why: error.to_string().into() })?;
        Self::of(pool, generation, nonce).await
    }

    /// For a message that has come.
    pub async fn of(pool: &Pool, generation: u32, nonce: Nonce) -> Result<Self, StoreError> {
        Ok(Self { key: pool.generation_key(generation).await?, nonce })
    }

    /// The pad that starts at `start`, plus the function's output for that place and this nonce.
    fn added_to(&self, pad: &Secret, start: u64) -> Secret {
        let Some(key) = &self.key else { return pad.clone() };
        let mut sum = Zeroizing::new(pad.expose().to_vec());
        let mut derived: Zeroizing<[u8; 32]> = Zeroizing::new([0; 32]);
        let digest = Sha256::new().chain_update(b"qkdnet pad\0").chain_update(key.expose());
        let digest = digest.chain_update(self.nonce).chain_update(start.to_le_bytes()).finalize();
        derived.copy_from_slice(&digest);
        let cipher = Aes256::new(&Array::from(*derived));
        for (counter, bytes) in (0u128..).zip(sum.chunks_mut(16)) {
            let mut block = Array::from(counter.to_be_bytes());
            cipher.encrypt_block(&mut block);
            bytes.iter_mut().zip(block.iter()).for_each(|(byte, mask)| *byte ^= mask);
            block.as_mut_slice().fill(0);
        }
        Secret::new(std::mem::take(&mut *sum))
    }
}

/// Opens what the other site sealed. The pad is used up whatever comes of it.
pub async fn open(pool: &Pool, use_: Use, sealed: &Sealed, context: &[u8]) -> Result<Secret, OpenError> {
    let bytes = (sealed.bytes.len() + SEAL_OVERHEAD_BYTES) as u64;
    let pads = pool.store.redeem(&pool.peer, use_, sealed.generation, &[(sealed.start, bytes)]).await;
    let pad = pads.map_err(OpenError::of)?.pop().ok_or(OpenError::UnknownPad)?;
    let hidden = Hidden::of(pool, sealed.generation, sealed.nonce).await?;
    opened(&pad, &hidden, sealed, context).ok_or(OpenError::BadTag)
}

/// What was sealed under this pad; nothing where the tag does not verify.
pub fn opened(pad: &Secret, hidden: &Hidden, sealed: &Sealed, context: &[u8]) -> Option<Secret> {
    let pad = hidden.added_to(pad, sealed.start);
    let (pad, authentication) = pad.expose().split_at_checked(sealed.bytes.len())?;
    if authentication.len() != SEAL_OVERHEAD_BYTES {
        return None;
    }
    let verified = tag(authentication, context, &sealed.bytes).ct_eq(&sealed.tag);
    bool::from(verified).then(|| Secret::new(xor(&sealed.bytes, pad)))
}

/// A hash of context and ciphertext under the first half of `own`, masked by the second.
fn tag(own: &[u8], context: &[u8], sealed: &[u8]) -> [u8; TAG_BYTES] {
    let (key, mask) = own.split_at(TAG_BYTES);
    let mut hash_key = Zeroizing::new([0; TAG_BYTES]);
    hash_key.copy_from_slice(key);
    let mut hash = PolyHash::new(*hash_key);
    hash.update(&(context.len() as u64).to_le_bytes());
    hash.update(context);
    hash.update(sealed);
    let hash = Zeroizing::new(hash.finish());
    let mut tag = [0; TAG_BYTES];
    for (tag, (hash, mask)) in tag.iter_mut().zip(hash.iter().zip(mask)) {
        *tag = hash ^ mask;
    }
    tag
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// Random bytes of the system.
pub fn random(bytes: usize) -> Result<Secret> {
    let mut key = vec![0; bytes];
    if bytes == 0 {
        bail!("no bytes are no key");
    }
    getrandom::fill(&mut key).context("draw random bytes")?;
    Ok(Secret::new(key))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hidden(key: u8, nonce: u8) -> Hidden {
        Hidden { key: Some(Secret::new(vec![key; 32])), nonce: [nonce; NONCE_BYTES] }
    }

    fn drawn() -> Drawn {
        Drawn { generation: 2, start: 64, key: Secret::new((0..132).collect()), origins: Vec::new() }
    }

    #[test]
    fn what_is_sealed_opens_with_what_travels_with_it() {
        let key = Secret::new(vec![9; 100]);
        let sealed = seal_under(&drawn(), &hidden(1, 7), &key, b"for this");
        let sealed = Sealed::decode(&sealed.encode()).unwrap();
        assert_eq!((sealed.generation, sealed.start, sealed.nonce), (2, 64, [7; NONCE_BYTES]));
        let open = |hidden: &Hidden, context: &[u8]| opened(&drawn().key, hidden, &sealed, context);
        assert_eq!(open(&hidden(1, 7), b"for this"), Some(key));
        assert_eq!(open(&hidden(1, 7), b"for that"), None);
        assert_eq!(open(&hidden(1, 8), b"for this"), None, "another nonce");
        assert_eq!(open(&hidden(2, 7), b"for this"), None, "another generation's key");
        let plain = Hidden { key: None, nonce: [0; NONCE_BYTES] };
        let sealed = seal_under(&drawn(), &plain, &Secret::new(vec![9; 100]), b"");
        assert_eq!(sealed.bytes, (0..100).map(|pad: u8| pad ^ 9).collect::<Vec<_>>(), "the pad alone");
    }

    #[test]
    fn a_pad_that_serves_twice_does_not_show_what_the_keys_have_in_common() {
        let keys = [3, 5].map(|byte| Secret::new(vec![byte; 100]));
        let [one, two] = [0, 1].map(|at| seal_under(&drawn(), &hidden(1, at as u8), &keys[at], b""));
        let difference = xor(&one.bytes, &two.bytes);
        assert_ne!(difference, vec![3 ^ 5; 100]);
        let ones: u32 = difference.iter().map(|byte| byte.count_ones()).sum();
        assert!((300..500).contains(&ones), "it looks random: {ones} of 800 bits");
        assert_ne!(one.tag, two.tag);
    }
}
