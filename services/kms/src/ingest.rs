//! Taking blocks from the modules of the site.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures::FutureExt as _;
use keystore::{BlockStatus, Offer, Pending, SPAN_BYTES, StoreError};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use proto::kms::v1::{Block, DeliverAnswer};
use serde_json::json;
use shell::duplex::Duplex;
use shell::handover::Intake;
use telemetry::names::{attribute, span};
use telemetry::trace::{Span, Tracer};
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
        let first = tokio::select! {
            block = module.receive() => block?,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(first) = first else { return Ok(()) };
        // What has come already shares a commit. One that does not open ends the stream, behind those before it.
        let (mut row, mut broken) = (vec![first], Ok(()));
        while row.len() < BLOCKS_IN_FLIGHT && broken.is_ok() {
            match module.receive().now_or_never() {
                Some(Ok(Some(block))) => row.push(block),
                Some(Err(error)) => broken = Err(error),
                Some(Ok(None)) | None => break,
            }
        }
        let numbers: Vec<u64> = row.iter().map(|(block, _)| block.number).collect();
        store(pools_by_link, tracer, row, stop).await?;
        for number in numbers {
            if module.taken(number).await.is_err() {
                return Ok(());
            }
        }
        broken?;
    }
}

/// Puts a row of blocks on the disk, and then how far the module has come.
async fn store(
    pools_by_link: &BTreeMap<String, Arc<Pool>>,
    tracer: &Tracer,
    row: Vec<(Block, Zeroizing<Vec<u8>>)>,
    stop: &CancellationToken,
) -> Result<()> {
    let mut offered = Vec::with_capacity(row.len());
    for (block, key) in row {
        let pool = pools_by_link.get(&block.link);
        let pool = pool.with_context(|| format!("the link `{}` does not end here", block.link))?;
        let number = block.number;
        offered.push(Offered::begin(pool, tracer, block, key).with_context(|| format!("take block {number}"))?);
    }
    let mut newest = BTreeMap::new();
    for offered in offered {
        let (pool, number) = (offered.pool, offered.number);
        let link = offered.end(stop).await.with_context(|| format!("take block {number}"))?;
        newest.insert(link, (pool, number));
    }
    for (link, (pool, number)) in newest {
        pool.has_handed_over(&link, number).await?;
    }
    Ok(())
}

/// A block on its way to the disk.
struct Offered<'p> {
    pool: &'p Pool,
    link: String,
    number: u64,
    /// Nothing where the block has no whole byte.
    offer: Option<(Offer, Pending<BlockStatus>)>,
    span: Span,
}

impl<'p> Offered<'p> {
    fn begin(pool: &'p Pool, tracer: &Tracer, block: Block, mut key: Zeroizing<Vec<u8>>) -> Result<Self> {
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
        let span = tracer
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
            relayed: false,
        };
        let offer = (bytes > 0).then(|| (offer.clone(), pool.store.offer(&pool.peer, offer)));
        Ok(Self { pool, link: block.link, number: block.number, offer, span })
    }

    /// Returns once the block is on the disk; its link.
    async fn end(mut self, stop: &CancellationToken) -> Result<String> {
        if let Some((offer, answer)) = self.offer {
            offer_when_there_is_room(self.pool, offer, answer, stop).await?;
        }
        shell::failpoint::hit("ingest.offered");
        self.span.succeed();
        self.span.end();
        Ok(self.link)
    }
}

