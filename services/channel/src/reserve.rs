//! The durable authentication reserve of one end: a file that grows by one checked record per event.
//!
//! A tag is on disk as used before its pad is handed out, and below a ceiling that an anchor keeps elsewhere (`ceiling`).
//! A record that a crash tore off is dropped, and with it one more tag to send if the torn record may have used it. Damage
//! anywhere else is an error: to guess could use a pad twice.

mod ceiling;
mod format;
mod placed;
mod state;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anchor::{Anchor, AnchorError, Instance};
use distill::auth::reserve::Offsets;
use distill::auth::{Cell, Direction, Layout, Mark, MaskKey, Reserve, ReserveError, Side};
use distill::bits::Bits;
use shell::disk::Disk;
use shell::log::{Broken, Log, Pending};
use zeroize::Zeroizing;

pub use self::ceiling::{CHUNK, Raise, Settlement};
use self::ceiling::{Ceiling, Found};
use self::format::{check_header, described, digest, record, record_head};
pub use self::placed::Places;
use self::state::{OFFSETS, Record, ReserveState, SECRET_BITS, check_secret};

/// Largest body of a record, and with it the largest secret.
const BODY_MAX: usize = 64 << 20;
/// The file is rewritten, without what is used up, once it has grown by this many bytes.
const COMPACT_BYTES: u64 = 64 << 10;
/// Bits per direction that make at least one tag: a hash key and a pad.
pub const SECRET_BITS_MIN: u64 = 256;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("{} is damaged at byte {at}: {what}", path.display())]
    Damaged { path: PathBuf, at: usize, what: &'static str },
    #[error("{} was made for {found}, not for {expected}", path.display())]
    Other { path: PathBuf, found: String, expected: String },
    #[error(
        "{} holds {bits} bits; two directions need at least {SECRET_BITS_MIN} each and equal parts, and what masks them \
         needs 256 more",
        path.display()
    )]
    Secret { path: PathBuf, bits: u64 },
    #[error(
        "{} is lost, and no secret is placed that was not used before: place a fresh one as {}, and give the same to the \
         other end with `qkdnet rekey`",
        path.display(),
        secret.display()
    )]
    Lost { path: PathBuf, secret: PathBuf },
    #[error("the ceilings of {}: {source}", path.display())]
    Anchor { path: PathBuf, source: AnchorError },
}

/// Since when a reserve is known to be older than what was done with it, and what shows that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Wall time, in milliseconds since 1970.
    pub since_ms: u64,
    pub why: String,
}

impl RolledBack {
    fn now(why: &str) -> Self {
        Self { since_ms: now_ms(), why: why.to_owned() }
    }
}

/// Wall time in milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// One end's reserve.
pub struct FileReserve {
    places: Places,
    disk: Disk,
    log: Log,
    /// Held as long as the reserve is open.
    _lock: File,
    side: Side,
    layout: Layout,
    state: ReserveState,
    ceiling: Ceiling,
    /// Length of the file when it was rewritten, and no longer had what was used up by then.
    rewritten_bytes: u64,
    /// It is not known which file has the name, so nothing may be used.
    lost: bool,
}

impl FileReserve {
    /// Opens a reserve, or makes it from the secret that was placed. It goes on from its ceiling, or is rolled back where
    /// that shows it. Blocks while `anchor` is asked.
    pub fn open(
        places: &Places,
        side: Side,
        layout: Layout,
        disk: Disk,
        anchor: Arc<dyn Anchor>,
    ) -> Result<Self, OpenError> {
        let path = &places.reserve;
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        if let Some(folder) = path.parent() {
            shell::files::create_private_folder(folder).map_err(io(folder))?;
        }
        let lock = lock(path)?;
        if !path.exists() {
            let mut state = places.first_state()?;
            state.instance = Some(state.identity(side).map_err(io(path))?);
            disk.write_durably(path, &state.file(side, layout)).map_err(io(path))?;
        }
        let (log, state) = Self::load(path, side, layout, &disk, true)?;
        let rewritten_bytes = log.end();
        places.taken(&state, &disk)?;
        let asked = |source| OpenError::Anchor { path: path.clone(), source };
        let store = state.instance.ok_or_else(|| damaged(path, "no identity"))?;
        let (ceiling, found) = Ceiling::read(anchor, store, state.generation, state.offsets).map_err(asked)?;
        let places = places.clone();
        let mut reserve =
            Self { places, disk, log, _lock: lock, side, layout, state, ceiling, rewritten_bytes, lost: false };
        reserve.go_on(found).map_err(|error| OpenError::Io {
            path: reserve.places.reserve.clone(),
            source: io::Error::other(error.to_string()),
        })?;
        Ok(reserve)
    }

