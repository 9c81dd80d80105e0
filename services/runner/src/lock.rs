//! One run at a time on a data directory: two would hand out the same key.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Folders;

/// Longest process ID that is read.
const ID_CHARS: u64 = 20;

/// Held as long as a network runs; the system releases it however the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub fn take(folders: &Folders) -> Result<Self> {
        let path = path(&folders.data);
        let mut file = open(&path).with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "another run uses {} (process {}): end it, or give another `--data`",
                    folders.data.display(),
                    holder(&mut file).map_or("unknown".to_owned(), |id| id.to_string())
                )
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
        }
        let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        written.with_context(|| format!("write {}", path.display()))?;
        Ok(Self { _file: file })
    }

    /// The process that runs a network on this data.
    pub fn holder(data: &Path) -> Option<u32> {
        let mut file = File::open(path(data)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => holder(&mut file),
            _ => None,
        }
    }
}

fn path(data: &Path) -> PathBuf {
    data.join(".qkdnet").join("lock")
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(ID_CHARS).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_on_the_same_data_is_refused_and_told_who_is_first() {
        let data = tempfile::tempdir().unwrap();
        let folders = Folders::of(data.path());
        folders.create().unwrap();
        assert_eq!(Lock::holder(data.path()), None);
        let lock = Lock::take(&folders).unwrap();
        assert_eq!(Lock::holder(data.path()), Some(std::process::id()));
        let refused = Lock::take(&folders).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lock);
        assert_eq!(Lock::holder(data.path()), None);
        Lock::take(&folders).unwrap();
    }
}
