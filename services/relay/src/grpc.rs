//! The relay as a process or container of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{RelayAnswer, RelayRequest};
use proto::relay::v1::relay_client::RelayClient;
use proto::relay::v1::relay_server::{Relay, RelayServer};
use proto::relay::v1::{
    GetStatusRequest, GetStatusResponse, ListTransfersRequest, ListTransfersResponse, RelayMessage, SetTargetsRequest,
    SetTargetsResponse,
};
use shell::dial::Dial;
use shell::fault::{FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::{AllowList, Connector, PeerIdentity, Role, Shutdown, duplex};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Streaming};
use topology::plan::{CONTROL_IDENTITY, Directory, RelayConfig};

use crate::records::PAGE_MAX;
use crate::{
    Dials, Incoming, KmsStream, Lent, MESSAGES_IN_FLIGHT, NeighbourDial, NeighbourStream, Status, Targets, run,
};

const STREAMS_WAITING: usize = 4;

/// Hands streams to the relay's task, and answers for it.
#[derive(Clone)]
pub struct RelayService {
    /// Sites that open streams to this one, by the name that their relays prove.
    callers: Arc<BTreeMap<String, String>>,
    neighbours: mpsc::Sender<(String, NeighbourStream)>,
    targets: mpsc::Sender<Targets>,
    status: Arc<Status>,
}

impl RelayService {
    pub fn new(config: &RelayConfig, status: Arc<Status>) -> (Self, Incoming) {
        let (neighbours, incoming) = mpsc::channel(STREAMS_WAITING);
        let (targets_tx, targets) = mpsc::channel(STREAMS_WAITING);
        let dialling = config.neighbours.iter().filter(|near| near.site < config.site);
        let callers = dialling.map(|near| (near.service.clone(), near.site.clone())).collect();
        let service = Self { callers: Arc::new(callers), neighbours, targets: targets_tx, status };
        (service, Incoming { neighbours: incoming, targets })
    }
}

#[tonic::async_trait]
impl Relay for RelayService {
    type NeighbourStream = duplex::Answer<RelayMessage>;

    async fn neighbour(
        &self,
        request: Request<Streaming<RelayMessage>>,
    ) -> Result<Response<Self::NeighbourStream>, tonic::Status> {
        let caller = &PeerIdentity::of(&request)?.name;
        let site = self.callers.get(caller);
        let site = site.ok_or_else(|| tonic::Status::permission_denied("not a neighbour that opens a stream"))?.clone();
        let (stream, answer) = duplex::accept(request.into_inner(), MESSAGES_IN_FLIGHT);
        self.neighbours.send((site, stream)).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, tonic::Status> {
        Ok(Response::new(self.status.figures()))
    }

    async fn set_targets(
        &self,
        request: Request<SetTargetsRequest>,
    ) -> Result<Response<SetTargetsResponse>, tonic::Status> {
        let (done, answer) = oneshot::channel();
        self.targets.send(Targets { sites: request.into_inner().sites, done }).await.map_err(stopping)?;
        let changed = answer.await.map_err(stopping)?.map_err(tonic::Status::failed_precondition)?;
        Ok(Response::new(SetTargetsResponse { changed }))
    }

    async fn list_transfers(
        &self,
        request: Request<ListTransfersRequest>,
    ) -> Result<Response<ListTransfersResponse>, tonic::Status> {
        let ListTransfersRequest { first, limit } = request.into_inner();
        let limit = if limit == 0 { PAGE_MAX } else { limit as usize };
        let status = self.status.clone();
        let page = tokio::task::spawn_blocking(move || status.transfers(first, limit)).await;
        let page = page.map_err(|_| tonic::Status::internal("the records cannot be read"))?;
        let transfers = page.map_err(|error| tonic::Status::internal(error.to_string()))?;
        let next = transfers.last().map_or(first, |last| last.number + 1);
        Ok(Response::new(ListTransfersResponse { transfers, next }))
    }
}

fn stopping<T>(_: T) -> tonic::Status {
    tonic::Status::unavailable("the relay is stopping")
}

/// Reaches a neighbouring relay over gRPC.
struct NeighbourConnector(Connector);

impl Dial<RelayMessage, RelayMessage> for NeighbourConnector {
    fn dial(&self) -> BoxFuture<'_, Result<NeighbourStream>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(RelayClient::new(channel));
            let open = duplex::open(MESSAGES_IN_FLIGHT, |outgoing| async move { client.neighbour(outgoing).await });
            open.await.context("open a stream to the neighbour's relay")
        })
    }
}

/// Reaches the site's key store over gRPC.
struct KmsConnector(Connector);

impl Dial<RelayRequest, RelayAnswer> for KmsConnector {
    fn dial(&self) -> BoxFuture<'_, Result<KmsStream>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(KmsClient::new(channel));
            let open = duplex::open(MESSAGES_IN_FLIGHT, |outgoing| async move { client.relay(outgoing).await });
            open.await.context("open a stream to the key store")
        })
    }
}

/// What this relay is to its desk of faults.
pub fn place(config: &RelayConfig) -> Place {
    Place::new(&config.name, &config.site, "", Kind::Relay, 0)
}

/// Serves until the process is asked to stop.
pub async fn serve(file: ServiceFile<RelayConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = file.directory::<Directory>()?.complete_relay(file.service.clone());
    let faults = file.fault_desk(config.faults_allowed, place(&config), CONTROL_IDENTITY, shutdown).await?;
    let anchored = file.anchored(&config.name, CONTROL_IDENTITY, shutdown).await?;
    let (status, stop) = (Arc::new(Status::default()), shutdown.token());
    let (service, incoming) = RelayService::new(&config, status.clone());
    let allow = AllowList::new(&config.accepts)?
        .with(Role::Control, [CONTROL_IDENTITY])?
        .with(Role::Neighbour, config.neighbours.iter().map(|near| &near.service))?;
    let server = file
        .server(&config.name, &allow)?
        .add_service(shell::limited!(RelayServer::new(service)))
        .add_optional_service(anchored.service(&stop))
        .add_optional_service(FaultService::of(faults.as_ref(), &stop));
    let running = server.start(stop.clone()).await?;
    let mut dials: BTreeMap<String, NeighbourDial> = BTreeMap::new();
    for near in config.neighbours.iter().filter(|near| near.site > config.site) {
        let connector = file.connector(&config.name, &near.service, &stop)?;
        dials.insert(near.site.clone(), Arc::new(NeighbourConnector(connector)));
    }
    let kms = Arc::new(KmsConnector(file.connector(&config.name, &config.kms, &stop)?));
    let lent = Lent { status, anchor: anchored.anchor.clone(), faults };
    let ended = run(config, &file.data, Dials { kms, neighbours: dials }, incoming, lent, stop).await;
    shutdown.request();
    running.stopped().await?;
    ended
}
