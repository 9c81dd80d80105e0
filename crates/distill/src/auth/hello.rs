//! How two ends meet: each says hello with a nonce until the other's hello echoes it.
//!
//! A hello names the next tag that its end can send and the one behind the last that it verified. Where the two ends
//! count differently, one of them proves its counts before there is a session, see [`super::counts`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use subtle::ConstantTimeEq;

use super::counts::Counts;
use super::frame::{Frame, FrameError, Kind, MAX_HELLO, TagField};
use super::misfit::Doubt;
use super::outcome::Refusal;
use super::reserve::{MARKS, Mark, Reserve};
use super::{MaskKey, Side};

/// Next tag to send, next to take, generation, tags per hash key, flags, number of marks.
const HEADER: usize = 4 * 8 + 2;
/// Largest hello of a module.
pub const MAX_MODULE_HELLO: usize = MAX_HELLO - HEADER - 16 * MARKS;

/// The end has a key of masks, and its hellos a check under it.
const MASKED: u8 = 1;
/// The end knows that its own volume was put back.
const ROLLED_BACK: u8 = 2;

/// What this end says to open a session.
pub struct Greeting {
    pub nonce: u64,
    /// The peer's latest nonce, 0 before it was heard.
    pub echo: u64,
    pub payload: Bytes,
    pub counts: Counts,
    /// The peer's latest hello, and whether it knew of this greeting.
    pub heard: Option<(Heard, bool)>,
    /// The proof that was made, and for which hello of the peer.
    pub proof: Option<Proof>,
    /// Who has to prove its counts before there is a session.
    pub awaited: Option<Box<PeerHello>>,
    /// The counts are not the first that it named.
    pub is_refreshed: bool,
    /// What speaks against ever meeting the peer.
    pub doubt: Doubt,
    module: Bytes,
    side: Side,
    key: Option<MaskKey>,
}

/// Which hello of the peer: what makes it another one.
#[derive(Clone, PartialEq, Eq)]
pub struct Heard {
    nonce: u64,
    payload: Bytes,
}

/// A proof as it was sent; it is said again, never made again.
#[derive(Clone)]
pub struct Proof {
    pub peer: Heard,
    pub tag: u64,
    pub frame: Bytes,
}

/// What the peer says; hostile until the session's first tag covers it.
pub struct PeerHello {
    pub nonce: u64,
    pub echo: u64,
    pub payload: Bytes,
    pub counts: Counts,
    pub marks: Vec<Mark>,
    /// The peer says that its own volume was put back.
    pub rolled_back: bool,
    /// The module's part.
    pub module: Bytes,
    generation: u64,
    tags_per_hash_key: u64,
    flags: u8,
    check: Option<TagField>,
}

impl Greeting {
    pub fn new<R: Reserve>(side: Side, nonce: u64, reserve: &R, module: &Bytes) -> Self {
        let (payload, counts) = payload(reserve, module);
        let (module, key) = (module.clone(), reserve.mask_key().cloned());
        let (heard, proof, awaited) = (None, None, None);
        let (is_refreshed, doubt) = (false, Doubt::default());
        Self { nonce, echo: 0, payload, counts, heard, proof, awaited, is_refreshed, doubt, module, side, key }
    }

    /// Names the counts as they are now: a proof has spent the pad that the greeting named.
    pub fn refresh<R: Reserve>(&mut self, reserve: &R) {
        (self.payload, self.counts) = payload(reserve, &self.module);
        (self.heard, self.proof, self.awaited) = (None, None, None);
        self.is_refreshed = true;
    }

    pub fn frame(&self) -> Bytes {
        self.frame_to(self.echo)
    }

    pub fn frame_to(&self, echo: u64) -> Bytes {
        let check = |key: &MaskKey| key.hello(self.side.direction(), self.nonce, echo, &self.payload);
        Frame {
            kind: Kind::Hello,
            session: self.nonce,
            step: echo,
            payload: self.payload.clone(),
            tag: self.key.as_ref().map(|key| TagField { number: 0, tag: check(key) }),
            repeated: false,
        }
        .encode()
    }

