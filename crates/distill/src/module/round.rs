//! What both ends do with the sifted material of one round.

use crate::announce::ClickCounts;
use crate::bits::Bits;
use crate::bounds::{self, KeyLength, Measured};
use crate::config::Security;
use crate::ledger::{BlockLedger, Clicks, LedgerError, Settlement};
use crate::recovery::FrameCounts;
use crate::sift::SiftCounts;

/// Bits of the verification hash of one Cascade frame.
pub const VERIFICATION_BITS: u64 = 64;

/// The sifted material of one round at one end.
#[derive(Default)]
pub struct Round {
    pub block: u64,
    /// Frames of announcements that have been sifted into it.
    pub frames: u64,
    /// Step in which the light of the first one came (matcher only).
    pub first_step: u64,
    pub z: Bits,
    pub x_total: u64,
    pub x_errors: u64,
    pub ledger: BlockLedger,
}

impl Round {
    pub fn new(block: u64) -> Self {
        Self { block, ..Self::default() }
    }

    pub fn qber_x(&self) -> f64 {
        self.x_errors as f64 / (self.x_total as f64).max(1.0)
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

    /// The ledger so far, with what sifting gave.
    fn sifted_ledger(&mut self) -> BlockLedger {
        self.ledger.sifted_z = self.z.len() as u64;
        self.ledger.disclosed_x = self.x_total;
        self.ledger.errors_x = self.x_errors;
        self.ledger
    }

    /// The ledger of a round that did not end.
    pub fn void(&mut self) -> BlockLedger {
        let mut ledger = self.sifted_ledger();
        // X bits that were sifted but not compared before the session broke are given up with the rest.
        let sifted_x = ledger.matcher.sifted_x.max(ledger.announcer.sifted_x);
        ledger.voided_x = sifted_x.saturating_sub(ledger.disclosed_x);
        ledger.void();
        ledger
    }
}

/// Cuts a sifted string into Cascade frames of nearly equal length, none longer than `frame_bits`.
pub fn split(z: &Bits, frame_bits: usize) -> Vec<Bits> {
    let count = z.len().div_ceil(frame_bits.max(1)).max(1);
    let base = z.len().div_ceil(count);
    (0..count)
        .map(|i| (i * base, ((i + 1) * base).min(z.len())))
        .filter(|(start, end)| start < end)
        .map(|(start, end)| z.slice(start, end - start))
        .collect()
}

/// One Cascade frame after correction.
pub struct Corrected {
    pub bits: Bits,
    pub leaked: u64,
    pub errors: u64,
}

/// The string that goes into amplification, how long the key may be, and the ledger that follows. Both ends
/// compute it from figures that both know, and must agree.
pub struct Reconciled {
    pub key: Bits,
    pub length: KeyLength,
    pub qber_z: f64,
    pub ledger: BlockLedger,
}

impl Reconciled {
    /// Why no key comes of the block, if none does.
    pub fn refusal(&self) -> Option<String> {
        match self.length.abort {
            Some(reason) => Some(reason.to_string()),
            None if self.ledger.delivered == 0 => Some("what is left would only pay for authentication".to_owned()),
            None => None,
        }
    }
}

/// Keeps the frames whose hashes agree, books the rest as lost, and applies the bound. Of the key, `reserve` bits
/// go to authentication.
pub fn reconcile(
    round: &mut Round,
    frames: &[Corrected],
    good: &[bool],
    security: &Security,
    reserve: u64,
) -> Result<Reconciled, LedgerError> {
    let mut key = Bits::default();
    let (mut leaked, mut errors, mut failed_frames, mut verified) = (0, 0, 0, 0);
    for (frame, good) in frames.iter().zip(good) {
        if *good {
            key.extend(&frame.bits);
            leaked += frame.leaked;
            errors += frame.errors;
            verified += 1;
        } else {
            failed_frames += frame.bits.len() as u64;
        }
    }
    let key_bits = key.len() as u64;
    let verification = verified * VERIFICATION_BITS;
    let length = bounds::key_length(
        security,
        &Measured {
            key_bits,
            leaked_bits: leaked,
            verification_bits: verification,
            check_bits: round.x_total,
            check_errors: round.x_errors,
        },
    );
    let mut ledger = round.sifted_ledger();
    ledger.errors_z = errors.min(key_bits);
    if length.chosen > reserve {
        let key = length.chosen;
        ledger.settle(Settlement { failed_frames, leaked, verification, key, authentication: reserve })?;
    } else {
        ledger.abort();
    }
    let qber_z = errors as f64 / (key_bits as f64).max(1.0);
    Ok(Reconciled { key, length, qber_z, ledger })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_round_cover_it_once_and_none_is_longer_than_allowed() {
        for len in [0usize, 1, 63, 64, 65, 1000, 65_536, 65_537, 157_001] {
            let mut z = Bits::zeros(len);
            for i in (0..len).step_by(7) {
                z.set(i, true);
            }
            let frames = split(&z, 65_536);
            let mut joined = Bits::default();
            for frame in &frames {
                assert!(!frame.is_empty() && frame.len() <= 65_536);
                joined.extend(frame);
            }
            assert!(joined.ct_eq(&z));
        }
    }
}
