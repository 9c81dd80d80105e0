//! Reading ahead: whoever redeems reads and decrypts on the own thread, while the writer waits for the disk.
//!
//! What was read ahead says nothing about whether it may be handed out: that the writer decides. It uses such bytes
//! only if nothing was committed to the database since they were read, so that no record was erased in between.

use std::sync::{Arc, RwLock};

use redb::{ReadOnlyTable, ReadableTable};

use crate::crypt::{SEAL_BYTES, Sealer, stream_aad};
use crate::tables::Place;
use crate::{Secret, StoreError};

/// The stream as of one commit.
pub(crate) struct Committed {
    pub stream: ReadOnlyTable<Place, &'static [u8]>,
    pub sealer: Arc<Sealer>,
    /// Number of that commit.
    pub commits: u64,
}

/// The bytes of a range that lie in one chunk.
pub(crate) struct Piece {
    pub position: u64,
    pub chunk_start: u64,
    pub chunk_bytes: usize,
    pub key: Secret,
}

/// Pieces of a request, in its order.
#[derive(Default)]
pub(crate) struct Pieces {
    pub commits: u64,
    pub pieces: Vec<Piece>,
}

/// The newest commit, where there is one to read from.
#[derive(Default)]
pub(crate) struct ReadAhead(RwLock<Option<Arc<Committed>>>);

impl ReadAhead {
    pub fn set(&self, committed: Option<Arc<Committed>>) {
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = committed;
    }

    fn get(&self) -> Option<Arc<Committed>> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Reads what it can of `ranges`. Nothing is wrong if that is nothing: the writer reads the rest, and reports.
    pub fn read(&self, peer: &str, id: u32, generation: u32, ranges: &[(u64, u64)]) -> Pieces {
        let Some(committed) = self.get() else { return Pieces::default() };
        let mut pieces = Pieces { commits: committed.commits, pieces: Vec::with_capacity(ranges.len()) };
        for (start, bytes) in ranges {
            let Some(end) = start.checked_add(*bytes) else { return pieces };
            let mut position = *start;
            while position < end {
                let piece = committed.piece(peer, (id, generation, position), end);
                let Ok(Some(piece)) = piece else { return pieces };
                position += piece.key.len() as u64;
                pieces.pieces.push(piece);
            }
        }
        pieces
    }
}

impl Committed {
    /// The bytes from a place on, as far as its chunk and `end` reach.
    pub fn piece(&self, peer: &str, place: Place, end: u64) -> Result<Option<Piece>, StoreError> {
        piece_at(&self.stream, &self.sealer, peer, place, end)
    }
}

pub(crate) fn piece_at(
    table: &impl ReadableTable<Place, &'static [u8]>,
    sealer: &Sealer,
    peer: &str,
    place: Place,
    end: u64,
) -> Result<Option<Piece>, StoreError> {
    let Some(chunk) = chunk_at(table, place)? else { return Ok(None) };
    let (chunk_start, position) = (chunk.0, place.2);
    let plain = open_chunk(sealer, peer, place.1, chunk)?;
    let to = ((end - chunk_start) as usize).min(plain.len());
    let key = Secret::copy_of(&plain.expose()[(position - chunk_start) as usize..to]);
    Ok(Some(Piece { position, chunk_start, chunk_bytes: plain.len(), key }))
}

/// A chunk's start and its sealed bytes, if one covers `position`.
pub(crate) fn chunk_at(
    table: &impl ReadableTable<Place, &'static [u8]>,
    (id, generation, position): Place,
) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
    let Some(found) = table.range((id, generation, 0)..=(id, generation, position))?.next_back() else {
        return Ok(None);
    };
    let (key, sealed) = found?;
    let (start, sealed) = (key.value().2, sealed.value());
    let covered = start + sealed.len().saturating_sub(SEAL_BYTES) as u64;
    Ok((position < covered).then(|| (start, sealed.to_vec())))
}

/// Opens a chunk. One that does not open is damage: the store stops.
pub(crate) fn open_chunk(
    sealer: &Sealer,
    peer: &str,
    generation: u32,
    (start, sealed): (u64, Vec<u8>),
) -> Result<Secret, StoreError> {
    let bytes = sealed.len().saturating_sub(SEAL_BYTES);
    let aad = stream_aad(peer, generation, start, bytes);
    sealer.open(&aad, sealed).ok_or_else(|| StoreError::corrupt("key bytes do not decrypt"))
}
