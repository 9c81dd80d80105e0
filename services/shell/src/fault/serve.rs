//! The desks of a process over gRPC, and services that are not to come back yet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context as _;
use futures::{Stream, StreamExt as _};
use proto::fault::v1::faults_server::{Faults, FaultsServer};
use proto::fault::v1::{
    ClearRequest, ClearResponse, FaultState, InjectRequest, InjectResponse, ListRequest, ListResponse, WatchRequest,
};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Desk, Order, Place, Refusal};
use crate::launch::ServiceFile;
use crate::{AllowList, Role, Shutdown};

const RECORD_SUFFIX: &str = ".faults";

/// Every desk of a process, for whoever controls the network.
#[derive(Clone)]
pub struct FaultService {
    desks: Arc<BTreeMap<String, Desk>>,
    /// Nobody watches longer: a watcher would hold the server up.
    stop: CancellationToken,
}

impl FaultService {
    pub fn new(desks: impl IntoIterator<Item = Desk>, stop: &CancellationToken) -> Self {
        let desks = desks.into_iter().map(|desk| (desk.place().service.clone(), desk)).collect();
        Self { desks: Arc::new(desks), stop: stop.clone() }
    }

    pub fn server(self) -> FaultsServer<Self> {
        FaultsServer::new(self)
    }

    /// Of one service, where it has a desk.
    pub fn of(desk: Option<&Desk>, stop: &CancellationToken) -> Option<FaultsServer<Self>> {
        desk.map(|desk| Self::new([desk.clone()], stop).server())
    }

    fn desk(&self, service: &str) -> Result<&Desk, Status> {
        let unknown = || Status::not_found(format!("no service `{}` is here", service.escape_debug()));
        self.desks.get(service).ok_or_else(unknown)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Known(_) => Status::already_exists(text),
            Refusal::TooMany => Status::resource_exhausted(text),
            Refusal::Past { .. } => Status::failed_precondition(text),
            Refusal::Record(_) => Status::internal(text),
            _ => Status::invalid_argument(text),
        }
    }
}

#[tonic::async_trait]
impl Faults for FaultService {
    async fn inject(&self, request: Request<InjectRequest>) -> Result<Response<InjectResponse>, Status> {
        let desk = self.desk(&request.get_ref().service)?.clone();
        let InjectRequest { id, fault, description, at_ps, duration_ps, .. } = request.into_inner();
        let order = Order { id, fault: fault.unwrap_or_default(), description, at_ps, duration_ps };
        Ok(Response::new(InjectResponse { state: Some(desk.inject(order).await?) }))
    }

    async fn clear(&self, request: Request<ClearRequest>) -> Result<Response<ClearResponse>, Status> {
        let cleared = self.desk(&request.get_ref().service)?.clear(&request.get_ref().id);
        Ok(Response::new(ClearResponse { cleared }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let service = &request.get_ref().service;
        let faults = match service.as_str() {
            "" => self.desks.values().flat_map(Desk::list).collect(),
            service => self.desk(service)?.list(),
        };
        Ok(Response::new(ListResponse { faults }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<FaultState, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let events = self.desks.values().map(|desk| {
            let events = BroadcastStream::new(desk.watch());
            // Listening before looking: what happens in between is told twice, not missed.
            futures::stream::iter(desk.list()).chain(events.filter_map(|event| async { event.ok() })).boxed()
        });
        let stop = self.stop.clone().cancelled_owned();
        Ok(Response::new(Box::pin(futures::stream::select_all(events).map(Ok).take_until(stop))))
    }
}

impl<C> ServiceFile<C> {
    /// The desk of this service in a process of its own; none where faults are not allowed. Where a fault keeps
    /// the service from starting, nothing is served but the desk until that is over, or the process is asked to end.
    pub async fn fault_desk(
        &self,
        allowed: bool,
        mut place: Place,
        control: &str,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Desk>> {
        if !allowed {
            return Ok(None);
        }
        place.record = Some(record_path(&self.run_dir, &place.service));
        let desk = Desk::open(place).context("take up faults")?;
        if !desk.may_start() {
            self.hold(&desk, control, shutdown).await?;
        }
        Ok(Some(desk))
    }

    async fn hold(&self, desk: &Desk, control: &str, shutdown: &Shutdown) -> anyhow::Result<()> {
        tracing::warn!("a fault keeps this service from starting");
        let stop = CancellationToken::new();
        let faults = FaultService::new([desk.clone()], &stop).server();
        let allow = AllowList::new([control])?.with(Role::Control, [control])?;
        let server = self.server(&desk.place().service, &allow)?.add_service(faults);
        let running = server.start(stop.clone()).await?;
        tokio::select! {
            () = desk.released() => {}
            () = shutdown.requested() => {}
        }
        stop.cancel();
        running.stopped().await?;
        Ok(())
    }
}

fn record_path(run_dir: &Path, service: &str) -> PathBuf {
    run_dir.join(format!("{service}{RECORD_SUFFIX}"))
}

/// Forgets the faults of an earlier run.
pub fn clear_records(run_dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(run_dir)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(RECORD_SUFFIX) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
