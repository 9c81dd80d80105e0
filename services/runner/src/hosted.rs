//! Several services in one process, each with its own ports and certificates, as if each were alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shell::Shutdown;
use shell::launch::ServiceFile;
use tokio::task::JoinSet;
use topology::plan::ServiceConfig;

use crate::failure::Failure;
use crate::runtime;

type HostedFile = ServiceFile<ServiceConfig>;

/// Runs the services of these configurations, and of those in the folder.
pub fn run(configs: &[PathBuf], folder: Option<&Path>, log: Option<&str>) -> Result<(), Failure> {
    let bad = |error: anyhow::Error| Failure::bad_input(shell::chain(&error).to_string());
    let files = load(configs, folder).map_err(bad)?;
    let Some(first) = files.first() else {
        return Err(Failure::bad_input("no service to run").hint("give --config FILE or --folder DIR"));
    };
    let telemetry = runtime::service_telemetry(first, "host", log);
    let faults_allowed = files.iter().all(|file| faults_allowed(&file.service));
    let failpoints = runtime::failpoints(first, "host", faults_allowed);
    runtime::serve(telemetry, &failpoints, async |shutdown| host(files, shutdown).await)
}

fn load(configs: &[PathBuf], folder: Option<&Path>) -> Result<Vec<HostedFile>> {
    let mut paths = configs.to_owned();
    if let Some(folder) = folder {
        paths.extend(in_folder(folder)?);
    }
    paths.iter().map(|path| HostedFile::load(path)).collect()
}

/// Configurations by name. What Kubernetes keeps beside them begins with a dot.
pub fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn faults_allowed(service: &ServiceConfig) -> bool {
    match service {
        ServiceConfig::Source(config) => config.faults_allowed,
        ServiceConfig::Detector(config) => config.module.faults_allowed,
        ServiceConfig::Transmitter(config) => config.module.faults_allowed,
        ServiceConfig::Channel(config) => config.faults_allowed,
        ServiceConfig::Kms(config) => config.faults_allowed,
        ServiceConfig::Relay(config) => config.faults_allowed,
        ServiceConfig::Pacer(config) => config.faults_allowed,
    }
}

/// Runs all until they are asked to stop; one that fails ends all, so that the watcher restarts them.
async fn host(files: Vec<HostedFile>, shutdown: &Shutdown) -> Result<()> {
    let mut services = JoinSet::new();
    for file in files {
        let shutdown = shutdown.clone();
        services.spawn(async move { one(file, &shutdown).await });
    }
    let mut result = Ok(());
    while let Some(ended) = services.join_next().await {
        let ended = ended.context("a service ended abnormally").and_then(|ended| ended);
        if let Err(error) = ended {
            tracing::error!("{}", shell::chain(&error));
            shutdown.request();
            result = result.and(Err(error));
        }
    }
    result
}

async fn one(file: HostedFile, shutdown: &Shutdown) -> Result<()> {
    let name = |config: &str| format!("run {config}");
    match file.service.clone() {
        ServiceConfig::Source(config) => {
            let name = name(&config.name);
            source::serve(file.map(|_| *config), shutdown).await.context(name)
        }
        ServiceConfig::Detector(config) => {
            let name = name(&config.module.name);
            detector::serve(file.map(|_| *config), shutdown).await.context(name)
        }
        ServiceConfig::Transmitter(config) => {
            let name = name(&config.module.name);
            transmitter::serve(file.map(|_| *config), shutdown).await.context(name)
        }
        ServiceConfig::Channel(config) => {
            let name = name(&config.name);
            channel::serve(file.map(|_| *config), shutdown).await.context(name)
        }
        ServiceConfig::Kms(config) => {
            let name = name(&config.name);
            kms::serve(file.map(|_| *config), shutdown).await.context(name)
        }
        ServiceConfig::Relay(config) => {
            let name = name(&config.name);
            relay::serve(file.map(|_| *config), shutdown).await.context(name)
        }
        ServiceConfig::Pacer(config) => {
            let name = name(&config.name);
            pacer::serve(file.map(|_| *config), shutdown).await.context(name)
        }
    }
}
