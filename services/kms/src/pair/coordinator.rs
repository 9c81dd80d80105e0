//! The end that decides: where in the stream a block counts, and what a range is for.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, bail};
use keystore::{Secret, StoreError, Use};
use proto::kms::v1::{self as wire, Confirm, ConfirmResult, Confirmed, Granted, PairHello, pair_message::Message};
use tokio::sync::mpsc;

use super::tag::{self, BlockTags, CONFIRMATION_BYTES, deducted_bytes, kept_bytes};
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
    /// After this many bytes all counts are halved.
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
    let next_id_secret = crate::seal::random(ID_SECRET_BYTES)?;
    hello.next_id_secret = next_id_secret.expose().to_vec().into();
    line.say(Message::Hello(hello.clone()))?;
    let theirs = line.hear_hello().await?;
    pool.check_version(&theirs)?;
    let put_back = match meet(pool, (&hello, &theirs), &next_id_secret).await? {
        Some(put_back) => Some(put_back),
        None => catch_up(pool, &theirs).await?,
    };
    if let Some(put_back) = put_back {
        if let Some(known) = pool.rolled_back() {
            line.say(Message::RolledBack(wire_rolled_back(&known)))?;
            // One that has concluded the same may have gone.
            if let Err(error) = line.flush().await {
                tracing::debug!("the peer is not told: {}", shell::chain(&error));
            }
        }
        return Err(put_back.into());
    }
    pool.hear_id_form(&theirs).await?;
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
                    Message::Levels(levels) => {
                        pool.hear_marks(levels.marks);
                        dialogue.theirs = Some(levels);
                    }
                    Message::RolledBack(known) => return Err(pool.give_in(&known.site, &known.message).await?.into()),
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
            if pulses.is_multiple_of(PULSES_PER_NOTE) {
                pool.note_marks().await?;
            }
        }
        dialogue.propose(&mut line).await?;
        dialogue.assign(&mut line)?;
    }
}

/// The present generation's secret for key IDs, made at the first meeting in it.
async fn id_secret(pool: &Pool) -> Result<Secret> {
    let generation = pool.levels().generation;
    if let Some(secret) = pool.id_secret_of(generation).await? {
        return Ok(secret);
    }
    let secret = crate::seal::random(ID_SECRET_BYTES)?;
    pool.keep_id_secret(generation, &secret).await?;
    Ok(secret)
}

/// Sees what the follower makes of the meeting, and whether it was put back itself. `ours` is what it was told.
async fn meet(
    pool: &Pool,
    (ours, theirs): (&PairHello, &PairHello),
    next_id_secret: &Secret,
) -> Result<Option<Lasting>> {
    if theirs.generation > ours.generation && theirs.rolled_back.is_none() {
        // The follower has heard where this end stands, and has begun a new generation.
        pool.void_to(theirs.generation, "a site has lost its store, or the two are out of step").await?;
        pool.keep_id_secret(theirs.generation, next_id_secret).await?;
    } else if let Verdict::RolledBack { site, why } = pool.judge(ours, theirs) {
        // Once that store is voided it is another one than this.
        pool.remember_instance(&theirs.instance).await?;
        return Ok(Some(pool.give_in(&site, &why).await?));
    }
    pool.remember_instance(&theirs.instance).await?;
    Ok(None)
}

/// Brings this end to where the follower is. Answers where this end turns out to have been put back.
async fn catch_up(pool: &Pool, theirs: &PairHello) -> Result<Option<Lasting>> {
    let generation = pool.levels().generation;
    let followed = async {
        for placed in &theirs.ahead_blocks {
            let block = id(&placed.block)?;
            let deducted = (deducted_bytes(placed.start) as u64, kept_bytes(placed.start) as u64);
            pool.store.confirm_keeping(&pool.peer, block, generation, placed.start, deducted).await?;
        }
        for grant in &theirs.ahead_grants {
            store_grant(pool, generation, grant).await?;
        }
        let levels = pool.levels();
        let same = (levels.generation, levels.end_bytes, levels.next_grant)
            == (theirs.generation, theirs.stream_end, theirs.grants);
        if same { Ok(()) } else { bail!("the follower is somewhere else") }
    };
    if let Err(error) = followed.await {
        if matches!(error.downcast_ref(), Some(StoreError::UnknownBlock)) {
            let why = "a block counts at the other site that this store never had";
            return Ok(Some(pool.give_in(&pool.site, why).await?));
        }
        // The next greeting finds the generations apart, and both ends restart.
        pool.void_to(generation + 1, "the follower cannot be followed").await?;
        return Err(error).context("catch up with the follower");
    }
    Ok(None)
}

async fn store_grant(pool: &Pool, generation: u32, grant: &wire::Grant) -> Result<()> {
    let use_ = use_of(grant.purpose()).context("a grant for no use")?;
    keep_grant(pool, &wire::Grant { generation, ..*grant }, use_, true).await
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
        let deducted = deducted_bytes(self.next_start);
        if (CONFIRMATION_BYTES + 1..=deducted).contains(&key.len()) {
            // Too short to be the first of a generation: it waits for a longer one.
            return Ok(());
        }
        let Some(tags) = BlockTags::of(&block, &key).filter(|_| key.len() > deducted) else {
            self.blocks.remove(&block);
            let quarantined = self.pool.store.quarantine(&self.pool.peer, block, "too short to be confirmed").await;
            quarantined.context("quarantine a block")?;
            return give_up(line, block, "too short to be confirmed");
        };
        let bytes = (key.len() - deducted) as u64;
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
        let confirm = |(block, start): ([u8; 16], u64)| {
            let deducted = (deducted_bytes(start) as u64, kept_bytes(start) as u64);
            store.confirm_keeping(peer, block, generation, start, deducted)
        };
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
            let (purpose, bytes) = match (self.expiring_bytes(unassigned), self.next_grant(unassigned)) {
                // The oldest key is what the next grant would be of.
                (Some(bytes), _) => (wire::Use::Expired, bytes),
                (None, Some((use_, bytes))) => {
                    self.given.add(use_, bytes);
                    (wire_use(use_), bytes)
                }
                (None, None) => return Ok(()),
            };
            let seq = levels.next_grant + self.grants.len() as u64;
            let purpose = purpose.into();
            let grant = wire::Grant { seq, generation: levels.generation, start, bytes, purpose };
            self.grants.push_back(grant);
            line.say(Message::Grant(grant))?;
        }
        Ok(())
    }

    /// What must go so that both ends have room again; nothing while some is on its way.
    fn expiring_bytes(&self, unassigned: u64) -> Option<u64> {
        if self.grants.iter().any(|grant| grant.purpose() == wire::Use::Expired) {
            return None;
        }
        let excess = self.pool.excess_bytes().max(self.theirs.as_ref()?.excess_bytes);
        let bytes = excess.next_multiple_of(GRANT_UNIT_BYTES).min(unassigned);
        (bytes > 0).then_some(bytes)
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
        store_grant(self.pool, grant.generation, &grant).await?;
        shell::failpoint::hit("pair.granted");
        // Counted here until the follower says its levels again.
        if let Some(theirs) = &mut self.theirs {
            match grant.purpose() {
                wire::Use::SupplyIn => theirs.supply_out_bytes += grant.bytes,
                wire::Use::RelayIn => theirs.relay_out_bytes += grant.bytes,
                wire::Use::Expired => theirs.excess_bytes = 0,
                wire::Use::SupplyOut | wire::Use::RelayOut | wire::Use::Unspecified => {}
            }
        }
        self.pool.advanced();
        line.say(Message::Granted(Granted { seq }))
    }
}
