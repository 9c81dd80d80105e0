//! What a module must find again after it was killed: blocks, the key that waits, the reserve slice of a block in
//! doubt, and the epochs that it has seen. All of it is in the block file.
//!
//! Order of writes for a block: reserve slice, key and block (undecided, or where this end decides alone as part of the
//! key) with one sync; reserve refilled (in the channel); block committed, slice erased; that it leaves for the key
//! store, with a sync; once that has it, the mark of that, and the key erased. What has no sync of its own comes to the
//! disk with the next one, and is done again where a loss of power came before: the peer says again that a block
//! counts, a block that comes twice counts once. Without a key store the key stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anchor::Anchor;
use anyhow::{Context, Result, bail};
use distill::bits::Bits;
use distill::ledger::BlockLedger;
use distill::pipeline::{FinishedBlock, Side};
use shell::disk::Disk;
use zeroize::Zeroizing;

use crate::delivery;
use crate::departures::Departures;
use crate::sealed::Seals;
use crate::store::stretches::Stretches;
use crate::store::{self, BlockState, BlockStore, Count, NewBlock, Sealed, StoredBlock};
use crate::uptime::Counts;
use crate::waiting::{self, Part, Waiting};

/// Epochs that are leased at once, as many as make the time or the least number: after a kill the link resumes behind the
/// lease, so that no epoch of a seeded run is ever distilled twice.
const LEASE_PS: u64 = 5_000_000_000_000;
const LEASE_EPOCHS: std::ops::RangeInclusive<u64> = 16..=250;

/// How long the epochs are that everything here counts in, in picoseconds.
const EPOCH_FILE: &str = "epoch.length";
/// Where older releases kept the first epoch that is not leased.
const LEASE_FILE: &str = "epoch.next";
/// When the link had light, and how often it had it again.
const UPTIME_FILE: &str = "uptime.json";
/// Where nothing but time went on, this is written so often: what a kill loses of it counts as time without light.
const UPTIME_WRITTEN: Duration = Duration::from_secs(5);
const RESTORED_FILE: &str = "restored.next";
/// Where release 0.1 kept a reserve slice, as it is.
const OLD_SLICE_FILE: &str = "reserve.slice";

/// The durable side of one link end.
pub struct Vault {
    directory: PathBuf,
    disk: Disk,
    /// The block file, with the key that waits in it.
    waiting: Arc<Waiting>,
    stretches: Stretches,
    session: u64,
    /// First block and epoch that were never used.
    next_block: u64,
    leased: u64,
    next_epoch: u64,
    /// Epochs of a lease.
    lease_epochs: u64,
    /// There is no more light to lease epochs for.
    light_over: bool,
    /// Blocks that are kept one by one.
    kept: usize,
    /// What was kept of the times with light, and when.
    uptime: Option<(Counts, Instant)>,
}

