//! What a service in a process or container of its own is told beside its configuration: where it listens, who it
//! is, and where its peers are.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anchor::{Anchor, FolderAnchor, Unanchored};
use anyhow::{Context, Result};
use proto::anchor::v1::anchor_server::AnchorServer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::anchoring::{AnchorService, ControlAnchor};
use crate::{AllowList, Connector, Credentials, Endpoint, Role, Server, Shutdown};

/// Largest configuration file that is read, and largest directory of a network.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
const DIRECTORY_LIMIT_BYTES: u64 = 16 << 20;

/// Who keeps the ceilings of a service's stores, outside the volume that those are on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "keeper", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Anchoring {
    /// A folder of files.
    Folder { path: PathBuf },
    /// Who controls the network: it calls, and the service waits until it has.
    Control,
}

/// An anchor that can be used.
pub struct Anchored {
    pub anchor: Arc<dyn Anchor>,
    control: Option<Arc<ControlAnchor>>,
}

impl Anchored {
    fn of(anchor: impl Anchor + 'static) -> Self {
        Self { anchor: Arc::new(anchor), control: None }
    }

    /// What a service offers to who keeps its ceilings, if that is far away.
    pub fn service(&self, stop: &CancellationToken) -> Option<AnchorServer<AnchorService>> {
        Some(AnchorService::of(self.control.as_ref()?, stop))
    }
}

/// The file that `qkdnet <service> --config` reads.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceFile<C> {
    /// The service's own configuration, as the planner made it.
    pub service: C,
    pub topology: String,
    #[serde(default = "loopback")]
    pub listen: SocketAddr,
    /// Serves health without TLS here, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_listen: Option<SocketAddr>,
    /// Addresses of what the service offers beside gRPC, by name; one that is not named takes a free port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, SocketAddr>,
    /// Folder with `ca.pem`, `<name>.pem` and `<name>.key`.
    pub pki: PathBuf,
    /// Folder for address files.
    pub run_dir: PathBuf,
    /// Folder for what must outlive the process.
    pub data: PathBuf,
    /// Folder with secrets that were placed here before the first start, never written to: `links/<link>.secret` and
    /// `stores/<site>.key`. Without it they are looked for, and made, in `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// Without it, stores that are put back are noticed by their peers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchoring>,
    /// Whoever started this service starts it again when it ends: an end is no end of the run, and a failure is best
    /// met by ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restarted: bool,
    /// Where spans go if no OpenTelemetry collector is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_dir: Option<PathBuf>,
    /// Size at which a file of spans is put aside for the next; three are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_file_bytes: Option<u64>,
    /// Where peers are; one that is not named here is looked for in `run_dir`.
    #[serde(default)]
    pub peers: BTreeMap<String, String>,
    /// A file with what the services of all sites have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

impl<C: DeserializeOwned> ServiceFile<C> {
    pub fn load(path: &Path) -> Result<Self> {
        read(path, FILE_LIMIT_BYTES)
    }
}

fn read<T: DeserializeOwned>(path: &Path, limit_bytes: u64) -> Result<T> {
    let size = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    anyhow::ensure!(size <= limit_bytes, "{} is larger than a configuration can be", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_yaml::from_str(&text).with_context(|| format!("understand {}", path.display()))
}

impl<C> ServiceFile<C> {
    /// The same for another form of the service's configuration.
    pub fn map<D>(self, form: impl FnOnce(C) -> D) -> ServiceFile<D> {
        ServiceFile {
            service: form(self.service),
            topology: self.topology,
            listen: self.listen,
            health_listen: self.health_listen,
            ports: self.ports,
            pki: self.pki,
            run_dir: self.run_dir,
            data: self.data,
            secrets: self.secrets,
            anchor: self.anchor,
            restarted: self.restarted,
            span_dir: self.span_dir,
            span_file_bytes: self.span_file_bytes,
            peers: self.peers,
            directory: self.directory,
        }
    }

    /// What the services of all sites have in common; nothing where no file of it is named.
    pub fn directory<D: DeserializeOwned + Default>(&self) -> Result<D> {
        self.directory.as_ref().map_or_else(|| Ok(D::default()), |path| read(path, DIRECTORY_LIMIT_BYTES))
    }

    /// What keeps the ceilings of this service's stores. Where that is `control`, this waits until it has called: until
    /// then nobody can tell whether a store was put back. An error where the service is asked to stop meanwhile.
    pub async fn anchored(&self, name: &str, control: &str, shutdown: &Shutdown) -> Result<Anchored> {
        match &self.anchor {
            None => {
                tracing::info!("no anchor is configured: a store that is put back is noticed by its peers alone");
                Ok(Anchored::of(Unanchored))
            }
            Some(Anchoring::Folder { path }) => Ok(Anchored::of(FolderAnchor::open(path).context("open the anchor")?)),
            Some(Anchoring::Control) => self.anchored_by_control(name, control, shutdown).await,
        }
    }

    async fn anchored_by_control(&self, name: &str, control: &str, shutdown: &Shutdown) -> Result<Anchored> {
        let (anchor, waited) = (Arc::new(ControlAnchor::default()), shutdown.token().child_token());
        let allow = AllowList::new([control])?.with(Role::Control, [control])?;
        let server = self.server(name, &allow)?.drain(Duration::ZERO);
        let server = server.add_service(AnchorService::of(&anchor, &waited)).start(waited.clone()).await?;
        server.health().set_serving(false);
        tracing::info!(service = name, "waits for the operator's anchor");
        let told = anchor.told(&waited).await;
        // The service itself listens at the same address from here on.
        waited.cancel();
        server.stopped().await?;
        anyhow::ensure!(told, "asked to stop while it waited for the operator's anchor");
        tracing::info!(service = name, "the operator keeps its ceilings");
        Ok(Anchored { anchor: anchor.clone(), control: Some(anchor) })
    }

    pub fn credentials(&self, name: &str) -> Result<Credentials> {
        Credentials::from_folder(&self.pki, name).with_context(|| format!("load the certificate of {name}"))
    }

    /// A server for this service and its peers, which may become others.
    pub fn server(&self, name: &str, allow: &AllowList) -> Result<Server> {
        let server = Server::builder(name, &self.credentials(name)?, allow).listen(self.listen).run_dir(&self.run_dir);
        Ok(match self.health_listen {
            Some(address) => server.health_listen(address),
            None => server,
        })
    }

    /// The way to a peer, tried for as long as a restart may take.
    pub fn connector(&self, name: &str, peer: &str, stop: &CancellationToken) -> Result<Connector> {
        self.connector_at(name, peer, "", stop)
    }

    /// The same for a peer that may not have been in the plan yet; without an address it is where the plan says.
    pub fn connector_at(&self, name: &str, peer: &str, address: &str, stop: &CancellationToken) -> Result<Connector> {
        let endpoint = match (address, self.peers.get(peer)) {
            ("", Some(text)) => text.parse()?,
            ("", None) => Endpoint::in_run_dir(&self.run_dir, peer),
            (text, _) => text.parse()?,
        };
        let connector = Connector::new(&endpoint, peer, &self.credentials(name)?);
        Ok(connector.deadline(Duration::from_secs(3600)).stop(stop.clone()))
    }
}
