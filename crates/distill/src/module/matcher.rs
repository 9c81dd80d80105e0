//! The end that recovers the peer's clock, finds coincidences and corrects its string.

use std::collections::VecDeque;

use rand::Rng;
use rand_chacha::ChaCha20Rng;

use super::messages::{Amplify, Begin, BlockMessage, BlockStep, Bundle, EndRound, Verify};
use super::round::{self, Corrected, Round};
use super::{
    Action, DRAIN_STEPS_MAX, Draft, Figures, FinishedBlock, FrameInput, ModuleError, PeerInput, SessionStart,
    Setpoints, Stage, StepOutput,
};
use crate::amplify;
use crate::announce::Announcement;
use crate::auth;
use crate::bits::Bits;
use crate::cascade::{Answer, Corrector, Parameters};
use crate::config::LinkProtocol;
use crate::hash;
use crate::loops::{PhaseLoop, PolarisationLoop, PumpLoop};
use crate::recovery::{FrameResult, Recovery, State as LockState};
use crate::sift::{self, XReply};

/// Smallest error rate that Cascade is told: block sizes stay finite.
const QBER_MIN: f64 = 0.002;
/// Largest error rate that Cascade is told.
const QBER_MAX: f64 = 0.2;

/// X bits of one frame that wait for the announcer's.
struct WaitingX {
    frame: u64,
    block: u64,
    /// Step in which its light came, to within one: frames of both ends start together.
    step: u64,
    own: Bits,
}

struct Block {
    round: Round,
    /// Frames of the round whose X bits the announcer has not sent yet.
    x_waiting: u64,
    state: State,
}

enum State {
    Sifted,
    Reconciling(Corrector),
    Verifying(Vec<Corrected>),
    /// Amplified; waits for its turn to be closed.
    Amplified(FinishedBlock),
    /// The round is closed under a tag; waits for the announcer's "prepared" under another.
    Closing(FinishedBlock),
}

/// See [`super::Module`].
pub struct Matcher {
    protocol: LinkProtocol,
    rng: ChaCha20Rng,
    step: u64,
    recovery: Recovery,
    was_locked: bool,
    first_frame: Option<u64>,
    /// Announced frames that have no result yet: number and events.
    unanswered: VecDeque<(u64, u64)>,
    waiting_x: VecDeque<WaitingX>,
    open: Round,
    blocks: VecDeque<Block>,
    committed_end: u64,
    own_drained: bool,
    peer_drained: bool,
    drain_steps: u64,
    farewell_said: bool,
    qber_z: Option<f64>,
    polarisation: PolarisationLoop,
    phase: PhaseLoop,
    pump: PumpLoop,
    setpoints: Setpoints,
    figures: Figures,
}

impl Matcher {
    pub(super) fn new(protocol: &LinkProtocol, start: &SessionStart, rng: ChaCha20Rng) -> Self {
        let (loops, latency, setpoints) = (&protocol.loops, start.latency_steps, start.setpoints);
        Self {
            polarisation: PolarisationLoop::new(loops, protocol.frame_ps, latency, setpoints.polarisation_rad),
            phase: PhaseLoop::new(loops, protocol.frame_ps, latency, setpoints.phase_rad),
            pump: PumpLoop::new(loops, latency, setpoints.pump),
            recovery: Recovery::new(protocol),
            protocol: protocol.clone(),
            rng,
            step: 0,
            was_locked: false,
            first_frame: None,
            unanswered: VecDeque::new(),
            waiting_x: VecDeque::new(),
            open: Round::new(start.first_block),
            blocks: VecDeque::new(),
            committed_end: start.own_committed_end,
            own_drained: false,
            peer_drained: false,
            drain_steps: 0,
            farewell_said: false,
            qber_z: None,
            setpoints,
            figures: Figures::default(),
        }
    }

    pub(super) fn figures(&self) -> Figures {
        Figures { recovery: Some(self.recovery.status()), locked: self.was_locked, ..self.figures.clone() }
    }

    pub(super) fn rounds_in_work(&mut self) -> Vec<&mut Round> {
        self.blocks.iter_mut().map(|block| &mut block.round).chain([&mut self.open]).collect()
    }

