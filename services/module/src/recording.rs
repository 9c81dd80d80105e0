//! What is recorded of a link beside its key: files that are never overwritten, and the sessions of a link of pulses.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use photonics::tagfile::sessions::{self, HEAD_BYTES, Head, SESSION_BYTES, SESSIONS_MAX, Session};
use zeroize::Zeroizing;

use crate::light::Remark;

/// Event of a recording that cannot go on. The link does.
pub const FAILED: &str = "recording-failed";
/// Event of a recording that is as long as it may be.
pub const LIMIT: &str = "recording-limit";

/// Only who runs the link may read what is raw key.
const MODE: u32 = 0o600;

/// An error where there is something that a recording would destroy.
pub fn refuse_to_overwrite(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() > 0 || !found.is_file() => bail!("{} is there already", path.display()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

/// Makes a file that nobody else can read: what is recorded at either end is raw key. One that has something in it is
/// never touched.
pub fn create(path: &Path, options: &mut OpenOptions) -> Result<File> {
    refuse_to_overwrite(path)?;
    let mut created = || -> io::Result<File> {
        let file = options.create(true).mode(MODE).open(path)?;
        // It may have been there, empty.
        file.set_permissions(Permissions::from_mode(MODE))?;
        Ok(file)
    };
    created().with_context(|| format!("create {}", path.display()))
}

/// An error where a file that was written is no longer found under its name.
pub fn still_there(file: &File, path: &Path) -> io::Result<()> {
    let (written, there) = (file.metadata()?, std::fs::metadata(path));
    match there {
        Ok(there) if (there.dev(), there.ino()) == (written.dev(), written.ino()) => Ok(()),
        Ok(_) => Err(io::Error::other("another file has taken its place")),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(io::Error::other("the file is gone")),
        Err(error) => Err(error),
    }
}

/// What there is to say of a recording that an error has ended.
pub fn failed(path: &Path, error: &io::Error) -> Remark {
    (FAILED, format!("{} is not complete: {error}", path.display()))
}

/// Writes which frames each session of a link of pulses took ([`photonics::tagfile::sessions`]) until a limit of frames
/// is reached; a transmitter's with the keys of its choices.
pub struct Sessions {
    /// Nothing once the recording has ended.
    file: Option<File>,
    path: PathBuf,
    frames_left: u64,
    /// Sessions that are in the file.
    written: usize,
    /// What has begun, and how many of its frames were taken.
    current: Option<(Session, u64)>,
    /// What there is to say when somebody asks.
    unsaid: Option<Remark>,
}

impl Sessions {
    /// Begins a file.
    pub fn create(path: &Path, head: &Head, frames: u64) -> Result<Self> {
        let file = create(path, OpenOptions::new().write(true).truncate(false))?;
        file.write_all_at(&sessions::head(head), 0).with_context(|| format!("write {}", path.display()))?;
        let path = path.to_owned();
        Ok(Self { file: Some(file), path, frames_left: frames, written: 0, current: None, unsaid: None })
    }

    /// A session begins; its first frame says where.
    pub fn begin(&mut self, number: u64, key: Zeroizing<[u8; 32]>) {
        self.current = Some((Session { number, first: 0, frames: None, key }, 0));
    }

    /// The session takes a frame. Gives what there is to say, once.
    pub fn frame(&mut self, number: u64) -> Option<Remark> {
        let (session, taken) = self.current.as_mut()?;
        if self.frames_left == 0 || self.file.is_none() {
            return self.unsaid.take();
        }
        if *taken == 0 && self.written == SESSIONS_MAX {
            // It has no place in the file, so nothing of it is written when it ends either.
            (self.frames_left, self.current) = (0, None);
            return Some((LIMIT, format!("{} has as many sessions as it may", self.path.display())));
        }
        self.frames_left -= 1;
        *taken += 1;
        if *taken > 1 {
            return None;
        }
        session.first = number;
        self.written += 1;
        self.write()
    }

    /// The session has ended; its key is wiped here.
    pub fn end(&mut self) {
        if let Some((session, taken)) = &mut self.current
            && *taken > 0
        {
            session.frames = Some(*taken);
            let remark = self.write();
            self.unsaid = self.unsaid.take().or(remark);
        }
        self.current = None;
    }

    /// Brings everything to the disk, and looks whether the file is still there.
    pub fn finish(mut self) -> Option<Remark> {
        self.end();
        let Some(file) = self.file.take() else { return self.unsaid };
        self.unsaid.or_else(|| {
            let kept = file.sync_all().and_then(|()| still_there(&file, &self.path));
            kept.err().map(|error| failed(&self.path, &error))
        })
    }

    /// Writes the current session to its place, the last one.
    fn write(&mut self) -> Option<Remark> {
        let (file, (session, _)) = (self.file.as_ref()?, self.current.as_ref()?);
        let place = HEAD_BYTES + (self.written - 1) * SESSION_BYTES;
        let error = file.write_all_at(&sessions::session(session)[..], place as u64).err()?;
        self.file = None;
        Some(failed(&self.path, &error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use photonics::tagfile::sessions::Kind;

    use super::*;

    const HEAD: Head = Head { kind: Kind::Choices, frame_ps: 20, transmitter: 3 };

    fn key() -> Zeroizing<[u8; 32]> {
        Zeroizing::new([5; 32])
    }

    fn read(path: &Path) -> Vec<(u64, u64, Option<u64>)> {
        let sessions = sessions::read(File::open(path).unwrap(), &HEAD).unwrap();
        sessions.iter().map(|session| (session.number, session.first, session.frames)).collect()
    }

    #[test]
    fn sessions_are_kept_with_their_frames_up_to_the_limit_and_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.site.choices");
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut recorded = Sessions::create(&path, &HEAD, 7).unwrap();
        for (session, first, frames) in [(11, 40, 3), (12, 60, 0), (13, 80, 10)] {
            recorded.begin(session, key());
            assert!((first..first + frames).all(|frame| recorded.frame(frame).is_none()));
            if session == 13 {
                // A run that is killed now has it without its end.
                assert_eq!(read(&path), [(11, 40, Some(3)), (13, 80, None)]);
            }
            recorded.end();
        }
        assert_eq!(recorded.finish(), None);
        assert_eq!(read(&path), [(11, 40, Some(3)), (13, 80, Some(4))]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Sessions::create(&path, &HEAD, 7).err().unwrap().to_string();
        assert!(error.contains("is there already"), "{error}");
    }

    #[test]
    fn sessions_beyond_the_limit_leave_the_last_one_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.site.choices");
        let mut recorded = Sessions::create(&path, &HEAD, u64::MAX).unwrap();
        let mut said = Vec::new();
        for session in 1..=SESSIONS_MAX as u64 + 2 {
            recorded.begin(session, key());
            said.extend(recorded.frame(10 * session).map(|(name, _)| (session, name)));
            recorded.end();
        }
        assert_eq!(said, [(SESSIONS_MAX as u64 + 1, LIMIT)]);
        assert_eq!(recorded.finish(), None);
        let last = SESSIONS_MAX as u64;
        assert_eq!(read(&path).last(), Some(&(last, 10 * last, Some(1))));
    }

    #[test]
    fn a_file_that_is_gone_is_noticed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.site.choices");
        let mut recorded = Sessions::create(&path, &HEAD, 7).unwrap();
        recorded.begin(1, key());
        assert_eq!(recorded.frame(0), None);
        std::fs::remove_file(&path).unwrap();
        let (name, message) = recorded.finish().unwrap();
        assert!(name == FAILED && message.contains("gone"), "{name}: {message}");
    }
}
