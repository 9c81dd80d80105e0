//! What the containers of one network share: names, labels, a network of the engine, and what each may see of the
//! data directory.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use shell::files;
use shell::launch::{Anchoring, ServiceFile};
use shell::pki;
use topology::plan::{Service, ServiceConfig, kms_name};
use zeroize::Zeroizing;

use super::engine::{Engine, User, volume};
use super::{Containers, ETSI014_PORT, GRPC_PORT, METRICS_PORT};
use crate::memory::limit_bytes;
use crate::{DIRECTORY_FILE, Folders, SPANS_DIR, Start, local_file, service_file, write_directory};

/// Which network, by its data directory, and which run of it.
const NETWORK_LABEL: &str = "qkdnet.dev/network";
pub const RUN_LABEL: &str = "qkdnet.dev/run";
const TOPOLOGY_LABEL: &str = "qkdnet.dev/topology";
const SERVICE_LABEL: &str = "qkdnet.dev/service";

/// Folders inside a container.
const CONFIG: &str = "/etc/qkdnet";
const DATA: &str = "/var/lib/qkdnet";
const RUN: &str = "/run/qkdnet";
const ANCHORS: &str = "/var/lib/qkdnet-anchors";

/// Docker takes names of containers up to this length, and a host name has to fit into a label.
const NAME_CHARS: usize = 63;

/// The containers of one run.
pub struct ContainerNetwork {
    pub engine: Engine,
    pub image: String,
    pub user: User,
    /// Also the name of the engine's network.
    pub name: String,
    /// Tells this run from an earlier one on the same data.
    pub run: String,
    pub logs: PathBuf,
    pub addresses: PathBuf,
    id: String,
    topology: String,
}

/// Identifies a network by its data directory, whatever is written there.
pub fn network_label(data: &Path) -> Result<String> {
    Ok(format!("{NETWORK_LABEL}={}", network_id(data)?))
}

