//! Taking connections: handshakes run beside the accept loop, each with a time limit, so many at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::access::{AccessList, Caller, Certified, Naming, Presence};
use super::counters::{Counters, Refusal, Snapshot};
use super::handler::{SaeRequests, Service};
use super::{Credentials, Limits, connection};
use crate::supply::KeySupply;

/// A server that is about to start.
pub struct Server<S> {
    supply: Arc<S>,
    credentials: Credentials,
    access: AccessList,
    naming: Naming,
    limits: Limits,
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    pub fn snapshot(&self) -> Snapshot {
        self.counters.snapshot()
    }

    /// Waits for the server to end, which the token that it was started with asks for.
    pub async fn finished(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the ETSI 014 server ended out of order");
        }
    }
}

impl<S: KeySupply> Server<S> {
    pub fn new(supply: Arc<S>, credentials: Credentials, access: AccessList) -> Self {
        Self { supply, credentials, access, naming: Naming::default(), limits: Limits::default() }
    }

    /// Takes clients for whom their certificates name in another way.
    pub fn naming(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Serves until `stop` is cancelled; then requests in work are answered, within the drain limit.
    pub fn start(self, listener: TcpListener, stop: CancellationToken) -> io::Result<Running> {
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let service = Service {
            supply: self.supply,
            limits: self.limits,
            counters: counters.clone(),
            address: address.ip().to_string(),
        };
        let acceptor = Arc::new(Acceptor {
            service: Arc::new(service),
            credentials: self.credentials,
            access: self.access,
            naming: self.naming,
            presence: Arc::default(),
            handshakes: Arc::new(Semaphore::new(self.limits.handshakes)),
            connections: Arc::new(Semaphore::new(self.limits.connections)),
            stop,
        });
        let task = tokio::spawn(acceptor.run(listener));
        Ok(Running { address, counters, task })
    }
}

/// A connection must not panic; if one does, the others go on and the log says so.
fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection ended by a panic");
    }
}

struct Acceptor<S> {
    service: Arc<Service<S>>,
    credentials: Credentials,
    access: AccessList,
    naming: Naming,
    presence: Arc<Presence>,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    stop: CancellationToken,
}

impl<S: KeySupply> Acceptor<S> {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ended) = tasks.join_next() => {
                    tell(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.take(stream, address, &mut tasks),
                Err(error) => {
                    // Out of descriptors, or a connection reset before it was taken. Neither ends the server.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        let drained = async {
            while let Some(ended) = tasks.join_next().await {
                tell(ended);
            }
        };
        if tokio::time::timeout(self.service.limits.drain, drained).await.is_err() {
            tracing::warn!(connections = tasks.len(), "cut while requests were in work");
        }
        tasks.shutdown().await;
    }

    fn take(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, tasks: &mut JoinSet<()>) {
        let permits = (self.handshakes.clone().try_acquire_owned(), self.connections.clone().try_acquire_owned());
        let (Ok(handshake), Ok(connection)) = permits else {
            return self.refused(Refusal::Overload, address, &"too many connections");
        };
        tasks.spawn(self.clone().serve(stream, address, handshake, connection));
    }

    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        handshake: OwnedSemaphorePermit,
        _connection: OwnedSemaphorePermit,
    ) {
        let shaken = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            shaken = self.handshake(stream) => shaken,
        };
        drop(handshake);
        let (stream, certified) = match shaken {
            Ok(shaken) => shaken,
            Err((refusal, error)) => return self.refused(refusal, address, &error),
        };
        let limit = self.service.limits.connections_per_sae;
        let Some(_present) = self.presence.enter(&certified, limit) else {
            return self.refused(Refusal::Overload, address, &"too many connections of one client");
        };
        let (_, session) = stream.get_ref();
        self.service.counters.handshake(session.handshake_kind() == Some(HandshakeKind::Resumed));
        let tls = if session.protocol_version() == Some(ProtocolVersion::TLSv1_2) { "1.2" } else { "1.3" };
        let caller = Caller::new(certified, self.access.clone());
        let requests = SaeRequests { service: self.service.clone(), caller, tls };
        connection::serve(stream, self.service.limits, requests, self.stop.clone()).await;
    }

    async fn handshake(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Certified), (Refusal, io::Error)> {
        let refused = |error| (Refusal::Handshake, error);
        stream.set_nodelay(true).map_err(refused)?;
        let accept = TlsAcceptor::from(self.credentials.config()).accept(stream);
        let stream = tokio::time::timeout(self.service.limits.handshake, accept)
            .await
            .map_err(|_| (Refusal::TimedOut, io::ErrorKind::TimedOut.into()))?
            .map_err(refused)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.ok_or_else(|| refused(io::Error::other("no certificate")))?;
        let certified = Certified::by(certificate, self.naming).map_err(|error| refused(io::Error::other(error)))?;
        Ok((stream, certified))
    }

    fn refused(&self, refusal: Refusal, address: SocketAddr, why: &dyn std::fmt::Display) {
        let count = self.service.counters.refused(refusal);
        // Whoever keeps trying must not fill the log: the 1st, 2nd, 4th, 8th... are written.
        if count.is_power_of_two() {
            tracing::warn!(%address, ?refusal, %why, count, "connection refused");
        }
    }
}
