//! One service as a process of its own: a runtime, telemetry, and the right entry point.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use shell::Shutdown;
use shell::launch::ServiceFile;
use telemetry::TelemetryConfig;

use crate::failure::Failure;
use crate::guard;
use crate::verdict::{Kind, Reason};

/// Time that a service gets to end in order.
const DRAIN: Duration = Duration::from_secs(10);

/// The configuration of a service that runs as a process of its own.
#[derive(Clone, Copy, Debug)]
pub struct ServiceArgs<'a> {
    pub config: &'a Path,
    /// End when standard input does: whoever started this has gone.
    pub tied: bool,
}

pub fn source(args: ServiceArgs<'_>, log: Option<&str>) -> Result<(), Failure> {
    let file: ServiceFile<topology::plan::SourceConfig> = load(args)?;
    let telemetry = service_telemetry(&file, &file.service.name, log);
    let failpoints = failpoints(&file, &file.service.name, file.service.faults_allowed);
    serve(telemetry, &failpoints, async |shutdown| source::serve(file, shutdown).await)
}

pub fn detector(args: ServiceArgs<'_>, log: Option<&str>) -> Result<(), Failure> {
    let file: ServiceFile<topology::plan::DetectorConfig> = load(args)?;
    let telemetry = service_telemetry(&file, &file.service.module.name, log);
    let failpoints = failpoints(&file, &file.service.module.name, file.service.module.faults_allowed);
    serve(telemetry, &failpoints, async |shutdown| detector::serve(file, shutdown).await)
}

pub fn transmitter(args: ServiceArgs<'_>, log: Option<&str>) -> Result<(), Failure> {
    let file: ServiceFile<topology::plan::TransmitterConfig> = load(args)?;
    let telemetry = service_telemetry(&file, &file.service.module.name, log);
    let failpoints = failpoints(&file, &file.service.module.name, file.service.module.faults_allowed);
    serve(telemetry, &failpoints, async |shutdown| transmitter::serve(file, shutdown).await)
}

pub fn channel(args: ServiceArgs<'_>, log: Option<&str>) -> Result<(), Failure> {
    let file: ServiceFile<topology::plan::ChannelConfig> = load(args)?;
    let telemetry = service_telemetry(&file, &file.service.name, log);
    let failpoints = failpoints(&file, &file.service.name, file.service.faults_allowed);
    serve(telemetry, &failpoints, async |shutdown| channel::serve(file, shutdown).await)
}

pub fn kms(args: ServiceArgs<'_>, log: Option<&str>) -> Result<(), Failure> {
    let file: ServiceFile<topology::plan::KmsConfig> = load(args)?;
    let telemetry = service_telemetry(&file, &file.service.name, log);
    let failpoints = failpoints(&file, &file.service.name, file.service.faults_allowed);
    serve(telemetry, &failpoints, async |shutdown| kms::serve(file, shutdown).await)
}

pub fn relay(args: ServiceArgs<'_>, log: Option<&str>) -> Result<(), Failure> {
    let file: ServiceFile<topology::plan::RelayConfig> = load(args)?;
    let telemetry = service_telemetry(&file, &file.service.name, log);
    let failpoints = failpoints(&file, &file.service.name, file.service.faults_allowed);
    serve(telemetry, &failpoints, async |shutdown| relay::serve(file, shutdown).await)
}

pub fn pacer(args: ServiceArgs<'_>, log: Option<&str>) -> Result<(), Failure> {
    let file: ServiceFile<topology::plan::PacerConfig> = load(args)?;
    let telemetry = service_telemetry(&file, &file.service.name, log);
    let failpoints = failpoints(&file, &file.service.name, file.service.faults_allowed);
    serve(telemetry, &failpoints, async |shutdown| pacer::serve(file, shutdown).await)
}

fn load<C: serde::de::DeserializeOwned>(args: ServiceArgs<'_>) -> Result<ServiceFile<C>, Failure> {
    if args.tied {
        std::thread::spawn(end_with_standard_input);
    }
    ServiceFile::load(args.config).map_err(bad_config)
}