/// A full pool holds its links up.
async fn offer_when_there_is_room(
    pool: &Pool,
    offer: Offer,
    mut answer: Pending<BlockStatus>,
    stop: &CancellationToken,
) -> Result<()> {
    let mut waits = None;
    loop {
        match answer.await {
            Ok(_) => return Ok(()),
            Err(StoreError::BlockConflict { .. }) => return refuse(pool, &offer).await,
            Err(StoreError::PoolFull { .. }) => {
                waits.get_or_insert_with(|| {
                    tracing::warn!(peer = pool.peer, "the pool is full: its links wait");
                    pool.wait_for_room(offer.key.len() as u64)
                });
            }
            Err(StoreError::Busy) => {}
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
            () = stop.cancelled() => bail!("stopping"),
        }
        answer = pool.store.offer(&pool.peer, offer.clone());
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
    use keystore::{KeyStore, MasterKey, Settings};
    use shell::handover::Handover;
    use telemetry::trace::{parse_traceparent, traceparent};

    use super::*;

    fn block(number: u64) -> Block {
        let id = u128::from(number).to_be_bytes().to_vec();
        Block { link: "one".to_owned(), number, id: id.into(), key_bits: 800, ..Block::default() }
    }

    fn store_in(folder: &std::path::Path) -> (Arc<KeyStore>, BTreeMap<String, Arc<Pool>>) {
        store_with(folder, &Settings::default())
    }

    fn store_with(folder: &std::path::Path, settings: &Settings) -> (Arc<KeyStore>, BTreeMap<String, Arc<Pool>>) {
        let master = MasterKey::from_bytes([1; 32]);
        let store = Arc::new(KeyStore::open(&folder.join("store"), &master, settings).unwrap());
        let (pool, _) = Pool::new(store.clone(), "a", "b", true, 1024, 60_000);
        (store, BTreeMap::from([("one".to_owned(), pool)]))
    }

    #[tokio::test]
    async fn blocks_that_come_together_share_commits_and_are_answered_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (store, pools) = store_in(folder.path());
        let (ours, theirs) = Duplex::pair(BLOCKS_IN_FLIGHT);
        let before = store.activity().database_commits;
        let module = async {
            let mut module = Handover::open(ours).await.unwrap();
            for number in 0..BLOCKS_IN_FLIGHT as u64 {
                module.send(block(number), &[number as u8; 100]).await.unwrap();
            }
            for number in 0..BLOCKS_IN_FLIGHT as u64 {
                assert_eq!(module.taken().await.unwrap(), number);
            }
        };
        let (tracer, stop) = (Tracer::new("kms-a"), CancellationToken::new());
        let (taken, ()) = tokio::join!(take(&pools, &tracer, theirs, &stop), module);
        taken.unwrap();
        let commits = store.activity().database_commits - before;
        assert!(commits <= 4, "{commits} commits for {BLOCKS_IN_FLIGHT} blocks");
        assert_eq!(store.levels("b").unwrap().offered_blocks, BLOCKS_IN_FLIGHT as u64);
        assert_eq!(pools["one"].handed_over("one"), Some(BLOCKS_IN_FLIGHT as u64 - 1));
    }

    #[tokio::test]
    async fn a_block_that_does_not_open_ends_the_stream_behind_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (store, pools) = store_in(folder.path());
        let (ours, middle) = Duplex::pair(BLOCKS_IN_FLIGHT);
        let (mut onward, theirs) = Duplex::pair(BLOCKS_IN_FLIGHT);
        let module = async {
            let mut middle: Duplex<DeliverAnswer, Block> = middle;
            let offered: DeliverAnswer = onward.receive().await.unwrap();
            middle.send(offered).await.unwrap();
            let mut module = Handover::open(ours).await.unwrap();
            for number in 0..3 {
                module.send(block(number), &[number as u8; 100]).await.unwrap();
                let mut sent = middle.receive().await.unwrap();
                sent.key_bits += u64::from(number == 2);
                onward.send(sent).await.unwrap();
            }
            for number in 0..2 {
                middle.send(onward.receive().await.unwrap()).await.unwrap();
                assert_eq!(module.taken().await.unwrap(), number);
            }
            assert!(onward.receive().await.is_none(), "the third one was answered");
        };
        let (tracer, stop) = (Tracer::new("kms-a"), CancellationToken::new());
        let (taken, ()) = tokio::join!(take(&pools, &tracer, theirs, &stop), module);
        assert!(taken.is_err());
        assert_eq!(store.levels("b").unwrap().offered_blocks, 2);
    }

    #[tokio::test]
    async fn a_full_pool_says_with_how_much_its_links_wait_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { capacity_bytes: 250, ..Settings::default() };
        let (store, pools) = store_with(folder.path(), &settings);
        let pool = pools["one"].clone();
        let (ours, theirs) = Duplex::pair(BLOCKS_IN_FLIGHT);
        let module = async {
            let mut module = Handover::open(ours).await.unwrap();
            for number in 0..3 {
                module.send(block(number), &[number as u8; 100]).await.unwrap();
            }
            while pool.waiting_bytes() != 100 {
                pool.wake.notified().await;
            }
            store.quarantine("b", 1u128.to_be_bytes(), "to make room").await.unwrap();
            for number in 0..3 {
                assert_eq!(module.taken().await.unwrap(), number);
            }
            assert_eq!(pool.waiting_bytes(), 0);
        };
        let (tracer, stop) = (Tracer::new("kms-a"), CancellationToken::new());
        let (taken, ()) = tokio::join!(take(&pools, &tracer, theirs, &stop), module);
        taken.unwrap();
        assert_eq!(store.levels("b").unwrap().offered_blocks, 2);
    }

    #[test]
    fn a_span_survives_the_store() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse_traceparent(text).unwrap();
        assert_eq!(span_context(&span_bytes(&context)).map(|known| traceparent(&known)).unwrap(), text);
        assert_eq!(span_context(&[0; SPAN_BYTES]), None);
    }
}
