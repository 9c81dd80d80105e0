//! A small network of services on the loopback address.

#![allow(dead_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::channel::v1::channel_client::ChannelClient;
use proto::channel::v1::channel_server::{Channel as ChannelService, ChannelServer};
use proto::channel::v1::{ChannelMessage, GetStatusRequest, GetStatusResponse, ModuleMessage, PeerFrame};
use shell::duplex::{self, Answer, Duplex};
use shell::pki::Authority;
use shell::{AllowList, ConnectError, Connector, Credentials, Endpoint, PeerIdentity, Role, Running, Server};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Capacity of the streams that tests open.
pub const CAPACITY: usize = 2;

pub fn credentials(authority: &Authority, name: &str) -> Credentials {
    let issued = authority.issue(name).unwrap();
    Credentials::from_pem(authority.certificate_pem(), &issued.certificate_pem, &issued.key_pem).unwrap()
}

/// Peers that may do what a channel's peer and whoever controls the network may; `module` is the module.
pub fn allow(names: &[&str]) -> AllowList {
    let list = AllowList::new(names.iter().copied()).unwrap();
    let list = list.with(Role::Module, ["module"]).unwrap();
    let others = || names.iter().copied().filter(|name| *name != "module");
    list.with(Role::Control, others()).unwrap().with(Role::PeerChannel, others()).unwrap()
}

/// Hands the server's end of every `Peer` stream to the test.
pub struct Probe {
    streams: mpsc::Sender<Duplex<PeerFrame, PeerFrame>>,
    pub callers: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl ChannelService for Probe {
    type AttachStream = Answer<ChannelMessage>;
    type PeerStream = Answer<PeerFrame>;

    async fn attach(&self, _: Request<Streaming<ModuleMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn peer(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<Self::PeerStream>, Status> {
        let (stream, answer) = duplex::accept(request.into_inner(), CAPACITY);
        self.streams.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(answer)
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.callers.lock().unwrap().push(PeerIdentity::of(&request)?.name.clone());
        Ok(Response::new(GetStatusResponse { link: "nice-50".to_owned(), ..Default::default() }))
    }
}

pub struct Served {
    pub running: Running,
    pub stop: CancellationToken,
    pub streams: mpsc::Receiver<Duplex<PeerFrame, PeerFrame>>,
    pub callers: Arc<Mutex<Vec<String>>>,
}

impl Served {
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Address(self.running.address())
    }
}

/// Starts a server, after `configure` has had its way with it.
pub async fn serve(credentials: &Credentials, allow: &AllowList, configure: impl FnOnce(Server) -> Server) -> Served {
    let (sender, streams) = mpsc::channel(4);
    let callers = Arc::new(Mutex::new(vec![]));
    let probe = Probe { streams: sender, callers: callers.clone() };
    let stop = CancellationToken::new();
    let server = configure(Server::builder(credentials.name(), credentials, allow));
    let running = server.add_service(shell::limited!(ChannelServer::new(probe))).start(stop.clone()).await.unwrap();
    Served { running, stop, streams, callers }
}

pub async fn dial(
    endpoint: &Endpoint,
    peer: &str,
    credentials: &Credentials,
) -> Result<ChannelClient<tonic::transport::Channel>, ConnectError> {
    let channel = Connector::new(endpoint, peer, credentials).deadline(Duration::from_secs(10)).connect().await?;
    Ok(shell::limited!(ChannelClient::new(channel)))
}

/// Expects a refusal, with little patience.
pub async fn dial_refused(endpoint: &Endpoint, peer: &str, credentials: &Credentials) -> String {
    let refused = Connector::new(endpoint, peer, credentials).deadline(Duration::from_millis(400)).connect().await;
    refused.expect_err("must be refused").to_string()
}

/// Waits for what another task brings about, however slow the machine is.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap_or_else(|_| panic!("never came: {what}"));
}
