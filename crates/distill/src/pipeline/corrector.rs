//! The side that corrects its string, closes rounds and decides which blocks count.

use std::collections::VecDeque;

use rand::Rng;

use super::messages::{Amplify, Begin, BlockMessage, BlockStep, KeyErrors, Verify};
use super::replay::{self, Replay};
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
    /// Where the block is kept beyond the session.
    replay: Option<Replay>,
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
    /// to say first that it is prepared; a block whose reconciliation has not begun is still the open one there; and
    /// of one block alone something is kept.
    pub fn delays_checkpoints(&self) -> bool {
        self.blocks
            .iter()
            .any(|block| matches!(block.state, State::Closing(_) | State::Sifted) || block.replay.is_some())
    }

    /// The block in work that is kept beyond the session, and rounds of sifting that it is of.
    pub fn kept(&self) -> Option<(u64, u64)> {
        let kept = self.blocks.iter().find(|block| block.replay.is_some());
        kept.map(|block| (block.round.block, block.round.rounds))
    }

    /// The peer answers the farewell with its own.
    pub fn is_finished(&self, peer_farewell: bool) -> bool {
        peer_farewell && self.farewell_said
    }

    pub fn take_round(&mut self, mut round: Round) {
        let replay = round.begun.take().map(Replay::new);
        self.blocks.push_back(Block { round, state: State::Sifted, replay });
    }

    /// What this side starts by itself at the end of a step; gives the number below which blocks are decided.
    pub fn conclude(&mut self, shared: &mut Shared, sifting_over: bool, draft: &mut Draft) -> Result<u64, ModuleError> {
        self.begin_blocks(shared, draft)?;
        self.close_next(draft);
        if sifting_over && shared.open.is_empty() && self.blocks.is_empty() && !self.farewell_said {
            self.farewell_said = true;
            draft.bundle.farewell = true;
            draft.close_round = true;
        }
        Ok(self.committed_end)
    }

    /// Starts Cascade on every block that is sifted. A question and its answer take two steps: of two long rounds, that
    /// begin in steps of another parity, each end has work in every step.
    fn begin_blocks(&mut self, shared: &mut Shared, draft: &mut Draft) -> Result<(), ModuleError> {
        for block in &mut self.blocks {
            let is_long = block.round.key.len() > LONG_ROUND_BITS;
            // The digest of one that is kept is of what was said up to this step.
            let turn = !is_long || block.replay.is_some() || (shared.step ^ block.round.block).is_multiple_of(2);
            if !matches!(block.state, State::Sifted) || !turn {
                continue;
            }
            let estimate = self.qber.unwrap_or(shared.config.reconciliation.initial_qber);
            let draw = || {
                let qber_ppm = (estimate.clamp(QBER_MIN, QBER_MAX) * 1e6) as u32;
                [&qber_ppm.to_le_bytes()[..], &shared.rng.next_u64().to_le_bytes()].concat()
            };
            let drawn = replay::draw(&mut block.replay, block.round.block, draw, draft);
            let (qber_ppm, seed) = parameters_of(&drawn)?;
            let parameters = Parameters { qber: f64::from(qber_ppm) * 1e-6, seed };
            let frames = round::split(&block.round.key, shared.config.reconciliation.frame_bits as usize);
            let mut corrector = cascade::Corrector::new(frames, &parameters);
            let query = corrector.start().into_bytes();
            draft.stage(block.round.block, Stage::Reconcile, true);
            let begin = Begin { qber_ppm, seed: parameters.seed, query, rounds: shared.open.told(block.round.rounds) };
            draft.say(block.round.block, BlockStep::Begin(begin));
            block.state = State::Reconciling(corrector);
        }
        Ok(())
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
        let step = message.step.ok_or(ModuleError::Malformed("block message"))?;
        if matches!(step, BlockStep::Answer(_) | BlockStep::Amplify(_)) {
            replay::hear(&mut self.blocks[index].replay, message.block, &step, draft)?;
        }
        match step {
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
        let draw = || shared.rng.next_u64().to_le_bytes().to_vec();
        let drawn = replay::draw(&mut block.replay, number, draw, draft);
        let key = u64::from_le_bytes(drawn.try_into().map_err(|_| ModuleError::OtherWay)?);
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
        replay::check_ended(&block.replay)?;
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
            replay::spend(&block.replay, number, draft);
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
            Some(Block { state: State::Closing(finished), replay, .. }) => {
                draft.stage(finished.number, Stage::Authenticate, false);
                // Before it counts: the other way round a crash would leave a block that counts and may begin again.
                replay::spend(&replay, finished.number, draft);
                self.committed_end = finished.number + 1;
                draft.actions.push(Action::Store(finished));
                Ok(())
            }
            _ => Err(ModuleError::Protocol("\"prepared\" for a round that is not closing")),
        }
    }
}

/// What a corrector draws when it begins.
fn parameters_of(drawn: &[u8]) -> Result<(u32, u64), ModuleError> {
    let (qber_ppm, seed) = drawn.split_first_chunk::<4>().ok_or(ModuleError::OtherWay)?;
    let seed = seed.try_into().map_err(|_| ModuleError::OtherWay)?;
    Ok((u32::from_le_bytes(*qber_ppm), u64::from_le_bytes(seed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::Evidence;
    use crate::ledger::BlockLedger;
    use crate::pipeline::{Begun, Material};
    use crate::sifting::Detected;

    fn delays(state: State, kept: bool) -> bool {
        let start = SessionStart {
            first_block: 0,
            in_doubt: None,
            peer_committed_end: 0,
            own_committed_end: 0,
            latency_steps: 8,
            setpoints: Default::default(),
        };
        let mut corrector = Corrector::new(&start);
        assert!(!corrector.delays_checkpoints(), "nothing is in work");
        let (key, account) = (Bits::zeros(64), BlockLedger::default());
        let evidence = Evidence::CheckBits { bits: 0, errors: 0 };
        let material = Material { frames: 1, key, decoys: None, evidence, detected: Detected::default(), account };
        let mut round = Round::new(0, 2, (0, 1), 0, material);
        round.begun = kept.then(Begun::default);
        corrector.take_round(round);
        corrector.blocks[0].state = state;
        corrector.delays_checkpoints()
    }

    #[test]
    fn a_checkpoint_waits_for_the_begin_of_the_block_before_it_and_while_that_one_is_kept() {
        let reconciling = || {
            let parameters = Parameters { qber: 0.02, seed: 1 };
            State::Reconciling(cascade::Corrector::new(vec![Bits::zeros(64)], &parameters))
        };
        assert!(delays(State::Sifted, false), "its begin is still to be said");
        assert!(!delays(reconciling(), false));
        assert!(delays(reconciling(), true), "one block at a time is kept");
        assert!(!delays(State::Verifying(Vec::new()), false));
    }
}