impl Vault {
    /// With `blocks.key` beside the blocks, unless `secrets` has a key that was placed for this site.
    pub fn open(data: &Path, secrets: Option<&Path>, site: &str, link: &str, disk: Disk) -> Result<Self> {
        let path = store::path(data, site, link);
        let store = BlockStore::open_on(&path, disk.clone()).context("open the block file")?;
        if let Some(torn) = store.torn_tail() {
            tracing::warn!(path = %path.display(), "{torn}");
        }
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        let placed = secrets.map(|secrets| waiting::placed_key_path(secrets, site));
        let needed =
            store.parts().next().is_some() || waiting::has_folder(&directory)? || Stretches::are_there(&directory)?;
        let seals = waiting::open_seals(&directory, placed.as_deref(), needed)?;
        let stretches = Stretches::open(&directory, placed.as_deref(), disk.clone())?;
        let delivered = delivery::next_of(&directory, &store)?;
        let mut store = taken_over(store, &seals, delivered).context("take over a block file of release 0.1")?;
        waiting::take_over_folder(&directory, &mut store).context("take over key that waits from an older release")?;
        take_over_slice(&directory, &mut store, &seals).context("take over a reserve slice of release 0.1")?;
        let kept = |(part, block): &(Part, u64)| match (*part, store.state(*block)) {
            (Part::Key, Some(BlockState::Committed)) => *block >= delivered,
            (Part::Key | Part::Slice, Some(BlockState::Prepared)) => true,
            _ => false,
        };
        let keep: BTreeSet<(Part, u64)> = store.parts().filter(kept).collect();
        let (leased, next_block) = (leased(&directory, &store)?, store.next_number());
        let waiting = Arc::new(Waiting::new(&path, Arc::new(Mutex::new(store)), seals));
        waiting.keep_only(|part, block| keep.contains(&(part, block)))?;
        let (session, next_epoch, lease_epochs, kept) = (0, leased, *LEASE_EPOCHS.end(), usize::MAX);
        let uptime = None;
        Ok(Self {
            directory,
            disk,
            waiting,
            stretches,
            session,
            next_block,
            leased,
            next_epoch,
            lease_epochs,
            light_over: false,
            kept,
            uptime,
        })
    }

    /// Keeps this many blocks one by one, and of older ones a digest and the sum of their accounts.
    pub fn keep(&mut self, blocks: u64) {
        self.kept = usize::try_from(blocks).unwrap_or(usize::MAX);
    }

    /// Epochs are so long. What is here counts in them from then on, and what was counted in others is refused.
    pub fn count_in(&mut self, epoch_ps: u64) -> Result<()> {
        self.lease_epochs = (LEASE_PS / epoch_ps.max(1)).clamp(*LEASE_EPOCHS.start(), *LEASE_EPOCHS.end());
        match read_epoch(&self.directory)? {
            Some(before) if before == epoch_ps => Ok(()),
            Some(before) => bail!(OtherEpoch { before_ps: before, asked_ps: epoch_ps }),
            None => {
                let text = format!("{epoch_ps}\n");
                let path = self.directory.join(EPOCH_FILE);
                self.disk.write_durably(&path, text.as_bytes()).context("write how long epochs are")
            }
        }
    }

    /// The key that waits here, for the task that brings it to the key store.
    pub fn waiting(&self) -> Arc<Waiting> {
        self.waiting.clone()
    }

    /// What is kept of the block that is being sifted.
    pub fn stretches(&mut self) -> &mut Stretches {
        &mut self.stretches
    }

