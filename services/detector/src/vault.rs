//! What a module must find again after it was killed: blocks, the reserve slice of a block in doubt, and the
//! epochs that it has seen.
//!
//! Order of writes for a block: reserve slice, block (undecided), reserve refilled (in the channel), block
//! committed. Each step may be repeated after a crash.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use distill::bits::Bits;
use distill::config::Role;
use distill::ledger::BlockLedger;
use distill::module::FinishedBlock;
use shell::disk::Disk;
use zeroize::Zeroizing;

use crate::store::{self, BlockState, BlockStore, NewBlock, StoredBlock};

/// Epochs that are leased at once: after a kill the link resumes behind the lease, so that no epoch of a seeded
/// run is ever distilled twice.
const LEASE_EPOCHS: u64 = 250;

const LEASE_FILE: &str = "epoch.next";
const SLICE_FILE: &str = "reserve.slice";

/// The durable side of one link end.
pub struct Vault {
    directory: PathBuf,
    disk: Disk,
    store: BlockStore,
    session: u64,
    /// First block and epoch that were never used.
    next_block: u64,
    leased: u64,
    next_epoch: u64,
}

impl Vault {
    pub fn open(data: &Path, site: &str, link: &str, disk: Disk) -> Result<Self> {
        let path = store::path(data, site, link);
        let store = BlockStore::open_on(&path, disk.clone()).context("open the block file")?;
        if let Some(torn) = store.torn_tail() {
            tracing::warn!(path = %path.display(), "{torn}");
        }
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        let leased = read_lease(&directory)?;
        let next_block = store.next_number();
        Ok(Self { directory, disk, store, session: 0, next_block, leased, next_epoch: leased })
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
        if self.store.mend()? {
            tracing::info!("the block file is written again");
        }
        Ok(())
    }

    /// The first block from `number` on that counts, unless one before it is undecided.
    pub fn next_committed(&self, number: u64) -> Result<Option<StoredBlock>> {
        for number in number..self.store.next_number() {
            match self.store.state(number) {
                Some(BlockState::Committed) => return Ok(self.store.get(number)?),
                Some(BlockState::Prepared) => return Ok(None),
                Some(BlockState::Voided | BlockState::Aborted) | None => {}
            }
        }
        Ok(None)
    }

    pub fn next_block(&self) -> u64 {
        self.next_block
    }

    pub fn next_epoch(&self) -> u64 {
        self.next_epoch
    }

    pub fn committed_end(&self) -> u64 {
        self.store.last_committed().map_or(0, |block| block + 1)
    }

    /// The block that waits for the peer's word. There is at most one.
    pub fn in_doubt(&self) -> Option<u64> {
        self.store.in_doubt().last().copied()
    }

    pub fn session_starts(&mut self, session: u64, first_block: u64, first_epoch: u64) -> Result<()> {
        self.session = session;
        self.next_block = self.next_block.max(first_block);
        self.next_epoch = first_epoch;
        self.lease(first_epoch)
    }

    /// Makes sure that `epoch` and those that follow closely are on the disk as used.
    pub fn lease(&mut self, epoch: u64) -> Result<()> {
        self.next_epoch = epoch + 1;
        if epoch + LEASE_EPOCHS / 2 >= self.leased {
            self.leased = epoch + LEASE_EPOCHS;
            self.write_lease()?;
        }
        Ok(())
    }

    /// The run has ended in good order: the next one goes on exactly where it ended.
    pub fn run_ended(&mut self, end: u64) -> Result<()> {
        self.next_epoch = end;
        self.leased = end;
        self.write_lease()
    }

    /// Puts a block on the disk, undecided, its reserve slice beside it.
    pub fn prepare(&mut self, block: &FinishedBlock, trace_id: &str) -> Result<()> {
        let reserve = block.key.slice(0, block.reserve_bits);
        let delivered = block.key.slice(block.reserve_bits, block.key.len() - block.reserve_bits);
        let mut slice = Zeroizing::new(block.number.to_le_bytes().to_vec());
        slice.extend_from_slice(&Zeroizing::new(reserve.to_bytes()));
        self.disk.write_durably(&self.directory.join(SLICE_FILE), &slice).context("write the reserve slice")?;
        shell::failpoint::hit("block.slice");
        self.append(block.number, &delivered, &block.ledger, trace_id, BlockStore::prepare)
    }

    /// The slice of an undecided block that goes into the authentication reserve once it is committed.
    pub fn reserve_slice(&self, block: u64) -> Result<Option<Vec<u8>>> {
        let bytes = match std::fs::read(self.directory.join(SLICE_FILE)) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read the reserve slice"),
        };
        let Some((number, slice)) = bytes.split_first_chunk::<8>() else { bail!("the reserve slice is cut short") };
        Ok((u64::from_le_bytes(*number) == block).then(|| slice.to_vec()))
    }

    pub fn commit(&mut self, block: u64) -> Result<()> {
        self.store.commit(block)?;
        Ok(())
    }

    pub fn void(&mut self, block: u64) -> Result<()> {
        self.store.void(block)?;
        Ok(())
    }

    /// Keeps the ledger of a block that gave no key.
    pub fn abort(&mut self, block: u64, ledger: &BlockLedger) -> Result<()> {
        self.append(block, &Bits::default(), ledger, "", BlockStore::abort)
    }

    /// Blocks that a matcher was killed over: it had the announcer's word already, so they are its to commit.
    pub fn unfinished(&self, role: Role) -> Vec<u64> {
        if role == Role::Matcher { self.store.in_doubt() } else { Vec::new() }
    }

    /// The session broke: numbers that it used are not used again.
    pub fn blocks_used(&mut self, next_block: u64) {
        self.next_block = self.next_block.max(next_block);
    }

    fn append(
        &mut self,
        number: u64,
        key: &Bits,
        ledger: &BlockLedger,
        trace_id: &str,
        write: fn(&mut BlockStore, &NewBlock<'_>) -> Result<(), store::StoreError>,
    ) -> Result<()> {
        let ledger = serde_json::to_string(ledger).context("write the ledger")?;
        let block = NewBlock { number, session: self.session, key, ledger: &ledger, trace_id };
        write(&mut self.store, &block)?;
        self.next_block = self.next_block.max(number + 1);
        Ok(())
    }

    fn write_lease(&self) -> Result<()> {
        let text = format!("{}\n", self.leased);
        self.disk.write_durably(&self.directory.join(LEASE_FILE), text.as_bytes()).context("lease epochs")?;
        shell::failpoint::hit("epoch.leased");
        Ok(())
    }
}

/// First epoch that a link end has never seen; 0 where it never ran.
pub fn next_epoch(data: &Path, site: &str, link: &str) -> Result<u64> {
    let path = store::path(data, site, link);
    read_lease(path.parent().unwrap_or(data))
}

fn read_lease(directory: &Path) -> Result<u64> {
    let path = directory.join(LEASE_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is not a number of an epoch", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
