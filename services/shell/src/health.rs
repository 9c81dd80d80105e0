//! gRPC health with two states: peers can connect (service ``), and key flows (service `qkdnet.link`).

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The service name that tells whether every link of this service is locked and has stored its first block.
pub const LINK: &str = "qkdnet.link";

/// The states of one service. Clones share them.
#[derive(Clone, Debug)]
pub struct Health {
    serving: watch::Sender<bool>,
    link: watch::Sender<bool>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Serving, as peers must be able to connect before anything else can happen; no key yet.
    pub fn new() -> Self {
        Self { serving: watch::Sender::new(true), link: watch::Sender::new(false) }
    }

    /// Whether peers can connect.
    pub fn set_serving(&self, serving: bool) {
        self.serving.send_if_modified(|was| std::mem::replace(was, serving) != serving);
    }

    /// Whether key flows.
    pub fn set_link(&self, flowing: bool) {
        self.link.send_if_modified(|was| std::mem::replace(was, flowing) != flowing);
    }

    pub fn is_serving(&self) -> bool {
        *self.serving.borrow()
    }

    /// Waits until key flows.
    pub async fn link_flowing(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.link.subscribe().wait_for(|flowing| *flowing).await;
    }

    /// The gRPC service that tells these states.
    pub fn service(&self) -> HealthServer<impl HealthService> {
        HealthServer::new(self.clone())
    }

    fn state(&self, service: &str) -> Result<watch::Receiver<bool>, Status> {
        match service {
            "" => Ok(self.serving.subscribe()),
            LINK => Ok(self.link.subscribe()),
            _ => Err(Status::not_found("known services: the empty name and `qkdnet.link`")),
        }
    }
}

fn answer(good: bool) -> HealthCheckResponse {
    let status = if good { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl HealthService for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let state = self.state(&request.get_ref().service)?;
        let good = *state.borrow();
        Ok(Response::new(answer(good)))
    }

    type WatchStream = std::pin::Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let states = WatchStream::new(self.state(&request.get_ref().service)?);
        Ok(Response::new(Box::pin(states.map(|good| Ok(answer(good))))))
    }
}
