//! The channel over gRPC.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use proto::channel::v1::channel_client::ChannelClient;
use proto::channel::v1::channel_server::{Channel, ChannelServer};
use proto::channel::v1::reserve_server::{Reserve, ReserveServer};
use proto::channel::v1::{
    ChannelMessage, GetStatusRequest, GetStatusResponse, ModuleMessage, PeerFrame, RefillRequest, RefillResponse,
};
use shell::dial::Dial;
use shell::fault::{FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::name::NameError;
use shell::{AllowList, Connector, PeerIdentity, Role, Shutdown, duplex};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use topology::plan::{CONTROL_IDENTITY, ChannelConfig};
use zeroize::Zeroizing;

use crate::run::RekeyRefused;
use crate::{BUNDLES_IN_FLIGHT, Handle, ModuleStream, PeerStream};

/// Streams that may wait to be taken up.
const STREAMS_WAITING: usize = 4;

/// Hands streams to the endpoint's task, and answers for it.
#[derive(Clone)]
pub struct ChannelService {
    modules: mpsc::Sender<ModuleStream>,
    peers: mpsc::Sender<PeerStream>,
    handle: Handle,
}

impl ChannelService {
    pub fn new(modules: mpsc::Sender<ModuleStream>, peers: mpsc::Sender<PeerStream>, handle: Handle) -> Self {
        Self { modules, peers, handle }
    }
}

fn stopping<T>(_: T) -> Status {
    Status::unavailable("the channel is stopping")
}

#[tonic::async_trait]
impl Channel for ChannelService {
    type AttachStream = duplex::Answer<ChannelMessage>;
    type PeerStream = duplex::Answer<PeerFrame>;

    async fn attach(&self, request: Request<Streaming<ModuleMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let (duplex, answer) = duplex::accept(request.into_inner(), BUNDLES_IN_FLIGHT);
        self.modules.send(duplex).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn peer(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<Self::PeerStream>, Status> {
        let (duplex, answer) = duplex::accept(request.into_inner(), BUNDLES_IN_FLIGHT);
        self.peers.send(duplex).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let mut figures = self.handle.status().figures();
        figures.frames_hit = self.handle.faults().map_or(0, crate::Faults::hit);
        Ok(Response::new(figures))
    }
}

#[tonic::async_trait]
impl Reserve for ChannelService {
    async fn refill(&self, request: Request<RefillRequest>) -> Result<Response<RefillResponse>, Status> {
        let by = PeerIdentity::of(&request)?.name.clone();
        let RefillRequest { secret, generation } = request.into_inner();
        let secret = Zeroizing::new(secret.to_vec());
        let generation = (generation != 0).then_some(generation);
        let refused = |why: RekeyRefused| match why {
            RekeyRefused::SessionOpen => Status::failed_precondition(why.to_string()),
            RekeyRefused::Invalid(_) => Status::invalid_argument(why.to_string()),
            RekeyRefused::Stopping => Status::unavailable(why.to_string()),
        };
        let reserve_tags = self.handle.rekey_as(secret, generation, &by).await.map_err(refused)?;
        Ok(Response::new(RefillResponse { reserve_tags }))
    }
}

/// Reaches the peer endpoint over gRPC.
struct PeerDial(Connector);

impl Dial<PeerFrame, PeerFrame> for PeerDial {
    fn dial(&self) -> BoxFuture<'_, Result<PeerStream>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(ChannelClient::new(channel));
            let open = duplex::open(BUNDLES_IN_FLIGHT, |outgoing| async move { client.peer(outgoing).await });
            open.await.context("open a stream to the peer endpoint")
        })
    }
}

/// What this endpoint is to its desk of faults.
pub fn place(config: &ChannelConfig) -> Place {
    Place::new(&config.name, &config.site, &config.link, Kind::Channel, 0)
}

/// Who may connect, and what they are to this endpoint.
fn allow(config: &ChannelConfig) -> Result<AllowList, NameError> {
    AllowList::new(&config.accepts)?
        .with(Role::Control, [CONTROL_IDENTITY])?
        .with(Role::Module, [&config.module])?
        .with(Role::PeerChannel, [&config.peer])
}

/// Serves until the process is asked to stop.
pub async fn serve(file: ServiceFile<ChannelConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = &file.service;
    let faults = file.fault_desk(config.faults_allowed, place(config), CONTROL_IDENTITY, shutdown).await?;
    let anchored = file.anchored(&config.name, CONTROL_IDENTITY, shutdown).await?;
    let open = {
        let (config, data, secrets, faults) = (config.clone(), file.data.clone(), file.secrets.clone(), faults.clone());
        let anchor = anchored.anchor.clone();
        move || match secrets {
            Some(secrets) => crate::open_placed(&config, &data, &secrets, faults, anchor),
            None => crate::open(&config, &data, faults, anchor),
        }
    };
    // Whoever keeps the anchor may be far away.
    let end = tokio::task::spawn_blocking(open).await.context("open the channel")??;
    let (modules_tx, modules) = mpsc::channel(STREAMS_WAITING);
    let (peers_tx, peers) = mpsc::channel(STREAMS_WAITING);
    let service = ChannelService::new(modules_tx, peers_tx, end.handle());
    let server = file
        .server(&config.name, &allow(config)?)?
        .add_service(shell::limited!(ChannelServer::new(service.clone())))
        .add_service(ReserveServer::new(service))
        .add_optional_service(anchored.service(&shutdown.token()))
        .add_optional_service(FaultService::of(faults.as_ref(), &shutdown.token()));
    let running = server.start(shutdown.token()).await?;
    let dial = PeerDial(file.connector(&config.name, &config.peer, &shutdown.token())?);
    crate::run(end, modules, peers, Arc::new(dial), shutdown.token()).await?;
    running.stopped().await?;
    Ok(())
}
