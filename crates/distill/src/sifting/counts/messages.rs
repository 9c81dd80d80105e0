//! What the two ends say of their frames.

use prost::Message;

use super::{CHECK_BITS_MAX, FRAMES_WAITING_MAX, Labelled};
use crate::bits::Bits;
use crate::config::INTENSITIES;
use crate::parts;
use crate::sifting::SiftingError;
use crate::sifting::packed::unpack_bits;

/// One frame. Nothing in it is repeated, so that it takes no more memory than bytes on the wire.
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
    /// Reference: intensities of the check bits, one binary digit of all of them after the other, each from a byte on.
    #[prost(bytes = "vec", tag = "5")]
    pub check_kinds: Vec<u8>,
    /// Reference: bits of the key by intensity, the brightest first.
    #[prost(uint64, tag = "6")]
    pub key_first: u64,
    #[prost(uint64, tag = "7")]
    pub key_second: u64,
    #[prost(uint64, tag = "8")]
    pub key_third: u64,
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
        Self::decode(bytes).map_err(malformed)
    }

    /// Takes what is to be said, encoded.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).encode_to_vec()
    }
}

impl Disclosure {
    pub(super) fn new(frame: u64, key: &Labelled, check: &Labelled, key_counts: [u64; INTENSITIES]) -> Self {
        let [key_first, key_second, key_third] = key_counts;
        Self {
            frame,
            key_bits: key.bits.len() as u64,
            check_count: check.bits.len() as u64,
            check_bits: check.bits.to_bytes(),
            check_kinds: check.kinds.iter().flat_map(Bits::to_bytes).collect(),
            key_first,
            key_second,
            key_third,
        }
    }

    /// Bits of the key by intensity, as the peer says it.
    pub(super) fn key_counts(&self) -> [u64; INTENSITIES] {
        [self.key_first, self.key_second, self.key_third]
    }

    /// The check bits and what the peer says of them: an intensity of this many binary digits for each.
    pub(super) fn check(&self, planes: usize) -> Result<Labelled, SiftingError> {
        let malformed = SiftingError::Malformed("string of check bits");
        let len = usize::try_from(self.check_count).ok().filter(|len| *len <= CHECK_BITS_MAX);
        let Some(len) = len else { return Err(malformed) };
        let bytes = len.div_ceil(8);
        if self.check_kinds.len() != planes * bytes {
            return Err(SiftingError::Protocol("other intensities than the link has"));
        }
        let plane = |place: usize| unpack_bits(&self.check_kinds[place * bytes..][..bytes], len);
        let kinds: Option<Vec<Bits>> = (0..planes).map(plane).collect();
        match (unpack_bits(&self.check_bits, len), kinds) {
            (Some(bits), Some(kinds)) => Ok(Labelled { bits, kinds }),
            _ => Err(malformed),
        }
    }

    /// Bytes that it keeps while it waits.
    pub(super) fn bytes(&self) -> usize {
        self.check_bits.len() + self.check_kinds.len()
    }
}
