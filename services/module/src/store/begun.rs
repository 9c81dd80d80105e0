//! How far the reconciliation of a block that is kept has come: `<data>/<site>/<link>/reconciliation.log`, a checked log.
//!
//! ```text
//! head   1 kind | 3 zero | 4 bytes of the body | 4 the complement of those 4
//! body   kind 1, the first record: 8 rounds of sifting that the block is made of
//!        kind 2: 32 digest of what the peer said
//!        kind 3: what was drawn
//! check  16 SHA-256 of head and body, cut
//! ```
//! Integers are little-endian. Nothing of it is secret. It is there from before the first word of reconciliation until
//! the block comes to its end, and each record before anything is said that depends on it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use distill::pipeline::{Begun, Record};
use shell::disk::Disk;
use shell::files;
use shell::log::{Body, Found, Framing, Log, Reader, Torn};

const FILE: &str = "reconciliation.log";
const HEAD_BYTES: usize = 12;
const CHECK_BYTES: usize = 16;
const BEGUN: u8 = 1;
const HEARD: u8 = 2;
const DREW: u8 = 3;
/// More than the longest seed of amplification has.
const BODY_BYTES_MAX: u32 = 1 << 28;
const FRAMING: Framing = Framing { head_bytes: HEAD_BYTES, check_bytes: CHECK_BYTES, body, torn: Torn::Blank };

/// The log of a block whose reconciliation has begun.
pub struct BegunLog {
    path: PathBuf,
    log: Log,
    begun: Begun,
}

impl BegunLog {
    /// That of the link end whose folder this is, where there is one. An error where it is damaged.
    pub fn open(end: &Path, disk: Disk) -> Result<Option<Self>> {
        let path = end.join(FILE);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        let (begun, end) = read(&file).with_context(|| format!("read {}", path.display()))?;
        // Nobody was told of what a crash tore.
        file.set_len(end).and_then(|()| file.sync_all()).with_context(|| format!("cut {}", path.display()))?;
        Ok(Some(Self { path, log: Log::new(file, end, disk), begun }))
    }

    /// Begins one for a block of this many rounds.
    pub fn create(end: &Path, disk: Disk, rounds: u64) -> Result<Self> {
        let path = end.join(FILE);
        let first = FRAMING.record(&head(BEGUN, 8), &[&rounds.to_le_bytes()]);
        let doing = || format!("write {}", path.display());
        disk.write_durably(&path, &first).with_context(doing)?;
        let file = OpenOptions::new().read(true).write(true).open(&path).with_context(doing)?;
        let log = Log::new(file, first.len() as u64, disk);
        Ok(Self { path, log, begun: Begun { rounds, records: Vec::new() } })
    }

    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Returns once it is on the disk.
    pub fn record(&mut self, record: Record) -> Result<()> {
        let (kind, bytes) = match &record {
            Record::Heard(digest) => (HEARD, &digest[..]),
            Record::Drew(bytes) => (DREW, &bytes[..]),
        };
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= BODY_BYTES_MAX);
        let framed = FRAMING.record(&head(kind, length.context("more was drawn than a record holds")?), &[bytes]);
        let written = self.log.append(&framed).and_then(|pending| pending.wait());
        written.with_context(|| format!("write {}", self.path.display()))?;
        self.begun.records.push(record);
        Ok(())
    }

    /// What is kept is no block in work any more.
    pub fn erase(self) -> Result<()> {
        erase(&self.path)
    }
}

/// Removes the log of the link end whose folder this is, damaged or not. Nothing to do where there is none.
pub fn erase_in(end: &Path) -> Result<()> {
    erase(&end.join(FILE))
}

fn erase(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.with_context(|| format!("remove {}", path.display()))?,
    }
    files::sync_folder(path.parent().unwrap_or(Path::new("."))).with_context(|| format!("remove {}", path.display()))
}

/// What the log says, and where it ends.
fn read(file: &File) -> Result<(Begun, u64)> {
    let length = file.metadata()?.len();
    let mut reader = Reader::new(io::BufReader::new(file), length, FRAMING);
    let (mut begun, mut end): (Option<Begun>, u64) = (None, 0);
    loop {
        match reader.read_next()? {
            Found::Record { head, body, bytes } => {
                enter(&mut begun, head[0], &body)?;
                end += bytes;
            }
            Found::Torn | Found::End => break,
            Found::Damaged(what) => bail!("{what}"),
        }
    }
    Ok((begun.context("it does not say of what it is")?, end))
}