    pub(super) fn step(
        &mut self,
        frame: Option<FrameInput>,
        peer: Option<PeerInput>,
    ) -> Result<StepOutput, ModuleError> {
        let mut draft = Draft::new(self.step);
        if let Some(peer) = peer {
            self.hear(&peer, &mut draft)?;
        }
        match frame {
            Some(frame) => {
                self.figures.frames += 1;
                self.figures.clicks += frame.tags.len() as u64;
                self.polarisation.observe(self.step, frame.tags.len() as u64);
                self.recovery.push_own(frame.number, frame.tags)?;
            }
            None => self.drain()?,
        }
        self.answer_announcements(&mut draft)?;
        self.end_last_round(&mut draft);
        self.begin_blocks(&mut draft);
        self.close_next(&mut draft);
        self.say_farewell(&mut draft);
        draft.bundle.committed_end = self.committed_end;
        self.setpoints = Setpoints {
            phase_rad: self.phase.setpoint(self.step),
            polarisation_rad: self.polarisation.setpoint(self.step),
            pump: self.pump.setpoint(self.step),
        };
        self.step += 1;
        Ok(draft.finish(self.setpoints))
    }

    fn drain(&mut self) -> Result<(), ModuleError> {
        if !self.own_drained {
            self.own_drained = true;
            self.recovery.finish();
        }
        self.drain_steps += 1;
        if self.drain_steps > DRAIN_STEPS_MAX { Err(ModuleError::DrainTooLong) } else { Ok(()) }
    }

    fn hear(&mut self, peer: &PeerInput, draft: &mut Draft) -> Result<(), ModuleError> {
        let bundle = Bundle::decode_bytes(&peer.payload)?;
        if bundle.step + 1 != self.step {
            return Err(ModuleError::Step { expected: self.step - 1, found: bundle.step });
        }
        if !bundle.replies.is_empty() {
            return Err(ModuleError::Protocol("a sifting reply from the announcer"));
        }
        self.peer_drained |= bundle.drained;
        if let Some(announcement) = &bundle.announcement {
            self.take_announcement(announcement, &bundle.traceparent, draft)?;
        }
        for reply in &bundle.x_replies {
            self.take_x(reply)?;
        }
        for message in bundle.blocks {
            self.on_block(message, peer.authenticated, draft)?;
        }
        if bundle.farewell && self.farewell_said {
            draft.finished = true;
        }
        Ok(())
    }

    fn take_announcement(
        &mut self,
        announcement: &Announcement,
        traceparent: &str,
        draft: &mut Draft,
    ) -> Result<(), ModuleError> {
        if self.peer_drained {
            return Err(ModuleError::Protocol("an announcement after the last one"));
        }
        self.recovery.push_peer(announcement)?;
        if !traceparent.is_empty() {
            let rounds_ahead = (self.open.frames + self.unanswered.len() as u64) / self.protocol.round_frames;
            let block = self.open.block + rounds_ahead;
            let traceparent = traceparent.chars().take(64).collect();
            draft.actions.push(Action::Trace { block, traceparent });
            draft.stage(block, Stage::Sift, true);
        }
        self.unanswered.push_back((announcement.frame, u64::from(announcement.count)));
        Ok(())
    }

    /// Replies to every announced frame that the recovered clock can judge, in order.
    fn answer_announcements(&mut self, draft: &mut Draft) -> Result<(), ModuleError> {
        while let Some(result) = self.recovery.next_result() {
            self.take_result(&result, draft)?;
        }
        let status = self.recovery.status();
        let locked = status.state == LockState::Locked;
        if locked != self.was_locked {
            self.was_locked = locked;
            let (name, message) = if locked {
                ("locked", format!("clock recovered: offset {:.0} ps", status.offset_ps))
            } else {
                ("lock-lost", "the coincidence peak is gone, acquiring again".to_owned())
            };
            draft.actions.push(Action::Note { name, message });
        }
        Ok(())
    }

    fn take_result(&mut self, result: &FrameResult, draft: &mut Draft) -> Result<(), ModuleError> {
        if self.unanswered.pop_front().map(|(frame, _)| frame) != Some(result.frame) {
            return Err(ModuleError::Protocol("a result for a frame that was not announced"));
        }
        let sifted = sift::reply(result, &mut self.open.z);
        self.open.book_matched(&result.counts);
        self.figures.sifted_z += result.counts.kept_z;
        self.figures.sifted_x += result.counts.kept_x;
        let first = *self.first_frame.get_or_insert(result.frame);
        let step = result.frame.saturating_sub(first);
        if self.open.frames == 0 {
            self.open.first_step = step;
        }
        self.waiting_x.push_back(WaitingX { frame: result.frame, block: self.open.block, step, own: sifted.own_x });
        draft.bundle.replies.push(sifted.reply);
        self.open.frames += 1;
        if self.open.frames == self.protocol.round_frames {
            self.close_open_round(draft);
        }
        Ok(())
    }

