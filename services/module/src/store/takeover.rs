//! Files of release 0.1 become files of today: their key that still waits is sealed by the caller, and the old file is
//! overwritten.
//!
//! The order of steps, each durable before the next: the new file beside the old one; a second name
//! for the old file; the new file under the old one's name; zeros over the old file; its second name removed. A crash
//! leaves the old file in its place, and all is done again, or the new one and the second name, and the rest is.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use distill::bits::Bits;
use shell::files::sync_folder;

use super::record::{Format, Header};
use super::{BlockState, BlockStore, FILE_MAGIC, Sealed, StoreError, StoredBlock, at, encode};

impl BlockStore {
    /// True where the file is of release 0.1, which kept all key.
    pub fn is_old(&self) -> bool {
        self.format == Format::Key
    }

    /// Makes a file of release 0.1 one of today. `seal` gets each block whose key may still be asked for, and seals it
    /// where it waits. Nothing to do where it is one of today.
    pub fn take_over<E: From<StoreError>>(
        self,
        mut seal: impl FnMut(&StoredBlock, &Bits) -> Result<Option<Sealed>, E>,
    ) -> Result<Self, E> {
        if !self.is_old() {
            remove_old(&self.path)?;
            return Ok(self);
        }
        let mut sealed = BTreeMap::new();
        for entry in self.latest.values().map(|&index| &self.entries[index]) {
            if matches!(entry.state, BlockState::Prepared | BlockState::Committed) {
                let body = self.body(entry)?;
                let key =
                    Bits::from_bytes(&body[..entry.header.key_bytes(Format::Key)], entry.header.key_bits as usize);
                sealed.extend(seal(&self.read(entry)?, &key)?.map(|sealed| (entry.offset, sealed)));
            }
        }
        Ok(self.replace(&sealed)?)
    }

    fn replace(self, sealed: &BTreeMap<u64, Sealed>) -> Result<Self, StoreError> {
        let (path, folder) = (&self.path, self.path.parent().unwrap_or(Path::new(".")));
        let beside = path.with_extension("qkd.new");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let file = file.map_err(at("create", &beside))?;
        // Another process that finds it under its name finds it in use.
        file.try_lock().map_err(|error| at("lock", &beside)(error.into()))?;
        let records = self.records_of_today(sealed)?;
        self.disk.write_all_at(&file, &records, 0).map_err(at("write", &beside))?;
        file.sync_all().map_err(at("write", &beside))?;
        let old = old_name(path);
        if old.exists() {
            // A second name that a crash left, of the file that is in its place still.
            fs::remove_file(&old).map_err(at("remove", &old))?;
        }
        fs::hard_link(path, &old).map_err(at("link", &old))?;
        fs::rename(&beside, path).map_err(at("replace", path))?;
        sync_folder(folder).map_err(at("write", folder))?;
        remove_old(path)?;
        Self::scan(path, file, self.disk.clone(), true)
    }

    /// The whole file as it is written today, with sealed key by the offset of its block. Decisions are in it as they
    /// came: a block that was voided and made again has two records, and needs both.
    fn records_of_today(&self, sealed: &BTreeMap<u64, Sealed>) -> Result<Vec<u8>, StoreError> {
        let (mut bytes, mut sequence) = (FILE_MAGIC.to_vec(), 0);
        for (mut header, offset, entry) in self.old_records()? {
            if let Some((_, record)) = sealed.get(&offset).and_then(|sealed| sealed.record(sequence)) {
                bytes.extend_from_slice(&record);
                sequence += 1;
            }
            let (ledger, trace_id) = match &entry {
                Some(block) => (block.ledger.as_str(), block.trace_id.as_str()),
                None => ("", ""),
            };
            let digest = entry.as_ref().map_or([0; 32], |block| block.key_digest);
            header.sequence = sequence;
            bytes.extend_from_slice(&encode(&header, &digest, ledger, trace_id));
            sequence += 1;
        }
        Ok(bytes)
    }

    /// Every record in the order of writing, where it is, and its block where it is not a decision alone.
    fn old_records(&self) -> Result<Vec<(Header, u64, Option<StoredBlock>)>, StoreError> {
        let mut blocks = self.entries.iter().peekable();
        let mut records = Vec::new();
        let mut offset = FILE_MAGIC.len() as u64;
        while offset < self.log.end() {
            let entry = blocks.next_if(|entry| entry.offset == offset);
            let header = match entry {
                Some(entry) => entry.header,
                None => self.header_at(offset)?,
            };
            records.push((header, offset, entry.map(|entry| self.read(entry)).transpose()?));
            offset += header.record_bytes(Format::Key);
        }
        Ok(records)
    }

    fn header_at(&self, offset: u64) -> Result<Header, StoreError> {
        let mut bytes = [0; super::HEADER_BYTES];
        self.log.file().read_exact_at(&mut bytes, offset).map_err(at("read", &self.path))?;
        let what = "no record begins here";
        Header::decode(&bytes).ok_or_else(|| StoreError::Corrupt { path: self.path.clone(), offset, what })
    }
}

/// Second name of a file of release 0.1 while it is erased.
fn old_name(path: &Path) -> PathBuf {
    path.with_extension("qkd.old")
}

/// Erases a file of release 0.1 whose place one of today has taken.
fn remove_old(path: &Path) -> Result<(), StoreError> {
    let old = old_name(path);
    if old.exists() {
        shell::files::erase(&old).map_err(at("erase", &old))?;
    }
    Ok(())
}

/// An error where the locked file is no longer the one that has the name: somebody has just taken it over.
pub(super) fn still_there(path: &Path, file: &File) -> Result<(), StoreError> {
    let (locked, named) = (file.metadata().map_err(at("read", path))?, fs::metadata(path).map_err(at("read", path))?);
    match (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
        true => Ok(()),
        false => Err(StoreError::InUse { path: path.to_owned() }),
    }
}
