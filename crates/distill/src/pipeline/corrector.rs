//! The side that corrects its string, closes rounds and decides which blocks count.

use std::collections::VecDeque;

use rand::Rng;

use super::messages::{Amplify, Begin, BlockMessage, BlockStep, KeyErrors, Verify};
use super::round::{self, Corrected, Round};
use super::{Action, Draft, FinishedBlock, ModuleError, SessionStart, Shared, Stage};
use crate::amplify;
use crate::bits::Bits;
use crate::cascade::{self, Answer, Parameters};
use crate::hash;
use crate::sifting;

/// Smallest error rate that Cascade is told: block sizes stay finite.
const QBER_MIN: f64 = 0.002;
/// Largest error rate that Cascade is told.
const QBER_MAX: f64 = 0.2;

/// Rounds of more bits take turns: of one this end works on answers while of the next the other end works on questions.
const LONG_ROUND_BITS: usize = 1 << 22;

struct Block {
    round: Round,
    state: State,
}

enum State {
    Sifted,
    Reconciling(cascade::Corrector),
    Verifying(Vec<Corrected>),
    /// Amplified; waits for its turn to be closed.
    Amplified(FinishedBlock),
    /// The round is closed under a tag; waits for the reference side's "prepared" under another.
    Closing(FinishedBlock),
}

/// See [`super::Module`].
pub struct Corrector {
    blocks: VecDeque<Block>,
    committed_end: u64,
    farewell_said: bool,
    /// Of the last block that was corrected.
    qber: Option<f64>,
}

impl Corrector {
    pub fn new(start: &SessionStart) -> Self {
        Self { blocks: VecDeque::new(), committed_end: start.own_committed_end, farewell_said: false, qber: None }
    }

    pub fn rounds_in_work(&self) -> impl Iterator<Item = &Round> {
        self.blocks.iter().map(|block| &block.round)
    }

