//! What key stores made of the key that modules and relays gave them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use distill::ledger::Line;
use etsi014::health::LEDGER_PATH;
use kms::accounts::{self, PoolAccount};
use operator::layout::paths;
use runner::network::Network;
use runner::{Failure, hosted};
use serde::{Deserialize, Serialize};
use shell::launch::ServiceFile;
use topology::plan::{KmsConfig, ServiceConfig};

use super::links::EndLedger;
use crate::commands::data;

/// Longest wait for a key store that runs, and longest answer that is read.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// One pool of one site, in bits.
#[derive(Serialize)]
pub struct PoolLedger {
    pub site: String,
    /// Links that fill the pool; none where its key is relayed.
    pub links: Vec<String>,
    /// Delivered by the modules of those links: what the key store has taken, what is on its way to it, and what is
    /// left of blocks that do not end with a byte.
    pub delivered_bits: u64,
    pub waiting_bits: u64,
    pub remainder_bits: u64,
    #[serde(flatten)]
    pub account: PoolAccount,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
}

/// The accounts of one site.
#[derive(Serialize, Deserialize)]
pub struct Store {
    site: String,
    pools: Vec<PoolAccount>,
}

/// By link and site: the first block that is not known to be in the key store.
pub type Marks = BTreeMap<(String, String), u64>;

pub fn marks(folder: &Path) -> Result<Marks, Failure> {
    let mark = |end: data::LinkEnd| {
        let mark = module::next_undelivered(folder, &end.site, &end.link).map_err(data::unreadable)?;
        Ok(((end.link, end.site), mark))
    };
    data::link_ends(folder)?.into_iter().map(mark).collect()
}

/// From the key stores that run in this pod.
pub fn stores_here() -> Result<Vec<Store>, Failure> {
    let unreadable = |error: anyhow::Error| Failure::failed(shell::chain(&error).to_string());
    let mut stores = Vec::new();
    for path in hosted::in_folder(Path::new(paths::SERVICES)).map_err(unreadable)? {
        let Some((config, ports)) = key_store(&path) else { continue };
        let Some(address) = ports.get("metrics") else { continue };
        let url = format!("http://127.0.0.1:{}", address.port());
        let pools = ask(&url).map_err(|why| Failure::failed(format!("ask {}: {why}", config.name)))?;
        stores.push(Store { site: config.site.clone(), pools });
    }
    Ok(stores)
}

/// The configuration of a key store and its ports, from a file for one service or for a host of several.
fn key_store(path: &Path) -> Option<(Box<KmsConfig>, BTreeMap<String, SocketAddr>)> {
    if let Ok(file) = ServiceFile::<Box<KmsConfig>>::load(path) {
        return Some((file.service, file.ports));
    }
    let file = ServiceFile::<ServiceConfig>::load(path).ok()?;
    match file.service {
        ServiceConfig::Kms(config) => Some((config, file.ports)),
        _ => None,
    }
}

/// From the key stores while they run, and from their disks when they do not.
pub fn stores(folder: &Path) -> Result<Vec<Store>, Failure> {
    match Network::read(folder)? {
        Some(network) => network
            .sites
            .into_iter()
            .map(|site| {
                let answer = ask(&site.metrics_url);
                let pools = answer.map_err(|why| Failure::failed(format!("ask {}: {why}", site.kme_id)))?;
                Ok(Store { site: site.site, pools })
            })
            .collect(),
        None => {
            let mut stores = Vec::new();
            for (site, _) in data::directories(folder)? {
                let read = accounts::read(folder, &site);
                if let Some(pools) =
                    read.map_err(|error| Failure::failed(format!("the key store of {site}: {}", shell::chain(&error))))?
                {
                    stores.push(Store { site, pools });
                }
            }
            stores.sort_by(|a, b| a.site.cmp(&b.site));
            Ok(stores)
        }
    }
}

