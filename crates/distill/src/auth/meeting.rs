//! How an endpoint meets its peer: greetings, what has to be proved first, and who turns out to have been put back.

use bytes::Bytes;

use super::counts::{OLD_FORM_LEAD, Standing};
use super::endpoint::{Endpoint, State};
use super::frame::Frame;
use super::hello::{Greeting, PeerHello};
use super::misfit::Misfit;
use super::outcome::{Action, CloseReason, Refusal, Whose};
use super::reserve::{Mark, Offsets, Reserve, ReserveError, aligned_bits};
use super::session::{Pairing, Session};

/// Whether two ends could go on from a refill that both have seen.
fn shared_refills<R: Reserve>(reserve: &R, peer: &[Mark]) -> Result<u64, ReserveError> {
    let used = Offsets { send: reserve.next_send(), receive: reserve.next_receive() };
    aligned_bits(&reserve.marks(), peer, used.used_bits(reserve.layout()))
}

impl<R: Reserve> Endpoint<R> {
    pub(super) fn receive_hello(&mut self, frame: &Frame) -> Result<Vec<Action>, Refusal> {
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
                // Once: two ends that answer each other's fresh greeting with a fresh one of their own would never
                // stop.
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
                    let unfit = greeting.doubt.stuck.and_then(|misfit| greeting.doubt.of(misfit));
                    let frames = if frame.repeated { greeting.frames() } else { Vec::new() };
                    return Ok(frames.into_iter().map(Action::Send).chain(unfit.map(Action::Unfit)).collect());
                }
                greeting.doubt.stuck = None;
                let mut actions = vec![Action::Send(greeting.frame())];
                if knows_us {
                    actions.extend(self.meet(hello));
                }
                Ok(actions)
            }
        }
    }

    /// Both ends know of each other's greeting: opens the session, or proves what the peer cannot know, or waits for
    /// the peer's proof.
    fn meet(&mut self, hello: PeerHello) -> Vec<Action> {
        let State::Greeting(greeting) = &mut self.state else { return Vec::new() };
        let masked = self.reserve.mask_key().is_some();
        // Fresh, as it echoes this end's nonce, and checked under the key of the masks.
        if hello.rolled_back && masked {
            return self.close(CloseReason::RolledBack(Whose::Peer));
        }
        // Anybody may say so: nothing is spent on it.
        if hello.rolled_back {
            greeting.doubt.stuck = Some(Misfit::PeerBehind);
            return Vec::new();
        }
        if masked {
            match shared_refills(&self.reserve, &hello.marks) {
                Err(ReserveError::Missed { own: true }) => {
                    return self.roll_back(ReserveError::Missed { own: true }.to_string());
                }
                Err(ReserveError::Missed { own: false }) => return self.close(CloseReason::RolledBack(Whose::Peer)),
                Err(_) => {
                    return greeting.doubt.certain_of(Misfit::OtherRefills).map(Action::Unfit).into_iter().collect();
                }
                Ok(_) => {}
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
        let follows = !masked && !standing.own_is_behind() && standing.peer_lag() <= OLD_FORM_LEAD;
        if standing.peer_is_behind() && !follows {
            // Without the key, what says so may come from anybody.
            match (standing.own_is_behind(), masked) {
                (false, true) => actions.extend(self.close(CloseReason::RolledBack(Whose::Peer))),
                (true, true) => actions.extend(greeting.doubt.certain_of(Misfit::BothBehind).map(Action::Unfit)),
                (true, false) => greeting.doubt.stuck = Some(Misfit::BothBehind),
                (false, false) => greeting.doubt.stuck = Some(Misfit::PeerBehind),
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
    pub(super) fn receive_proof(&mut self, frame: &Frame) -> Result<Vec<Action>, Refusal> {
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

    pub(super) fn say_rolled_back(&mut self, greeting: Greeting) -> Vec<Action> {
        let told = Action::Send(greeting.frame());
        self.state = State::RolledBack(Box::new(greeting));
        vec![told, Action::Closed(CloseReason::RolledBack(Whose::Own))]
    }

    /// The peer has a session open that ends if this end really restarted.
    pub(super) fn receive_challenge(&mut self, frame: &Frame) -> Result<Vec<Action>, Refusal> {
        match &self.state {
            State::Greeting(greeting) if frame.step == greeting.nonce => {
                Ok(vec![Action::Send(greeting.frame_to(frame.session))])
            }
            _ => Err(Refusal::WrongSession),
        }
    }
}
