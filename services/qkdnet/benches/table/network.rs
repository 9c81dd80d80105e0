//! A line of sites for measurements: key stores, and relays where asked for, as processes of the real binary with
//! certificates of one authority; in place of modules, blocks of random key that both ends of a link are given over
//! the modules' own stream.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{Block, GetStatusRequest, GetStatusResponse, PoolStatus, Use};
use proto::relay::v1::relay_client::RelayClient;
use serde::Serialize;
use shell::handover::Handover;
use shell::launch::ServiceFile;
use shell::{Connector, Credentials, Endpoint, duplex, pki};
use topology::document::WhenFull;
use topology::plan::{
    CONTROL_IDENTITY, KeySupply, KmsConfig, KmsModule, KmsPeer, RelayConfig, RelayNeighbour, kms_name, relay_name,
};
use zeroize::Zeroizing;

use crate::client::Place;

/// How long a service may take to do what is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);
const TOPOLOGY: &str = "bench";
/// Blocks on their way to a key store, as a module has them.
const BLOCKS_IN_FLIGHT: usize = 8;

/// What is relayed, where anything is.
#[derive(Clone, Copy)]
pub struct Relaying {
    pub transfer_bytes: u32,
    pub low_water_bytes: u64,
    pub high_water_bytes: u64,
}

pub struct Network {
    folder: tempfile::TempDir,
    sites: Vec<String>,
    services: BTreeMap<String, Service>,
}

