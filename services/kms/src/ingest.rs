//! Taking blocks from the modules of the site.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use keystore::{Offer, SPAN_BYTES, StoreError};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use proto::kms::v1::{Block, DeliverAnswer};
use serde_json::json;
use shell::duplex::Duplex;
use shell::handover::Intake;
use telemetry::names::{attribute, span};
use telemetry::trace::Tracer;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::pair::Pool;

/// Blocks that may wait in a module's stream.
pub const BLOCKS_IN_FLIGHT: usize = 8;

pub type ModuleStream = Duplex<DeliverAnswer, Block>;

/// Takes the blocks of one module until it leaves.
pub async fn take(
    pools_by_link: &BTreeMap<String, Arc<Pool>>,
    tracer: &Tracer,
    stream: ModuleStream,
    stop: &CancellationToken,
) -> Result<()> {
    let mut module = Intake::open(stream).await?;
    loop {
        let block = tokio::select! {
            block = module.receive() => block?,
            () = stop.cancelled() => return Ok(()),
        };
        let Some((block, key)) = block else { return Ok(()) };
        let pool = pools_by_link.get(&block.link);
        let pool = pool.with_context(|| format!("the link `{}` does not end here", block.link))?;
        let number = block.number;
        store(pool, tracer, block, key, stop).await.with_context(|| format!("take block {number}"))?;
        if module.taken(number).await.is_err() {
            return Ok(());
        }
    }
}

async fn store(
    pool: &Pool,
    tracer: &Tracer,
    block: Block,
    mut key: Zeroizing<Vec<u8>>,
    stop: &CancellationToken,
) -> Result<()> {
    let id: [u8; 16] = block.id.as_ref().try_into().ok().context("a block's identity has 16 bytes")?;
    // The store counts in bytes: what is left of the last one stays with the module.
    let bytes = (block.key_bits / 8) as usize;
    if bytes > key.len() {
        bail!("a block of {} bits came with {} bytes", block.key_bits, key.len());
    }
    key.truncate(bytes);
    let origin = json!({
        "kind": "link", "link": block.link, "block": block.number, "epoch": block.epoch,
    });
    let mut span = tracer
        .span(span::INGEST)
        .parent_from(&block.traceparent)
        .attribute(attribute::LINK_ID, block.link.as_str())
        .attribute(attribute::PEER_SITE, pool.peer.as_str())
        .attribute(attribute::BLOCK_ID, block.number)
        .attribute(attribute::KEY_BITS, bytes * 8)
        .start();
    let offer = Offer {
        id,
        key: std::mem::take(&mut *key).into(),
        origin: origin.to_string(),
        span: span_bytes(&span.context()),
        offered_ms: crate::now_ms(),
    };
    if bytes > 0 {
        offer_when_there_is_room(pool, offer, stop).await?;
    }
    shell::failpoint::hit("ingest.offered");
    span.succeed();
    span.end();
    pool.has_handed_over(&block.link, block.number).await?;
    Ok(())
}

/// A full pool holds its links up.
async fn offer_when_there_is_room(pool: &Pool, offer: Offer, stop: &CancellationToken) -> Result<()> {
    let mut told = false;
    loop {
        match pool.store.offer(&pool.peer, offer.clone()).await {
            Ok(_) => return Ok(()),
            Err(StoreError::BlockConflict { .. }) => return refuse(pool, &offer).await,
            Err(StoreError::PoolFull { .. } | StoreError::Busy) => {}
            Err(error) => return Err(error.into()),
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(peer = pool.peer, "the pool is full: its links wait");
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
            () = stop.cancelled() => bail!("stopping"),
        }
    }
}

/// A block that came before with other bits: which are right nobody can say, so it does not count if it does not yet.
async fn refuse(pool: &Pool, offer: &Offer) -> Result<()> {
    tracing::error!(peer = pool.peer, "a module handed over the same block with other bits: it is quarantined");
    match pool.store.quarantine(&pool.peer, offer.id, "a module handed over two of it").await {
        // What counts was confirmed with the peer.
        Ok(_) | Err(StoreError::BlockConflict { .. }) => Ok(()),
        Err(error) => Err(error).context("quarantine a block"),
    }
}

/// A span's identity as the store keeps it; zeros where there is none.
pub fn span_bytes(context: &SpanContext) -> [u8; SPAN_BYTES] {
    let mut bytes = [0; SPAN_BYTES];
    if context.is_valid() {
        bytes[..16].copy_from_slice(&context.trace_id().to_bytes());
        bytes[16..24].copy_from_slice(&context.span_id().to_bytes());
        bytes[24] = context.trace_flags().to_u8();
    }
    bytes
}

pub fn span_context(bytes: &[u8; SPAN_BYTES]) -> Option<SpanContext> {
    let (trace, rest) = bytes.split_first_chunk::<16>()?;
    let (span, flags) = rest.split_first_chunk::<8>()?;
    let context = SpanContext::new(
        TraceId::from_bytes(*trace),
        SpanId::from_bytes(*span),
        TraceFlags::new(*flags.first()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use telemetry::trace::{parse_traceparent, traceparent};

    use super::*;

    #[test]
    fn a_span_survives_the_store() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse_traceparent(text).unwrap();
        assert_eq!(span_context(&span_bytes(&context)).map(|known| traceparent(&known)).unwrap(), text);
        assert_eq!(span_context(&[0; SPAN_BYTES]), None);
    }
}
