//! What both ends do with the sifted material of one round.

use super::{Action, Compared, FinishedBlock};
use crate::bits::Bits;
use crate::bounds::{self, Evidence, KeyLength};
use crate::config::Security;
use crate::ledger::{BlockLedger, LedgerError, Line, Settlement};
use crate::sifting::{self, SiftedRound};

/// Bits of the verification hash of one Cascade frame.
pub const VERIFICATION_BITS: u64 = 64;

/// The sifted material of one block at one end.
pub struct Round {
    pub block: u64,
    pub frames: u64,
    first_step: u64,
    pub key: Bits,
    evidence: Evidence,
    account: BlockLedger,
}

impl Round {
    pub fn new(block: u64, sifted: SiftedRound) -> Self {
        let SiftedRound { number: _, frames, first_step, key, evidence, account } = sifted;
        Self { block, frames, first_step, key, evidence, account }
    }

    /// The account of a round that does not end.
    pub fn void(&self) -> BlockLedger {
        let mut account = self.account.clone();
        account.void();
        account
    }

    /// What sifting is told of a round once it is reconciled.
    pub fn reconciled(&self, compared: Compared) -> sifting::Reconciled {
        let Compared { bits, .. } = compared;
        sifting::Reconciled { first_step: self.first_step, frames: self.frames, bits, qber: compared.qber() }
    }
}

/// Cuts a sifted string into Cascade frames of nearly equal length, none longer than `frame_bits`.
pub fn split(key: &Bits, frame_bits: usize) -> Vec<Bits> {
    let count = key.len().div_ceil(frame_bits.max(1)).max(1);
    let base = key.len().div_ceil(count);
    (0..count)
        .map(|i| (i * base, ((i + 1) * base).min(key.len())))
        .filter(|(start, end)| start < end)
        .map(|(start, end)| key.slice(start, end - start))
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
    pub compared: Compared,
    pub ledger: BlockLedger,
}

impl Reconciled {
    /// Why no key comes of the block, if none does.
    pub fn refusal(&self) -> Option<String> {
        match self.length.abort {
            Some(reason) => Some(reason.to_string()),
            None if self.ledger.get(Line::DELIVERED) == 0 => {
                Some("what is left would only pay for authentication".to_owned())
            }
            None => None,
        }
    }

    /// The end of a block that gives no key.
    pub fn abort(self, round: &Round, reason: String) -> Action {
        Action::Abort { block: round.block, reason, frames: round.frames, ledger: self.ledger }
    }

    /// The block, with the key that its string was amplified to.
    pub fn finish(self, round: &Round, key: Bits, reserve: u64) -> FinishedBlock {
        FinishedBlock {
            number: round.block,
            key,
            reserve_bits: reserve as usize,
            frames: round.frames,
            ledger: self.ledger,
            length: self.length,
        }
    }
}

/// Keeps the frames whose hashes agree, books the rest as lost, and applies the bound. Of the key, `reserve` bits
/// go to authentication.
pub fn reconcile(
    round: &Round,
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
    let disclosed =
        bounds::Reconciled { key_bits, key_errors: errors, leaked_bits: leaked, verification_bits: verification };
    let length = bounds::key_length(security, &round.evidence, &disclosed);
    let mut ledger = round.account.clone();
    ledger.set(Line::KEY_ERRORS, errors.min(key_bits));
    if length.chosen > reserve {
        let key = length.chosen;
        ledger.settle(Settlement { failed_frames, leaked, verification, key, authentication: reserve })?;
    } else {
        ledger.abort();
    }
    Ok(Reconciled { key, length, compared: Compared { bits: key_bits, errors }, ledger })
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
