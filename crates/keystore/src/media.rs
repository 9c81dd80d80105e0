//! What a store stands on: one database file and two journals, or whatever a test puts in their place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;

use crate::StoreError;

const DATABASE_FILE: &str = "keys.redb";
const JOURNAL_FILES: [&str; JOURNALS] = ["redeemed-0.log", "redeemed-1.log"];

/// Journals of a store: while one waits for the disk, the other takes the next group.
pub const JOURNALS: usize = 2;

/// The folder of a site's store.
pub fn folder(data: &Path, site: &str) -> PathBuf {
    data.join(site).join("kms")
}

/// The files of a store.
#[derive(Debug)]
pub struct Media<D, J> {
    pub database: D,
    pub journals: [J; JOURNALS],
}

impl Media<FileBackend, FileBackend> {
    /// The files in `folder`, made if they are not there, readable by the owner alone.
    pub fn files(folder: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| open_error(folder, &error))?;
        let database = open(&folder.join(DATABASE_FILE))?;
        let [first, second] = JOURNAL_FILES.map(|file| open(&folder.join(file)));
        let journals = [first?, second?];
        sync_folder_of(&folder.join(DATABASE_FILE)).map_err(|error| open_error(folder, &error))?;
        Ok(Self { database, journals })
    }
}

/// Where a refusal of redb to share the file points to.
pub(crate) fn database_path(folder: &Path) -> PathBuf {
    folder.join(DATABASE_FILE)
}

fn open(path: &Path) -> Result<FileBackend, StoreError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| open_error(path, &error))?;
    FileBackend::new(file).map_err(|error| open_error(path, &error))
}

fn open_error(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::io("open the store's files", &format_args!("{}: {error}", path.display()))
}

/// Makes the entry of a file in its folder survive a loss of power.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(fs::canonicalize(folder)?)?.sync_all()
}

/// A backend behind a pointer, so that there is one type for every kind of journal.
pub(crate) type Backend = Arc<dyn StorageBackend>;
