//! The state machine of one end: opens sessions, keeps the lockstep, makes and verifies tags.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::counts::{OLD_FORM_LEAD, Standing};
use super::frame::{Frame, Kind, MAX_PAYLOAD, repeated};
use super::hello::{Greeting, MAX_MODULE_HELLO, PeerHello};
use super::reserve::{Reserve, ReserveError, last_shared};
use super::session::{Pairing, Session, Verdict, close_frame};
use super::{FrameError, Side};
use crate::bits::Bits;

/// Which of the two ends, seen from one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    Own,
    Peer,
}

/// Why a session ended, or does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    #[error("the peer's module left")]
    PeerLeft,
    #[error("a tag did not verify")]
    TagMismatch,
    #[error("the authentication reserve is exhausted")]
    ReserveExhausted,
    #[error("the peer opened a new session")]
    PeerRestarted,
    #[error("the authentication reserve cannot be used")]
    ReserveFailed,
    #[error("the authentication reserve was replaced")]
    Rekeyed,
    #[error("the authentication reserve of {} end is older than what was done with it", match .0 {
        Whose::Own => "this",
        Whose::Peer => "the peer's",
    })]
    RolledBack(Whose),
    #[error("the peer speaks another version of the protocol")]
    PeerVersion,
}

/// Why a frame was not accepted. The session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Malformed(#[from] FrameError),
    #[error("frame of another session")]
    WrongSession,
    #[error("frame of session {0:x}, which this end knows nothing of")]
    UnknownSession(u64),
    #[error("frame was received before")]
    Duplicate,
    #[error("frame is ahead of its turn")]
    OutOfOrder,
    #[error("hello is of generation {0} of the authentication reserve, this end is not")]
    OtherGeneration(u64),
    #[error("hello has other tags per hash key than this end")]
    OtherLayout,
    #[error("one of the two authentication reserves has a key for masks, the other, of an older release, has none")]
    OtherForm,
    #[error("not made under the key of this end's authentication reserve")]
    Forged,
    #[error("proof of other greetings, or one that was not asked for")]
    UnaskedProof,
    #[error("hello with nonce {0:x} does not know of the session it would end")]
    UnprovenRestart(u64),
}

/// What the caller must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A frame for the peer endpoint.
    Send(Bytes),
    /// For the own module.
    Opened {
        session: u64,
        peer_hello: Bytes,
    },
    Delivered {
        step: u64,
        payload: Bytes,
        authenticated: bool,
    },
    Closed(CloseReason),
    /// The refill with this block is durable.
    Refilled {
        block: u64,
    },
    /// For the log.
    Refused(Refusal),
    Failed(String),
}

/// A module that does not keep to the lockstep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("no session is open")]
    NotOpen,
    #[error("bundle of step {step}, expected {expected}")]
    Step { step: u64, expected: u64 },
    #[error("bundle of step {0} comes before the peer's previous one")]
    AheadOfPeer(u64),
    #[error("{0} bytes are too much for one message")]
    TooLong(usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub frames_accepted: u64,
    pub malformed: u64,
    pub wrong_session: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub hellos_refused: u64,
    pub tags_sent: u64,
    /// Tags that showed the peer how this end counts.
    pub proofs_sent: u64,
    pub tags_verified: u64,
    pub tags_mismatched: u64,
    /// In-order frames with a tag that was not the next one; ends the session.
    pub tag_numbers_wrong: u64,
}

impl Counters {
    pub fn refused(&self) -> u64 {
        self.malformed + self.wrong_session + self.duplicates + self.out_of_order + self.hellos_refused
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    pub side: Side,
}

/// One end of the channel and the reserve it makes tags from.
pub struct Endpoint<R> {
    side: Side,
    reserve: R,
    state: State,
    counters: Counters,
}

enum State {
    Idle,
    Greeting(Box<Greeting>),
    Open(Box<Session>),
    /// The own volume was put back: the peer is told, and nothing else is done.
    RolledBack(Box<Greeting>),
}

impl<R: Reserve> Endpoint<R> {
    pub fn new(config: EndpointConfig, reserve: R) -> Self {
        Self { side: config.side, reserve, state: State::Idle, counters: Counters::default() }
    }

