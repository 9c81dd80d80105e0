//! The round that is being sifted, at either end.

use super::announce::ClickCounts;
use super::recovery::FrameCounts;
use super::reply::SiftCounts;
use crate::bits::Bits;
use crate::bounds::Evidence;
use crate::ledger::{BlockLedger, Book, Item, Line};
use crate::sifting::{Detected, SiftedRound};

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
    account: BlockLedger,
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
        self.book(
            Book::Announcer,
            [
                (Item::Clicks, own.clicks),
                (Item::Unmatched, counts.unmatched),
                (Item::Ambiguous, counts.ambiguous),
                (Item::BasisMismatch, counts.basis_mismatch),
                (Item::CrossDouble, own.cross_basis_doubles + counts.cross_basis_doubles),
                (Item::DeadTimeDropped, counts.within_dead_time),
                (Item::Unlocked, counts.unlocked),
                (Item::Merged, own.merged),
                (Item::Invalid, own.invalid),
                (Item::SiftedCheck, counts.kept_x),
                (Item::SiftedKey, counts.kept_z),
            ],
        );
    }

    /// Books what became of the matcher's clicks in the time of one announced frame.
    pub fn book_matched(&mut self, counts: &FrameCounts) {
        self.book(
            Book::Matcher,
            [
                (Item::Clicks, counts.own_clicks),
                (Item::Unmatched, counts.own_unmatched),
                (Item::Ambiguous, counts.own_ambiguous),
                (Item::BasisMismatch, counts.basis_mismatch),
                (Item::CrossDouble, counts.own_cross_basis_doubles),
                (Item::DeadTimeDropped, counts.within_dead_time),
                (Item::Unlocked, counts.own_unlocked),
                (Item::Merged, counts.own_merged),
                (Item::Invalid, counts.own_invalid),
                (Item::SiftedCheck, counts.kept_x),
                (Item::SiftedKey, counts.kept_z),
            ],
        );
    }

    fn book(&mut self, book: Book, lines: [(Item, u64); 11]) {
        lines.into_iter().for_each(|(item, value)| self.account.book(Line(book, item), value));
    }

    /// The account so far, with what sifting gave.
    fn account(&self) -> BlockLedger {
        let mut account = self.account.clone();
        account.set(Line::SIFTED_KEY, self.z.len() as u64);
        account.set(Line::CHECK_DISCLOSED, self.x_total);
        account.set(Line::CHECK_ERRORS, self.x_errors);
        account
    }

    /// Everything about it is known.
    pub fn sifted(self) -> SiftedRound {
        SiftedRound {
            number: self.number,
            frames: self.frames,
            first_step: self.first_step,
            evidence: Evidence::CheckBits { bits: self.x_total, errors: self.x_errors },
            detected: Detected::default(),
            account: self.account(),
            key: self.z,
            decoys: None,
        }
    }

    /// The account of a round that did not end.
    pub fn void(&self) -> (u64, BlockLedger) {
        let mut account = self.account();
        // X bits that were sifted but not compared before the session broke are given up with the rest.
        let sifted = [Book::Announcer, Book::Matcher].map(|end| account.get(Line(end, Item::SiftedCheck)));
        account.set(Line::CHECK_VOIDED, sifted[0].max(sifted[1]).saturating_sub(self.x_total));
        account.void();
        (self.number, account)
    }
}
