//! What a running network tells other programs: where its key stores are, and who may ask them.
//!
//! `up` keeps `<data>/.qkdnet/network.json` as long as it runs; `qkdnet status` prints it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use proto::kms::v1::{GetStatusResponse, PoolStatus, Use, UseStatus};
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use shell::{files, pki};
use topology::document::WhenFull;
use topology::plan::Plan;

use super::Folders;
use super::keys::StoreMonitor;
use super::roster::Roster;
use super::verdict::{Kind, Reason};
use crate::snapshot::{FaultRow, LinkRow, LinkState, NetworkTimeRow, RolledBackRow, Snapshot};

const FILE: &str = "network.json";
/// The file is this much behind the network's time at most.
const TIME_SHOWN: Duration = Duration::from_secs(1);

/// A network while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Every link is locked, has stored its first block, and both its sites can hand out key of it.
    pub ready: bool,
    pub topology: String,
    /// The run can be repeated: its keys are worthless.
    pub seeded: bool,
    pub sites: Vec<SiteAccess>,
    /// Which applications can never share key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_path: Vec<String>,
    /// Process that runs the network.
    pub pid: u32,
    /// What is older than what was done with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolled_back: Vec<RolledBackRow>,
    /// Links that make no key before somebody does something, and pools that are full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// The one time of its links, where there are several.
    #[serde(rename = "networkTime", default, skip_serializing_if = "Option::is_none")]
    pub network_time: Option<NetworkTimeRow>,
    /// What goes wrong on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultRow>,
    /// Whom to tell of faults; nobody where the topology allows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<Roster>,
}

/// A link, a pair of key stores, or a pool, in a state that lasts until a person does something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub link: String,
    pub state: String,
    /// What to do.
    pub way_out: String,
}

fn waiting(link: &LinkRow) -> Option<Waiting> {
    let way_out = link.state.way_out()?.to_owned();
    Some(Waiting { link: link.name.clone(), state: link.state.name().to_owned(), way_out })
}

/// Key stores that have no dialogue because they speak different versions.
fn other_versions(status: &GetStatusResponse) -> Vec<Waiting> {
    let one = |pool: &PoolStatus| Waiting {
        link: format!("key store of {} with that of {}", status.site, pool.site),
        state: LinkState::PeerVersion.name().to_owned(),
        way_out: pool.peer_version.clone(),
    };
    status.pools.iter().filter(|pool| !pool.peer_version.is_empty()).map(one).collect()
}

/// Pools that are full. One that key expires of has room in a moment, and is none.
fn full_pools(status: &GetStatusResponse, when_full: WhenFull) -> Vec<Waiting> {
    let links = if when_full == WhenFull::Dark { "are dark" } else { "wait" };
    let one = |pool: &PoolStatus| Waiting {
        link: format!("pool of {} with {}", status.site, pool.site),
        state: "full".to_owned(),
        way_out: format!(
            "its links {links} until applications take key of it; `keyManagement.whenFull: expire` gives up the oldest \
             key instead"
        ),
    };
    status.pools.iter().filter(|pool| pool.waiting_bits > 0).map(one).collect()
}

/// How an application reaches the key store of its site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteAccess {
    pub site: String,
    pub kme_id: String,
    /// Of ETSI GS QKD 014.
    pub url: String,
    /// Health and metrics, without TLS.
    pub metrics_url: String,
    /// Certificate of the authority that the key store's certificate is from.
    pub ca: PathBuf,
    pub saes: Vec<SaeAccess>,
}

