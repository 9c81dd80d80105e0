//! Blocks that one end alone has: each comes to an end.
//!
//! A block that both modules made reaches both key stores sooner or later, and is confirmed. One that reaches only one
//! of them (a module or a store lost its volume, a generation ended between the two confirmations, one end quarantined
//! it, a relayed key was given up) would wait for ever. The coordinator finds those and says how they end:
//!
//! * The peer has decided on the block, or has had a later block of its link: modules hand their blocks over in order, so
//!   this one never comes. Or the block has waited for as long as key is kept at all.
//! * Then it is *abandoned* where it is: erased durably, counted as wasted, said.
//!
//! Whatever is concluded wrongly costs a block and nothing else. The coordinator abandons a block only on the word of
//! the follower that it has not confirmed it, the follower only on the word of the coordinator; and one that comes late
//! to the other end is found abandoned here, and ends the same way.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use keystore::{BlockStatus, OfferedBlock, StoreError};
use proto::kms::v1::{BlockHere, GiveUp, Missing, MissingAnswer, MissingState, pair_message::Message};
use serde_json::Value;

use super::{Line, Pool, id};

/// Blocks that the follower may hold and the coordinator remembers of it.
const HERE_MAX: usize = 1 << 18;
/// Inquiries and verdicts in one look, so that a long list leaves room for the rest of the dialogue.
const WORDS_PER_LOOK: usize = 256;
/// Time before the follower is asked for a block once more.
const ASK_AGAIN: Duration = Duration::from_secs(2);

const NOT_THERE: &str = "the other site does not have it";
const DECIDED: &str = "the other site has decided on it before";

/// A block of a link, where it is one: modules hand those over in order.
pub(super) fn link_and_number(origin: &str) -> Option<(String, u64)> {
    let origin: Value = serde_json::from_str(origin).ok()?;
    Some((origin["link"].as_str()?.to_owned(), origin["block"].as_u64()?))
}

/// All blocks that wait at this end.
pub(super) async fn all_offered(pool: &Pool) -> Result<Vec<OfferedBlock>> {
    let mut all: Vec<OfferedBlock> = Vec::new();
    loop {
        match pool.store.offered(&pool.peer, all.last().map(|block| block.id)).await {
            Ok(page) if page.is_empty() => return Ok(all),
            Ok(page) => all.extend(page),
            // Nothing has ever been stored.
            Err(StoreError::UnknownPeer { .. }) => return Ok(all),
            Err(error) => return Err(error).context("list offered blocks"),
        }
    }
}

async fn status(pool: &Pool, block: [u8; 16]) -> Result<Option<BlockStatus>> {
    match pool.store.block_status(&pool.peer, block).await {
        Ok(status) => Ok(Some(status)),
        Err(StoreError::UnknownBlock | StoreError::UnknownPeer { .. }) => Ok(None),
        Err(error) => Err(error).context("look up a block"),
    }
}

/// Whether the status is one that no word of the peer changes any more. A block that counts in the present generation
/// cannot be what the peer speaks of.
fn is_decided(pool: &Pool, status: Option<&BlockStatus>) -> Result<bool> {
    match status {
        Some(BlockStatus::Confirmed { generation, .. }) if *generation == pool.levels().generation => {
            bail!("the peer has not confirmed a block that counts here")
        }
        Some(BlockStatus::Offered) | None => Ok(false),
        Some(_) => Ok(true),
    }
}

