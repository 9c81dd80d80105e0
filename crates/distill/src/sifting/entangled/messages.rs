//! What the two halves say to each other in one step.

use prost::Message;

use super::FRAMES_WAITING_MAX;
use super::announce::Announcement;
use super::reply::{SiftReply, XReply};
use crate::parts;
use crate::sifting::SiftingError;

#[derive(Clone, PartialEq, Message)]
pub struct Said {
    /// Announcer.
    #[prost(message, optional, tag = "1")]
    pub announcement: Option<Announcement>,
    /// Matcher.
    #[prost(message, repeated, tag = "2")]
    pub replies: Vec<SiftReply>,
    /// Announcer.
    #[prost(message, repeated, tag = "3")]
    pub x_replies: Vec<XReply>,
    /// Matcher: the round ends here although it is not full, because the light is over; frames that belong to it.
    #[prost(uint64, optional, tag = "4")]
    pub end_round: Option<u64>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_millions_of_empty_parts_is_refused_before_it_is_read() {
        for part in [[0x12, 0], [0x1a, 0]] {
            let message = part.repeat(1 << 20);
            assert!(matches!(Said::read(&message), Err(SiftingError::Protocol(_))));
        }
    }
}
