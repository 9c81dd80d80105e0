//! Raw time tags to a file while a link runs.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use module::Remark;
use photonics::tagfile::{Format, TagWriter};

/// Event of a recording that cannot go on. The link does.
pub const FAILED: &str = "recording-failed";
const LIMIT: &str = "recording-limit";

/// Writes the tags of consecutive frames until a limit of frames or bytes is reached. Only whole frames are
/// written, so that a replay distils what the run did.
pub struct Recorder {
    /// Nothing once the recording has failed.
    writer: Option<TagWriter<BufWriter<File>>>,
    path: PathBuf,
    frames_left: u64,
    bytes_left: u64,
}

impl Recorder {
    /// Begins a file. One that has something in it is never touched.
    pub fn create(path: &Path, format: Format, frames: u64, bytes: u64) -> Result<Self> {
        refuse_to_overwrite(path)?;
        let mut options = OpenOptions::new();
        let file =
            options.append(true).create(true).open(path).with_context(|| format!("create {}", path.display()))?;
        let writer = TagWriter::new(BufWriter::new(file), format);
        let writer = writer.with_context(|| format!("recordings are not written as {format}"))?;
        Ok(Self { writer: Some(writer), path: path.to_owned(), frames_left: frames, bytes_left: bytes })
    }

    /// Appends the tags of a whole frame, or nothing where they would pass a limit. Gives what there is to say, once.
    pub fn frame(&mut self, tags: &[u64]) -> Option<Remark> {
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
        let error = writer.write_tags(tags).err()?;
        self.writer = None;
        Some(self.failed(&error))
    }

    /// Brings what is buffered to the file, and looks whether it is still there.
    pub fn finish(mut self) -> Option<Remark> {
        let writer = self.writer.take()?;
        writer.finish().and_then(|buffer| self.keeps(buffer.get_ref())).err().map(|error| self.failed(&error))
    }

    fn keeps(&self, file: &File) -> std::io::Result<()> {
        let (written, there) = (file.metadata()?, std::fs::metadata(&self.path));
        match there {
            Ok(there) if (there.dev(), there.ino()) == (written.dev(), written.ino()) => Ok(()),
            Ok(_) => Err(std::io::Error::other("another file has taken its place")),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(std::io::Error::other("the file is gone")),
            Err(error) => Err(error),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Remark {
        (FAILED, format!("{} is not complete: {error}", self.path.display()))
    }
}

/// An error where there is something that a recording would destroy.
pub fn refuse_to_overwrite(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.len() > 0 || !found.is_file() => bail!("{} is there already", path.display()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
        assert_eq!(recorder.frame(&frame(0)), None);
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
        };
        let (name, message) = recorder.frame(&frame(0)).unwrap();
        assert!(name == FAILED && message.contains("No space left"), "{name}: {message}");
        assert_eq!(recorder.frame(&frame(1)), None);
        assert_eq!(recorder.finish(), None);
    }

    #[test]
    fn a_folder_that_is_gone_is_noticed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tags").join("link.site.a1");
        std::fs::create_dir(folder.path().join("tags")).unwrap();
        let mut recorder = Recorder::create(&path, Format::A1, 10, 1 << 20).unwrap();
        assert_eq!(recorder.frame(&frame(0)), None);
        std::fs::remove_dir_all(folder.path().join("tags")).unwrap();
        let (name, message) = recorder.finish().unwrap();
        assert!(name == FAILED && message.contains("gone"), "{name}: {message}");
    }
}