    /// Does what its ceilings say of a reserve that was opened.
    fn go_on(&mut self, found: Found) -> Result<(), ReserveError> {
        if self.state.rolled_back.is_some() {
            return Ok(());
        }
        match found {
            Found::RolledBack(why) => self.roll_back(&why),
            Found::From(offsets) if offsets == self.state.offsets => Ok(()),
            Found::From(offsets) => {
                let tags = offsets.send - self.state.offsets.send;
                tracing::info!(path = %self.places.reserve.display(), tags, "tags below the ceiling count as used");
                self.append_record(ReserveState::offsets_record(offsets))?.wait()?;
                self.state.offsets = offsets;
                Ok(())
            }
        }
    }

    /// Gives the reserve at `path` up for good: a copy of it that is put back later is one that was rolled back. Blocks
    /// while `anchor` is told.
    pub fn give_up(path: &Path, anchor: &dyn Anchor) -> Result<(), OpenError> {
        let _lock = lock(path)?;
        let bytes = std::fs::read(path).map(Zeroizing::new);
        let bytes = bytes.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let (side, layout) = described(&bytes).ok_or_else(|| damaged(path, "not an authentication reserve"))?;
        check_header(path, &bytes, side, layout)?;
        let (state, _) = ReserveState::replay(path, &bytes)?;
        // One of an older release has none, and no ceilings.
        let Some(store) = state.instance else { return Ok(()) };
        Ceiling::give_up(anchor, store).map_err(|source| OpenError::Anchor { path: path.to_owned(), source })
    }

    /// Goes on after the disk was full: reads what is there, without the record that was written in part, whose tag was
    /// never handed out. True where there was something to mend. After a failed sync the reserve stays as it is: nobody
    /// knows what the disk has.
    pub fn mend(&mut self) -> Result<bool, OpenError> {
        if self.lost || self.log.broken() != Some(Broken::NoRoom) {
            return Ok(false);
        }
        (self.log, self.state) = Self::load(&self.places.reserve, self.side, self.layout, &self.disk, false)?;
        Ok(true)
    }