/// A process, ended with the network whatever happens.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Network {
    /// Starts the sites, each linked to the next, and waits until all pairs of them talk.
    pub async fn start(sites: &[&str], relaying: Option<Relaying>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("qkdnet-bench-").tempdir()?;
        let mut network =
            Self { folder, sites: sites.iter().map(|site| (*site).to_owned()).collect(), services: BTreeMap::new() };
        network.prepare()?;
        for site in network.sites.clone() {
            network.spawn("kms", &kms_name(&site), &network.kms_config(&site, relaying.is_some()))?;
        }
        for site in network.sites.clone() {
            if let Some(relaying) = relaying {
                network.spawn("relay", &relay_name(&site), &network.relay_config(&site, relaying))?;
            }
        }
        for site in network.sites.clone() {
            network.until_connected(&site).await.with_context(|| format!("wait for {site}"))?;
        }
        Ok(network)
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn pki(&self) -> PathBuf {
        self.folder.path().join("pki")
    }

    /// Where the relays' spans go.
    pub fn spans(&self) -> PathBuf {
        self.folder.path().join("spans")
    }

    fn prepare(&self) -> Result<()> {
        std::fs::create_dir_all(self.run_dir())?;
        let sites = self.sites.iter();
        let mut names: Vec<String> = sites.flat_map(|site| [kms_name(site), relay_name(site)]).collect();
        names.extend(self.sites.iter().flat_map(|site| self.near(site).map(move |peer| module(site, peer))));
        names.push(CONTROL_IDENTITY.to_owned());
        let authority = pki::prepare(&self.pki(), TOPOLOGY, &names)?;
        let saes: Vec<String> = self.sites.iter().map(|site| sae(site)).collect();
        Ok(pki::prepare_applications(&self.pki(), &authority, &saes)?)
    }

    /// The sites before and after one.
    fn near(&self, site: &str) -> impl Iterator<Item = &str> {
        let at = self.sites.iter().position(|other| other == site).unwrap_or_default();
        let near = move |other: usize| other.abs_diff(at) == 1;
        self.sites.iter().enumerate().filter(move |(other, _)| near(*other)).map(|(_, site)| site.as_str())
    }

    fn kms_config(&self, site: &str, relayed: bool) -> KmsConfig {
        let adjacent = |peer: &str| self.near(site).any(|near| near == peer);
        let others = self.sites.iter().filter(|peer| *peer != site && (relayed || adjacent(peer)));
        let peers: Vec<KmsPeer> = others
            .map(|peer| KmsPeer { site: peer.clone(), service: kms_name(peer), adjacent: adjacent(peer) })
            .collect();
        let modules: Vec<KmsModule> = self
            .near(site)
            .map(|peer| KmsModule { service: module(site, peer), link: link(site, peer), peer_site: peer.to_owned() })
            .collect();
        let mut accepts: Vec<String> = modules.iter().map(|module| module.service.clone()).collect();
        accepts.extend(peers.iter().filter(|peer| peer.site.as_str() < site).map(|peer| peer.service.clone()));
        accepts.extend([relay_name(site), CONTROL_IDENTITY.to_owned()]);
        KmsConfig {
            name: kms_name(site),
            site: site.to_owned(),
            peers,
            modules,
            relay: relayed.then(|| relay_name(site)),
            relay_transfer_bytes: 1024,
            saes: vec![sae(site)],
            directory: self.sites.iter().map(|site| (sae(site), site.clone())).collect(),
            supply: KeySupply {
                key_size_bits: 256,
                key_size_min_bits: 64,
                key_size_max_bits: 8192,
                keys_per_request: 128,
                key_count_max: 10_000_000,
                additional_saes: 0,
                keys_per_second: 0,
                keys_waiting: 10_000,
                // Room for a million keys, and for those that the peer has not fetched yet.
                pool_bits: 1 << 30,
                when_full: WhenFull::Wait,
                retention_ms: 86_400_000,
                redelivery_window_ms: 0,
            },
            faults_allowed: false,
            accepts,
        }
    }

    fn relay_config(&self, site: &str, relaying: Relaying) -> RelayConfig {
        let near: Vec<&str> = self.near(site).collect();
        // The two at the ends alone want key of each other, so that what is measured goes over every hop.
        let is_first = self.sites.first().is_some_and(|first| first == site);
        let far = self.sites.last().filter(|_| is_first);
        let mut accepts: Vec<String> = near.iter().filter(|peer| **peer < site).map(|peer| relay_name(peer)).collect();
        accepts.push(CONTROL_IDENTITY.to_owned());
        let neighbour =
            |site: &&str| RelayNeighbour { site: (*site).to_owned(), service: relay_name(site), rerouted: false };
        RelayConfig {
            name: relay_name(site),
            site: site.to_owned(),
            kms: kms_name(site),
            neighbours: near.iter().map(neighbour).collect(),
            targets: far.cloned().into_iter().collect(),
            transfer_bytes: relaying.transfer_bytes,
            low_water_bytes: relaying.low_water_bytes,
            high_water_bytes: relaying.high_water_bytes,
            shares: 1,
            faults_allowed: false,
            accepts,
        }
    }

    fn file<C>(&self, service: C, span_dir: Option<PathBuf>) -> ServiceFile<C> {
        ServiceFile {
            service,
            topology: TOPOLOGY.to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            health_listen: None,
            ports: BTreeMap::new(),
            pki: self.pki(),
            run_dir: self.run_dir(),
            data: self.folder.path().join("data"),
            secrets: None,
            anchor: None,
            restarted: false,
            span_dir,
            span_file_bytes: None,
            peers: BTreeMap::new(),
            directory: None,
        }
    }

    fn spawn(&mut self, kind: &str, name: &str, config: &impl Serialize) -> Result<()> {
        let spans = (kind == "relay").then(|| self.spans());
        let path = self.run_dir().join(format!("{name}.yaml"));
        std::fs::write(&path, serde_yaml::to_string(&self.file(config, spans))?)?;
        let log = std::fs::File::create(path.with_extension("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_qkdnet"));
        command.arg(kind).arg("--config").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.services.insert(name.to_owned(), Service(command.spawn().context("start a service")?));
        Ok(())
    }

    async fn until_connected(&self, site: &str) -> Result<()> {
        let mut watch = self.kms(site).await?;
        until("the sites meet", async || Ok(watch.status().await?.pools.iter().all(|pool| pool.connected))).await
    }

    pub fn pid(&self, service: &str) -> Result<u32> {
        Ok(self.services.get(service).with_context(|| format!("no {service} runs"))?.0.id())
    }

    pub fn services(&self) -> impl Iterator<Item = (&str, u32)> {
        self.services.iter().map(|(name, service)| (name.as_str(), service.0.id()))
    }

    async fn channel(&self, identity: &str, service: &str) -> Result<tonic::transport::Channel> {
        let credentials = Credentials::from_folder(&self.pki(), identity)?;
        let endpoint = Endpoint::in_run_dir(&self.run_dir(), service);
        Ok(Connector::new(&endpoint, service, &credentials).deadline(PATIENCE).connect().await?)
    }

    pub async fn kms(&self, site: &str) -> Result<Watch> {
        let channel = self.channel(CONTROL_IDENTITY, &kms_name(site)).await?;
        Ok(Watch(shell::limited!(KmsClient::new(channel))))
    }

    pub async fn kms_status(&self, site: &str) -> Result<GetStatusResponse> {
        self.kms(site).await?.status().await
    }

    pub async fn relay_status(&self, site: &str) -> Result<proto::relay::v1::GetStatusResponse> {
        let channel = self.channel(CONTROL_IDENTITY, &relay_name(site)).await?;
        let mut client = shell::limited!(RelayClient::new(channel));
        Ok(client.get_status(proto::relay::v1::GetStatusRequest {}).await?.into_inner())
    }

    /// Where the application of a site asks, and with what.
    pub async fn place(&self, site: &str) -> Result<Place> {
        let status = self.kms_status(site).await?;
        let file = |path: PathBuf| path.display().to_string();
        let (folder, sae) = (pki::applications_path(&self.pki()), sae(site));
        Ok(Place {
            url: format!("https://{}", status.etsi014_address),
            authority: file(pki::authority_path(&self.pki())),
            certificate: file(pki::certificate_path(&folder, &sae)),
            key: file(pki::key_path(&folder, &sae)),
            sae,
        })
    }

    pub async fn feeder(&self, a: &str, b: &str) -> Result<Feeder> {
        let ends = [self.module_stream(a, b).await?, self.module_stream(b, a).await?];
        Ok(Feeder { link: link(a, b), ends, number: 0, unanswered: VecDeque::new() })
    }

    async fn module_stream(&self, site: &str, peer: &str) -> Result<Handover> {
        let channel = self.channel(&module(site, peer), &kms_name(site)).await?;
        let mut client = shell::limited!(KmsClient::new(channel));
        let stream = duplex::open(BLOCKS_IN_FLIGHT, |outgoing| async move { client.deliver(outgoing).await }).await?;
        Handover::open(stream).await
    }
}

