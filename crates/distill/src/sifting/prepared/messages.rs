//! What the two halves say to each other in one step.

use prost::Message;

use super::FRAMES_WAITING_MAX;
use super::announce::Announcement;
use super::reply::{Disclosure, Reply, RoundEnd};
use crate::parts;
use crate::sifting::SiftingError;

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("frame {found} came where frame {expected} was due")]
    OutOfOrder { expected: u64, found: u64 },
    #[error("frame {frame} has {events} events, more than may be announced")]
    TooMany { frame: u64, events: u64 },
    #[error("frame {frame} claims {pulses} pulses, more than it has time for")]
    TooLong { frame: u64, pulses: u64 },
    #[error("frame {frame} begins with pulse {found}, before pulse {expected} that is due")]
    Repeated { frame: u64, expected: u64, found: u64 },
    #[error("the events of frame {frame} are truncated, too many, or not written in the shortest way")]
    Events { frame: u64 },
    #[error("an event of frame {frame} lies beyond its pulses")]
    BeyondFrame { frame: u64 },
    #[error("the reply to frame {frame} has not one flag for each of its {events} events")]
    Matches { frame: u64, events: usize },
    #[error("check bits of frame {frame} are not those of its {events} events of the check basis")]
    CheckBits { frame: u64, events: usize },
    #[error("intensities of frame {frame} are not those of its {events} events of the check basis, or do not exist")]
    Intensities { frame: u64, events: usize },
    #[error("a round is said to end with {found} frames and has {frames}")]
    RoundEnd { frames: u64, found: u64 },
    #[error(
        "{found} detections by intensity are claimed for a key of {bits} bits, or an intensity that does not exist"
    )]
    Counts { bits: u64, found: u64 },
    #[error(
        "{found} detections by intensity are claimed for {events} events in another basis than their pulse's, or an \
         intensity that does not exist"
    )]
    Mismatched { events: u64, found: u64 },
}

#[derive(Clone, PartialEq, Message)]
pub struct Said {
    /// Receiver.
    #[prost(message, repeated, tag = "1")]
    pub announcements: Vec<Announcement>,
    /// Transmitter.
    #[prost(message, repeated, tag = "2")]
    pub replies: Vec<Reply>,
    /// Receiver.
    #[prost(message, repeated, tag = "3")]
    pub disclosures: Vec<Disclosure>,
    /// Transmitter: the round ends here although it is not full, because the light is over.
    #[prost(message, optional, tag = "4")]
    pub end_round: Option<RoundEnd>,
    /// Receiver: no announcement follows.
    #[prost(bool, tag = "5")]
    pub last: bool,
}

impl Said {
    pub fn read(bytes: &[u8]) -> Result<Self, SiftingError> {
        let malformed = |_| SiftingError::Malformed("sifting message");
        if !parts::are_at_most(2 * FRAMES_WAITING_MAX, bytes).map_err(malformed)? {
            return Err(SiftingError::Protocol("more frames in one message than may wait"));
        }
        Self::decode(bytes).map_err(malformed)
    }

    /// Takes what is to be said, encoded.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).encode_to_vec()
    }
}
