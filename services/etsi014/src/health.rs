//! Health, metrics and the ledger of the pools over plain HTTP, for probes and scrapers that present no certificate. Nothing else is here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shell::tls::Door;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::connection::{self, Answer, Request};
use super::head::Method;
use super::limits::Limits;
use super::reply::{Body, Problem, Reply};

/// Path of the accounts beside `/metrics`.
pub const LEDGER_PATH: &str = "/ledger";

const ALLOW: &str = "GET, HEAD";

/// How a service is. Without a reason to be unhealthy it is healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    pub reasons: Vec<String>,
}

/// What is asked at every request.
pub trait Probe: Send + Sync + 'static {
    fn health(&self) -> Health;

    /// Metrics in the text format of Prometheus.
    fn metrics(&self) -> String;

    /// Where every bit is; see `kms::accounts`. What keeps no key has nothing to account for.
    fn ledger(&self) -> serde_json::Value {
        serde_json::Value::Array(Vec::new())
    }
}

/// A listener that runs.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn finished(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the health listener ended out of order");
        }
    }
}

/// Probes are small, few, and not to be waited for.
const LIMITS: Limits = Limits {
    connections: 64,
    connections_per_sae: 64,
    handshakes: 64,
    first_byte: Duration::from_secs(1),
    handshake: Duration::from_secs(1),
    idle: Duration::from_secs(30),
    head: Duration::from_secs(5),
    body: Duration::from_secs(5),
    answer: Duration::from_secs(5),
    write: Duration::from_secs(5),
    drain: Duration::from_secs(1),
    head_bytes: 8 << 10,
    body_bytes: 1 << 10,
    key_ids: 0,
    answer_key_bytes: 0,
};

/// Serves `/healthz`, which is `/readyz` too, `/metrics` and `/ledger` until `stop` is cancelled.
pub fn start<P: Probe>(listener: TcpListener, probe: Arc<P>, stop: CancellationToken) -> io::Result<Running> {
    let address = listener.local_addr()?;
    let task = tokio::spawn(run(listener, probe, stop));
    Ok(Running { address, task })
}

async fn run<P: Probe>(listener: TcpListener, probe: Arc<P>, stop: CancellationToken) {
    let door = Door::new(LIMITS.of_door());
    let mut tasks = JoinSet::new();
    loop {
        let knock = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            knock = door.knock(&listener) => knock,
        };
        // Beyond the limit the oldest connection gives way.
        tasks.spawn(connection::serve(knock.guest(), LIMITS, Probes(probe.clone()), stop.clone()));
    }
    drop(listener);
    let drained = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LIMITS.drain, drained).await;
    tasks.shutdown().await;
}

struct Probes<P>(Arc<P>);

impl<P: Probe> Answer for Probes<P> {
    async fn answer(&mut self, request: Request<'_>) -> Reply {
        let path = request.target.split('?').next().unwrap_or_default();
        if !matches!(path, "/healthz" | "/readyz" | "/metrics" | LEDGER_PATH) {
            return Problem::not_found().into();
        }
        match request.method {
            Method::Get | Method::Head => {}
            Method::Options => return Reply::options(ALLOW),
            _ => return Problem::method(ALLOW).into(),
        }
        if path == "/metrics" {
            return Reply::new(200, Body::Text(self.0.metrics()));
        }
        if path == LEDGER_PATH {
            return Reply::json(200, &self.0.ledger());
        }
        let report = self.0.health();
        Reply::json(if report.reasons.is_empty() { 200 } else { 503 }, &report)
    }

    fn refuse(&mut self, problem: Problem) -> Reply {
        problem.into()
    }
}
