//! Reading a block file from its beginning, record by record, and telling a torn tail from damage.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use zeroize::Zeroizing;

use super::record::{self, DIGEST_BYTES, Format, HEADER_BYTES, Header, TRAILER_BYTES};
use super::{FILE_MAGIC, OLD_FILE_MAGIC, PAST_FILE_MAGIC, StoreError, at};

/// What is at a place of the file.
pub enum Scanned {
    /// With the digest of its key.
    Record(Header, [u8; DIGEST_BYTES]),
    Torn,
    End,
}

/// Reads records one after the other and checks each.
pub struct Scanner<'a> {
    reader: io::BufReader<&'a File>,
    path: &'a Path,
    length: u64,
}

impl<'a> Scanner<'a> {
    pub fn new(path: &'a Path, file: &'a File, length: u64) -> Result<Self, StoreError> {
        let mut reader = io::BufReader::with_capacity(1 << 20, file);
        reader.seek(SeekFrom::Start(0)).map_err(at("read", path))?;
        Ok(Self { reader, path, length })
    }

    /// Nothing where the file is new, or where a crash came while it was made.
    pub fn format(&mut self) -> Result<Option<Format>, StoreError> {
        let mut magic = [0u8; FILE_MAGIC.len()];
        let present = (self.length as usize).min(magic.len());
        self.fill(&mut magic[..present])?;
        match magic {
            FILE_MAGIC | PAST_FILE_MAGIC => return Ok(Some(Format::Digest)),
            OLD_FILE_MAGIC => return Ok(Some(Format::Key)),
            _ => {}
        }
        let zeros = magic == [0; FILE_MAGIC.len()] && self.length <= magic.len() as u64;
        let cut = present < magic.len() && FILE_MAGIC.starts_with(&magic[..present]);
        if zeros || cut { Ok(None) } else { Err(StoreError::Foreign { path: self.path.to_owned() }) }
    }

    /// The record at `offset`, which is where the reader stands.
    pub fn next(&mut self, format: Format, offset: u64) -> Result<Scanned, StoreError> {
        let left = self.length - offset;
        if left == 0 {
            return Ok(Scanned::End);
        }
        if left < HEADER_BYTES as u64 {
            return Ok(Scanned::Torn);
        }
        let mut bytes = [0u8; HEADER_BYTES];
        self.fill(&mut bytes)?;
        let Some(header) = Header::decode(&bytes) else {
            // A file system may have grown the file before the data arrived.
            let blank = bytes.iter().all(|&byte| byte == 0) && self.rest_is_zero()?;
            return if blank { Ok(Scanned::Torn) } else { Err(self.corrupt(offset, "no record begins here")) };
        };
        if header.record_bytes(format) > left {
            return Ok(Scanned::Torn);
        }
        let mut body = Zeroizing::new(vec![0u8; header.body_bytes(format)]);
        let mut trailer = [0u8; TRAILER_BYTES];
        self.fill(&mut body)?;
        self.fill(&mut trailer)?;
        if record::trailer(&bytes, &body) == trailer {
            return Ok(Scanned::Record(header, header.key_digest(format, &body)));
        }
        if trailer == [0; TRAILER_BYTES] && header.record_bytes(format) == left {
            return Ok(Scanned::Torn);
        }
        Err(self.corrupt(offset, "the checksum of a record does not match"))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.reader.read_exact(bytes).map_err(at("read", self.path))
    }

    fn rest_is_zero(&mut self) -> Result<bool, StoreError> {
        let mut buffer = [0u8; 4096];
        loop {
            match self.reader.read(&mut buffer).map_err(at("read", self.path))? {
                0 => return Ok(true),
                read if buffer[..read].iter().any(|&byte| byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }

    fn corrupt(&self, offset: u64, what: &'static str) -> StoreError {
        StoreError::Corrupt { path: self.path.to_owned(), offset, what }
    }
}
