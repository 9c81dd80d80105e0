//! BBM92 with energy-time entangled pairs: both ends click, and no true time is known to either.
//!
//! The *announcer* publishes time and basis of its clicks (`announce`). The *matcher* finds the announcer's clock from
//! the photons alone, finds coincidences (`recovery`), and answers with indices only (`reply`), so that no time
//! difference becomes public. Bits of the X basis are compared in public and are the evidence; bits of the Z basis are
//! the key. The matcher's string is the one that is corrected.

pub mod announce;
mod announcer;
mod matcher;
mod messages;
pub mod recovery;
pub mod reply;
mod round;

pub use announcer::Announcer;
pub use matcher::Matcher;

use super::Tag;

/// Of every message of this protocol.
pub const TAG: Tag = Tag(1);

/// Announced frames that may wait for the matcher's reply: well above lag, acquisition and clock offsets.
const FRAMES_WAITING_MAX: usize = 4096;