/// Asks this process to end, as whoever started it would have done, once that one has gone.
fn end_with_standard_input() {
    // An error is an end as well.
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}

fn bad_config(error: anyhow::Error) -> Failure {
    Failure::bad_input(shell::chain(&error).to_string())
        .hint("the file is what `qkdnet up --isolation process` writes for each service")
}

/// Telemetry of a process that was started with this file.
pub fn service_telemetry<C>(file: &ServiceFile<C>, service: &str, log: Option<&str>) -> TelemetryConfig {
    let mut config = telemetry(service, &file.topology, file.span_dir.clone(), log);
    if let Some(bytes) = file.span_file_bytes {
        config.span_file_limit_bytes = bytes;
    }
    config
}

/// Telemetry of one process.
pub fn telemetry(service: &str, topology: &str, span_dir: Option<PathBuf>, log: Option<&str>) -> TelemetryConfig {
    let mut config = TelemetryConfig::new(service);
    config.topology = Some(topology.to_owned());
    config.span_dir = span_dir;
    if let Some(log) = log {
        config.log_filter = log.to_owned();
    }
    config
}

/// Runs a short future on a runtime of its own.
pub fn briefly<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    Ok(runtime.block_on(work))
}

/// Runs a future on a runtime of its own, with telemetry that is written out at the end.
pub fn block_on<T>(config: &TelemetryConfig, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let (result, _) = block_on_told(config, work)?;
    Ok(result)
}

/// As [`block_on`]; with what of the telemetry did not reach its place.
pub fn block_on_told<T>(
    config: &TelemetryConfig,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Vec<Reason>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start a runtime")?;
    let guard = {
        let _entered = runtime.enter();
        telemetry::init(config).context("start telemetry")?
    };
    // Services say why it is not.
    let _ = guard::lock();
    let result = runtime.block_on(work);
    let lost = runtime.block_on(guard.shutdown());
    lost.iter().for_each(|lost| tracing::warn!("{lost}"));
    // Whatever still waits for a peer has nothing left to say.
    runtime.shutdown_background();
    Ok((result?, lost.into_iter().map(|lost| Reason::new(Kind::SideOutput, lost)).collect()))
}

/// A service is looked after so soon at first, while it starts, and so rarely later.
const SMALL_AT_FIRST: Duration = Duration::from_secs(1);
const SMALL_AT_LAST: Duration = Duration::from_secs(60);

/// Gives back the pages of the program that a process does not use, for as long as it runs.
pub async fn stay_small() {
    let mut pause = SMALL_AT_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        if kernels::program::release_pages().is_err() {
            return;
        }
        pause = (2 * pause).min(SMALL_AT_LAST);
    }
}

/// Whether and where failpoints of a service may be armed.
pub struct Failpoints {
    service: String,
    run_dir: PathBuf,
    allowed: bool,
}

pub fn failpoints<C>(file: &ServiceFile<C>, service: &str, allowed: bool) -> Failpoints {
    Failpoints { service: service.to_owned(), run_dir: file.run_dir.clone(), allowed }
}

/// Runs services until the process is asked to stop.
pub fn serve(
    config: TelemetryConfig,
    failpoints: &Failpoints,
    work: impl AsyncFnOnce(&Shutdown) -> anyhow::Result<()>,
) -> Result<(), Failure> {
    shell::failpoint::arm_service(&failpoints.run_dir, &failpoints.service, failpoints.allowed)
        .map_err(|error| Failure::bad_input(error.to_string()))?;
    block_on(&config, async {
        let shutdown = Shutdown::on_signals(DRAIN).context("listen for signals")?;
        if let Err(why) = guard::lock() {
            tracing::info!("memory is not locked, and key may reach a swap device: {why}");
        }
        tokio::spawn(stay_small());
        work(&shutdown).await
    })?;
    Ok(())
}