async fn abandon(pool: &Pool, block: [u8; 16], reason: &str) -> Result<()> {
    match pool.store.abandon(&pool.peer, block, reason).await {
        Ok(BlockStatus::Abandoned { .. }) => {
            tracing::warn!(peer = pool.peer, block = %hex(&block), reason, "a block is abandoned: its key is wasted");
            Ok(())
        }
        // Decided in the meantime, or never here.
        Ok(_) | Err(StoreError::UnknownBlock) => Ok(()),
        Err(StoreError::BlockConflict { .. }) => bail!("a block that counts here was to be abandoned"),
        Err(error) => Err(error).context("abandon a block"),
    }
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A block at the follower, as it said.
struct Here {
    /// Empty for a relayed key.
    link: String,
    number: u64,
    waited_ms: u64,
    since: Instant,
}

/// What the coordinator knows of the blocks of both ends.
#[derive(Default)]
pub(super) struct Blocks {
    here: BTreeMap<[u8; 16], Here>,
    /// When the follower was asked for a block.
    asked: BTreeMap<[u8; 16], Instant>,
}

impl Blocks {
    pub fn is_here(&self, block: &[u8; 16]) -> bool {
        self.here.contains_key(block)
    }

    pub fn is_empty(&self) -> bool {
        self.here.is_empty()
    }

    pub fn remove(&mut self, block: &[u8; 16]) {
        self.here.remove(block);
    }

    /// The follower says that it holds a block.
    pub async fn hear(&mut self, pool: &Pool, line: &mut Line, said: BlockHere) -> Result<()> {
        let block = id(&said.block)?;
        if is_decided(pool, status(pool, block).await?.as_ref())? {
            return give_up(line, block, DECIDED);
        }
        if self.here.len() >= HERE_MAX {
            bail!("the follower holds more blocks than can be remembered");
        }
        let BlockHere { link, number, waited_ms, .. } = said;
        self.here.insert(block, Here { link, number, waited_ms, since: Instant::now() });
        Ok(())
    }

    /// Looks for blocks that one end alone has, and says of each what is to be said. `proposed` are on their way.
    pub async fn look(&mut self, pool: &Pool, line: &mut Line, proposed: impl Fn(&[u8; 16]) -> bool) -> Result<()> {
        let levels = pool.levels();
        if self.here.is_empty() && levels.offered_blocks == 0 {
            return Ok(());
        }
        let ours: BTreeMap<[u8; 16], OfferedBlock> =
            all_offered(pool).await?.into_iter().map(|block| (block.id, block)).collect();
        self.asked.retain(|block, at| ours.contains_key(block) && at.elapsed() < ASK_AGAIN);
        self.give_up_theirs(pool, line, |block| ours.contains_key(block) || proposed(block)).await?;
        let now_ms = crate::now_ms();
        let mut words = 0;
        for (block, offered) in ours.iter().filter(|(block, _)| !self.here.contains_key(*block) && !proposed(block)) {
            if words >= WORDS_PER_LOOK {
                break;
            }
            if let Entry::Vacant(asked) = self.asked.entry(*block) {
                let last_call = now_ms.saturating_sub(offered.offered_ms) >= pool.retention_ms;
                let (link, number) = link_and_number(&offered.origin).unwrap_or_default();
                line.say(Message::Missing(Missing { block: block.to_vec().into(), link, number, last_call }))?;
                asked.insert(Instant::now());
                words += 1;
            }
        }
        Ok(())
    }

    /// Blocks of the follower that this end lacks for good.
    async fn give_up_theirs(
        &mut self,
        pool: &Pool,
        line: &mut Line,
        is_ours: impl Fn(&[u8; 16]) -> bool,
    ) -> Result<()> {
        let hopeless = |(block, here): (&[u8; 16], &Here)| {
            let waited_ms = here.waited_ms.saturating_add(here.since.elapsed().as_millis() as u64);
            let over = pool.is_passed_over(&here.link, here.number) || waited_ms >= pool.retention_ms;
            let lost = !is_ours(block) && over;
            lost.then_some(*block)
        };
        let hopeless: Vec<[u8; 16]> = self.here.iter().filter_map(hopeless).take(WORDS_PER_LOOK).collect();
        for block in hopeless {
            // It may have come since the blocks were listed.
            if status(pool, block).await? != Some(BlockStatus::Offered) {
                self.here.remove(&block);
                give_up(line, block, NOT_THERE)?;
            }
        }
        Ok(())
    }

    /// The follower says how it is with a block that it did not speak of.
    pub async fn answered(&mut self, pool: &Pool, answer: &MissingAnswer) -> Result<()> {
        match answer.state() {
            // Where it is there, the follower says so in its own words.
            MissingState::Here | MissingState::Unknown => Ok(()),
            MissingState::Gone => {
                let block = id(&answer.block)?;
                self.here.remove(&block);
                abandon(pool, block, NOT_THERE).await
            }
            MissingState::Unspecified => bail!("the follower's answer says nothing"),
        }
    }
}

pub(super) fn give_up(line: &mut Line, block: [u8; 16], reason: &str) -> Result<()> {
    line.say(Message::GiveUp(GiveUp { block: block.to_vec().into(), reason: reason.to_owned() }))
}

/// The follower's side of [`Blocks::look`].
pub(super) async fn missing(pool: &Pool, asked: &Missing) -> Result<MissingAnswer> {
    let known = status(pool, id(&asked.block)?).await?;
    let state = match &known {
        Some(BlockStatus::Offered) => MissingState::Here,
        known if is_decided(pool, known.as_ref())? => MissingState::Gone,
        _ if asked.last_call || pool.is_passed_over(&asked.link, asked.number) => MissingState::Gone,
        _ => MissingState::Unknown,
    };
    Ok(MissingAnswer { block: asked.block.clone(), state: state.into() })
}

/// The coordinator says that a block of this end will never count.
pub(super) async fn given_up(pool: &Pool, verdict: &GiveUp) -> Result<()> {
    let reason = verdict.reason.chars().take(keystore::NAME_BYTES_MAX / 4).collect::<String>();
    abandon(pool, id(&verdict.block)?, &reason).await
}
