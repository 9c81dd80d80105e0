//! What applications and probes connect to: ETSI GS QKD 014 over mutual TLS, and health and metrics without.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use proto::kms::v1::{GetStatusResponse, Use};
use shell::launch::ServiceFile;
use shell::{files, pki, tls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::accounts;
use crate::grpc::{View, status};
use crate::node::Node;
use crate::pair::Lasting;
use etsi014::{CredentialFiles, Credentials, Server, health};

/// Where the two listeners are; port 0 for a free one.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub etsi014: SocketAddr,
    pub metrics: SocketAddr,
    /// Folder for address files.
    pub run_dir: PathBuf,
}

impl Addresses {
    /// Free ports of the loopback address.
    pub fn loopback(run_dir: &Path) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { etsi014: free, metrics: free, run_dir: run_dir.to_owned() }
    }

    pub fn of<C>(file: &ServiceFile<C>) -> Self {
        let free = Self::loopback(&file.run_dir);
        let listen = |port: &str, free| file.ports.get(port).copied().unwrap_or(free);
        Self { etsi014: listen("etsi014", free.etsi014), metrics: listen("metrics", free.metrics), ..free }
    }
}

/// Listeners that run.
pub struct Front {
    pub view: View,
    etsi014: etsi014::Running,
    health: health::Running,
}

impl Front {
    pub async fn start(node: &Node, pki: &Path, addresses: Addresses, stop: &CancellationToken) -> Result<Self> {
        let name = &node.config.name;
        let credentials = Credentials::from_files(CredentialFiles {
            authority: pki::authority_path(pki),
            certificate: pki::certificate_path(pki, name),
            key: pki::key_path(pki, name),
        });
        let credentials = credentials.with_context(|| format!("load the certificate of {name}"))?;
        let listener = listen(addresses.etsi014, &addresses.run_dir, &format!("{name}.etsi014"))?;
        let server = Server::new(node.supplier.clone(), credentials, node.applications.served());
        let etsi014 = server.start(listener, stop.clone()).context("serve ETSI GS QKD 014")?;
        let listener = listen(addresses.metrics, &addresses.run_dir, &format!("{name}.metrics"))?;
        let view = View {
            config: Arc::new(node.config.clone()),
            pools: node.pools.clone(),
            supplier: node.supplier.clone(),
            applications: node.applications.clone(),
            etsi014: etsi014.address(),
            metrics: listener.local_addr().context("find the address of the metrics")?,
            counters: etsi014.counters(),
        };
        let probe = Arc::new(Probe { view: view.clone() });
        let health = health::start(listener, probe, stop.clone()).context("serve health and metrics")?;
        Ok(Self { view, etsi014, health })
    }

    pub async fn stopped(self) {
        self.etsi014.finished().await;
        self.health.finished().await;
    }
}

/// Listens, on the port of an earlier start where a free one will do, so that applications find it again.
fn listen(address: SocketAddr, run_dir: &Path, name: &str) -> Result<TcpListener> {
    let file = run_dir.join(format!("{name}.addr"));
    let before = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<SocketAddr>().ok());
    let again = before.filter(|before| address.port() == 0 && before.ip() == address.ip());
    let bound = match again {
        Some(before) => tls::bind(before).or_else(|_| tls::bind(address)),
        None => tls::bind(address),
    };
    let listener = bound.with_context(|| format!("listen on {address}"))?;
    let text = format!("{}\n", listener.local_addr().context("find the own address")?);
    files::write_durably(&file, text.as_bytes()).with_context(|| format!("write {}", file.display()))?;
    Ok(listener)
}

struct Probe {
    view: View,
}

