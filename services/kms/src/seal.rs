//! Key under one-time pad, from one site to its neighbour in the pool sense: both draw the pad from the same range.
//!
//! Pad and authentication come from one draw: as many bytes as the key has, then a hash key and a mask for one
//! Wegman-Carter tag.

use anyhow::{Context, Result, bail};
use distill::hash::PolyHash;
use keystore::{Drawn, Secret, StoreError, Use};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::pair::Pool;

const TAG_BYTES: usize = 16;
/// What authentication adds to the pad of a sealed key.
pub const SEAL_OVERHEAD_BYTES: usize = 2 * TAG_BYTES;

/// A key that only the other site of a pool can read.
pub struct Sealed {
    pub generation: u32,
    pub start: u64,
    pub bytes: Vec<u8>,
    pub tag: [u8; TAG_BYTES],
}

impl Sealed {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + TAG_BYTES + self.bytes.len());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.tag);
        out.extend_from_slice(&self.bytes);
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk::<4>()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>()?;
        Some(Self {
            generation: u32::from_le_bytes(*generation),
            start: u64::from_le_bytes(*start),
            tag: *tag,
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
            | StoreError::Limit { .. } => Self::UnknownPad,
            error => Self::Store(error),
        }
    }
}

/// Seals `key` for the other site. What it is for (`context`) is covered by the tag.
pub async fn seal(pool: &Pool, use_: Use, key: &Secret, context: &[u8]) -> Result<Sealed, StoreError> {
    let bytes = key.len() + SEAL_OVERHEAD_BYTES;
    let drawn = pool.store.draw_many_async(&pool.peer, use_, bytes, 1).await?.pop();
    let drawn = drawn.ok_or(StoreError::Exhausted { asked_bytes: bytes as u64, available_bytes: 0 })?;
    Ok(seal_under(&drawn, key, context))
}

/// Seals `key` under a pad that was drawn for it: as long as the key and [`SEAL_OVERHEAD_BYTES`], and used only here.
pub fn seal_under(drawn: &Drawn, key: &Secret, context: &[u8]) -> Sealed {
    let (pad, authentication) = drawn.key.expose().split_at(key.len());
    let bytes = xor(key.expose(), pad);
    let tag = tag(authentication, context, &bytes);
    Sealed { generation: drawn.generation, start: drawn.start, bytes, tag }
}

/// Opens what the other site sealed. The pad is used up whatever comes of it.
pub async fn open(pool: &Pool, use_: Use, sealed: &Sealed, context: &[u8]) -> Result<Secret, OpenError> {
    let bytes = (sealed.bytes.len() + SEAL_OVERHEAD_BYTES) as u64;
    let pads = pool.store.redeem(&pool.peer, use_, sealed.generation, &[(sealed.start, bytes)]).await;
    let pad = pads.map_err(OpenError::of)?.pop().ok_or(OpenError::UnknownPad)?;
    opened(&pad, sealed, context).ok_or(OpenError::BadTag)
}

/// What was sealed under this pad; nothing where the tag does not verify.
pub fn opened(pad: &Secret, sealed: &Sealed, context: &[u8]) -> Option<Secret> {
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
