//! Raw time tags to a file while a link runs.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use module::Remark;
use module::recording::{self, LIMIT, Sessions, failed, still_there};
use photonics::tagfile::{Format, TagWriter};
use zeroize::Zeroizing;

/// Writes the tags of consecutive frames until a limit of frames or bytes is reached. Only whole frames are
/// written, so that a replay distils what the run did.
pub struct Recorder {
    /// Nothing once the recording has failed.
    writer: Option<TagWriter<BufWriter<File>>>,
    path: PathBuf,
    frames_left: u64,
    bytes_left: u64,
    /// Of a link of pulses: numbers of pulses count from the start of a session.
    sessions: Option<Sessions>,
}

impl Recorder {
    /// Begins a file. One that has something in it is never touched.
    pub fn create(path: &Path, format: Format, frames: u64, bytes: u64) -> Result<Self> {
        let file = recording::create(path, OpenOptions::new().append(true))?;
        let writer = TagWriter::new(BufWriter::new(file), format);
        let writer = writer.with_context(|| format!("recordings are not written as {format}"))?;
        Ok(Self { writer: Some(writer), path: path.to_owned(), frames_left: frames, bytes_left: bytes, sessions: None })
    }

    /// Keeps beside the tags which of them are of which session.
    pub fn with_sessions(self, sessions: Sessions) -> Self {
        Self { sessions: Some(sessions), ..self }
    }

    /// A session begins.
    pub fn begin(&mut self, session: u64) {
        if let Some(sessions) = &mut self.sessions {
            sessions.begin(session, Zeroizing::default());
        }
    }

    /// The session has ended.
    pub fn end(&mut self) {
        if let Some(sessions) = &mut self.sessions {
            sessions.end();
        }
    }

    /// Appends the tags of a whole frame, or nothing where they would pass a limit. Gives what there is to say, once.
    pub fn frame(&mut self, number: u64, tags: &[u64]) -> Option<Remark> {
        let writer = self.writer.as_mut()?;
        let bytes = tags.len() as u64 * writer.tag_bytes();
        if self.frames_left == 0 {
            return None;
        }
        if bytes > self.bytes_left {
            self.frames_left = 0;
            return Some((LIMIT, format!("{} has reached its size limit", self.path.display())));
        }
        self.frames_left -= 1;
        self.bytes_left -= bytes;
        let Err(error) = writer.write_tags(tags) else {
            return self.sessions.as_mut().and_then(|sessions| sessions.frame(number));
        };
        self.writer = None;
        Some(failed(&self.path, &error))
    }

    /// Brings what is buffered to the file, and looks whether it is still there.
    pub fn finish(mut self) -> Option<Remark> {
        let sessions = self.sessions.take().and_then(Sessions::finish);
        let Some(writer) = self.writer.take() else { return sessions };
        let kept = writer.finish().and_then(|buffer| still_there(buffer.get_ref(), &self.path));
        kept.err().map(|error| failed(&self.path, &error)).or(sessions)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use module::recording::FAILED;
    use photonics::tag::tag;

    use super::*;

    fn frame(number: u64) -> Vec<u64> {
        (0..10_000).map(|i| tag(number * 5_000_000_000 + i * 1000, 0)).collect()
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.site.a1");
        std::fs::write(&path, b"cannot be had again").unwrap();
        let error = Recorder::create(&path, Format::A1, 10, 1 << 20).err().unwrap();
        assert!(error.to_string().contains("is there already"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"cannot be had again");
        // A file with nothing in it is no loss.
        std::fs::write(&path, b"").unwrap();
        let mut recorder = Recorder::create(&path, Format::A1, 10, 1 << 20).unwrap();
        assert_eq!(recorder.frame(0, &frame(0)), None);
        assert_eq!(recorder.finish(), None);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 80_000);
    }

    #[test]
    fn a_full_disk_ends_a_recording_and_is_said_once() {
        let mut recorder = Recorder {
            writer: TagWriter::new(
                BufWriter::new(OpenOptions::new().write(true).open("/dev/full").unwrap()),
                Format::A1,
            ),
            path: "/dev/full".into(),
            frames_left: 10,
            bytes_left: 1 << 30,
            sessions: None,
        };
        let (name, message) = recorder.frame(0, &frame(0)).unwrap();
        assert!(name == FAILED && message.contains("No space left"), "{name}: {message}");
        assert_eq!(recorder.frame(1, &frame(1)), None);
        assert_eq!(recorder.finish(), None);
    }

    #[test]
    fn a_folder_that_is_gone_is_noticed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tags").join("link.site.a1");
        std::fs::create_dir(folder.path().join("tags")).unwrap();
        let mut recorder = Recorder::create(&path, Format::A1, 10, 1 << 20).unwrap();
        assert_eq!(recorder.frame(0, &frame(0)), None);
        std::fs::remove_dir_all(folder.path().join("tags")).unwrap();
        let (name, message) = recorder.finish().unwrap();
        assert!(name == FAILED && message.contains("gone"), "{name}: {message}");
    }
}