impl health::Probe for Probe {
    fn health(&self) -> health::Health {
        let store = self.view.store();
        let mut reasons: Vec<String> =
            store.stopped().map(|why| format!("the key store has stopped: {why}")).into_iter().collect();
        for pool in self.view.pools.all() {
            if let Some(known) = pool.rolled_back() {
                let put_back = Lasting::RolledBack { site: known.site, why: known.why };
                reasons.push(format!("no key shared with {} is used: {put_back}", pool.peer));
            }
            if let Some(theirs) = pool.peer_version() {
                reasons.push(format!("no key is made with {}: {}", pool.peer, Lasting::PeerVersion { theirs }));
            }
        }
        reasons.extend(store.anchor_failing().map(|why| format!("the anchor of the key store is not raised: {why}")));
        health::Health { reasons }
    }

    fn metrics(&self) -> String {
        metrics(&status(&self.view))
    }

    fn ledger(&self) -> serde_json::Value {
        serde_json::to_value(accounts::of_store(self.view.store())).unwrap_or_default()
    }
}

/// The text format of Prometheus.
fn metrics(status: &GetStatusResponse) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in rows {
            let _ = writeln!(text, "{name}{{site=\"{}\"{labels}}} {value}", status.site);
        }
    };
    let one = |value: u64| [(String::new(), value)];
    metric("qkd_kms_keys_supplied_total", "counter", "Keys handed to masters.", &one(status.keys_supplied));
    metric("qkd_kms_keys_fetched_total", "counter", "Keys handed to slaves.", &one(status.keys_fetched));
    metric("qkd_kms_requests_total", "counter", "Requests of ETSI GS QKD 014.", &one(status.requests));
    metric("qkd_kms_requests_refused_total", "counter", "Requests that were refused.", &one(status.requests_refused));
    let pools = |value: fn(&proto::kms::v1::PoolStatus) -> u64| -> Vec<(String, u64)> {
        status.pools.iter().map(|pool| (format!(",peer=\"{}\"", pool.site), value(pool))).collect()
    };
    metric("qkd_pool_connected", "gauge", "Whether the peer's key store answers.", &pools(|p| p.connected.into()));
    let put_back = pools(|p| p.rolled_back.is_some().into());
    metric("qkd_pool_rolled_back", "gauge", "Whether a store of the two sites was put back.", &put_back);
    metric("qkd_pool_confirmed_bits_total", "counter", "Bits that both sites hold.", &pools(|p| p.confirmed_bits));
    metric("qkd_pool_unassigned_bits", "gauge", "Bits that no use has been given.", &pools(|p| p.unassigned_bits));
    metric("qkd_pool_quarantined_bits_total", "counter", "Bits that differed.", &pools(|p| p.quarantined_bits));
    metric("qkd_pool_abandoned_bits_total", "counter", "Bits that one site alone had.", &pools(|p| p.abandoned_bits));
    let uses = |value: fn(&proto::kms::v1::UseStatus) -> u64| -> Vec<(String, u64)> {
        let of_pool = |pool: &proto::kms::v1::PoolStatus| -> Vec<(String, u64)> {
            let row = |counted: &proto::kms::v1::UseStatus| {
                (format!(",peer=\"{}\",use=\"{}\"", pool.site, use_label(counted.purpose())), value(counted))
            };
            pool.uses.iter().map(row).collect()
        };
        status.pools.iter().flat_map(of_pool).collect()
    };
    metric("qkd_pool_left_bits", "gauge", "Bits ready for a use.", &uses(|u| u.left_bits));
    metric("qkd_pool_handed_out_bits_total", "counter", "Bits handed out.", &uses(|u| u.handed_out_bits));
    metric("qkd_pool_wasted_bits_total", "counter", "Bits never to be handed out.", &uses(|u| u.wasted_bits));
    metric("qkd_pool_expired_bits_total", "counter", "Bits that expired.", &uses(|u| u.expired_bits));
    text
}

pub(crate) fn use_label(use_: Use) -> &'static str {
    match use_ {
        Use::SupplyOut => "supply-out",
        Use::SupplyIn => "supply-in",
        Use::RelayOut => "relay-out",
        Use::RelayIn => "relay-in",
        Use::Unspecified => "",
    }
}
