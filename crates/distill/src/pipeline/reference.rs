//! The side that holds the reference string.

use std::collections::VecDeque;

use rand::Rng;
use rand_chacha::ChaCha20Rng;

use super::messages::{Amplify, Begin, BlockMessage, BlockStep, Bundle, Verify};
use super::round::{self, Corrected, Round};
use super::{Action, Draft, FinishedBlock, ModuleError, SessionStart, Shared, Stage};
use crate::amplify;
use crate::bits::Bits;
use crate::cascade::{self, Parameters, Query};
use crate::hash;
use crate::sifting;

/// A block between sifting and the disk.
struct Block {
    round: Round,
    state: State,
}

enum State {
    /// Sifted; the corrector has not begun.
    Sifted,
    Reconciling {
        reference: Box<cascade::Reference>,
        frames: Vec<Bits>,
    },
    /// Amplified; the corrector has not closed the round.
    Amplified(Box<FinishedBlock>),
}

/// See [`super::Module`].
pub struct Reference {
    blocks: VecDeque<Block>,
    in_doubt: Option<u64>,
    /// Blocks below this number are decided, as far as the peer has said; believed when a tag covers it.
    peer_committed_end: u64,
    committed_end: u64,
    /// The peer's farewell, once a tag covers it, ends the session.
    peer_farewell: bool,
}

impl Reference {
    pub fn new(start: &SessionStart) -> Self {
        Self {
            blocks: VecDeque::new(),
            in_doubt: start.in_doubt,
            peer_committed_end: start.peer_committed_end,
            committed_end: start.own_committed_end,
            peer_farewell: false,
        }
    }

    pub fn committed_end(&self) -> u64 {
        self.committed_end
    }

    pub fn rounds_in_work(&self) -> impl Iterator<Item = &Round> {
        self.blocks.iter().map(|block| &block.round)
    }

    /// What the peer says beside the rounds; `open_block` is the first that is not sifted yet.
    pub fn hear(&mut self, bundle: &Bundle, authenticated: bool, open_block: u64, draft: &mut Draft) {
        self.peer_committed_end = self.peer_committed_end.max(bundle.committed_end);
        self.peer_farewell |= bundle.farewell;
        if authenticated {
            self.decide(open_block, draft);
        }
    }

    pub fn is_finished(&self, authenticated: bool) -> bool {
        self.peer_farewell && authenticated
    }

    /// A tag covers everything the peer has said: an undecided block that it has committed is committed here
    /// too; one that it has not committed although it has moved on is void.
    fn decide(&mut self, open_block: u64, draft: &mut Draft) {
        let Some(block) = self.in_doubt else { return };
        // Blocks below this number are not part of this session.
        let first_in_work = self.blocks.front().map_or(open_block, |b| b.round.block);
        if self.peer_committed_end > block {
            draft.actions.push(Action::Commit { block });
            draft.stage(block, Stage::Authenticate, false);
            self.committed_end = block + 1;
            self.in_doubt = None;
        } else if block < first_in_work {
            draft.actions.push(Action::Void { block });
            self.in_doubt = None;
        }
    }

    pub fn take_round(&mut self, round: Round) {
        self.blocks.push_back(Block { round, state: State::Sifted });
    }

    /// Gives what reconciliation showed, where this message ended it.
    pub fn on_block(
        &mut self,
        message: BlockMessage,
        authenticated: bool,
        shared: &mut Shared,
        draft: &mut Draft,
    ) -> Result<Option<sifting::Reconciled>, ModuleError> {
        if let Some(BlockStep::Checkpoint(checkpoint)) = &message.step {
            shared.open.on_checkpoint(message.block, checkpoint, authenticated, draft)?;
            return Ok(None);
        }
        if let Some(BlockStep::Begin(begin)) = &message.step
            && let Some(round) = shared.open.take_begun(message.block, begin.rounds, draft)?
        {
            draft.stage(message.block, Stage::Sift, false);
            self.take_round(round);
        }
        let index = self
            .blocks
            .iter()
            .position(|b| b.round.block == message.block)
            .ok_or(ModuleError::Protocol("a message about a block that is not in work"))?;
        match message.step.ok_or(ModuleError::Malformed("block message"))? {
            BlockStep::Begin(begin) => self.begin(index, &begin, shared, draft)?,
            BlockStep::Query(query) => self.answer(index, &query, draft)?,
            BlockStep::Verify(verify) => return self.verify(index, &verify, shared, draft).map(Some),
            BlockStep::Close(_) => self.close(index, authenticated, draft)?,
            _ => return Err(ModuleError::Protocol("a message of the reference side from the corrector")),
        }
        Ok(None)
    }

    fn begin(&mut self, index: usize, begin: &Begin, shared: &Shared, draft: &mut Draft) -> Result<(), ModuleError> {
        let block = &mut self.blocks[index];
        if !matches!(block.state, State::Sifted) || begin.qber_ppm > 500_000 {
            return Err(ModuleError::Protocol("reconciliation begins twice or with an impossible error rate"));
        }
        let frames = round::split(&block.round.key, shared.config.reconciliation.frame_bits as usize);
        let parameters = Parameters { qber: f64::from(begin.qber_ppm) * 1e-6, seed: begin.seed };
        let reference = Box::new(cascade::Reference::new(frames.clone(), &parameters));
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
    fn verify(
        &mut self,
        index: usize,
        verify: &Verify,
        shared: &mut Shared,
        draft: &mut Draft,
    ) -> Result<sifting::Reconciled, ModuleError> {
        let block = &mut self.blocks[index];
        let reserve = block.round.reserve_bits(shared.config.authentication.tags_per_hash_key);
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
        let security = &shared.config.security;
        let key_errors = match &block.round.decoys {
            Some(decoys) => {
                let counted = round::key_errors(decoys, &verify.right_before, &corrected, &good);
                Some(counted.ok_or(ModuleError::Protocol("places of errors that are not as many as were corrected"))?)
            }
            None => None,
        };
        let done = round::reconcile(&block.round, &corrected, &good, key_errors, security, reserve)?;
        let reconciled = block.round.reconciled(done.compared);
        shared.figures.key = done.compared;
        draft.stage(number, Stage::Verify, false);
        if let Some(reason) = done.refusal() {
            draft.actions.push(done.abort(&block.round, reason));
            draft.say(number, BlockStep::Amplify(Amplify { good, length: 0, seed: Vec::new(), key_errors }));
            self.blocks.remove(index);
            return Ok(reconciled);
        }
        draft.stage(number, Stage::Amplify, true);
        let length = done.length.chosen as usize;
        let seed = random_bits(&mut shared.rng, amplify::hash_seed_len(done.key.len(), length));
        let key = amplify::hash(&done.key, &seed, length);
        draft.stage(number, Stage::Amplify, false);
        draft.stage(number, Stage::Authenticate, true);
        block.state = State::Amplified(Box::new(done.finish(&block.round, key, reserve)));
        let (length, seed) = (length as u64, seed.to_bytes());
        draft.say(number, BlockStep::Amplify(Amplify { good, length, seed, key_errors }));
        Ok(reconciled)
    }

    /// The corrector's tag covers the whole round: the block goes to disk, undecided, and that is said under a tag.
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
    let mut bytes = vec![0; len.div_ceil(64) * 8];
    rng.fill_bytes(&mut bytes);
    Bits::from_bytes(&bytes, len)
}
