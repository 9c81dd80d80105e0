//! The interface without sockets and TLS: what one SAE sends, and what it would be answered.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::access::{Access, AccessList, Caller, Certified};
use super::handler::{SaeRequests, Service};
use super::{Limits, connection};
use crate::supply::{KeySupply, SaeId};

/// Bytes that are on their way in each direction.
const BUFFER_BYTES: usize = 64 << 10;

/// Answers everything that `sae` sends on one connection, until it has said all or is refused.
pub async fn answer<S: KeySupply>(supply: Arc<S>, sae: SaeId, sent: &[u8]) -> Vec<u8> {
    let limits = Limits::default();
    let service = Service { supply, limits, counters: Arc::default(), address: String::new() };
    let caller = Caller::new(Certified::uncertified(sae.clone()), AccessList::new(Access::new([sae])));
    let requests = SaeRequests { service: Arc::new(service), caller, tls: "none" };
    let (client, server) = tokio::io::duplex(BUFFER_BYTES);
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let mut answers = Vec::new();
    let send = async {
        // A server that has heard enough takes no more.
        let _ = to_server.write_all(sent).await;
        let _ = to_server.shutdown().await;
    };
    let served = connection::serve(server, limits, requests, CancellationToken::new());
    let (_, _, _) = tokio::join!(served, send, from_server.read_to_end(&mut answers));
    answers
}
