//! Blocks that take longer than a session may last.
//!
//! Sifting gives such a block in several rounds. What was sifted since the last *checkpoint* is a [`Stretch`]: bits,
//! evidence and account. The corrector puts it on its disk and says so under a tag, with a digest of all that both ends
//! said of sifting; the reference compares the digest with its own, puts its half on its disk and answers under a tag
//! of its own. So the corrector may have one stretch more than the reference, never more, and never fewer. When a
//! session breaks, what is not closed is void. The next session begins with the stretches that both greetings name, and
//! settles with a pair of tags that these are the ones: what one end has beyond them is given up then and not before,
//! because anybody can forge a greeting.
//!
//! Once the block is sifted its stretches are *spent*, at either end before it tells a parity: a second correction of
//! the same bits would tell more than the bound counts.

use std::collections::VecDeque;

use prost::Message;
use ring::digest::{Context as Sha256, SHA256};

use super::messages::{BlockStep, Checkpoint};
use super::round::Round;
use super::{Action, Draft, ModuleError, Side};
use crate::bits::Bits;
use crate::bounds::{Detections, Evidence};
use crate::ledger::{BlockLedger, Line};
use crate::sifting::{Detected, SiftedRound};

const DOMAIN: &[u8] = b"qkdnet stretch of a block, form 1";

/// What rounds of sifting come to, at one end.
#[derive(Clone, Debug)]
pub struct Material {
    pub frames: u64,
    /// Raw key.
    pub key: Bits,
    pub decoys: Option<Bits>,
    pub evidence: Evidence,
    pub detected: Detected,
    pub account: BlockLedger,
}

impl Material {
    fn of(sifted: SiftedRound) -> Self {
        let SiftedRound { number: _, frames, first_step: _, key, decoys, evidence, detected, account } = sifted;
        Self { frames, key, decoys, evidence, detected, account }
    }

    /// Adds what was sifted later.
    fn add(&mut self, later: &Self) -> Result<(), ModuleError> {
        let evidence = self.evidence.plus(later.evidence);
        self.evidence = evidence.ok_or(ModuleError::Protocol("stretches of one block with other kinds of evidence"))?;
        match (&mut self.decoys, &later.decoys) {
            (Some(decoys), Some(more)) => decoys.extend(more),
            (None, None) => {}
            _ => return Err(ModuleError::Protocol("stretches of one block with and without decoys")),
        }
        self.frames += later.frames;
        self.key.extend(&later.key);
        self.detected = self.detected.plus(later.detected);
        self.account.add(&later.account);
        Ok(())
    }

    fn sum(parts: impl Iterator<Item = Self>) -> Result<Option<Self>, ModuleError> {
        let mut sum: Option<Self> = None;
        for part in parts {
            match &mut sum {
                Some(sum) => sum.add(&part)?,
                None => sum = Some(part),
            }
        }
        Ok(sum)
    }
}

/// What was sifted of a block from one checkpoint to the next, at one end.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Rounds of sifting of the block until its end, those of earlier stretches included.
    pub rounds: u64,
    /// Pairs of tags that the block has cost until then.
    pub tag_pairs: u64,
    /// What the link was configured as ([`Hello::protocol`](super::Hello)): stretches of another configuration make no
    /// block together.
    pub protocol: u64,
    /// Of what both ends said of sifting, of what came of it, and of the stretch before; equal at both ends.
    pub digest: [u8; 32],
    pub material: Material,
}

/// A stretch as greetings name it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Offer {
    #[prost(uint64, tag = "1")]
    pub rounds: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

impl Offer {
    pub fn new(rounds: u64, digest: &[u8; 32]) -> Self {
        Self { rounds, digest: digest.to_vec() }
    }
}

/// Stretches that a greeting names, the last ones: either end may have one more than the other.
pub const OFFERS: usize = 2;

/// Rounds of the last stretch that both ends name; 0 where there is none.
pub fn agreed(own: &[Offer], peer: &[Offer]) -> u64 {
    own.iter().take(OFFERS).filter(|offer| peer.contains(offer)).map(|offer| offer.rounds).max().unwrap_or(0)
}

/// Running digests of what each end said of sifting in this session.
#[derive(Clone)]
struct Transcript {
    own: Sha256,
    /// Without what was said in the last step, which the peer had not heard when it spoke.
    own_before: Sha256,
    peer: Sha256,
}