    /// A checkpoint must not come yet. Of a block that is closed the next tag says what became of it, so the peer has
    /// to say first that it is prepared; and a block whose reconciliation has not begun is still the open one there.
    pub fn delays_checkpoints(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block.state, State::Closing(_) | State::Sifted))
    }

    /// The peer answers the farewell with its own.
    pub fn is_finished(&self, peer_farewell: bool) -> bool {
        peer_farewell && self.farewell_said
    }

    pub fn take_round(&mut self, round: Round) {
        self.blocks.push_back(Block { round, state: State::Sifted });
    }

    /// What this side starts by itself at the end of a step; gives the number below which blocks are decided.
    pub fn conclude(&mut self, shared: &mut Shared, sifting_over: bool, draft: &mut Draft) -> u64 {
        self.begin_blocks(shared, draft);
        self.close_next(draft);
        if sifting_over && shared.open.is_empty() && self.blocks.is_empty() && !self.farewell_said {
            self.farewell_said = true;
            draft.bundle.farewell = true;
            draft.close_round = true;
        }
        self.committed_end
    }

    /// Starts Cascade on every block that is sifted. A question and its answer take two steps: of two long rounds, that
    /// begin in steps of another parity, each end has work in every step.
    fn begin_blocks(&mut self, shared: &mut Shared, draft: &mut Draft) {
        for block in &mut self.blocks {
            let is_long = block.round.key.len() > LONG_ROUND_BITS;
            let turn = !is_long || (shared.step ^ block.round.block).is_multiple_of(2);
            if !matches!(block.state, State::Sifted) || !turn {
                continue;
            }
            let estimate = self.qber.unwrap_or(shared.config.reconciliation.initial_qber);
            let qber_ppm = (estimate.clamp(QBER_MIN, QBER_MAX) * 1e6) as u32;
            let parameters = Parameters { qber: f64::from(qber_ppm) * 1e-6, seed: shared.rng.next_u64() };
            let frames = round::split(&block.round.key, shared.config.reconciliation.frame_bits as usize);
            let mut corrector = cascade::Corrector::new(frames, &parameters);
            let query = corrector.start().into_bytes();
            draft.stage(block.round.block, Stage::Reconcile, true);
            let begin = Begin { qber_ppm, seed: parameters.seed, query, rounds: shared.open.told(block.round.rounds) };
            draft.say(block.round.block, BlockStep::Begin(begin));
            block.state = State::Reconciling(corrector);
        }
    }

    /// Gives what reconciliation showed, where this message ended it.
    pub fn on_block(
        &mut self,
        message: BlockMessage,
        authenticated: bool,
        shared: &mut Shared,
        draft: &mut Draft,
    ) -> Result<Option<sifting::Reconciled>, ModuleError> {
        if let Some(BlockStep::Kept(rounds)) = message.step {
            shared.open.on_kept(message.block, rounds, authenticated, draft)?;
            return Ok(None);
        }
        let index = self
            .blocks
            .iter()
            .position(|b| b.round.block == message.block)
            .ok_or(ModuleError::Protocol("a message about a block that is not in work"))?;
        match message.step.ok_or(ModuleError::Malformed("block message"))? {
            BlockStep::Answer(answer) => self.on_answer(index, &answer, shared, draft)?,
            BlockStep::Amplify(amplify) => return self.on_amplify(index, &amplify, shared, draft).map(Some),
            BlockStep::Prepared(_) => self.on_prepared(index, authenticated, draft)?,
            _ => return Err(ModuleError::Protocol("a message of the corrector from the reference side")),
        }
        Ok(None)
    }

    fn on_answer(
        &mut self,
        index: usize,
        answer: &[u8],
        shared: &mut Shared,
        draft: &mut Draft,
    ) -> Result<(), ModuleError> {
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
        let key = shared.rng.next_u64();
        let asked = shared.config.security.emission.needs_key_errors();
        let right_before = if asked { round::right_before(&block.round.key, &frames) } else { Vec::new() };
        draft.say(
            number,
            BlockStep::Verify(Verify {
                key,
                right_before,
                tags: frames.iter().map(|f| hash::frame_tag(&f.bits, key)).collect(),
                errors: frames.iter().map(|f| u32::try_from(f.errors).unwrap_or(u32::MAX)).collect(),
            }),
        );
        block.state = State::Verifying(frames);
        Ok(())
    }

    fn on_amplify(
        &mut self,
        index: usize,
        message: &Amplify,
        shared: &mut Shared,
        draft: &mut Draft,
    ) -> Result<sifting::Reconciled, ModuleError> {
        let block = &mut self.blocks[index];
        let reserve = block.round.reserve_bits(shared.config.authentication.tags_per_hash_key);
        let number = block.round.block;
        let State::Verifying(frames) = std::mem::replace(&mut block.state, State::Sifted) else {
            return Err(ModuleError::Protocol("amplification outside verification"));
        };
        if message.good.len() != frames.len() {
            return Err(ModuleError::Protocol("verification of another number of frames"));
        }
        let said = message.key_errors;
        let done = round::reconcile(&block.round, &frames, &message.good, said, &shared.config.security, reserve)?;
        let as_many = |said: KeyErrors| said.signal.checked_add(said.decoy) == Some(done.compared.errors);
        if said.is_some_and(|said| !shared.config.security.emission.needs_key_errors() || !as_many(said)) {
            return Err(ModuleError::Protocol("errors by intensity that are not those that were corrected"));
        }
        let reconciled = block.round.reconciled(done.compared);
        shared.figures.key = done.compared;
        if !done.key.is_empty() {
            self.qber = Some(done.compared.qber());
        }
        draft.stage(number, Stage::Verify, false);
        if let Some(reason) = done.refusal() {
            draft.actions.push(done.abort(&block.round, reason));
            self.blocks.remove(index);
            return Ok(reconciled);
        }
        let length = done.length.chosen as usize;
        let seed_len = amplify::hash_seed_len(done.key.len(), length);
        if message.length != length as u64 || message.seed.len() != seed_len.div_ceil(8) {
            return Err(ModuleError::Protocol("the two ends disagree on the length of the key"));
        }
        draft.stage(number, Stage::Amplify, true);
        let seed = Bits::from_bytes(&message.seed, seed_len);
        let key = amplify::hash(&done.key, &seed, length);
        draft.stage(number, Stage::Amplify, false);
        block.state = State::Amplified(done.finish(&block.round, key, reserve));
        Ok(reconciled)
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
}
