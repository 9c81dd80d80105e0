//! All sites together: key that came in, from modules and relays, and where it is now.

use distill::ledger::Line;
use serde::Serialize;

use super::links::EndLedger;
use super::pools::{PoolLedger, Table, parts};

/// Bits over all sites. What two sites share is counted at each of them, as each holds it.
#[derive(Serialize)]
pub struct Total {
    /// Delivered by modules.
    modules_bits: u64,
    /// Of it: on its way to a key store, or less than a byte at the end of a block.
    waiting_bits: u64,
    remainder_bits: u64,
    /// Brought by relays.
    relayed_bits: u64,
    /// Where it is, line by line.
    parts: Vec<Part>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
}

#[derive(Serialize)]
struct Part {
    name: &'static str,
    bits: u64,
}

impl Total {
    pub fn of(links: &[EndLedger], pools: &[PoolLedger]) -> Self {
        let mut sums: Vec<Part> = Vec::new();
        for pool in pools {
            for (at, (name, bits)) in parts(&pool.account).into_iter().enumerate() {
                match sums.get_mut(at) {
                    Some(part) => part.bits += bits,
                    None => sums.push(Part { name, bits }),
                }
            }
        }
        let mut total = Self {
            modules_bits: links.iter().map(|end| end.total.get(Line::DELIVERED)).sum(),
            waiting_bits: pools.iter().map(|pool| pool.waiting_bits).sum(),
            remainder_bits: pools.iter().map(|pool| pool.remainder_bits).sum(),
            relayed_bits: pools.iter().map(PoolLedger::relayed_bits).sum(),
            parts: sums,
            wrong: Vec::new(),
        };
        let came = total.modules_bits + total.relayed_bits;
        let is = total.whole();
        if came != is {
            total.wrong.push(format!("{came} bits came from modules and relays, {is} are somewhere"));
        }
        total
    }

    fn whole(&self) -> u64 {
        self.waiting_bits + self.remainder_bits + self.parts.iter().map(|part| part.bits).sum::<u64>()
    }

    pub fn text(&self) -> String {
        let mut table = Table::new("all sites".to_owned());
        let whole = Some(self.whole());
        table.line("from modules", self.modules_bits, None);
        table.line("from relays", self.relayed_bits, None);
        table.line("  on its way", self.waiting_bits, whole);
        table.line("  less than a byte", self.remainder_bits, whole);
        for part in &self.parts {
            table.line(&format!("  {}", part.name), part.bits, whole);
        }
        table.end(&self.wrong)
    }
}
