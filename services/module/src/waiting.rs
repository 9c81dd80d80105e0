//! Key that waits: blocks on their way to the key store, or without one, and reserve slices of blocks in doubt.
//!
//! Each is a file of its own in `<data>/<site>/<link>/waiting`, sealed (AES-256-GCM) under a key that follows from
//! `blocks.key` beside it, or from one that somebody placed ([`crate::sealed`]).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use distill::bits::Bits;
use keystore::Secret;
use shell::disk::Disk;

use crate::sealed::SealedFolder;

/// The folder beside the block file.
const FOLDER: &str = "waiting";
const PURPOSE: &[u8] = b"blocks";

/// Where the key is that somebody placed for the link ends of a site.
pub fn placed_key_path(secrets: &Path, site: &str) -> PathBuf {
    secrets.join("blocks").join(format!("{site}.key"))
}

/// What waits, and of which block it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The delivered key of a block.
    Key,
    /// What of it goes into the authentication reserve once the block counts.
    Slice,
}

impl Part {
    fn extension(self) -> &'static str {
        match self {
            Part::Key => "key",
            Part::Slice => "slice",
        }
    }
}

/// The key that waits at one link end.
pub struct Waiting {
    folder: SealedFolder,
}

impl Waiting {
    /// For the link end whose folder this is. Makes `blocks.key` where there is neither it nor a placed key.
    pub fn open(end: &Path, placed: Option<&Path>, disk: Disk) -> Result<Self> {
        Ok(Self { folder: SealedFolder::open(end, FOLDER, PURPOSE, placed, disk)? })
    }

    /// Puts it on the disk.
    pub fn put(&self, part: Part, block: u64, session: u64, bits: &Bits) -> Result<()> {
        let mut head = session.to_le_bytes().to_vec();
        head.extend_from_slice(&(bits.len() as u64).to_le_bytes());
        let about = about(part, block, session, bits.len());
        self.folder.put(&name(part, block), &head, &about, Secret::new(bits.to_bytes()).expose())
    }

    /// What waits; nothing where it was never there or has been erased.
    pub fn get(&self, part: Part, block: u64) -> Result<Option<Bits>> {
        let name = name(part, block);
        let Some(content) = self.folder.get(&name)? else { return Ok(None) };
        let path = self.folder.path(&name);
        let damaged =
            || format!("{} is damaged, or sealed under another key: put both back from a copy", path.display());
        let (session, rest) = content.split_first_chunk::<8>().with_context(damaged)?;
        let (bits, sealed) = rest.split_first_chunk::<8>().with_context(damaged)?;
        let bits = usize::try_from(u64::from_le_bytes(*bits)).with_context(damaged)?;
        let about = about(part, block, u64::from_le_bytes(*session), bits);
        let opened = self.folder.unseal(&about, sealed);
        Ok(Some(Bits::from_bytes(opened.with_context(damaged)?.expose(), bits)))
    }

    /// Overwrites it and removes its file. Nothing to do where there is none.
    pub fn erase(&self, part: Part, block: u64) -> Result<()> {
        self.folder.erase(name(part, block))
    }

    /// Erases what of the blocks is not to be kept.
    pub fn keep_only(&self, keep: impl Fn(Part, u64) -> bool) -> Result<()> {
        for name in self.folder.names()? {
            let file = Path::new(&name);
            let part =
                [Part::Key, Part::Slice].into_iter().find(|part| file.extension() == Some(part.extension().as_ref()));
            let block = file.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            match (part, block) {
                (Some(part), Some(block)) if keep(part, block) => {}
                // What was being written in a crash has no name of a block.
                _ => self.folder.erase(file)?,
            }
        }
        Ok(())
    }
}

fn name(part: Part, block: u64) -> String {
    format!("{block}.{}", part.extension())
}

