//! What is sealed (AES-256-GCM) at a link end, and a folder of files that are.
//!
//! The key follows from `blocks.key` in the folder of the link end, or from one that somebody placed. What is erased is
//! overwritten: what a disk that moves its pages about, or a snapshot, keeps of it is sealed at least.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use keystore::{MasterKey, Sealer, Secret};
use shell::disk::Disk;
use shell::files;

/// The key, where nobody placed one.
const KEY_FILE: &str = "blocks.key";

/// The keys that are sealed with at one link end for one purpose.
pub struct Seals {
    /// The first one seals; all open.
    sealers: Vec<Sealer>,
}

impl Seals {
    /// Of the link end whose folder `end` is; what is sealed for one purpose does not open for another. Makes
    /// `blocks.key` where there is neither it nor a placed key, unless something is sealed already (`needed`).
    pub fn open(end: &Path, purpose: &[u8], placed: Option<&Path>, needed: bool) -> Result<Self> {
        let own = end.join(KEY_FILE);
        let placed = placed.filter(|path| path.exists());
        let mut keys = Vec::new();
        if let Some(path) = placed {
            keys.push(MasterKey::read_placed(path)?);
        }
        if own.exists() {
            keys.push(MasterKey::read(&own)?);
        }
        if keys.is_empty() {
            if needed {
                bail!(
                    "{} is missing, without which the key that waits beside it cannot be read: put it back from a copy, \
                     or void the blocks with `qkdnet restore`",
                    own.display()
                );
            }
            keys.push(create_key(&own)?);
        }
        // The folder's own name keeps what one end sealed from being read as another's.
        let of_end: Vec<&[u8]> = end.iter().rev().take(2).map(|name| name.as_encoded_bytes()).collect();
        let purpose = [purpose, b"\0", of_end.join(&b'\0').as_slice()].concat();
        let sealers = keys.iter().map(|key| key.sealer(&purpose)).collect::<Result<_, _>>()?;
        Ok(Self { sealers })
    }

    pub fn seal(&self, about: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let Some(sealer) = self.sealers.first() else { bail!("there is no key to seal with") };
        Ok(sealer.seal(about, plain)?)
    }

    /// What was sealed; nothing where it was not sealed here for what it is `about`.
    pub fn unseal(&self, about: &[u8], sealed: &[u8]) -> Option<Secret> {
        self.sealers.iter().find_map(|sealer| sealer.open(about, sealed.to_vec()))
    }
}

/// A folder of files that are sealed, each under a name of its own.
pub struct SealedFolder {
    path: PathBuf,
    disk: Disk,
    seals: Seals,
}

impl SealedFolder {
    /// Of the link end whose folder `end` is.
    pub fn open(end: &Path, name: &str, purpose: &[u8], placed: Option<&Path>, disk: Disk) -> Result<Self> {
        let path = end.join(name);
        files::create_private_folder(&path).with_context(|| format!("create {}", path.display()))?;
        let seals = Seals::open(end, purpose, placed, !names(&path)?.is_empty())?;
        Ok(Self { path, disk, seals })
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Puts what is `plain` on the disk, sealed for what it is `about`, behind a head that anybody may read.
    pub fn put(&self, name: &str, head: &[u8], about: &[u8], plain: &[u8]) -> Result<()> {
        let content = [head, self.seals.seal(about, plain)?.as_slice()].concat();
        let path = self.path(name);
        self.disk.write_durably(&path, &content).with_context(|| format!("write {}", path.display()))
    }

    /// What the file has, head and seal; nothing where it was never there or has been erased.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        // Erased, and its name was to be removed when a crash came.
        Ok((!content.iter().all(|byte| *byte == 0)).then_some(content))
    }

    /// See [`Seals::unseal`].
    pub fn unseal(&self, about: &[u8], sealed: &[u8]) -> Option<Secret> {
        self.seals.unseal(about, sealed)
    }

    /// Overwrites it and removes its file. Nothing to do where there is none.
    pub fn erase(&self, name: impl AsRef<Path>) -> Result<()> {
        let path = self.path(name);
        match files::erase(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("erase {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Names of all files, what was being written in a crash included.
    pub fn names(&self) -> Result<Vec<OsString>> {
        names(&self.path)
    }
}

pub(crate) fn names(folder: &Path) -> Result<Vec<OsString>> {
    let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    list().with_context(|| format!("read {}", folder.display()))
}

/// A new key under its name, all of it or nothing.
fn create_key(path: &Path) -> Result<MasterKey> {
    let beside = path.with_extension("key.new");
    if beside.exists() {
        // A crash came before it had its name: nothing is sealed under it.
        fs::remove_file(&beside).with_context(|| format!("remove {}", beside.display()))?;
    }
    let key = MasterKey::create(&beside)?;
    let named = fs::rename(&beside, path).and_then(|()| files::sync_folder(path.parent().unwrap_or(Path::new("."))));
    named.with_context(|| format!("make {}", path.display()))?;
    Ok(key)
}
