//! The checked append-only log: what every file that grows by records has in common.
//!
//! A record is a *head* of fixed length with a check of its own (so that a damaged length is never believed), a *body*,
//! and the beginning of a SHA-256 over both. What heads and bodies say is the owner's, who describes them by a
//! [`Framing`]. A record that a crash tore is the last one, and nobody was told of it: a [`Reader`] tells it from
//! damage.
//!
//! [`Log::append`] writes and gives a [`Pending`]; the record is on the disk once [`Pending::wait`] has returned. All
//! who wait at about the same time share one sync, and a record that nobody waits for is on the disk with the next one
//! that somebody does: the order of records is that of writing.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::disk::{self, Disk};

/// Read at once of what is only checked.
const WINDOW_BYTES: usize = 64 << 10;

/// How the records of a file are made.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    pub head_bytes: usize,
    /// Bytes of the SHA-256 over head and body that end a record.
    pub check_bytes: usize,
    /// What follows a head; nothing where the bytes are no head.
    pub body: fn(&[u8]) -> Option<Body>,
    pub torn: Torn,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    pub bytes: u64,
    /// It may have been overwritten since, and has a check of its own: it is passed over.
    pub erasable: bool,
}

/// When a last record that is there in full and does not match its check counts as torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Where its check was never written: otherwise it is damage.
    Blank,
    /// Always: its owner can bear the loss of a record that was whole.
    Last,
}

impl Framing {
    /// A whole record.
    pub fn record(&self, head: &[u8], body: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        let bytes: usize = body.iter().map(|part| part.len()).sum();
        // Nothing of key may stay behind in a buffer that grew.
        let mut record = Zeroizing::new(Vec::with_capacity(head.len() + bytes + self.check_bytes));
        record.extend_from_slice(head);
        for part in body {
            record.extend_from_slice(part);
        }
        let check = Sha256::digest(&*record);
        record.extend_from_slice(&check[..self.check_bytes]);
        record
    }

    /// Bytes of a record with such a body.
    pub fn record_bytes(&self, body_bytes: u64) -> u64 {
        body_bytes.saturating_add((self.head_bytes + self.check_bytes) as u64)
    }

    /// Whether head, body and check belong together.
    pub fn is_whole(&self, head: &[u8], body: &[u8], check: &[u8]) -> bool {
        let sum = Sha256::new().chain_update(head).chain_update(body).finalize();
        sum[..self.check_bytes] == *check
    }
}

/// What is at a place of a file.
pub enum Found {
    /// Its body is empty where it is one that may have been erased.
    Record {
        head: Vec<u8>,
        body: Zeroizing<Vec<u8>>,
        bytes: u64,
    },
    /// The last record was not written to its end.
    Torn,
    End,
    Damaged(&'static str),
}

/// Reads records one after the other.
pub struct Reader<R> {
    source: R,
    framing: Framing,
    left: u64,
}

impl<R: Read> Reader<R> {
    /// Over the `left` bytes that come from `source`.
    pub fn new(source: R, left: u64, framing: Framing) -> Self {
        Self { source, framing, left }
    }

    /// The next record. Nothing is to be read behind what is none.
    pub fn read_next(&mut self) -> io::Result<Found> {
        let Framing { head_bytes, check_bytes, body, torn } = self.framing;
        if self.left == 0 {
            return Ok(Found::End);
        }
        if self.left < head_bytes as u64 {
            return Ok(Found::Torn);
        }
        let mut head = vec![0; head_bytes];
        self.source.read_exact(&mut head)?;
        let Some(Body { bytes, erasable }) = body(&head) else {
            // A file system may have grown the file before the data arrived.
            let blank = head.iter().all(|&byte| byte == 0) && self.rest_is_zero()?;
            return Ok(if blank { Found::Torn } else { Found::Damaged("no record begins here") });
        };
        let whole = self.framing.record_bytes(bytes);
        if whole > self.left {
            return Ok(Found::Torn);
        }
        self.left -= whole;
        let mut check = vec![0; check_bytes];
        if erasable {
            self.pass(bytes)?;
            self.source.read_exact(&mut check)?;
            return Ok(Found::Record { head, body: Zeroizing::default(), bytes: whole });
        }
        let mut content = Zeroizing::new(vec![0; usize::try_from(bytes).map_err(io::Error::other)?]);
        self.source.read_exact(&mut content)?;
        self.source.read_exact(&mut check)?;
        if self.framing.is_whole(&head, &content, &check) {
            return Ok(Found::Record { head, body: content, bytes: whole });
        }
        let lost = torn == Torn::Last || check.iter().all(|&byte| byte == 0);
        Ok(if lost && self.left == 0 { Found::Torn } else { Found::Damaged("the checksum of a record does not match") })
    }

    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.source.by_ref().take(bytes), &mut io::sink())?;
        if passed == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn rest_is_zero(&mut self) -> io::Result<bool> {
        let mut window = [0; 4096];
        loop {
            match self.source.read(&mut window)? {
                0 => return Ok(true),
                read if window[..read].iter().any(|&byte| byte != 0) => return Ok(false),
                _ => {}
            }
        }
    }
}