impl Transcript {
    fn new() -> Self {
        let empty = Sha256::new(&SHA256);
        Self { own: empty.clone(), own_before: empty.clone(), peer: empty }
    }
}

fn absorb(hash: &mut Sha256, step: u64, message: &[u8]) {
    hash.update(&step.to_le_bytes());
    hash.update(&(message.len() as u64).to_le_bytes());
    hash.update(message);
}

/// Evidence as numbers of which each kind has its own count.
fn numbers_of(evidence: &Evidence) -> Vec<u64> {
    match *evidence {
        Evidence::CheckBits { bits, errors } => vec![0, bits, errors],
        Evidence::Decoy(intensities) => {
            let of_one = |detections: &Detections| {
                let Detections { key, key_errors, check } = *detections;
                [key, u64::from(key_errors.is_some()), key_errors.unwrap_or(0), check.bits, check.errors]
            };
            std::iter::once(1).chain(intensities.iter().flat_map(of_one)).collect()
        }
        Evidence::SinglePhoton { pulses, key, check } => vec![2, pulses, key, check.bits, check.errors],
        Evidence::TwinField(heralds) => std::iter::once(3).chain(heralds.counts()).collect(),
    }
}

/// The block that is being sifted.
pub struct OpenBlock {
    side: Side,
    number: u64,
    /// Rounds of sifting that make a block.
    rounds: u64,
    /// Of the first block, from earlier sessions.
    carried: u64,
    first_block: u64,
    protocol: u64,
    /// What is closed of it.
    kept: Option<Material>,
    kept_rounds: u64,
    tag_pairs: u64,
    digest: [u8; 32],
    /// What is not, in the order of rounds; at the reference the first of the next block may follow.
    sifted: VecDeque<SiftedRound>,
    /// The two ends know of each other with which stretches the session began.
    settled: bool,
    /// Corrector: block and rounds of the checkpoint that is not answered.
    awaited: Option<(u64, u64)>,
    /// Where blocks have several rounds.
    transcript: Option<Transcript>,
    pub peer_light_over: bool,
}

impl OpenBlock {
    pub fn new(side: Side, first_block: u64, rounds: u64) -> Self {
        let rounds = rounds.max(1);
        Self {
            side,
            number: first_block,
            rounds,
            carried: 0,
            first_block,
            protocol: 0,
            kept: None,
            kept_rounds: 0,
            tag_pairs: 0,
            digest: [0; 32],
            sifted: VecDeque::new(),
            settled: true,
            awaited: None,
            transcript: (rounds > 1).then(Transcript::new),
            peer_light_over: false,
        }
    }

    /// What the link is configured as.
    pub fn of_protocol(&mut self, protocol: u64) {
        self.protocol = protocol;
    }

    /// Begins with stretches of earlier sessions. Whether or not there are any, both ends settle it first.
    pub fn carry(&mut self, stretches: Vec<Stretch>) -> Result<(), ModuleError> {
        if self.rounds == 1 {
            return Ok(());
        }
        self.settled = false;
        if let Some(last) = stretches.last() {
            (self.kept_rounds, self.tag_pairs, self.digest) = (last.rounds, last.tag_pairs, last.digest);
            self.carried = last.rounds;
        }
        self.kept = Material::sum(stretches.into_iter().map(|stretch| stretch.material))?;
        Ok(())
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Rounds of it that are closed.
    pub fn kept_rounds(&self) -> u64 {
        self.kept_rounds
    }

    /// Block of a round of this session's sifting.
    pub fn block_of(&self, round: u64) -> u64 {
        self.first_block + (self.carried + round) / self.rounds
    }

    /// Whether a block begins with this round, or the session's part of one.
    pub fn begins_with(&self, round: u64) -> bool {
        round == 0 || (self.carried + round).is_multiple_of(self.rounds)
    }

    pub fn hears(&mut self, step: u64, message: &[u8]) {
        if let Some(transcript) = &mut self.transcript {
            absorb(&mut transcript.peer, step, message);
        }
    }

    /// What this end says in a step, nothing included.
    pub fn says(&mut self, step: u64, message: &[u8]) {
        if let Some(transcript) = &mut self.transcript {
            transcript.own_before = transcript.own.clone();
            if !message.is_empty() {
                absorb(&mut transcript.own, step, message);
            }
        }
    }

    pub fn push(&mut self, sifted: SiftedRound) {
        self.sifted.push_back(sifted);
    }

    /// The block, where this end sees by itself that all of it is sifted: the reference of a block of several rounds
    /// waits for the corrector's word, because a checkpoint may come before it.
    pub fn take_full(&mut self, draft: &mut Draft) -> Result<Option<Round>, ModuleError> {
        let sees = self.rounds == 1 || self.side == Side::Corrector;
        let full = self.kept_rounds + self.sifted.len() as u64 >= self.rounds;
        if sees && full && self.settled { self.take(self.rounds, draft).map(Some) } else { Ok(None) }
    }

    /// Corrector: what there is, once the light is over.
    pub fn take_rest(&mut self, draft: &mut Draft) -> Result<Option<Round>, ModuleError> {
        let rounds = self.kept_rounds + self.sifted.len() as u64;
        if self.settled && rounds > 0 { self.take(rounds, draft).map(Some) } else { Ok(None) }
    }

    /// Corrector: nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.kept_rounds == 0 && self.sifted.is_empty()
    }

