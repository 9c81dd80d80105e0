//! The end that puts decisions on its disk first.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use keystore::{BlockStatus, Grant, Pending, Secret, StoreError, Use};
use proto::kms::v1::{
    self as wire, BlockHere, Confirm, ConfirmResult, Confirmed, Granted, MissingState, PairHello, Placed,
    pair_message::Message,
};
use tokio::sync::mpsc;

use super::tag::{self, BlockTags, deducted_bytes, kept_bytes};
use super::unmatched::{self, all_offered};
use super::*;
use crate::share;

/// Grants before the coordinator's last one that may still wait to be activated.
const INACTIVE_MAX: u64 = 256;

/// Follows until the stream ends.
pub async fn follow(pool: &Pool, stream: PairStream, shares: &mut mpsc::Receiver<ShareOut>) -> Result<()> {
    let mut line = Line::new(stream);
    let theirs = line.hear_hello().await?;
    if let Err(other) = pool.check_version(&theirs) {
        // One that knows of versions is told; another one waits, so that it does not call again at once.
        if theirs.version > 0 {
            line.say(Message::Hello(PairHello { version: VERSION, ..PairHello::default() }))?;
            line.flush().await?;
        } else {
            let _ = tokio::time::timeout(SILENCE, line.hear()).await;
        }
        return Err(other);
    }
    if let Some(put_back) = meet(pool, &theirs).await? {
        // The hello says so.
        line.say(Message::Hello(pool.hello().await?))?;
        line.flush().await?;
        return Err(put_back.into());
    }
    pool.hear_id_form(&theirs).await?;
    let mut ours = pool.hello().await?;
    ours.ahead_blocks = ahead_blocks(pool, theirs.stream_end).await?;
    ours.ahead_grants = ahead_grants(pool, theirs.grants).await?;
    line.say(Message::Hello(ours))?;
    activate_up_to(pool, theirs.grants).await?;
    let _connected = Connected::new(pool);
    let mut told = std::collections::BTreeSet::new();
    let mut waiting = BTreeMap::new();
    let mut pulse = tokio::time::interval(PULSE);
    let mut pulses = 0u64;
    let mut said = wire::Levels::default();
    tell_blocks(pool, &mut line, &mut told).await?;
    loop {
        tokio::select! {
            message = line.hear() => match message? {
                Message::Confirm(first) => {
                    let mut row = vec![first];
                    row.extend(line.hear_more(PROPOSALS_MAX - 1, |message| match message {
                        Message::Confirm(confirm) => Some(confirm.clone()),
                        _ => None,
                    }));
                    let mut again = false;
                    for answer in confirm_blocks(pool, &row).await? {
                        told.remove(answer.block.as_ref());
                        again |= answer.result() == ConfirmResult::NotYet;
                        line.say(Message::Confirmed(answer))?;
                    }
                    if again {
                        tell_blocks(pool, &mut line, &mut told).await?;
                    }
                }
                Message::Grant(grant) => {
                    let seq = grant.seq;
                    store_grant(pool, &grant).await?;
                    line.say(Message::Granted(Granted { seq }))?;
                }
                Message::Missing(missing) => {
                    let answer = unmatched::missing(pool, &missing).await?;
                    let here = answer.state() == MissingState::Here;
                    line.say(Message::MissingAnswer(answer))?;
                    if here {
                        told.remove(missing.block.as_ref());
                        tell_blocks(pool, &mut line, &mut told).await?;
                    }
                }
                Message::GiveUp(verdict) => {
                    unmatched::given_up(pool, &verdict).await?;
                    told.remove(verdict.block.as_ref());
                }
                Message::Granted(Granted { seq }) => activate(pool, seq).await?,
                Message::Share(theirs) => line.say(Message::ShareTaken(share::take(pool, theirs).await))?,
                Message::ShareTaken(answer) => share_taken(&mut waiting, &answer),
                Message::Levels(levels) => pool.hear_marks(levels.marks),
                Message::RolledBack(known) => return Err(pool.give_in(&known.site, &known.message).await?.into()),
                _ => bail!("the coordinator said something out of turn"),
            },
            Some(out) = shares.recv() => send_share(&mut line, &mut waiting, out)?,
            () = pool.wake.notified() => {
                tell_blocks(pool, &mut line, &mut told).await?;
                tell_levels(pool, &mut line, &mut said, false)?;
            }
            _ = pulse.tick() => {
                line.check()?;
                tell_levels(pool, &mut line, &mut said, true)?;
                pulses += 1;
                if pulses.is_multiple_of(PULSES_PER_NOTE) {
                    pool.note_marks().await?;
                }
            }
        }
    }
}

