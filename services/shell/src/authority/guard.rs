//! The layer in front of all handlers of a server.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::entry;
use crate::tls::{AllowList, PeerIdentity};

/// Refuses calls that the table does not give to their caller.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    allow: AllowList,
    refused: Arc<AtomicU64>,
}

impl Guard {
    pub(crate) fn new(allow: &AllowList) -> Self {
        Self { allow: allow.clone(), refused: Arc::default() }
    }

    fn judge<B>(&self, request: &http::Request<B>) -> Result<(), Status> {
        let path = request.uri().path();
        let Some(entry) = entry(path) else { return Err(Status::unimplemented("there is no such call")) };
        let peer = request.extensions().get::<PeerIdentity>();
        let peer = peer.ok_or_else(|| Status::unauthenticated("no peer identity"))?;
        if entry.roles.iter().any(|role| self.allow.holds(&peer.name, *role)) {
            return Ok(());
        }
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        // A peer that keeps trying must not fill the log: the 1st, 2nd, 4th, 8th... are written.
        if count.is_power_of_two() {
            tracing::warn!(peer = peer.name, address = %peer.address, call = path, count, "refused a call that is not this peer's to make");
        }
        Err(Status::permission_denied(format!("`{}` may not call {}/{}", peer.name, entry.service, entry.method)))
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind its guard.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, B> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match self.guard.judge(&request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