    /// Rounds of a block as the corrector tells the reference; 0 where it knows.
    pub fn told(&self, rounds: u64) -> u64 {
        if self.rounds == 1 { 0 } else { rounds }
    }

    /// Reference: the corrector begins to reconcile a block of this many rounds.
    pub fn take_begun(&mut self, block: u64, rounds: u64, draft: &mut Draft) -> Result<Option<Round>, ModuleError> {
        if self.rounds == 1 || block != self.number {
            return Ok(None);
        }
        let there = self.kept_rounds + self.sifted.len() as u64;
        let whole = rounds == self.rounds || (rounds < self.rounds && self.peer_light_over);
        if !self.settled || rounds == 0 || rounds < self.kept_rounds || rounds > there || !whole {
            return Err(ModuleError::Protocol("reconciliation of a block that is not sifted"));
        }
        self.take(rounds, draft).map(Some)
    }

    /// Ends the block with this many rounds, which are there.
    fn take(&mut self, rounds: u64, draft: &mut Draft) -> Result<Round, ModuleError> {
        let fresh = (rounds - self.kept_rounds) as usize;
        let first_step = self.sifted.front().map_or(0, |round| round.first_step);
        let of_session = self.sifted.iter().take(fresh).map(|round| round.frames).sum();
        let parts = self.kept.take().into_iter().chain(self.sifted.drain(..fresh).map(Material::of));
        let material = Material::sum(parts)?.ok_or(ModuleError::Protocol("a block without a round"))?;
        if self.kept_rounds > 0 {
            draft.actions.push(Action::Spend { block: self.number });
        }
        let round = Round::new(self.number, rounds, (first_step, of_session), self.tag_pairs, material);
        self.number += 1;
        (self.kept_rounds, self.tag_pairs, self.digest) = (0, 0, [0; 32]);
        Ok(round)
    }

    /// Corrector, at the end of a step: closes what was sifted under a tag, or says first with what the session began.
    pub fn checkpoint(&mut self, draft: &mut Draft) -> Result<(), ModuleError> {
        if self.rounds == 1 || self.awaited.is_some() || (self.settled && self.sifted.is_empty()) {
            return Ok(());
        }
        if self.settled {
            let rounds = self.kept_rounds + self.sifted.len() as u64;
            let stretch = self.close(rounds, true)?;
            draft.actions.push(Action::Keep { block: self.number, stretch });
        }
        let (rounds, digest) = (self.kept_rounds, self.digest.to_vec());
        self.awaited = Some((self.number, rounds));
        draft.say(self.number, BlockStep::Checkpoint(Checkpoint { rounds, digest }));
        draft.close_round = true;
        Ok(())
    }

    /// Reference: the corrector's tag closes a stretch, or says with which ones the session began.
    pub fn on_checkpoint(
        &mut self,
        block: u64,
        checkpoint: &Checkpoint,
        authenticated: bool,
        draft: &mut Draft,
    ) -> Result<(), ModuleError> {
        if !authenticated {
            return Err(ModuleError::Protocol("a checkpoint without a tag"));
        }
        let Checkpoint { rounds, ref digest } = *checkpoint;
        if self.rounds == 1 || block != self.number {
            return Err(ModuleError::Protocol("a checkpoint of a block that is not being sifted"));
        }
        if self.settled {
            let there = self.kept_rounds + self.sifted.len() as u64;
            if rounds <= self.kept_rounds || rounds > there || rounds >= self.rounds {
                return Err(ModuleError::Protocol("a checkpoint of rounds that are closed, or not sifted"));
            }
            let stretch = self.close(rounds, false)?;
            if stretch.digest.as_slice() != digest.as_slice() {
                return Err(ModuleError::Protocol("a checkpoint of something else than was sifted here"));
            }
            draft.actions.push(Action::Keep { block, stretch });
        } else {
            if rounds != self.kept_rounds || digest.as_slice() != self.digest.as_slice() {
                return Err(ModuleError::Protocol("the session began with other stretches there"));
            }
            self.settle(draft);
        }
        draft.say(block, BlockStep::Kept(rounds));
        draft.close_round = true;
        Ok(())
    }

