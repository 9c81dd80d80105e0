//! How often a block has left a link end for its key store: counted beside the blocks, and in an anchor outside of them.
//!
//! A key store knows each block by its identity, so that one which comes twice counts once. A key store that was put back
//! itself, and voided since, knows it no more. So blocks that were put back must not leave again. The count is on the disk
//! before the anchor has it, and the anchor has it before the block leaves: a crash leaves no count behind its ceiling, and
//! one that is behind was put back. Then whatever waits may have left before.
//!
//! The count goes on in the block file. A small file beside it says whose it is, and how far it was at the last start.

use std::path::Path;
use std::sync::Arc;

use anchor::{Anchor, Instance};
use anyhow::{Context, Result};
use shell::disk::Disk;

use crate::store::Count;
use crate::waiting::Waiting;

const FILE: &str = "departures.count";
/// Name of the ceiling.
const COUNT: &str = "departures";

pub struct Departures {
    blocks: Arc<Waiting>,
    anchor: Arc<dyn Anchor>,
    instance: Instance,
    count: u64,
    was_put_back: bool,
}

impl Departures {
    /// Of the link end in this folder, which gets an identity where it has none. Blocks while `anchor` is asked.
    pub fn open(folder: &Path, disk: Disk, blocks: Arc<Waiting>, anchor: Arc<dyn Anchor>) -> Result<Self> {
        let path = folder.join(FILE);
        let known = read(&path)?;
        Self::of(&path, known, &disk, blocks, anchor)
    }

    /// As [`Self::open`], of a link end whose blocks are void: what cannot be read is made again.
    pub fn restore(folder: &Path, disk: Disk, blocks: Arc<Waiting>, anchor: Arc<dyn Anchor>) -> Result<Self> {
        let path = folder.join(FILE);
        let known = read(&path).unwrap_or(None);
        Self::of(&path, known, &disk, blocks, anchor)
    }

    fn of(
        path: &Path,
        known: Option<(Instance, u64)>,
        disk: &Disk,
        blocks: Arc<Waiting>,
        anchor: Arc<dyn Anchor>,
    ) -> Result<Self> {
        let (instance, count) = match known {
            Some(known) => known,
            None => (Instance::draw().context("draw an identity")?, 0),
        };
        let count = count.max(blocks.store().counted(Count::Departed).unwrap_or(0));
        let ceilings = anchor.read(instance).context("ask for the ceiling of blocks that left")?.unwrap_or_default();
        let ceiling = ceilings.get(COUNT).copied().unwrap_or(0);
        let (was_put_back, count) = (count < ceiling, count.max(ceiling));
        let text = format!("{instance} {count}\n");
        disk.write_durably(path, text.as_bytes()).context("count the blocks that left")?;
        Ok(Self { blocks, anchor, instance, count, was_put_back })
    }

    /// Whether the blocks are older than what was done with them. Said once: the next start knows them as they are now.
    pub fn was_put_back(&self) -> bool {
        self.was_put_back
    }

    /// This many more leave, each of which counts. Blocks until that is on the disk and in the anchor.
    pub fn leave(&mut self, blocks: u64) -> Result<()> {
        self.count += blocks;
        self.write()?;
        let ceilings = [(COUNT.to_owned(), self.count)].into();
        self.anchor.raise(self.instance, &ceilings).context("raise the ceiling of blocks that left")
    }

    fn write(&self) -> Result<()> {
        let counted = self.blocks.store().count(Count::Departed, self.count).context("count the blocks that left")?;
        counted.wait().context("count the blocks that left")
    }
}

fn read(path: &Path) -> Result<Option<(Instance, u64)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let known =
        text.trim().split_once(' ').and_then(|(instance, count)| Some((instance.parse().ok()?, count.parse().ok()?)));
    let what = || format!("{} is damaged: `qkdnet restore` voids the blocks and makes it again", path.display());
    known.with_context(what).map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use anchor::MemoryAnchor;

    use super::*;
    use crate::vault::Vault;

    #[test]
    fn blocks_that_were_put_back_are_known_and_a_crash_is_not_taken_for_it() {
        let (folder, anchor) = (tempfile::tempdir().unwrap(), Arc::new(MemoryAnchor::default()));
        let blocks = || Vault::open(folder.path(), None, "valrose", "link", Disk::default()).unwrap().waiting();
        let end = folder.path().join("valrose/link");
        let open = || Departures::open(&end, Disk::default(), blocks(), anchor.clone()).unwrap();
        let mut departures = open();
        departures.leave(1).unwrap();
        drop(departures);
        let files = [FILE, crate::store::FILE_NAME].map(|name| end.join(name));
        let copies = files.each_ref().map(|path| std::fs::read(path).unwrap());
        let mut departures = open();
        assert!(!departures.was_put_back());
        departures.leave(1).unwrap();
        // Counted, and then the anchor does not get it.
        departures.count += 1;
        departures.write().unwrap();
        drop(departures);
        assert!(!open().was_put_back());
        for (path, copy) in files.iter().zip(&copies) {
            std::fs::write(path, copy).unwrap();
        }
        assert!(open().was_put_back());
        assert!(!open().was_put_back(), "it is said once");
        std::fs::write(&files[0], "damaged").unwrap();
        assert!(Departures::open(&end, Disk::default(), blocks(), anchor.clone()).is_err());
        Departures::restore(&end, Disk::default(), blocks(), anchor.clone()).unwrap().leave(1).unwrap();
        assert!(!open().was_put_back());
    }
}