    /// What the file holds; it is rewritten without what is used up. A torn record is dropped for good; after a crash, one
    /// that may say that a tag was sent costs a tag. A file of an older release is taken over: it gets an identity, and
    /// stays without masks until it is re-keyed.
    fn load(
        path: &Path,
        side: Side,
        layout: Layout,
        disk: &Disk,
        after_a_crash: bool,
    ) -> Result<(Log, ReserveState), OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let bytes = Zeroizing::new(std::fs::read(path).map_err(io)?);
        check_header(path, &bytes, side, layout)?;
        let (mut state, torn) = ReserveState::replay(path, &bytes)?;
        let skips =
            torn.is_some_and(|at| after_a_crash && record_head(&bytes[at..]).is_none_or(|(kind, _)| kind == OFFSETS));
        if let Some(at) = torn {
            tracing::warn!(path = %path.display(), at, skips, "a torn record was dropped");
        }
        if skips {
            // The receiving count stays: what was being noted has not been acted on, and it must not pass the peer's.
            state.offsets.send = state.offsets.send.saturating_add(1);
        }
        let older = state.instance.is_none();
        if older {
            state.instance = Some(Instance::draw().map_err(io)?);
        }
        if state.mask_key.is_none() {
            tracing::warn!(
                path = %path.display(),
                "a reserve of an older release, whose pads are not masked: `qkdnet rekey` at both ends makes a new one"
            );
        }
        state.erase_used(side, layout);
        let fresh = state.file(side, layout);
        if *fresh != *bytes {
            disk.replace_and_erase(path, &fresh).map_err(io)?;
        }
        Ok((open_log(path, fresh.len(), disk).map_err(io)?, state))
    }

    /// Why a fresh secret cannot be put in, and what the anchor has to keep before it is.
    pub fn before_rekey(&self, secret: &[u8], generation: Option<u64>) -> Result<Raise, RekeyError> {
        check_secret(secret).map_err(|bits| RekeyError::Length { bits })?;
        if self.state.secrets.contains(&digest(secret)) {
            return Err(RekeyError::Repeated);
        }
        let (state, _) = self.state.rekeyed(secret, generation)?;
        Ok(self.ceiling.first_of(state.generation))
    }

    /// Replaces the reserve by a fresh secret that the peer's end gets too. Tags are numbered from 0 again. `raise` is what
    /// [`Self::before_rekey`] gave, once it was made; what is before it is forgotten by [`Raise::make_alone`].
    pub fn rekey(&mut self, secret: &[u8], generation: Option<u64>, raise: &Raise) -> Result<(), RekeyError> {
        let (state, record) = self.state.rekeyed(secret, generation)?;
        self.append_record(record)?.wait().map_err(ReserveError::Store)?;
        shell::failpoint::hit("reserve.rekeyed");
        self.state = state;
        self.ceiling.replaced(raise);
        if let Err(error) = self.places.taken(&self.state, &self.disk) {
            // The next start does it.
            tracing::warn!("a secret that was taken is not marked yet: {error}");
        }
        Ok(())
    }

    /// Since when this reserve is known to be older than what was done with it.
    pub fn rolled_back(&self) -> Option<&RolledBack> {
        self.state.rolled_back.as_ref()
    }

    /// What the anchor has to keep soon. It blocks, so that it is asked elsewhere and told by [`Self::raised`].
    pub fn raise_wanted(&self) -> Option<Raise> {
        self.ceiling.wanted(self.state.offsets)
    }

    pub fn raised(&mut self, raise: &Raise) {
        self.ceiling.raised(raise);
    }

    /// Whether the next tag has to wait for the anchor.
    pub fn waits_for_anchor(&self) -> bool {
        self.ceiling.left(self.state.offsets) == 0
    }

    /// What the anchor keeps of a clean close.
    pub fn settlement(&self) -> Settlement {
        self.ceiling.settlement(self.state.offsets)
    }

    /// Whether two ends hold the same cells, and neither has taken a tag of the other's that was not sent. The key itself
    /// is told to nobody.
    pub fn agrees_with(&self, peer: &Self) -> bool {
        let used = |end: &Self| end.state.offsets.used_bits(end.layout);
        let same = self.state.cells.same_from(&peer.state.cells, used(self).max(used(peer)));
        let (ours, theirs) = (self.state.offsets, peer.state.offsets);
        let not_ahead = ours.receive <= theirs.send && theirs.receive <= ours.send;
        self.side != peer.side && not_ahead && same
    }

    /// Rewrites a file that has become long, so that neither it nor memory has what is used up.
    fn give_space_back(&mut self) -> Result<(), ReserveError> {
        if self.lost || self.log.broken().is_some() || self.log.end() < self.rewritten_bytes + COMPACT_BYTES {
            return Ok(());
        }
        self.state.erase_used(self.side, self.layout);
        let fresh = self.state.file(self.side, self.layout);
        // Stays so where it is not known which file has the name.
        self.lost = true;
        let path = &self.places.reserve;
        if let Err(error) = self.disk.replace_and_erase(path, &fresh) {
            let named = std::fs::metadata(path)?.ino();
            if named != self.log.file().metadata()?.ino() {
                return Err(error.into());
            }
            tracing::warn!("the authentication reserve keeps what is used up for now: {error}");
            self.lost = false;
            return Ok(());
        }
        self.log = open_log(path, fresh.len(), &self.disk)?;
        self.rewritten_bytes = self.log.end();
        self.lost = false;
        Ok(())
    }

    fn append_record(&mut self, (kind, body): Record) -> Result<Pending, ReserveError> {
        if self.lost {
            return Err(ReserveError::Store(io::Error::other("an earlier write failed")));
        }
        Ok(self.log.append(&record(kind, &body))?)
    }

    fn store_offsets(&mut self, offsets: Offsets) -> Result<(), ReserveError> {
        self.append_record(ReserveState::offsets_record(offsets))?.wait()?;
        self.state.go_on_to(self.side, self.layout, offsets);
        shell::failpoint::hit("tag.persisted");
        if !self.ceiling.covers(offsets) {
            // Whoever runs an endpoint asks ahead of need; this is for those who do not. On a thread of its own, as an
            // anchor may need the runtime that this is called from.
            let raise = self.ceiling.to(offsets);
            std::thread::scope(|scope| scope.spawn(|| raise.make()).join())
                .map_err(|_| io::Error::other("the anchor panicked"))?
                .map_err(io::Error::other)?;
            self.ceiling.raised(&raise);
        }
        Ok(())
    }

    /// Says which pad is used from now on, for a log: its number, no bit of it.
    fn tell(&self, what: &'static str, from: Side, tag: u64) {
        let (generation, direction) = (self.state.generation, from.direction());
        tracing::trace!(target: "channel::pads", what, generation, ?direction, tag);
    }

    fn tags(&self) -> u64 {
        self.layout.tags_in(self.state.cells.bits())
    }
}

