//! Key that waits: blocks on their way to the key store, or without one, and reserve slices of blocks in doubt.
//!
//! It stands in the block file ([`crate::store`]), sealed ([`crate::sealed`]). What waits no longer is overwritten.
//! Older releases had a file for each in the folder `waiting`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use distill::bits::Bits;
use keystore::Secret;
use shell::files;

use crate::sealed::{Seals, names};
use crate::store::{BlockStore, Sealed};

/// Where older releases kept it, beside the block file.
const FOLDER: &str = "waiting";
/// What key that waits is sealed for.
const PURPOSE: &[u8] = b"blocks";

/// Where the key is that somebody placed for the link ends of a site.
pub fn placed_key_path(secrets: &Path, site: &str) -> PathBuf {
    secrets.join("blocks").join(format!("{site}.key"))
}

/// The keys that key is sealed with while it waits; see [`Seals::open`].
pub fn open_seals(end: &Path, placed: Option<&Path>, needed: bool) -> Result<Seals> {
    Seals::open(end, PURPOSE, placed, needed)
}

/// What waits, and of which block it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The delivered key of a block.
    Key,
    /// What of it goes into the authentication reserve once the block counts.
    Slice,
}

impl Part {
    /// Also the end of the names of older files.
    fn name(self) -> &'static str {
        match self {
            Part::Key => "key",
            Part::Slice => "slice",
        }
    }
}

/// As it is put on the disk.
pub fn seal(seals: &Seals, part: Part, block: u64, session: u64, bits: &Bits) -> Result<Sealed> {
    let content = seals.seal(&about(part, block, session, bits.len()), Secret::new(bits.to_bytes()).expose())?;
    Ok(Sealed { part, block, session, bits: bits.len() as u64, content })
}

/// Nothing where it is damaged, or sealed under another key.
fn unsealed(seals: &Seals, sealed: &Sealed) -> Option<Bits> {
    let bits = usize::try_from(sealed.bits).ok()?;
    let opened = seals.unseal(&about(sealed.part, sealed.block, sealed.session, bits), &sealed.content)?;
    (opened.expose().len() == bits.div_ceil(8)).then(|| Bits::from_bytes(opened.expose(), bits))
}

/// The key that waits at one link end.
pub struct Waiting {
    path: PathBuf,
    store: Arc<Mutex<BlockStore>>,
    seals: Seals,
}

impl Waiting {
    /// In the block file at `path`.
    pub fn new(path: &Path, store: Arc<Mutex<BlockStore>>, seals: Seals) -> Self {
        Self { path: path.to_owned(), store, seals }
    }

    /// The block file. Who waits for the disk gives it back before, so that others write meanwhile.
    pub fn store(&self) -> MutexGuard<'_, BlockStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is put on the disk.
    pub fn seal(&self, part: Part, block: u64, session: u64, bits: &Bits) -> Result<Sealed> {
        seal(&self.seals, part, block, session, bits)
    }

    /// What waits; nothing where it was never there or has been erased.
    pub fn get(&self, part: Part, block: u64) -> Result<Option<Bits>> {
        let Some(sealed) = self.store().sealed(part, block)? else { return Ok(None) };
        let (path, name) = (self.path.display(), part.name());
        let damaged = || {
            format!(
                "the {name} of block {block} in {path} is damaged, or sealed under another key: put both back from a copy"
            )
        };
        unsealed(&self.seals, &sealed).with_context(damaged).map(Some)
    }

    /// Overwrites it, which is on the disk with the next sync. Nothing to do where there is none.
    pub fn erase(&self, part: Part, block: u64) -> Result<()> {
        Ok(self.store().erase(part, block)?)
    }

    /// Erases what of the blocks is not to be kept, and waits for the disk.
    pub fn keep_only(&self, keep: impl Fn(Part, u64) -> bool) -> Result<()> {
        let mut store = self.store();
        let gone: Vec<_> = store.parts().filter(|(part, block)| !keep(*part, *block)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        for (part, block) in gone {
            store.erase(part, block)?;
        }
        let pending = store.pending();
        drop(store);
        pending.wait().with_context(|| format!("erase key in {}", self.path.display()))
    }
}

/// Takes what an older release left in a folder of files into the block file. Whole files are taken as they are: they
/// open there, or are refused there.
pub fn take_over_folder(end: &Path, store: &mut BlockStore) -> Result<()> {
    let folder = end.join(FOLDER);
    if !folder.exists() {
        return Ok(());
    }
    for name in names(&folder)? {
        let path = folder.join(&name);
        if let Some(sealed) = older_file(&path).with_context(|| format!("read {}", path.display()))? {
            let kept = store.keep(sealed)?;
            kept.wait().with_context(|| format!("take {} over", path.display()))?;
        }
        files::erase(&path).with_context(|| format!("erase {}", path.display()))?;
    }
    fs::remove_dir(&folder).with_context(|| format!("remove {}", folder.display()))
}

/// Whether an older release left something there.
pub fn has_folder(end: &Path) -> Result<bool> {
    let folder = end.join(FOLDER);
    Ok(folder.exists() && !names(&folder)?.is_empty())
}

/// What a file of an older release has; nothing where it is being written, or was being erased, in a crash.
fn older_file(path: &Path) -> io::Result<Option<Sealed>> {
    let part = [Part::Key, Part::Slice].into_iter().find(|part| path.extension() == Some(part.name().as_ref()));
    let block = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
    let Some((part, block)) = part.zip(block) else { return Ok(None) };
    let content = fs::read(path)?;
    if content.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let parsed = content.split_first_chunk().and_then(|(session, rest)| {
        let (bits, sealed) = rest.split_first_chunk()?;
        Some(Sealed { part, block, session: number(session), bits: number(bits), content: sealed.to_vec() })
    });
    let what = "it is damaged: put it back from a copy, or remove it and the key in it is lost";
    let whole = parsed.filter(|sealed| sealed.content.len() as u64 >= sealed.bits.div_ceil(8));
    whole.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Binds what is sealed to its place.
fn about(part: Part, block: u64, session: u64, bits: usize) -> Vec<u8> {
    let mut about = part.name().as_bytes().to_vec();
    for number in [block, session, bits as u64] {
        about.extend_from_slice(&number.to_le_bytes());
    }
    about
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
