//! From a request to its answer.

use std::sync::Arc;

use tracing::{Instrument as _, Span, field};

use super::Limits;
use super::access::Caller;
use super::connection::{Answer, Request};
use super::counters::Counters;
use super::head::Method;
use super::reply::{Problem, Reply, message};
use super::request::{self, KeyRequest};
use super::route::{Route, Target};
use crate::supply::{GetKey, KeySupply, SaeId, SuppliedKey, SupplyError};

/// What all connections of a server share.
pub(super) struct Service<S> {
    pub(super) supply: Arc<S>,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    /// Address that the server listens at, for spans.
    pub(super) address: String,
}

/// One SAE's requests.
pub(super) struct SaeRequests<S> {
    pub(super) service: Arc<Service<S>>,
    pub(super) caller: Caller,
    pub(super) tls: &'static str,
}

impl<S: KeySupply> Answer for SaeRequests<S> {
    async fn answer(&mut self, request: Request<'_>) -> Reply {
        let service = self.service.clone();
        let target = match Target::parse(request.target) {
            Ok(target) => target,
            Err(problem) => return self.refuse(problem),
        };
        let span = self.span(&request, &target);
        let work = async {
            match self.caller.sae() {
                Ok(caller) => service.granted(caller, &request, &target, &span).await.unwrap_or_else(Reply::from),
                Err(problem) => Reply::from(problem),
            }
        };
        // Most requests are not traced; they do without the bookkeeping.
        let reply = if span.is_disabled() { work.await } else { work.instrument(span.clone()).await };
        span.record("http.response.status_code", reply.status);
        if reply.status >= 500 {
            span.record("error.type", reply.status).record("otel.status_code", "ERROR");
        }
        service.counters.request(target.route, reply.status);
        reply
    }

    fn refuse(&mut self, problem: Problem) -> Reply {
        let reply = Reply::from(problem);
        self.service.counters.request(Route::Other, reply.status);
        reply
    }
}

/// Spans have static names, so that there is one place for each.
macro_rules! request_span {
    ($requests:expr, $request:expr, $target:expr, $($method:literal $route:pat => $name:literal,)*) => {
        match ($request.method.name(), $target.route) {
            $(($method, $route) => request_span!($requests, $request, $target, $name),)*
            _ => request_span!($requests, $request, $target, "HTTP"),
        }
    };
    ($requests:expr, $request:expr, $target:expr, $name:literal) => {
        tracing::debug_span!(
            $name,
            otel.kind = "server",
            otel.status_code = field::Empty,
            http.request.method = $request.method.name(),
            http.route = field::Empty,
            http.response.status_code = field::Empty,
            url.path = field::Empty,
            url.scheme = "https",
            server.address = $requests.service.address,
            network.protocol.version = "1.1",
            tls.protocol.version = $requests.tls,
            error.type = field::Empty,
            qkd.sae.master = field::Empty,
            qkd.sae.slave = field::Empty,
            qkd.key.count = field::Empty,
            qkd.key.size_bits = field::Empty,
        )
    };
}

impl<S> SaeRequests<S> {
    fn span(&self, request: &Request<'_>, target: &Target<'_>) -> Span {
        let span = request_span!(self, request, target,
            "GET" Route::Status => "GET /api/v1/keys/{slave_SAE_ID}/status",
            "GET" Route::EncKeys => "GET /api/v1/keys/{slave_SAE_ID}/enc_keys",
            "POST" Route::EncKeys => "POST /api/v1/keys/{slave_SAE_ID}/enc_keys",
            "GET" Route::DecKeys => "GET /api/v1/keys/{master_SAE_ID}/dec_keys",
            "POST" Route::DecKeys => "POST /api/v1/keys/{master_SAE_ID}/dec_keys",
        );
        // A path that is none of ours may hold anything, also the ID of a key.
        if target.route != Route::Other {
            span.record("http.route", target.route.template()).record("url.path", target.path);
        }
        span
    }
}

