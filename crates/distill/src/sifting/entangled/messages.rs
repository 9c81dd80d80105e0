//! What the two halves say to each other in one step.

use prost::Message;

use super::announce::Announcement;
use super::reply::{SiftReply, XReply};
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
        Self::decode(bytes).map_err(|_| SiftingError::Malformed("sifting message"))
    }

    /// Takes what is to be said, encoded.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).encode_to_vec()
    }
}
