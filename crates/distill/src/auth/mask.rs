//! 256 bits of a reserve that are kept apart from its cells.
//!
//! A cell is secret by itself, once. If a volume is put back and nothing tells, it is used a second time; therefore
//! each session masks the cells that it uses with a pseudo-random function of this key, of both its nonces and of the
//! cell's place. A cell that is used once hides a tag from any computation; one that is used twice hides it from all
//! who cannot tell HMAC-SHA256 from random. Nonces come from the system, so that no two sessions have the same pair.
//!
//! The same key checks greetings, which costs no cell: a greeting that somebody made up never makes an end spend one.

use ring::hmac;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Direction;
use super::reserve::Cell;

/// What a value is computed for: no two purposes share one.
const MASK: u8 = 1;
const HELLO: u8 = 2;
const PROOF: u8 = 3;
const GENERATION: u8 = 4;
const IDENTITY: u8 = 5;

/// The key of masks and of checks.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MaskKey([u8; Self::BYTES]);

impl MaskKey {
    pub const BYTES: usize = 32;

    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub fn expose(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// A number for the secret that this key came with: the same at both ends, whatever each had before. It tells of
    /// this key alone, of no cell.
    pub fn generation(&self) -> u64 {
        let value = self.value(GENERATION, [0; 4], &[]);
        u128::from_le_bytes(value) as u64 | 1 << 63
    }

    /// Who the end is that sends in a direction and has the secret that this key came with: what is made of a secret
    /// twice is the same both times. It tells of no cell, and the key does not follow from it.
    pub fn identity(&self, direction: Direction) -> [u8; 16] {
        self.value(IDENTITY, [u64::from(direction.code()), 0, 0, 0], &[])
    }

    /// The cell at a place of a direction, as a session with these nonces uses it.
    pub fn masked(&self, cell: &Cell, nonces: [u64; 2], direction: Direction, place: u64) -> Cell {
        let mask = self.value(MASK, [nonces[0], nonces[1], u64::from(direction.code()), place], &[]);
        Cell::new((u128::from_le_bytes(*cell.expose()) ^ u128::from_le_bytes(mask)).to_le_bytes())
    }

    /// What shows that a hello comes from an end with this key. Direction is the sender's: none can be sent back to it.
    pub fn hello(&self, direction: Direction, nonce: u64, echo: u64, payload: &[u8]) -> [u8; 16] {
        self.value(HELLO, [nonce, echo, u64::from(direction.code()), payload.len() as u64], payload)
    }

    /// As [`Self::hello`], for a proof with the number `tag`.
    pub fn proof(&self, direction: Direction, nonces: [u64; 2], tag: u64) -> [u8; 16] {
        self.value(PROOF, [nonces[0], nonces[1], u64::from(direction.code()), tag], &[])
    }

    fn value(&self, purpose: u8, about: [u64; 4], payload: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        context.update(b"qkdnet authentication v1");
        context.update(&[purpose]);
        for number in about {
            context.update(&number.to_le_bytes());
        }
        context.update(payload);
        let mut value = [0; 16];
        value.copy_from_slice(&context.sign().as_ref()[..16]);
        value
    }
}

impl std::fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskKey(256 bits)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_cell_is_masked_otherwise_in_each_session_place_and_direction() {
        let (key, cell) = (MaskKey::new([7; 32]), Cell::new([9; 16]));
        let mut seen = BTreeSet::new();
        for nonces in [[1, 2], [2, 1], [1, 3]] {
            for direction in [Direction::Forward, Direction::Backward] {
                for place in [0, 1, u64::MAX] {
                    let masked = key.masked(&cell, nonces, direction, place);
                    assert!(seen.insert(*masked.expose()));
                    let back = key.masked(&masked, nonces, direction, place);
                    assert_eq!(back.expose(), cell.expose());
                }
            }
        }
        assert!(seen.insert(key.hello(Direction::Forward, 1, 2, &[])));
        assert!(seen.insert(key.proof(Direction::Forward, [1, 2], 0)));
    }
}
