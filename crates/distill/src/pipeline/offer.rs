//! What greetings name of a block that is kept, and what two of them agree on.

use prost::Message;
use ring::digest::{Context as Sha256, SHA256};

use super::replay::Begun;

const BEGUN_DOMAIN: &[u8] = b"qkdnet block whose reconciliation began, form 1";

/// A stretch as greetings name it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Offer {
    #[prost(uint64, tag = "1")]
    pub rounds: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

impl Offer {
    pub fn new(rounds: u64, digest: &[u8; 32]) -> Self {
        Self { rounds, digest: digest.to_vec() }
    }
}

/// Stretches that a greeting names, the last ones: either end may have one more than the other.
pub const OFFERS: usize = 2;

/// What a greeting names of the stretches that are kept, given by rounds and digest, the last one first.
pub fn offers<'a>(kept: impl Iterator<Item = (u64, &'a [u8; 32])>, begun: Option<&Begun>) -> Vec<Offer> {
    let Some(begun) = begun else {
        return kept.take(OFFERS).map(|(rounds, digest)| Offer::new(rounds, digest)).collect();
    };
    // Before anything was told of the last one the block may do without it, where the other end has not begun.
    let named = if begun.has_heard() { 1 } else { OFFERS };
    let offer = |(place, (rounds, digest)): (usize, (u64, &[u8; 32]))| match place {
        0 => Offer::new(rounds, &begun_digest(digest)),
        _ => Offer::new(rounds, digest),
    };
    kept.take(named).enumerate().map(offer).collect()
}

/// Stands for a last stretch whose block is being reconciled.
pub(super) fn begun_digest(last: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new(&SHA256);
    hash.update(BEGUN_DOMAIN);
    hash.update(last);
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

/// Rounds of the last stretch that both ends name; 0 where there is none.
pub fn agreed(own: &[Offer], peer: &[Offer]) -> u64 {
    own.iter().take(OFFERS).filter(|offer| peer.contains(offer)).map(|offer| offer.rounds).max().unwrap_or(0)
}
