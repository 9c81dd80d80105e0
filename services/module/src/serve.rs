//! A module and its instrument as a process or container of their own.

use std::sync::Arc;

use anyhow::{Context, Result};
use proto::detector::v1::ModuleStatus;
use proto::detector::v1::detector_server::DetectorServer;
use shell::fault::{Desk, Disk, FaultService, Place};
use shell::launch::ServiceFile;
use shell::{AllowList, Role, Shutdown, figures};
use topology::figure::{Figure, Figures};
use topology::plan::{CONTROL_IDENTITY, ModuleConfig};

use crate::delivery::Delivery;
use crate::dial::{ChannelDial, KeyStoreDial, SourceDial};
use crate::grpc::MonitorService;
use crate::light::{Light, SourceLink};
use crate::session::{self, Node};
use crate::status::Monitor;
use crate::vault::Vault;

/// The status of a module that has not done anything yet.
pub fn initial_status(config: &ModuleConfig) -> ModuleStatus {
    let pump = config.protocol.is_pumped().then_some(config.initial_pump);
    ModuleStatus {
        link: config.link.clone(),
        site: config.site.clone(),
        role: config.protocol.part().to_owned(),
        figures: figures::tell(&Figures::of([(Figure::Pump, pump)])),
        ..ModuleStatus::default()
    }
}

/// Where the module writes.
pub fn disk(faults: Option<&Desk>) -> Disk {
    faults.map(Desk::disk).unwrap_or_default()
}

/// Serves until the run ends or the process is asked to stop. `light` makes the instrument, which is at a source's output
/// and may suffer faults.
pub async fn serve<C>(
    file: ServiceFile<C>,
    config: &ModuleConfig,
    place: Place,
    light: impl FnOnce(SourceLink, Option<Desk>) -> Result<Box<dyn Light>>,
    shutdown: &Shutdown,
) -> Result<()> {
    let faults = file.fault_desk(config.faults_allowed, place, CONTROL_IDENTITY, shutdown).await?;
    let anchored = file.anchored(&config.name, CONTROL_IDENTITY, shutdown).await?;
    let monitor = Arc::new(Monitor::new(initial_status(config)));
    let stop = shutdown.token();
    let service = shell::limited!(DetectorServer::new(MonitorService::new(monitor.clone())));
    let allow = AllowList::new(&config.accepts)?.with(Role::Control, [CONTROL_IDENTITY])?;
    let server = file.server(&config.name, &allow)?.health(monitor.health()).add_service(service);
    let server = server.add_optional_service(anchored.service(&stop));
    let server = server.add_optional_service(FaultService::of(faults.as_ref(), &stop));
    let running = server.start(stop.clone()).await?;
    let source: SourceLink = Arc::new(SourceDial(file.connector(&config.name, &config.source, &stop)?));
    let channel = Arc::new(ChannelDial(file.connector(&config.name, &config.channel, &stop)?));
    let disk = disk(faults.as_ref());
    let vault = Vault::open(&file.data, file.secrets.as_deref(), &config.site, &config.link, disk);
    let mut vault = vault.context("open the vault")?;
    let light = light(source, faults.clone())?;
    let delivery = match &config.kms {
        Some(kms) => {
            let dial = KeyStoreDial(file.connector(&config.name, kms, &stop)?);
            Some(Delivery::start(Arc::new(dial), &mut vault, anchored.anchor.clone(), stop.clone())?)
        }
        None => None,
    };
    let config = config.clone();
    let node = Node { config, light, channel, vault, monitor, delivery, light_over: false, faults };
    let run = session::run(node, stop.clone());
    // A module that has ended goes on answering for its status until it is told to stop.
    let result = run.await;
    if result.is_err() && file.restarted {
        shutdown.request();
    }
    shutdown.requested().await;
    running.stopped().await?;
    result
}
