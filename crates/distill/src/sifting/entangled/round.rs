//! The round that is being sifted, at either end.

use super::announce::ClickCounts;
use super::recovery::FrameCounts;
use super::reply::SiftCounts;
use crate::bits::Bits;
use crate::bounds::Evidence;
use crate::ledger::{BlockLedger, Clicks};
use crate::sifting::SiftedRound;

#[derive(Default)]
pub struct OpenRound {
    pub number: u64,
    /// Announced frames that have been sifted into it.
    pub frames: u64,
    /// Step in which the light of the first one came, to within one: frames of both ends start together.
    pub first_step: u64,
    pub z: Bits,
    x_total: u64,
    x_errors: u64,
    ledger: BlockLedger,
}

impl OpenRound {
    /// The round after this one; this one is given.
    pub fn next(&mut self) -> Self {
        let next = Self { number: self.number + 1, ..Self::default() };
        std::mem::replace(self, next)
    }

    /// Bits of the check basis that were compared.
    pub fn compare(&mut self, own: &Bits, peer: &Bits) -> (u64, u64) {
        let (total, errors) = (peer.len() as u64, own.distance(peer) as u64);
        self.x_total += total;
        self.x_errors += errors;
        (total, errors)
    }

    /// Books what became of one frame of the announcer's clicks.
    pub fn book_announced(&mut self, own: &ClickCounts, counts: &SiftCounts) {
        self.ledger.announcer.add(&Clicks {
            clicks: own.clicks,
            unmatched: counts.unmatched,
            ambiguous: counts.ambiguous,
            basis_mismatch: counts.basis_mismatch,
            cross_double: own.cross_basis_doubles + counts.cross_basis_doubles,
            dead_time_dropped: counts.within_dead_time,
            unlocked: counts.unlocked,
            merged: own.merged,
            invalid: own.invalid,
            sifted_x: counts.kept_x,
            sifted_z: counts.kept_z,
        });
    }

    /// Books what became of the matcher's clicks in the time of one announced frame.
    pub fn book_matched(&mut self, counts: &FrameCounts) {
        self.ledger.matcher.add(&Clicks {
            clicks: counts.own_clicks,
            unmatched: counts.own_unmatched,
            ambiguous: counts.own_ambiguous,
            basis_mismatch: counts.basis_mismatch,
            cross_double: counts.own_cross_basis_doubles,
            dead_time_dropped: counts.within_dead_time,
            unlocked: counts.own_unlocked,
            merged: counts.own_merged,
            invalid: counts.own_invalid,
            sifted_x: counts.kept_x,
            sifted_z: counts.kept_z,
        });
    }

    /// The account so far, with what sifting gave.
    fn account(&self) -> BlockLedger {
        BlockLedger { sifted_z: self.z.len() as u64, disclosed_x: self.x_total, errors_x: self.x_errors, ..self.ledger }
    }

    /// Everything about it is known.
    pub fn sifted(self) -> SiftedRound {
        SiftedRound {
            number: self.number,
            frames: self.frames,
            first_step: self.first_step,
            evidence: Evidence::CheckBits { bits: self.x_total, errors: self.x_errors },
            account: self.account(),
            key: self.z,
        }
    }

    /// The account of a round that did not end.
    pub fn void(&self) -> (u64, BlockLedger) {
        let mut account = self.account();
        // X bits that were sifted but not compared before the session broke are given up with the rest.
        let sifted_x = account.matcher.sifted_x.max(account.announcer.sifted_x);
        account.voided_x = sifted_x.saturating_sub(account.disclosed_x);
        account.void();
        (self.number, account)
    }
}
