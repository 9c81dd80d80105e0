//! BB84 with pulses that a transmitter prepares: weak laser pulses with decoys, or single photons.
//!
//! The *receiver* finds the numbers of the pulses that it detects (`recovery`) and publishes them with the bases that
//! it measured, never what it saw (`announce`). The *transmitter*, who alone knows what it sent, answers which of them
//! it prepared in the same basis, and discloses state and intensity of those of the check basis (`reply`). The receiver
//! discloses what it saw of these. Of the key, no intensity is announced: when a round ends, the transmitter says how
//! many of its bits each intensity gave.
//!
//! The transmitter's string is the reference: that what comes of empty pulses is secret holds for what the transmitter
//! chose, and not for what a detector made of it.

pub mod announce;
pub mod config;
mod detections;
mod messages;
mod receiver;
pub mod recovery;
pub mod reply;
mod round;
mod steering;
mod transmitter;

pub use messages::{MessageError, Said};
pub use receiver::Receiver;
pub use transmitter::Transmitter;

use self::config::{Part, Prepared};
use super::{Sifting, SiftingStart, Tag};
use crate::config::{Emission, Framing};

/// Of every message of this protocol.
pub const TAG: Tag = Tag(2);

/// Frames that may wait for the other end at most: well above lag, acquisition and clock offsets.
const FRAMES_WAITING_MAX: usize = 4096;

/// The half of an end, by its part. `emission` says of which intensities the pulses are.
pub fn half(framing: Framing, config: &Prepared, emission: &Emission, start: &SiftingStart) -> Box<dyn Sifting> {
    match config.part {
        Part::Transmitter => Box::new(Transmitter::new(framing, config, emission, start)),
        Part::Receiver => Box::new(Receiver::new(framing, config, emission, start)),
    }
}
