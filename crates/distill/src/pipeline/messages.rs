//! What two modules say to each other: one bundle per step and direction, and a greeting per session.
//!
//! Everything here is public and reaches the peer through an authenticated channel; until the tag over it
//! has verified it is hostile input.

use bytes::Bytes;
use prost::Message;

use super::stretch::{self, Offer};
use super::{DIALOGUE, ModuleError, protocol_fingerprint};
use crate::config::LinkProtocol;
use crate::parts;
use crate::sifting::Tag;

/// Longest encoded bundle that is accepted: a frame of announcements at the highest click rate, with room.
pub const BUNDLE_BYTES_MAX: usize = 48 << 20;
/// Most fields of a bundle: far more than blocks are under way at once.
const BUNDLE_PARTS_MAX: usize = 1 << 16;

/// Greeting of a module that is ready for a session.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// First block number that this end has never used.
    #[prost(uint64, tag = "1")]
    pub next_block: u64,
    /// First epoch that this end has never seen.
    #[prost(uint64, tag = "2")]
    pub next_epoch: u64,
    /// Number of the last committed block plus one; 0 before the first.
    #[prost(uint64, tag = "3")]
    pub committed_end: u64,
    /// A hash of what both ends must agree on before they can talk.
    #[prost(uint64, tag = "4")]
    pub protocol: u64,
    /// Form of what is said from here on; 0 of ends that did not say it yet.
    #[prost(uint32, tag = "5")]
    pub dialogue: u32,
    /// The last stretches of the block that this end has begun, the one behind all first.
    #[prost(message, repeated, tag = "6")]
    pub stretches: Vec<Offer>,
}

/// Why two ends that have greeted each other cannot make key together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the peer is of another version of qkdnet: start both ends of the link with the same one")]
    Version,
    #[error("the peer was started with another protocol configuration")]
    Configuration,
}

impl Hello {
    /// Where an end with this protocol stands.
    pub fn new(protocol: &LinkProtocol, next_block: u64, next_epoch: u64, committed_end: u64) -> Self {
        let protocol = protocol_fingerprint(protocol);
        Self { next_block, next_epoch, committed_end, protocol, dialogue: DIALOGUE, stretches: Vec::new() }
    }

    /// With the last stretches that are kept of the block that this end has begun.
    #[must_use]
    pub fn with_stretches(self, stretches: Vec<Offer>) -> Self {
        Self { stretches, ..self }
    }

    /// With how many rounds of a block that was begun before a session between the two ends starts; nothing where
    /// neither has begun one.
    pub fn carries(&self, peer: &Hello) -> Option<u64> {
        let begun = !self.stretches.is_empty() || !peer.stretches.is_empty();
        begun.then(|| stretch::agreed(&self.stretches, &peer.stretches))
    }

    /// Whether the two ends can make key together.
    pub fn check_peer(&self, peer: &Hello) -> Result<(), Mismatch> {
        if peer.dialogue != self.dialogue {
            return Err(Mismatch::Version);
        }
        if peer.protocol != self.protocol {
            return Err(Mismatch::Configuration);
        }
        Ok(())
    }

    pub fn encode_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    pub fn decode_bytes(bytes: &[u8]) -> Result<Self, ModuleError> {
        if bytes.len() > 1024 {
            return Err(ModuleError::TooLong { bytes: bytes.len() });
        }
        Self::decode(bytes).map_err(|_| ModuleError::Malformed("greeting"))
    }

    /// Where a session between the two ends starts: block and epoch that neither has used.
    pub fn start(&self, peer: &Hello) -> (u64, u64) {
        (self.next_block.max(peer.next_block), self.next_epoch.max(peer.next_epoch))
    }
}

/// One step of one end.
#[derive(Clone, PartialEq, Message)]
pub struct Bundle {
    #[prost(uint64, tag = "1")]
    pub step: u64,
    /// Absent where sifting has nothing to say.
    #[prost(message, optional, tag = "10")]
    pub sifting: Option<SiftingMessage>,
    #[prost(message, repeated, tag = "5")]
    pub blocks: Vec<BlockMessage>,
    /// The sender has no more frames; what follows only finishes what is under way.
    #[prost(bool, tag = "6")]
    pub drained: bool,
    /// Blocks below this number are committed or given up at the sender (the corrector decides).
    #[prost(uint64, tag = "7")]
    pub committed_end: u64,
    /// Nothing is left to do at the sender: the session ends once a tag has covered this.
    #[prost(bool, tag = "8")]
    pub farewell: bool,
    /// Trace context of the block whose first light came to the sender in this step.
    #[prost(string, tag = "9")]
    pub traceparent: String,
    /// Rounds that the sender has in work, where light waits for them.
    #[prost(uint32, tag = "11")]
    pub rounds: u32,
}