    fn close_open_round(&mut self, draft: &mut Draft) {
        let next = Round::new(self.open.block + 1);
        let round = std::mem::replace(&mut self.open, next);
        draft.stage(round.block, Stage::Sift, false);
        let x_waiting = self.waiting_x.iter().filter(|x| x.block == round.block).count() as u64;
        self.blocks.push_back(Block { round, x_waiting, state: State::Sifted });
    }

    fn take_x(&mut self, reply: &XReply) -> Result<(), ModuleError> {
        let waiting =
            self.waiting_x.pop_front().ok_or(ModuleError::Protocol("X bits of a frame that was not sifted"))?;
        if waiting.frame != reply.frame {
            return Err(ModuleError::Protocol("X bits out of order"));
        }
        let peer = sift::x_bits(reply, waiting.own.len())?;
        let errors = waiting.own.distance(&peer) as u64;
        let total = peer.len() as u64;
        self.phase.observe(waiting.step, total, errors);
        let round = if waiting.block == self.open.block {
            &mut self.open
        } else {
            let block = self.blocks.iter_mut().find(|b| b.round.block == waiting.block);
            let block = block.ok_or(ModuleError::Protocol("X bits of a block that is not in work"))?;
            block.x_waiting -= 1;
            &mut block.round
        };
        round.x_total += total;
        round.x_errors += errors;
        Ok(())
    }

    /// With no light left on either side, what is in the open round becomes the last, shorter block.
    fn end_last_round(&mut self, draft: &mut Draft) {
        if !(self.own_drained && self.peer_drained && self.unanswered.is_empty()) || self.open.frames == 0 {
            return;
        }
        draft.say(self.open.block, BlockStep::EndRound(EndRound { frames: self.open.frames }));
        self.close_open_round(draft);
    }

    /// Starts Cascade on every block whose X bits are all in: only then is its error rate public.
    fn begin_blocks(&mut self, draft: &mut Draft) {
        for block in &mut self.blocks {
            if block.x_waiting > 0 || !matches!(block.state, State::Sifted) {
                continue;
            }
            let estimate = self.qber_z.unwrap_or(self.protocol.reconciliation.initial_qber);
            let qber_ppm = (estimate.clamp(QBER_MIN, QBER_MAX) * 1e6) as u32;
            let parameters = Parameters { qber: f64::from(qber_ppm) * 1e-6, seed: self.rng.next_u64() };
            let frames = round::split(&block.round.z, self.protocol.reconciliation.frame_bits as usize);
            let mut corrector = Corrector::new(frames, &parameters);
            let query = corrector.start().into_bytes();
            self.figures.qber_x = block.round.qber_x();
            draft.stage(block.round.block, Stage::Reconcile, true);
            draft.say(block.round.block, BlockStep::Begin(Begin { qber_ppm, seed: parameters.seed, query }));
            block.state = State::Reconciling(corrector);
        }
    }

    fn on_block(&mut self, message: BlockMessage, authenticated: bool, draft: &mut Draft) -> Result<(), ModuleError> {
        let index = self
            .blocks
            .iter()
            .position(|b| b.round.block == message.block)
            .ok_or(ModuleError::Protocol("a message about a block that is not in work"))?;
        match message.step.ok_or(ModuleError::Malformed("block message"))? {
            BlockStep::Answer(answer) => self.on_answer(index, &answer, draft),
            BlockStep::Amplify(amplify) => self.on_amplify(index, &amplify, draft),
            BlockStep::Prepared(_) => self.on_prepared(index, authenticated, draft),
            _ => Err(ModuleError::Protocol("a message of the matcher from the announcer")),
        }
    }

