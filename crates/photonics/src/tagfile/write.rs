//! Writing what a detector recorded.

use std::io::{self, Write};

use super::format::Format;
use super::words::{Layout, WORD_BYTES};
use crate::receiver::Frame;
use crate::tag::{PATTERN_MASK, units};

/// Writes tags as words of one of the formats that have them.
pub struct TagWriter<W> {
    file: W,
    layout: Layout,
    text: bool,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<W: Write> TagWriter<W> {
    /// `None` where the format is only read.
    pub fn new(file: W, format: Format) -> Option<Self> {
        let layout = format.layout()?;
        Some(Self { file, layout, text: format == Format::A2, bytes: 0, buffer: Vec::new() })
    }

    /// Bytes that a tag takes.
    pub fn tag_bytes(&self) -> u64 {
        // Of text 16 digits and the end of a line.
        if self.text { 17 } else { WORD_BYTES as u64 }
    }

    /// Writes a frame's tags.
    ///
    /// # Errors
    /// If the file does not take them.
    pub fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.write_tags(&frame.tags)
    }

    /// Writes some tags.
    ///
    /// # Errors
    /// If the file does not take them.
    pub fn write_tags(&mut self, tags: &[u64]) -> io::Result<()> {
        self.buffer.clear();
        for &tag in tags {
            let count = self.layout.unit.of_ticks(u128::from(units(tag)));
            let word = self.layout.compose(count, tag & PATTERN_MASK);
            if self.text {
                writeln!(self.buffer, "{word:016x}")?;
            } else {
                self.buffer.extend(self.layout.bytes(word));
            }
        }
        self.file.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes and gives the file back.
    ///
    /// # Errors
    /// If the last bytes cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.file.flush()?;
        Ok(self.file)
    }
}
