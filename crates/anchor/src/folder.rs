//! An anchor in a folder of files, one a store, outside the folders that hold the stores.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Anchor, AnchorError, COUNTS_MAX, Ceilings, Instance, NAME_BYTES_MAX, check, raise};

const VERSION: u32 = 1;
/// What was being written so long ago was left by a crash.
const HALF_WRITTEN: Duration = Duration::from_secs(3600);
/// Bytes of a file that lines are added to.
const LINES_BYTES_MAX: u64 = 16 << 10;
const FILE_BYTES_MAX: u64 = (COUNTS_MAX * (6 * NAME_BYTES_MAX + 32)) as u64;

/// The file of a store grows by a line for each change, so that one sync is enough, and the last whole line counts: of
/// one that a crash tore nobody was told. A file that has become long is rewritten and takes the old one's place.
#[derive(Debug)]
pub struct FolderAnchor {
    folder: PathBuf,
    /// One change at a time. A store has one process at a time, so nothing else writes its file.
    changing: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    store: Instance,
    ceilings: Ceilings,
}

impl FolderAnchor {
    /// In this folder, which is made where it is not there and must be writable.
    pub fn open(folder: &Path) -> Result<Self, AnchorError> {
        let failed = |source| AnchorError::Io { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        // Another process, or a container with the same process ID, may look at the same moment.
        let probe = folder.join(format!(".probe-{}", Instance::draw().map_err(failed)?));
        let written = File::create(&probe).and_then(|_| fs::remove_file(&probe));
        written.map_err(|source| AnchorError::Io { path: probe, source })?;
        Ok(Self { folder: folder.to_owned(), changing: Mutex::default() })
    }

    /// The file that keeps the ceilings of a store.
    pub fn path(&self, store: Instance) -> PathBuf {
        self.folder.join(format!("{store}.json"))
    }

    /// Forgets stores that no process has opened or closed for `age`, and what a crash has left half written; of more
    /// than `stores_max` stores those that rested longest. Gives how many.
    pub fn forget(&self, age: Duration, stores_max: usize) -> Result<usize, AnchorError> {
        let failed = |source| AnchorError::Io { path: self.folder.clone(), source };
        let now = SystemTime::now();
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // One that has gone meanwhile needs no more of it.
            let Ok(changed) = entry.metadata().and_then(|about| about.modified()) else { continue };
            let (path, rested) = (entry.path(), now.duration_since(changed).unwrap_or_default());
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") if rested > age => gone.push(path),
                Some("json") => kept.push((rested, path)),
                _ if rested > HALF_WRITTEN => gone.push(path),
                _ => {}
            }
        }
        kept.sort();
        gone.extend(kept.into_iter().skip(stores_max).map(|(_, path)| path));
        // Another run may be at the same.
        gone.iter().for_each(|path| drop(fs::remove_file(path)));
        Ok(gone.len())
    }

    fn load(&self, store: Instance) -> Result<Option<Ceilings>, AnchorError> {
        let path = self.path(store);
        let failed = |source| AnchorError::Io { path: path.clone(), source };
        let damaged = |what: String| AnchorError::Damaged { path: path.clone(), what };
        let size = match fs::metadata(&path) {
            Ok(about) => about.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if size > FILE_BYTES_MAX + LINES_BYTES_MAX {
            return Err(damaged(format!("{size} bytes are more than an anchor has")));
        }
        let bytes = fs::read(&path).map_err(failed)?;
        let content = last_line(&bytes).map_err(|error| damaged(error.to_string()))?;
        if content.version != VERSION || content.store != store {
            return Err(damaged("it is of another version, or of another store".to_owned()));
        }
        Ok(Some(content.ceilings))
    }

    fn save(&self, store: Instance, ceilings: Ceilings) -> Result<(), AnchorError> {
        let path = self.path(store);
        let next = path.with_extension("next");
        let content = Content { version: VERSION, store, ceilings };
        let mut text = serde_json::to_vec(&content)
            .map_err(|error| AnchorError::Io { path: path.clone(), source: io::Error::other(error) })?;
        text.push(b'\n');
        let write = || {
            if append(&path, &text)? {
                return Ok(());
            }
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&next, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| AnchorError::Io { path: path.clone(), source })
    }
}

/// Adds a line to a file of whole lines; false where it has to be rewritten.
fn append(path: &Path, line: &[u8]) -> io::Result<bool> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut last = [0];
    // An older release wrote no line, and a crash may have torn one.
    let whole = length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last == *b"\n";
    if !whole || length + line.len() as u64 > LINES_BYTES_MAX {
        return Ok(false);
    }
    file.write_all(line)?;
    file.sync_data()?;
    Ok(true)
}

/// What counts: the last line, or the one before where a crash tore it. A file of an older release is one line alone.
fn last_line(bytes: &[u8]) -> serde_json::Result<Content> {
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return serde_json::from_slice(bytes) };
    let begin = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    serde_json::from_slice(&bytes[begin..end])
}

impl Anchor for FolderAnchor {
    fn read(&self, store: Instance) -> Result<Option<Ceilings>, AnchorError> {
        self.load(store)
    }

