//! How two ends meet: each says hello with a nonce until the other's hello echoes it.
//!
//! A hello names the next tag that its end can send and the next that it can take. The two ends may count differently:
//! a crash can cost an end a tag of either direction, and a forged bundle costs the pad that it was compared with. A
//! session begins with the later one of both counts, see [`first_tag`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::endpoint::Refusal;
use super::frame::{Frame, FrameError, Kind, MAX_HELLO};
use super::reserve::{MARKS, MAX_GAP, MAX_LEAD, Mark, Reserve};

/// Next tag to send, next to take, generation, tags per hash key, number of marks.
const HEADER: usize = 4 * 8 + 1;
/// Largest hello of a module.
pub const MAX_MODULE_HELLO: usize = MAX_HELLO - HEADER - 16 * MARKS;

/// What this end says to open a session.
pub struct Greeting {
    pub nonce: u64,
    /// The peer's latest nonce, 0 before it was heard.
    pub echo: u64,
    pub payload: Bytes,
    pub next_send: u64,
    pub next_receive: u64,
}

/// What the peer says; hostile until the session's first tag covers it.
pub struct PeerHello {
    pub nonce: u64,
    pub echo: u64,
    pub payload: Bytes,
    pub next_send: u64,
    pub next_receive: u64,
    pub marks: Vec<Mark>,
    /// The module's part.
    pub module: Bytes,
    generation: u64,
    tags_per_hash_key: u64,
}

impl Greeting {
    pub fn new<R: Reserve>(nonce: u64, reserve: &R, module: &Bytes) -> Self {
        let marks = reserve.marks();
        let marks = &marks[marks.len().saturating_sub(MARKS)..];
        let mut payload = BytesMut::with_capacity(HEADER + 16 * MARKS + module.len());
        let (next_send, next_receive) = (reserve.next_send(), reserve.next_receive());
        payload.put_u64_le(next_send);
        payload.put_u64_le(next_receive);
        payload.put_u64_le(reserve.generation());
        payload.put_u64_le(reserve.layout().tags_per_hash_key());
        payload.put_u8(marks.len() as u8);
        for mark in marks {
            payload.put_u64_le(mark.bits);
            payload.put_u64_le(mark.next_block);
        }
        payload.put_slice(module);
        Self { nonce, echo: 0, payload: payload.freeze(), next_send, next_receive }
    }

    pub fn frame(&self) -> Bytes {
        self.frame_to(self.echo)
    }

    pub fn frame_to(&self, echo: u64) -> Bytes {
        Frame {
            kind: Kind::Hello,
            session: self.nonce,
            step: echo,
            payload: self.payload.clone(),
            tag: None,
            repeated: false,
        }
        .encode()
    }
}

impl PeerHello {
    pub fn decode(frame: &Frame) -> Result<Self, Refusal> {
        let mut rest = frame.payload.clone();
        let truncated = Refusal::Malformed(FrameError::Truncated(rest.len()));
        if rest.len() < HEADER {
            return Err(truncated);
        }
        let (next_send, next_receive) = (rest.get_u64_le(), rest.get_u64_le());
        let (generation, tags_per_hash_key) = (rest.get_u64_le(), rest.get_u64_le());
        let count = usize::from(rest.get_u8());
        if count > MARKS || rest.len() < 16 * count {
            return Err(truncated);
        }
        let marks = (0..count).map(|_| Mark { bits: rest.get_u64_le(), next_block: rest.get_u64_le() }).collect();
        Ok(Self {
            nonce: frame.session,
            echo: frame.step,
            payload: frame.payload.clone(),
            next_send,
            next_receive,
            marks,
            module: rest,
            generation,
            tags_per_hash_key,
        })
    }

    /// Whether the two reserves can make a session: the same one, and not far apart.
    pub fn check<R: Reserve>(&self, reserve: &R) -> Result<(), Refusal> {
        if self.tags_per_hash_key != reserve.layout().tags_per_hash_key() {
            return Err(Refusal::OtherLayout);
        }
        if self.generation != reserve.generation() {
            return Err(Refusal::OtherGeneration(self.generation));
        }
        match self.next_send.saturating_sub(reserve.next_receive()) {
            gap if gap > MAX_GAP => Err(Refusal::GapTooLarge(self.next_send)),
            _ => Ok(()),
        }
    }
}

/// The first tag of a session in one direction: the sender's next, or the receiver's if that is ahead.
///
/// Nothing has authenticated the receiver's count yet, so that the sender follows it a few tags at a time: a forged
/// hello costs no more of them, and a session that fails because of the limit brings the two nearer to each other.
pub fn first_tag(next_send: u64, next_receive: u64) -> u64 {
    next_send.max(next_receive.min(next_send.saturating_add(MAX_LEAD)))
}
