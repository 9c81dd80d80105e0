//! Relayed key over three hops: four sites in a line, a key store and a relay each, every one a process of its own.
//!
//! First the pool of the outer two sites is filled as fast as it goes; then applications at the two ends take a
//! thousand keys a second for a while, so that relaying goes on beside them, and every key is fetched at the far end
//! and compared. The time of a hop is that of one transfer at one site after the origin: from the arrival of the sealed
//! key to its departure, or at the target to the word that it has it; all durable writes are within.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use telemetry::names::{attribute, span};
use telemetry::store::Store;

use crate::client::{Connecting, Load, quantile};
use crate::network::{Network, Relaying, ready_bits, until};
use crate::{memory, row};

const SITES: [&str; 4] = ["ada", "bell", "curie", "dirac"];
const KEY_BYTES: u64 = 32;
const BLOCK_BYTES: usize = 64 << 10;
const LINK_BYTES: usize = 8 << 20;
/// As topologies have it that say nothing else.
const TRANSFER_BYTES: u32 = 1024;
const POOL_BYTES: u64 = 1 << 20;
const KEYS_PER_SECOND: f64 = 1000.0;
const TAKING_S: f64 = 20.0;
/// Time in which services that have nothing to do come to rest.
const REST: Duration = Duration::from_secs(12);
/// Spans are on the disk after so long.
const SPANS_WRITTEN: Duration = Duration::from_secs(1);

const RATE_BAR: f64 = 1000.0;
const HOP_BAR_MS: f64 = 5.0;

pub fn relay() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let measured = runtime.context("start a runtime").and_then(|runtime| runtime.block_on(measure()));
    if let Err(error) = measured {
        row("relayed key", "FAILED".to_owned(), &format!("{error:#}"));
    }
}

async fn measure() -> Result<()> {
    let relaying = Relaying {
        transfer_bytes: TRANSFER_BYTES,
        low_water_bytes: POOL_BYTES - 4 * u64::from(TRANSFER_BYTES),
        high_water_bytes: POOL_BYTES,
    };
    let network = Network::start(&SITES, Some(relaying)).await?;
    tokio::time::sleep(REST).await;
    memory::idle_rows(network.services())?;
    for pair in SITES.windows(2) {
        network.feeder(pair[0], pair[1]).await?.feed(LINK_BYTES / BLOCK_BYTES, BLOCK_BYTES).await?;
    }
    fill(&network).await?;
    take(&network).await
}

/// How fast an empty pool fills.
async fn fill(network: &Network) -> Result<()> {
    let relayed = async || Ok::<u64, anyhow::Error>(network.relay_status(SITES[0]).await?.transfers_relayed);
    until("a first relayed key", async || Ok(relayed().await? > 0)).await?;
    let (begun, before) = (Instant::now(), relayed().await?);
    let mut watch = network.kms(SITES[0]).await?;
    let enough = 8 * POOL_BYTES * 9 / 10;
    until("a full pool of relayed key", async || {
        Ok(begun.elapsed() > Duration::from_secs(30) || ready_bits(&watch.pool(SITES[3]).await?) >= enough)
    })
    .await?;
    let keys = (relayed().await? - before) * u64::from(TRANSFER_BYTES) / KEY_BYTES;
    let rate = keys as f64 / begun.elapsed().as_secs_f64();
    let verdict = if rate >= RATE_BAR { "met" } else { "MISSED" };
    let what = format!("relayed key over 3 hops, {TRANSFER_BYTES} byte transfers");
    row(&what, format!("{rate:.0} keys/s"), &format!(">= {RATE_BAR:.0} /s: {verdict}"));
    Ok(())
}

/// How long hops take while applications use what is relayed.
async fn take(network: &Network) -> Result<()> {
    let mut load = Load::start(network.place(SITES[0]).await?, network.place(SITES[3]).await?)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let taken = tokio::task::block_in_place(|| load.take(TAKING_S, Connecting::KeptAlive, Some(KEYS_PER_SECOND)))?;
    tokio::time::sleep(SPANS_WRITTEN).await;
    let times_ms = hops_ms(network, since.as_nanos() as u64)?;
    let fetched = tokio::task::block_in_place(|| load.fetch(usize::MAX, false))?;
    let (p50, p99) = (quantile(&times_ms, 0.5), quantile(&times_ms, 0.99));
    let verdict = if p99 < HOP_BAR_MS { "met" } else { "MISSED" };
    let what = format!("  time of a hop at {:.0} keys/s, {} hops, p50 and p99", taken.rate(), times_ms.len());
    row(&what, format!("{p50:.2}, {p99:.2} ms"), &format!("p99 < {HOP_BAR_MS:.0} ms: {verdict}"));
    let syncs_ms = syncs_ms().context("write and sync")?;
    let (p50, p99) = (quantile(&syncs_ms, 0.5), quantile(&syncs_ms, 0.99));
    row("  one page written and synced on this disk, p50 and p99", format!("{p50:.2}, {p99:.2} ms"), "");
    let all = if fetched.requests == taken.requests { "met" } else { "MISSED" };
    let equal = format!("{}, {} refused", fetched.requests, taken.refused);
    row("  relayed keys taken, then fetched and equal", equal, &format!("all of them: {all}"));
    Ok(())
}

/// What a commit takes at least: times of a page in a file of fixed length, with the services at rest, sorted.
fn syncs_ms() -> std::io::Result<Vec<f32>> {
    const PAGE: [u8; 4096] = [7; 4096];
    const PAGES: u64 = 256;
    let file = tempfile::tempfile()?;
    (0..PAGES).try_for_each(|page| file.write_all_at(&PAGE, page * PAGE.len() as u64))?;
    file.sync_all()?;
    let time = |turn: u64| {
        file.write_all_at(&PAGE, turn * 97 % PAGES * PAGE.len() as u64)?;
        let begun = Instant::now();
        file.sync_data()?;
        Ok(begun.elapsed().as_secs_f32() * 1e3)
    };
    let mut times = (0..4 * PAGES).map(time).collect::<std::io::Result<Vec<f32>>>()?;
    times.sort_by(f32::total_cmp);
    Ok(times)
}

/// Times that transfers begun since then spent at sites after their origin, sorted.
fn hops_ms(network: &Network, since_ns: u64) -> Result<Vec<f32>> {
    let mut times = Vec::new();
    let visit = |record: telemetry::store::SpanRecord| {
        let outcome = record.text(attribute::TRANSFER_OUTCOME).unwrap_or_default();
        let is_hop = record.name == span::TRANSFER && matches!(outcome, "forwarded" | "delivered");
        if is_hop && record.start_ns >= since_ns {
            times.push((record.end_ns - record.start_ns) as f32 / 1e6);
        }
    };
    Store::open([network.spans()])?.spans(visit)?;
    times.sort_by(f32::total_cmp);
    Ok(times)
}
