//! Sessions of a recorded link of pulses: which frames each of them took and, at the transmitter, the key of its
//! choices.
//!
//! A file of 24 bytes and then 64 for each session, numbers little-endian:
//!
//! | bytes | of the head | | bytes | of a session |
//! | --- | --- | --- | --- | --- |
//! | 0..7 | `qkdnet` and a zero byte | | 0..8 | number of the session, equal at both ends |
//! | 7 | `c` choices, `t` tags | | 8..16 | its first frame |
//! | 8..16 | length of a frame in ps | | 16..24 | how many; 0 where its end was not recorded |
//! | 16..24 | fingerprint of the transmitter, 0 at a receiver | | 24..56 | key of its choices, zeros at a receiver |
//! | | | | 56..64 | check: the first bytes of SHA-256 over the rest |

use std::io::Read;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::config::Transmitter;

/// Sessions that a file may have.
pub const SESSIONS_MAX: usize = 4096;
/// Bytes before the first session.
pub const HEAD_BYTES: usize = 24;
/// Bytes of a session.
pub const SESSION_BYTES: usize = 64;

const MAGIC: [u8; 7] = *b"qkdnet\0";
const CHECK_AT: usize = SESSION_BYTES - 8;

/// Whose sessions a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A transmitter's, with the keys of its choices: raw key.
    Choices,
    /// A receiver's, beside its tags.
    Tags,
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Self::Choices => b'c',
            Self::Tags => b't',
        }
    }
}

/// What holds for all sessions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub frame_ps: u64,
    /// [`fingerprint`] of the transmitter, 0 at a receiver.
    pub transmitter: u64,
}

/// One session. The key of its choices is raw key: nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    pub number: u64,
    pub first: u64,
    /// `None` where the end of the session was not recorded.
    pub frames: Option<u64>,
    /// Zeros at a receiver.
    pub key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:016x}, frame {} on, {:?})", self.number, self.first, self.frames)
    }
}

/// What is wrong with a file of sessions. Offsets count bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    #[error("byte {offset}: {source}")]
    Io { offset: usize, source: std::io::Error },
    #[error("byte {offset}: this is not a file of {expected}")]
    Foreign { offset: usize, expected: &'static str },
    #[error("byte 8: it has frames of {found} ps, the topology those of {expected} ps")]
    Frames { found: u64, expected: u64 },
    #[error("byte 16: it is of another transmitter than the topology's")]
    Transmitter,
    #[error("byte {offset}: the session that begins here is damaged")]
    Damaged { offset: usize },
    #[error("byte {offset}: the file ends {bytes} bytes into a session of {SESSION_BYTES}")]
    CutShort { offset: usize, bytes: usize },
    #[error("byte {offset}: more than {SESSIONS_MAX} sessions")]
    TooMany { offset: usize },
    #[error("byte {HEAD_BYTES}: there is no session in it")]
    Empty,
}

/// Tells transmitters apart whose choices under the same key differ.
pub fn fingerprint(transmitter: &Transmitter) -> u64 {
    let numbers = [transmitter.repetition_rate_hz, transmitter.z_probability].into_iter();
    let numbers = numbers.chain(transmitter.light.probabilities()).chain(transmitter.light.mean_photons());
    let mut hash = Sha256::new().chain_update(b"qkdnet transmitter v1\0");
    hash.update(transmitter.preamble_pulses.to_le_bytes());
    numbers.for_each(|number| hash.update(number.to_bits().to_le_bytes()));
    first_bytes(hash)
}

/// The bytes of a head.
pub fn head(head: &Head) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..7].copy_from_slice(&MAGIC);
    bytes[7] = head.kind.letter();
    bytes[8..16].copy_from_slice(&head.frame_ps.to_le_bytes());
    bytes[16..].copy_from_slice(&head.transmitter.to_le_bytes());
    bytes
}

/// The bytes of a session.
pub fn session(session: &Session) -> Zeroizing<[u8; SESSION_BYTES]> {
    let mut bytes = Zeroizing::new([0; SESSION_BYTES]);
    bytes[..8].copy_from_slice(&session.number.to_le_bytes());
    bytes[8..16].copy_from_slice(&session.first.to_le_bytes());
    bytes[16..24].copy_from_slice(&session.frames.unwrap_or(0).to_le_bytes());
    bytes[24..CHECK_AT].copy_from_slice(&session.key[..]);
    let check = check(&bytes[..CHECK_AT]);
    bytes[CHECK_AT..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The sessions of a file whose head must be this one.
///
/// # Errors
/// Where the file is another one, damaged, or has no session.
pub fn read(file: impl Read, expected: &Head) -> Result<Vec<Session>, SessionsError> {
    let longest = HEAD_BYTES + SESSIONS_MAX * SESSION_BYTES;
    // A buffer that grows leaves what it held behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(longest + 1));
    let read = file.take(longest as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| SessionsError::Io { offset: bytes.len(), source })?;
    check_head(&bytes, expected)?;
    if bytes.len() > longest {
        return Err(SessionsError::TooMany { offset: longest });
    }
    let (records, rest) = bytes[HEAD_BYTES..].as_chunks::<SESSION_BYTES>();
    let place = |index: usize| HEAD_BYTES + index * SESSION_BYTES;
    let mut sessions = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        sessions.push(parse(record).ok_or(SessionsError::Damaged { offset: place(index) })?);
    }
    if !rest.is_empty() {
        return Err(SessionsError::CutShort { offset: place(records.len()), bytes: rest.len() });
    }
    if sessions.is_empty() { Err(SessionsError::Empty) } else { Ok(sessions) }
}

fn check_head(bytes: &[u8], expected: &Head) -> Result<(), SessionsError> {
    let wanted = head(expected);
    let what = match expected.kind {
        Kind::Choices => "a transmitter's choices",
        Kind::Tags => "a receiver's sessions",
    };
    if let Some(offset) = (0..8).find(|at| bytes.get(*at) != wanted.get(*at)) {
        return Err(SessionsError::Foreign { offset, expected: what });
    }
    let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (Some(frame_ps), Some(transmitter)) = (number(8), number(16)) else {
        return Err(SessionsError::Foreign { offset: bytes.len(), expected: what });
    };
    if frame_ps != expected.frame_ps {
        return Err(SessionsError::Frames { found: frame_ps, expected: expected.frame_ps });
    }
    if transmitter != expected.transmitter { Err(SessionsError::Transmitter) } else { Ok(()) }
}

/// Nothing where the check is wrong, or no frame has such a number.
fn parse(record: &[u8; SESSION_BYTES]) -> Option<Session> {
    let number = |at: usize| record.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    if number(CHECK_AT)? != check(&record[..CHECK_AT]) {
        return None;
    }
    let (first, frames) = (number(8)?, number(16)?);
    first.checked_add(frames)?;
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&record[24..CHECK_AT]);
    Some(Session { number: number(0)?, first, frames: (frames > 0).then_some(frames), key })
}

fn check(content: &[u8]) -> u64 {
    first_bytes(Sha256::new().chain_update(content))
}

fn first_bytes(hash: Sha256) -> u64 {
    let mut digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    digest.as_mut_slice().zeroize();
    u64::from_le_bytes(first)
}
