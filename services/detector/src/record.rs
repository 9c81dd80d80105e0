//! Raw time tags to a file while a link runs, and back: a recording stands in for light and instrument.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use photonics::instrument::Frame;
use photonics::tagfile::{FrameReader, HalfOrder, Limits, TagReader, TagWriter};
use tokio::sync::mpsc;

use crate::instrument::EpochClicks;

/// Writes the tags of consecutive frames until a limit of frames or bytes is reached. Only whole frames are
/// written, so that a replay distils what the run did.
pub struct Recorder {
    writer: TagWriter<BufWriter<File>>,
    path: PathBuf,
    frames_left: u64,
    bytes_left: u64,
}

impl Recorder {
    pub fn create(path: &Path, frames: u64, bytes: u64) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let writer = TagWriter::new(BufWriter::new(file), Limits::NONE);
        Ok(Self { writer, path: path.to_owned(), frames_left: frames, bytes_left: bytes })
    }

    /// Appends a whole frame, or nothing where it would pass a limit.
    pub fn frame(&mut self, frame: &Frame) -> Result<()> {
        let bytes = frame.tags.len() as u64 * 8;
        if self.frames_left == 0 {
            return Ok(());
        }
        if bytes > self.bytes_left {
            self.frames_left = 0;
            tracing::warn!(path = %self.path.display(), "the recording has reached its size limit");
            return Ok(());
        }
        self.frames_left -= 1;
        self.bytes_left -= bytes;
        self.writer.write(frame).with_context(|| format!("write {}", self.path.display()))?;
        Ok(())
    }

    /// Brings what is buffered to the file.
    pub fn finish(self) -> Result<()> {
        self.writer.finish().with_context(|| format!("write {}", self.path.display()))?;
        Ok(())
    }
}

/// Reads a recording frame by frame, as an instrument would have cut it, and hands the frames to the module.
pub async fn replay(path: PathBuf, frame_ps: u64, clicks: mpsc::Sender<Result<EpochClicks>>) -> Result<()> {
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let reader = TagReader::new(BufReader::new(file), Limits::NONE, HalfOrder::default());
    let mut frames = FrameReader::new(reader, frame_ps);
    for epoch in 0.. {
        let frame = match frames.next_frame() {
            Ok(frame) => frame,
            Err(error) => {
                // What was read before the fault is good and has gone on already.
                tracing::warn!(path = %path.display(), "the recording ends early: {error}");
                None
            }
        };
        let end = frame.is_none();
        let done = EpochClicks { epoch, frames: frame.into_iter().collect(), traceparent: String::new(), end };
        clicks.send(Ok(done)).await.ok().context("hand over clicks: the module has gone")?;
        if end {
            break;
        }
    }
    Ok(())
}
