//! Files that are whole or absent, whatever happens while they are written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Replaces `path` by `content`: a reader, also one after a crash, sees all of the old file or all of the new one,
/// and once this returns the new one survives a loss of power. Readable by the owner only.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    let (beside, mut file) = create_beside(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // What is left behind must not look like content, and the first error is the one to tell.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    sync_folder(&folder)
}

/// Overwrites a file with zeros, waits for the disk, and removes it. A disk that moves its pages, or a snapshot, may keep
/// what was in it.
pub fn erase(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    overwrite(&file)?;
    fs::remove_file(path)
}

/// As [`write_durably`], and overwrites what was there before.
pub fn replace_and_erase(path: &Path, content: &[u8]) -> io::Result<()> {
    let before = OpenOptions::new().write(true).open(path)?;
    write_durably(path, content)?;
    overwrite(&before)
}

/// Zeros in place of all that a file holds.
fn overwrite(mut file: &File) -> io::Result<()> {
    let zeros = [0; 4096];
    let mut left = file.metadata()?.len();
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    file.sync_data()
}

/// Makes the entries of a folder (files created, renamed, removed) survive a loss of power.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates a folder, and those above it, that only the owner may enter. One that exists is left as it is.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    loop {
        let mut beside = name.to_owned();
        beside.push(format!(".{}-{}.new", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed)));
        let beside = path.with_file_name(beside);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside) {
            // Left by a process that had our id and crashed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => return opened.map(|file| (beside, file)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reserve");
        write_durably(&path, b"first, and longer").unwrap();
        write_durably(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_erased_is_overwritten_before_its_name_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("key"), folder.path().join("link"));
        for length in [0, 1, 4096, 10_000] {
            fs::write(&path, vec![7; length]).unwrap();
            fs::hard_link(&path, &link).unwrap();
            erase(&path).unwrap();
            assert!(!path.exists());
            assert_eq!(fs::read(&link).unwrap(), vec![0; length], "what was in it");
            fs::write(&path, vec![7; length]).unwrap();
            fs::remove_file(&link).unwrap();
            fs::hard_link(&path, &link).unwrap();
            replace_and_erase(&path, b"new").unwrap();
            assert_eq!((fs::read(&path).unwrap(), fs::read(&link).unwrap()), (b"new".to_vec(), vec![0; length]));
            fs::remove_file(&link).unwrap();
        }
        assert!(erase(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"x").unwrap();
        assert!(write_durably(&path, b"content").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_durably(&folder.path().join("absent/file"), b"content").is_err());
    }
}
