//! A disk that can be full: what writes does so through this, so that a fault can fill it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::files;

/// `ENOSPC` of Linux, as a full disk gives it.
const NO_SPACE: i32 = 28;

/// Where a service writes. Clones are the same disk. By default it is never full but by itself.
#[derive(Clone, Debug, Default)]
pub struct Disk(Option<Arc<AtomicBool>>);

impl Disk {
    /// One that a fault can fill.
    pub fn fillable() -> Self {
        Self(Some(Arc::default()))
    }

    pub fn fill(&self, full: bool) {
        if let Some(switch) = &self.0 {
            switch.store(full, Ordering::SeqCst);
        }
    }

    pub fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|full| full.load(Ordering::SeqCst))
    }

    /// An error where nothing more can be written.
    pub fn room(&self) -> io::Result<()> {
        if self.is_full() { Err(io::Error::from_raw_os_error(NO_SPACE)) } else { Ok(()) }
    }

    /// As [`FileExt::write_all_at`]. A full disk takes a part of it, as real ones do.
    pub fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.room() {
            Ok(()) => file.write_all_at(bytes, offset),
            Err(full) => file.write_all_at(&bytes[..bytes.len() / 2], offset).and(Err(full)),
        }
    }

    /// As [`Write::write_all`], likewise.
    pub fn write_all(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        match self.room() {
            Ok(()) => file.write_all(bytes),
            Err(full) => file.write_all(&bytes[..bytes.len() / 2]).and(Err(full)),
        }
    }

    /// As [`files::write_durably`].
    pub fn write_durably(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.room()?;
        files::write_durably(path, content)
    }

    /// As [`files::replace_and_erase`].
    pub fn replace_and_erase(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.room()?;
        files::replace_and_erase(path, content)
    }
}

/// Whether an error says that there was no room.
pub fn has_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_a_part_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        let disk = Disk::fillable();
        disk.write_all_at(&file, b"whole ", 0).unwrap();
        disk.fill(true);
        let error = disk.write_all_at(&file, b"half and no more", 6).unwrap_err();
        assert!(has_no_room(&error));
        assert_eq!(std::fs::read(&path).unwrap(), b"whole half and");
        assert!(disk.write_durably(&path, b"other").is_err());
        disk.fill(false);
        disk.write_durably(&path, b"other").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert!(!Disk::default().is_full());
    }
}
