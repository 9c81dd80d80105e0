//! The running hash of what both sides said, in the one order both ends can agree on.

use std::collections::VecDeque;

use bytes::Bytes;

use super::reserve::Cell;
use super::{Direction, Side};
use crate::hash::PolyHash;

const ZEROS: [u8; 16] = [0; 16];
/// What an item is, in bits 16 and up of its first word; a bundle has 0 there.
const HELLO: u64 = 1 << 16;
const START: u64 = 2 << 16;
const PROOF: u64 = 3 << 16;

/// What a tag of one direction covers: from that direction's last tag on, or from the start of the session.
///
/// The order is owner's bundle 0, other's bundle 0, owner's 1, other's 1 and so on. In lockstep the owner sends its
/// bundle `c` after it has the other's `c - 1`, so a tag on the owner's bundle `c` covers exactly what both ends know.
pub struct Transcript {
    owner: Side,
    /// None where the reserve held no key for another tag: then no tag can be made or verified.
    hash: Option<PolyHash>,
    /// Next step of the owner and of the other side that is hashed.
    next: [u64; 2],
    /// What was said but is not its turn yet, by owner and other: a frame or two.
    waiting: [VecDeque<Item>; 2],
    /// The owner's closing bundle is hashed; nothing more is until its tag has been made.
    closing: bool,
}

struct Item {
    step: u64,
    closes: bool,
    payload: Bytes,
}

/// What both ends know when a session opens, and what its first tags and the proofs before it cover.
pub struct Opening<'a> {
    pub session: u64,
    pub nonces: [u64; 2],
    /// Initiator's and responder's, as they travelled.
    pub hellos: [&'a [u8]; 2],
}

impl Opening<'_> {
    fn absorb(&self, hash: &mut Option<PolyHash>) {
        for (nonce, hello) in self.nonces.into_iter().zip(self.hellos) {
            absorb(hash, [HELLO, nonce, hello.len() as u64], hello);
        }
    }

    /// The hash that a proof of `owner` with the number `tag` is made from: of both greetings alone.
    pub fn proof(&self, owner: Side, key: &Cell, tag: u64) -> [u8; 16] {
        let mut hash = PolyHash::new(*key.expose());
        hash.update(&head([PROOF | u64::from(owner.direction().code()), self.session, tag]));
        let mut hash = Some(hash);
        self.absorb(&mut hash);
        hash.map_or([0; 16], PolyHash::finish)
    }
}

impl Transcript {
    /// `tag` is the number of the tag that will close the first stretch.
    pub fn new(owner: Side, key: Option<Cell>, tag: u64, opening: &Opening<'_>) -> Self {
        let mut hash = key.map(|key| start(owner.direction(), &key, opening.session, tag));
        opening.absorb(&mut hash);
        Self { owner, hash, next: [0; 2], waiting: Default::default(), closing: false }
    }

    /// Adds what a side said; each side's steps come in order.
    pub fn push(&mut self, side: Side, step: u64, closes: bool, payload: Bytes) {
        self.waiting[usize::from(side != self.owner)].push_back(Item { step, closes, payload });
        self.advance();
    }

    fn advance(&mut self) {
        while !self.closing {
            let turn = usize::from(self.next[0] > self.next[1]);
            let Some(item) = self.waiting[turn].pop_front() else { return };
            debug_assert_eq!(item.step, self.next[turn]);
            self.next[turn] += 1;
            let about = [turn as u64 | u64::from(item.closes) << 8, item.step, item.payload.len() as u64];
            absorb(&mut self.hash, about, &item.payload);
            self.closing = turn == 0 && item.closes;
        }
    }

    /// The hash up to the owner's closing bundle `step`, which must have been the last one pushed for it; the next
    /// stretch starts behind it, under `next_key`.
    pub fn close(&mut self, step: u64, session: u64, next_tag: u64, next_key: Option<Cell>) -> Option<[u8; 16]> {
        if !self.closing || self.next != [step + 1, step] {
            return None;
        }
        let next = next_key.map(|key| start(self.owner.direction(), &key, session, next_tag));
        let hash = std::mem::replace(&mut self.hash, next)?.finish();
        self.closing = false;
        self.advance();
        Some(hash)
    }
}

fn start(direction: Direction, key: &Cell, session: u64, tag: u64) -> PolyHash {
    let mut hash = PolyHash::new(*key.expose());
    hash.update(&head([START | u64::from(direction.code()), session, tag]));
    hash
}

/// Every item starts at a multiple of 16 bytes and says its length: no two transcripts make the same bytes.
fn absorb(hash: &mut Option<PolyHash>, about: [u64; 3], payload: &[u8]) {
    let Some(hash) = hash else { return };
    hash.update(&head(about));
    hash.update(payload);
    hash.update(&ZEROS[..(16 - payload.len() % 16) % 16]);
}

fn head(about: [u64; 3]) -> [u8; 32] {
    let mut head = [0u8; 32];
    for (to, value) in head.chunks_exact_mut(8).zip(about) {
        to.copy_from_slice(&value.to_le_bytes());
    }
    head
}
