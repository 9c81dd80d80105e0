//! The state machine of one end: opens sessions, keeps the lockstep, makes and verifies tags.

use bytes::Bytes;

use super::Side;
use super::frame::{Frame, Kind, MAX_PAYLOAD, repeated};
use super::hello::{Greeting, MAX_MODULE_HELLO};
use super::misfit::Misfit;
use super::outcome::{Action, CloseReason, Counters, Refusal, SendError, Whose};
use super::reserve::{Reserve, ReserveError};
use super::session::{Session, Verdict, close_frame};
use crate::bits::Bits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    pub side: Side,
}

/// One end of the channel and the reserve it makes tags from.
pub struct Endpoint<R> {
    pub(super) side: Side,
    pub(super) reserve: R,
    pub(super) state: State,
    pub(super) counters: Counters,
}

pub(super) enum State {
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
    /// refuses its generation, so the module has to open again.
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

    pub(super) fn close(&mut self, reason: CloseReason) -> Vec<Action> {
        let mut actions = self.end(reason);
        actions.push(Action::Closed(reason));
        actions
    }

    pub(super) fn fail(&mut self, error: &ReserveError) -> Vec<Action> {
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
        match (refusal, &mut self.state) {
            (refusal, State::Greeting(greeting)) => {
                actions
                    .extend(Misfit::shown_by(refusal).and_then(|misfit| greeting.doubt.of(misfit)).map(Action::Unfit));
            }
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
