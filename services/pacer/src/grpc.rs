//! The pacer as a process or container of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use proto::pace::v1::pacer_server::{Pacer, PacerServer};
use proto::pace::v1::{GetStatusRequest, GetStatusResponse, Grant, Report};
use shell::fault::{FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::{AllowList, PeerIdentity, Role, Shutdown, duplex};
use tokio::sync::mpsc;
use tonic::{Request, Response, Streaming};
use topology::plan::{CONTROL_IDENTITY, PacerConfig};

use crate::{MESSAGES_IN_FLIGHT, SourceStream, Status, run};

const STREAMS_WAITING: usize = 16;

/// Hands streams to the pacer's task, and answers for it.
struct PacerService {
    /// Links by the names that their sources prove.
    links: BTreeMap<String, String>,
    streams: mpsc::Sender<(String, SourceStream)>,
    status: Arc<Status>,
}

#[tonic::async_trait]
impl Pacer for PacerService {
    type KeepStream = duplex::Answer<Grant>;

    async fn keep(&self, request: Request<Streaming<Report>>) -> Result<Response<Self::KeepStream>, tonic::Status> {
        let caller = &PeerIdentity::of(&request)?.name;
        let link = self.links.get(caller).cloned();
        let link = link.ok_or_else(|| tonic::Status::permission_denied("not a source of this network"))?;
        let (stream, answer) = duplex::accept(request.into_inner(), MESSAGES_IN_FLIGHT);
        self.streams.send((link, stream)).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, tonic::Status> {
        self.status.figures().map(Response::new).ok_or_else(|| stopping(()))
    }
}

fn stopping<T>(_: T) -> tonic::Status {
    tonic::Status::unavailable("the pacer is stopping")
}

/// What the pacer is to its desk of faults.
pub fn place(config: &PacerConfig) -> Place {
    Place::new(&config.name, &config.site, "", Kind::Pacer, 0)
}

/// Serves until the process is asked to stop.
pub async fn serve(file: ServiceFile<PacerConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = file.service.clone();
    let faults = file.fault_desk(config.faults_allowed, place(&config), CONTROL_IDENTITY, shutdown).await?;
    let (status, stop) = (Arc::new(Status::default()), shutdown.token());
    let (streams_tx, streams) = mpsc::channel(STREAMS_WAITING);
    let links = config.sources.iter().map(|source| (source.service.clone(), source.link.clone())).collect();
    let service = PacerService { links, streams: streams_tx, status: status.clone() };
    let allow = AllowList::new(&config.accepts)?
        .with(Role::Control, [CONTROL_IDENTITY])?
        .with(Role::Source, config.sources.iter().map(|source| &source.service))?;
    let server = file
        .server(&config.name, &allow)?
        .add_service(shell::limited!(PacerServer::new(service)))
        .add_optional_service(FaultService::of(faults.as_ref(), &stop));
    let running = server.start(stop.clone()).await?;
    let ended = run(config, streams, status, stop).await;
    shutdown.request();
    running.stopped().await?;
    ended
}
