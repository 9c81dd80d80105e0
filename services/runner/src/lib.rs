//! Running a network on this machine: the same planned services as tasks of this process, as processes or as
//! containers, watched through the same monitors.
//!
//! * [`start`] starts the services of a plan in a [`Place`] (`tasks`, `process`, [`containers`]); [`watch()`] follows them to
//!   their end, shows them to an [`Audience`](watch::Audience) as [`snapshot`]s and gives a [`verdict`].
//! * [`replay`]: recordings in place of light. [`verify`]: what was measured beside what was published.
//! * [`runtime`]: one service as a process of its own. [`hosted`]: several in one process.
//! * [`Folders`], [`lock`], [`anchors`]: what a run has on the disk. [`network`], [`roster`]: who else finds it there.
//!
//! Nothing here knows how commands are typed or how things are printed.

pub mod anchors;
mod asked;
pub mod containers;
pub mod down;
mod drain;
mod earlier;
mod ends;
mod events;
pub mod failure;
mod faults;
pub mod guard;
pub mod hosted;
mod judge;
mod keys;
mod life;
pub mod lock;
mod memory;
pub mod network;
pub mod pace;
mod process;
pub mod replay;
mod rolled_back;
pub mod roster;
mod rows;
pub mod runtime;
pub mod snapshot;
mod tasks;
pub mod verdict;
pub mod verify;
pub mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use distill::config::Side;
use futures::future::OptionFuture;
use module::Monitor;
use module::recording::Sessions;
use photonics::tagfile::Format;
use shell::files;
use shell::launch::ServiceFile;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::{DetectorConfig, Directory, ModuleConfig, Plan, Receiver, ServiceConfig, TransmitterConfig};
use topology::quantity::Duration;

use self::anchors::Anchors;
pub use self::failure::Failure;
use self::keys::{RelayMonitor, StoreMonitor};
use self::lock::Lock;
use self::verdict::{Kind, Reason};
pub use self::watch::watch;

/// Directory of span files inside a data directory. Not a DNS label, so no site can have this name.
pub const SPANS_DIR: &str = "_spans";

/// Where a run keeps what is not a site's own: certificates, address files, logs, spans.
pub struct Folders {
    pub data: PathBuf,
    pub pki: PathBuf,
    pub run: PathBuf,
    pub logs: PathBuf,
    pub spans: PathBuf,
}

impl Folders {
    /// Names of sites never start with a dot, so nothing collides.
    pub fn of(data: &Path) -> Self {
        let own = data.join(".qkdnet");
        Self {
            data: data.to_owned(),
            pki: own.join("pki"),
            run: own.join("run"),
            logs: own.join("logs"),
            spans: data.join(SPANS_DIR),
        }
    }

