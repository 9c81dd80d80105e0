//! An open session: the lockstep of both ends' bundles and the two running transcripts.

use std::collections::VecDeque;

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::frame::{Frame, Kind, TagField};
use super::hello::{Greeting, Heard, PeerHello, Proof};
use super::outcome::Refusal;
use super::reserve::{Cell, Mark, Reserve, ReserveError};
use super::transcript::{Opening, Transcript};
use super::{Direction, Side};

pub struct Session {
    pub id: u64,
    pub greeting: Greeting,
    pub peer_nonce: u64,
    /// Both ends' reserves are known to agree.
    pub aligned: bool,
    pub own_next: u64,
    pub peer_next: u64,
    pairing: Pairing,
    peer_marks: Vec<Mark>,
    /// Own frames that the peer may not have.
    outstanding: VecDeque<(u64, Bytes)>,
    sent: Transcript,
    received: Transcript,
    send_tag: u64,
    receive_tag: u64,
}

/// What the tag of a bundle says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Untagged,
    Verified,
    Mismatch,
    WrongNumber,
}

/// A pair of greetings: what both ends know of it before there is a session.
pub struct Pairing {
    pub id: u64,
    side: Side,
    nonces: [u64; 2],
    hellos: [Bytes; 2],
}

impl Pairing {
    pub fn new(side: Side, greeting: &Greeting, peer: &PeerHello) -> Self {
        let (own, other) = ((greeting.nonce, &greeting.payload), (peer.nonce, &peer.payload));
        let ends = match side {
            Side::Initiator => [own, other],
            Side::Responder => [other, own],
        };
        let nonces = ends.map(|end| end.0);
        Self { id: mix(nonces[0], nonces[1]), side, nonces, hellos: ends.map(|end| end.1.clone()) }
    }

    fn opening(&self) -> Opening<'_> {
        Opening { session: self.id, nonces: self.nonces, hellos: [&self.hellos[0], &self.hellos[1]] }
    }

    /// The hash key of a tag, as this pair of greetings uses it.
    fn hash_key<R: Reserve>(&self, direction: Direction, tag: u64, reserve: &R) -> Result<Cell, ReserveError> {
        let cell = reserve.hash_key(direction, tag)?;
        self.masked(cell, direction, reserve.layout().hash_cell(tag), reserve)
    }

    /// A pad, as this pair of greetings uses it.
    fn pad<R: Reserve>(&self, pad: Cell, direction: Direction, tag: u64, reserve: &R) -> Result<Cell, ReserveError> {
        self.masked(pad, direction, reserve.layout().pad_cell(tag), reserve)
    }

    fn masked<R: Reserve>(
        &self,
        cell: Cell,
        direction: Direction,
        place: Option<u64>,
        reserve: &R,
    ) -> Result<Cell, ReserveError> {
        let place = place.ok_or(ReserveError::Exhausted)?;
        Ok(match reserve.mask_key() {
            Some(key) => key.masked(&cell, self.nonces, direction, place),
            None => cell,
        })
    }

    /// Spends the next pad on a proof of this end's greeting.
    pub fn prove<R: Reserve>(&self, peer: Heard, tag: u64, reserve: &mut R) -> Result<Proof, ReserveError> {
        let direction = self.side.direction();
        let key = self.hash_key(direction, tag, reserve)?;
        let pad = reserve.take_send(tag)?;
        let pad = self.pad(pad, direction, tag, reserve)?;
        let check = reserve.mask_key().map(|key| key.proof(direction, self.nonces, tag));
        let field = TagField { number: tag, tag: masked(self.opening().proof(self.side, &key, tag), pad.expose()) };
        let frame = Frame {
            kind: Kind::Proof,
            session: self.id,
            step: 0,
            payload: check.map_or_else(Bytes::new, |check| Bytes::copy_from_slice(&check)),
            tag: Some(field),
            repeated: false,
        };
        Ok(Proof { peer, tag, frame: frame.encode() })
    }

    /// Whether a proof has the check of an end with the same key of masks; where there is none, it has to have none.
    pub fn is_checked<R: Reserve>(&self, proof: &Frame, tag: u64, reserve: &R) -> bool {
        match reserve.mask_key() {
            Some(key) => {
                bool::from(key.proof(self.side.other().direction(), self.nonces, tag).ct_eq(&proof.payload[..]))
            }
            None => proof.payload.is_empty(),
        }
    }

    /// Whether the tag of a proof of the peer's greeting is good. Takes nothing.
    pub fn is_proof<R: Reserve>(&self, field: TagField, reserve: &R) -> Result<bool, ReserveError> {
        let peer = self.side.other();
        let key = self.hash_key(peer.direction(), field.number, reserve)?;
        let pad = self.pad(reserve.pad_to_verify(field.number)?, peer.direction(), field.number, reserve)?;
        let expected = masked(self.opening().proof(peer, &key, field.number), pad.expose());
        Ok(expected.ct_eq(&field.tag).into())
    }
}

impl Session {
    /// `send_tag` and `receive_tag` are the first ones of the session.
    pub fn new<R: Reserve>(
        pairing: Pairing,
        greeting: Greeting,
        peer: PeerHello,
        [send_tag, receive_tag]: [u64; 2],
        reserve: &R,
    ) -> Self {
        let side = pairing.side;
        let transcript = |owner: Side, tag| {
            let key = pairing.hash_key(owner.direction(), tag, reserve).ok();
            Transcript::new(owner, key, tag, &pairing.opening())
        };
        Self {
            id: pairing.id,
            peer_nonce: peer.nonce,
            aligned: false,
            own_next: 0,
            peer_next: 0,
            outstanding: VecDeque::new(),
            sent: transcript(side, send_tag),
            received: transcript(side.other(), receive_tag),
            send_tag,
            receive_tag,
            peer_marks: peer.marks,
            greeting,
            pairing,
        }
    }

