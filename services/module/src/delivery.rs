//! Handing blocks to the site's key store: in order, each until the store says that it is durable there.
//!
//! The block file is the outbox, and the key of each block waits in it ([`crate::waiting`]). What the store has taken
//! is marked, so that a restart hands over the rest, and then its key is erased here. A block that comes twice is known
//! to the store by its identity, so that neither waits for the disk.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anchor::Anchor;
use anyhow::{Context, Result, bail};
use distill::bits::Bits;
use keystore::Secret;
use proto::kms::v1::{Block, DeliverAnswer};
use sha2::{Digest, Sha256};
use shell::dial::Dial;
use shell::handover::Handover;
use shell::log::Pending;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::departures::Departures;
use crate::store::{self, BlockStore, Count, StoredBlock};
use crate::vault::Vault;
use crate::waiting::{Part, Waiting};

/// Blocks on their way to the key store. A store that does not take them holds the link up.
const BLOCKS_WAITING: usize = 16;
/// This many waiting blocks darken a link whose full pools do: fewer than may wait, because what is under way comes to
/// its end.
const BLOCKS_DARK: usize = 8;
const RETRY: Duration = Duration::from_millis(250);
/// Where older releases kept the mark, and where somebody may give blocks up: the larger one counts.
const MARK_FILE: &str = "delivered.next";

pub type KmsDial = Arc<dyn Dial<Block, DeliverAnswer>>;

/// A block on its way, and its key apart.
struct Outgoing {
    about: Block,
    key: Secret,
}

/// The end of a module through which its blocks leave.
pub struct Delivery {
    blocks: mpsc::Sender<Outgoing>,
    task: JoinHandle<Result<()>>,
    next: u64,
    /// Blocks that were handed over and are not taken.
    waiting: Arc<AtomicUsize>,
    /// The link is dark because of them.
    dark: bool,
}

impl Delivery {
    /// Starts to deliver behind what the mark beside the blocks says; of blocks that were put back, none. Blocks while
    /// `anchor` is asked.
    pub fn start(dial: KmsDial, vault: &mut Vault, anchor: Arc<dyn Anchor>, stop: CancellationToken) -> Result<Self> {
        let keys = vault.waiting();
        let departures = Departures::open(vault.directory(), vault.disk(), keys.clone(), anchor)?;
        let mut next = next_of(vault.directory(), &keys.store())?;
        if departures.was_put_back() {
            // A block may have been made of them since.
            vault.stretches().spend()?;
        }
        if departures.was_put_back() && next < vault.next_block() {
            let path = vault.directory().display();
            tracing::warn!(%path, "its blocks were put back: those that waited may have been delivered, and never are again");
            next = vault.next_block();
            delivered_until(&keys, next)?;
            keys.keep_only(|part, block| part == Part::Slice || block >= next)?;
        }
        let (blocks, incoming) = mpsc::channel(BLOCKS_WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let (left, unconfirmed) = (waiting.clone(), VecDeque::new());
        let outbox = Outbox { dial, keys, departures, waiting: incoming, unconfirmed, left };
        Ok(Self { blocks, task: tokio::spawn(outbox.run(stop)), next, waiting, dark: false })
    }

    /// First block that was not handed over yet.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Waits for room and hands over.
    pub async fn send(
        &mut self,
        link: &str,
        (stored, key): (&StoredBlock, &Bits),
        epoch: u64,
        traceparent: &str,
    ) -> Result<()> {
        let block = message(link, stored, key, epoch, traceparent.to_owned());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.blocks.send(block).await.ok().context("the delivery of blocks has ended")?;
        self.next = stored.number + 1;
        Ok(())
    }

    /// Whether a link that is dark while its key finds no room is to be dark now: from this many blocks on that the
    /// store does not take, until it has taken all.
    pub fn darkens(&mut self) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.dark = waiting >= if self.dark { 1 } else { BLOCKS_DARK };
        self.dark
    }

    /// Waits until everything was taken.
    pub async fn finish(self) -> Result<()> {
        drop(self.blocks);
        self.task.await.context("the delivery of blocks ended abnormally")?
    }
}

/// A stored block as the key store gets it.
fn message(link: &str, stored: &StoredBlock, key: &Bits, epoch: u64, traceparent: String) -> Outgoing {
    let about = Block {
        link: link.to_owned(),
        number: stored.number,
        id: identity(link, stored).to_vec().into(),
        key_bits: stored.key_bits,
        epoch,
        traceparent,
        ..Block::default()
    };
    Outgoing { about, key: Secret::new(key.to_bytes()) }
}

