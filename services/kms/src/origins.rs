//! Where the bytes of a pool are from, remembered for a while: keys come one after the other out of the same blocks, and
//! the store should not be asked for every one of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use keystore::OriginPiece;

use crate::pair::Pool;

/// What is asked for at once, so that the keys to come find it here.
const AHEAD_BYTES: u64 = 64 << 10;
/// Pieces that are remembered.
const PIECES_MAX: usize = 256;

#[derive(Default)]
pub struct Origins(Mutex<Known>);

#[derive(Default)]
struct Known {
    generation: u32,
    pieces: BTreeMap<u64, OriginPiece>,
}

impl Pool {
    /// The blocks that a part of the stream came from; nothing where that is not known any more.
    pub async fn origins(&self, generation: u32, start: u64, bytes: u64) -> Vec<OriginPiece> {
        if let Some(pieces) = self.known_origins.find(generation, start, bytes) {
            return pieces;
        }
        let asked = self.store.origins(&self.peer, generation, start, bytes.max(AHEAD_BYTES)).await;
        self.known_origins.keep(generation, asked.unwrap_or_default());
        self.known_origins.find(generation, start, bytes).unwrap_or_default()
    }
}

impl Origins {
    fn keep(&self, generation: u32, pieces: Vec<OriginPiece>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation || known.pieces.len() + pieces.len() > PIECES_MAX {
            *known = Known { generation, pieces: BTreeMap::new() };
        }
        known.pieces.extend(pieces.into_iter().take(PIECES_MAX).map(|piece| (piece.start, piece)));
    }

    /// The pieces of a range, if all of it is known.
    fn find(&self, generation: u32, start: u64, bytes: u64) -> Option<Vec<OriginPiece>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut position, end) = (Vec::with_capacity(1), start, start.checked_add(bytes)?);
        while position < end && known.generation == generation {
            let (_, piece) = known.pieces.range(..=position).next_back()?;
            let to = (piece.start + piece.bytes).min(end);
            if to <= position {
                return None;
            }
            found.push(OriginPiece { start: position, bytes: to - position, ..piece.clone() });
            position = to;
        }
        (position >= end).then_some(found)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn piece(start: u64, bytes: u64, block: u8) -> OriginPiece {
        OriginPiece { start, bytes, block_id: [block; 16], origin: block.to_string(), span: [block; 25] }
    }

    #[test]
    fn a_range_is_told_piece_by_piece_or_not_at_all() {
        let origins = Origins::default();
        assert_eq!(origins.find(0, 10, 5), None);
        origins.keep(0, vec![piece(10, 20, 1), piece(30, 20, 2)]);
        assert_eq!(origins.find(0, 12, 8).unwrap(), [piece(12, 8, 1)]);
        assert_eq!(origins.find(0, 25, 10).unwrap(), [piece(25, 5, 1), piece(30, 5, 2)]);
        assert_eq!(origins.find(0, 45, 10), None, "what lies behind is not known");
        assert_eq!(origins.find(0, 5, 10), None);
        assert_eq!(origins.find(1, 12, 8), None, "another generation is another stream");
        origins.keep(1, vec![piece(0, 5, 3)]);
        assert_eq!(origins.find(0, 12, 8), None);
        assert_eq!(origins.find(1, 1, 2).unwrap(), [piece(1, 2, 3)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let origins = Origins::default();
        for block in 0..10 * PIECES_MAX as u64 {
            origins.keep(0, vec![piece(block * 10, 10, 1)]);
            assert!(origins.find(0, block * 10, 10).is_some());
        }
        assert!(origins.0.lock().unwrap().pieces.len() <= PIECES_MAX);
    }
}