    fn raise(&self, store: Instance, ceilings: &Ceilings) -> Result<(), AnchorError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.load(store)?.unwrap_or_default();
        raise(&mut kept, ceilings);
        check(&kept)?;
        self.save(store, kept)
    }

    fn settle(&self, store: Instance, counts: &Ceilings) -> Result<(), AnchorError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        check(counts)?;
        self.save(store, counts.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ceilings(pairs: &[(&str, u64)]) -> Ceilings {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn ceilings_outlive_the_process_and_never_fall_but_by_a_clean_close() {
        let folder = tempfile::tempdir().unwrap();
        let store = Instance::draw().unwrap();
        let anchor = FolderAnchor::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(anchor.read(store).unwrap(), None);
        anchor.raise(store, &ceilings(&[("send", 8), ("receive", 3)])).unwrap();
        anchor.raise(store, &ceilings(&[("send", 4), ("receive", 9)])).unwrap();
        let again = FolderAnchor::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(again.read(store).unwrap(), Some(ceilings(&[("send", 8), ("receive", 9)])));
        again.settle(store, &ceilings(&[("send", 5)])).unwrap();
        assert_eq!(again.read(store).unwrap(), Some(ceilings(&[("send", 5)])));
        assert_eq!(again.read(Instance::draw().unwrap()).unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_no_fresh_start() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (Instance::draw().unwrap(), Instance::draw().unwrap());
        let anchor = FolderAnchor::open(folder.path()).unwrap();
        anchor.raise(store, &ceilings(&[("send", 8)])).unwrap();
        let whole = fs::read(anchor.path(store)).unwrap();
        fs::write(anchor.path(other), &whole).unwrap();
        assert!(matches!(anchor.read(other), Err(AnchorError::Damaged { .. })));
        fs::write(anchor.path(store), &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(anchor.read(store), Err(AnchorError::Damaged { .. })));
        assert!(matches!(anchor.raise(store, &ceilings(&[("send", 9)])), Err(AnchorError::Damaged { .. })));
    }

    #[test]
    fn a_line_that_a_crash_tore_was_told_to_nobody_and_the_one_before_it_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = Instance::draw().unwrap();
        let anchor = FolderAnchor::open(folder.path()).unwrap();
        anchor.raise(store, &ceilings(&[("send", 8)])).unwrap();
        let before = fs::read(anchor.path(store)).unwrap();
        anchor.raise(store, &ceilings(&[("send", 16)])).unwrap();
        let whole = fs::read(anchor.path(store)).unwrap();
        assert!(whole.starts_with(&before) && whole.len() > before.len(), "it was appended to");
        for cut in before.len()..=whole.len() {
            for zeros in [0, 7] {
                let torn = [&whole[..cut], &vec![0; if cut == whole.len() { 0 } else { zeros }]].concat();
                fs::write(anchor.path(store), torn).unwrap();
                let kept = if cut == whole.len() { 16 } else { 8 };
                assert_eq!(anchor.read(store).unwrap(), Some(ceilings(&[("send", kept)])), "{cut}");
                anchor.raise(store, &ceilings(&[("send", 24)])).unwrap();
                assert_eq!(anchor.read(store).unwrap(), Some(ceilings(&[("send", 24)])), "{cut}");
            }
        }
    }

    #[test]
    fn a_file_of_an_older_release_is_read_and_one_that_grows_stays_short() {
        let folder = tempfile::tempdir().unwrap();
        let store = Instance::draw().unwrap();
        let anchor = FolderAnchor::open(folder.path()).unwrap();
        anchor.raise(store, &ceilings(&[("send", 1)])).unwrap();
        let line = fs::read(anchor.path(store)).unwrap();
        fs::write(anchor.path(store), line.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!(anchor.read(store).unwrap(), Some(ceilings(&[("send", 1)])));
        for count in 2..500 {
            anchor.raise(store, &ceilings(&[("send", count)])).unwrap();
            assert!(fs::metadata(anchor.path(store)).unwrap().len() <= LINES_BYTES_MAX);
        }
        assert_eq!(anchor.read(store).unwrap(), Some(ceilings(&[("send", 499)])));
        // More counts than lines have room for are rewritten each time.
        let many: Vec<(String, u64)> = (0..2000).map(|count| (format!("count-{count}"), 7)).collect();
        anchor.raise(store, &many.iter().cloned().collect()).unwrap();
        anchor.raise(store, &ceilings(&[("send", 501)])).unwrap();
        assert_eq!(anchor.read(store).unwrap().unwrap().len(), 2001);
    }

    #[test]
    fn stores_that_rest_too_long_or_are_too_many_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let anchor = FolderAnchor::open(folder.path()).unwrap();
        let stores: Vec<Instance> = (0..4).map(|_| Instance::draw().unwrap()).collect();
        for (rested_s, store) in stores.iter().enumerate() {
            anchor.raise(*store, &ceilings(&[("send", 8)])).unwrap();
            let changed = SystemTime::now() - Duration::from_secs(1000 * rested_s as u64);
            File::options().write(true).open(anchor.path(*store)).unwrap().set_modified(changed).unwrap();
        }
        let kept = || stores.iter().map(|store| anchor.path(*store).exists()).collect::<Vec<_>>();
        assert_eq!(anchor.forget(Duration::from_secs(2500), 100).unwrap(), 1);
        assert_eq!(kept(), [true, true, true, false]);
        assert_eq!(anchor.forget(Duration::from_secs(2500), 2).unwrap(), 1);
        assert_eq!(kept(), [true, true, false, false]);
    }

    #[test]
    fn what_has_no_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let anchor = FolderAnchor::open(folder.path()).unwrap();
        let store = Instance::draw().unwrap();
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(anchor.raise(store, &ceilings(&[(&long, 1)])), Err(AnchorError::TooMuch)));
    }
}