    pub fn reserve(&self) -> &R {
        &self.reserve
    }

    /// For what keeps the reserve, such as an anchor: nothing of this may change what a session is made of.
    pub fn keeper(&mut self) -> &mut R {
        &mut self.reserve
    }

    /// For re-keying while no session is open.
    pub fn reserve_mut(&mut self) -> Option<&mut R> {
        if self.session().is_none() { Some(&mut self.reserve) } else { None }
    }

    /// To be called once the reserve was replaced. A greeting that was made from the old one leads nowhere: the peer
    /// refuses its generation, so the module has to open anew.
    pub fn rekeyed(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Greeting(_) => vec![Action::Closed(CloseReason::Rekeyed)],
            State::Idle | State::Open(_) | State::RolledBack(_) => Vec::new(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The open session.
    pub fn session(&self) -> Option<u64> {
        match &self.state {
            State::Open(session) => Some(session.id),
            _ => None,
        }
    }

    /// Tags that both directions can still make.
    pub fn remaining(&self) -> u64 {
        self.reserve.remaining_send().min(self.reserve.remaining_receive())
    }

    /// True while the peer is expected to say something, so that silence means loss.
    pub fn waits(&self) -> bool {
        match &self.state {
            State::Idle | State::RolledBack(_) => false,
            State::Greeting(_) => true,
            State::Open(session) => session.own_next > session.peer_next,
        }
    }

    /// The module is ready for a session; gives up the one that was open. `nonce` must never repeat.
    pub fn open(&mut self, nonce: u64, hello: &Bytes) -> Result<Vec<Action>, SendError> {
        if hello.len() > MAX_MODULE_HELLO {
            return Err(SendError::TooLong(hello.len()));
        }
        let mut actions = self.end(CloseReason::PeerRestarted);
        if self.reserve.is_rolled_back() {
            let greeting = Greeting::new(self.side, nonce, &self.reserve, &Bytes::new());
            actions.extend(self.say_rolled_back(greeting));
            return Ok(actions);
        }
        if self.remaining() == 0 {
            actions.push(Action::Closed(CloseReason::ReserveExhausted));
            return Ok(actions);
        }
        let greeting = Box::new(Greeting::new(self.side, nonce, &self.reserve, hello));
        actions.push(Action::Send(greeting.frame()));
        self.state = State::Greeting(greeting);
        Ok(actions)
    }

    /// The module is gone.
    pub fn leave(&mut self) -> Vec<Action> {
        self.end(CloseReason::PeerLeft)
    }

    /// Ends what is open here and tells the peer's end.
    fn end(&mut self, reason: CloseReason) -> Vec<Action> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Open(session) => vec![Action::Send(close_frame(session.id, reason.code()))],
            State::Idle | State::Greeting(_) => Vec::new(),
            told @ State::RolledBack(_) => {
                self.state = told;
                Vec::new()
            }
        }
    }

    fn close(&mut self, reason: CloseReason) -> Vec<Action> {
        let mut actions = self.end(reason);
        actions.push(Action::Closed(reason));
        actions
    }

    fn fail(&mut self, error: &ReserveError) -> Vec<Action> {
        let reason = match error {
            ReserveError::Exhausted => CloseReason::ReserveExhausted,
            ReserveError::Missed { own: false } => CloseReason::RolledBack(Whose::Peer),
            ReserveError::Missed { own: true } => CloseReason::RolledBack(Whose::Own),
            _ => CloseReason::ReserveFailed,
        };
        let mut actions = vec![Action::Failed(error.to_string())];
        if reason == CloseReason::RolledBack(Whose::Own)
            && let Err(error) = self.reserve.roll_back(&error.to_string())
        {
            actions.push(Action::Failed(error.to_string()));
        }
        actions.extend(self.close(reason));
        actions
    }