impl<S: KeySupply> Service<S> {
    /// The answer to somebody who is an SAE of this KME.
    async fn granted(
        &self,
        caller: &SaeId,
        request: &Request<'_>,
        target: &Target<'_>,
        span: &Span,
    ) -> Result<Reply, Problem> {
        match (request.method, target.route) {
            (Method::Options, Route::Other) if request.target == "*" => {
                return Ok(Reply::options(Route::Other.allow()));
            }
            (_, Route::Other) => return Err(Problem::not_found()),
            (Method::Options, route) => return Ok(Reply::options(route.allow())),
            (method, route) if !route.allows(method) => return Err(Problem::method(route.allow())),
            _ => {}
        }
        let peer = target.peer()?;
        let (master, slave) = if target.route == Route::DecKeys { (&peer, caller) } else { (caller, &peer) };
        span.record("qkd.sae.master", master.as_str()).record("qkd.sae.slave", slave.as_str());
        if target.route == Route::Status {
            return Ok(Reply::json(200, &self.supply.status(caller, &peer)?));
        }
        let keys = tokio::time::timeout(self.limits.answer, async {
            match target.route {
                Route::EncKeys => self.get_key(master, slave, request, target, span).await,
                _ => self.get_key_with_ids(caller, master, request, target).await,
            }
        });
        let keys = keys.await.map_err(|_| Problem::from(SupplyError::Failed("no answer in time")))??;
        span.record("qkd.key.count", keys.len());
        span.record("qkd.key.size_bits", keys.first().map_or(0, |key| key.key.len_bits()));
        self.counters.keys(keys.len());
        Ok(Reply::keys(keys))
    }

    async fn get_key(
        &self,
        master: &SaeId,
        slave: &SaeId,
        request: &Request<'_>,
        target: &Target<'_>,
        span: &Span,
    ) -> Result<Vec<SuppliedKey>, Problem> {
        let limits = self.supply.limits(master, slave)?;
        let asked = match request.method {
            Method::Post => KeyRequest::from_body(request.body, slave, limits)?,
            _ => KeyRequest::from_query(target, slave, limits)?,
        };
        let (number, size_bits) = (asked.number, asked.size_bits);
        let asked_bytes = u64::from(number) * u64::from(size_bits / 8);
        if asked_bytes > self.limits.answer_key_bytes {
            let (asked, limit) = (asked_bytes * 8, self.limits.answer_key_bytes * 8);
            return Err(SupplyError::TooMany { what: "number times size", asked, limit }.into());
        }
        let request = GetKey { master, slave, additional: &asked.additional, number, size_bits, span };
        let keys = self.supply.get_key(request).await.map_err(|error| match error {
            SupplyError::NoPath { slave: 0 } => Problem::from(error).detail("slave_SAE_ID", slave.as_str()),
            SupplyError::NoPath { slave: index } => {
                let further = asked.additional.get(index - 1).map_or("", SaeId::as_str);
                Problem::from(error).detail("additional_slave_SAE_ID", further)
            }
            error => error.into(),
        })?;
        let right = |key: &SuppliedKey| key.key.len_bits() == u64::from(size_bits);
        if keys.len() != number as usize || !keys.iter().all(right) {
            tracing::error!(asked = number, found = keys.len(), size_bits, "the key store gave other keys than asked");
            return Err(Problem::new(503, message::ACCESS));
        }
        Ok(keys)
    }

    async fn get_key_with_ids(
        &self,
        caller: &SaeId,
        master: &SaeId,
        request: &Request<'_>,
        target: &Target<'_>,
    ) -> Result<Vec<SuppliedKey>, Problem> {
        let ids = match request.method {
            Method::Post => request::key_ids_of_body(request.body, self.limits.key_ids)?,
            _ => request::key_ids_of_query(target)?,
        };
        let keys = self.supply.get_key_with_ids(caller, master, &ids).await.map_err(|error| match error {
            SupplyError::NotFound { at, .. } => match ids.get(at) {
                Some(id) => Problem::from(error).detail("key_ID", id.to_string()),
                None => error.into(),
            },
            error => error.into(),
        })?;
        if !keys.iter().map(|key| key.id).eq(ids.iter().copied()) {
            tracing::error!(asked = ids.len(), found = keys.len(), "the key store gave other keys than asked");
            return Err(Problem::new(503, message::ACCESS));
        }
        Ok(keys)
    }
}