    fn on_answer(&mut self, index: usize, answer: &[u8], draft: &mut Draft) -> Result<(), ModuleError> {
        let block = &mut self.blocks[index];
        let number = block.round.block;
        let State::Reconciling(corrector) = &mut block.state else {
            return Err(ModuleError::Protocol("an answer outside reconciliation"));
        };
        if let Some(query) = corrector.next(&Answer::from_bytes(answer.to_vec())?)? {
            draft.say(number, BlockStep::Query(query.into_bytes()));
            return Ok(());
        }
        let State::Reconciling(corrector) = std::mem::replace(&mut block.state, State::Sifted) else { return Ok(()) };
        draft.stage(number, Stage::Reconcile, false);
        draft.stage(number, Stage::Verify, true);
        let frames: Vec<Corrected> = corrector
            .finish()
            .into_iter()
            .map(|f| Corrected { bits: f.bits, leaked: f.leaked_bits, errors: f.errors_corrected })
            .collect();
        let key = self.rng.next_u64();
        draft.say(
            number,
            BlockStep::Verify(Verify {
                key,
                tags: frames.iter().map(|f| hash::frame_tag(&f.bits, key)).collect(),
                errors: frames.iter().map(|f| u32::try_from(f.errors).unwrap_or(u32::MAX)).collect(),
            }),
        );
        block.state = State::Verifying(frames);
        Ok(())
    }

    fn on_amplify(&mut self, index: usize, message: &Amplify, draft: &mut Draft) -> Result<(), ModuleError> {
        let reserve = auth::refill_bits(self.protocol.authentication.tags_per_hash_key);
        let block = &mut self.blocks[index];
        let number = block.round.block;
        let State::Verifying(frames) = std::mem::replace(&mut block.state, State::Sifted) else {
            return Err(ModuleError::Protocol("amplification outside verification"));
        };
        if message.good.len() != frames.len() {
            return Err(ModuleError::Protocol("verification of another number of frames"));
        }
        let done = round::reconcile(&mut block.round, &frames, &message.good, &self.protocol.security, reserve)?;
        self.figures.qber_z = done.qber_z;
        if !done.key.is_empty() {
            self.qber_z = Some(done.qber_z);
            let (first_step, frames) = (block.round.first_step, block.round.frames);
            self.pump.observe(first_step, frames, done.qber_z, done.key.len() as u64);
        }
        draft.stage(number, Stage::Verify, false);
        if let Some(reason) = done.refusal() {
            draft.actions.push(Action::Abort {
                block: number,
                reason,
                frames: block.round.frames,
                ledger: done.ledger,
            });
            self.blocks.remove(index);
            return Ok(());
        }
        let length = done.length.chosen as usize;
        let seed_len = amplify::seed_len(done.key.len(), length);
        if message.length != length as u64 || message.seed.len() != seed_len.div_ceil(8) {
            return Err(ModuleError::Protocol("the two ends disagree on the length of the key"));
        }
        draft.stage(number, Stage::Amplify, true);
        let seed = Bits::from_bytes(&message.seed, seed_len);
        let key = amplify::toeplitz(&done.key, &seed, length);
        draft.stage(number, Stage::Amplify, false);
        block.state = State::Amplified(FinishedBlock {
            number,
            key,
            reserve_bits: reserve as usize,
            frames: block.round.frames,
            ledger: done.ledger,
            length: done.length,
            qber_z: done.qber_z,
        });
        Ok(())
    }

    /// Closes the oldest block, if it is ready, under a tag; one at a time.
    fn close_next(&mut self, draft: &mut Draft) {
        let Some(block) = self.blocks.front_mut() else { return };
        match std::mem::replace(&mut block.state, State::Sifted) {
            State::Amplified(finished) => {
                let number = finished.number;
                block.state = State::Closing(finished);
                draft.stage(number, Stage::Authenticate, true);
                draft.say(number, BlockStep::Close(true));
                draft.close_round = true;
            }
            other => block.state = other,
        }
    }

    fn on_prepared(&mut self, index: usize, authenticated: bool, draft: &mut Draft) -> Result<(), ModuleError> {
        if !authenticated {
            return Err(ModuleError::Protocol("\"prepared\" was said without a tag"));
        }
        match self.blocks.remove(index) {
            Some(Block { state: State::Closing(finished), .. }) => {
                draft.stage(finished.number, Stage::Authenticate, false);
                self.committed_end = finished.number + 1;
                draft.actions.push(Action::Store(finished));
                Ok(())
            }
            _ => Err(ModuleError::Protocol("\"prepared\" for a round that is not closing")),
        }
    }

    fn say_farewell(&mut self, draft: &mut Draft) {
        let done = self.own_drained
            && self.peer_drained
            && self.unanswered.is_empty()
            && self.waiting_x.is_empty()
            && self.open.frames == 0
            && self.blocks.is_empty();
        if done && !self.farewell_said {
            self.farewell_said = true;
            draft.bundle.farewell = true;
            draft.close_round = true;
        }
    }
}
