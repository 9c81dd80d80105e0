//! Where every bit of a site's pools is, as numbers for those who check the sums: over HTTP while the key store runs,
//! from its disk when it does not.

use std::path::Path;

use anyhow::{Context, Result};
use keystore::{Imbalance, KeyStore, PoolLedger, Settings, Use, UseLedger};
use serde::{Deserialize, Serialize};
use shell::disk::Disk;

use crate::master;

/// The ledger of one pool, in bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolAccount {
    /// Site at the other end.
    pub peer: String,
    pub generation: u32,
    /// Taken from modules and from the relay.
    pub offered_bits: u64,
    /// Of it: from the relay. Not said by an earlier build.
    #[serde(default)]
    pub relayed_bits: u64,
    /// Not confirmed by the peer yet.
    pub pending_bits: u64,
    /// Used up to show that both ends hold the same block.
    pub confirmation_bits: u64,
    /// In blocks that differed.
    pub quarantined_bits: u64,
    /// In blocks that the other site never had and never will.
    pub abandoned_bits: u64,
    pub unassigned_bits: u64,
    /// Not assigned when a generation of the pool was given up.
    pub voided_bits: u64,
    /// For masters of this site.
    pub supply_out: UseAccount,
    /// For slaves of this site.
    pub supply_in: UseAccount,
    /// One-time pad for what this site sends.
    pub relay_out: UseAccount,
    /// One-time pad for what this site receives.
    pub relay_in: UseAccount,
}

/// What became of the bits that were assigned to one use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UseAccount {
    pub assigned_bits: u64,
    pub handed_out_bits: u64,
    pub wasted_bits: u64,
    pub expired_bits: u64,
    pub left_bits: u64,
}

impl PoolAccount {
    fn of(peer: &str, ledger: &PoolLedger) -> Self {
        let of_use = |use_| {
            let UseLedger { granted_bits, handed_out_bits, wasted_bits, expired_bits, left_bits } = *ledger.of(use_);
            UseAccount { assigned_bits: granted_bits, handed_out_bits, wasted_bits, expired_bits, left_bits }
        };
        Self {
            peer: peer.to_owned(),
            generation: ledger.generation,
            offered_bits: ledger.offered_bits,
            relayed_bits: ledger.relayed_bits,
            pending_bits: ledger.pending_bits,
            confirmation_bits: ledger.deducted_bits,
            quarantined_bits: ledger.quarantined_bits,
            abandoned_bits: ledger.abandoned_bits,
            unassigned_bits: ledger.unassigned_bits,
            voided_bits: ledger.voided_bits,
            supply_out: of_use(Use::SupplyOut),
            supply_in: of_use(Use::SupplyIn),
            relay_out: of_use(Use::RelayOut),
            relay_in: of_use(Use::RelayIn),
        }
    }

    pub fn uses(&self) -> [&UseAccount; 4] {
        [&self.supply_out, &self.supply_in, &self.relay_out, &self.relay_in]
    }

    /// Whether every bit that was offered is somewhere, and in one place only.
    pub fn check(&self) -> Result<(), Imbalance> {
        let assigned: u64 = self.uses().iter().map(|use_| use_.assigned_bits).sum();
        let parts = [self.pending_bits, self.confirmation_bits, self.quarantined_bits, self.unassigned_bits];
        let placed = parts.iter().sum::<u64>() + self.abandoned_bits + self.voided_bits + assigned;
        equal("offered = where it is", self.offered_bits, placed)?;
        for use_ in self.uses() {
            let spent = use_.handed_out_bits + use_.wasted_bits + use_.expired_bits + use_.left_bits;
            equal("assigned = handed out + wasted + expired + left", use_.assigned_bits, spent)?;
        }
        Ok(())
    }
}

fn equal(what: &'static str, left_bits: u64, right_bits: u64) -> Result<(), Imbalance> {
    if left_bits == right_bits { Ok(()) } else { Err(Imbalance { what, left_bits, right_bits }) }
}

/// Of every pool that is shared with a site; what the relay keeps for itself is none.
pub fn of_store(store: &KeyStore) -> Vec<PoolAccount> {
    let pools = store.pools().into_iter().filter(|peer| !peer.starts_with('~'));
    pools.filter_map(|peer| Some(PoolAccount::of(&peer, &store.ledger(&peer).ok()?))).collect()
}

/// From the disk of a key store that does not run. What a crash left is settled first, as its next start would.
/// Nothing where the site has no key store.
pub fn read(data: &Path, site: &str) -> Result<Option<Vec<PoolAccount>>> {
    let folder = keystore::folder(data, site);
    if !folder.is_dir() {
        return Ok(None);
    }
    let store = master::open_store(&folder, &Settings::default(), &Disk::default())?;
    let accounts = of_store(&store);
    store.close().context("close the key store")?;
    Ok(Some(accounts))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_pool_sums_as_its_ledger_does_and_a_bit_more_is_found() {
        let out = UseLedger { granted_bits: 10, handed_out_bits: 4, wasted_bits: 3, expired_bits: 2, left_bits: 1 };
        let mut ledger = PoolLedger { offered_bits: 22, pending_bits: 3, confirmed_bits: 16, ..PoolLedger::default() };
        ledger.abandoned_bits = 2;
        (ledger.quarantined_bits, ledger.deducted_bits, ledger.unassigned_bits) = (1, 1, 2);
        (ledger.voided_bits, ledger.uses[2]) = (3, out);
        ledger.check().unwrap();
        let good = PoolAccount::of("b", &ledger);
        good.check().unwrap();
        let wrong: [fn(&mut PoolAccount); 6] = [
            |a| a.abandoned_bits += 1,
            |a| a.offered_bits += 1,
            |a| a.confirmation_bits += 1,
            |a| a.voided_bits += 1,
            |a| a.relay_out.expired_bits += 1,
            |a| a.supply_in.left_bits += 1,
        ];
        for change in wrong {
            let mut account = good.clone();
            change(&mut account);
            account.check().unwrap_err();
        }
    }
}