    /// Sends the module's bundle of `step`, with a tag where it closes a round.
    pub fn send(&mut self, step: u64, payload: Bytes, close_round: bool) -> Result<Vec<Action>, SendError> {
        let State::Open(session) = &mut self.state else { return Err(SendError::NotOpen) };
        if payload.len() > MAX_PAYLOAD {
            return Err(SendError::TooLong(payload.len()));
        }
        if step != session.own_next {
            return Err(SendError::Step { step, expected: session.own_next });
        }
        if step > session.peer_next {
            return Err(SendError::AheadOfPeer(step));
        }
        match session.say(step, payload, close_round, &mut self.reserve) {
            Ok(frame) => {
                self.counters.tags_sent += u64::from(close_round);
                Ok(vec![Action::Send(frame)])
            }
            Err(error) => Ok(self.fail(&error)),
        }
    }

    /// Takes a frame from the peer endpoint, or from whoever poses as it.
    pub fn receive(&mut self, bytes: &Bytes) -> Vec<Action> {
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                let mut actions = self.refuse(Refusal::Malformed(error), false);
                // Whoever is met in another version has no pad spent on it.
                if matches!(self.state, State::Greeting(_)) && Frame::is_hello_of_another_version(bytes) {
                    actions.extend(self.close(CloseReason::PeerVersion));
                }
                return actions;
            }
        };
        let repeated = frame.repeated;
        let result = match frame.kind {
            Kind::Hello => self.receive_hello(&frame),
            Kind::Challenge => self.receive_challenge(&frame),
            Kind::Bundle => self.receive_bundle(frame),
            Kind::Close => self.receive_close(&frame),
            Kind::Proof => self.receive_proof(&frame),
        };
        match result {
            Ok(actions) => {
                self.counters.frames_accepted += 1;
                actions
            }
            Err(refusal) => self.refuse(refusal, repeated),
        }
    }

    fn refuse(&mut self, refusal: Refusal, repeated: bool) -> Vec<Action> {
        let counter = match refusal {
            Refusal::Malformed(_) => &mut self.counters.malformed,
            Refusal::WrongSession | Refusal::UnknownSession(_) => &mut self.counters.wrong_session,
            Refusal::Duplicate => &mut self.counters.duplicates,
            Refusal::OutOfOrder => &mut self.counters.out_of_order,
            _ => &mut self.counters.hellos_refused,
        };
        *counter += 1;
        let mut actions = vec![Action::Refused(refusal)];
        match (refusal, &self.state) {
            // The peer may really have restarted; then it answers this. A replayed hello does not.
            (Refusal::UnprovenRestart(nonce), State::Open(session)) => {
                actions.push(Action::Send(session.challenge_frame(nonce)));
            }
            // A crash took the session from this end alone, and no greeting may ever tell the peer.
            (Refusal::UnknownSession(session), State::Idle) => {
                let reason = if self.remaining() == 0 { CloseReason::ReserveExhausted } else { CloseReason::PeerLeft };
                actions.push(Action::Send(close_frame(session, reason.code())));
            }
            // The peer waits although this end has said all it had to: something was lost.
            (Refusal::Duplicate, State::Open(session)) if repeated => {
                actions.extend(session.unacknowledged().into_iter().map(Action::Send));
            }
            _ => {}
        }
        actions
    }

    fn receive_hello(&mut self, frame: &Frame) -> Result<Vec<Action>, Refusal> {
        let hello = PeerHello::decode(frame)?;
        match &mut self.state {
            State::Idle => Ok(Vec::new()),
            State::Open(session) => {
                let knows_us = hello.echo == session.greeting.nonce;
                // The session began with what somebody else made of this greeting, and the peer waits for another one.
                if knows_us && session.began_with_other(&hello) && hello.check(self.side, &self.reserve).is_ok() {
                    return Ok(self.close(CloseReason::PeerRestarted));
                }
                match (hello.nonce == session.peer_nonce, knows_us) {
                    (true, true) if !frame.repeated => Ok(Vec::new()),
                    (true, _) => Ok(vec![Action::Send(session.greeting.frame())]),
                    (false, false) => Err(Refusal::UnprovenRestart(hello.nonce)),
                    (false, true) => {
                        self.state = State::Idle;
                        Ok(vec![Action::Closed(CloseReason::PeerRestarted)])
                    }
                }
            }
            State::RolledBack(greeting) => {
                hello.check(self.side, &self.reserve)?;
                // Two ends that both know would not stop to tell each other.
                if hello.rolled_back {
                    return Ok(Vec::new());
                }
                Ok(vec![Action::Send(greeting.frame_to(hello.nonce))])
            }
            State::Greeting(greeting) => {
                hello.check(self.side, &self.reserve)?;
                // It would name a pad that the proof to another greeting has spent; the peer answers what it says now.
                let stale = greeting.proof.as_ref().is_some_and(|proof| proof.peer != hello.heard());
                // Once: two ends that answer each other's fresh greeting with a fresh one of their own would never stop.
                if stale && greeting.is_refreshed {
                    return Ok(self.close(CloseReason::PeerRestarted));
                }
                if stale {
                    greeting.refresh(&self.reserve);
                }
                let knows_us = hello.echo == greeting.nonce && !stale;
                let heard = (hello.heard(), knows_us);
                let again = greeting.heard.as_ref() == Some(&heard);
                greeting.heard = Some(heard);
                greeting.echo = hello.nonce;
                if again {
                    let frames = if frame.repeated { greeting.frames() } else { Vec::new() };
                    return Ok(frames.into_iter().map(Action::Send).collect());
                }
                let mut actions = vec![Action::Send(greeting.frame())];
                if knows_us {
                    actions.extend(self.meet(hello));
                }
                Ok(actions)
            }
        }
    }

    /// Both ends know of each other's greeting: opens the session, or proves what the peer cannot know, or waits for the
    /// peer's proof.
    fn meet(&mut self, hello: PeerHello) -> Vec<Action> {
        let State::Greeting(greeting) = &mut self.state else { return Vec::new() };
        let masked = self.reserve.mask_key().is_some();
        // Fresh, as it echoes this end's nonce, and checked under the key of the masks.
        if hello.rolled_back && masked {
            return self.close(CloseReason::RolledBack(Whose::Peer));
        }
        if masked {
            match last_shared(&self.reserve.marks(), &hello.marks) {
                Err(ReserveError::Missed { own: true }) => {
                    return self.roll_back(ReserveError::Missed { own: true }.to_string());
                }
                Err(ReserveError::Missed { own: false }) => return self.close(CloseReason::RolledBack(Whose::Peer)),
                _ => {}
            }
        }
        let standing = Standing { own: greeting.counts, peer: hello.counts };
        let mut actions = Vec::new();
        if standing.own_proves() && greeting.proof.is_none() {
            let pairing = Pairing::new(self.side, greeting, &hello);
            match pairing.prove(hello.heard(), greeting.counts.send, &mut self.reserve) {
                Ok(proof) => {
                    self.counters.proofs_sent += 1;
                    actions.push(Action::Send(proof.frame.clone()));
                    greeting.proof = Some(proof);
                }
                Err(error) => return self.fail(&error),
            }
        }
        if standing.peer_is_behind() {
            // Without the key, what says so may come from anybody.
            if masked && !standing.own_is_behind() {
                actions.extend(self.close(CloseReason::RolledBack(Whose::Peer)));
            }
            return actions;
        }
        if standing.peer_proves() {
            greeting.awaited = Some(Box::new(hello));
            return actions;
        }
        let receive = greeting.counts.receive;
        actions.extend(self.establish(hello, receive));
        actions
    }

    /// Opens the session that begins with this tag of the peer.
    fn establish(&mut self, hello: PeerHello, receive_tag: u64) -> Option<Action> {
        let State::Greeting(greeting) = std::mem::replace(&mut self.state, State::Idle) else { return None };
        let peer_hello = hello.module.clone();
        let pairing = Pairing::new(self.side, &greeting, &hello);
        let send_tag = greeting.proof.as_ref().map_or(greeting.counts.send, |proof| proof.tag + 1);
        // Behind only in reserves of the older form, whose receivers counted forgeries.
        let send_tag = send_tag.max(hello.counts.receive);
        let session = Session::new(pairing, *greeting, hello, [send_tag, receive_tag], &self.reserve);
        let id = session.id;
        self.state = State::Open(Box::new(session));
        Some(Action::Opened { session: id, peer_hello })
    }

    /// The peer shows that its greeting is its own: what it counts is true.
    fn receive_proof(&mut self, frame: &Frame) -> Result<Vec<Action>, Refusal> {
        let State::Greeting(greeting) = &mut self.state else { return Err(Refusal::UnaskedProof) };
        let (Some(hello), Some(field)) = (&greeting.awaited, frame.tag) else { return Err(Refusal::UnaskedProof) };
        let pairing = Pairing::new(self.side, greeting, hello);
        if frame.session != pairing.id || field.number != hello.counts.send {
            return Err(Refusal::UnaskedProof);
        }
        if !pairing.is_checked(frame, field.number, &self.reserve) {
            return Err(Refusal::Forged);
        }
        let standing = Standing { own: greeting.counts, peer: hello.counts };
        let masked = self.reserve.mask_key().is_some();
        match pairing.is_proof(field, &self.reserve) {
            Ok(true) => {
                if let Err(error) = self.reserve.verified(field.number) {
                    return Ok(self.fail(&error));
                }
                self.counters.tags_verified += 1;
            }
            Ok(false) => {
                self.counters.tags_mismatched += 1;
                return Err(Refusal::Forged);
            }
            // The pad came with a refill that this end does not have.
            Err(ReserveError::Exhausted) if masked && standing.own_is_behind() => {}
            Err(ReserveError::Exhausted) if masked => return Ok(self.fail(&ReserveError::Exhausted)),
            Err(_) => return Err(Refusal::UnaskedProof),
        }
        let explained = if masked { 0 } else { OLD_FORM_LEAD };
        if standing.own_lag() > explained {
            let why = format!(
                "the peer has verified tag {}, and the next one to send here is {}",
                standing.peer.receive - 1,
                standing.own.send
            );
            return Ok(self.roll_back(why));
        }
        let Some(hello) = greeting.awaited.take() else { return Ok(Vec::new()) };
        Ok(self.establish(*hello, field.number + 1).into_iter().collect())
    }

    /// Keeps that this end's volume was put back, and says so.
    fn roll_back(&mut self, why: String) -> Vec<Action> {
        let State::Greeting(greeting) = std::mem::replace(&mut self.state, State::Idle) else { return Vec::new() };
        if let Err(error) = self.reserve.roll_back(&why) {
            return self.fail(&error);
        }
        let mut told = Greeting::new(self.side, greeting.nonce, &self.reserve, &Bytes::new());
        told.echo = greeting.echo;
        let mut actions = vec![Action::Failed(why)];
        actions.extend(self.say_rolled_back(told));
        actions
    }

    fn say_rolled_back(&mut self, greeting: Greeting) -> Vec<Action> {
        let told = Action::Send(greeting.frame());
        self.state = State::RolledBack(Box::new(greeting));
        vec![told, Action::Closed(CloseReason::RolledBack(Whose::Own))]
    }

    /// The peer has a session open that ends if this end really started anew.
    fn receive_challenge(&mut self, frame: &Frame) -> Result<Vec<Action>, Refusal> {
        match &self.state {
            State::Greeting(greeting) if frame.step == greeting.nonce => {
                Ok(vec![Action::Send(greeting.frame_to(frame.session))])
            }
            _ => Err(Refusal::WrongSession),
        }
    }

    fn receive_close(&mut self, frame: &Frame) -> Result<Vec<Action>, Refusal> {
        match &self.state {
            State::Open(session) if frame.session == session.id => {
                self.state = State::Idle;
                Ok(vec![Action::Closed(CloseReason::from_code(frame.step))])
            }
            State::Open(_) => Err(Refusal::WrongSession),
            // Both ends often end a session at once.
            State::Idle | State::Greeting(_) | State::RolledBack(_) => Ok(Vec::new()),
        }
    }

    fn receive_bundle(&mut self, frame: Frame) -> Result<Vec<Action>, Refusal> {
        let session = match &mut self.state {
            State::Open(session) => session,
            State::Greeting(_) | State::RolledBack(_) => return Err(Refusal::WrongSession),
            State::Idle => return Err(Refusal::UnknownSession(frame.session)),
        };
        let step = frame.step;
        let payload = frame.payload.clone();
        let verdict = match session.hear(frame, &mut self.reserve)? {
            Ok(verdict) => verdict,
            Err(error) => return Ok(self.fail(&error)),
        };
        match verdict {
            Verdict::Untagged => Ok(vec![Action::Delivered { step, payload, authenticated: false }]),
            Verdict::Mismatch => {
                self.counters.tags_mismatched += 1;
                Ok(self.close(CloseReason::TagMismatch))
            }
            Verdict::WrongNumber => {
                self.counters.tag_numbers_wrong += 1;
                Ok(self.close(CloseReason::TagMismatch))
            }
            Verdict::Verified => {
                self.counters.tags_verified += 1;
                if let Err(error) = session.align(&mut self.reserve) {
                    return Ok(self.fail(&error));
                }
                Ok(vec![Action::Delivered { step, payload, authenticated: true }])
            }
        }
    }

    /// Key of a stored block that goes into the reserve, with or without a session. One that only one end gets is
    /// dropped there as soon as the next session's first tag has shown where both reserves end.
    pub fn refill(&mut self, block: u64, bits: &Bits) -> Vec<Action> {
        match self.reserve.append(block, bits) {
            Ok(()) => vec![Action::Refilled { block }],
            Err(error) => self.fail(&error),
        }
    }

    /// What to say again when the peer has been silent for long although it [`waits`](Self::waits): whatever was last
    /// said may be lost.
    pub fn on_stall(&self) -> Vec<Bytes> {
        match &self.state {
            State::Idle | State::RolledBack(_) => Vec::new(),
            State::Greeting(greeting) => greeting.frames().iter().map(repeated).collect(),
            State::Open(session) => session.unacknowledged().iter().map(repeated).collect(),
        }
    }
}

impl CloseReason {
    fn code(self) -> u64 {
        match self {
            Self::PeerLeft => 1,
            Self::TagMismatch => 2,
            Self::ReserveExhausted => 3,
            Self::PeerRestarted => 4,
            Self::ReserveFailed => 5,
            Self::Rekeyed => 6,
            Self::RolledBack(_) => 7,
            Self::PeerVersion => 8,
        }
    }

    /// Nothing authenticates this; whatever lasts is found out by the own end.
    fn from_code(code: u64) -> Self {
        match code {
            2 => Self::TagMismatch,
            3 => Self::ReserveExhausted,
            4 => Self::PeerRestarted,
            5 => Self::ReserveFailed,
            6 => Self::Rekeyed,
            _ => Self::PeerLeft,
        }
    }
}
