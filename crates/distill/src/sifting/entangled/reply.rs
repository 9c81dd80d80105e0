//! Replies to announcements: which events both ends keep, by index alone, and the disclosed check bits.
//!
//! No time and no bit of the key basis is ever written here.

use prost::Message;

use super::announce::{Basis, OwnEvents};
use super::recovery::FrameResult;
use crate::bits::Bits;
use crate::sifting::packed::{self, push_leb128, take_leb128};

/// Why a reply is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("the reply is for frame {found}, expected frame {expected}")]
    Frame { expected: u64, found: u64 },
    #[error("the reply states {stated} of {announced} events")]
    Counts { stated: u64, announced: u64 },
    #[error("the list of kept events is malformed at entry {entry}")]
    Indices { entry: usize },
    #[error("kept event {index} was never announced")]
    UnknownEvent { index: u64 },
    #[error("{found} bytes of check bits for {events} events")]
    CheckBits { found: usize, events: usize },
}

/// The matcher's answer to one announcement.
#[derive(Clone, PartialEq, Message)]
pub struct SiftReply {
    #[prost(uint64, tag = "1")]
    pub frame: u64,
    #[prost(uint32, tag = "2")]
    pub kept: u32,
    /// Indices of kept events, each as the number of events skipped since the one before, in LEB128.
    #[prost(bytes = "vec", tag = "3")]
    pub indices: Vec<u8>,
    /// The matcher's bits of the kept events of basis X, eight per byte, lowest first.
    #[prost(bytes = "vec", tag = "4")]
    pub x_bits: Vec<u8>,
    /// What became of the events that are not kept; what is missing had no partner.
    #[prost(uint32, tag = "5")]
    pub unlocked: u32,
    #[prost(uint32, tag = "6")]
    pub ambiguous: u32,
    #[prost(uint32, tag = "7")]
    pub basis_mismatch: u32,
    #[prost(uint32, tag = "8")]
    pub cross_basis_doubles: u32,
    #[prost(uint32, tag = "9")]
    pub within_dead_time: u32,
}

/// The announcer's bits of the kept events of basis X of one frame.
#[derive(Clone, PartialEq, Message)]
pub struct XReply {
    #[prost(uint64, tag = "1")]
    pub frame: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub x_bits: Vec<u8>,
}

/// What became of the announced events of one frame; every one is in exactly one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiftCounts {
    pub announced: u64,
    pub unlocked: u64,
    pub unmatched: u64,
    pub ambiguous: u64,
    pub basis_mismatch: u64,
    pub cross_basis_doubles: u64,
    pub within_dead_time: u64,
    pub kept_z: u64,
    pub kept_x: u64,
}

/// The matcher's half of a sifted frame.
#[derive(Debug)]
pub struct Sifted {
    pub reply: SiftReply,
    pub own_x: Bits,
}

/// The announcer's half of a sifted frame.
#[derive(Debug)]
pub struct Applied {
    pub own_x: Bits,
    pub peer_x: Bits,
    pub counts: SiftCounts,
}

/// Makes the matcher's reply; its key bits are appended to `z`.
pub fn reply(result: &FrameResult, z: &mut Bits) -> Sifted {
    let mut own_x = Bits::default();
    let mut indices = Vec::with_capacity(2 * result.kept.len());
    let mut next = 0;
    for kept in result.kept.iter() {
        push_leb128(&mut indices, kept.index - next);
        next = kept.index + 1;
        match kept.basis {
            Basis::Z => z.push(kept.bit),
            Basis::X => own_x.push(kept.bit),
        }
    }
    let counts = &result.counts;
    let reply = SiftReply {
        frame: result.frame,
        kept: result.kept.len() as u32,
        indices,
        x_bits: own_x.to_bytes(),
        unlocked: counts.unlocked as u32,
        ambiguous: counts.ambiguous as u32,
        basis_mismatch: counts.basis_mismatch as u32,
        cross_basis_doubles: counts.cross_basis_doubles as u32,
        within_dead_time: counts.within_dead_time as u32,
    };
    Sifted { reply, own_x }
}

/// Applies the matcher's reply to what was announced; key bits are appended to `z`, and only if all is well.
pub fn apply(reply: &SiftReply, own: &OwnEvents, z: &mut Bits) -> Result<Applied, ReplyError> {
    if reply.frame != own.frame() {
        return Err(ReplyError::Frame { expected: own.frame(), found: reply.frame });
    }
    let mut counts = check_counts(reply, own.len() as u64)?;
    let (mut own_x, mut own_z) = (Bits::default(), Bits::default());
    let mut bytes = reply.indices.as_slice();
    let mut next = 0u64;
    for entry in 0..reply.kept as usize {
        let skipped = take_leb128(&mut bytes).ok_or(ReplyError::Indices { entry })?;
        let index = next + u64::from(skipped);
        if index >= own.len() as u64 {
            return Err(ReplyError::UnknownEvent { index });
        }
        next = index + 1;
        let bit = own.bit(index as usize);
        match own.basis(index as usize) {
            Basis::Z => own_z.push(bit),
            Basis::X => own_x.push(bit),
        }
    }
    if !bytes.is_empty() {
        return Err(ReplyError::Indices { entry: reply.kept as usize });
    }
    counts.kept_z = own_z.len() as u64;
    counts.kept_x = own_x.len() as u64;
    let peer_x = unpack_bits(&reply.x_bits, own_x.len())?;
    z.extend(&own_z);
    Ok(Applied { own_x, peer_x, counts })
}

/// The stated numbers cannot exceed what was announced.
fn check_counts(reply: &SiftReply, announced: u64) -> Result<SiftCounts, ReplyError> {
    let counts = SiftCounts {
        announced,
        unlocked: u64::from(reply.unlocked),
        ambiguous: u64::from(reply.ambiguous),
        basis_mismatch: u64::from(reply.basis_mismatch),
        cross_basis_doubles: u64::from(reply.cross_basis_doubles),
        within_dead_time: u64::from(reply.within_dead_time),
        ..SiftCounts::default()
    };
    let stated = u64::from(reply.kept)
        + counts.unlocked
        + counts.ambiguous
        + counts.basis_mismatch
        + counts.cross_basis_doubles
        + counts.within_dead_time;
    let unmatched = announced.checked_sub(stated).ok_or(ReplyError::Counts { stated, announced })?;
    Ok(SiftCounts { unmatched, ..counts })
}

/// The announcer's answer to the check bits of a reply.
pub fn x_reply(frame: u64, own_x: &Bits) -> XReply {
    XReply { frame, x_bits: own_x.to_bytes() }
}

/// The announcer's check bits, of which there must be `len`.
pub fn x_bits(reply: &XReply, len: usize) -> Result<Bits, ReplyError> {
    unpack_bits(&reply.x_bits, len)
}

fn unpack_bits(bytes: &[u8], len: usize) -> Result<Bits, ReplyError> {
    packed::unpack_bits(bytes, len).ok_or(ReplyError::CheckBits { found: bytes.len(), events: len })
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
