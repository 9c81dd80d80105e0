//! Reading a block file: its index when it is opened, and single records later.

use super::*;

impl BlockStore {
    pub(super) fn scan(path: &Path, file: File, disk: Disk, writable: bool) -> Result<Self, StoreError> {
        let length = file.metadata().map_err(at("read", path))?.len();
        let (mut headers, mut format, mut end, mut torn) = (Vec::new(), Format::Digest, 0, length > 0);
        if let Some(mut scanner) = Scanner::new(path, &file, length)? {
            format = scanner.format();
            torn = loop {
                let offset = scanner.offset();
                match scanner.next()? {
                    Scanned::End => break false,
                    Scanned::Torn => break true,
                    Scanned::Record(header, digest) => headers.push((header, digest, offset)),
                }
            };
            end = scanner.offset();
        }
        let mut store = Self {
            path: path.to_owned(),
            log: Log::new(file, end, disk.clone()),
            format,
            disk,
            writable,
            sequence: 0,
            entries: Vec::new(),
            latest: BTreeMap::new(),
            past: None,
            parts: BTreeMap::new(),
            erased_bytes: 0,
            counts: BTreeMap::new(),
            departed_at: 0,
            torn: torn.then_some(TornTail { offset: end, bytes: length - end }),
        };
        for (header, digest, offset) in headers {
            let first = offset == FILE_MAGIC.len() as u64 && format == Format::Digest && header.sequence == 0;
            if first && header.kind == Kind::Past {
                store.past = Some(Self::read_past(store.log.file(), path, &header, offset)?);
                store.sequence = 1;
            } else {
                store.replay(header, digest, offset)?;
            }
        }
        store.find_erased()?;
        Ok(store)
    }

    /// Takes a record of an existing file into the index if it can follow what came before.
    pub(super) fn replay(&mut self, header: Header, digest: [u8; DIGEST_BYTES], offset: u64) -> Result<(), StoreError> {
        let before = self.state(header.block);
        let possible = match header.kind {
            Kind::Prepared | Kind::Stored | Kind::Aborted => self.expect_new(header.block).is_ok(),
            Kind::Committed | Kind::Voided => before == Some(BlockState::Prepared),
            Kind::Key | Kind::Slice => self.format == Format::Digest,
            Kind::Count => self.format == Format::Digest && Count::from_number(header.session).is_some(),
            Kind::Past => false,
        };
        if !possible || header.sequence != self.sequence {
            let what = "a record does not follow from those before it";
            return Err(StoreError::Corrupt { path: self.path.clone(), offset, what });
        }
        self.enter(header, digest, offset);
        Ok(())
    }

    /// Removes what a crash left, writes the first bytes of a file of today, and makes both durable, the name included.
    pub(super) fn make_ready(&mut self, directory: &Path) -> Result<(), StoreError> {
        if self.torn.is_some() {
            self.cut(self.log.end())?;
        }
        if self.log.end() == 0 {
            let magic = self.log.append(&FILE_MAGIC).map_err(at("write", &self.path))?;
            self.wait(&magic)?;
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            return synced.map_err(at("write", directory));
        }
        let mut magic = FILE_MAGIC;
        self.log.file().read_exact_at(&mut magic, 0).map_err(at("read", &self.path))?;
        if OLDER_FILE_MAGICS.contains(&magic) {
            self.disk.write_all_at(self.log.file(), &FILE_MAGIC, 0).map_err(at("write", &self.path))?;
            self.log.file().sync_data().map_err(at("write", &self.path))?;
        }
        Ok(())
    }

    /// Cuts off what nobody was told of.
    pub(super) fn cut(&self, offset: u64) -> Result<(), StoreError> {
        let cut = self.log.file().set_len(offset).and_then(|()| self.log.file().sync_all());
        cut.map_err(at("truncate", &self.path))
    }

    /// The body of a record, checked once more.
    pub(super) fn body(&self, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let bytes = entry.header.body_bytes(self.format);
        let mut body = Zeroizing::new(vec![0u8; bytes + TRAILER_BYTES]);
        let offset = entry.offset + HEADER_BYTES as u64;
        self.log.file().read_exact_at(&mut body, offset).map_err(at("read", &self.path))?;
        if !self.format.framing().is_whole(&entry.header.encode(), &body[..bytes], &body[bytes..]) {
            return Err(self.corrupt(entry, "the checksum of a record does not match"));
        }
        body.truncate(bytes);
        Ok(body)
    }

    pub(super) fn read(&self, entry: &Entry) -> Result<StoredBlock, StoreError> {
        let header = entry.header;
        let body = self.body(entry)?;
        let (ledger, trace_id) = body[header.key_bytes(self.format)..].split_at(header.ledger_bytes as usize);
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| self.corrupt(entry, "a text is not UTF-8"));
        Ok(StoredBlock {
            number: header.block,
            session: header.session,
            state: entry.state,
            key_bits: header.key_bits,
            key_digest: entry.digest,
            ledger: text(ledger)?,
            trace_id: text(trace_id)?,
        })
    }

    pub(super) fn corrupt(&self, entry: &Entry, what: &'static str) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), offset: entry.offset, what }
    }
}