    /// Corrector: the reference's tag says that it has its half.
    pub fn on_kept(
        &mut self,
        block: u64,
        rounds: u64,
        authenticated: bool,
        draft: &mut Draft,
    ) -> Result<(), ModuleError> {
        if !authenticated {
            return Err(ModuleError::Protocol("an answer to a checkpoint without a tag"));
        }
        if self.awaited.take() != Some((block, rounds)) {
            return Err(ModuleError::Protocol("an answer to a checkpoint that was not said"));
        }
        if !self.settled {
            self.settle(draft);
        }
        Ok(())
    }

    fn settle(&mut self, draft: &mut Draft) {
        self.settled = true;
        self.tag_pairs += 1;
        draft.actions.push(Action::Settle { block: self.number, rounds: self.kept_rounds });
    }

    /// Closes the block's rounds up to this one: what of them was open is one stretch. `now` where the digest is of
    /// what was said up to this step, and not of what the peer knew when it spoke.
    fn close(&mut self, rounds: u64, now: bool) -> Result<Stretch, ModuleError> {
        let fresh = (rounds - self.kept_rounds) as usize;
        let material = Material::sum(self.sifted.drain(..fresh).map(Material::of))?;
        let material = material.ok_or(ModuleError::Protocol("a checkpoint of nothing"))?;
        self.tag_pairs += 1;
        self.kept_rounds = rounds;
        self.digest = self.digest(&material, now);
        match &mut self.kept {
            Some(kept) => kept.add(&material)?,
            None => self.kept = Some(material.clone()),
        }
        let (tag_pairs, protocol, digest) = (self.tag_pairs, self.protocol, self.digest);
        Ok(Stretch { rounds, tag_pairs, protocol, digest, material })
    }

    fn digest(&self, material: &Material, now: bool) -> [u8; 32] {
        let mut hash = Sha256::new(&SHA256);
        hash.update(DOMAIN);
        hash.update(&self.digest);
        let numbers = [self.protocol, self.kept_rounds, self.tag_pairs, material.frames, material.key.len() as u64];
        numbers.into_iter().for_each(|number| hash.update(&number.to_le_bytes()));
        numbers_of(&material.evidence).into_iter().for_each(|number| hash.update(&number.to_le_bytes()));
        if let Some(Transcript { own, own_before, peer }) = &self.transcript {
            let own = if now { own } else { own_before };
            let (reference, corrector) = if self.side == Side::Reference { (own, peer) } else { (peer, own) };
            hash.update(reference.clone().finish().as_ref());
            hash.update(corrector.clone().finish().as_ref());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        digest
    }

    /// The session broke: what of it is not closed is given up, with the rounds that sifting has not given.
    pub fn void(&mut self, not_given: Vec<(u64, BlockLedger)>) -> Vec<(u64, BlockLedger)> {
        let mut voided: Vec<(u64, BlockLedger)> = Vec::new();
        let mut add = |block: u64, account: BlockLedger| match voided.last_mut() {
            Some((last, sum)) if *last == block => {
                sum.add(&account);
                sum.set(Line::BLOCKS_VOIDED, 1);
            }
            _ => voided.push((block, account)),
        };
        for (place, round) in self.sifted.drain(..).enumerate() {
            let mut account = round.account;
            account.void();
            add(self.number + (self.kept_rounds + place as u64) / self.rounds, account);
        }
        for (round, account) in not_given {
            add(self.first_block + (self.carried + round) / self.rounds, account);
        }
        // A block of which something is left is not void.
        if self.kept_rounds > 0
            && let Some((_, account)) = voided.iter_mut().find(|(block, _)| *block == self.number)
        {
            account.set(Line::BLOCKS_VOIDED, 0);
        }
        voided
    }
}
