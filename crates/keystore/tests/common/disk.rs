//! A disk in memory that loses power: what was not synced is lost, kept or torn.

use std::io;
use std::sync::{Arc, Mutex};

use keystore::{JOURNALS, Media, StorageBackend};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Written since the last sync, in order: offset and bytes; a change of length as its own entry.
    pending: Vec<Change>,
    current: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct State {
    files: [File; 1 + JOURNALS],
    /// Writes, length changes and syncs so far.
    operations: u64,
    read_bytes: u64,
    /// The operation at which power fails, or the disk does.
    fails_at: Option<u64>,
    /// What it says then; a full disk unless set.
    failure: Option<io::ErrorKind>,
    dead: bool,
}

/// What becomes of writes that were not synced when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    All,
    Nothing,
    /// Some of them, by a seed; the one in flight is torn at a sector.
    Some(u64),
}

/// All files of a store.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
pub struct Handle {
    disk: Disk,
    file: usize,
}

impl Disk {
    pub fn media(&self) -> Media<Handle, Handle> {
        let handle = |file| Handle { disk: self.clone(), file };
        Media { database: handle(0), journals: [handle(1), handle(2)] }
    }

    pub fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    pub fn read_bytes(&self) -> u64 {
        self.0.lock().unwrap().read_bytes
    }

    /// From this many operations on, everything fails.
    pub fn fail_at(&self, operation: u64) {
        self.0.lock().unwrap().fails_at = Some(operation);
    }

    /// From now on nothing can be changed: the file system went read-only, as it does after a fault of the device.
    pub fn turn_read_only(&self) {
        let mut state = self.0.lock().unwrap();
        (state.fails_at, state.failure) = (Some(0), Some(io::ErrorKind::ReadOnlyFilesystem));
        // Nothing is in flight: not even the first change reaches it.
        state.dead = true;
    }

    /// The disk that is found after the power failed.
    pub fn after_power_loss(&self, loss: Loss) -> Disk {
        let state = self.0.lock().unwrap();
        let files = state.files.clone().map(|file| survived(file, loss));
        Disk(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    /// A copy of all files as they are, as a snapshot of the volume has them.
    pub fn snapshot(&self) -> Disk {
        self.after_power_loss(Loss::Nothing)
    }

    /// This one, where the database or the journals are those of `other`.
    pub fn with_files_of(&self, other: &Disk, database: bool, journals: bool) -> Disk {
        let (mut files, others) = (self.0.lock().unwrap().files.clone(), other.0.lock().unwrap().files.clone());
        for (number, file) in others.into_iter().enumerate() {
            if if number == 0 { database } else { journals } {
                files[number] = file;
            }
        }
        Disk(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    pub fn bytes(&self, file: usize) -> usize {
        self.0.lock().unwrap().files[file].current.len()
    }

    pub fn content(&self, file: usize) -> Vec<u8> {
        self.0.lock().unwrap().files[file].current.clone()
    }

    pub fn flip(&self, file: usize, offset: usize) {
        let file = &mut self.0.lock().unwrap().files[file];
        file.current[offset] ^= 0x10;
        file.durable[offset] ^= 0x10;
    }
}

fn survived(file: File, loss: Loss) -> File {
    let mut durable = file.durable;
    let mut state = match loss {
        Loss::All => 0,
        Loss::Nothing => 1,
        Loss::Some(seed) => seed | 1,
    };
    for change in file.pending {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let kept = match loss {
            Loss::All => continue,
            Loss::Nothing => usize::MAX,
            Loss::Some(_) if state >> 62 == 0 => continue,
            Loss::Some(_) if state >> 62 == 1 => SECTOR_BYTES * ((state >> 50) as usize % 8),
            Loss::Some(_) => usize::MAX,
        };
        apply(&mut durable, &change, kept);
    }
    File { current: durable.clone(), durable, pending: Vec::new() }
}

fn apply(content: &mut Vec<u8>, change: &Change, kept: usize) {
    match change {
        Change::Length(length) => content.resize(*length as usize, 0),
        Change::Write(offset, bytes) => {
            let bytes = &bytes[..bytes.len().min(kept)];
            let end = *offset as usize + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset as usize..end].copy_from_slice(bytes);
        }
    }
}

impl Handle {
    fn change(&self, change: Option<Change>) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.operations += 1;
        let fails = state.fails_at.is_some_and(|at| state.operations >= at);
        let first_failure = fails && !state.dead;
        state.dead |= fails;
        let file = &mut state.files[self.file];
        match change {
            // The write in flight may reach the disk.
            Some(change) if !fails || first_failure => {
                apply(&mut file.current, &change, usize::MAX);
                file.pending.push(change);
            }
            None if !fails => {
                file.durable = file.current.clone();
                file.pending.clear();
            }
            _ => {}
        }
        let failure = state.failure.unwrap_or(io::ErrorKind::StorageFull);
        if fails { Err(failure.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().unwrap().files[self.file].current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.read_bytes += out.len() as u64;
        let content = &state.files[self.file].current;
        let found = content.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Some(Change::Length(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Some(Change::Write(offset, data.to_vec())))
    }
}