/// Why a fresh secret is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    #[error("a secret of {bits} bits: at least {SECRET_BITS} are needed, for two directions and what masks them")]
    Length { bits: u64 },
    #[error("this secret was used before")]
    Repeated,
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

impl Reserve for FileReserve {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn next_send(&self) -> u64 {
        self.state.offsets.send
    }

    fn next_receive(&self) -> u64 {
        self.state.offsets.receive
    }

    fn remaining_send(&self) -> u64 {
        self.tags().saturating_sub(self.state.offsets.send)
    }

    fn remaining_receive(&self) -> u64 {
        self.tags().saturating_sub(self.state.offsets.receive)
    }

    fn hash_key(&self, direction: Direction, tag: u64) -> Result<Cell, ReserveError> {
        self.state.cells.cell(direction, self.layout.hash_cell(tag))
    }

    fn take_send(&mut self, tag: u64) -> Result<Cell, ReserveError> {
        if tag < self.state.offsets.send {
            return Err(ReserveError::Used(tag));
        }
        let cell = self.state.cells.cell(self.side.direction(), self.layout.pad_cell(tag))?;
        self.store_offsets(Offsets { send: tag + 1, ..self.state.offsets })?;
        self.tell("sent", self.side, tag);
        Ok(cell)
    }

    fn pad_to_verify(&self, tag: u64) -> Result<Cell, ReserveError> {
        if tag < self.state.offsets.receive {
            return Err(ReserveError::Used(tag));
        }
        self.state.cells.cell(self.side.other().direction(), self.layout.pad_cell(tag))
    }

    fn verified(&mut self, tag: u64) -> Result<(), ReserveError> {
        if tag < self.state.offsets.receive {
            return Err(ReserveError::Used(tag));
        }
        self.store_offsets(Offsets { receive: tag + 1, ..self.state.offsets })?;
        self.tell("verified", self.side.other(), tag);
        Ok(())
    }

    fn mask_key(&self) -> Option<&MaskKey> {
        self.state.mask_key.as_ref()
    }

    fn is_rolled_back(&self) -> bool {
        self.state.rolled_back.is_some()
    }

    fn roll_back(&mut self, why: &str) -> Result<(), ReserveError> {
        let rolled_back = RolledBack::now(why);
        self.append_record(ReserveState::rolled_back_record(&rolled_back))?.wait()?;
        self.state.rolled_back = Some(rolled_back);
        Ok(())
    }

    fn generation(&self) -> u64 {
        self.state.generation
    }

    fn marks(&self) -> Vec<Mark> {
        self.state.cells.marks().to_vec()
    }

    fn append(&mut self, block: u64, bits: &Bits) -> Result<(), ReserveError> {
        if !self.state.cells.takes(block) {
            return Ok(());
        }
        if !bits.len().is_multiple_of(2) {
            return Err(ReserveError::Odd(bits.len()));
        }
        // A tag that these bits make is on the disk behind them. A refill that a loss of power takes is one that only
        // the peer got, if it did: it is dropped there when the two meet again.
        self.append_record(ReserveState::refill_record(block, bits))?.later();
        shell::failpoint::hit("reserve.refilled");
        self.state.cells.append(block, bits)?;
        self.give_space_back()
    }

    fn align(&mut self, peer: &[Mark]) -> Result<(), ReserveError> {
        let bits = self.state.cells.aligned_bits(peer, self.state.offsets.used_bits(self.layout))?;
        if bits < self.state.cells.bits() {
            tracing::info!(from = self.state.cells.bits(), to = bits, "refills that only this end got are dropped");
            self.append_record(ReserveState::cut_record(bits))?.wait()?;
            shell::failpoint::hit("reserve.cut");
            self.state.cells.truncate(bits);
        }
        Ok(())
    }
}

/// A secret for both ends of a channel, from the system's randomness: `bits_per_direction`, rounded up to whole cells, and
/// 256 bits for the masks.
pub fn new_secret(bits_per_direction: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let cells = bits_per_direction.max(SECRET_BITS_MIN).div_ceil(128).min((BODY_MAX / 64) as u64);
    let mut secret = Zeroizing::new(vec![0; cells as usize * 32 + MaskKey::BYTES]);
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(secret)
}

fn damaged(path: &Path, what: &'static str) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), at: 0, what }
}

/// The file behind its last record.
fn open_log(path: &Path, bytes: usize, disk: &Disk) -> io::Result<Log> {
    Ok(Log::new(OpenOptions::new().write(true).open(path)?, bytes as u64, disk.clone()))
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(std::fs::TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

#[cfg(test)]
#[path = "reserve_tests.rs"]
mod tests;
