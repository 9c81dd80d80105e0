//! Bytes of a file with their place in it.

use std::io::{self, Read};

use super::TagFileError;

const BUFFER_BYTES: usize = 1 << 16;

/// A window on the bytes of a file.
pub(super) struct Input<R> {
    file: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of the first byte of the window.
    offset: u64,
    ended: bool,
    failure: Option<io::Error>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(file: R) -> Self {
        Self { file, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, offset: 0, ended: false, failure: None }
    }

    /// Fills the window as far as the file goes; false where it is empty, at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read, once everything before that has been consumed.
    pub(super) fn fill(&mut self) -> Result<bool, TagFileError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < self.buffer.len() && !self.ended && self.failure.is_none() {
            match self.file.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failure = Some(error),
            }
        }
        if self.data().is_empty()
            && let Some(source) = self.failure.take()
        {
            self.ended = true;
            return Err(TagFileError::Io { offset: self.offset, source });
        }
        Ok(!self.data().is_empty())
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Place of the first byte of [`Self::data`].
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Nothing comes after what is in the window.
    pub(super) fn is_last(&self) -> bool {
        self.ended || self.failure.is_some()
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Consumes `bytes` bytes, however many; false where the file ends before.
    pub(super) fn skip(&mut self, mut bytes: u64) -> Result<bool, TagFileError> {
        while bytes > 0 {
            if self.data().is_empty() && !self.fill()? {
                return Ok(false);
            }
            let here = bytes.min(self.data().len() as u64);
            self.consume(here as usize);
            bytes -= here;
        }
        Ok(true)
    }
}
