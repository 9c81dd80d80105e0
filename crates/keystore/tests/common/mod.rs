//! What the tests of the store share.
#![allow(dead_code, clippy::unwrap_used)]

pub mod disk;

use keystore::{BlockStatus, Grant, KeyStore, MasterKey, Offer, Secret, Settings, Use};

pub const PEER: &str = "sophia";
pub const BLOCK_BYTES: usize = 10_000;

pub fn master() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

pub fn id(number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    id
}

/// Bytes that tell which position of which generation they are.
pub fn stream_byte(generation: u32, position: u64) -> u8 {
    let mixed =
        (position + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(generation).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed >> 40) as u8
}

pub fn stream(generation: u32, start: u64, bytes: usize) -> Vec<u8> {
    (start..start + bytes as u64).map(|position| stream_byte(generation, position)).collect()
}

pub fn block(number: u64, generation: u32, start: u64, bytes: usize) -> Offer {
    let (key, origin) = (Secret::new(stream(generation, start, bytes)), format!("{{\"block\":{number}}}"));
    Offer { id: id(number), key, origin, span: [number as u8; 25], offered_ms: 5, relayed: false }
}

/// Offers and confirms the next block of a pool.
pub fn fill(store: &KeyStore, peer: &str, number: u64, bytes: usize) {
    let levels = store.levels(peer).unwrap_or_default();
    let (generation, start) = (levels.generation, levels.end_bytes);
    store.offer(peer, block(number, generation, start, bytes)).wait().unwrap();
    let confirmed = store.confirm(peer, id(number), generation, start, 0).wait().unwrap();
    assert_eq!(confirmed, BlockStatus::Confirmed { generation, start });
}

/// Grants the next bytes of a pool.
pub fn grant(store: &KeyStore, peer: &str, use_: Use, bytes: u64, granted_ms: u64) -> Grant {
    let levels = store.levels(peer).unwrap();
    let grant = Grant {
        generation: levels.generation,
        seq: levels.next_grant,
        use_,
        start: levels.granted_end_bytes,
        bytes,
        granted_ms,
        active: true,
    };
    store.grant(peer, grant).wait().unwrap()
}

pub fn settings() -> Settings {
    Settings { journal_bytes: 8 << 10, lease_bytes: 4 << 10, ..Settings::default() }
}

pub fn checked(store: &KeyStore, peer: &str) -> keystore::PoolLedger {
    let ledger = store.ledger(peer).unwrap();
    ledger.check().unwrap_or_else(|error| panic!("{error}: {ledger:?}"));
    ledger
}