    pub fn create(&self) -> Result<()> {
        for folder in [&self.data, &self.pki, &self.run, &self.logs, &self.spans] {
            files::create_private_folder(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        Ok(())
    }
}

/// Raw time tags, and choices of transmitters, to keep while a network runs.
#[derive(Clone, Debug)]
pub struct Recording {
    pub folder: PathBuf,
    pub format: Format,
    /// How the names of files of tags end.
    pub extension: &'static str,
    /// As many frames as make this time.
    pub record_for: Duration,
    pub bytes: u64,
}

impl Recording {
    /// The file of one detector node.
    pub fn path(&self, link: &str, site: &str) -> PathBuf {
        self.folder.join(format!("{link}.{site}.{}", self.extension))
    }

    /// The file of a transmitter, which is raw key.
    pub fn choices_path(&self, link: &str, site: &str) -> PathBuf {
        self.folder.join(format!("{link}.{site}.choices"))
    }

    fn frames(&self, module: &ModuleConfig) -> u64 {
        self.record_for.rounded().div_ceil(module.epoch_ps)
    }

    /// What the detector node of a service begins to write; of a link of pulses its sessions, too.
    fn recorder(&self, config: &DetectorConfig) -> Result<detector::Recorder> {
        let path = self.path(&config.module.link, &config.module.site);
        let frames = self.frames(&config.module);
        let recorder = detector::Recorder::create(&path, self.format, frames, self.bytes)?;
        match &config.receiver {
            Receiver::Prepared(_) => {
                let head = replay::sessions_of_tags(&config.module);
                let sessions = Sessions::create(&sessions_path(&path), &head, frames)?;
                Ok(recorder.with_sessions(sessions))
            }
            Receiver::Entangled(_) => Ok(recorder),
        }
    }

    /// What a transmitter begins to write.
    fn choices(&self, config: &TransmitterConfig) -> Result<Sessions> {
        let path = self.choices_path(&config.module.link, &config.module.site);
        Sessions::create(&path, &replay::sessions_of_choices(config), self.frames(&config.module))
    }

    /// What is there already is never touched.
    pub fn refuse_to_overwrite(&self, plan: &Plan) -> Result<(), Failure> {
        let tags = plan.detectors().map(|detector| self.path(&detector.module.link, &detector.module.site));
        let transmitters = plan.transmitters().map(|transmitter| &transmitter.module);
        let choices = transmitters.map(|module| self.choices_path(&module.link, &module.site));
        for path in tags.flat_map(|path| [sessions_path(&path), path]).chain(choices) {
            module::recording::refuse_to_overwrite(&path).map_err(|error| {
                Failure::bad_input(shell::chain(&error).to_string())
                    .hint("recordings are not overwritten: give another `--record`")
            })?;
        }
        Ok(())
    }
}

/// Where the sessions of a receiver's tags are: beside them.
pub fn sessions_path(tags: &Path) -> PathBuf {
    tags.with_extension("sessions")
}

/// One end of a link, as the run sees it.
pub struct End {
    pub link: String,
    pub site: String,
    /// It corrects its string, and so knows the figures of the link.
    pub corrects: bool,
    pub monitor: Arc<Monitor>,
}

impl End {
    fn new(config: &ModuleConfig, monitor: Arc<Monitor>) -> Self {
        let corrects = config.protocol.side() == Side::Corrector;
        Self { link: config.link.clone(), site: config.site.clone(), corrects, monitor }
    }
}

/// A network that runs.
pub struct Running {
    pub ends: Vec<End>,
    /// Ends the light; what is under way is finished.
    pub drain: CancellationToken,
    /// Ends everything at once.
    pub stop: CancellationToken,
    /// Key stores, if the plan has any.
    pub stores: Vec<StoreMonitor>,
    /// Relays, if it has any.
    pub relays: Vec<RelayMonitor>,
    /// What keeps the sources at one time, if the plan has it.
    pub pacer: Option<pace::PaceMonitor>,
    /// The modules' tasks; when all have ended, so has the run.
    pub nodes: JoinSet<Result<()>>,
    /// Everything else.
    pub others: JoinSet<Result<()>>,
    /// Faults that begin and end.
    pub faults: faults::Feed,
    /// Whom to tell of faults; nobody where the topology allows none.
    pub roster: Option<roster::Roster>,
    pub held: Held,
}

/// What a run has from before its first service starts until its end.
pub struct Held {
    /// An interrupt never leaves services behind.
    pub interrupts: Interrupts,
    /// Why nobody keeps ceilings of stores, where somebody should.
    pub unanchored: Option<String>,
    /// Nobody else runs a network on this data.
    _lock: Lock,
}

/// Requests to end: Ctrl-C, the SIGTERM of a supervisor, and the SIGHUP of a terminal that goes.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// Not under `nohup`, which asks that the end of a terminal be no end.
    hangup: Option<Signal>,
}

impl Interrupts {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: shell::shutdown::hangups()?,
        })
    }

    pub async fn recv(&mut self) -> Option<()> {
        tokio::select! {
            asked = self.interrupt.recv() => asked,
            asked = self.terminate.recv() => asked,
            Some(asked) = OptionFuture::from(self.hangup.as_mut().map(Signal::recv)) => asked,
        }
    }
}

