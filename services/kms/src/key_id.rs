//! Key IDs that say where their key is, to the two key stores of a pair and to nobody else.
//!
//! An ID has to be a UUID that looks random and has nothing to do with the key, and the slave's key store must find
//! the key by it without having heard of the request. So the place of the key in the pool, and short tags of the two
//! applications' names, are enciphered under a secret of the pair: a permutation of the 2^122 UUIDs of version 4, made
//! of AES-128 by cycle walking (Black and Rogaway, CT-RSA 2002). A place is used once, so no ID comes twice. Should a
//! store that was put back hand a place out once more, the same two applications get the same ID for it, which shows.
//!
//! The secret is drawn for each generation of the pool. An ID says its generation modulo 1024, so that the number comes
//! again after 1024 generations; the secret is another one then, and an ID of the first means nothing in the second
//! (chance 2^-20 that it passes for one at all, 2^-60 with the names). IDs of a generation that has ended point nowhere.
//!
//! Whoever makes IDs up has to hit the 20 zero bits and the tags of both names: chance 2^-60 per attempt.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::supply::KeyId;

/// Bytes of a generation's secret: the cipher's key, then that of the names' tags.
pub const ID_SECRET_BYTES: usize = 32;

const TAG_BITS: u32 = 20;
const START_BITS: u32 = 38;
const BYTES_BITS: u32 = 13;
const GENERATION_BITS: u32 = 10;
/// Zero in every ID.
const CHECK_BITS: u32 = 122 - 2 * TAG_BITS - START_BITS - BYTES_BITS - GENERATION_BITS - 1;
const VERSION: u128 = 4;
const VARIANT: u128 = 2;

/// Longest key that an ID can name, in bytes.
pub const KEY_BYTES_MAX: usize = (1 << BYTES_BITS) - 1;

/// Where a key is in the pool of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// Of the pool; in an ID modulo 2^10.
    pub generation: u32,
    pub start: u64,
    pub bytes: u32,
    /// Whether the master's key store is the one that coordinates the pair.
    pub from_coordinator: bool,
}

/// Short tag of an application's name under the pair's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameTag(u32);

/// What an ID says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    pub place: KeyPlace,
    pub master: NameTag,
    pub slave: NameTag,
}