    /// Folder of this link end.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn disk(&self) -> Disk {
        self.disk.clone()
    }

    /// Goes on after a block file that had no room, now that there may be some. Nothing to do where it had.
    pub fn mend(&mut self) -> Result<()> {
        if self.waiting.store().mend()? {
            tracing::info!("the block file is written again");
        }
        Ok(())
    }

    /// The first block from `number` on that counts and its key, unless one before it is undecided.
    pub fn next_committed(&self, number: u64) -> Result<Option<(StoredBlock, Bits)>> {
        let Some(block) = self.first_committed(number)? else { return Ok(None) };
        let key = self.key(&block)?;
        Ok(Some((block, key)))
    }

    fn first_committed(&self, number: u64) -> Result<Option<StoredBlock>> {
        let store = self.waiting.store();
        for number in number..store.next_number() {
            match store.state(number) {
                Some(BlockState::Committed) => return Ok(store.get(number)?),
                Some(BlockState::Prepared) => return Ok(None),
                Some(BlockState::Voided | BlockState::Aborted) | None => {}
            }
        }
        Ok(None)
    }

    fn key(&self, block: &StoredBlock) -> Result<Bits> {
        let number = block.number;
        let key = self.waiting.get(Part::Key, number)?;
        let Some(key) = key.filter(|key| block.is_key(key)) else {
            let folder = self.directory.display();
            bail!(
                "block {number} waits for the key store, and {folder}/{} does not have its key: put that folder back from \
                 a copy, or give the block up by writing {} to {folder}/delivered.next",
                store::FILE_NAME,
                number + 1
            );
        };
        Ok(key)
    }

    pub fn next_block(&self) -> u64 {
        self.next_block
    }

    pub fn next_epoch(&self) -> u64 {
        self.next_epoch
    }

    pub fn committed_end(&self) -> u64 {
        self.waiting.store().last_committed().map_or(0, |block| block + 1)
    }

    /// The block that waits for the peer's word. There is at most one.
    pub fn in_doubt(&self) -> Option<u64> {
        self.waiting.store().in_doubt().last().copied()
    }

    pub fn session_starts(&mut self, session: u64, first_block: u64, first_epoch: u64) -> Result<()> {
        self.session = session;
        self.next_block = self.next_block.max(first_block);
        self.next_epoch = first_epoch;
        self.lease(first_epoch)
    }

    /// Makes sure that `epoch` and those that follow closely are on the disk as used.
    pub fn lease(&mut self, epoch: u64) -> Result<()> {
        self.light_over = false;
        self.next_epoch = epoch + 1;
        // Blocks lease, too, so that this is rarely needed where they come often.
        if epoch + self.lease_epochs / 8 >= self.leased { self.write_lease(epoch + self.lease_epochs) } else { Ok(()) }
    }

    /// The run has ended in good order: the next one goes on exactly where it ended.
    pub fn run_ended(&mut self, end: u64) -> Result<()> {
        self.next_epoch = end;
        self.light_over = true;
        self.write_lease(end)
    }

    /// Puts a block on the disk, undecided, its reserve slice and its key before it.
    pub fn prepare(&mut self, block: &FinishedBlock, trace_id: &str) -> Result<()> {
        self.put(BlockState::Prepared, block, trace_id)
    }

    /// As [`Self::prepare`], of a block that counts from then on.
    pub fn store(&mut self, block: &FinishedBlock, trace_id: &str) -> Result<()> {
        self.put(BlockState::Committed, block, trace_id)
    }

    fn put(&mut self, state: BlockState, block: &FinishedBlock, trace_id: &str) -> Result<()> {
        let (number, session) = (block.number, self.session);
        let reserve = block.key.slice(0, block.reserve_bits);
        let delivered = block.key.slice(block.reserve_bits, block.key.len() - block.reserve_bits);
        let slice = self.waiting.seal(Part::Slice, number, session, &reserve).context("seal the reserve slice")?;
        let key = self.waiting.seal(Part::Key, number, session, &delivered).context("seal the key of a block")?;
        self.append(state, (number, &delivered, &block.ledger, trace_id), &[slice, key])
    }

    /// The slice of an undecided block that goes into the authentication reserve once it is committed.
    pub fn reserve_slice(&self, block: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.waiting.get(Part::Slice, block)?.map(|slice| slice.to_bytes()))
    }

    /// The block counts. Where a loss of power takes that from the disk, the peer says it once more.
    pub fn commit(&mut self, block: u64) -> Result<()> {
        let mut store = self.waiting.store();
        if let Some(committed) = store.commit_later(block)? {
            committed.later();
        }
        store.erase(Part::Slice, block)?;
        // The file as it is serves as well, where there is no room for another.
        match store.retire(self.kept) {
            Ok(true) => tracing::info!("the block file was rewritten without what is not kept"),
            Ok(false) => {}
            Err(error) => tracing::warn!("the block file keeps what is not needed any more: {error}"),
        }
        Ok(())
    }

    pub fn void(&mut self, block: u64) -> Result<()> {
        let mut store = self.waiting.store();
        store.void(block)?;
        store.erase(Part::Slice, block)?;
        Ok(store.erase(Part::Key, block)?)
    }

    /// Keeps the ledger of a block that gave no key.
    pub fn abort(&mut self, block: u64, ledger: &BlockLedger) -> Result<()> {
        self.append(BlockState::Aborted, (block, &Bits::default(), ledger, ""), &[])
    }

    /// Blocks that a corrector was killed over: it had the peer's word already, so they are its to commit.
    pub fn unfinished(&self, side: Side) -> Vec<u64> {
        if side == Side::Corrector { self.waiting.store().in_doubt() } else { Vec::new() }
    }

    /// What earlier processes counted of the link's times with light. Figures are worth no refusal.
    pub fn uptime(&self) -> Option<Counts> {
        let path = self.directory.join(UPTIME_FILE);
        let text = std::fs::read(&path).ok()?;
        let counts = serde_json::from_slice(&text);
        counts
            .inspect_err(|error| tracing::warn!(path = %path.display(), "counts of restarts begin again: {error}"))
            .ok()
    }

    /// Keeps these for later processes, at once where there is news in them.
    pub fn keep_uptime(&mut self, counts: Counts) {
        let is_due = match &self.uptime {
            Some((kept, at)) => counts.tells_news_to(kept) || (counts != *kept && at.elapsed() >= UPTIME_WRITTEN),
            None => counts != Counts::default(),
        };
        if !is_due {
            return;
        }
        self.uptime = Some((counts, Instant::now()));
        let written = serde_json::to_vec(&counts).context("write down the times with light").and_then(|text| {
            let path = self.directory.join(UPTIME_FILE);
            self.disk.write_durably(&path, &text).context("keep the times with light")
        });
        if let Err(error) = written {
            tracing::warn!("{}", shell::chain(&error));
        }
    }

    /// Leaves out epochs and blocks that the other end may have used before it noticed the end of the session.
    pub fn pass_over(&mut self, epochs: u64, blocks: u64) {
        self.next_epoch = self.next_epoch.saturating_add(epochs);
        self.next_block = self.next_block.saturating_add(blocks);
    }

    /// Waits for one sync, which leases epochs, too.
    fn append(
        &mut self,
        state: BlockState,
        (number, key, ledger, trace_id): (u64, &Bits, &BlockLedger, &str),
        sealed: &[Sealed],
    ) -> Result<()> {
        let ledger = serde_json::to_string(ledger).context("write the ledger")?;
        let block = NewBlock { number, session: self.session, key, ledger: &ledger, trace_id };
        let ahead = (self.next_epoch + self.lease_epochs).saturating_sub(1);
        let leases = !self.light_over && ahead > self.leased + self.lease_epochs / 4;
        let counts = [(Count::Leased, ahead)];
        let counts = if leases { &counts[..] } else { &[] };
        let pending = self.waiting.store().put(state, &block, sealed, counts)?;
        pending.wait().context("write the block file")?;
        self.next_block = self.next_block.max(number + 1);
        if leases {
            self.leased = ahead;
            shell::failpoint::hit("epoch.leased");
        }
        Ok(())
    }

    fn write_lease(&mut self, leased: u64) -> Result<()> {
        let pending = self.waiting.store().count(Count::Leased, leased).context("lease epochs")?;
        pending.wait().context("lease epochs")?;
        self.leased = leased;
        shell::failpoint::hit("epoch.leased");
        Ok(())
    }
}

