//! A disk that can be full: what writes does so through this, so that a fault can fill it.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::BackendError;

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

/// A database's file on a disk that can be full.
#[derive(Debug)]
pub struct Backend<B> {
    file: B,
    disk: Disk,
}

impl<B> Backend<B> {
    pub fn new(file: B, disk: Disk) -> Self {
        Self { file, disk }
    }
}

impl<B: redb::StorageBackend> redb::StorageBackend for Backend<B> {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.disk.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.disk.room()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// Whether an error says that there was no room, in whatever words it came.
pub fn is_full(error: &anyhow::Error) -> bool {
    let full = |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(full))
        || crate::chain(error).to_string().contains("os error 28")
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
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(is_full(&anyhow::Error::new(error).context("write a block")));
        assert_eq!(std::fs::read(&path).unwrap(), b"whole half and");
        assert!(disk.write_durably(&path, b"other").is_err());
        disk.fill(false);
        disk.write_durably(&path, b"other").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert!(!Disk::default().is_full());
    }
}