/// Makes and reads the IDs of one pair of sites in one generation of their pool.
pub struct IdCodec {
    generation: u32,
    cipher: Aes128,
    names: NameKey,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct NameKey([u8; 16]);

impl IdCodec {
    pub fn new(generation: u32, secret: &[u8; ID_SECRET_BYTES]) -> Self {
        let (mut cipher, mut names) = ([0; 16], [0; 16]);
        cipher.copy_from_slice(&secret[..16]);
        names.copy_from_slice(&secret[16..]);
        let codec = Self { generation, cipher: Aes128::new(&Array::from(cipher)), names: NameKey(names) };
        cipher.zeroize();
        names.zeroize();
        codec
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn tag(&self, name: &str) -> NameTag {
        let digest = Sha256::new().chain_update(self.names.0).chain_update(name.as_bytes()).finalize();
        NameTag(u32::from_le_bytes([digest[0], digest[1], digest[2], 0]) & ((1 << TAG_BITS) - 1))
    }

    /// The ID of the key at `place`; nothing where the place is beyond what an ID can say.
    pub fn encode(&self, what: Described) -> Option<KeyId> {
        let KeyPlace { generation, start, bytes, from_coordinator } = what.place;
        if generation != self.generation || start >> START_BITS != 0 || bytes >> BYTES_BITS != 0 {
            return None;
        }
        let mut packed = u128::from(generation) & ((1 << GENERATION_BITS) - 1);
        for (value, bits) in [
            (u128::from(start), START_BITS),
            (u128::from(bytes), BYTES_BITS),
            (u128::from(from_coordinator), 1),
            (u128::from(what.master.0), TAG_BITS),
            (u128::from(what.slave.0), TAG_BITS),
            (0, CHECK_BITS),
        ] {
            packed = packed << bits | value;
        }
        let mut block = Array::from(spread(packed).to_be_bytes());
        loop {
            self.cipher.encrypt_block(&mut block);
            if is_v4(u128::from_be_bytes(block.into())) {
                return Some(KeyId(block.into()));
            }
        }
    }

    /// What IDs of this generation say; nothing for any other.
    pub fn decode(&self, id: &KeyId) -> Option<Described> {
        if !is_v4(u128::from_be_bytes(id.0)) {
            return None;
        }
        let mut block = Array::from(id.0);
        let packed = loop {
            self.cipher.decrypt_block(&mut block);
            let value = u128::from_be_bytes(block.into());
            if is_v4(value) {
                break gather(value);
            }
        };
        let mut rest = packed;
        let mut take = |bits: u32| {
            let value = rest & ((1 << bits) - 1);
            rest >>= bits;
            value as u64
        };
        if take(CHECK_BITS) != 0 {
            return None;
        }
        let (slave, master) = (NameTag(take(TAG_BITS) as u32), NameTag(take(TAG_BITS) as u32));
        let from_coordinator = take(1) == 1;
        let bytes = take(BYTES_BITS) as u32;
        let start = take(START_BITS);
        if take(GENERATION_BITS) != u64::from(self.generation) & ((1 << GENERATION_BITS) - 1) {
            return None;
        }
        let generation = self.generation;
        Some(Described { place: KeyPlace { generation, start, bytes, from_coordinator }, master, slave })
    }
}

/// By what a key is found in traces: its ID is a handle that not everybody who reads traces should have.
pub fn fingerprint(id: &KeyId) -> String {
    let digest = Sha256::new().chain_update(b"qkdnet key ID\0").chain_update(id.0).finalize();
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_v4(block: u128) -> bool {
    block >> 76 & 0xf == VERSION && block >> 62 & 0x3 == VARIANT
}

/// 122 bits into the places of a UUID that its version and variant leave free.
fn spread(packed: u128) -> u128 {
    let low = packed & ((1 << 62) - 1);
    let middle = packed >> 62 & 0xfff;
    let high = packed >> 74;
    high << 80 | VERSION << 76 | middle << 64 | VARIANT << 62 | low
}

fn gather(block: u128) -> u128 {
    let low = block & ((1 << 62) - 1);
    let middle = block >> 64 & 0xfff;
    let high = block >> 80;
    high << 74 | middle << 62 | low
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn codec(seed: u8) -> IdCodec {
        IdCodec::new(3, &[seed; ID_SECRET_BYTES])
    }

    fn describe(codec: &IdCodec, start: u64) -> Described {
        let place = KeyPlace { generation: 3, start, bytes: 32, from_coordinator: true };
        Described { place, master: codec.tag("inria"), slave: codec.tag("observatory") }
    }

    proptest! {
        #[test]
        fn an_id_is_a_uuid_of_version_4_and_says_the_place_to_the_pair(
            generation: u32, start in 0u64..1 << 38, bytes in 0u32..1 << 13, from_coordinator: bool,
            secret: [u8; 32],
        ) {
            let codec = IdCodec::new(generation, &secret);
            let place = KeyPlace { generation, start, bytes, from_coordinator };
            let what = Described { place, master: codec.tag("a"), slave: codec.tag("b") };
            let id = codec.encode(what).unwrap();
            prop_assert_eq!(KeyId::v4(id.0), id);
            prop_assert_eq!(codec.decode(&id), Some(what));
        }

        #[test]
        fn a_made_up_id_is_not_taken_for_one(bytes: [u8; 16]) {
            prop_assert_eq!(codec(1).decode(&KeyId::v4(bytes)), None);
        }
    }

    #[test]
    fn neighbouring_places_have_ids_without_likeness() {
        let codec = codec(7);
        let ids: Vec<KeyId> = (0..2000).map(|i| codec.encode(describe(&codec, 32 * i)).unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 2000);
        let differing: u32 =
            ids.windows(2).map(|w| (u128::from_be_bytes(w[0].0) ^ u128::from_be_bytes(w[1].0)).count_ones()).sum();
        let mean = f64::from(differing) / 1999.0;
        // 122 free bits: half of them differ, to within 5 standard errors of sqrt(122)/2/sqrt(1999).
        assert!((mean - 61.0).abs() < 5.0 * 5.52 / 44.7, "{mean} bits differ");
    }

    #[test]
    fn the_id_of_a_generation_means_nothing_in_the_one_that_has_its_number_again() {
        let secrets = [[1; ID_SECRET_BYTES], [2; ID_SECRET_BYTES]];
        let of = |generation: u32, secret: usize| IdCodec::new(generation, &secrets[secret]);
        let encode = |codec: &IdCodec, start| {
            let what = describe(codec, start);
            codec.encode(Described { place: KeyPlace { generation: codec.generation(), ..what.place }, ..what })
        };
        for start in 0..200 {
            let id = encode(&of(5, 0), start).unwrap();
            for (generation, secret) in [(5 + 1024, 1), (6, 1), (6, 0)] {
                assert_eq!(of(generation, secret).decode(&id), None, "generation {generation}");
            }
            // The same place for the same two: the same ID, which shows.
            assert_eq!(encode(&of(5, 0), start), Some(id));
        }
    }

    #[test]
    fn another_pair_reads_nothing() {
        let (ours, theirs) = (codec(1), codec(2));
        assert_eq!(theirs.decode(&ours.encode(describe(&ours, 0)).unwrap()), None);
    }

    #[test]
    fn a_place_beyond_the_limits_has_no_id() {
        let codec = codec(1);
        assert!(codec.encode(describe(&codec, 1 << 38)).is_none());
        let mut long = describe(&codec, 0);
        long.place.bytes = 1 << 13;
        assert!(codec.encode(long).is_none());
    }
}
