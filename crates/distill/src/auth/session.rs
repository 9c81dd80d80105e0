//! An open session: the lockstep of both ends' bundles and the two running transcripts.

use std::collections::VecDeque;

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::Side;
use super::endpoint::Refusal;
use super::frame::{Frame, Kind, TagField};
use super::hello::{Greeting, PeerHello, first_tag};
use super::reserve::{Mark, Reserve, ReserveError};
use super::transcript::{Opening, Transcript};

pub struct Session {
    pub id: u64,
    pub greeting: Greeting,
    pub peer_nonce: u64,
    /// Both ends' reserves are known to agree.
    pub aligned: bool,
    pub own_next: u64,
    pub peer_next: u64,
    side: Side,
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

impl Session {
    pub fn new<R: Reserve>(side: Side, greeting: Greeting, peer: PeerHello, reserve: &R) -> Self {
        let (own, other) = ((greeting.nonce, &greeting.payload), (peer.nonce, &peer.payload));
        let hellos = match side {
            Side::Initiator => [own, other],
            Side::Responder => [other, own],
        };
        let id = mix(hellos[0].0, hellos[1].0);
        let send_tag = first_tag(greeting.next_send, peer.next_receive);
        let receive_tag = first_tag(peer.next_send, greeting.next_receive);
        let opening =
            Opening { session: id, nonces: hellos.map(|hello| hello.0), hellos: hellos.map(|hello| &hello.1[..]) };
        let transcript = |owner: Side, tag| {
            let key = reserve.hash_key(owner.direction(), tag).ok();
            Transcript::new(owner, key, tag, &opening)
        };
        Self {
            id,
            peer_nonce: peer.nonce,
            aligned: false,
            own_next: 0,
            peer_next: 0,
            side,
            outstanding: VecDeque::new(),
            sent: transcript(side, send_tag),
            received: transcript(side.other(), receive_tag),
            send_tag,
            receive_tag,
            peer_marks: peer.marks,
            greeting,
        }
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
        self.sent.push(self.side, step, close_round, payload.clone());
        self.received.push(self.side, step, close_round, payload.clone());
        let tag = if close_round { Some(self.make_tag(step, reserve)?) } else { None };
        let frame = Frame { kind: Kind::Bundle, session: self.id, step, payload, tag, repeated: false }.encode();
        self.outstanding.push_back((step, frame.clone()));
        Ok(frame)
    }

    fn make_tag<R: Reserve>(&mut self, step: u64, reserve: &mut R) -> Result<TagField, ReserveError> {
        let number = self.send_tag;
        self.send_tag += 1;
        let next_key = reserve.hash_key(self.side.direction(), self.send_tag).ok();
        let hash = self.sent.close(step, self.id, self.send_tag, next_key).ok_or(ReserveError::Exhausted)?;
        let pad = reserve.take_send(number)?;
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
        let (step, peer) = (frame.step, self.side.other());
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
        let next_key = reserve.hash_key(self.side.other().direction(), self.receive_tag).ok();
        let hash = self.received.close(step, self.id, self.receive_tag, next_key).ok_or(ReserveError::Exhausted)?;
        // Used up before the comparison: nobody gets a second guess at the same pad.
        let pad = reserve.take_receive(field.number)?;
        let good = bool::from(masked(hash, pad.expose()).ct_eq(&field.tag));
        Ok(if good { Verdict::Verified } else { Verdict::Mismatch })
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
        let hello = (self.peer_next == 0).then(|| self.greeting.frame());
        hello.into_iter().chain(self.outstanding.iter().map(|(_, frame)| frame.clone())).collect()
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
