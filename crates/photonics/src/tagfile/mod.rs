//! Files of raw time tags: recordings of this program and of a laboratory's own instruments.
//!
//! This folder alone knows the units of files. What leaves it are ticks of 4 ps, as [`crate::tag`] has them; a file counts
//! in a [`Unit`] of its own, mostly 1/256 ns. Counters of files wrap and are followed over the wrap before anything is
//! converted.
//!
//! Recordings come damaged: a word with a flipped bit, words that are missing or out of order, an end in the middle of a
//! word. A [`TagReader`] skips and counts small damage, and ends with a [`TagFileError`] where what follows cannot be
//! trusted. What is good before an error is always handed over first.

mod csv;
mod format;
mod frames;
mod input;
mod mend;
mod prints;
mod ptu;
mod read;
pub mod sessions;
mod survey;
mod text;
mod units;
mod words;
mod write;

pub use format::{Format, TimeUnit, recognise};
pub use frames::FrameReader;
pub use mend::{Damage, JUMP_MAX_PS};
pub use prints::{Prints, SHARED_MIN};
pub use read::{Click, TagReader};
pub use survey::{Survey, survey};
pub use units::Unit;
pub use write::TagWriter;

use std::fmt;
use std::io;

/// What is wrong with a tag file. Offsets count bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum TagFileError {
    #[error("byte {offset}: {source}")]
    Io { offset: u64, source: io::Error },
    #[error("the file is empty")]
    Empty,
    #[error("byte {offset}: the file ends {bytes} bytes into a word of {word}")]
    CutShort { offset: u64, bytes: usize, word: usize },
    #[error("byte {offset}: the file ends after {found} records, its header states {stated}")]
    RecordsMissing { offset: u64, found: u64, stated: u64 },
    #[error("byte {offset}: time goes back by {}", Seconds(*.back_ps))]
    TimeGoesBack { offset: u64, back_ps: u128 },
    #[error("byte {offset}: time jumps ahead by {}", Seconds(*.ahead_ps))]
    TimeJumps { offset: u64, ahead_ps: u128 },
    #[error("byte {offset}: {skipped} of the first {entries} entries are not in order of time or name no detector")]
    Disorder { offset: u64, skipped: u64, entries: u64 },
    #[error("byte {offset}: this is not a file of time tags: {why}")]
    NotTags { offset: u64, why: String },
    #[error("byte {offset}: {what} is not read")]
    NotRead { offset: u64, what: String, instead: &'static str },
    #[error("byte {offset}: {what}")]
    Header { offset: u64, what: String },
    #[error("byte {offset}: clicks of more than {limit} channels")]
    TooManyChannels { offset: u64, limit: usize },
}

impl TagFileError {
    /// Of a file whose name alone says that it is one of Swabian's.
    pub fn swabian() -> Self {
        let what = "Swabian's binary format (.ttbin)".to_owned();
        Self::NotRead { offset: 0, what, instead: format::SWABIAN }
    }

    /// What a person can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check the disk and the permissions of the file",
            Self::Empty => "record again; nothing was written",
            Self::CutShort { .. } | Self::RecordsMissing { .. } => {
                "the part before it is used; copy the file again if the original is longer"
            }
            Self::TimeGoesBack { .. } => {
                "the part before it is used; where recordings were joined, or the counter was reset, split the file there"
            }
            Self::TimeJumps { .. } => {
                "the part before it is used; where recordings were joined, or the counter was reset, split the file there"
            }
            Self::Disorder { .. } | Self::NotTags { .. } => "say with `--format` what the file is, or sort it by time",
            Self::NotRead { instead, .. } => instead,
            Self::Header { .. } => "write the file again with the vendor's software",
            Self::TooManyChannels { .. } => "say with `--format` what the file is",
        }
    }
}

/// A time for people.
pub struct Seconds(pub u128);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ps @ 0..1_000 => write!(f, "{ps} ps"),
            ps @ 1_000..1_000_000 => write!(f, "{:.3} ns", ps as f64 * 1e-3),
            ps @ 1_000_000..1_000_000_000 => write!(f, "{:.3} us", ps as f64 * 1e-6),
            ps @ 1_000_000_000..1_000_000_000_000 => write!(f, "{:.3} ms", ps as f64 * 1e-9),
            ps => write!(f, "{:.3} s", ps as f64 * 1e-12),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