fn enter(begun: &mut Option<Begun>, kind: u8, body: &[u8]) -> Result<()> {
    match (begun, kind) {
        (begun @ None, BEGUN) => {
            let rounds = u64::from_le_bytes(body.try_into().context("rounds of another length")?);
            *begun = Some(Begun { rounds, records: Vec::new() });
        }
        (Some(begun), HEARD) => {
            begun.records.push(Record::Heard(body.try_into().context("a digest of another length")?));
        }
        (Some(begun), DREW) => begun.records.push(Record::Drew(body.to_vec())),
        _ => bail!("a record does not follow from those before it"),
    }
    ensure!(begun_rounds(body, kind) != Some(0), "a block of no rounds");
    Ok(())
}

fn begun_rounds(body: &[u8], kind: u8) -> Option<u64> {
    (kind == BEGUN).then(|| body.try_into().map_or(0, u64::from_le_bytes))
}

fn head(kind: u8, length: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = kind;
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..].copy_from_slice(&(!length).to_le_bytes());
    head
}

fn body(bytes: &[u8]) -> Option<Body> {
    let (kind, rest) = bytes.split_first()?;
    let length = u32::from_le_bytes(rest.get(3..7)?.try_into().ok()?);
    let complement = u32::from_le_bytes(rest.get(7..11)?.try_into().ok()?);
    let whole = length == !complement && length <= BODY_BYTES_MAX && rest[..3] == [0; 3];
    (whole && (BEGUN..=DREW).contains(kind)).then_some(Body { bytes: length.into(), erasable: false })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn records() -> [Record; 3] {
        [Record::Drew(vec![1, 2, 3]), Record::Heard([7; 32]), Record::Drew(Vec::new())]
    }

    fn written(end: &Path) -> Vec<u8> {
        let mut log = BegunLog::create(end, Disk::default(), 12).unwrap();
        records().into_iter().for_each(|record| log.record(record).unwrap());
        std::fs::read(end.join(FILE)).unwrap()
    }

    #[test]
    fn what_was_recorded_comes_back_and_what_a_crash_tore_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let end = folder.path();
        assert!(BegunLog::open(end, Disk::default()).unwrap().is_none());
        let whole = written(end);
        let first = HEAD_BYTES + 8 + CHECK_BYTES;
        for cut in first..=whole.len() {
            std::fs::write(end.join(FILE), &whole[..cut]).unwrap();
            let mut log = BegunLog::open(end, Disk::default()).unwrap().unwrap();
            let had = log.begun().records.len();
            assert_eq!((log.begun().rounds, &log.begun().records[..]), (12, &records()[..had]), "cut at {cut}");
            log.record(Record::Heard([9; 32])).unwrap();
            let log = BegunLog::open(end, Disk::default()).unwrap().unwrap();
            assert_eq!(log.begun().records[had..], [Record::Heard([9; 32])], "cut at {cut}");
        }
        BegunLog::open(end, Disk::default()).unwrap().unwrap().erase().unwrap();
        assert!(!end.join(FILE).exists());
        erase_in(end).unwrap();
    }

    #[test]
    fn a_log_that_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let end = folder.path();
        let whole = written(end);
        for at in 0..whole.len() {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 1;
            std::fs::write(end.join(FILE), &spoilt).unwrap();
            assert!(BegunLog::open(end, Disk::default()).is_err(), "byte {at}");
        }
        // No record begins it, or another one does.
        std::fs::write(end.join(FILE), b"").unwrap();
        assert!(BegunLog::open(end, Disk::default()).is_err());
        let first = HEAD_BYTES + 8 + CHECK_BYTES;
        std::fs::write(end.join(FILE), &whole[first..]).unwrap();
        assert!(BegunLog::open(end, Disk::default()).is_err());
        erase_in(end).unwrap();
        assert!(!end.join(FILE).exists());
    }
}
