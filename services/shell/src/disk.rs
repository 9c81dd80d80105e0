//! The disk of a service, which a fault can fill ([`durable::disk`]), under a database.

use std::io;
use std::ops::Bound;

pub use durable::disk::Disk;
use redb::BackendError;

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
    let full = |error: &io::Error| durable::disk::has_no_room(error);
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(full))
        || crate::chain(error).to_string().contains("os error 28")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_what_a_write_said() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::fillable();
        disk.fill(true);
        let error = disk.write_durably(&folder.path().join("file"), b"content").unwrap_err();
        assert!(is_full(&anyhow::Error::new(error).context("write a block")));
        assert!(!is_full(&anyhow::anyhow!("something else")));
    }
}
