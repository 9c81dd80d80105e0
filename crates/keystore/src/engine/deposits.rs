//! Deposits: keys that wait under an identifier for one or more readers.

use redb::ReadableTable;

use super::{Engine, limit};
use crate::StoreError;
use crate::crypt::deposit_aad;
use crate::tables::{DEPOSIT_EXPIRY, DEPOSITS, DepositRow};
use crate::types::{DEPOSIT_BYTES_MAX, Deposit, ITEMS_MAX, NAME_BYTES_MAX, ORIGIN_BYTES_MAX, SLAVES_MAX, TakenDeposit};

impl Engine {
    pub fn deposit(&mut self, deposit: &Deposit) -> Result<(), StoreError> {
        check(deposit)?;
        self.check_deposits_usable()?;
        let id = u128::from_be_bytes(deposit.key_id);
        let slaves: Vec<(String, bool)> = deposit.slaves.iter().map(|name| (name.clone(), false)).collect();
        let digest = self.sealer.digest(&[b"deposit", deposit.key.expose()]);
        let known = self.look(|_, txn| {
            let table = txn.open_table(DEPOSITS)?;
            let row = table.get(id)?;
            row.map(|row| DepositRow::decode(row.value())).transpose()
        })?;
        if let Some(known) = known {
            let same = known.digest == digest
                && known.master == deposit.master
                && known.slaves.iter().map(|(name, _)| name).eq(&deposit.slaves);
            return if same { Ok(()) } else { Err(StoreError::DepositConflict) };
        }
        if self.deposits >= self.settings.deposits_max {
            let max = self.settings.deposits_max;
            return Err(StoreError::Limit { what: "the number of deposits", max, given: max + 1 });
        }
        let of_master = self.deposits_by_master.get(&deposit.master).copied().unwrap_or(0);
        if of_master >= self.settings.deposits_per_master_max {
            let max_items = self.settings.deposits_per_master_max;
            return Err(StoreError::TooManyDeposits { max_items });
        }
        self.write(|engine, txn| {
            let row = DepositRow {
                expires_ms: deposit.expires_ms,
                master: deposit.master.clone(),
                slaves,
                origin: deposit.origin.clone(),
                digest,
                sealed: engine.sealer.seal(&deposit_aad(id), deposit.key.expose())?,
            };
            txn.open_table(DEPOSITS)?.insert(id, row.encode().as_slice())?;
            txn.open_table(DEPOSIT_EXPIRY)?.insert((deposit.expires_ms, id), ())?;
            engine.deposits += 1;
            *engine.deposits_by_master.entry(deposit.master.clone()).or_default() += 1;
            Ok(())
        })
    }

