//! Taking connections: handshakes run beside the accept loop; [`Door`] says which and how many.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{HandshakeKind, ProtocolVersion};
use shell::tls::{Door, Knock, Refusal, Shaken};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::access::{AccessList, Caller, Certified, Naming, Presence};
use super::counters::{Counters, Counts};
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

    pub fn counts(&self) -> Counts {
        self.counters.counts()
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
            door: Door::new(self.limits.of_door()),
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
    door: Arc<Door>,
    stop: CancellationToken,
}

impl<S: KeySupply> Acceptor<S> {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        loop {
            let knock = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ended) = tasks.join_next() => {
                    tell(ended);
                    continue;
                }
                knock = self.door.knock(&listener) => knock,
            };
            tasks.spawn(self.clone().serve(knock));
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

    async fn serve(self: Arc<Self>, knock: Knock) {
        let address = knock.address();
        let shaken = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            shaken = knock.shake(|| Ok(self.credentials.config())) => shaken,
        };
        let Shaken { stream, permit: _permit } = match shaken {
            Ok(shaken) => shaken,
            Err(why) => return self.refused(why.kind(), address, &why),
        };
        let certified = match self.certified(&stream) {
            Ok(certified) => certified,
            Err(why) => return self.refused(Refusal::Handshake, address, &why),
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

    fn certified(&self, stream: &TlsStream<TcpStream>) -> Result<Certified, io::Error> {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.ok_or_else(|| io::Error::other("no certificate"))?;
        Certified::by(certificate, self.naming).map_err(io::Error::other)
    }

    fn refused(&self, refusal: Refusal, address: SocketAddr, why: &dyn std::fmt::Display) {
        let count = self.service.counters.refused(refusal);
        // Whoever keeps trying must not fill the log: the 1st, 2nd, 4th, 8th... are written.
        if count.is_power_of_two() {
            tracing::warn!(%address, ?refusal, %why, count, "connection refused");
        }
    }
}