/// Where each service runs.
#[derive(Clone, Debug)]
pub enum Place {
    Tasks,
    Process,
    Containers(containers::Containers),
}

/// What to start beside the plan.
pub struct Start<'a> {
    pub plan: &'a Plan,
    pub folders: &'a Folders,
    pub place: Place,
    pub recording: Option<Recording>,
    /// Recordings that take the place of light.
    pub replay: Option<replay::Replay>,
    /// Who keeps the ceilings of stores outside the data.
    pub anchors: Anchors,
}

/// Starts every service of the plan.
pub async fn start(start: &Start<'_>) -> Result<Running> {
    anyhow::ensure!(
        start.recording.is_none() || matches!(start.place, Place::Tasks),
        "time tags are recorded by a run with `--isolation tasks` alone"
    );
    start.folders.create()?;
    let lock = Lock::take(start.folders)?;
    if let Some(replay) = &start.replay {
        replay.claim(start.folders)?;
    }
    place_secrets(start.plan, &start.folders.data)?;
    let held = Held {
        interrupts: Interrupts::listen().context("listen for interrupts")?,
        unanchored: start.anchors.missing().map(str::to_owned),
        _lock: lock,
    };
    match &start.place {
        Place::Tasks => tasks::start(start, held).await,
        Place::Process => process::start(start, held).await,
        Place::Containers(containers) => containers::start(start, containers, held).await,
    }
}

/// Where the services of all sites find what they have in common, in the folder of the run.
const DIRECTORY_FILE: &str = "directory.yaml";

/// What a service on this machine is told beside its configuration.
fn local_file(start: &Start<'_>) -> ServiceFile<()> {
    ServiceFile {
        service: (),
        topology: start.plan.topology.clone(),
        listen: std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0)),
        health_listen: None,
        ports: Default::default(),
        pki: start.folders.pki.clone(),
        run_dir: start.folders.run.clone(),
        data: start.folders.data.clone(),
        secrets: None,
        anchor: start.anchors.anchoring(),
        restarted: false,
        span_dir: Some(start.folders.spans.clone()),
        span_file_bytes: None,
        peers: Default::default(),
        directory: Some(start.folders.run.join(DIRECTORY_FILE)),
    }
}