    /// All of them for this slave, or none.
    pub fn take_deposit(
        &mut self,
        key_ids: &[[u8; 16]],
        slave: &str,
        master: &str,
        now_ms: u64,
    ) -> Result<Vec<TakenDeposit>, StoreError> {
        if key_ids.len() > ITEMS_MAX {
            return Err(limit("the number of identifiers", ITEMS_MAX, key_ids.len()));
        }
        self.check_deposits_usable()?;
        let mut ids: Vec<u128> = key_ids.iter().map(|id| u128::from_be_bytes(*id)).collect();
        let mut rows = self.look(|_, txn| {
            let table = txn.open_table(DEPOSITS)?;
            let rows = ids.iter().enumerate().map(|(index, id)| {
                let row = table.get(id)?.ok_or(StoreError::DepositNotFound { index })?;
                DepositRow::decode(row.value())
            });
            rows.collect::<Result<Vec<_>, StoreError>>()
        })?;
        for (index, row) in rows.iter_mut().enumerate() {
            take(index, row, slave, master, now_ms)?;
        }
        let given = ids.clone();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            let index = given.iter().rposition(|id| *id == pair[0]).unwrap_or_default();
            return Err(StoreError::DepositNotFound { index });
        }
        self.write(|engine, txn| {
            let (mut table, mut expiry) = (txn.open_table(DEPOSITS)?, txn.open_table(DEPOSIT_EXPIRY)?);
            let mut taken = Vec::with_capacity(rows.len());
            for (id, row) in given.into_iter().zip(rows) {
                let damaged = || StoreError::corrupt("a deposit does not decrypt");
                let key = engine.sealer.open(&deposit_aad(id), row.sealed.clone()).ok_or_else(damaged)?;
                if row.slaves.iter().all(|(_, has_it)| *has_it) {
                    table.remove(id)?;
                    expiry.remove((row.expires_ms, id))?;
                    engine.deposit_gone(&row.master);
                } else {
                    table.insert(id, row.encode().as_slice())?;
                }
                taken.push(TakenDeposit { key_id: id.to_be_bytes(), key, origin: row.origin });
            }
            Ok(taken)
        })
    }

    fn deposit_gone(&mut self, master: &str) {
        self.deposits -= 1;
        if let Some(count) = self.deposits_by_master.get_mut(master) {
            *count -= 1;
            if *count == 0 {
                self.deposits_by_master.remove(master);
            }
        }
    }

    pub(super) fn expire_deposits(&mut self, now_ms: u64) -> Result<(), StoreError> {
        let old = self.look(|_, txn| {
            let table = txn.open_table(DEPOSIT_EXPIRY)?;
            let range = table.range(..=(now_ms, u128::MAX))?;
            let old: Result<Vec<(u64, u128)>, StoreError> = range.map(|row| Ok(row?.0.value())).collect();
            old
        })?;
        if old.is_empty() {
            return Ok(());
        }
        self.write(|engine, txn| {
            let (mut table, mut expiry) = (txn.open_table(DEPOSITS)?, txn.open_table(DEPOSIT_EXPIRY)?);
            for place in old {
                expiry.remove(place)?;
                let row = table.remove(place.1)?.map(|row| DepositRow::decode(row.value())).transpose()?;
                engine.deposit_gone(row.as_ref().map_or("", |row| &row.master));
            }
            Ok(())
        })
    }
}

/// Marks the deposit as taken by `slave`, in memory.
fn take(index: usize, row: &mut DepositRow, slave: &str, master: &str, now_ms: u64) -> Result<(), StoreError> {
    if row.expires_ms <= now_ms {
        return Err(StoreError::DepositNotFound { index });
    }
    let named = row.slaves.iter_mut().find(|(name, _)| name == slave).filter(|_| row.master == master);
    let (_, has_it) = named.ok_or(StoreError::DepositNotForCaller)?;
    if std::mem::replace(has_it, true) { Err(StoreError::DepositNotFound { index }) } else { Ok(()) }
}

fn check(deposit: &Deposit) -> Result<(), StoreError> {
    if deposit.key.is_empty() || deposit.key.len() > DEPOSIT_BYTES_MAX {
        return Err(limit("the length of a deposited key in bytes", DEPOSIT_BYTES_MAX, deposit.key.len()));
    }
    if deposit.slaves.is_empty() || deposit.slaves.len() > SLAVES_MAX {
        return Err(limit("the number of slaves", SLAVES_MAX, deposit.slaves.len()));
    }
    let mut names: Vec<&str> = deposit.slaves.iter().map(String::as_str).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(StoreError::BadRequest { what: "a slave is named twice" });
    }
    let longest = names.iter().map(|name| name.len()).chain([deposit.master.len()]).max().unwrap_or(0);
    if longest > NAME_BYTES_MAX {
        return Err(limit("the length of an SAE's name", NAME_BYTES_MAX, longest));
    }
    if deposit.origin.len() > ORIGIN_BYTES_MAX {
        return Err(limit("the length of an origin in bytes", ORIGIN_BYTES_MAX, deposit.origin.len()));
    }
    Ok(())
}
