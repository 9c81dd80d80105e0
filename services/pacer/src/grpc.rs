//! The pacer as a process or container of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Result;
use proto::pace::v1::pacer_server::{Pacer, PacerServer};
use proto::pace::v1::{GetStatusRequest, GetStatusResponse, Grant, Report, SetLinksRequest, SetLinksResponse};
use shell::fault::{FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::{AllowList, PeerIdentity, Role, Shutdown, duplex};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Streaming};
use topology::plan::{CONTROL_IDENTITY, PacedSource, PacerConfig};

use crate::{MESSAGES_IN_FLIGHT, Order, SourceStream, Status, run};

const STREAMS_WAITING: usize = 16;
/// More links than any topology has.
const LINKS_MAX: usize = 65_536;

/// Hands streams to the pacer's task, and answers for it.
struct PacerService {
    /// Links by the names that their sources prove.
    links: RwLock<BTreeMap<String, String>>,
    allow: AllowList,
    streams: mpsc::Sender<(String, SourceStream)>,
    orders: mpsc::Sender<Order>,
    status: Arc<Status>,
}

#[tonic::async_trait]
impl Pacer for PacerService {
    type KeepStream = duplex::Answer<Grant>;

    async fn keep(&self, request: Request<Streaming<Report>>) -> Result<Response<Self::KeepStream>, tonic::Status> {
        let caller = &PeerIdentity::of(&request)?.name;
        let link = self.links.read().unwrap_or_else(PoisonError::into_inner).get(caller).cloned();
        let link = link.ok_or_else(|| tonic::Status::permission_denied("not a source of this network"))?;
        let (stream, answer) = duplex::accept(request.into_inner(), MESSAGES_IN_FLIGHT);
        self.streams.send((link, stream)).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, tonic::Status> {
        self.status.figures().map(Response::new).ok_or_else(|| stopping(()))
    }

    async fn set_links(&self, request: Request<SetLinksRequest>) -> Result<Response<SetLinksResponse>, tonic::Status> {
        let SetLinksRequest { links, skew_ps } = request.into_inner();
        if links.is_empty() || links.len() > LINKS_MAX || skew_ps == 0 {
            let said = format!("{} links that may be {skew_ps} ps apart", links.len());
            return Err(tonic::Status::invalid_argument(format!("{said}: 1 to {LINKS_MAX} links and a skew above 0")));
        }
        let sources: Vec<PacedSource> =
            links.into_iter().map(|link| PacedSource { service: link.source, link: link.link }).collect();
        admit(&self.allow, &sources).map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        *self.links.write().unwrap_or_else(PoisonError::into_inner) = by_service(&sources);
        let (taken, changed) = oneshot::channel();
        self.orders.send(Order { sources, skew_ps, taken }).await.map_err(stopping)?;
        let changed = changed.await.map_err(stopping)?;
        Ok(Response::new(SetLinksResponse { changed }))
    }
}

fn stopping<T>(_: T) -> tonic::Status {
    tonic::Status::unavailable("the pacer is stopping")
}

fn by_service(sources: &[PacedSource]) -> BTreeMap<String, String> {
    sources.iter().map(|source| (source.service.clone(), source.link.clone())).collect()
}

/// These sources may connect, and the controller of the run.
fn admit(allow: &AllowList, sources: &[PacedSource]) -> Result<()> {
    let services = || sources.iter().map(|source| source.service.as_str());
    allow.set(services().chain([CONTROL_IDENTITY]))?;
    Ok(allow.grant(Role::Source, services())?)
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
    let (orders, incoming) = mpsc::channel(1);
    let allow = AllowList::default().with(Role::Control, [CONTROL_IDENTITY])?;
    admit(&allow, &config.sources)?;
    let links = RwLock::new(by_service(&config.sources));
    let service = PacerService { links, allow: allow.clone(), streams: streams_tx, orders, status: status.clone() };
    let server = file
        .server(&config.name, &allow)?
        .add_service(shell::limited!(PacerServer::new(service)))
        .add_optional_service(FaultService::of(faults.as_ref(), &stop));
    let running = server.start(stop.clone()).await?;
    let ended = run(config, streams, incoming, status, stop).await;
    shutdown.request();
    running.stopped().await?;
    ended
}
