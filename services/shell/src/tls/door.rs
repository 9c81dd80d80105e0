//! The door of a port: connections that have not shown yet who they are.
//!
//! Anybody can open connections and say nothing. So those whose handshake is not finished have room of their own, and
//! finished ones do not count there. Addresses share the room alike: when it is full, the address with the most
//! connections in it gives one up, the one that made no progress for the longest time. A real handshake takes a few
//! round trips; it would have to stand still while as many others come as there is room for.

mod guest;
mod room;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub use guest::Guest;
use room::Room;

/// Connections that the system may hold until they are taken; it may be set to hold fewer.
const BACKLOG: u32 = 4096;
/// Wait before another connection is taken after the system has refused to give one.
const RETRY: Duration = Duration::from_millis(10);

/// How much a server puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time until the first byte of a connection.
    pub first_byte: Duration,
    /// Time for a handshake as a whole.
    pub handshake: Duration,
    /// Connections whose handshake is not finished.
    pub handshakes: usize,
    /// Connections beyond their handshake.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            handshakes: 512,
            connections: 512,
        }
    }
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TurnedAway {
    #[error("TLS handshake: {0}")]
    Handshake(#[from] io::Error),
    #[error("it said nothing for {} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("the TLS handshake took longer than {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("of too many handshakes it was the one without progress for the longest time")]
    GaveWay,
    #[error("too many connections")]
    Full,
}

/// Kinds of [`TurnedAway`], as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong certificate, wrong name, no certificate, an old protocol, or no TLS at all.
    Handshake,
    /// Connected, but did not finish the handshake in time.
    TimedOut,
    /// More connections or handshakes than the limits allow.
    Overload,
}

impl TurnedAway {
    pub fn kind(&self) -> Refusal {
        match self {
            Self::Handshake(_) => Refusal::Handshake,
            Self::Silent(_) | Self::TimedOut(_) => Refusal::TimedOut,
            Self::GaveWay | Self::Full => Refusal::Overload,
        }
    }
}

/// Listens with as long a queue as a burst of connections needs.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A service that starts again takes its old port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes the connections of one port.
#[derive(Debug)]
pub struct Door {
    limits: Limits,
    room: Mutex<Room>,
    connections: Arc<Semaphore>,
    /// Times that the system gave no connection.
    failures: AtomicU64,
}

impl Door {
    pub fn new(limits: Limits) -> Arc<Self> {
        let connections = Arc::new(Semaphore::new(limits.connections));
        let room = Mutex::new(Room::new(limits.handshakes));
        Arc::new(Self { limits, room, connections, failures: AtomicU64::new(0) })
    }

    /// The next connection; another one may give way to it. May be dropped and called again.
    pub async fn knock(self: &Arc<Self>, listener: &TcpListener) -> Knock {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let (id, gave_way) = self.room().enter(address.ip());
                    return Knock { stream, address, place: Place { door: self.clone(), id, gave_way } };
                }
                Err(error) => {
                    // Out of descriptors, or a connection reset before it was taken. Neither ends the server.
                    let gone = self.room().clear(1.0 / 8.0);
                    let count = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                    // A shortage that lasts must not fill the log: the 1st, 2nd, 4th, 8th... are written.
                    if count.is_power_of_two() {
                        tracing::warn!(%error, count, gone, "cannot accept");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has not shown yet who it is.
#[derive(Debug)]
pub struct Knock {
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
}

/// A connection beyond its handshake.
#[derive(Debug)]
pub struct Shaken {
    pub stream: TlsStream<TcpStream>,
    /// Counts among the connections until it is dropped.
    pub permit: OwnedSemaphorePermit,
}

impl Knock {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection as it is, for ports at which nobody has to say who they are; it gives way to others, too.
    pub fn guest(self) -> Guest {
        Guest { stream: self.stream, place: self.place, gone: false }
    }

    /// Shakes hands as a server of that configuration, which is asked for when a client has said hello.
    pub async fn shake(self, config: impl FnOnce() -> io::Result<Arc<ServerConfig>>) -> Result<Shaken, TurnedAway> {
        let Self { stream, mut place, .. } = self;
        let (limits, started) = (place.door.limits, Instant::now());
        stream.set_nodelay(true)?;
        let patience = limits.first_byte.min(limits.handshake);
        // Readiness alone may be said of a stream that has nothing to read yet.
        let mut byte = [0];
        let first = place.or_away(stream.peek(&mut byte));
        tokio::time::timeout(patience, first).await.map_err(|_| TurnedAway::Silent(patience))??;
        place.progresses();
        let hello = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            io::Result::Ok((hello, config()?))
        };
        let late = |_| TurnedAway::TimedOut(limits.handshake);
        let until = started + limits.handshake;
        let (hello, config) = tokio::time::timeout_at(until, place.or_away(hello)).await.map_err(late)??;
        place.progresses();
        let rest = place.or_away(hello.into_stream(config));
        let stream = tokio::time::timeout_at(until, rest).await.map_err(late)??;
        let permit = place.door.connections.clone().try_acquire_owned().map_err(|_| TurnedAway::Full)?;
        Ok(Shaken { stream, permit })
    }
}

/// A place in the room, until it is dropped or given to another connection.
#[derive(Debug)]
struct Place {
    door: Arc<Door>,
    id: u64,
    gave_way: oneshot::Receiver<()>,
}

impl Place {
    fn progresses(&self) {
        self.door.room().progresses(self.id);
    }

    /// What the handshake waits for, unless the place is given away meanwhile.
    async fn or_away<T>(&mut self, awaited: impl Future<Output = io::Result<T>>) -> Result<T, TurnedAway> {
        tokio::select! {
            biased;
            done = awaited => Ok(done?),
            _ = &mut self.gave_way => Err(TurnedAway::GaveWay),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.room().leave(self.id);
    }
}
