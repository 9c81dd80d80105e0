//! Connections to peers that may not be up yet, may move, and must be who they are expected to be.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::name::{self, NameError};
use crate::server::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW_BYTES, address_file,
};
use crate::tls::{self, Credentials, OpenedStream};

/// Time that a peer gets to come up.
pub const DEADLINE: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// Time for one attempt to connect, and again for the handshake and the first answer.
const ATTEMPT: Duration = Duration::from_secs(5);
const ADDRESS_FILE_LIMIT_BYTES: u64 = 256;

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Address(SocketAddr),
    /// `host:port`, resolved at every attempt.
    Dns(String),
    /// A file that holds the address, read at every attempt.
    File(PathBuf),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no endpoint: expected `address:port`, `host:port` or `file:/path`")]
pub struct EndpointError(String);

impl Endpoint {
    /// A service that was started with this folder as its `run_dir`.
    pub fn in_run_dir(run_dir: &Path, name: &str) -> Self {
        Self::File(address_file(run_dir, name))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = match self {
            Self::Address(address) => TcpStream::connect(address).await?,
            Self::Dns(host) => TcpStream::connect(host.as_str()).await?,
            Self::File(path) => TcpStream::connect(read_address(path).await?).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

async fn read_address(path: &Path) -> io::Result<SocketAddr> {
    let fail = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    let metadata =
        tokio::fs::metadata(path).await.map_err(|error| io::Error::new(error.kind(), path.display().to_string()))?;
    if metadata.len() > ADDRESS_FILE_LIMIT_BYTES {
        return Err(fail("too long for an address"));
    }
    tokio::fs::read_to_string(path).await?.trim().parse().map_err(|_| fail("holds no address"))
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = || EndpointError(text.chars().take(200).collect());
        if let Some(path) = text.strip_prefix("file:") {
            return if path.is_empty() { Err(fail()) } else { Ok(Self::File(PathBuf::from(path))) };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(fail)?;
        let port: u16 = port.parse().map_err(|_| fail())?;
        let known = host == name::LOOPBACK || name::check(host).is_ok();
        if known && port != 0 { Ok(Self::Dns(text.to_owned())) } else { Err(fail()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Dns(host) => f.write_str(host),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("`{peer}` at {endpoint} could not be reached within {} s: {last}", deadline.as_secs_f64())]
    Deadline { peer: String, endpoint: String, deadline: Duration, last: String },
    #[error("stopped while connecting to `{peer}`")]
    Stopped { peer: String },
}

/// Connects to `peer`, with default patience. See [`Connector`].
pub async fn connect(endpoint: &Endpoint, peer: &str, credentials: &Credentials) -> Result<Channel, ConnectError> {
    Connector::new(endpoint, peer, credentials).connect().await
}

/// How to connect to one peer.
#[must_use]
#[derive(Clone, Debug)]
pub struct Connector {
    endpoint: Endpoint,
    peer: String,
    credentials: Credentials,
    deadline: Duration,
    stop: CancellationToken,
}

impl Connector {
    /// `peer` is the name that the server must prove; what `endpoint` says only tells where to knock.
    pub fn new(endpoint: &Endpoint, peer: &str, credentials: &Credentials) -> Self {
        Self {
            endpoint: endpoint.clone(),
            peer: peer.to_owned(),
            credentials: credentials.clone(),
            deadline: DEADLINE,
            stop: CancellationToken::new(),
        }
    }

    /// How long to keep trying.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Gives up when this token is cancelled.
    pub fn stop(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// Tries, with growing pauses, until the peer answers a call or the deadline passes. The channel reconnects by
    /// itself when a later call finds the connection gone.
    pub async fn connect(self) -> Result<Channel, ConnectError> {
        name::check(&self.peer)?;
        let until = Instant::now() + self.deadline;
        let mut pause = BACKOFF_FIRST;
        loop {
            let attempt = tokio::time::timeout_at(until, self.attempt());
            let last = tokio::select! {
                attempt = attempt => match attempt {
                    Ok(Ok(channel)) => return Ok(channel),
                    Ok(Err(why)) => why,
                    Err(_) => "no answer".to_owned(),
                },
                () = self.stop.cancelled() => return Err(ConnectError::Stopped { peer: self.peer }),
            };
            tracing::debug!(peer = self.peer, endpoint = %self.endpoint, why = last, "not connected yet");
            if Instant::now() + pause >= until {
                let (endpoint, deadline) = (self.endpoint.to_string(), self.deadline);
                return Err(ConnectError::Deadline { peer: self.peer, endpoint, deadline, last });
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return Err(ConnectError::Stopped { peer: self.peer }),
            }
            pause = (pause * 2).min(BACKOFF_LAST);
        }
    }

    async fn attempt(&self) -> Result<Channel, String> {
        let channel = self.channel().await?;
        // A connection may be accepted by a server that is about to stop; an answer to a call is what counts.
        let mut health = HealthClient::new(channel.clone());
        let check = health.check(HealthCheckRequest { service: String::new() });
        match tokio::time::timeout(ATTEMPT, check).await {
            Err(_) => Err("connected, but no answer".to_owned()),
            Ok(Err(status)) if !answered(status.code()) => Err(chain(&status)),
            Ok(_) => Ok(channel),
        }
    }

    async fn channel(&self) -> Result<Channel, String> {
        let (endpoint, peer, credentials) = (self.endpoint.clone(), self.peer.clone(), self.credentials.clone());
        let connector = tower::service_fn(move |_| {
            let (endpoint, peer, credentials) = (endpoint.clone(), peer.clone(), credentials.clone());
            async move { open(&endpoint, &peer, &credentials).await.map(TokioIo::new) }
        });
        // TLS is the connector's business; towards tonic the scheme is plain.
        tonic::transport::Endpoint::from_shared(format!("http://{}", self.peer))
            .map_err(|error| chain(&error))?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| chain(&error))
    }
}

async fn open(endpoint: &Endpoint, peer: &str, credentials: &Credentials) -> io::Result<OpenedStream> {
    let stream = tokio::time::timeout(ATTEMPT, endpoint.connect())
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection"))??;
    tls::handshake(credentials, peer, stream, ATTEMPT).await.map_err(io::Error::other)
}

/// Whether a status comes from the peer rather than from a connection that failed.
fn answered(code: Code) -> bool {
    !matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::DeadlineExceeded)
}

/// An error with its causes, which is where the reason stands.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.ends_with(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        cause = error.source();
    }
    text
}