fn network_id(data: &Path) -> Result<String> {
    let data = std::path::absolute(data).context("find the data directory")?;
    // The same folder by another name is the same network.
    let data = data.canonicalize().unwrap_or(data);
    Ok(hex(&Sha256::digest(data.as_os_str().as_encoded_bytes())[..5]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ContainerNetwork {
    pub fn new(start: &Start<'_>, containers: &Containers) -> Result<Self> {
        let mut run = [0u8; 8];
        getrandom::fill(&mut run).context("draw a name for the run")?;
        let id = network_id(&start.folders.data)?;
        let engine = containers.engine.clone();
        Ok(Self {
            user: engine.user(),
            engine,
            image: containers.image.clone(),
            name: format!("qkdnet-{}-{id}", short(&start.plan.topology, 40)),
            run: hex(&run),
            logs: start.folders.logs.clone(),
            addresses: start.folders.run.clone(),
            id,
            topology: start.plan.topology.clone(),
        })
    }

    /// What an earlier run on the same data could not take away.
    pub async fn remove_leftovers(&self) -> Result<()> {
        let removed = self.engine.remove_labelled(&format!("{NETWORK_LABEL}={}", self.id)).await;
        match removed.context("remove what an earlier run has left")? {
            0 => {}
            containers => tracing::warn!(containers, "an earlier run on this data had left containers: removed"),
        }
        Ok(())
    }

    pub async fn create(&self) -> Result<()> {
        let labels = self.labels();
        let labels = labels.iter().flat_map(|label| ["--label", label.as_str()]);
        let args: Vec<&str> = ["network", "create"].into_iter().chain(labels).chain([self.name.as_str()]).collect();
        self.engine.run(&args).await.context("make a network for the containers")?;
        Ok(())
    }

    pub fn container(&self, service: &str) -> String {
        format!("{}-{}", self.id, short(service, NAME_CHARS - self.id.len() - 1))
    }

    fn labels(&self) -> [String; 3] {
        let label = |name: &str, value: &str| format!("{name}={value}");
        [label(NETWORK_LABEL, &self.id), label(RUN_LABEL, &self.run), label(TOPOLOGY_LABEL, &self.topology)]
    }

    /// Everything that `run` of an engine is told of a service but its ports on this machine.
    pub fn arguments(&self, start: &Start<'_>, service: &Service) -> Result<Vec<String>> {
        let mut args: Vec<String> = Vec::new();
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("--name", self.container(&service.name));
        for label in self.labels().into_iter().chain([format!("{SERVICE_LABEL}={}", service.name)]) {
            option("--label", label);
        }
        option("--network", self.name.clone());
        // Peers know each other by the names of the plan, which their certificates hold.
        option("--network-alias", service.name.clone());
        option("--hostname", short(&service.name, NAME_CHARS));
        option("--user", format!("{}:{}", self.user.uid, self.user.gid));
        if let Some(namespace) = self.user.namespace {
            option("--userns", namespace.to_owned());
        }
        option("--cap-drop", "ALL".to_owned());
        option("--security-opt", "no-new-privileges".to_owned());
        let memory = limit_bytes(start.plan, service);
        option("--memory", memory.to_string());
        // No swap on top: a service that needs more than planned ends and says so.
        option("--memory-swap", memory.to_string());
        option("--pids-limit", "512".to_owned());
        option("--volume", volume(&place(start.folders, service), CONFIG, "ro")?);
        // A fault outlives the container that it ends.
        option("--volume", volume(&place(start.folders, service).join("run"), RUN, "rw")?);
        let (folder, inside) = store(start.folders, service);
        if let Some(folder) = folder {
            option("--volume", volume(&folder, &format!("{DATA}/{inside}"), "rw")?);
            if let Some(anchors) = start.anchors.folder() {
                option("--volume", volume(anchors, ANCHORS, "rw")?);
            }
        }
        option("--volume", volume(&start.folders.spans, &format!("{DATA}/{SPANS_DIR}"), "rw")?);
        for variable in passed_on() {
            option("--env", variable);
        }
        args.extend(["--read-only", "--pull", "never"].map(str::to_owned));
        Ok(args)
    }

    /// Writes what the container reads, and sees that it may write where it has to.
    pub fn prepare(&self, start: &Start<'_>, service: &Service) -> Result<()> {
        let place = place(start.folders, service);
        let pki_inside = place.join("pki");
        files::create_private_folder(&pki_inside).with_context(|| format!("create {}", pki_inside.display()))?;
        let run = place.join("run");
        files::create_private_folder(&run).with_context(|| format!("create {}", run.display()))?;
        shell::fault::clear_records(&run).context("forget the faults of an earlier run")?;
        let (folders, name) = (start.folders, &service.name);
        for path in [
            pki::authority_path(&folders.pki),
            pki::certificate_path(&folders.pki, name),
            pki::key_path(&folders.pki, name),
        ] {
            copy(&path, &pki_inside)?;
        }
        let text = service_file(inside(start, service), &service.config)?;
        write(&place.join("config.yaml"), text.as_bytes())?;
        // The same as this machine sees it, for `health` and `rekey`.
        let text = service_file(local_file(start), &service.config)?;
        write(&folders.run.join(format!("{name}.yaml")), text.as_bytes())?;
        // One file for all sites, by as many names.
        if service.link.is_none() {
            link(&shared_directory(folders), &place.join(DIRECTORY_FILE))?;
        }
        if let Some(folder) = store(folders, service).0 {
            files::create_private_folder(&folder).with_context(|| format!("create {}", folder.display()))?;
            self.give(&folder)?;
            if let Some(anchors) = start.anchors.folder() {
                self.give(anchors)?;
            }
        }
        self.give(&folders.spans)?;
        self.give(&place)
    }

    /// Gives a folder and what is in it to the containers' user, where that is not the one who runs this program.
    fn give(&self, path: &Path) -> Result<()> {
        let Some(owner) = self.user.owner else { return Ok(()) };
        let failed = || format!("give {} to user {owner}", path.display());
        std::os::unix::fs::lchown(path, Some(owner), Some(owner)).with_context(failed)?;
        if path.symlink_metadata().with_context(failed)?.is_dir() {
            for entry in std::fs::read_dir(path).with_context(failed)? {
                self.give(&entry.with_context(failed)?.path())?;
            }
        }
        Ok(())
    }
}

/// What a container finds at [`CONFIG`]: its configuration, and no other service's key.
fn place(folders: &Folders, service: &Service) -> PathBuf {
    folders.data.join(".qkdnet").join("containers").join(&service.name)
}

/// The part of the data directory that is this service's, outside and below [`DATA`].
fn store(folders: &Folders, service: &Service) -> (Option<PathBuf>, String) {
    let site = &service.site;
    let inside = match &service.config {
        ServiceConfig::Source(_) | ServiceConfig::Pacer(_) => return (None, String::new()),
        ServiceConfig::Detector(_) | ServiceConfig::Transmitter(_) | ServiceConfig::Channel(_) => {
            format!("{site}/{}", service.link.as_deref().unwrap_or_default())
        }
        ServiceConfig::Kms(_) => format!("{site}/kms"),
        ServiceConfig::Relay(_) => format!("{site}/relay"),
    };
    (Some(folders.data.join(&inside)), inside)
}

/// What a service is told beside its configuration.
fn inside(start: &Start<'_>, service: &Service) -> ServiceFile<()> {
    let anywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let ports = match service.config {
        ServiceConfig::Kms(_) => {
            [("etsi014", ETSI014_PORT), ("metrics", METRICS_PORT)].map(|(n, p)| (n.to_owned(), anywhere(p))).into()
        }
        _ => Default::default(),
    };
    let peer = |peer: &String| (peer.clone(), format!("{peer}:{GRPC_PORT}"));
    ServiceFile {
        service: (),
        topology: start.plan.topology.clone(),
        listen: anywhere(GRPC_PORT),
        health_listen: None,
        ports,
        pki: Path::new(CONFIG).join("pki"),
        run_dir: RUN.into(),
        data: DATA.into(),
        secrets: None,
        anchor: start.anchors.folder().map(|_| Anchoring::Folder { path: ANCHORS.into() }),
        restarted: false,
        span_dir: Some(Path::new(DATA).join(SPANS_DIR)),
        span_file_bytes: None,
        peers: service.connects_to.iter().map(peer).collect(),
        directory: service.link.is_none().then(|| Path::new(CONFIG).join(DIRECTORY_FILE)),
    }
}

fn shared_directory(folders: &Folders) -> PathBuf {
    folders.data.join(".qkdnet").join("containers").join(DIRECTORY_FILE)
}

/// Writes the directory of the network as containers see it, and as this machine does.
pub fn write_directories(start: &Start<'_>) -> Result<()> {
    let mut inside = start.plan.directory.clone();
    for (name, site) in &mut inside.sites {
        site.address = site.part.map(|_| format!("{}:{GRPC_PORT}", kms_name(name)));
    }
    let path = shared_directory(start.folders);
    if let Some(folder) = path.parent() {
        files::create_private_folder(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    write_directory(&inside, &path)?;
    write_directory(&start.plan.directory, &start.folders.run.join(DIRECTORY_FILE))
}

/// Variables for telemetry and logs are for the services as well.
fn passed_on() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with("OTEL_") || name == "QKDNET_LOG").collect()
}

/// A name of limited length: what is cut off leaves its hash, so that two names stay two.
fn short(name: &str, chars: usize) -> String {
    const HASH_BYTES: usize = 4;
    if name.len() <= chars {
        return name.to_owned();
    }
    let kept: String = name.chars().take(chars - 2 * HASH_BYTES - 1).collect();
    format!("{}-{}", kept.trim_end_matches('-'), hex(&Sha256::digest(name.as_bytes())[..HASH_BYTES]))
}

fn copy(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a certificate's path names no file")?;
    let content = Zeroizing::new(std::fs::read(file).with_context(|| format!("read {}", file.display()))?);
    write(&folder.join(name), &content)
}

/// Gives a file another name, in place of what had it.
fn link(file: &Path, name: &Path) -> Result<()> {
    let failed = || format!("write {}", name.display());
    match std::fs::remove_file(name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(failed),
        _ => std::fs::hard_link(file, name).with_context(failed),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    files::write_durably(path, content).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        assert_eq!(short("kms-valrose", 20), "kms-valrose");
        let (a, b) = ("x".repeat(80), format!("{}y", "x".repeat(79)));
        assert_eq!(short(&a, 50).len(), 50);
        assert_ne!(short(&a, 50), short(&b, 50));
    }

    #[test]
    fn a_network_is_known_by_its_data_directory_whatever_it_is_called() {
        let folder = std::env::temp_dir();
        let label = network_label(&folder).expect("a label");
        assert_eq!(label, network_label(&folder.join(".")).expect("a label"));
        assert_ne!(label, network_label(&folder.join("other")).expect("a label"));
    }
}
