//! Key IDs that say where their key is, to the two key stores of a pair and to nobody else.
//!
//! An ID has to be a UUID that looks random and has nothing to do with the key, and the slave's key store must find
//! the key by it without having heard of the request. So the place of the key in the pool, and short tags of the two
//! applications' names, are enciphered under a secret of the pair: a permutation of the 2^122 UUIDs of version 4
//! ([`Form`]). A place is used once, so no ID comes twice. Should a store that was put back hand a place out once more,
//! the same two applications get the same ID for it, which shows (unless the form has changed since the copy was made).
//!
//! The secret is drawn for each generation of the pool. An ID says its generation modulo 1024, so that the number comes
//! again after 1024 generations; the secret is another one then, and an ID of the first means nothing in the second
//! (chance 2^-19 that it passes for one at all, 2^-59 with the names). IDs of a generation that has ended point nowhere.
//!
//! A made-up ID has to hit the 20 zero bits and the tags of both names in one of the two forms: chance 2^-59 per
//! attempt.
//!
//! An ID does not say its form: it is read in the new one, and, where that makes no sense, in the old one. The chance
//! that an ID of the old form passes for one of the new is 2^-30 (the zero bits and the generation); it is refused then,
//! for it names other applications, but for a chance of 2^-40.

mod ff1;
mod walk;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use self::ff1::Ff1;
use self::walk::Walk;
use etsi014::supply::KeyId;

/// Bytes of a generation's secret: the ciphers' key, then that of the names' tags.
pub const ID_SECRET_BYTES: usize = 32;

const TAG_BITS: u32 = 20;
const START_BITS: u32 = 38;
const BYTES_BITS: u32 = 13;
const GENERATION_BITS: u32 = 10;
/// Zero in every ID.
const CHECK_BITS: u32 = 122 - 2 * TAG_BITS - START_BITS - BYTES_BITS - GENERATION_BITS - 1;
const VERSION: u128 = 4;
const VARIANT: u128 = 2;

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

/// How IDs are enciphered, from the oldest to the newest: some 64 calls of AES against ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// AES-128 by cycle walking. Every release reads it.
    CycleWalking,
    /// FF1 with AES-128, the generation being its tweak, under a key of its own.
    Ff1,
}

impl Form {
    pub const NEWEST: Self = Self::Ff1;

    /// In greetings, by which a store says what it reads.
    pub fn number(self) -> u32 {
        match self {
            Self::CycleWalking => 0,
            Self::Ff1 => 1,
        }
    }

    /// The newest that a store reads which says so of itself, and this one knows.
    pub fn read_by(number: u32) -> Self {
        if number >= Self::Ff1.number() { Self::Ff1 } else { Self::CycleWalking }
    }
}

/// Makes and reads the IDs of one pair of sites in one generation of their pool.
pub struct IdCodec {
    generation: u32,
    ff1: Ff1,
    walk: Walk,
    names: NameKey,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct NameKey([u8; 16]);

impl IdCodec {
    pub fn new(generation: u32, secret: &[u8; ID_SECRET_BYTES]) -> Self {
        let (mut cipher, mut names) = (Zeroizing::new([0; 16]), [0; 16]);
        cipher.copy_from_slice(&secret[..16]);
        names.copy_from_slice(&secret[16..]);
        let codec = Self {
            generation,
            ff1: Ff1::new(&ff1_key(&cipher), generation),
            walk: Walk::new(&cipher),
            names: NameKey(names),
        };
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
    pub fn encode(&self, what: Described, form: Form) -> Option<KeyId> {
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
        let enciphered = match form {
            Form::CycleWalking => self.walk.encrypt(packed),
            Form::Ff1 => self.ff1.encrypt(packed),
        };
        Some(KeyId(spread(enciphered).to_be_bytes()))
    }

    /// What IDs of this generation say, in whatever form; nothing for any other.
    pub fn decode(&self, id: &KeyId) -> Option<Described> {
        let id = u128::from_be_bytes(id.0);
        if !is_v4(id) {
            return None;
        }
        let enciphered = gather(id);
        self.unpack(self.ff1.decrypt(enciphered)).or_else(|| self.unpack(self.walk.decrypt(enciphered)))
    }

    fn unpack(&self, packed: u128) -> Option<Described> {
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

/// The two forms share no key: a cipher that walks shows what AES makes of blocks of any kind.
fn ff1_key(cipher: &[u8; 16]) -> Zeroizing<[u8; 16]> {
    let mut digest = Sha256::new().chain_update(b"qkdnet key ID, FF1\0").chain_update(cipher).finalize();
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&digest[..16]);
    digest.as_mut_slice().zeroize();
    key
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

    const FORMS: [Form; 2] = [Form::CycleWalking, Form::Ff1];

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
            let ids = FORMS.map(|form| codec.encode(what, form).unwrap());
            for id in ids {
                prop_assert_eq!(KeyId::v4(id.0), id);
                prop_assert_eq!(codec.decode(&id), Some(what));
            }
            prop_assert_ne!(ids[0], ids[1]);
        }

        #[test]
        fn a_made_up_id_is_not_taken_for_one(bytes: [u8; 16]) {
            prop_assert_eq!(codec(1).decode(&KeyId::v4(bytes)), None);
        }
    }

