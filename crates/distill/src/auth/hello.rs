//! How two ends meet: each says hello with a nonce until the other's hello echoes it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::endpoint::Refusal;
use super::frame::{Frame, FrameError, Kind, MAX_HELLO};
use super::reserve::{MARKS, MAX_GAP, Mark, Reserve};

/// Next tag, generation, tags per hash key, number of marks.
const HEADER: usize = 8 + 8 + 8 + 1;
/// Largest hello of a module.
pub const MAX_MODULE_HELLO: usize = MAX_HELLO - HEADER - 16 * MARKS;

/// What this end says to open a session.
pub struct Greeting {
    pub nonce: u64,
    /// The peer's latest nonce, 0 before it was heard.
    pub echo: u64,
    pub payload: Bytes,
    pub next_tag: u64,
}

/// What the peer says; hostile until the session's first tag covers it.
pub struct PeerHello {
    pub nonce: u64,
    pub echo: u64,
    pub payload: Bytes,
    pub next_tag: u64,
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
        payload.put_u64_le(reserve.next_send());
        payload.put_u64_le(reserve.generation());
        payload.put_u64_le(reserve.layout().tags_per_hash_key());
        payload.put_u8(marks.len() as u8);
        for mark in marks {
            payload.put_u64_le(mark.bits);
            payload.put_u64_le(mark.next_block);
        }
        payload.put_slice(module);
        Self { nonce, echo: 0, payload: payload.freeze(), next_tag: reserve.next_send() }
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
        let (next_tag, generation, tags_per_hash_key) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        let count = usize::from(rest.get_u8());
        if count > MARKS || rest.len() < 16 * count {
            return Err(truncated);
        }
        let marks = (0..count).map(|_| Mark { bits: rest.get_u64_le(), next_block: rest.get_u64_le() }).collect();
        Ok(Self {
            nonce: frame.session,
            echo: frame.step,
            payload: frame.payload.clone(),
            next_tag,
            marks,
            module: rest,
            generation,
            tags_per_hash_key,
        })
    }

    /// Whether a session with these tags can be: none of them seen before.
    pub fn check<R: Reserve>(&self, reserve: &R) -> Result<(), Refusal> {
        if self.tags_per_hash_key != reserve.layout().tags_per_hash_key() {
            return Err(Refusal::OtherLayout);
        }
        if self.generation != reserve.generation() {
            return Err(Refusal::OtherGeneration(self.generation));
        }
        match self.next_tag.checked_sub(reserve.next_receive()) {
            None => Err(Refusal::StaleTags(self.next_tag)),
            Some(gap) if gap > MAX_GAP => Err(Refusal::GapTooLarge(self.next_tag)),
            Some(_) => Ok(()),
        }
    }
}
