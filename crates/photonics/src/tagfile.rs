//! Files of raw time tags: 64-bit little-endian words as [`crate::tag`] says, the `a1` layout of laboratory
//! tools.
//!
//! What is read may come from a laboratory's own instrument: a word may name several detectors, a word with
//! the rollover flag only says that time has gone on, and the file may end in the middle of a word. What is
//! good before an error is always handed over first.

use crate::instrument::Frame;
use crate::tag::{PATTERN_MASK, ROLLOVER, UNIT_PS, UNITS_MASK, units};
use std::io::{self, Read, Write};

const WORD_BYTES: usize = 8;
const BUFFER_BYTES: usize = 1 << 16;

/// What is wrong with a tag file. Offsets count bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum TagFileError {
    #[error("byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
    #[error("byte {offset}: the file ends {bytes} bytes into a word of 8")]
    CutShort { offset: u64, bytes: usize },
    #[error("byte {offset}: time goes back by {back_ps} ps{}", if *.swapped { "; the halves of the words seem to be swapped" } else { "" })]
    TimeGoesBack { offset: u64, back_ps: u128, swapped: bool },
    #[error("byte {offset}: neither a detector nor the rollover flag is set; is this a file of time tags?")]
    NoDetector { offset: u64 },
}

/// How much of a file is written or read: whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub bytes: u64,
    /// Local time from the first word on.
    pub duration_ps: u128,
}

impl Limits {
    pub const NONE: Self = Self { bytes: u64::MAX, duration_ps: u128::MAX };
}

/// Which half of a word comes first in a file. Some older instruments write the high half first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfOrder {
    #[default]
    LowFirst,
    HighFirst,
}

/// Follows the time of words over the wrap of its 54 bits.
#[derive(Default)]
struct Timeline {
    first: Option<u128>,
    last: u128,
}

impl Timeline {
    /// The time of a word without the wrap; `Err` says how far back it lies before the last one.
    fn follow(&mut self, word: u64) -> Result<u128, u128> {
        let Some(_) = self.first else {
            self.last = u128::from(units(word));
            self.first = Some(self.last);
            return Ok(self.last);
        };
        let wrap = u128::from(UNITS_MASK) + 1;
        let ahead = u128::from(units(word).wrapping_sub(self.last as u64) & UNITS_MASK);
        if ahead > wrap / 2 {
            return Err(wrap - ahead);
        }
        self.last += ahead;
        Ok(self.last)
    }

    fn elapsed_ps(&self) -> u128 {
        (self.last - self.first.unwrap_or(self.last)) * u128::from(UNIT_PS)
    }
}