/// A block file of today, whatever it was: key that waits is sealed from then on.
fn taken_over(store: BlockStore, seals: &Seals, delivered: u64) -> Result<BlockStore> {
    let old = store.is_old();
    let store = store.take_over(|block, key| match block.state {
        BlockState::Committed if block.number < delivered => Ok(None),
        _ => waiting::seal(seals, Part::Key, block.number, block.session, key).map(Some),
    })?;
    if old {
        tracing::info!(
            "the block file of release 0.1 is one of today: delivered key is erased, what waits is encrypted"
        );
    }
    Ok(store)
}

/// The slice of a block in doubt that release 0.1 left as it is.
fn take_over_slice(directory: &Path, store: &mut BlockStore, seals: &Seals) -> Result<()> {
    let path = directory.join(OLD_SLICE_FILE);
    if !path.exists() {
        return Ok(());
    }
    let bytes = Zeroizing::new(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    if let Some((number, slice)) = bytes.split_first_chunk::<8>()
        && let number = u64::from_le_bytes(*number)
        && let Some(block) = store.get(number)?
        && block.state == BlockState::Prepared
    {
        let slice = Bits::from_bytes(slice, 8 * slice.len());
        let slice = waiting::seal(seals, Part::Slice, number, block.session, &slice)?;
        store.keep(slice)?.wait().context("write the block file")?;
    }
    shell::files::erase(&path).with_context(|| format!("erase {}", path.display()))
}

/// Makes the blocks of a link end that were put back from a copy safe: those that were not delivered then may have been
/// since, so they never are. The module must not run. Nothing where it never did.
pub fn void_restored(
    data: &Path,
    secrets: Option<&Path>,
    site: &str,
    link: &str,
    anchor: Arc<dyn Anchor>,
) -> Result<()> {
    if !store::path(data, site, link).exists() {
        return Ok(());
    }
    let mut vault = Vault::open(data, secrets, site, link, Disk::default())?;
    let in_doubt = vault.waiting.store().in_doubt();
    for block in in_doubt {
        vault.void(block)?;
    }
    // Copies of what was there before are older than that.
    Departures::restore(&vault.directory, vault.disk.clone(), vault.waiting(), anchor)?.leave(1)?;
    let next = vault.waiting.store().next_number();
    delivery::delivered_until(&vault.waiting, next)?;
    vault.waiting.keep_only(|_, _| false)?;
    // A block may have been made of them since.
    vault.stretches.spend()?;
    let text = format!("{next}\n");
    vault.disk.write_durably(&vault.directory.join(RESTORED_FILE), text.as_bytes()).context("mark blocks as restored")
}

/// First block of a link end that was made after its folder was last restored. The two ends need not have the same
/// blocks before it.
pub fn restored_until(data: &Path, site: &str, link: &str) -> Result<u64> {
    read_number(&data.join(site).join(link).join(RESTORED_FILE), "a block")
}

/// First epoch that a link end has never seen; 0 where it never ran.
pub fn next_epoch(data: &Path, site: &str, link: &str) -> Result<u64> {
    let path = store::path(data, site, link);
    let Some(store) = store::existing(&path)? else { return read_lease(path.parent().unwrap_or(data)) };
    leased(path.parent().unwrap_or(data), &store)
}

/// Data that count in other epochs than they would go on in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "blocks and clocks count in epochs of {} s there, and cannot go on in epochs of {} s",
    seconds(*before_ps),
    seconds(*asked_ps)
)]
pub struct OtherEpoch {
    pub before_ps: u64,
    pub asked_ps: u64,
}

fn seconds(time_ps: u64) -> f64 {
    time_ps as f64 / 1e12
}

/// How long the epochs are that a link end counts in; none where it never ran, or last ran with a release that did not
/// say it.
pub fn epoch_ps(data: &Path, site: &str, link: &str) -> Result<Option<u64>> {
    let path = store::path(data, site, link);
    read_epoch(path.parent().unwrap_or(data))
}

fn read_epoch(directory: &Path) -> Result<Option<u64>> {
    Ok(Some(read_number(&directory.join(EPOCH_FILE), "picoseconds")?).filter(|epoch_ps| *epoch_ps > 0))
}

fn leased(directory: &Path, store: &BlockStore) -> Result<u64> {
    Ok(read_lease(directory)?.max(store.counted(Count::Leased).unwrap_or(0)))
}

fn read_lease(directory: &Path) -> Result<u64> {
    read_number(&directory.join(LEASE_FILE), "an epoch")
}

fn read_number(path: &Path, of: &str) -> Result<u64> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is not a number of {of}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