/// What an application proves itself with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SaeAccess {
    pub id: String,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Network {
    pub fn of(plan: &Plan, folders: &Folders, stores: &[StoreMonitor], snapshot: &Snapshot) -> Result<Self> {
        let pki = std::path::absolute(&folders.pki).context("find the certificates")?;
        let saes_folder = pki::applications_path(&pki);
        let sites = plan.key_stores().filter_map(|config| {
            let status = stores.iter().find(|store| store.site == config.site)?.latest.borrow().clone();
            let sae = |id: &String| SaeAccess {
                id: id.clone(),
                cert: pki::certificate_path(&saes_folder, id),
                key: pki::key_path(&saes_folder, id),
            };
            Some(SiteAccess {
                site: config.site.clone(),
                kme_id: config.name.clone(),
                url: format!("https://{}", status.etsi014_address),
                metrics_url: format!("http://{}", status.metrics_address),
                ca: pki::authority_path(&pki),
                saes: config.saes.iter().map(sae).collect(),
            })
        });
        let when_full = plan.key_stores().next().map_or(WhenFull::default(), |config| config.supply.when_full);
        Ok(Self {
            ready: snapshot.ready() && stores.iter().all(|store| supplies(&store.latest.borrow())),
            topology: plan.topology.clone(),
            seeded: plan.repeatable,
            sites: sites.collect(),
            no_path: plan.no_path.clone(),
            pid: std::process::id(),
            rolled_back: snapshot.rolled_back.clone(),
            waiting: snapshot
                .links
                .iter()
                .filter_map(waiting)
                .chain(stores.iter().flat_map(|store| other_versions(&store.latest.borrow())))
                .chain(stores.iter().flat_map(|store| full_pools(&store.latest.borrow(), when_full)))
                .collect(),
            network_time: snapshot.network_time.clone(),
            faults: snapshot.faults.clone(),
            roster: None,
        })
    }

    pub fn controlled_by(self, roster: Option<Roster>) -> Self {
        Self { roster, ..self }
    }

    /// The network that runs on this data; nothing where none does.
    pub fn read(data: &Path) -> Result<Option<Self>> {
        let path = path(data);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let network: Self = serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
        // A run that was killed could not take its file away.
        let alive = Pid::from_raw(network.pid.cast_signed()).is_some_and(|pid| test_kill_process(pid).is_ok());
        Ok(alive.then_some(network))
    }
}

/// Whether key of every link of the site can be handed out.
fn supplies(status: &GetStatusResponse) -> bool {
    let granted = |counted: &UseStatus| counted.purpose() == Use::SupplyOut && counted.granted_bits > 0;
    let adjacent = |pool: &&PoolStatus| pool.adjacent;
    !status.pools.is_empty()
        && status.pools.iter().filter(adjacent).all(|pool| pool.connected && pool.uses.iter().any(granted))
}

fn path(data: &Path) -> PathBuf {
    data.join(".qkdnet").join(FILE)
}

/// Keeps the file true, and takes it away at the end.
pub struct Announcement {
    path: PathBuf,
    said: Option<Network>,
    /// When it was written.
    at: Option<Instant>,
    /// Why the file is not true at present.
    failed: Option<String>,
}

impl Announcement {
    pub fn new(folders: &Folders) -> Self {
        Self { path: path(&folders.data), said: None, at: None, failed: None }
    }

    /// Tries until it succeeds: a network does not end because its status cannot be written.
    pub fn say(&mut self, network: Network) {
        if self.said.as_ref() == Some(&network) {
            return;
        }
        // Time goes on at every look, and each write waits for the disk.
        let only_time = self.said.as_ref().is_some_and(|said| {
            let pacer = |network: &Network| network.network_time.as_ref().map(|time| time.pacer);
            let network_time = said.network_time.clone();
            pacer(said) == pacer(&network) && *said == Network { network_time, ..network.clone() }
        });
        if only_time && self.at.is_some_and(|at| at.elapsed() < TIME_SHOWN) {
            return;
        }
        match self.write(&network) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    tracing::info!(path = %self.path.display(), "the network's status is written again");
                }
                (self.said, self.at) = (Some(network), Some(Instant::now()));
            }
            Err(error) => {
                let why = shell::chain(&error).to_string();
                if self.failed.as_ref() != Some(&why) {
                    tracing::warn!("{why}; the network runs on, and `qkdnet status` says what was true before");
                }
                self.failed = Some(why);
            }
        }
    }

    fn write(&self, network: &Network) -> Result<()> {
        let text = serde_json::to_string_pretty(network)?;
        let written = files::write_durably(&self.path, text.as_bytes());
        written.with_context(|| format!("write the network's status, {}", self.path.display()))
    }

    /// Why the file was not true in the end.
    pub fn trouble(&self) -> Option<Reason> {
        self.failed.as_ref().map(|why| Reason::new(Kind::SideOutput, why.clone()))
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if self.said.is_some() {
            // Whoever reads it finds the process gone.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
