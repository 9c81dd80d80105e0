//! Key bytes at rest: AES-256-GCM under the store's data key, which the master key wraps.
//!
//! Nonces are 96 random bits. Up to 2^32 records (about 17 TB of key) under one data key the chance of a repeated
//! nonce stays below 2^-32; a store that has seen more should be replaced.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use zeroize::Zeroizing;

use crate::{Secret, StoreError};

/// What a sealed record is longer by: nonce and tag.
pub(crate) const SEAL_BYTES: usize = NONCE_LEN + 16;

/// Seals and opens records under one 256-bit key.
pub struct Sealer {
    aead: LessSafeKey,
    mac: hmac::Key,
}

impl Sealer {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self, StoreError> {
        let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| broken("make a key"))?;
        // A key of its own for digests: the same bytes must not serve two algorithms.
        let base = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = hmac::sign(&base, b"qkdnet keystore: digests of blocks and journal records");
        Ok(Self { aead: LessSafeKey::new(unbound), mac: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) })
    }

    /// One whose key follows from `key` and a purpose: what is sealed for one purpose does not open for another.
    pub(crate) fn derived(key: &[u8; 32], purpose: &[u8]) -> Result<Self, StoreError> {
        let base = hmac::Key::new(hmac::HMAC_SHA256, key);
        let mut context = hmac::Context::with_key(&base);
        context.update(b"qkdnet keystore: sealing for ");
        context.update(purpose);
        let mut derived = Zeroizing::new([0; 32]);
        derived.copy_from_slice(context.sign().as_ref());
        Self::new(&derived)
    }

    /// Nonce, ciphertext, tag.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0u8; NONCE_LEN];
        random(&mut nonce)?;
        let mut record = Vec::with_capacity(plain.len() + SEAL_BYTES);
        record.extend_from_slice(&nonce);
        record.extend_from_slice(plain);
        let tag = self
            .aead
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut record[NONCE_LEN..])
            .map_err(|_| broken("encrypt a record"))?;
        record.extend_from_slice(tag.as_ref());
        Ok(record)
    }

    /// Decrypts in the record's own buffer. `None` if it is not what was sealed with this key for this place.
    pub fn open(&self, aad: &[u8], mut record: Vec<u8>) -> Option<Secret> {
        let nonce = Nonce::assume_unique_for_key(*record.first_chunk::<NONCE_LEN>()?);
        let opened = self.aead.open_within(nonce, Aad::from(aad), &mut record, NONCE_LEN..);
        let plain_bytes = opened.ok().map(|plain| plain.len());
        // From here on the buffer may hold key bytes, behind the plain text too.
        let mut secret = Secret::new(record);
        secret.truncate(plain_bytes?);
        Some(secret)
    }

    /// A keyed digest, worthless to who has the disk but not the key.
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.mac);
        for part in parts {
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

pub(crate) fn random(buffer: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(buffer).map_err(|error| StoreError::io("read random bytes", &error))
}

fn broken(doing: &'static str) -> StoreError {
    StoreError::io(doing, &"the cipher refused")
}

/// Binds a record to its place: a record moved elsewhere does not open.
pub(crate) fn stream_aad(peer: &str, generation: u32, start: u64, bytes: usize) -> Vec<u8> {
    let mut aad = place(b'S', peer, 20);
    aad.extend_from_slice(&generation.to_le_bytes());
    aad.extend_from_slice(&start.to_le_bytes());
    aad.extend_from_slice(&(bytes as u64).to_le_bytes());
    aad
}

pub(crate) fn offered_aad(peer: &str, id: u128) -> Vec<u8> {
    let mut aad = place(b'O', peer, 16);
    aad.extend_from_slice(&id.to_le_bytes());
    aad
}

pub(crate) fn meta_aad(peer: &str, name: &str) -> Vec<u8> {
    let mut aad = place(b'M', peer, name.len());
    aad.extend_from_slice(name.as_bytes());
    aad
}

pub(crate) fn deposit_aad(id: u128) -> Vec<u8> {
    let mut aad = place(b'D', "", 16);
    aad.extend_from_slice(&id.to_le_bytes());
    aad
}

fn place(kind: u8, peer: &str, more: usize) -> Vec<u8> {
    let mut aad = Vec::with_capacity(5 + peer.len() + more);
    aad.push(kind);
    aad.extend_from_slice(&(peer.len() as u32).to_le_bytes());
    aad.extend_from_slice(peer.as_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_in_its_own_place_only() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let aad = stream_aad("sophia", 1, 4096, 3);
        let mut record = sealer.seal(&aad, b"key").unwrap();
        assert_eq!(sealer.open(&aad, record.clone()), Some(Secret::copy_of(b"key")));
        for other in
            [stream_aad("sophia", 2, 4096, 3), stream_aad("sophia", 1, 0, 3), stream_aad("valrose", 1, 4096, 3)]
        {
            assert_eq!(sealer.open(&other, record.clone()), None);
        }
        assert_eq!(Sealer::new(&[8; 32]).unwrap().open(&aad, record.clone()), None);
        record[NONCE_LEN] ^= 1;
        assert_eq!(sealer.open(&aad, record.clone()), None);
        assert_eq!(sealer.open(&aad, b"short".to_vec()), None);
    }
}