/// Asks one key store how things stand.
#[derive(Clone)]
pub struct Watch(KmsClient<tonic::transport::Channel>);

impl Watch {
    pub async fn status(&mut self) -> Result<GetStatusResponse> {
        Ok(self.0.get_status(GetStatusRequest {}).await?.into_inner())
    }

    pub async fn pool(&mut self, peer: &str) -> Result<PoolStatus> {
        let status = self.status().await?;
        status.pools.into_iter().find(|pool| pool.site == peer).with_context(|| format!("no pool with {peer}"))
    }
}

/// Bits of a pool that masters at its site can still be given, or soon.
pub fn ready_bits(pool: &PoolStatus) -> u64 {
    let supply = pool.uses.iter().filter(|counted| counted.purpose() == Use::SupplyOut);
    pool.unassigned_bits + pool.pending_bits + supply.map(|counted| counted.left_bits).sum::<u64>()
}

/// Two modules that agree on everything.
pub struct Feeder {
    link: String,
    ends: [Handover; 2],
    number: u64,
    unanswered: VecDeque<u64>,
}

impl Feeder {
    /// Gives both ends the same random blocks; returns once they are durable at both.
    pub async fn feed(&mut self, blocks: usize, bytes: usize) -> Result<()> {
        for _ in 0..blocks {
            let mut key = Zeroizing::new(vec![0; bytes]);
            let mut id = [0; 16];
            getrandom::fill(&mut key).and_then(|()| getrandom::fill(&mut id)).context("draw random bytes")?;
            self.number += 1;
            let block = Block {
                link: self.link.clone(),
                number: self.number,
                id: id.to_vec().into(),
                key_bits: 8 * bytes as u64,
                epoch: self.number,
                ..Block::default()
            };
            for end in &mut self.ends {
                end.send(block.clone(), &key).await?;
            }
            self.unanswered.push_back(self.number);
            if self.unanswered.len() >= BLOCKS_IN_FLIGHT {
                self.taken().await?;
            }
        }
        while !self.unanswered.is_empty() {
            self.taken().await?;
        }
        Ok(())
    }

    async fn taken(&mut self) -> Result<()> {
        let first = self.unanswered.pop_front();
        for end in &mut self.ends {
            let taken = end.taken().await?;
            ensure!(Some(taken) == first, "block {taken} was taken out of turn");
        }
        Ok(())
    }
}

/// Processor time of a process so far, of all its threads.
pub fn cpu_s(pid: u32) -> Result<f64> {
    // utime and stime.
    ticks_s(&format!("/proc/{pid}/stat"), [11, 12])
}

/// Processor time of all children of this process that have ended.
pub fn children_cpu_s() -> Result<f64> {
    // cutime and cstime.
    ticks_s("/proc/self/stat", [13, 14])
}

/// Sum of two fields behind the name of a process, which are in 1/100 s.
fn ticks_s(path: &str, fields: [usize; 2]) -> Result<f64> {
    let text = std::fs::read_to_string(path)?;
    // The name, in parentheses, may hold spaces.
    let found: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks = |index: usize| found.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(fields.map(ticks).iter().sum::<f64>() / 100.0)
}

/// Waits until something is so.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let waited = async {
        while !condition().await? {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, waited).await.with_context(|| format!("never came: {what}"))?
}

fn link(a: &str, b: &str) -> String {
    format!("{}-{}", a.min(b), a.max(b))
}

fn module(site: &str, peer: &str) -> String {
    format!("module-{site}-{peer}")
}

pub fn sae(site: &str) -> String {
    format!("sae-{site}")
}