/// Sees whether the two pools are still the same one, and starts a new generation where they are not. Answers where one
/// of the two was put back.
async fn meet(pool: &Pool, theirs: &PairHello) -> Result<Option<Lasting>> {
    let ours = pool.hello().await?;
    let secret = match pool.judge(&ours, theirs) {
        Verdict::RolledBack { site, why } => {
            // Once that store is voided it is another one than this.
            pool.remember_instance(&theirs.instance).await?;
            return Ok(Some(pool.give_in(&site, &why).await?));
        }
        Verdict::NewGeneration(why) => {
            let next = ours.generation.max(theirs.generation).saturating_add(1);
            pool.void_to(next, why).await?;
            &theirs.next_id_secret
        }
        Verdict::Same => &theirs.id_secret,
    };
    pool.keep_id_secret(pool.levels().generation, &Secret::new(secret.to_vec())).await?;
    pool.remember_instance(&theirs.instance).await?;
    Ok(None)
}

async fn ahead_blocks(pool: &Pool, from: u64) -> Result<Vec<Placed>> {
    let levels = pool.levels();
    if levels.end_bytes <= from {
        return Ok(Vec::new());
    }
    let pieces = pool.store.origins(&pool.peer, levels.generation, from, levels.end_bytes - from).await;
    let placed = |piece: keystore::OriginPiece| Placed { block: piece.block_id.to_vec().into(), start: piece.start };
    Ok(pieces.context("find blocks that the coordinator lacks")?.into_iter().map(placed).collect())
}

async fn ahead_grants(pool: &Pool, from: u64) -> Result<Vec<wire::Grant>> {
    let grants = pool.store.grants(&pool.peer, from).await.context("find grants that the coordinator lacks")?;
    Ok(grants.into_iter().map(|grant| mirrored(&grant)).collect())
}

/// A grant of ours in the coordinator's words.
fn mirrored(grant: &Grant) -> wire::Grant {
    wire_grant(&Grant { use_: grant.use_.mirrored(), ..*grant })
}

/// What the coordinator has on its disk too may be drawn from.
async fn activate_up_to(pool: &Pool, end: u64) -> Result<()> {
    let grants = pool.store.grants(&pool.peer, end.saturating_sub(INACTIVE_MAX)).await.context("read grants")?;
    // One that made room is not drawn from, though a crash may have left its key.
    let to_activate = |grant: &&Grant| grant.use_.is_out() && !grant.active && grant.granted_ms > 0;
    for grant in grants.iter().filter(|grant| grant.seq < end).filter(to_activate) {
        activate(pool, grant.seq).await?;
    }
    Ok(())
}

async fn activate(pool: &Pool, seq: u64) -> Result<()> {
    let generation = pool.levels().generation;
    match pool.store.activate_grant(&pool.peer, generation, seq).await {
        // Of In grants there is nothing to activate.
        Ok(()) | Err(StoreError::WrongUse { .. }) => {}
        Err(error) => return Err(error).context("activate a grant"),
    }
    shell::failpoint::hit("pair.activated");
    pool.advanced();
    Ok(())
}

/// Says which blocks are here, each once, those of a link in their order.
async fn tell_blocks(pool: &Pool, line: &mut Line, told: &mut std::collections::BTreeSet<[u8; 16]>) -> Result<()> {
    let now_ms = crate::now_ms();
    let mut new = Vec::new();
    for block in all_offered(pool).await?.into_iter().filter(|block| !told.contains(&block.id)) {
        let (link, number) = unmatched::link_and_number(&block.origin).unwrap_or_default();
        let waited_ms = now_ms.saturating_sub(block.offered_ms);
        new.push((block.id, BlockHere { block: block.id.to_vec().into(), link, number, waited_ms }));
    }
    new.sort_by(|(_, a), (_, b)| (&a.link, a.number).cmp(&(&b.link, b.number)));
    for (id, here) in new {
        told.insert(id);
        line.say(Message::BlockHere(here))?;
    }
    Ok(())
}

