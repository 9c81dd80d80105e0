//! The end that announces its clicks and holds the reference string.

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
use crate::announce::{self, OwnEvents};
use crate::auth;
use crate::bits::Bits;
use crate::cascade::{Parameters, Query, Reference};
use crate::config::LinkProtocol;
use crate::hash;
use crate::loops::PolarisationLoop;
use crate::sift::{self, SiftReply};

/// Announced frames that may wait for the matcher's reply: well above lag, acquisition and clock offsets.
const FRAMES_WAITING_MAX: usize = 4096;

/// A frame that has been announced and not yet answered.
struct Waiting {
    number: u64,
    own: OwnEvents,
}

/// A block between sifting and the disk.
struct Block {
    round: Round,
    state: State,
}

enum State {
    /// Sifted; the matcher has not begun.
    Sifted,
    Reconciling {
        reference: Box<Reference>,
        frames: Vec<Bits>,
    },
    /// Amplified; the matcher has not closed the round.
    Amplified(Box<FinishedBlock>),
}

/// See [`super::Module`].
pub struct Announcer {
    protocol: LinkProtocol,
    rng: ChaCha20Rng,
    step: u64,
    waiting: VecDeque<Waiting>,
    frames_announced: u64,
    open: Round,
    blocks: VecDeque<Block>,
    in_doubt: Option<u64>,
    /// Blocks below this number are decided, as far as the peer has said; believed when a tag covers it.
    peer_committed_end: u64,
    committed_end: u64,
    /// The peer's farewell, once a tag covers it, ends the session.
    peer_farewell: bool,
    drain_steps: u64,
    polarisation: PolarisationLoop,
    setpoints: Setpoints,
    figures: Figures,
}

