//! One record of a block file as bytes.
//!
//! ```text
//! header   4 marker "QKDR" | 1 kind | 3 zero | 8 sequence | 8 block | 8 session | 8 key length in bits
//!          | 4 ledger bytes | 4 trace bytes | 16 check: SHA-256 of the 48 bytes before, cut
//! body     digest of the key, where there may be one | ledger (JSON) | trace ID
//! trailer  32 SHA-256 of header and body
//! ```
//! Key that waits has sealed key as its body, which is zeros once it waits no longer.
//! Integers are little-endian. The header has a check of its own so that a damaged length is never believed. Release
//! 0.1 wrote the key itself in place of its digest, least significant bit of byte 0 first.

use sha2::{Digest, Sha256};
use shell::log::{Body, Framing, Torn};

pub const MARKER: [u8; 4] = *b"QKDR";
pub const HEADER_BYTES: usize = 64;
pub const TRAILER_BYTES: usize = 32;
const CHECKED_BYTES: usize = 48;

/// Limits that keep a damaged or foreign file from asking for memory.
pub const KEY_BITS_MAX: u64 = 1 << 32;
pub const LEDGER_BYTES_MAX: usize = 1 << 20;
pub const TRACE_BYTES_MAX: usize = 256;

/// Length of the digest of a key.
pub const DIGEST_BYTES: usize = 32;

/// Number, session, bits and digest of a block that was given up: of such a record the key length counts these.
pub const PAST_ROW_BYTES: usize = 24 + DIGEST_BYTES;

/// What a file keeps of the key of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// All of it: files of release 0.1.
    Key,
    Digest,
}

/// What a record says about its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Key on disk, fate open.
    Prepared = 1,
    /// A prepared block is part of the key.
    Committed = 2,
    /// A prepared block is not, for good.
    Voided = 3,
    /// Key on disk and part of the key at once.
    Stored = 4,
    /// No key came of this block; only its ledger is kept.
    Aborted = 5,
    /// What is left of old blocks; first of a file.
    Past = 6,
    /// Key of a block that waits, sealed. Overwritten in its place once it waits no longer.
    Key = 7,
    /// As [`Kind::Key`], what of a block goes into the authentication reserve.
    Slice = 8,
    /// A number that is counted (as the session), and how far it has come (as the block).
    Count = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        let blocks = [Self::Prepared, Self::Committed, Self::Voided, Self::Stored, Self::Aborted, Self::Past];
        blocks.into_iter().chain([Self::Key, Self::Slice, Self::Count]).find(|kind| *kind as u8 == byte)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub sequence: u64,
    pub block: u64,
    pub session: u64,
    pub key_bits: u64,
    pub ledger_bytes: u32,
    pub trace_bytes: u32,
}

impl Header {
    /// Bytes at the beginning of the body that stand for the key.
    pub fn key_bytes(&self, format: Format) -> usize {
        match (format, self.kind) {
            (Format::Key, _) => self.key_bits.div_ceil(8) as usize,
            (Format::Digest, Kind::Prepared | Kind::Stored) => DIGEST_BYTES,
            (Format::Digest, Kind::Committed | Kind::Voided | Kind::Aborted | Kind::Count) => 0,
            // What the seal adds is counted as a ledger.
            (Format::Digest, Kind::Key | Kind::Slice) => self.key_bits.div_ceil(8) as usize,
            (Format::Digest, Kind::Past) => (self.key_bits as usize).saturating_mul(PAST_ROW_BYTES),
        }
    }

    /// Whether the body may have been overwritten.
    pub fn is_erasable(&self, format: Format) -> bool {
        format == Format::Digest && matches!(self.kind, Kind::Key | Kind::Slice)
    }

    pub fn body_bytes(&self, format: Format) -> usize {
        self.key_bytes(format) + self.ledger_bytes as usize + self.trace_bytes as usize
    }

    /// Length of the whole record.
    pub fn record_bytes(&self, format: Format) -> u64 {
        (HEADER_BYTES + self.body_bytes(format) + TRAILER_BYTES) as u64
    }

    /// The digest of the block's key, from the body of its record; zeros where there is none.
    pub fn key_digest(&self, format: Format, body: &[u8]) -> [u8; DIGEST_BYTES] {
        if self.is_erasable(format) {
            return [0; DIGEST_BYTES];
        }
        let key = &body[..self.key_bytes(format)];
        match (format, key.first_chunk()) {
            (Format::Digest, Some(digest)) => *digest,
            (Format::Digest, None) => [0; DIGEST_BYTES],
            (Format::Key, _) => super::digest::of_key(self.key_bits, key),
        }
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MARKER);
        bytes[4] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.block.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.session.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.key_bits.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.ledger_bytes.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.trace_bytes.to_le_bytes());
        let check = Sha256::digest(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&check[..HEADER_BYTES - CHECKED_BYTES]);
        bytes
    }

    /// `None` where the bytes are not a header that this module wrote.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let check = Sha256::digest(&bytes[..CHECKED_BYTES]);
        if bytes[..4] != MARKER || bytes[CHECKED_BYTES..] != check[..HEADER_BYTES - CHECKED_BYTES] {
            return None;
        }
        let header = Self {
            kind: Kind::from_byte(bytes[4])?,
            sequence: word(bytes, 8),
            block: word(bytes, 16),
            session: word(bytes, 24),
            key_bits: word(bytes, 32),
            ledger_bytes: word(bytes, 40) as u32,
            trace_bytes: (word(bytes, 40) >> 32) as u32,
        };
        let bounded = header.key_bits <= KEY_BITS_MAX
            && header.ledger_bytes as usize <= LEDGER_BYTES_MAX
            && header.trace_bytes as usize <= TRACE_BYTES_MAX;
        bounded.then_some(header)
    }
}

fn word(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut word = [0u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

impl Format {
    /// How records lie in such a file. A last one that is whole and damaged was never torn.
    pub fn framing(self) -> Framing {
        let body: fn(&[u8]) -> Option<Body> = match self {
            Self::Key => |head: &[u8]| body(head, Self::Key),
            Self::Digest => |head: &[u8]| body(head, Self::Digest),
        };
        Framing { head_bytes: HEADER_BYTES, check_bytes: TRAILER_BYTES, body, torn: Torn::Blank }
    }
}

fn body(head: &[u8], format: Format) -> Option<Body> {
    let header = Header::decode(head.first_chunk()?)?;
    Some(Body { bytes: header.body_bytes(format) as u64, erasable: header.is_erasable(format) })
}
