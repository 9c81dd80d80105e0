//! Which delivered keys were made of relayed key: what has to be replaced when a relay turns out to be compromised.
//!
//! Names of keys and the ways that they came, never key: `<data>/<site>/kms/relayed-keys.jsonl`, the latest ones.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

const FILE: &str = "relayed-keys.jsonl";
/// A full file is kept as `.1` until the next one is full.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A key that was handed to a master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedKey {
    pub key_id: String,
    pub master: String,
    pub slave: String,
    /// Sites of the two applications.
    pub sites: [String; 2],
    pub pieces: Vec<RelayedPiece>,
}

/// A part of a key and the way that it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedPiece {
    pub bits: u64,
    pub path: Vec<String>,
    /// Disjoint paths of which each carried a share.
    pub shares: u32,
}

impl RelayedPiece {
    /// Whether this site alone has carried all of it.
    fn is_exposed_at(&self, site: &str) -> bool {
        let between = self.path.get(1..self.path.len().saturating_sub(1)).unwrap_or_default();
        self.shares <= 1 && between.iter().any(|hop| hop == site)
    }
}

impl RelayedKey {
    /// Bits of the key that a compromised relay at `site` has seen.
    pub fn exposed_bits(&self, site: &str) -> u64 {
        self.pieces.iter().filter(|piece| piece.is_exposed_at(site)).map(|piece| piece.bits).sum()
    }
}

/// The file of one site, for appending.
pub struct Deliveries {
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

impl Deliveries {
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let file = append_to(&path)?;
        let length = file.metadata()?.len();
        Ok(Self { path, file: Mutex::new((file, length)) })
    }

    pub fn note(&self, key: &RelayedKey) -> io::Result<()> {
        let line = serde_json::to_string(key)? + "\n";
        let mut open = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if open.1 + line.len() as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, rotated(&self.path))?;
            *open = (append_to(&self.path)?, 0);
        }
        open.0.write_all(line.as_bytes())?;
        open.1 += line.len() as u64;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn rotated(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// What a site's file says, oldest first; lines that a crash cut short are passed over.
pub fn read(data: &Path, site: &str) -> io::Result<Vec<RelayedKey>> {
    let path = keystore::folder(data, site).join(FILE);
    let mut keys = Vec::new();
    for path in [rotated(&path), path] {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).lines() {
            keys.extend(serde_json::from_str::<RelayedKey>(&line?).ok());
        }
    }
    Ok(keys)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(path: &[&str], shares: u32) -> RelayedKey {
        let path = path.iter().map(|site| (*site).to_owned()).collect();
        RelayedKey {
            key_id: "id".to_owned(),
            master: "a".to_owned(),
            slave: "b".to_owned(),
            sites: ["x".to_owned(), "z".to_owned()],
            pieces: vec![RelayedPiece { bits: 256, path, shares }],
        }
    }

    #[test]
    fn a_relay_has_seen_what_it_carried_alone_and_the_ends_are_no_relays() {
        assert_eq!(key(&["x", "y", "z"], 1).exposed_bits("y"), 256);
        assert_eq!(key(&["x", "y", "z"], 1).exposed_bits("x"), 0);
        assert_eq!(key(&["x", "y", "z"], 2).exposed_bits("y"), 0);
        assert_eq!(key(&[], 1).exposed_bits("y"), 0);
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let data = tempfile::tempdir().unwrap();
        let folder = keystore::folder(data.path(), "x");
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(read(data.path(), "x").unwrap(), []);
        let deliveries = Deliveries::open(&folder).unwrap();
        deliveries.note(&key(&["x", "y", "z"], 1)).unwrap();
        deliveries.note(&key(&["x", "w", "z"], 1)).unwrap();
        assert_eq!(read(data.path(), "x").unwrap().len(), 2);
    }
}
