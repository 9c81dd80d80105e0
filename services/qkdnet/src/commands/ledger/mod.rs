//! `qkdnet ledger`: where every bit went, from click to application, with the sums checked.

use serde::Serialize;

use super::{print, print_json};
use crate::cli::{LedgerArgs, Output};
use crate::failure::Failure;

mod links;
mod pools;
mod total;

use links::EndLedger;
use pools::PoolLedger;
use total::Total;

/// Links at each end, then what key stores made of their key, then all of it.
#[derive(Serialize)]
struct Ledger {
    links: Vec<EndLedger>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pools: Vec<PoolLedger>,
    /// Of all sites; not where one link alone was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Total>,
}

pub fn run(args: &LedgerArgs) -> Result<(), Failure> {
    let ledger = Ledger::read(args)?;
    match args.output.output {
        Output::Json => print_json(&ledger)?,
        Output::Text => print(&ledger.text(args.blocks))?,
    }
    match ledger.wrong() {
        0 => Ok(()),
        wrong => Err(Failure::failed(format!("{wrong} sums do not hold"))),
    }
}

impl Ledger {
    fn read(args: &LedgerArgs) -> Result<Self, Failure> {
        // Before the links: what a key store has taken is in a block file that is read later.
        let marks = pools::marks(&args.data)?;
        let stores = if args.link.is_none() { pools::stores(&args.data)? } else { Vec::new() };
        let links = links::ledgers(&args.data, args.link.as_deref())?;
        let pools = pools::ledgers(stores, &links, &marks);
        let total = (!pools.is_empty()).then(|| Total::of(&links, &pools));
        Ok(Self { links, pools, total })
    }

    fn wrong(&self) -> usize {
        let links = self.links.iter().map(|end| end.wrong.len()).sum::<usize>();
        let pools = self.pools.iter().map(|pool| pool.wrong.len()).sum::<usize>();
        links + pools + self.total.as_ref().map_or(0, |total| total.wrong.len())
    }

    fn text(&self, blocks: bool) -> String {
        let links = self.links.iter().map(|end| links::text(end, blocks));
        let pools = self.pools.iter().map(PoolLedger::text);
        let total = self.total.iter().map(Total::text);
        links.chain(pools).chain(total).collect()
    }
}