/// Why nothing is written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The disk was full: a part of the last record may be there, and no sync has failed.
    NoRoom,
    /// What the disk has is unknown.
    Unknown,
}

/// A file that grows by records.
#[derive(Debug)]
pub struct Log {
    file: Arc<File>,
    disk: Disk,
    end: u64,
    broken: Option<Broken>,
    syncs: Arc<Syncs>,
}

impl Log {
    /// A file of which this many bytes count.
    pub fn new(file: File, end: u64, disk: Disk) -> Self {
        let file = Arc::new(file);
        Self { file: file.clone(), disk, end, broken: None, syncs: Arc::new(Syncs::new(file)) }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the next record begins.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Why nothing more is written. What a failed write left behind is unknown, so the file has to be read again first.
    pub fn broken(&self) -> Option<Broken> {
        if self.syncs.failed.load(Ordering::SeqCst) { Some(Broken::Unknown) } else { self.broken }
    }

    /// Writes records behind the last one.
    pub fn append(&mut self, records: &[u8]) -> io::Result<Pending> {
        self.check()?;
        if let Err(error) = self.disk.write_all_at(&self.file, records, self.end) {
            self.broken = Some(if disk::has_no_room(&error) { Broken::NoRoom } else { Broken::Unknown });
            return Err(error);
        }
        self.end += records.len() as u64;
        Ok(self.written())
    }

    /// Writes zeros in place of what may be erased. They are on the disk with the next sync.
    pub fn erase(&mut self, at: u64, bytes: u64) -> io::Result<Pending> {
        self.check()?;
        let zeros = vec![0; WINDOW_BYTES.min(bytes as usize)];
        let mut done = 0;
        while done < bytes {
            let part = (bytes - done).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..part as usize], at + done)?;
            done += part;
        }
        Ok(self.written())
    }

    /// All that was written until now, on its way to the disk.
    pub fn pending(&self) -> Pending {
        Pending { syncs: self.syncs.clone(), until: self.syncs.written.load(Ordering::SeqCst) }
    }

    /// One write more that no sync before it covers.
    fn written(&self) -> Pending {
        let until = self.syncs.written.fetch_add(1, Ordering::SeqCst) + 1;
        Pending { syncs: self.syncs.clone(), until }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken().is_some() { Err(io::Error::other("an earlier write failed")) } else { Ok(()) }
    }
}

/// What was written, on its way to the disk.
#[derive(Clone, Debug)]
#[must_use = "it is not on the disk before `wait` has returned"]
pub struct Pending {
    syncs: Arc<Syncs>,
    until: u64,
}

impl Pending {
    /// Nobody acts on it: it may come to the disk with what others wait for.
    pub fn later(self) {}

    /// Returns once it is on the disk. It may have come there with what others waited for.
    pub fn wait(&self) -> io::Result<()> {
        self.syncs.wait(self.until)
    }
}

/// The syncs of one file: who comes while one is under way waits for the next, with all others who came by then.
#[derive(Debug)]
struct Syncs {
    file: Arc<File>,
    /// Writes so far.
    written: AtomicU64,
    /// Outside the lock: a writer must not wait for a sync.
    failed: AtomicBool,
    synced: Mutex<Synced>,
}

#[derive(Debug, Default)]
struct Synced {
    /// Writes that are on the disk.
    until: u64,
    syncs: u64,
}

