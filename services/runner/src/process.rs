//! Every service as a process of its own, started from the same binary, watched over gRPC.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use module::Monitor;
use proto::detector::v1::WatchRequest;
use proto::detector::v1::detector_client::DetectorClient;
use proto::detector::v1::module_event::Event;
use proto::detector::v1::{LinkState, ModuleEvent};
use rustix::process::{Pid, Signal, kill_process};
use shell::{Connector, Credentials, Endpoint, failpoint, files};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::{CONTROL_IDENTITY, Service, ServiceConfig};

use super::faults::Watchers;
use super::roster::Roster;
use super::{DIRECTORY_FILE, End, Held, Running, Start, keys, local_file, pace, service_file, write_directory};

/// Wait before a service that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Time that a process gets to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(15);

pub async fn start(start: &Start<'_>, held: Held) -> Result<Running> {
    let names: Vec<String> =
        start.plan.services.iter().map(|s| s.name.clone()).chain([CONTROL_IDENTITY.to_owned()]).collect();
    keys::prepare_certificates(start, &names)?;
    let credentials = Credentials::from_folder(&start.folders.pki, CONTROL_IDENTITY)?;
    let program = std::env::current_exe().context("find this program")?;
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let (mut nodes, mut others) = (JoinSet::new(), JoinSet::new());
    let (mut ends, mut stores, mut relays, mut pacer) = (Vec::new(), Vec::new(), Vec::new(), None);
    shell::fault::clear_records(&start.folders.run).context("forget the faults of an earlier run")?;
    write_directory(&start.plan.directory, &start.folders.run.join(DIRECTORY_FILE))?;
    let (watchers, faults) = Watchers::new(&stop);
    for service in &start.plan.services {
        let config = write_config(start, service)?;
        let log = start.folders.logs.join(format!("{}.log", service.name));
        // A source that is asked to end ends the light; the others finish what is under way and end later.
        let end = if matches!(service.config, ServiceConfig::Source(_)) { drain.clone() } else { stop.clone() };
        if start.plan.faults_allowed {
            let endpoint = Endpoint::in_run_dir(&start.folders.run, &service.name);
            let connector = Connector::new(&endpoint, &service.name, &credentials).deadline(Duration::from_secs(3600));
            watchers.follow(connector.stop(stop.clone()), &mut others);
        }
        let child = Process { program: program.clone(), kind: service.config.kind(), config, log };
        others.spawn(child.supervise(service.name.clone(), end, stop.clone()));
        if let Some(config) = service.config.module() {
            let monitor = Arc::new(Monitor::new(module::initial_status(config)));
            ends.push(End::new(config, monitor.clone()));
            let endpoint = Endpoint::in_run_dir(&start.folders.run, &service.name);
            let connector = Connector::new(&endpoint, &service.name, &credentials).deadline(Duration::from_secs(3600));
            nodes.spawn(mirror(connector.stop(stop.clone()), monitor, stop.clone()));
        }
        if let ServiceConfig::Kms(config) = &service.config {
            stores.push(keys::watch_process(start, config, &credentials, &mut others, &stop, |status| status));
        }
        if let ServiceConfig::Relay(config) = &service.config {
            relays.push(keys::watch_relay_process(start, config, &credentials, &mut others, &stop));
        }
        if let ServiceConfig::Pacer(config) = &service.config {
            pacer = Some(pace::watch_process(start, config, &credentials, &mut others, &stop));
        }
    }
    let roster = start.plan.faults_allowed.then(|| Roster::of(start.plan, start.folders, |service| service));
    Ok(Running { ends, stores, relays, pacer, drain, stop, nodes, others, faults, roster, held })
}

/// The configuration file of one service.
fn write_config(start: &Start<'_>, service: &Service) -> Result<PathBuf> {
    let path = start.folders.run.join(format!("{}.yaml", service.name));
    let text = service_file(local_file(start), &service.config)?;
    files::write_durably(&path, text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// How to start one service.
struct Process {
    program: PathBuf,
    kind: &'static str,
    config: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Failpoints are armed at the first start alone, so that a service that crashed at one can go on.
    fn spawn(&self, first: bool) -> Result<Child> {
        let log = open_log(&self.log)?;
        let mut command = Command::new(&self.program);
        if !first {
            command.env_remove(failpoint::VARIABLE);
        }
        command
            .arg(self.kind)
            .arg("--config")
            .arg(&self.config)
            // Even if this process is killed, no service outlives it.
            .arg("--tied")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // An interrupt at the terminal is for whoever started the network; the services are told in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))
    }

    /// Keeps the service running until `end`, then asks it to end.
    async fn supervise(self, name: String, end: CancellationToken, stop: CancellationToken) -> Result<()> {
        let mut first = true;
        loop {
            let mut child = self.spawn(first)?;
            let _tie = child.stdin.take();
            first = false;
            let status = tokio::select! {
                status = child.wait() => status.context("wait for a service")?,
                () = end.cancelled() => return terminate(child, &stop).await,
            };
            if end.is_cancelled() {
                return Ok(());
            }
            tracing::warn!(service = name, %status, log = %self.log.display(), "service ended, starting it again");
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }
}

fn open_log(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("open {}", path.display()))
}

/// Asks a process to end and waits; one that does not end in time after `stop` is killed.
async fn terminate(mut child: Child, stop: &CancellationToken) -> Result<()> {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // A process that has just ended is no error.
        let _ = kill_process(pid, Signal::TERM);
    }
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        status = child.wait() => {
            status.context("wait for a service")?;
        }
        () = late => child.kill().await.context("kill a service")?,
    }
    Ok(())
}

/// Keeps a local monitor equal to a remote one until the remote's run has ended.
pub async fn mirror(connector: Connector, monitor: Arc<Monitor>, stop: CancellationToken) -> Result<()> {
    loop {
        let channel = tokio::select! {
            channel = connector.clone().connect() => channel?,
            () = stop.cancelled() => return Ok(()),
        };
        let mut client = shell::limited!(DetectorClient::new(channel));
        if follow(&mut client, &monitor, &stop).await {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Follows one connection; true when the run has ended.
async fn follow(
    client: &mut DetectorClient<tonic::transport::Channel>,
    monitor: &Monitor,
    stop: &CancellationToken,
) -> bool {
    let Ok(events) = client.watch(WatchRequest {}).await else { return false };
    let mut events = events.into_inner();
    // What was said before this watch began is in the status.
    if let Ok(status) = client.get_status(proto::detector::v1::GetStatusRequest {}).await {
        let status = status.into_inner();
        let ended = status.state() == LinkState::Ended;
        monitor.update(|s| *s = status);
        monitor.publish();
        if ended {
            return true;
        }
    }
    loop {
        let event = tokio::select! {
            event = events.message() => event,
            () = stop.cancelled() => return true,
        };
        let Ok(Some(ModuleEvent { event: Some(event), .. })) = event else { return false };
        match event {
            Event::Status(status) => {
                let ended = status.state() == LinkState::Ended;
                monitor.update(|s| *s = status);
                monitor.publish();
                if ended {
                    return true;
                }
            }
            Event::Note(note) => monitor.note(&note.name, &note.message),
            Event::Block(block) => monitor.block(block),
        }
    }
}
