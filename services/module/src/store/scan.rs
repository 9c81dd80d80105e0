//! Reading a block file from its beginning, record by record.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use shell::log::{Found, Reader};

use super::record::{DIGEST_BYTES, Format, Header};
use super::{FILE_MAGIC, OLD_FILE_MAGIC, OLDER_FILE_MAGICS, StoreError, at};

/// What is at a place of the file.
pub enum Scanned {
    /// With the digest of its key.
    Record(Header, [u8; DIGEST_BYTES]),
    Torn,
    End,
}

/// Reads records one after the other and checks each.
pub struct Scanner<'a> {
    records: Reader<io::BufReader<&'a File>>,
    format: Format,
    path: &'a Path,
    offset: u64,
}

impl<'a> Scanner<'a> {
    /// Nothing where the file is new, or where a crash came while it was made.
    pub fn new(path: &'a Path, file: &'a File, length: u64) -> Result<Option<Self>, StoreError> {
        let mut reader = io::BufReader::with_capacity(1 << 20, file);
        reader.seek(SeekFrom::Start(0)).map_err(at("read", path))?;
        let mut magic = [0u8; FILE_MAGIC.len()];
        let present = (length as usize).min(magic.len());
        reader.read_exact(&mut magic[..present]).map_err(at("read", path))?;
        let format = match magic {
            FILE_MAGIC => Format::Digest,
            older if OLDER_FILE_MAGICS.contains(&older) => Format::Digest,
            OLD_FILE_MAGIC => Format::Key,
            _ => {
                let zeros = magic == [0; FILE_MAGIC.len()] && length <= magic.len() as u64;
                let cut = present < magic.len() && FILE_MAGIC.starts_with(&magic[..present]);
                let foreign = || StoreError::Foreign { path: path.to_owned() };
                return if zeros || cut { Ok(None) } else { Err(foreign()) };
            }
        };
        let offset = magic.len() as u64;
        let records = Reader::new(reader, length - offset, format.framing());
        Ok(Some(Self { records, format, path, offset }))
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn next(&mut self) -> Result<Scanned, StoreError> {
        let found = self.records.read_next().map_err(at("read", self.path))?;
        let (head, body, bytes) = match found {
            Found::Record { head, body, bytes } => (head, body, bytes),
            Found::Torn => return Ok(Scanned::Torn),
            Found::End => return Ok(Scanned::End),
            Found::Damaged(what) => return Err(self.corrupt(what)),
        };
        let header =
            head.first_chunk().and_then(Header::decode).ok_or_else(|| self.corrupt("no record begins here"))?;
        self.offset += bytes;
        Ok(Scanned::Record(header, header.key_digest(self.format, &body)))
    }

    fn corrupt(&self, what: &'static str) -> StoreError {
        StoreError::Corrupt { path: self.path.to_owned(), offset: self.offset, what }
    }
}