fn tell_levels(pool: &Pool, line: &mut Line, said: &mut wire::Levels, pulse: bool) -> Result<()> {
    let levels = pool.own_levels(pulse);
    // Said at every pulse, so that silence means that the peer has gone.
    if line.is_said() && (levels != *said || pulse) {
        *said = levels;
        line.say(Message::Levels(levels))?;
    }
    Ok(())
}

/// A proposal, when its block was read and compared.
enum Compared {
    /// The tag that is the answer, once the block counts here.
    Same(Pending<BlockStatus>, Bytes),
    Other(ConfirmResult),
}

/// Decides on a row of blocks, which share a commit: each step is asked for of all before the first is waited for.
async fn confirm_blocks(pool: &Pool, row: &[Confirm]) -> Result<Vec<Confirmed>> {
    let ids = row.iter().map(|confirm| id(&confirm.block)).collect::<Result<Vec<_>>>()?;
    let keys: Vec<_> = ids.iter().map(|block| pool.store.offered_key(&pool.peer, *block)).collect();
    let mut compared = Vec::with_capacity(row.len());
    for ((confirm, block), key) in row.iter().zip(&ids).zip(keys) {
        compared.push(compare(pool, confirm, block, key.await).await?);
    }
    let mut answers = Vec::with_capacity(row.len());
    for (confirm, compared) in row.iter().zip(compared) {
        let (result, tag) = match compared {
            Compared::Same(confirmed, tag) => settle(confirmed.await, tag)?,
            Compared::Other(result) => (result, Bytes::new()),
        };
        answers.push(Confirmed { block: confirm.block.clone(), result: result.into(), tag });
    }
    Ok(answers)
}

async fn compare(
    pool: &Pool,
    confirm: &Confirm,
    block: &[u8; 16],
    key: Result<Secret, StoreError>,
) -> Result<Compared> {
    let key = match key {
        Ok(key) => key,
        Err(StoreError::UnknownBlock | StoreError::BlockConflict { .. }) => {
            return Ok(Compared::Other(ConfirmResult::NotYet));
        }
        Err(error) => return Err(error).context("read an offered block"),
    };
    let tags = BlockTags::of(block, &key).filter(|tags| tag::equal(tags.coordinators(), &confirm.tag));
    let Some(tags) = tags else {
        tracing::error!(peer = pool.peer, "the two ends of a block differ: it is quarantined");
        pool.store.quarantine(&pool.peer, *block, "the two ends differ").await.context("quarantine a block")?;
        return Ok(Compared::Other(ConfirmResult::Mismatch));
    };
    let (generation, start) = (confirm.generation, confirm.start);
    let deducted = (deducted_bytes(start) as u64, kept_bytes(start) as u64);
    let confirmed = pool.store.confirm_keeping(&pool.peer, *block, generation, start, deducted);
    Ok(Compared::Same(confirmed, tags.followers().to_vec().into()))
}

fn settle(confirmed: Result<BlockStatus, StoreError>, tag: Bytes) -> Result<(ConfirmResult, Bytes)> {
    match confirmed {
        Ok(BlockStatus::Confirmed { .. }) => {
            shell::failpoint::hit("pair.followed");
            Ok((ConfirmResult::Confirmed, tag))
        }
        // An earlier one of a row was not confirmed; the coordinator proposes another place.
        Ok(_) | Err(StoreError::NotContiguous { .. }) => Ok((ConfirmResult::NotYet, Bytes::new())),
        Err(error) => Err(error).context("confirm a block"),
    }
}

async fn store_grant(pool: &Pool, grant: &wire::Grant) -> Result<()> {
    let use_: Use = use_of(grant.purpose()).context("a grant for no use")?.mirrored();
    keep_grant(pool, grant, use_, false).await?;
    shell::failpoint::hit("pair.grant-followed");
    Ok(())
}