    #[test]
    fn neighbouring_places_have_ids_without_likeness() {
        let codec = codec(7);
        for form in FORMS {
            let ids: Vec<KeyId> = (0..2000).map(|i| codec.encode(describe(&codec, 32 * i), form).unwrap()).collect();
            assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 2000);
            let differing: u32 =
                ids.windows(2).map(|w| (u128::from_be_bytes(w[0].0) ^ u128::from_be_bytes(w[1].0)).count_ones()).sum();
            let mean = f64::from(differing) / 1999.0;
            // 122 free bits: half of them differ, to within 5 standard errors of sqrt(122)/2/sqrt(1999).
            assert!((mean - 61.0).abs() < 5.0 * 5.52 / 44.7, "{form:?}: {mean} bits differ");
        }
    }

    /// Those of release 0.1, which knew one form.
    #[test]
    fn ids_that_an_earlier_release_gave_out_say_what_they_said() {
        let secret = core::array::from_fn(|i| i as u8);
        let codec = IdCodec::new(3, &secret);
        for (start, id) in [
            (0, "3733dab3-79f5-4ccf-a710-b26400999e4c"),
            (32, "c4a0bca5-7aeb-403f-ac5f-128fa16d7258"),
            (1 << 37, "9369dba8-e9b4-4e17-a454-83d8d278eaa1"),
        ] {
            let what = describe(&codec, start);
            assert_eq!(codec.encode(what, Form::CycleWalking).unwrap().to_string(), id);
            assert_eq!(codec.decode(&id.parse().unwrap()), Some(what));
        }
    }

    #[test]
    fn a_store_is_taken_to_read_what_it_says_and_this_one_knows() {
        let read = [0, 1, 2, u32::MAX].map(Form::read_by);
        assert_eq!(read, [Form::CycleWalking, Form::Ff1, Form::Ff1, Form::Ff1]);
        for form in FORMS {
            assert_eq!(Form::read_by(form.number()), form);
        }
        assert_eq!(FORMS.iter().max(), Some(&Form::NEWEST));
    }

    #[test]
    fn the_id_of_a_generation_means_nothing_in_the_one_that_has_its_number_again() {
        let secrets = [[1; ID_SECRET_BYTES], [2; ID_SECRET_BYTES]];
        let of = |generation: u32, secret: usize| IdCodec::new(generation, &secrets[secret]);
        let encode = |codec: &IdCodec, start, form| {
            let what = describe(codec, start);
            codec.encode(Described { place: KeyPlace { generation: codec.generation(), ..what.place }, ..what }, form)
        };
        for (start, form) in (0..200).flat_map(|start| FORMS.map(|form| (start, form))) {
            let id = encode(&of(5, 0), start, form).unwrap();
            for (generation, secret) in [(5 + 1024, 1), (6, 1), (6, 0)] {
                assert_eq!(of(generation, secret).decode(&id), None, "generation {generation}");
            }
            // The same place for the same two: the same ID, which shows.
            assert_eq!(encode(&of(5, 0), start, form), Some(id));
        }
    }

    #[test]
    fn another_pair_reads_nothing() {
        let (ours, theirs) = (codec(1), codec(2));
        for form in FORMS {
            assert_eq!(theirs.decode(&ours.encode(describe(&ours, 0), form).unwrap()), None);
        }
    }

    #[test]
    fn a_place_beyond_the_limits_has_no_id() {
        let codec = codec(1);
        let mut long = describe(&codec, 0);
        long.place.bytes = 1 << 13;
        for form in FORMS {
            assert!(codec.encode(describe(&codec, 1 << 38), form).is_none());
            assert!(codec.encode(long, form).is_none());
        }
    }
}
