//! What travels: queries as delta-coded varints, answers as packed bits. The encoding is canonical: one query,
//! one string of bytes.
//!
//! A query is a row of sections, each `key step, count, steps...`. The key is `frame * PASS_SLOTS + pass` and rises
//! from section to section (the step of the first counts from -1). Count 0 opens the pass: the parities of all its
//! blocks. Otherwise `count` prefix lengths follow, rising (the step of the first counts from 0). All steps are >= 1.

use super::CascadeError;

/// Longest query or answer that is taken.
pub const MAX_MESSAGE_BYTES: usize = 1 << 24;

/// Passes that a key has room for.
pub(super) const PASS_SLOTS: usize = 32;

/// The parities that the corrector asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Query {
    bytes: Vec<u8>,
}

/// The parities asked for, in the order of the query: bit `i` in bit `i % 8` of byte `i / 8`.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    bytes: Vec<u8>,
}

macro_rules! message {
    ($name:ident) => {
        impl $name {
            /// Takes what came from the peer; only its size is checked here.
            pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, CascadeError> {
                if bytes.len() > MAX_MESSAGE_BYTES {
                    return Err(CascadeError::TooLong { bytes: bytes.len() });
                }
                Ok(Self { bytes })
            }

            pub fn as_bytes(&self) -> &[u8] {
                &self.bytes
            }

            pub fn into_bytes(self) -> Vec<u8> {
                self.bytes
            }
        }
    };
}
message!(Query);
message!(Answer);

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Query({} bytes)", self.bytes.len())
    }
}

/// Parities are public, but no log needs them.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({} bytes)", self.bytes.len())
    }
}

impl Answer {
    /// The answer to no questions.
    pub(super) fn empty() -> Self {
        Self { bytes: Vec::new() }
    }
}

#[derive(Default)]
pub(super) struct QueryWriter {
    bytes: Vec<u8>,
    next_key: usize,
    next_prefix: u32,
}

impl QueryWriter {
    /// Starts a section; `count` prefixes follow, or 0 to open the pass.
    pub fn section(&mut self, frame: usize, pass: usize, count: usize) {
        let key = frame * PASS_SLOTS + pass;
        self.varint((key + 1 - self.next_key) as u32);
        self.varint(count as u32);
        self.next_key = key + 1;
        self.next_prefix = 0;
    }

    pub fn prefix(&mut self, prefix: u32) {
        self.varint(prefix - self.next_prefix);
        self.next_prefix = prefix;
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(self) -> Query {
        Query { bytes: self.bytes }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

/// The head of a section: which pass of which frame, and how many prefixes follow (0: open the pass).
pub(super) struct Section {
    pub frame: usize,
    pub pass: usize,
    pub count: usize,
}

pub(super) struct QueryReader<'a> {
    bytes: &'a [u8],
    offset: usize,
    next_key: u64,
    next_prefix: u32,
}

impl<'a> QueryReader<'a> {
    pub fn new(query: &'a Query) -> Self {
        Self { bytes: &query.bytes, offset: 0, next_key: 0, next_prefix: 0 }
    }

    pub fn section(&mut self) -> Result<Option<Section>, CascadeError> {
        if self.offset == self.bytes.len() {
            return Ok(None);
        }
        let key = self.next_key + u64::from(self.step()?) - 1;
        let count = self.varint()? as usize;
        // Each prefix takes at least a byte: a count beyond that is a lie, and nothing is sized by it.
        if count > self.bytes.len() - self.offset {
            return Err(CascadeError::Malformed { offset: self.offset });
        }
        self.next_key = key + 1;
        self.next_prefix = 0;
        let slots = PASS_SLOTS as u64;
        Ok(Some(Section { frame: (key / slots) as usize, pass: (key % slots) as usize, count }))
    }

    pub fn prefix(&mut self) -> Result<u32, CascadeError> {
        let step = self.step()?;
        let offset = self.offset;
        self.next_prefix = self.next_prefix.checked_add(step).ok_or(CascadeError::Malformed { offset })?;
        Ok(self.next_prefix)
    }

    fn step(&mut self) -> Result<u32, CascadeError> {
        match self.varint()? {
            0 => Err(CascadeError::Malformed { offset: self.offset }),
            step => Ok(step),
        }
    }

    fn varint(&mut self) -> Result<u32, CascadeError> {
        let malformed = CascadeError::Malformed { offset: self.offset };
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = *self.bytes.get(self.offset).ok_or(malformed)?;
            self.offset += 1;
            let low = u32::from(byte & 0x7f);
            // Neither bits beyond the 32nd nor a needless last byte: one number, one encoding.
            if (shift == 28 && byte > 0x0f) || (shift > 0 && byte == 0) {
                return Err(malformed);
            }
            value |= low << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed)
    }
}

#[derive(Default)]
pub(super) struct AnswerWriter {
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl AnswerWriter {
    pub fn push(&mut self, bit: bool) {
        self.pending |= u64::from(bit) << self.pending_bits;
        self.pending_bits += 1;
        if self.pending_bits == 64 {
            self.bytes.extend_from_slice(&self.pending.to_le_bytes());
            (self.pending, self.pending_bits) = (0, 0);
        }
    }

    pub fn finish(mut self) -> Answer {
        let rest = self.pending_bits.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.pending.to_le_bytes()[..rest]);
        Answer { bytes: self.bytes }
    }
}

pub(super) struct AnswerReader<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl<'a> AnswerReader<'a> {
    /// An answer to `count` questions, no byte more or less and zero padded.
    pub fn new(answer: &'a Answer, count: usize) -> Result<Self, CascadeError> {
        let (got, expected) = (answer.bytes.len(), count.div_ceil(8));
        if got != expected {
            return Err(CascadeError::AnswerLength { got, expected });
        }
        let padded = !count.is_multiple_of(8) && answer.bytes[expected - 1] >> (count % 8) != 0;
        if padded {
            return Err(CascadeError::AnswerPadding);
        }
        Ok(Self { bytes: &answer.bytes, next: 0 })
    }

    /// Must not be called more often than there are bits.
    pub fn bit(&mut self) -> bool {
        let bit = self.bytes[self.next / 8] >> (self.next % 8) & 1 == 1;
        self.next += 1;
        bit
    }
}
