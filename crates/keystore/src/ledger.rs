//! Where every bit of a pool went. The sums are exact, whatever crashed in between.

use crate::Use;

/// Counters of one use, in bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UseLedger {
    pub granted_bits: u64,
    /// Drawn (Out) or redeemed (In).
    pub handed_out_bits: u64,
    /// Never to be handed out: tails too short for a request, what was voided, and what was on lease when a crash
    /// came. Of a lost lease the store knows only how much was handed out when the disk was last told, so that some of
    /// these bits may have been handed out just before the crash.
    pub wasted_bits: u64,
    pub expired_bits: u64,
    pub left_bits: u64,
}

/// Counters of a pool over all its generations, in bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolLedger {
    pub generation: u32,
    pub offered_bits: u64,
    /// Of what was offered: brought by relays.
    pub relayed_bits: u64,
    pub pending_bits: u64,
    /// Deducted bits included.
    pub confirmed_bits: u64,
    /// Used by the caller before the rest counted: the pad of a MAC.
    pub deducted_bits: u64,
    /// Erased because the two ends differed.
    pub quarantined_bits: u64,
    /// Offered and wasted: the other site did not have the block, and never will.
    pub abandoned_bits: u64,
    pub unassigned_bits: u64,
    /// Confirmed, not granted, lost when the pool was voided.
    pub voided_bits: u64,
    /// By [`Use::ALL`].
    pub uses: [UseLedger; 4],
}

/// A sum that does not hold.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what}: {left_bits} bits on one side, {right_bits} on the other")]
pub struct Imbalance {
    pub what: &'static str,
    pub left_bits: u64,
    pub right_bits: u64,
}

impl PoolLedger {
    pub fn of(&self, use_: Use) -> &UseLedger {
        &self.uses[use_.index()]
    }

    /// Whether every bit is somewhere, and in one place only.
    pub fn check(&self) -> Result<(), Imbalance> {
        let decided = self.pending_bits + self.confirmed_bits + self.quarantined_bits + self.abandoned_bits;
        equal("offered = pending + confirmed + quarantined + abandoned", self.offered_bits, decided)?;
        let granted: u64 = self.uses.iter().map(|use_| use_.granted_bits).sum();
        let placed = self.deducted_bits + self.unassigned_bits + granted + self.voided_bits;
        equal("confirmed = deducted + unassigned + granted + voided", self.confirmed_bits, placed)?;
        for use_ in &self.uses {
            let spent = use_.handed_out_bits + use_.wasted_bits + use_.expired_bits + use_.left_bits;
            equal("granted = handed out + wasted + expired + left", use_.granted_bits, spent)?;
        }
        Ok(())
    }
}

fn equal(what: &'static str, left_bits: u64, right_bits: u64) -> Result<(), Imbalance> {
    if left_bits == right_bits { Ok(()) } else { Err(Imbalance { what, left_bits, right_bits }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_too_many_in_any_place_is_found() {
        let out = UseLedger { granted_bits: 10, handed_out_bits: 4, wasted_bits: 3, expired_bits: 2, left_bits: 1 };
        let mut good = PoolLedger { offered_bits: 25, pending_bits: 3, confirmed_bits: 16, ..PoolLedger::default() };
        good.abandoned_bits = 5;
        (good.quarantined_bits, good.deducted_bits, good.unassigned_bits, good.voided_bits) = (1, 1, 2, 3);
        good.uses[2] = out;
        good.check().unwrap();
        let wrong: [fn(&mut PoolLedger); 9] = [
            |l| l.offered_bits += 1,
            |l| l.pending_bits += 1,
            |l| l.quarantined_bits += 1,
            |l| l.abandoned_bits += 1,
            |l| l.unassigned_bits += 1,
            |l| l.voided_bits += 1,
            |l| l.uses[2].left_bits += 1,
            |l| l.uses[2].wasted_bits += 1,
            |l| l.uses[0].granted_bits += 1,
        ];
        for change in wrong {
            let mut ledger = good;
            change(&mut ledger);
            assert!(ledger.check().is_err(), "{ledger:?}");
        }
    }
}