impl Announcer {
    pub(super) fn new(protocol: &LinkProtocol, start: &SessionStart, rng: ChaCha20Rng) -> Self {
        Self {
            polarisation: PolarisationLoop::new(
                &protocol.loops,
                protocol.frame_ps,
                start.latency_steps,
                start.setpoints.polarisation_rad,
            ),
            protocol: protocol.clone(),
            rng,
            step: 0,
            waiting: VecDeque::new(),
            frames_announced: 0,
            open: Round::new(start.first_block),
            blocks: VecDeque::new(),
            in_doubt: start.in_doubt,
            peer_committed_end: start.peer_committed_end,
            committed_end: start.own_committed_end,
            peer_farewell: false,
            drain_steps: 0,
            // One end alone controls the pump: two that say different things would undo each other.
            setpoints: Setpoints { pump: 0.0, ..start.setpoints },
            figures: Figures::default(),
        }
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures.clone()
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
            Some(frame) => self.announce(frame, &mut draft)?,
            None => {
                draft.bundle.drained = true;
                self.drain_steps += 1;
                if self.drain_steps > DRAIN_STEPS_MAX {
                    return Err(ModuleError::DrainTooLong);
                }
            }
        }
        draft.bundle.committed_end = self.committed_end;
        self.setpoints.polarisation_rad = self.polarisation.setpoint(self.step);
        self.step += 1;
        Ok(draft.finish(self.setpoints))
    }

    fn announce(&mut self, frame: FrameInput, draft: &mut Draft) -> Result<(), ModuleError> {
        if self.waiting.len() >= FRAMES_WAITING_MAX {
            return Err(ModuleError::Protocol("announced frames are not answered"));
        }
        self.figures.frames += 1;
        self.figures.clicks += frame.tags.len() as u64;
        self.polarisation.observe(self.step, frame.tags.len() as u64);
        if self.frames_announced.is_multiple_of(self.protocol.round_frames) {
            let block = self.open_block_number();
            draft.bundle.traceparent.clone_from(&frame.traceparent);
            draft.actions.push(Action::Trace { block, traceparent: frame.traceparent.clone() });
            draft.stage(block, Stage::Sift, true);
        }
        let prepared = announce::prepare(frame.number, &frame.tags, &self.protocol, &mut self.rng)?;
        self.waiting.push_back(Waiting { number: frame.number, own: prepared.own });
        self.frames_announced += 1;
        draft.bundle.announcement = Some(prepared.announcement);
        Ok(())
    }

    /// Number of the block that the next announced frame belongs to.
    fn open_block_number(&self) -> u64 {
        let replied = self.frames_announced - self.waiting.len() as u64;
        let rounds_ahead = self.frames_announced / self.protocol.round_frames - replied / self.protocol.round_frames;
        self.open.block + rounds_ahead
    }

    fn hear(&mut self, peer: &PeerInput, draft: &mut Draft) -> Result<(), ModuleError> {
        let bundle = Bundle::decode_bytes(&peer.payload)?;
        if bundle.step + 1 != self.step {
            return Err(ModuleError::Step { expected: self.step - 1, found: bundle.step });
        }
        if bundle.announcement.is_some() || !bundle.x_replies.is_empty() {
            return Err(ModuleError::Protocol("an announcement from the matcher"));
        }
        self.peer_committed_end = self.peer_committed_end.max(bundle.committed_end);
        self.peer_farewell |= bundle.farewell;
        if peer.authenticated {
            self.decide(draft);
        }
        for reply in &bundle.replies {
            self.sift(reply, draft)?;
        }
        for message in bundle.blocks {
            self.on_block(message, peer.authenticated, draft)?;
        }
        if self.peer_farewell && peer.authenticated {
            draft.bundle.farewell = true;
            draft.finished = true;
        }
        Ok(())
    }

    /// A tag covers everything the peer has said: an undecided block that it has committed is committed here
    /// too; one that it has not committed although it has moved on is void.
    fn decide(&mut self, draft: &mut Draft) {
        let Some(block) = self.in_doubt else { return };
        if self.peer_committed_end > block {
            draft.actions.push(Action::Commit { block });
            draft.stage(block, Stage::Authenticate, false);
            self.committed_end = block + 1;
            self.in_doubt = None;
        } else if block < self.first_open_block() {
            draft.actions.push(Action::Void { block });
            self.in_doubt = None;
        }
    }

    /// Blocks below this number are not part of this session.
    fn first_open_block(&self) -> u64 {
        self.blocks.front().map_or(self.open.block, |b| b.round.block)
    }

    fn sift(&mut self, reply: &SiftReply, draft: &mut Draft) -> Result<(), ModuleError> {
        let Some(waiting) = self.waiting.front() else {
            return Err(ModuleError::Protocol("a reply to a frame that was never announced"));
        };
        if waiting.number != reply.frame {
            return Err(ModuleError::Protocol("replies out of order"));
        }
        let applied = sift::apply(reply, &waiting.own, &mut self.open.z)?;
        self.open.x_total += applied.own_x.len() as u64;
        self.open.x_errors += applied.own_x.distance(&applied.peer_x) as u64;
        self.open.book_announced(waiting.own.counts(), &applied.counts);
        self.figures.sifted_z += applied.counts.kept_z;
        self.figures.sifted_x += applied.counts.kept_x;
        draft.bundle.x_replies.push(sift::x_reply(reply.frame, &applied.own_x));
        self.waiting.pop_front();
        self.open.frames += 1;
        if self.open.frames == self.protocol.round_frames {
            self.close_round(draft);
        }
        Ok(())
    }

    fn close_round(&mut self, draft: &mut Draft) {
        let next = Round::new(self.open.block + 1);
        let round = std::mem::replace(&mut self.open, next);
        draft.stage(round.block, Stage::Sift, false);
        self.figures.qber_x = round.qber_x();
        self.blocks.push_back(Block { round, state: State::Sifted });
    }

    fn on_block(&mut self, message: BlockMessage, authenticated: bool, draft: &mut Draft) -> Result<(), ModuleError> {
        let number = message.block;
        let step = message.step.ok_or(ModuleError::Malformed("block message"))?;
        if let BlockStep::EndRound(EndRound { frames }) = step {
            if number != self.open.block || frames != self.open.frames || frames == 0 {
                return Err(ModuleError::Protocol("end of a round that is not open"));
            }
            self.close_round(draft);
            return Ok(());
        }
        let index = self
            .blocks
            .iter()
            .position(|b| b.round.block == number)
            .ok_or(ModuleError::Protocol("a message about a block that is not in work"))?;
        match step {
            BlockStep::Begin(begin) => self.begin(index, &begin, draft),
            BlockStep::Query(query) => self.answer(index, &query, draft),
            BlockStep::Verify(verify) => self.verify(index, &verify, draft),
            BlockStep::Close(_) => self.close(index, authenticated, draft),
            _ => Err(ModuleError::Protocol("a message of the announcer from the matcher")),
        }
    }

    fn begin(&mut self, index: usize, begin: &Begin, draft: &mut Draft) -> Result<(), ModuleError> {
        let block = &mut self.blocks[index];
        if !matches!(block.state, State::Sifted) || begin.qber_ppm > 500_000 {
            return Err(ModuleError::Protocol("reconciliation begins twice or with an impossible error rate"));
        }
        let frames = round::split(&block.round.z, self.protocol.reconciliation.frame_bits as usize);
        let parameters = Parameters { qber: f64::from(begin.qber_ppm) * 1e-6, seed: begin.seed };
        let reference = Box::new(Reference::new(frames.clone(), &parameters));
        block.state = State::Reconciling { reference, frames };
        draft.stage(block.round.block, Stage::Reconcile, true);
        self.answer(index, &begin.query, draft)
    }

    fn answer(&mut self, index: usize, query: &[u8], draft: &mut Draft) -> Result<(), ModuleError> {
        let block = &mut self.blocks[index];
        let State::Reconciling { reference, .. } = &mut block.state else {
            return Err(ModuleError::Protocol("a query outside reconciliation"));
        };
        let answer = reference.answer(&Query::from_bytes(query.to_vec())?)?;
        draft.say(block.round.block, BlockStep::Answer(answer.into_bytes()));
        Ok(())
    }

    /// Compares hashes, applies the bound and, where key remains, draws the seed and amplifies.
    fn verify(&mut self, index: usize, verify: &Verify, draft: &mut Draft) -> Result<(), ModuleError> {
        let reserve = auth::refill_bits(self.protocol.authentication.tags_per_hash_key);
        let block = &mut self.blocks[index];
        let number = block.round.block;
        let State::Reconciling { reference, frames } = std::mem::replace(&mut block.state, State::Sifted) else {
            return Err(ModuleError::Protocol("verification outside reconciliation"));
        };
        if verify.tags.len() != frames.len() || verify.errors.len() != frames.len() {
            return Err(ModuleError::Protocol("verification of another number of frames"));
        }
        draft.stage(number, Stage::Reconcile, false);
        draft.stage(number, Stage::Verify, true);
        let good: Vec<bool> =
            frames.iter().zip(&verify.tags).map(|(frame, tag)| hash::frame_tag(frame, verify.key) == *tag).collect();
        let corrected: Vec<Corrected> = frames
            .into_iter()
            .zip(reference.leaked_bits())
            .zip(&verify.errors)
            .map(|((bits, leaked), errors)| Corrected { bits, leaked, errors: u64::from(*errors) })
            .collect();
        let done = round::reconcile(&mut block.round, &corrected, &good, &self.protocol.security, reserve)?;
        self.figures.qber_z = done.qber_z;
        draft.stage(number, Stage::Verify, false);
        if let Some(reason) = done.refusal() {
            draft.actions.push(Action::Abort {
                block: number,
                reason,
                frames: block.round.frames,
                ledger: done.ledger,
            });
            draft.say(number, BlockStep::Amplify(Amplify { good, length: 0, seed: Vec::new() }));
            self.blocks.remove(index);
            return Ok(());
        }
        draft.stage(number, Stage::Amplify, true);
        let length = done.length.chosen as usize;
        let seed = random_bits(&mut self.rng, amplify::seed_len(done.key.len(), length));
        let key = amplify::toeplitz(&done.key, &seed, length);
        draft.stage(number, Stage::Amplify, false);
        draft.stage(number, Stage::Authenticate, true);
        block.state = State::Amplified(Box::new(FinishedBlock {
            number,
            key,
            reserve_bits: reserve as usize,
            frames: block.round.frames,
            ledger: done.ledger,
            length: done.length,
            qber_z: done.qber_z,
        }));
        draft.say(number, BlockStep::Amplify(Amplify { good, length: length as u64, seed: seed.to_bytes() }));
        Ok(())
    }

    /// The matcher's tag covers the whole round: the block goes to disk, undecided, and that is said under a tag.
    fn close(&mut self, index: usize, authenticated: bool, draft: &mut Draft) -> Result<(), ModuleError> {
        if !authenticated {
            return Err(ModuleError::Protocol("a round was closed without a tag"));
        }
        // An earlier block was decided by this very tag: at most one is undecided at any time.
        if index != 0 || self.in_doubt.is_some() {
            return Err(ModuleError::Protocol("rounds closed out of order"));
        }
        match self.blocks.pop_front() {
            Some(Block { state: State::Amplified(finished), .. }) => {
                let block = finished.number;
                draft.actions.push(Action::Prepare(*finished));
                draft.say(block, BlockStep::Prepared(true));
                draft.close_round = true;
                self.in_doubt = Some(block);
                Ok(())
            }
            _ => Err(ModuleError::Protocol("a round was closed before its block was amplified")),
        }
    }
}

fn random_bits(rng: &mut ChaCha20Rng, len: usize) -> Bits {
    Bits::from_words((0..len.div_ceil(64)).map(|_| rng.next_u64()).collect(), len)
}
