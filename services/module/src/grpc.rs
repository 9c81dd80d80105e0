//! The module's control service over gRPC.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use proto::detector::v1::detector_server::Detector;
use proto::detector::v1::{GetStatusRequest, ModuleEvent, ModuleStatus, RecoverRequest, RecoverResponse, WatchRequest};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use crate::status::Monitor;

/// Serves a module's [`Monitor`].
pub struct MonitorService {
    monitor: Arc<Monitor>,
}

impl MonitorService {
    pub fn new(monitor: Arc<Monitor>) -> Self {
        Self { monitor }
    }
}

#[tonic::async_trait]
impl Detector for MonitorService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<ModuleEvent, Status>> + Send>>;

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<ModuleStatus>, Status> {
        Ok(Response::new(self.monitor.status()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // A watcher that is too slow misses events, never holds the module up.
        let events = BroadcastStream::new(self.monitor.watch()).filter_map(|event| async { event.ok().map(Ok) });
        Ok(Response::new(Box::pin(events)))
    }

    async fn recover(&self, _: Request<RecoverRequest>) -> Result<Response<RecoverResponse>, Status> {
        self.monitor.request_recovery();
        Ok(Response::new(RecoverResponse {}))
    }
}
