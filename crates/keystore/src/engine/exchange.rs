//! Redeeming a range and keeping what is made of it, in one commit.

use super::Engine;
use crate::ahead::Pieces;
use crate::types::{BlockStatus, Made};
use crate::{Secret, StoreError, Use};

impl Engine {
    /// As [`Engine::redeem`], then as [`Engine::offer`] for all that `make` makes of the bytes. Whatever becomes of the
    /// offers, the range is taken.
    pub fn redeem_into<T>(
        &mut self,
        (peer, use_, generation): (&str, Use, u32),
        range: (u64, u64),
        (vault, id): (&str, &[u8; 16]),
        make: impl FnOnce(&Secret) -> Made<T>,
    ) -> Result<(T, Vec<Result<BlockStatus, StoreError>>), StoreError> {
        match self.block_status(vault, id) {
            Err(StoreError::UnknownBlock | StoreError::UnknownPeer { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(StoreError::BlockConflict { was: "offered" }),
        }
        let keys = self.redeem_unclaimed(peer, use_, generation, &[range], Pieces::default())?;
        let taken = keys.into_iter().next().unwrap_or_default();
        let made = make(&taken);
        if !made.offers.is_empty() {
            // What came opened under these bytes: the other site did draw them.
            self.note_claim(peer, use_, range)?;
        }
        let mut offered = Vec::with_capacity(made.offers.len());
        for (peer, offer) in &made.offers {
            match self.offer(peer, offer) {
                Err(error) if error.is_fatal() => return Err(error),
                answer => offered.push(answer),
            }
        }
        // The journal has a commit of its own. What was taken must not come back while what was made of it stays, nor
        // the other way round: so both go into the database.
        self.checkpoint_due |= offered.iter().any(Result::is_ok);
        Ok((made.answer, offered))
    }
}
