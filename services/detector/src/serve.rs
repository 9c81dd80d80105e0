//! A detector node as a process or container of its own.

use std::sync::Arc;

use anyhow::{Context, Result};
use proto::detector::v1::ModuleStatus;
use proto::detector::v1::detector_server::DetectorServer;
use shell::fault::{Desk, Disk, FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::{AllowList, Role, Shutdown, figures};
use topology::figure::{Figure, Figures};
use topology::plan::{CONTROL_IDENTITY, DetectorConfig, ModuleConfig};

use crate::delivery::Delivery;
use crate::dial::{ChannelDial, KeyStoreDial, SourceDial};
use crate::grpc::MonitorService;
use crate::session::{self, Light, Links, Node, Seeds};
use crate::status::Monitor;
use crate::vault::Vault;

/// The status of a node that has not done anything yet.
pub fn initial_status(config: &ModuleConfig) -> ModuleStatus {
    ModuleStatus {
        link: config.link.clone(),
        site: config.site.clone(),
        role: config.protocol.part().to_owned(),
        figures: figures::tell(&Figures::of([(Figure::Pump, config.initial_pump)])),
        ..ModuleStatus::default()
    }
}

/// What this node is to its desk of faults.
pub fn place(config: &DetectorConfig) -> Place {
    Place::new(&config.module.name, &config.module.site, &config.module.link, Kind::Detector, config.module.epoch_ps)
}

/// Where the node writes.
pub fn disk(faults: Option<&Desk>) -> Disk {
    faults.map(Desk::disk).unwrap_or_default()
}

/// Serves until the run ends or the process is asked to stop.
pub async fn serve(file: ServiceFile<DetectorConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = file.service.clone();
    let faults = file.fault_desk(config.module.faults_allowed, place(&config), CONTROL_IDENTITY, shutdown).await?;
    let anchored = file.anchored(&config.module.name, CONTROL_IDENTITY, shutdown).await?;
    let monitor = Arc::new(Monitor::new(initial_status(&config.module)));
    let stop = shutdown.token();
    let service = shell::limited!(DetectorServer::new(MonitorService::new(monitor.clone())));
    let allow = AllowList::new(&config.module.accepts)?.with(Role::Control, [CONTROL_IDENTITY])?;
    let server = file.server(&config.module.name, &allow)?.health(monitor.health()).add_service(service);
    let server = server.add_optional_service(anchored.service(&stop));
    let server = server.add_optional_service(FaultService::of(faults.as_ref(), &stop));
    let running = server.start(stop.clone()).await?;
    let links = Links {
        light: Light::Source(Arc::new(SourceDial(file.connector(
            &config.module.name,
            &config.module.source,
            &stop,
        )?))),
        channel: Arc::new(ChannelDial(file.connector(&config.module.name, &config.module.channel, &stop)?)),
    };
    let disk = disk(faults.as_ref());
    let vault = Vault::open(&file.data, file.secrets.as_deref(), &config.module.site, &config.module.link, disk);
    let vault = vault.context("open the vault")?;
    let seeds = Seeds::of(&config)?;
    let delivery = match &config.module.kms {
        Some(kms) => {
            let dial = KeyStoreDial(file.connector(&config.module.name, kms, &stop)?);
            Some(Delivery::start(Arc::new(dial), &vault, anchored.anchor.clone(), stop.clone())?)
        }
        None => None,
    };
    let node = Node { config, seeds, links, vault, monitor, recorder: None, delivery, light_over: false, faults };
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