/// Writes what the services of all sites have in common, for those in processes and containers.
fn write_directory(directory: &Directory, path: &Path) -> Result<()> {
    let text = serde_yaml::to_string(directory).context("write the directory of the network")?;
    files::write_durably(path, text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// The text of the file that a service reads.
fn service_file(frame: ServiceFile<()>, config: &ServiceConfig) -> Result<String> {
    let text = match config {
        ServiceConfig::Source(config) => serde_yaml::to_string(&frame.map(|()| config.as_ref())),
        ServiceConfig::Detector(config) => serde_yaml::to_string(&frame.map(|()| config.as_ref())),
        ServiceConfig::Transmitter(config) => serde_yaml::to_string(&frame.map(|()| config.as_ref())),
        ServiceConfig::Channel(config) => serde_yaml::to_string(&frame.map(|()| config.as_ref())),
        ServiceConfig::Kms(config) => serde_yaml::to_string(&frame.map(|()| config.as_ref())),
        ServiceConfig::Relay(config) => serde_yaml::to_string(&frame.map(|()| config.as_ref())),
        ServiceConfig::Pacer(config) => serde_yaml::to_string(&frame.map(|()| config.as_ref())),
    };
    text.context("write a configuration")
}

/// Gives the two ends of every link their first, equal authentication secret, if they have none. It comes from the
/// system's randomness, never from the run's seed.
fn place_secrets(plan: &Plan, data: &Path) -> Result<()> {
    for link in &plan.links {
        let ends: Vec<_> = plan.channels().filter(|channel| channel.link == link.name).collect();
        // An end that has lost its own is told when it starts: to give both a fresh one is somebody's decision.
        if ends.iter().any(|end| channel::has_secret(data, &end.site, &end.link)) {
            continue;
        }
        let paths: Vec<PathBuf> = ends.iter().map(|c| channel::secret_path(data, &c.site, &c.link)).collect();
        let Some(first) = ends.first() else { continue };
        let secret = channel::new_secret(first.reserve_bits).context("draw the authentication secret")?;
        for path in &paths {
            if let Some(folder) = path.parent() {
                files::create_private_folder(folder).with_context(|| format!("create {}", folder.display()))?;
            }
            files::write_durably(path, &secret).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Refuses data whose links count in other epochs than they would go on in.
pub fn same_epochs(plan: &Plan, data: &Path) -> Result<(), Failure> {
    for module in plan.modules() {
        let ModuleConfig { link, site, epoch_ps: asked_ps, .. } = module;
        let before_ps = module::vault::epoch_ps(data, site, link)?;
        if let Some(before_ps) = before_ps.filter(|before_ps| before_ps != asked_ps) {
            let why = module::vault::OtherEpoch { before_ps, asked_ps: *asked_ps };
            let what = format!("{} has data of link `{link}`, and {why}", data.display());
            let hint = "take another `--data` directory, or give the link (or the run) its epoch back";
            return Err(Failure::bad_input(what).hint(hint));
        }
    }
    Ok(())
}

/// Sets the end of a limited run behind what its sites have already seen, so that a run on the same data continues.
pub fn continue_after(plan: &mut Plan, data: &Path) -> Result<Seen> {
    let epochs = epochs_seen(plan, data)?;
    let begins = plan.begins(&epochs);
    plan.shift_limits(|link| begins.get(link).copied().unwrap_or(0));
    Ok(Seen::of(plan, &epochs))
}

/// How far the links have come, together.
pub struct Seen {
    /// Simulated time of the furthest.
    pub furthest_ps: u64,
    /// One of them has come to the end of time tags.
    pub ended: bool,
}

impl Seen {
    fn of(plan: &Plan, epochs: &BTreeMap<String, u64>) -> Self {
        let of_link = plan.links.iter().map(|link| (link.epoch_ps, epochs.get(&link.name).copied().unwrap_or(0)));
        let furthest_ps = of_link.clone().map(|(epoch_ps, epochs)| epochs.saturating_mul(epoch_ps)).max().unwrap_or(0);
        Self { furthest_ps, ended: of_link.into_iter().any(|(epoch_ps, epochs)| epochs >= plan.tags_end_ps / epoch_ps) }
    }
}

/// Epochs that each link has already used.
fn epochs_seen(plan: &Plan, data: &Path) -> Result<BTreeMap<String, u64>> {
    let mut seen = BTreeMap::new();
    for config in plan.modules() {
        let next = module::vault::next_epoch(data, &config.site, &config.link)?;
        let entry = seen.entry(config.link.clone()).or_insert(0u64);
        *entry = next.max(*entry);
    }
    Ok(seen)
}

/// Why, where a run has come to the end of a time tag: its keys are good, but no further light can be stamped.
pub fn tags_end(plan: &Plan, data: &Path) -> Result<Option<Reason>> {
    let seen = Seen::of(plan, &epochs_seen(plan, data)?);
    if !seen.ended {
        return Ok(None);
    }
    let reached_h = seen.furthest_ps as f64 * 1e-12 / 3600.0;
    let message = format!("time tags end: the sites' clocks have counted {reached_h:.2} hours, a tag holds 20");
    let hint = "what was distilled is kept; start again with another `--data` directory";
    Ok(Some(Reason::new(Kind::TagsEnd, message).hint(hint)))
}