    /// The greeting, and the proof that went with it.
    pub fn frames(&self) -> Vec<Bytes> {
        let proof = self.proof.as_ref().filter(|proof| proof.peer.nonce == self.echo);
        std::iter::once(self.frame()).chain(proof.map(|proof| proof.frame.clone())).collect()
    }
}

/// What a greeting says of a reserve and of a module, and the counts among it.
fn payload<R: Reserve>(reserve: &R, module: &Bytes) -> (Bytes, Counts) {
    let marks = reserve.marks();
    let marks = &marks[marks.len().saturating_sub(MARKS)..];
    let mut payload = BytesMut::with_capacity(HEADER + 16 * MARKS + module.len());
    let counts = Counts { send: reserve.next_send(), receive: reserve.next_receive() };
    payload.put_u64_le(counts.send);
    payload.put_u64_le(counts.receive);
    payload.put_u64_le(reserve.generation());
    payload.put_u64_le(reserve.layout().tags_per_hash_key());
    payload.put_u8(flags(reserve.mask_key().is_some(), reserve.is_rolled_back()));
    payload.put_u8(marks.len() as u8);
    for mark in marks {
        payload.put_u64_le(mark.bits);
        payload.put_u64_le(mark.next_block);
    }
    payload.put_slice(module);
    (payload.freeze(), counts)
}

fn flags(masked: bool, rolled_back: bool) -> u8 {
    [(masked, MASKED), (rolled_back, ROLLED_BACK)].into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
}

impl PeerHello {
    pub fn decode(frame: &Frame) -> Result<Self, Refusal> {
        let mut rest = frame.payload.clone();
        let truncated = Refusal::Malformed(FrameError::Truncated(rest.len()));
        if rest.len() < HEADER {
            return Err(truncated);
        }
        let (send, receive) = (rest.get_u64_le(), rest.get_u64_le());
        let (generation, tags_per_hash_key) = (rest.get_u64_le(), rest.get_u64_le());
        let flags = rest.get_u8();
        let count = usize::from(rest.get_u8());
        if flags & !(MASKED | ROLLED_BACK) != 0 {
            return Err(Refusal::Malformed(FrameError::Reserved));
        }
        if count > MARKS || rest.len() < 16 * count {
            return Err(truncated);
        }
        let marks = (0..count).map(|_| Mark { bits: rest.get_u64_le(), next_block: rest.get_u64_le() }).collect();
        Ok(Self {
            nonce: frame.session,
            echo: frame.step,
            payload: frame.payload.clone(),
            counts: Counts { send, receive },
            marks,
            rolled_back: flags & ROLLED_BACK != 0,
            module: rest,
            generation,
            tags_per_hash_key,
            flags,
            check: frame.tag,
        })
    }

    pub fn heard(&self) -> Heard {
        Heard { nonce: self.nonce, payload: self.payload.clone() }
    }

    /// Whether the two reserves can make a session: the same one, in the same form, and with the peer's check where it
    /// has a key for one.
    pub fn check<R: Reserve>(&self, side: Side, reserve: &R) -> Result<(), Refusal> {
        if self.tags_per_hash_key != reserve.layout().tags_per_hash_key() {
            return Err(Refusal::OtherLayout);
        }
        if self.generation != reserve.generation() {
            return Err(Refusal::OtherGeneration(self.generation));
        }
        let masked = self.flags & MASKED != 0;
        match (masked, reserve.mask_key(), self.check) {
            (false, None, None) => Ok(()),
            (true, Some(key), Some(check)) => {
                let expected = key.hello(side.other().direction(), self.nonce, self.echo, &self.payload);
                let good = check.number == 0 && bool::from(expected.ct_eq(&check.tag));
                if good { Ok(()) } else { Err(Refusal::Forged) }
            }
            (masked, key, _) if masked == key.is_some() => Err(Refusal::Forged),
            _ => Err(Refusal::OtherForm),
        }
    }
}
