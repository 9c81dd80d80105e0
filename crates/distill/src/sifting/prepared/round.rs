//! The round that is being sifted, at either end.

use super::detections::ClickCounts;
use super::reply::{ByIntensity, Sifted};
use crate::bits::Bits;
use crate::bounds::{Detections, Evidence, Tally};
use crate::config::INTENSITIES;
use crate::ledger::{BlockLedger, Book, Item, Line};
use crate::sifting::{Detected, SiftedRound};

#[derive(Default)]
pub struct OpenRound {
    pub number: u64,
    /// Announced frames that have been sifted into it.
    pub frames: u64,
    /// Step in which the light of the first one came.
    first_step: u64,
    key: Bits,
    /// Which of them are of decoys: at the transmitter, where the proof asks.
    decoys: Option<Bits>,
    /// By intensity, the brightest first.
    detections: [Detections; INTENSITIES],
    /// Events in another basis than their pulse's, and of which intensities they are, where the transmitter says it.
    mismatched: u64,
    mismatched_counts: [u64; INTENSITIES],
    /// Pulses that came while it was made.
    pulses: u64,
    /// Bits of the check basis, compared or not.
    check_bits: u64,
    account: BlockLedger,
}

impl OpenRound {
    /// `with_decoys` as frames of it are sifted.
    pub fn new(number: u64, with_decoys: bool) -> Self {
        Self { number, decoys: with_decoys.then(Bits::default), ..Self::default() }
    }

    /// The round after this one; this one is given.
    pub fn next(&mut self) -> Self {
        let next = Self::new(self.number + 1, self.decoys.is_some());
        std::mem::replace(self, next)
    }

    /// Adds a frame.
    pub fn add(&mut self, step: u64, pulses: u64, sifted: &Sifted) {
        if self.frames == 0 {
            self.first_step = step;
        }
        self.frames += 1;
        self.pulses += pulses;
        self.key.extend(&sifted.key);
        if let (Some(decoys), Some(more)) = (&mut self.decoys, &sifted.decoys) {
            decoys.extend(more);
        }
        self.check_bits += sifted.check.len() as u64;
        self.mismatched += sifted.basis_mismatch;
        self.count(&sifted.counts);
    }

    /// Adds what is known by intensity.
    pub fn count(&mut self, counts: &ByIntensity) {
        self.detections.iter_mut().zip(counts.key).for_each(|(row, count)| row.key += count);
        self.mismatched_counts.iter_mut().zip(counts.mismatched).for_each(|(sum, count)| *sum += count);
    }

    pub fn compared(&mut self, tallies: &[Tally; INTENSITIES]) {
        for (row, tally) in self.detections.iter_mut().zip(tallies) {
            row.check.bits += tally.bits;
            row.check.errors += tally.errors;
        }
    }

    pub fn key_bits(&self) -> u64 {
        self.key.len() as u64
    }

    pub fn mismatched(&self) -> u64 {
        self.mismatched
    }

    pub fn counts(&self) -> ByIntensity {
        ByIntensity { key: self.detections.map(|row| row.key), mismatched: self.mismatched_counts }
    }

    /// Books what became of one frame of the receiver's clicks.
    pub fn book(&mut self, counts: &ClickCounts, sifted: &Sifted) {
        let frame = &counts.frame;
        let lines = [
            (Item::Clicks, frame.clicks),
            (Item::Unlocked, frame.unlocked),
            (Item::Preamble, frame.preamble),
            (Item::OutsideGate, frame.outside_gate),
            (Item::BasisMismatch, sifted.basis_mismatch),
            (Item::CrossDouble, counts.cross_basis_doubles),
            (Item::DeadTimeDropped, frame.dead),
            (Item::Merged, counts.merged),
            (Item::Invalid, frame.invalid),
            (Item::SiftedCheck, sifted.check.len() as u64),
            (Item::SiftedKey, sifted.key.len() as u64),
        ];
        lines.into_iter().for_each(|(item, value)| self.account.book(Line(Book::Receiver, item), value));
    }

    fn check(&self) -> Tally {
        self.detections.iter().fold(Tally::default(), |sum, row| Tally {
            bits: sum.bits + row.check.bits,
            errors: sum.errors + row.check.errors,
        })
    }

    /// The account so far, with what sifting gave.
    fn account(&self) -> BlockLedger {
        let mut account = self.account.clone();
        account.set(Line::SIFTED_KEY, self.key_bits());
        account.set(Line::CHECK_DISCLOSED, self.check().bits);
        account.set(Line::CHECK_ERRORS, self.check().errors);
        account
    }

    /// Nothing where the transmitter does not say of which intensities the events in another basis are.
    fn detected(&self) -> Detected {
        if self.mismatched_counts.iter().sum::<u64>() != self.mismatched {
            return Detected::default();
        }
        let of = |kind: usize| {
            let row = &self.detections[kind];
            row.key + row.check.bits + self.mismatched_counts[kind]
        };
        Detected { pulses: self.pulses, events: std::array::from_fn(of) }
    }

    /// Everything about it is known; `intensities` says of which light it is.
    pub fn sifted(self, intensities: usize) -> SiftedRound {
        let evidence = if intensities == 1 {
            Evidence::SinglePhoton { pulses: self.pulses, key: self.key_bits(), check: self.check() }
        } else {
            Evidence::Decoy(self.detections)
        };
        SiftedRound {
            number: self.number,
            frames: self.frames,
            first_step: self.first_step,
            evidence,
            detected: self.detected(),
            account: self.account(),
            decoys: self.decoys,
            key: self.key,
        }
    }

    /// The account of a round that did not end.
    pub fn void(&self) -> (u64, BlockLedger) {
        let mut account = self.account();
        account.set(Line::CHECK_VOIDED, self.check_bits.saturating_sub(self.check().bits));
        account.void();
        (self.number, account)
    }
}