/// The same at both ends, and no other block's: numbers go on with the data, sessions are drawn at random.
fn identity(link: &str, stored: &StoredBlock) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(b"qkdnet block v1\0")
        .chain_update(stored.session.to_le_bytes())
        .chain_update(stored.number.to_le_bytes())
        .chain_update(link)
        .finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

struct Outbox {
    dial: KmsDial,
    keys: Arc<Waiting>,
    departures: Departures,
    waiting: mpsc::Receiver<Outgoing>,
    /// Sent, and not said to be durable.
    unconfirmed: VecDeque<Outgoing>,
    /// Blocks that are not taken, as `Delivery` counts them.
    left: Arc<AtomicUsize>,
}

impl Outbox {
    async fn run(mut self, stop: CancellationToken) -> Result<()> {
        loop {
            let ended = tokio::select! {
                ended = self.deliver() => ended,
                () = stop.cancelled() => return Ok(()),
            };
            match ended {
                // What is erased is so on the disk.
                Ok(()) => {
                    let pending = self.keys.store().pending();
                    return pending.wait().context("write the block file");
                }
                Err(error) => tracing::info!("delivery of blocks interrupted: {}", shell::chain(&error)),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One stream to the store; returns once there is nothing left to deliver.
    async fn deliver(&mut self) -> Result<()> {
        let stream = self.dial.dial().await.context("reach the key store")?;
        let mut store = Handover::open(stream).await?;
        // A disk that was full may have room by now.
        self.keys.store().mend()?;
        if !self.unconfirmed.is_empty() {
            self.departures.leave(1)?;
        }
        for block in &self.unconfirmed {
            store.send(block.about.clone(), block.key.expose()).await?;
        }
        let mut open = true;
        while open || !self.unconfirmed.is_empty() {
            tokio::select! {
                taken = store.taken() => self.taken(taken?)?,
                block = self.waiting.recv(), if open && self.unconfirmed.len() < BLOCKS_WAITING => match block {
                    Some(block) => {
                        let before = self.unconfirmed.len();
                        self.unconfirmed.push_back(block);
                        // What waits already leaves with it.
                        while self.unconfirmed.len() < BLOCKS_WAITING && let Ok(block) = self.waiting.try_recv() {
                            self.unconfirmed.push_back(block);
                        }
                        self.departures.leave((self.unconfirmed.len() - before) as u64)?;
                        for block in self.unconfirmed.range(before..) {
                            store.send(block.about.clone(), block.key.expose()).await?;
                        }
                    }
                    None => open = false,
                },
            }
        }
        Ok(())
    }

    fn taken(&mut self, number: u64) -> Result<()> {
        match self.unconfirmed.front() {
            Some(first) if first.about.number == number => self.unconfirmed.pop_front(),
            _ => bail!("the key store took block {number}, which is not the next one"),
        };
        self.left.fetch_sub(1, Ordering::Relaxed);
        shell::failpoint::hit("block.delivered");
        delivered_to(&self.keys, number + 1)?.later();
        shell::failpoint::hit("block.marked");
        // What cannot be erased now is when the blocks are opened the next time.
        if let Err(error) = self.keys.erase(Part::Key, number) {
            tracing::warn!(block = number, "delivered key is still on the disk: {}", shell::chain(&error));
        }
        Ok(())
    }
}

/// First block of a link end that its key store has not said to be durable there; 0 where it never took any.
pub fn next_undelivered(data: &Path, site: &str, link: &str) -> Result<u64> {
    let path = store::path(data, site, link);
    let directory = path.parent().unwrap_or(data);
    match store::existing(&path)? {
        Some(store) => next_of(directory, &store),
        None => read_mark(&directory.join(MARK_FILE)),
    }
}

/// As [`next_undelivered`], of the link end in this folder.
pub(crate) fn next_of(directory: &Path, store: &BlockStore) -> Result<u64> {
    Ok(read_mark(&directory.join(MARK_FILE))?.max(store.delivered()))
}

/// No block of a link end before this one is delivered any more.
pub(crate) fn delivered_until(blocks: &Waiting, next: u64) -> Result<()> {
    delivered_to(blocks, next)?.wait().context("mark blocks as delivered")
}

fn delivered_to(blocks: &Waiting, next: u64) -> Result<Pending> {
    blocks.store().count(Count::Delivered, next).context("mark blocks as delivered")
}

fn read_mark(path: &Path) -> Result<u64> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is not a number of a block", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
