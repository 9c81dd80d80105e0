//! The end that decides: where in the stream a block counts, and what a range is for.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, bail};
use keystore::{Grant, Secret, StoreError, Use};
use proto::kms::v1::{self as wire, Confirm, ConfirmResult, Confirmed, Granted, PairHello, pair_message::Message};
use tokio::sync::mpsc;

use super::tag::{self, BlockTags, CONFIRMATION_BYTES};
use super::unmatched::{Blocks, all_offered, give_up};
use super::*;
use crate::share;

const GRANTS_MAX: usize = 8;

/// A block on its way to being confirmed.
struct Proposal {
    block: [u8; 16],
    start: u64,
    tags: BlockTags,
}

/// Bytes granted to each use, where what is long ago counts less and less.
#[derive(Default)]
struct Given([u64; 4]);

impl Given {
    /// After so many bytes all counts are halved.
    const MEMORY_BYTES: u64 = 1 << 20;

    fn of(&self, use_: Use) -> u64 {
        self.0[use_.index()]
    }

    fn add(&mut self, use_: Use, bytes: u64) {
        self.0[use_.index()] += bytes;
        if self.0.iter().sum::<u64>() > Self::MEMORY_BYTES {
            self.0.iter_mut().for_each(|given| *given /= 2);
        }
    }
}

/// Coordinates until the stream ends.
pub async fn coordinate(pool: &Pool, stream: PairStream, shares: &mut mpsc::Receiver<ShareOut>) -> Result<()> {
    let mut line = Line::new(stream);
    let mut hello = pool.hello().await?;
    hello.id_secret = id_secret(pool).await?.expose().to_vec().into();
    line.say(Message::Hello(hello))?;
    let theirs = line.hear_hello().await?;
    catch_up(pool, &theirs).await?;
    // What the follower had stored and this end had not is at both ends now.
    for grant in &theirs.ahead_grants {
        line.say(Message::Granted(Granted { seq: grant.seq }))?;
    }
    let _connected = Connected::new(pool);
    let mut dialogue = Coordinator {
        pool,
        blocks: Blocks::default(),
        unseen: true,
        ready: VecDeque::new(),
        proposals: VecDeque::new(),
        next_start: pool.levels().end_bytes,
        settling: false,
        given: Given::default(),
        grants: VecDeque::new(),
        theirs: None,
    };
    let mut waiting = BTreeMap::new();
    let mut pulse = tokio::time::interval(PULSE);
    let mut pulses = 0u64;
    loop {
        let pulsed = tokio::select! {
            message = line.hear() => {
                match message? {
                    Message::BlockHere(here) => {
                        dialogue.blocks.hear(pool, &mut line, here).await?;
                        dialogue.unseen = true;
                    }
                    Message::MissingAnswer(answer) => dialogue.blocks.answered(pool, &answer).await?,
                    Message::Confirmed(first) => {
                        let mut row = vec![first];
                        row.extend(line.hear_more(PROPOSALS_MAX - 1, |message| match message {
                            Message::Confirmed(confirmed) => Some(confirmed.clone()),
                            _ => None,
                        }));
                        dialogue.confirmed(&mut line, &row).await?;
                    }
                    Message::Granted(Granted { seq }) => dialogue.granted(&mut line, seq).await?,
                    Message::Levels(levels) => dialogue.theirs = Some(levels),
                    Message::Share(theirs) => {
                        line.say(Message::ShareTaken(share::take(pool, theirs).await))?;
                    }
                    Message::ShareTaken(answer) => share_taken(&mut waiting, &answer),
                    _ => bail!("the follower said something out of turn"),
                }
                false
            }
            Some(out) = shares.recv() => {
                send_share(&mut line, &mut waiting, out)?;
                false
            }
            () = pool.wake.notified() => {
                dialogue.unseen = true;
                false
            }
            _ = pulse.tick() => true,
        };
        if pulsed {
            line.check()?;
            // So that the follower hears something, too.
            let levels = pool.own_levels(true);
            if line.is_said() {
                line.say(Message::Levels(levels))?;
            }
            pulses += 1;
            if pulses.is_multiple_of(PULSES_PER_LOOK) {
                dialogue.look(&mut line).await?;
            }
        }
        dialogue.propose(&mut line).await?;
        dialogue.assign(&mut line)?;
    }
}