/// Binds what is sealed to its place.
fn about(part: Part, block: u64, session: u64, bits: usize) -> Vec<u8> {
    let mut about = part.extension().as_bytes().to_vec();
    for number in [block, session, bits as u64] {
        about.extend_from_slice(&number.to_le_bytes());
    }
    about
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use keystore::MasterKey;
    use shell::files;

    use super::*;

    const KEY_FILE: &str = "blocks.key";

    impl Waiting {
        fn path(&self, part: Part, block: u64) -> PathBuf {
            self.folder.path(name(part, block))
        }
    }

    fn bits(seed: u64, len: usize) -> Bits {
        Bits::from_words(
            (0..len.div_ceil(64) as u64).map(|i| (seed + i).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect(),
            len,
        )
    }

    fn end(folder: &Path) -> PathBuf {
        let end = folder.join("valrose/valrose-sophia");
        files::create_private_folder(&end).unwrap();
        end
    }

    #[test]
    fn what_waits_is_sealed_and_comes_back_until_it_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let end = end(folder.path());
        let (key, slice) = (bits(1, 1003), bits(2, 256));
        let waiting = Waiting::open(&end, None, Disk::default()).unwrap();
        waiting.put(Part::Key, 3, 9, &key).unwrap();
        waiting.put(Part::Slice, 3, 9, &slice).unwrap();
        let on_disk = fs::read(waiting.path(Part::Key, 3)).unwrap();
        assert!(!on_disk.windows(16).any(|part| key.to_bytes().windows(16).any(|of_key| of_key == part)));
        let waiting = Waiting::open(&end, None, Disk::default()).unwrap();
        assert!(waiting.get(Part::Key, 3).unwrap().unwrap().ct_eq(&key));
        assert!(waiting.get(Part::Slice, 3).unwrap().unwrap().ct_eq(&slice));
        assert!(waiting.get(Part::Key, 4).unwrap().is_none());
        waiting.erase(Part::Key, 3).unwrap();
        waiting.erase(Part::Key, 3).unwrap();
        assert!(waiting.get(Part::Key, 3).unwrap().is_none());
        assert!(!waiting.path(Part::Key, 3).exists());
        fs::write(waiting.folder.path("5.key.77-0.new"), b"torn").unwrap();
        waiting.keep_only(|part, block| (part, block) == (Part::Key, 3)).unwrap();
        assert!(waiting.folder.names().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_was_overwritten_and_not_removed_is_gone_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let waiting = Waiting::open(&end(folder.path()), None, Disk::default()).unwrap();
        waiting.put(Part::Key, 0, 1, &bits(3, 64)).unwrap();
        let path = waiting.path(Part::Key, 0);
        let length = fs::metadata(&path).unwrap().len() as usize;
        fs::write(&path, vec![0; length]).unwrap();
        assert!(waiting.get(Part::Key, 0).unwrap().is_none());
    }

    #[test]
    fn what_was_moved_changed_or_cut_does_not_open_and_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let waiting = Waiting::open(&end(folder.path()), None, Disk::default()).unwrap();
        waiting.put(Part::Key, 0, 1, &bits(4, 200)).unwrap();
        let good = fs::read(waiting.path(Part::Key, 0)).unwrap();
        fs::write(waiting.path(Part::Key, 1), &good).unwrap();
        fs::write(waiting.path(Part::Slice, 0), &good).unwrap();
        for (part, block) in [(Part::Key, 1), (Part::Slice, 0)] {
            assert!(waiting.get(part, block).unwrap_err().to_string().contains("is damaged"));
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(waiting.path(Part::Key, 0), &bad).unwrap();
            assert!(waiting.get(Part::Key, 0).is_err(), "byte {at}");
            fs::write(waiting.path(Part::Key, 0), &good[..at]).unwrap();
            assert!(at == 0 || waiting.get(Part::Key, 0).is_err(), "cut at byte {at}");
        }
    }

    #[test]
    fn a_key_that_is_missing_is_refused_while_something_waits_and_a_placed_one_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let end = end(folder.path());
        let waiting = Waiting::open(&end, None, Disk::default()).unwrap();
        waiting.put(Part::Key, 0, 1, &bits(5, 99)).unwrap();
        let placed = folder.path().join("placed.key");
        MasterKey::create(&placed).unwrap();
        let both = Waiting::open(&end, Some(&placed), Disk::default()).unwrap();
        assert!(both.get(Part::Key, 0).unwrap().unwrap().ct_eq(&bits(5, 99)), "sealed under the key beside it");
        both.put(Part::Key, 1, 1, &bits(6, 99)).unwrap();
        assert!(waiting.get(Part::Key, 1).is_err(), "sealed under the placed key");
        fs::remove_file(end.join(KEY_FILE)).unwrap();
        let refused = Waiting::open(&end, None, Disk::default()).err().unwrap().to_string();
        assert!(refused.contains("blocks.key is missing") && refused.contains("put it back"), "{refused}");
    }
}