/// Writes the tags of a detector.
pub struct TagWriter<W> {
    file: W,
    limits: Limits,
    timeline: Timeline,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<W: Write> TagWriter<W> {
    pub fn new(file: W, limits: Limits) -> Self {
        Self { file, limits, timeline: Timeline::default(), bytes: 0, buffer: Vec::new() }
    }

    /// Writes a frame's tags; false where a limit was reached, and nothing after it is written.
    ///
    /// # Errors
    /// If the file does not take the words, or the frame is not later than what is written.
    pub fn write(&mut self, frame: &Frame) -> Result<bool, TagFileError> {
        self.buffer.clear();
        let mut going = true;
        for &word in &frame.tags {
            let offset = self.bytes + self.buffer.len() as u64;
            self.timeline.follow(word).map_err(|back| back_error(offset, back, false))?;
            going =
                offset + WORD_BYTES as u64 <= self.limits.bytes && self.timeline.elapsed_ps() < self.limits.duration_ps;
            if !going {
                self.limits.bytes = 0;
                break;
            }
            self.buffer.extend(word.to_le_bytes());
        }
        self.file.write_all(&self.buffer).map_err(|source| TagFileError::Io { offset: self.bytes, source })?;
        self.bytes += self.buffer.len() as u64;
        Ok(going && self.limits.bytes > 0)
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes and gives the file back.
    ///
    /// # Errors
    /// If the last bytes cannot be written.
    pub fn finish(mut self) -> Result<W, TagFileError> {
        self.file.flush().map_err(|source| TagFileError::Io { offset: self.bytes, source })?;
        Ok(self.file)
    }
}

fn back_error(offset: u64, back_units: u128, swapped: bool) -> TagFileError {
    TagFileError::TimeGoesBack { offset, back_ps: back_units * u128::from(UNIT_PS), swapped }
}

/// Reads tags, each of exactly one detector and in order of time.
pub struct TagReader<R> {
    file: R,
    limits: Limits,
    order: HalfOrder,
    timeline: Timeline,
    offset: u64,
    buffer: Vec<u8>,
    state: State,
}

enum State {
    Reading,
    /// An error that is told once what came before it has been handed over.
    Failed(TagFileError),
    Ended,
}

impl<R: Read> TagReader<R> {
    pub fn new(file: R, limits: Limits, order: HalfOrder) -> Self {
        Self {
            file,
            limits,
            order,
            timeline: Timeline::default(),
            offset: 0,
            buffer: vec![0; BUFFER_BYTES],
            state: State::Reading,
        }
    }

    /// Appends the next stretch of tags to `tags`; 0 at the end of the file or at a limit.
    ///
    /// The second part of a pair is the time without the wrap, in units of 4 ps.
    ///
    /// # Errors
    /// If something is wrong with the file, after all the tags before it have been handed over. A reader that
    /// has failed is at its end.
    pub fn read(&mut self, tags: &mut Vec<(u64, u128)>) -> Result<usize, TagFileError> {
        let before = tags.len();
        while tags.len() == before {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Reading => self.state = self.stretch(tags).unwrap_or_else(State::Failed),
                State::Failed(error) => return Err(error),
                State::Ended => return Ok(0),
            }
        }
        Ok(tags.len() - before)
    }

    fn stretch(&mut self, tags: &mut Vec<(u64, u128)>) -> Result<State, TagFileError> {
        let (len, failure) = self.fill();
        let allowed = self.limits.bytes.saturating_sub(self.offset);
        let (words, rest) = self.buffer[..len].as_chunks::<WORD_BYTES>();
        let mut offset = self.offset;
        for (i, &bytes) in words.iter().enumerate() {
            if (i as u64 + 1) * WORD_BYTES as u64 > allowed {
                return Ok(State::Ended);
            }
            let word = self.order.word(bytes);
            if word & (PATTERN_MASK | ROLLOVER) == 0 {
                return Err(TagFileError::NoDetector { offset });
            }
            let time = self.timeline.follow(word).map_err(|back| {
                let swapped = offset < BUFFER_BYTES as u64 && self.order.seems_wrong(words);
                back_error(offset, back, swapped)
            })?;
            if self.timeline.elapsed_ps() >= self.limits.duration_ps {
                return Ok(State::Ended);
            }
            if word & ROLLOVER == 0 {
                let without = word & !(PATTERN_MASK | 0x3E0);
                let detectors = (0..4).map(|port| word & 1 << port).filter(|&pattern| pattern != 0);
                tags.extend(detectors.map(|pattern| (without | pattern, time)));
            }
            offset += WORD_BYTES as u64;
        }
        self.offset = offset;
        if let Some(source) = failure {
            return Err(TagFileError::Io { offset, source });
        }
        if !rest.is_empty() {
            return Err(TagFileError::CutShort { offset, bytes: rest.len() });
        }
        Ok(if len == self.buffer.len() { State::Reading } else { State::Ended })
    }

    /// Fills the buffer as far as the file goes.
    fn fill(&mut self) -> (usize, Option<io::Error>) {
        let mut len = 0;
        while len < self.buffer.len() {
            match self.file.read(&mut self.buffer[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (len, Some(error)),
            }
        }
        (len, None)
    }
}

impl HalfOrder {
    fn word(self, bytes: [u8; WORD_BYTES]) -> u64 {
        let word = u64::from_le_bytes(bytes);
        match self {
            Self::LowFirst => word,
            Self::HighFirst => word.rotate_left(32),
        }
    }

    /// Whether the words would be in order of time if their halves were the other way round.
    fn seems_wrong(self, words: &[[u8; WORD_BYTES]]) -> bool {
        let other = if self == Self::LowFirst { Self::HighFirst } else { Self::LowFirst };
        words.is_sorted_by_key(|&bytes| units(other.word(bytes)))
    }
}

/// Reads a file frame by frame, as an instrument would have cut it.
pub struct FrameReader<R> {
    reader: TagReader<R>,
    frame_units: u128,
    number: Option<u64>,
    tags: Vec<(u64, u128)>,
    next: usize,
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    pub fn new(reader: TagReader<R>, frame_ps: u64) -> Self {
        let frame_units = u128::from((frame_ps / UNIT_PS).max(1));
        Self { reader, frame_units, number: None, tags: Vec::new(), next: 0, ended: false }
    }

    /// The next frame, also where it is empty; `None` at the end. The first and the last frame hold what the
    /// file has of them.
    ///
    /// # Errors
    /// As [`TagReader::read`]. What came before the error has been handed over as a frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TagFileError> {
        let mut frame = Vec::new();
        loop {
            if self.next == self.tags.len() {
                self.tags.clear();
                self.next = 0;
                let got = if self.ended { Ok(0) } else { self.reader.read(&mut self.tags) };
                match got {
                    Ok(0) => {
                        self.ended = true;
                        return Ok(self.emit(frame));
                    }
                    Ok(_) => {}
                    Err(error) if frame.is_empty() => return Err(error),
                    Err(error) => {
                        self.reader.state = State::Failed(error);
                        return Ok(self.emit(frame));
                    }
                }
            }
            let first = self.tags[self.next].1;
            let number = *self.number.get_or_insert((first / self.frame_units) as u64);
            let end = (u128::from(number) + 1) * self.frame_units;
            let rest = &self.tags[self.next..];
            let here = rest.partition_point(|&(_, time)| time < end);
            frame.extend(rest[..here].iter().map(|&(tag, _)| tag));
            self.next += here;
            if here < rest.len() {
                self.number = Some(number + 1);
                return Ok(Some(Frame { number, tags: frame }));
            }
        }
    }

    fn emit(&mut self, tags: Vec<u64>) -> Option<Frame> {
        if tags.is_empty() {
            return None;
        }
        let number = self.number?;
        self.number = Some(number + 1);
        Some(Frame { number, tags })
    }
}

#[cfg(test)]
#[path = "tagfile_tests.rs"]
mod tests;