impl Syncs {
    fn new(file: Arc<File>) -> Self {
        Self { file, written: AtomicU64::new(0), failed: AtomicBool::new(false), synced: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Synced> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, until: u64) -> io::Result<()> {
        let mut synced = self.lock();
        if self.failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier sync failed"));
        }
        if synced.until >= until {
            return Ok(());
        }
        let written = self.written.load(Ordering::SeqCst);
        synced.syncs += 1;
        if let Err(error) = self.file.sync_data() {
            // A page that could not be written may count as clean from then on: a second sync would prove nothing.
            self.failed.store(true, Ordering::SeqCst);
            return Err(error);
        }
        synced.until = written;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// A length and its complement; odd lengths may be erased.
    const FRAMING: Framing = Framing { head_bytes: 4, check_bytes: 8, body, torn: Torn::Blank };

    fn head(length: u16) -> [u8; 4] {
        let [a, b] = length.to_le_bytes();
        [a, b, !a, !b]
    }

    fn body(head: &[u8]) -> Option<Body> {
        let [a, b, c, d] = *head.first_chunk()?;
        ([!a, !b] == [c, d])
            .then(|| u16::from_le_bytes([a, b]))
            .map(|length| Body { bytes: length.into(), erasable: length % 2 == 1 })
    }

    fn record(length: u16, fill: u8) -> Zeroizing<Vec<u8>> {
        FRAMING.record(&head(length), &[&vec![fill; length.into()]])
    }

    fn read(bytes: &[u8], framing: Framing) -> (Vec<Vec<u8>>, Found) {
        let (mut reader, mut bodies) = (Reader::new(bytes, bytes.len() as u64, framing), Vec::new());
        loop {
            match reader.read_next().unwrap() {
                Found::Record { body, bytes, .. } => bodies.push([body.to_vec(), vec![bytes as u8]].concat()),
                other => return (bodies, other),
            }
        }
    }

    #[test]
    fn what_was_appended_is_read_back_and_what_was_erased_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create_new(folder.path().join("log")).unwrap();
        let mut log = Log::new(file, 0, Disk::default());
        for (length, fill) in [(6, 1), (5, 2), (0, 0)] {
            log.append(&record(length, fill)).unwrap().wait().unwrap();
        }
        log.erase(18 + 4, 5).unwrap().wait().unwrap();
        let bytes = std::fs::read(folder.path().join("log")).unwrap();
        assert_eq!(bytes[18 + 4..][..5], [0; 5]);
        let (bodies, end) = read(&bytes, FRAMING);
        assert_eq!(bodies, [vec![1, 1, 1, 1, 1, 1, 18], vec![17], vec![12]]);
        assert!(matches!(end, Found::End));
    }

    #[test]
    fn a_cut_at_any_byte_is_torn_and_a_flip_before_the_last_record_is_damage() {
        let whole = [(6, 1), (7, 2), (8, 3)].map(|(length, fill)| record(length, fill).to_vec()).concat();
        for cut in 0..whole.len() {
            let (bodies, end) = read(&whole[..cut], FRAMING);
            assert_eq!(bodies.len(), [18, 37].iter().filter(|end| **end <= cut).count(), "{cut}");
            assert_eq!(matches!(end, Found::End), [0, 18, 37].contains(&cut), "{cut}");
            assert!(matches!(end, Found::End | Found::Torn), "{cut}");
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            let passed_over = (18 + 4..37).contains(&at);
            assert_eq!(matches!(read(&bad, FRAMING).1, Found::Damaged(_)), !passed_over, "{at}");
            let lenient = Framing { torn: Torn::Last, ..FRAMING };
            let torn = at >= 37 + 4;
            assert_eq!(matches!(read(&bad, lenient).1, Found::Torn), torn, "{at}");
        }
    }

    #[test]
    fn zeros_behind_the_last_record_are_torn() {
        for zeros in [1, 3, 4, 5, 100, 10_000] {
            let bytes = [&record(6, 1)[..], &vec![0; zeros]].concat();
            let (bodies, end) = read(&bytes, FRAMING);
            assert!(bodies.len() == 1 && matches!(end, Found::Torn), "{zeros}");
        }
    }

    #[test]
    fn all_who_wait_at_once_share_syncs_and_each_finds_its_own_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create_new(folder.path().join("log")).unwrap();
        let log = Mutex::new(Log::new(file, 0, Disk::default()));
        let syncs = log.lock().unwrap().syncs.clone();
        let (writers, barrier) = (16, Barrier::new(16));
        // The first sync is held up until all have written: the others cannot have had one of their own by then.
        let held = syncs.lock();
        thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    let pending = log.lock().unwrap().append(&record(6, 1)).unwrap();
                    barrier.wait();
                    pending.wait().unwrap();
                    assert!(syncs.lock().until >= pending.until);
                });
            }
            while syncs.written.load(Ordering::SeqCst) < writers {
                thread::yield_now();
            }
            drop(held);
        });
        assert_eq!(syncs.lock().syncs, 1);
        log.lock().unwrap().pending().wait().unwrap();
        assert_eq!(syncs.lock().syncs, 1, "there was nothing to wait for");
    }

    #[test]
    fn after_a_full_disk_nothing_is_written_behind_the_half_of_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::fillable();
        let mut log = Log::new(File::create_new(folder.path().join("log")).unwrap(), 0, disk.clone());
        log.append(&record(6, 1)).unwrap().wait().unwrap();
        disk.fill(true);
        assert!(disk::has_no_room(&log.append(&record(6, 2)).unwrap_err()));
        disk.fill(false);
        assert!(log.append(&record(6, 2)).is_err());
        assert_eq!((log.broken(), log.end()), (Some(Broken::NoRoom), 18));
    }
}