/// What one half of the sifting protocol says to the other, which alone understands it.
#[derive(Clone, PartialEq, Message)]
pub struct SiftingMessage {
    /// Of the protocol ([`Tag`]).
    #[prost(uint32, tag = "1")]
    pub tag: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub bytes: Bytes,
}

impl SiftingMessage {
    pub fn new(tag: Tag, bytes: Vec<u8>) -> Self {
        Self { tag: tag.0, bytes: bytes.into() }
    }
}

impl Bundle {
    pub fn decode_bytes(bytes: Bytes) -> Result<Self, ModuleError> {
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(ModuleError::TooLong { bytes: bytes.len() });
        }
        let malformed = |_| ModuleError::Malformed("bundle");
        if !parts::are_at_most(BUNDLE_PARTS_MAX, &bytes).map_err(malformed)? {
            return Err(ModuleError::Protocol("more blocks in one bundle than can be under way"));
        }
        Self::decode(bytes).map_err(malformed)
    }
}

/// What is said about one block after sifting.
#[derive(Clone, PartialEq, Message)]
pub struct BlockMessage {
    #[prost(uint64, tag = "1")]
    pub block: u64,
    #[prost(oneof = "BlockStep", tags = "3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub step: Option<BlockStep>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum BlockStep {
    /// Corrector: reconciliation starts with these public parameters.
    #[prost(message, tag = "3")]
    Begin(Begin),
    #[prost(bytes, tag = "4")]
    Query(Vec<u8>),
    #[prost(bytes, tag = "5")]
    Answer(Vec<u8>),
    /// Corrector: hashes of its corrected frames.
    #[prost(message, tag = "6")]
    Verify(Verify),
    /// Reference: which frames agree, and the seed of amplification.
    #[prost(message, tag = "7")]
    Amplify(Amplify),
    /// Corrector: the block is complete here; the tag with this bundle closes its round.
    #[prost(bool, tag = "8")]
    Close(bool),
    /// Reference: the block is on its disk, ready to be committed.
    #[prost(bool, tag = "9")]
    Prepared(bool),
    /// Corrector: what was sifted is on its disk; the tag with this bundle closes it.
    #[prost(message, tag = "10")]
    Checkpoint(Checkpoint),
    /// Reference: this many rounds of the block are on its disk.
    #[prost(uint64, tag = "11")]
    Kept(u64),
}

#[derive(Clone, PartialEq, Message)]
pub struct Checkpoint {
    /// Rounds of sifting of the block that are closed with it.
    #[prost(uint64, tag = "1")]
    pub rounds: u64,
    /// Of what both ends said of them ([`super::Stretch::digest`]).
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Begin {
    #[prost(uint32, tag = "1")]
    pub qber_ppm: u32,
    #[prost(fixed64, tag = "2")]
    pub seed: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub query: Vec<u8>,
    /// Rounds of sifting that it is made of, where blocks have several.
    #[prost(uint64, tag = "4")]
    pub rounds: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Verify {
    #[prost(fixed64, tag = "1")]
    pub key: u64,
    #[prost(fixed64, repeated, tag = "2")]
    pub tags: Vec<u64>,
    /// Errors corrected in each frame (public: the dialogue showed where they were).
    #[prost(uint32, repeated, tag = "3")]
    pub errors: Vec<u32>,
    /// Where the proof asks which intensity errors are of: right bits before each wrong one since the wrong one before
    /// it, over all frames (public as well). Numbers as protobuf writes them, one after the other: read one by one,
    /// they take no more memory than on the wire.
    #[prost(bytes = "vec", tag = "4")]
    pub right_before: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Amplify {
    /// One flag per Cascade frame: the hashes agree.
    #[prost(bool, repeated, tag = "1")]
    pub good: Vec<bool>,
    #[prost(uint64, tag = "2")]
    pub length: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub seed: Vec<u8>,
    /// Where the proof asks for them.
    #[prost(message, optional, tag = "4")]
    pub key_errors: Option<KeyErrors>,
}

/// Wrong bits of the frames that agree, by the intensity of their pulses.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct KeyErrors {
    #[prost(uint64, tag = "1")]
    pub signal: u64,
    #[prost(uint64, tag = "2")]
    pub decoy: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_of_millions_of_empty_blocks_is_refused_before_it_is_read() {
        let bundle = Bytes::from([0x2a, 0].repeat(1 << 20));
        assert!(matches!(Bundle::decode_bytes(bundle), Err(ModuleError::Protocol(_))));
    }
}