/// The pair's secret for key IDs, made at the first meeting.
async fn id_secret(pool: &Pool) -> Result<Secret> {
    if let Some(secret) = pool.store.meta_get(&pool.peer, META_SECRET).await.context("read the ID secret")? {
        return Ok(secret);
    }
    let secret = crate::seal::random(ID_SECRET_BYTES)?;
    pool.store.meta_put(&pool.peer, META_SECRET, secret.clone()).await.context("keep the ID secret")?;
    pool.set_ids(&secret)?;
    Ok(secret)
}

/// Brings this end to where the follower is.
async fn catch_up(pool: &Pool, theirs: &PairHello) -> Result<()> {
    pool.void_to(theirs.generation, "a site has lost its store, or the two are out of step").await?;
    pool.remember_instance(&theirs.instance).await?;
    let generation = pool.levels().generation;
    let followed = async {
        for placed in &theirs.ahead_blocks {
            let (block, deducted) = (id(&placed.block)?, CONFIRMATION_BYTES as u64);
            pool.store.confirm(&pool.peer, block, generation, placed.start, deducted).await?;
        }
        for grant in &theirs.ahead_grants {
            let use_ = use_of(grant.purpose()).context("a grant for no use")?;
            store_grant(pool, grant.seq, use_, grant.start, grant.bytes).await?;
        }
        let levels = pool.levels();
        let same = (levels.generation, levels.end_bytes, levels.next_grant)
            == (theirs.generation, theirs.stream_end, theirs.grants);
        if same { Ok(()) } else { bail!("the follower is somewhere else") }
    };
    if let Err(error) = followed.await {
        // The next greeting finds the generations apart, and both ends start anew.
        pool.void_to(generation + 1, "the follower cannot be followed").await?;
        return Err(error).context("catch up with the follower");
    }
    Ok(())
}

async fn store_grant(pool: &Pool, seq: u64, use_: Use, start: u64, bytes: u64) -> Result<(), StoreError> {
    let generation = pool.levels().generation;
    let grant = Grant { generation, seq, use_, start, bytes, granted_ms: crate::now_ms(), active: true };
    pool.store.grant(&pool.peer, grant).await?;
    Ok(())
}

struct Coordinator<'p> {
    pool: &'p Pool,
    blocks: Blocks,
    /// There may be a block at both ends that was not proposed.
    unseen: bool,
    /// Blocks at both ends that are to be proposed next, and their lengths.
    ready: VecDeque<([u8; 16], u64)>,
    proposals: VecDeque<Proposal>,
    next_start: u64,
    /// A proposal was not taken, so those after it will not be either: wait until all are answered.
    settling: bool,
    /// What each use was given lately, so that none takes all while another waits.
    given: Given,
    grants: VecDeque<wire::Grant>,
    /// Nothing is assigned before the follower has said what it needs.
    theirs: Option<wire::Levels>,
}

