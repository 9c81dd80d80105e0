//! `qkdnet ledger`: where every bit went, from click to application, with the sums checked.

use std::path::Path;

use runner::Failure;
use serde::Serialize;

use super::{print, print_json};
use crate::cli::{LedgerArgs, LedgerPart, Output, Place};
use crate::cluster::{self, Cluster};

mod links;
mod pools;
mod total;

use links::EndLedger;
use pools::{Marks, PoolLedger, Store};
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
    let ledger = match (args.place.place(), args.part) {
        (Place::Data(data), Some(part)) => return print_part(data, part),
        (Place::Data(data), None) => Ledger::read(data, args.link.as_deref())?,
        (Place::Cluster(place), _) => {
            cluster::run(place, async |there| Ledger::gather(there, args.link.as_deref()).await)?
        }
    };
    match args.output.output {
        Output::Json => print_json(&ledger)?,
        Output::Text => print(&ledger.text(args.blocks))?,
    }
    match ledger.wrong() {
        0 => Ok(()),
        wrong => Err(Failure::failed(format!("{wrong} sums do not hold"))),
    }
}

/// What a pod has to say, as a list.
fn print_part(data: &Path, part: LedgerPart) -> Result<(), Failure> {
    match part {
        LedgerPart::Marks => print_json(&pools::marks(data)?.into_iter().collect::<Vec<_>>()),
        LedgerPart::Stores => print_json(&pools::stores_here()?),
        LedgerPart::Links => print_json(&links::ledgers(data, None)?),
    }
}

impl Ledger {
    // Always the marks before the stores before the links: what a key store has taken is in a block file that is read
    // later.
    fn read(data: &Path, link: Option<&str>) -> Result<Self, Failure> {
        let marks = pools::marks(data)?;
        let stores = if link.is_none() { pools::stores(data)? } else { Vec::new() };
        Ok(Self::of(links::ledgers(data, link)?, stores, &marks))
    }

    /// The same from the pods of a topology.
    async fn gather(cluster: &Cluster, link: Option<&str>) -> anyhow::Result<Self> {
        let marks = cluster::link_ends(cluster, &["ledger", "--part", "marks"]).await?.into_iter().collect();
        let stores = match link {
            None => cluster::stores(cluster, &["ledger", "--part", "stores"]).await?,
            Some(_) => Vec::new(),
        };
        let mut links: Vec<EndLedger> = cluster::link_ends(cluster, &["ledger", "--part", "links"]).await?;
        links.retain(|end| link.is_none_or(|link| link == end.link));
        anyhow::ensure!(!links.is_empty(), "there is no key of such a link in `{}`", cluster.topology);
        links.sort_by(|a, b| (&a.link, &a.site).cmp(&(&b.link, &b.site)));
        Ok(Self::of(links, stores, &marks))
    }

    fn of(links: Vec<EndLedger>, stores: Vec<Store>, marks: &Marks) -> Self {
        let pools = pools::ledgers(stores, &links, marks);
        let total = (!pools.is_empty()).then(|| Total::of(&links, &pools));
        Self { links, pools, total }
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
