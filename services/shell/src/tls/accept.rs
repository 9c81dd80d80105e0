//! Taking connections: handshakes run beside the accept loop; [`Door`] says which and how many.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls::ServerConfig;
use telemetry::metrics::{Counter, Meter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::credentials::Loaded;
use super::door::{Door, Limits, Refusal, Shaken};
use super::{ALPN, AllowList, Credentials, PeerIdentity, TlsError, named};

/// How many connections were refused, and why. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Refusals {
    counts: Arc<[AtomicU64; 3]>,
    metric: Counter,
}

impl Refusals {
    fn new(service: &str) -> Self {
        let metric = Meter::new(service).counter(telemetry::names::metric::SHELL_REFUSED, "{connection}");
        Self { counts: Arc::default(), metric }
    }

    /// Wrong certificate, wrong name, no certificate, an old protocol, or no TLS at all.
    pub fn handshake(&self) -> u64 {
        self.counts[Refusal::Handshake as usize].load(Ordering::Relaxed)
    }

    /// Connected, but did not finish the handshake in time.
    pub fn timed_out(&self) -> u64 {
        self.counts[Refusal::TimedOut as usize].load(Ordering::Relaxed)
    }

    /// More connections or handshakes than the limits allow.
    pub fn overload(&self) -> u64 {
        self.counts[Refusal::Overload as usize].load(Ordering::Relaxed)
    }

    pub fn total(&self) -> u64 {
        self.handshake() + self.timed_out() + self.overload()
    }

    fn count(&self, refusal: Refusal, address: SocketAddr, why: &dyn std::fmt::Display) {
        let count = self.counts[refusal as usize].fetch_add(1, Ordering::Relaxed) + 1;
        self.metric.add(1);
        // Whoever keeps trying must not fill the log: the 1st, 2nd, 4th, 8th... are written.
        if count.is_power_of_two() {
            tracing::warn!(%address, ?refusal, %why, count, "connection refused");
        }
    }
}

/// Connections whose peers have proved to be on the list.
pub type Incoming = ReceiverStream<io::Result<PeerStream>>;

struct Acceptor {
    credentials: Credentials,
    allow: AllowList,
    door: Arc<Door>,
    /// The configuration made of the newest credentials.
    config: Mutex<Option<(Arc<Loaded>, Arc<ServerConfig>)>>,
    refusals: Refusals,
    kill: CancellationToken,
}

/// Accepts until `stop` is cancelled; `kill` cuts the connections that then still exist.
pub fn listen(
    listener: TcpListener,
    credentials: Credentials,
    allow: AllowList,
    limits: Limits,
    stop: CancellationToken,
    kill: CancellationToken,
) -> (Incoming, Refusals) {
    let refusals = Refusals::new(&credentials.name());
    let acceptor = Arc::new(Acceptor {
        credentials,
        allow,
        door: Door::new(limits),
        config: Mutex::new(None),
        refusals: refusals.clone(),
        kill,
    });
    let (ready, incoming) = mpsc::channel(16);
    tokio::spawn(async move {
        tokio::select! {
            () = accept_loop(&listener, &acceptor, &ready) => {}
            () = stop.cancelled() => {}
        }
    });
    (ReceiverStream::new(incoming), refusals)
}

async fn accept_loop(listener: &TcpListener, acceptor: &Arc<Acceptor>, ready: &mpsc::Sender<io::Result<PeerStream>>) {
    loop {
        let knock = acceptor.door.knock(listener).await;
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let address = knock.address();
            let shaken = tokio::select! {
                shaken = knock.shake(|| acceptor.config().map_err(io::Error::other)) => shaken,
                () = ready.closed() => return,
            };
            let refusals = &acceptor.refusals;
            match shaken.map(|shaken| acceptor.known(shaken, address)) {
                // The server may have stopped meanwhile.
                Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                Ok(Err(error)) => refusals.count(Refusal::Handshake, address, &error),
                Err(why) => refusals.count(why.kind(), address, &why),
            }
        });
    }
}

impl Acceptor {
    /// Whom the handshake has shown the peer to be.
    fn known(&self, shaken: Shaken, address: SocketAddr) -> Result<PeerStream, TlsError> {
        let Shaken { stream: inner, permit } = shaken;
        let (_, session) = inner.get_ref();
        if session.alpn_protocol() != Some(ALPN) {
            return Err(TlsError::NoHttp2);
        }
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let name = certificate.and_then(named).ok_or(TlsError::Nameless)?;
        let peer = PeerIdentity { name, address };
        tracing::debug!(peer = peer.name, %address, "peer connected");
        let killed = Box::pin(self.kill.clone().cancelled_owned());
        Ok(PeerStream { inner, peer, killed, _connection: permit })
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let loaded = self.credentials.current();
        let mut cached = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, config)) = cached.as_ref()
            && Arc::ptr_eq(from, &loaded)
        {
            return Ok(config.clone());
        }
        let config = Arc::new(loaded.server_config(&self.allow)?);
        *cached = Some((loaded, config.clone()));
        Ok(config)
    }
}

/// A connection from a known peer.
#[derive(Debug)]
pub struct PeerStream {
    inner: tokio_rustls::server::TlsStream<TcpStream>,
    peer: PeerIdentity,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    _connection: OwnedSemaphorePermit,
}

impl PeerStream {
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.peer.clone()
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server is stopping")
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.killed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(cut()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
