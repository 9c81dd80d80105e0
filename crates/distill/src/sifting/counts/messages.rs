//! What the two ends say of their frames.

use prost::Message;

use super::{FRAME_BITS_MAX, FRAMES_WAITING_MAX, Labelled};
use crate::bits::Bits;
use crate::config::INTENSITIES;
use crate::parts;
use crate::sifting::SiftingError;
use crate::sifting::packed::unpack_bits;

/// Binary digits of an intensity's place.
const PLANES_MAX: usize = 2;

/// One frame.
#[derive(Clone, PartialEq, Message)]
pub struct Disclosure {
    #[prost(uint64, tag = "1")]
    pub frame: u64,
    /// Bits of the key; the other end must have as many.
    #[prost(uint64, tag = "2")]
    pub key_bits: u64,
    #[prost(uint64, tag = "3")]
    pub check_count: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub check_bits: Vec<u8>,
    /// Reference: intensities of the check bits, digit by digit.
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub check_kinds: Vec<Vec<u8>>,
    /// Reference: bits of the key by intensity.
    #[prost(uint64, repeated, tag = "6")]
    pub key_counts: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Said {
    #[prost(message, repeated, tag = "1")]
    pub disclosures: Vec<Disclosure>,
    /// No more follow.
    #[prost(bool, tag = "2")]
    pub last: bool,
}

impl Said {
    pub fn read(bytes: &[u8]) -> Result<Self, SiftingError> {
        let malformed = |_| SiftingError::Malformed("sifting message");
        if !parts::are_at_most(FRAMES_WAITING_MAX, bytes).map_err(malformed)? {
            return Err(SiftingError::Protocol("more frames in one message than may wait"));
        }
        let said = Self::decode(bytes).map_err(malformed)?;
        let few = |of: &Disclosure| of.check_kinds.len() <= PLANES_MAX && of.key_counts.len() <= INTENSITIES;
        if !said.disclosures.iter().all(few) {
            return Err(SiftingError::Protocol("more intensities than there are"));
        }
        Ok(said)
    }

    /// Takes what is to be said, encoded.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).encode_to_vec()
    }
}

impl Disclosure {
    pub(super) fn new(frame: u64, key: &Labelled, check: &Labelled, key_counts: &[u64]) -> Self {
        Self {
            frame,
            key_bits: key.bits.len() as u64,
            check_count: check.bits.len() as u64,
            check_bits: check.bits.to_bytes(),
            check_kinds: check.kinds.iter().map(Bits::to_bytes).collect(),
            key_counts: key_counts.to_vec(),
        }
    }

    /// The check bits and what the peer says of them.
    pub(super) fn check(&self) -> Result<Labelled, SiftingError> {
        let malformed = SiftingError::Malformed("string of check bits");
        let len = usize::try_from(self.check_count).ok().filter(|len| *len <= FRAME_BITS_MAX);
        let Some(len) = len else { return Err(malformed) };
        let bits = unpack_bits(&self.check_bits, len);
        let kinds: Option<Vec<Bits>> = self.check_kinds.iter().map(|plane| unpack_bits(plane, len)).collect();
        match (bits, kinds) {
            (Some(bits), Some(kinds)) => Ok(Labelled { bits, kinds }),
            _ => Err(malformed),
        }
    }
}