impl Coordinator<'_> {
    /// Proposes blocks that both ends hold.
    async fn propose(&mut self, line: &mut Line) -> Result<()> {
        if self.settling || self.blocks.is_empty() {
            return Ok(());
        }
        let mut row: Vec<[u8; 16]> = Vec::new();
        let mut proposed_bytes = self.proposals.front().map_or(0, |first| self.next_start - first.start);
        while self.proposals.len() + row.len() < PROPOSALS_MAX && proposed_bytes < PROPOSED_BYTES_MAX {
            match self.ready.pop_front() {
                Some((block, _)) if row.contains(&block) || self.is_proposed(&block) => {}
                Some((block, bytes)) if self.blocks.is_here(&block) => {
                    row.push(block);
                    proposed_bytes += bytes;
                }
                Some(_) => {}
                // What waits is listed once for all that will be proposed of it: the list may be long.
                None if std::mem::take(&mut self.unseen) => {
                    let offered = all_offered(self.pool).await?.into_iter().map(|block| (block.id, block.bytes));
                    self.ready = offered.filter(|(block, _)| self.blocks.is_here(block)).collect();
                }
                None => break,
            }
        }
        // Asked for of all before the first is waited for.
        let keys: Vec<_> = row.iter().map(|block| self.pool.store.offered_key(&self.pool.peer, *block)).collect();
        for (block, key) in row.into_iter().zip(keys) {
            self.propose_block(line, block, key.await).await?;
        }
        Ok(())
    }

    fn is_proposed(&self, block: &[u8; 16]) -> bool {
        self.proposals.iter().any(|proposal| proposal.block == *block)
    }

    /// Brings blocks to an end that one end alone has.
    async fn look(&mut self, line: &mut Line) -> Result<()> {
        let proposals = &self.proposals;
        let proposed = |block: &[u8; 16]| proposals.iter().any(|proposal| proposal.block == *block);
        self.blocks.look(self.pool, line, proposed).await
    }

    async fn propose_block(&mut self, line: &mut Line, block: [u8; 16], key: Result<Secret, StoreError>) -> Result<()> {
        let key = match key {
            Ok(key) => key,
            // Voided in the meantime.
            Err(StoreError::UnknownBlock | StoreError::BlockConflict { .. }) => return Ok(()),
            Err(error) => return Err(error).context("read an offered block"),
        };
        let Some(tags) = BlockTags::of(&block, &key) else {
            self.blocks.remove(&block);
            let quarantined = self.pool.store.quarantine(&self.pool.peer, block, "too short to be confirmed").await;
            quarantined.context("quarantine a block")?;
            return give_up(line, block, "too short to be confirmed");
        };
        let bytes = (key.len() - CONFIRMATION_BYTES) as u64;
        let confirm = Confirm {
            block: block.to_vec().into(),
            generation: self.pool.levels().generation,
            start: self.next_start,
            bytes,
            tag: tags.coordinators().to_vec().into(),
        };
        self.proposals.push_back(Proposal { block, start: self.next_start, tags });
        self.next_start += bytes;
        line.say(Message::Confirm(confirm))
    }

    /// The follower has decided on a row of blocks: those that count there count here with one commit.
    async fn confirmed(&mut self, line: &mut Line, row: &[Confirmed]) -> Result<()> {
        let mut counting = Vec::with_capacity(row.len());
        for answer in row {
            counting.extend(self.answered(answer).await?);
        }
        // So that the follower is at work, too, while this end waits for its disk.
        self.propose(line).await?;
        let (store, peer, generation) = (&self.pool.store, &self.pool.peer, self.pool.levels().generation);
        let confirm =
            |(block, start): ([u8; 16], u64)| store.confirm(peer, block, generation, start, CONFIRMATION_BYTES as u64);
        let confirming: Vec<_> = counting.into_iter().map(confirm).collect();
        for confirmed in confirming {
            confirmed.await.context("confirm a block")?;
            shell::failpoint::hit("pair.confirmed");
            self.pool.advanced();
        }
        if self.proposals.is_empty() {
            self.settling = false;
            self.unseen = true;
            self.next_start = self.pool.levels().end_bytes;
        }
        Ok(())
    }

    /// The block and its place, if it counts at the follower.
    async fn answered(&mut self, answer: &Confirmed) -> Result<Option<([u8; 16], u64)>> {
        let block = id(&answer.block)?;
        let proposal = self.proposals.pop_front().filter(|proposal| proposal.block == block);
        let proposal = proposal.context("the follower answered what was not proposed")?;
        let (store, peer) = (&self.pool.store, &self.pool.peer);
        match answer.result() {
            ConfirmResult::Confirmed => {
                if !tag::equal(proposal.tags.followers(), &answer.tag) {
                    bail!("the follower's tag does not verify");
                }
                self.blocks.remove(&block);
                return Ok(Some((block, proposal.start)));
            }
            ConfirmResult::NotYet => {
                if !self.settling {
                    self.blocks.remove(&block);
                }
                self.settling = true;
            }
            ConfirmResult::Mismatch => {
                tracing::error!(peer, "the two ends of a block differ: it is quarantined");
                store.quarantine(peer, block, "the two ends differ").await.context("quarantine a block")?;
                self.blocks.remove(&block);
                self.settling = true;
            }
            ConfirmResult::Unspecified => bail!("the follower's answer says nothing"),
        }
        Ok(None)
    }

    /// Gives each use what it should have, the one that had least of late first.
    fn assign(&mut self, line: &mut Line) -> Result<()> {
        while self.grants.len() < GRANTS_MAX {
            let levels = self.pool.levels();
            let pending: u64 = self.grants.iter().map(|grant| grant.bytes).sum();
            let start = levels.granted_end_bytes + pending;
            let unassigned = levels.end_bytes - start;
            let Some((use_, bytes)) = self.next_grant(unassigned) else { return Ok(()) };
            self.given.add(use_, bytes);
            let seq = levels.next_grant + self.grants.len() as u64;
            let purpose = wire_use(use_).into();
            let grant = wire::Grant { seq, generation: levels.generation, start, bytes, purpose };
            self.grants.push_back(grant);
            line.say(Message::Grant(grant))?;
        }
        Ok(())
    }

    fn next_grant(&self, unassigned: u64) -> Option<(Use, u64)> {
        let ours = self.pool.own_levels(false);
        let theirs = self.theirs.as_ref()?;
        let uses = [
            (Use::SupplyOut, ours.supply_out_bytes, ours.supply_wanted_bytes),
            (Use::SupplyIn, theirs.supply_out_bytes, theirs.supply_wanted_bytes),
            (Use::RelayOut, ours.relay_out_bytes, ours.relay_wanted_bytes),
            (Use::RelayIn, theirs.relay_out_bytes, theirs.relay_wanted_bytes),
        ];
        let has = |use_: Use, left: u64| {
            let coming = self.grants.iter().filter(|grant| grant.purpose == i32::from(wire_use(use_)));
            left + coming.map(|grant| grant.bytes).sum::<u64>()
        };
        let mut needy: Vec<(Use, u64)> = uses
            .into_iter()
            .map(|(use_, left, target)| (use_, has(use_, left), target))
            .filter(|(_, has, target)| has * 2 < *target)
            .map(|(use_, has, target)| (use_, target - has))
            .collect();
        needy.sort_by_key(|(use_, _)| self.given.of(*use_));
        // Where there is not enough for all, it is shared.
        let share = (unassigned / needy.len().max(1) as u64).max(GRANT_BYTES_MIN);
        let mut waiting: Vec<(u64, u64)> = Vec::new();
        for (use_, missing) in needy {
            let unit = match use_ {
                Use::SupplyOut | Use::SupplyIn => GRANT_UNIT_BYTES,
                // Small blocks would make pieces that are too short for a pad.
                Use::RelayOut | Use::RelayIn => self.pool.relay_pad_bytes.max(GRANT_UNIT_BYTES),
            };
            let given = self.given.of(use_);
            let owed: u64 = waiting.iter().map(|(before, unit)| (given - before).min(*unit)).sum();
            let bytes = missing.min(share.max(unit)).min(unassigned.saturating_sub(owed)) / unit * unit;
            if bytes > 0 {
                return Some((use_, bytes));
            }
            // Key gathers for it meanwhile: as much as those behind it have had more.
            waiting.push((given, unit));
        }
        None
    }

    /// The follower has the grant on its disk: now this end, and then both may use it.
    async fn granted(&mut self, line: &mut Line, seq: u64) -> Result<()> {
        let grant = self.grants.pop_front().filter(|grant| grant.seq == seq);
        let grant = grant.context("the follower answered what was not granted")?;
        let use_ = use_of(grant.purpose()).context("a grant for no use")?;
        store_grant(self.pool, seq, use_, grant.start, grant.bytes).await.context("store a grant")?;
        shell::failpoint::hit("pair.granted");
        // Counted here until the follower says its levels anew.
        if let Some(theirs) = &mut self.theirs {
            match use_ {
                Use::SupplyIn => theirs.supply_out_bytes += grant.bytes,
                Use::RelayIn => theirs.relay_out_bytes += grant.bytes,
                Use::SupplyOut | Use::RelayOut => {}
            }
        }
        self.pool.advanced();
        line.say(Message::Granted(Granted { seq }))
    }
}