/// The accounts as `/ledger` of the metrics' listener says them.
fn ask(url: &str) -> Result<Vec<PoolAccount>, String> {
    let text = |error: std::io::Error| error.to_string();
    let address: SocketAddr =
        url.strip_prefix("http://").and_then(|address| address.parse().ok()).ok_or(format!("{url} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(text)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(text)?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n", LEDGER_PATH);
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("its answer is cut short")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("it answers {}", head.lines().next().unwrap_or_default()));
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

/// Puts what the modules delivered beside what the stores say they took.
pub fn ledgers(stores: Vec<Store>, links: &[EndLedger], marks: &Marks) -> Vec<PoolLedger> {
    let mut ledgers = Vec::new();
    for store in stores {
        for account in store.pools {
            ledgers.push(PoolLedger::new(&store.site, account, links, marks));
        }
    }
    ledgers
}

impl PoolLedger {
    fn new(site: &str, account: PoolAccount, links: &[EndLedger], marks: &Marks) -> Self {
        let ends = links.iter().filter(|end| {
            let reaches = |other: &&EndLedger| other.link == end.link && other.site == account.peer;
            end.site == site && links.iter().any(|other| reaches(&other))
        });
        let ends: Vec<&EndLedger> = ends.collect();
        let mut ledger = Self {
            site: site.to_owned(),
            links: ends.iter().map(|end| end.link.clone()).collect(),
            delivered_bits: ends.iter().map(|end| end.total.get(Line::DELIVERED)).sum(),
            waiting_bits: 0,
            remainder_bits: 0,
            account,
            wrong: Vec::new(),
        };
        if let Err(error) = ledger.account.check() {
            ledger.wrong.push(error.to_string());
        }
        if !ends.is_empty() {
            ledger.compare(&ends, marks);
        }
        ledger
    }

    /// A store takes the blocks of each link in order, in whole bytes; it may know one more than was marked.
    fn compare(&mut self, ends: &[&EndLedger], marks: &Marks) {
        let mut blocks = 0;
        let mut taken = vec![0];
        for end in ends {
            let mark = marks.get(&(end.link.clone(), end.site.clone())).copied().unwrap_or(0);
            let whole: Vec<(u64, u64)> = end.stored().map(|(number, bits)| (number, bits / 8 * 8)).collect();
            blocks += whole.iter().map(|(_, bits)| bits).sum::<u64>();
            let sure: u64 = whole.iter().filter(|(number, _)| *number < mark).map(|(_, bits)| bits).sum();
            let mut prefixes = vec![sure];
            for (_, bits) in whole.iter().filter(|(number, _)| *number >= mark) {
                prefixes.push(prefixes.last().copied().unwrap_or(0) + bits);
            }
            taken = taken.iter().flat_map(|sum| prefixes.iter().map(move |prefix| sum + prefix)).collect();
        }
        let took = self.account.offered_bits.saturating_sub(self.account.relayed_bits);
        self.remainder_bits = self.delivered_bits.saturating_sub(blocks);
        self.waiting_bits = blocks.saturating_sub(took);
        if !taken.contains(&took) {
            self.wrong.push(format!("modules delivered {blocks} bits, the key store took {took}, which are no blocks"));
        }
    }

    /// Key of the pool that relays brought: all of it where no link fills the pool.
    pub fn relayed_bits(&self) -> u64 {
        if self.links.is_empty() { self.account.offered_bits } else { self.account.relayed_bits }
    }

    pub fn text(&self) -> String {
        let account = &self.account;
        let mut table = Table::new(format!("key of {} shared with {}", self.site, account.peer));
        if !self.links.is_empty() {
            let whole = self.delivered_bits;
            table.line("delivered by modules", whole, None);
            table.line("  on its way", self.waiting_bits, Some(whole));
            table.line("  less than a byte", self.remainder_bits, Some(whole));
            table.line("  taken", account.offered_bits - account.relayed_bits, Some(whole));
        }
        let whole = account.offered_bits;
        match (self.links.is_empty(), account.relayed_bits) {
            (true, _) => table.line("relayed", whole, None),
            (false, 0) => table.line("taken", whole, None),
            (false, relayed_bits) => {
                table.line("taken and relayed", whole, None);
                table.line("of it relayed", relayed_bits, Some(whole));
            }
        }
        for (name, bits) in parts(account) {
            table.line(&format!("  {name}"), bits, Some(whole));
        }
        table.end(&self.wrong)
    }
}

/// Where the bits are that a store took: each in one line.
pub fn parts(account: &PoolAccount) -> [(&'static str, u64); 13] {
    let sum = |figure: fn(&accounts::UseAccount) -> u64| account.uses().into_iter().map(figure).sum::<u64>();
    [
        ("not confirmed yet", account.pending_bits),
        ("confirmation", account.confirmation_bits),
        ("quarantined", account.quarantined_bits),
        ("abandoned", account.abandoned_bits),
        ("not assigned yet", account.unassigned_bits),
        ("given up with pool", account.voided_bits),
        ("delivered to masters", account.supply_out.handed_out_bits),
        ("delivered to slaves", account.supply_in.handed_out_bits),
        ("pads for sending", account.relay_out.handed_out_bits),
        ("pads for receiving", account.relay_in.handed_out_bits),
        ("wasted", sum(|use_| use_.wasted_bits)),
        ("expired", sum(|use_| use_.expired_bits)),
        ("left", sum(|use_| use_.left_bits)),
    ]
}

/// Lines as the ledgers of links have them.
pub struct Table(String);

impl Table {
    pub fn new(title: String) -> Self {
        Self(title + "\n")
    }

    pub fn line(&mut self, name: &str, bits: u64, whole: Option<u64>) {
        self.0 += &match whole {
            Some(whole) if whole > 0 => {
                format!("{name:<22}{bits:>20}  {:>8.3} %\n", 100.0 * bits as f64 / whole as f64)
            }
            _ => format!("{name:<22}{bits:>20}\n"),
        };
    }

    pub fn end(mut self, wrong: &[String]) -> String {
        for wrong in wrong {
            self.0 += &format!("WRONG {wrong}\n");
        }
        if wrong.is_empty() {
            self.0 += "sums exact\n";
        }
        self.0 + "\n"
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::links::ledgers as read_links;
    use super::*;
    use crate::commands::data::testing::write;

    /// A link of which both ends hold blocks of these lengths, and the account of a store that took so many bits.
    fn pool(lengths: &[usize], offered_bits: u64, mark: u64) -> PoolLedger {
        pool_with(lengths, offered_bits, 0, mark)
    }

    /// The same, with bits from relays among those that it took.
    fn pool_with(lengths: &[usize], offered_bits: u64, relayed_bits: u64, mark: u64) -> PoolLedger {
        let data = tempfile::tempdir().unwrap();
        for site in ["a", "b"] {
            write(data.path(), site, "a-b", lengths);
        }
        let links = read_links(data.path(), None).unwrap();
        let (peer, unassigned_bits) = ("b".to_owned(), offered_bits);
        let account = PoolAccount { peer, offered_bits, relayed_bits, unassigned_bits, ..Default::default() };
        let marks = Marks::from([(("a-b".to_owned(), "a".to_owned()), mark)]);
        PoolLedger::new("a", account, &links, &marks)
    }

    #[test]
    fn what_a_store_took_is_whole_blocks_in_order_and_the_rest_waits() {
        let all = pool(&[17, 40, 33], 16 + 40 + 32, 3);
        assert!(all.wrong.is_empty(), "{:?}", all.wrong);
        assert_eq!((all.delivered_bits, all.waiting_bits, all.remainder_bits), (90, 0, 2));
        for (offered, mark) in [(16, 1), (56, 1), (56, 2)] {
            let some = pool(&[17, 40, 33], offered, mark);
            assert!(some.wrong.is_empty(), "{:?}", some.wrong);
            assert_eq!(some.waiting_bits, 88 - offered);
        }
    }

    #[test]
    fn what_relays_brought_is_beside_what_modules_delivered() {
        let some = pool_with(&[17, 40, 33], 16 + 800, 800, 1);
        assert!(some.wrong.is_empty(), "{:?}", some.wrong);
        assert_eq!((some.waiting_bits, some.relayed_bits()), (72, 800));
        let text = some.text();
        assert!(text.contains("of it relayed") && text.contains("sums exact"), "{text}");
        assert_eq!(pool_with(&[17, 40, 33], 16 + 800, 799, 1).wrong.len(), 1, "a byte too much is no block");
    }

    #[test]
    fn bits_that_are_no_blocks_or_are_gone_are_found() {
        assert_eq!(pool(&[17, 40, 33], 48, 1).wrong.len(), 1);
        assert_eq!(pool(&[17, 40, 33], 16, 2).wrong.len(), 1, "a store that took less than it said");
        assert_eq!(pool(&[17, 40, 33], 96, 3).wrong.len(), 1, "a store that took more than there is");
    }

    #[test]
    fn the_lines_of_a_pool_make_its_whole() {
        let pool = pool(&[64], 64, 1);
        let text = pool.text();
        assert!(text.contains("not assigned yet") && text.contains("sums exact"), "{text}");
        assert_eq!(parts(&pool.account).iter().map(|(_, bits)| bits).sum::<u64>(), 64);
    }
}