    /// Whether the peer, of which nothing was heard in this session yet, greets otherwise than it was opened with.
    pub fn began_with_other(&self, hello: &PeerHello) -> bool {
        let [initiator, responder] = &self.pairing.hellos;
        let known = match self.pairing.side {
            Side::Initiator => responder,
            Side::Responder => initiator,
        };
        self.peer_next == 0 && hello.nonce == self.peer_nonce && hello.payload != *known
    }

    /// The frame of the module's next bundle.
    pub fn say<R: Reserve>(
        &mut self,
        step: u64,
        payload: Bytes,
        close_round: bool,
        reserve: &mut R,
    ) -> Result<Bytes, ReserveError> {
        self.own_next = step + 1;
        self.sent.push(self.pairing.side, step, close_round, payload.clone());
        self.received.push(self.pairing.side, step, close_round, payload.clone());
        let tag = if close_round { Some(self.make_tag(step, reserve)?) } else { None };
        let frame = Frame { kind: Kind::Bundle, session: self.id, step, payload, tag, repeated: false }.encode();
        self.outstanding.push_back((step, frame.clone()));
        Ok(frame)
    }

    fn make_tag<R: Reserve>(&mut self, step: u64, reserve: &mut R) -> Result<TagField, ReserveError> {
        let number = self.send_tag;
        self.send_tag += 1;
        let direction = self.pairing.side.direction();
        let next_key = self.pairing.hash_key(direction, self.send_tag, reserve).ok();
        let hash = self.sent.close(step, self.id, self.send_tag, next_key).ok_or(ReserveError::Exhausted)?;
        let pad = reserve.take_send(number)?;
        let pad = self.pairing.pad(pad, direction, number, reserve)?;
        Ok(TagField { number, tag: masked(hash, pad.expose()) })
    }

    /// Takes a bundle in its turn and verifies its tag.
    pub fn hear<R: Reserve>(
        &mut self,
        frame: Frame,
        reserve: &mut R,
    ) -> Result<Result<Verdict, ReserveError>, Refusal> {
        if frame.session != self.id {
            return Err(Refusal::WrongSession);
        }
        if frame.step < self.peer_next {
            return Err(Refusal::Duplicate);
        }
        // The peer cannot have this step's bundle ready without the own one of the step before.
        if frame.step > self.peer_next || frame.step > self.own_next {
            return Err(Refusal::OutOfOrder);
        }
        let (step, peer) = (frame.step, self.pairing.side.other());
        self.peer_next += 1;
        // To say this the peer needed the own bundle of the step before.
        self.outstanding.retain(|(own, _)| *own >= step);
        self.sent.push(peer, step, frame.tag.is_some(), frame.payload.clone());
        self.received.push(peer, step, frame.tag.is_some(), frame.payload);
        let Some(field) = frame.tag else { return Ok(Ok(Verdict::Untagged)) };
        Ok(self.verify(step, field, reserve))
    }

    fn verify<R: Reserve>(&mut self, step: u64, field: TagField, reserve: &mut R) -> Result<Verdict, ReserveError> {
        if field.number != self.receive_tag || field.number < reserve.next_receive() {
            return Ok(Verdict::WrongNumber);
        }
        self.receive_tag += 1;
        let direction = self.pairing.side.other().direction();
        let next_key = self.pairing.hash_key(direction, self.receive_tag, reserve).ok();
        let hash = self.received.close(step, self.id, self.receive_tag, next_key).ok_or(ReserveError::Exhausted)?;
        let pad = self.pairing.pad(reserve.pad_to_verify(field.number)?, direction, field.number, reserve)?;
        if !bool::from(masked(hash, pad.expose()).ct_eq(&field.tag)) {
            return Ok(Verdict::Mismatch);
        }
        reserve.verified(field.number)?;
        Ok(Verdict::Verified)
    }

    /// Makes both reserves end at the same refill, once what the peer said about its own is authentic.
    pub fn align<R: Reserve>(&mut self, reserve: &mut R) -> Result<(), ReserveError> {
        if !self.aligned {
            reserve.align(&self.peer_marks)?;
            self.aligned = true;
        }
        Ok(())
    }

    /// What the peer may have missed.
    pub fn unacknowledged(&self) -> Vec<Bytes> {
        let greeting = if self.peer_next == 0 { self.greeting.frames() } else { Vec::new() };
        greeting.into_iter().chain(self.outstanding.iter().map(|(_, frame)| frame.clone())).collect()
    }

    pub fn challenge_frame(&self, nonce: u64) -> Bytes {
        let session = self.greeting.nonce;
        Frame { kind: Kind::Challenge, session, step: nonce, payload: Bytes::new(), tag: None, repeated: false }
            .encode()
    }
}

/// The end of a session, said to the peer.
pub fn close_frame(session: u64, code: u64) -> Bytes {
    Frame { kind: Kind::Close, session, step: code, payload: Bytes::new(), tag: None, repeated: false }.encode()
}

fn masked(hash: [u8; 16], pad: &[u8; 16]) -> [u8; 16] {
    (u128::from_le_bytes(hash) ^ u128::from_le_bytes(*pad)).to_le_bytes()
}

/// A session's number out of both nonces, the initiator's first. It tells sessions apart and keeps no secret.
fn mix(first: u64, second: u64) -> u64 {
    let mut x = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second.rotate_left(32);
    x = (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ x >> 32).max(1)
}
