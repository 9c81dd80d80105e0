//! A gRPC server over mutual TLS, with health and reflection, that drains when asked to stop.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower::Service;

use crate::authority::{self, Guard};
use crate::health::Health;
use crate::tls::{self, AllowList, Credentials, Door, Limits, Refusals};
use crate::{files, shutdown};

/// Photons of several epochs may be under way before the receiver has to say that it took them.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
pub(crate) const FRAME_BYTES: u32 = 256 << 10;
/// Dead peers are noticed; ones that are only busy are not taken for dead.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);
const CALLS_PER_CONNECTION: u32 = 128;
const BIND_ATTEMPTS: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(50);
/// Connections of probes, which prove nothing.
const PROBES: usize = 64;
/// What every server has beside its own services.
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cannot write the address to {}: {source}", path.display())]
    AddressFile { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Authority(#[from] authority::Uncovered),
    #[error("reflection: {0}")]
    Reflection(String),
    #[error("gRPC server: {0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("the server's task ended abnormally")]
    Task,
}

/// What a server will serve, to whom and where.
#[must_use]
#[derive(Debug)]
pub struct Server {
    name: String,
    credentials: Credentials,
    allow: AllowList,
    listen: SocketAddr,
    address_file: Option<PathBuf>,
    health: Health,
    health_listen: Option<SocketAddr>,
    limits: Limits,
    drain: Duration,
    routes: Routes,
    served: Vec<&'static str>,
}

impl Server {
    /// A server on a free port of the loopback address, for the peers on the list.
    pub fn builder(name: impl Into<String>, credentials: &Credentials, allow: &AllowList) -> Self {
        Self {
            name: name.into(),
            credentials: credentials.clone(),
            allow: allow.clone(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            address_file: None,
            health: Health::new(),
            health_listen: None,
            limits: Limits::default(),
            drain: shutdown::DRAIN,
            routes: Routes::default(),
            served: vec![],
        }
    }

    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Writes the address to `<run_dir>/<name>.addr`, where peers on this machine look for it.
    pub fn run_dir(mut self, run_dir: &Path) -> Self {
        self.address_file = Some(address_file(run_dir, &self.name));
        self
    }

    /// Tells the states of this handle, instead of ones of its own.
    pub fn health(mut self, health: &Health) -> Self {
        self.health = health.clone();
        self
    }

    /// Serves health, and nothing else, without TLS on another port: for probes that have no certificate.
    pub fn health_listen(mut self, address: SocketAddr) -> Self {
        self.health_listen = Some(address);
        self
    }

    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Time between being asked to stop and cutting the connections.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Adds a generated service; wrap it in [`limited!`](crate::limited) first.
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.served.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Adds a service that exists only where the topology allows it, such as fault injection.
    pub fn add_optional_service<S>(self, service: Option<S>) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        match service {
            Some(service) => self.add_service(service),
            None => self,
        }
    }

    /// Binds and serves until `stop` is cancelled. When this returns, peers can connect. Refuses to start with an RPC
    /// of which [`authority::TABLE`] does not say who may call it.
    pub async fn start(self, stop: CancellationToken) -> Result<Running, ServerError> {
        authority::check(self.served.iter().copied().chain([HEALTH, REFLECTION]))?;
        let listener = bind(self.listen).await?;
        let address = listener.local_addr().map_err(|source| ServerError::Bind { address: self.listen, source })?;
        let health_listener = match self.health_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let health_address = health_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let routes = self.routes.add_service(self.health.service()).add_service(reflection(&self.served)?);
        if let Some(path) = &self.address_file {
            files::write_durably(path, format!("{address}\n").as_bytes())
                .map_err(|source| ServerError::AddressFile { path: path.clone(), source })?;
        }
        let (guard, kill) = (Guard::new(&self.allow), CancellationToken::new());
        let (incoming, refusals) =
            tls::listen(listener, self.credentials, self.allow, self.limits, stop.clone(), kill.clone());
        if let Some(listener) = health_listener {
            tokio::spawn(serve_health(listener, self.health.clone(), stop.clone()));
        }
        tracing::info!(service = self.name, %address, "listening");
        let serving = tonic_server()
            .layer(guard)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let (health, drain, address_file) = (self.health.clone(), self.drain, self.address_file);
        let task = tokio::spawn(async move {
            let mut serving = std::pin::pin!(serving);
            let ended = tokio::select! {
                ended = &mut serving => ended,
                () = drained(&stop, &health, drain) => {
                    kill.cancel();
                    serving.await
                }
            };
            health.set_serving(false);
            if let Some(path) = address_file {
                withdraw(&path, address);
            }
            ended
        });
        Ok(Running { address, health_address, health: self.health, refusals, task })
    }
}

/// The file in which a service's address stands.
pub fn address_file(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join(format!("{name}.addr"))
}

/// What listened here before may take a moment to let go.
async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let mut attempts = if address.port() == 0 { 0 } else { BIND_ATTEMPTS };
    loop {
        match tls::bind(address) {
            Err(source) if source.kind() == ErrorKind::AddrInUse && attempts > 0 => attempts -= 1,
            bound => return bound.map_err(|source| ServerError::Bind { address, source }),
        }
        tokio::time::sleep(BIND_PAUSE).await;
    }
}

/// Ends when the time for draining is over.
async fn drained(stop: &CancellationToken, health: &Health, drain: Duration) {
    stop.cancelled().await;
    health.set_serving(false);
    tokio::time::sleep(drain).await;
}

/// Removes the address, unless a successor has written its own.
fn withdraw(path: &Path, address: SocketAddr) {
    let ours = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == address.to_string());
    if ours && let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "address not withdrawn");
    }
}

fn tonic_server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION as usize)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

async fn serve_health(listener: TcpListener, health: Health, stop: CancellationToken) {
    let door = Door::new(Limits { handshakes: PROBES, ..Limits::default() });
    let incoming = futures::stream::unfold((door, listener), |(door, listener)| async move {
        let guest = door.knock(&listener).await.guest();
        Some((std::io::Result::Ok(guest), (door, listener)))
    });
    let served =
        tonic_server().add_service(health.service()).serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::warn!(%error, "health port");
    }
}

fn reflection(served: &[&str]) -> Result<ServerReflectionServer<impl ServerReflection>, ServerError> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(HEALTH);
    let builder = served.iter().fold(builder, |builder, name| builder.with_service_name(*name));
    builder.build_v1().map_err(|error| ServerError::Reflection(error.to_string()))
}

/// A server that is up. Dropping the handle does not stop it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    health_address: Option<SocketAddr>,
    health: Health,
    refusals: Refusals,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health is served without TLS, if it is.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health_address
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Waits for the end: after the stop token was cancelled, until the last call is over or was cut.
    pub async fn stopped(self) -> Result<(), ServerError> {
        Ok(self.task.await.map_err(|_| ServerError::Task)??)
    }
}
