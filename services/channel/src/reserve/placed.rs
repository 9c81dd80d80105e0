//! The secret that was placed at an end before its first run: taken once, then erased.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use shell::disk::Disk;
use zeroize::Zeroizing;

use super::OpenError;
use super::format::digest;
use super::state::{ReserveState, check_secret};

/// Where the parts of one end's reserve lie.
#[derive(Clone, Debug)]
pub struct Places {
    pub reserve: PathBuf,
    pub secret: PathBuf,
    /// Which one of its link's secrets the placed one is, where somebody counts them.
    pub generation: Option<u64>,
    /// Whoever placed the secret says that it was taken here before.
    pub used: bool,
    /// The secret's file is this end's own: it is erased once the reserve is on the disk, and its digest kept.
    pub owned: bool,
}

impl Places {
    /// An end's own secret beside its reserve.
    pub fn own(reserve: PathBuf, secret: PathBuf) -> Self {
        Self { reserve, secret, generation: None, used: false, owned: true }
    }

    /// Digests of the secrets that were taken here: they outlive a reserve that is lost.
    fn mark(&self) -> PathBuf {
        self.secret.with_extension("used")
    }

    fn lost(&self) -> OpenError {
        OpenError::Lost { path: self.reserve.clone(), secret: self.secret.clone() }
    }

    /// What the placed secret makes, unless it was taken before.
    pub fn first_state(&self) -> Result<ReserveState, OpenError> {
        let io = |path: &Path, source| OpenError::Io { path: path.to_owned(), source };
        let marks = if self.owned { read_marks(&self.mark()).map_err(|e| io(&self.mark(), e))? } else { Vec::new() };
        let secret = match std::fs::read(&self.secret) {
            Ok(secret) => Zeroizing::new(secret),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.lost()),
            Err(error) => return Err(io(&self.secret, error)),
        };
        // Emptied where it was placed, once both ends had taken it.
        if self.used || secret.is_empty() || marks.contains(&hex(&digest(&secret))) {
            return Err(self.lost());
        }
        let wrong = |bits| OpenError::Secret { path: self.secret.clone(), bits };
        check_secret(&secret).map_err(wrong)?;
        ReserveState::of_secret(&secret, self.generation).map_err(|_| wrong(secret.len() as u64 * 8))
    }

    /// The reserve is on the disk: what it was made of is remembered by digest, and erased.
    pub fn taken(&self, state: &ReserveState, disk: &Disk) -> Result<(), OpenError> {
        if !self.owned {
            return Ok(());
        }
        let mark = self.mark();
        let io = |source| OpenError::Io { path: mark.clone(), source };
        let marks = read_marks(&mark).map_err(io)?;
        let digests: Vec<String> = state.secrets.iter().map(|digest| hex(digest)).collect();
        if digests.iter().any(|digest| !marks.contains(digest)) {
            let mut all = marks;
            all.extend(digests.iter().cloned());
            all.sort();
            all.dedup();
            let text: String = all.iter().map(|digest| format!("{digest}\n")).collect();
            disk.write_durably(&mark, text.as_bytes()).map_err(io)?;
        }
        let used = match std::fs::read(&self.secret) {
            Ok(secret) => digests.contains(&hex(&digest(&Zeroizing::new(secret)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => false,
        };
        if used && let Err(error) = erase(&self.secret) {
            tracing::warn!(path = %self.secret.display(), "a secret that was taken could not be erased: {error}");
        }
        Ok(())
    }
}

/// Writes zeros over a file, then removes it. What a disk keeps of overwritten blocks is out of reach.
fn erase(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    while left > 0 {
        let zeros = [0; 4096];
        let part = left.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    file.sync_all()?;
    std::fs::remove_file(path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn read_marks(path: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
