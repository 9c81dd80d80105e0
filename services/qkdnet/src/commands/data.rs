//! What a run left in its data directory.

use std::path::{Path, PathBuf};

use module::store::{self, BlockStore, StoreError};
use runner::Failure;

use crate::style::tell;

/// The key of one link end.
pub struct LinkEnd {
    pub site: String,
    pub link: String,
    pub path: PathBuf,
}

impl LinkEnd {
    /// Opens the block file; says so where a crash tore its last record.
    pub fn open(&self) -> Result<BlockStore, Failure> {
        let store = BlockStore::open_read_only(&self.path).map_err(damaged)?;
        if let Some(torn) = store.torn_tail() {
            tell(&format!("warning: {}: {torn} when the service opens it again", self.path.display()));
        }
        Ok(store)
    }
}

/// An error of a block file, with what can be done.
pub fn damaged(error: StoreError) -> Failure {
    let hint = match &error {
        StoreError::Corrupt { .. } => Some("restore this file from a copy; both ends keep the same blocks"),
        StoreError::Foreign { .. } => Some("give the data directory of a run of this version"),
        _ => None,
    };
    let failure = Failure::failed(error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// As [`damaged`], where an error may be of a block file.
pub fn unreadable(error: anyhow::Error) -> Failure {
    match error.downcast() {
        Ok(of_file) => damaged(of_file),
        Err(other) => other.into(),
    }
}

/// Every `<data>/<site>/<link>/blocks.qkd`, by link and then site.
pub fn link_ends(data: &Path) -> Result<Vec<LinkEnd>, Failure> {
    let mut ends = Vec::new();
    for (site, site_dir) in directories(data)? {
        for (link, link_dir) in directories(&site_dir)? {
            let path = link_dir.join(store::FILE_NAME);
            if path.is_file() {
                ends.push(LinkEnd { site: site.clone(), link, path });
            }
        }
    }
    ends.sort_by(|a, b| (&a.link, &a.site).cmp(&(&b.link, &b.site)));
    if ends.is_empty() {
        let failure = Failure::bad_input(format!("{} holds no key", data.display()));
        return Err(failure.hint("give the directory that `qkdnet up --data` wrote to"));
    }
    Ok(ends)
}

/// Name and path of each folder in a folder.
pub fn directories(path: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let cannot = |error: std::io::Error| Failure::bad_input(format!("cannot read {}: {error}", path.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        // Names that are no text belong to no site.
        if let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_dir()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod testing {
    use std::path::Path;

    use distill::bits::Bits;
    use distill::ledger::{BlockLedger, Book, Item, Line};
    use module::store::{BlockStore, NewBlock, path};

    /// A consistent ledger: `delivered` bits of key.
    pub fn ledger(delivered: u64) -> BlockLedger {
        let end = |item| Line(Book::Announcer, item);
        let mut ledger = BlockLedger::default();
        for (line, value) in [
            (Line::BLOCKS_STORED, 1),
            (end(Item::Clicks), 1000),
            (end(Item::Unmatched), 800),
            (end(Item::SiftedCheck), 50),
            (end(Item::SiftedKey), 150),
            (Line::CHECK_DISCLOSED, 50),
            (Line::CHECK_ERRORS, 2),
            (Line::SIFTED_KEY, 150),
            (Line::KEY_ERRORS, 6),
            (Line::LEAKED, 40),
            (Line::VERIFICATION, 10),
            (Line::AMPLIFICATION, 100 - delivered - 4),
            (Line::AUTHENTICATION, 4),
            (Line::DELIVERED, delivered),
        ] {
            ledger.set(line, value);
        }
        ledger
    }

    /// Writes one block per length to the file of a link end.
    pub fn write(data: &Path, site: &str, link: &str, lengths: &[usize]) {
        let mut store = BlockStore::open(path(data, site, link)).unwrap();
        for (number, &len) in lengths.iter().enumerate() {
            let words = (0..len.div_ceil(64) as u64).map(|i| (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
            let key = Bits::from_words(words, len);
            let ledger = serde_json::to_string(&ledger(len as u64)).unwrap();
            let block = NewBlock { number: number as u64, session: 1, key: &key, ledger: &ledger, trace_id: "ab" };
            store.store(&block).unwrap();
        }
    }
}
