//! Key supply as a whole: two key stores as processes, durable, their dialogue running, pools refilled while
//! applications in another process take keys at one and fetch every one of them at the other.
//!
//! Two such pairs run, one with 40,000 keys in its pool and one with 1,000,000, and are measured in turns, so that the
//! ratio of the two is one of the same minutes. `QKDNET_BENCH_SUPPLY_S` is the time of taking from the smaller pool.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{Connecting, Load, Report, quantile};
use crate::network::{Feeder, Network, Watch, cpu_s, ready_bits, until};
use crate::row;

const SITES: [&str; 2] = ["ada", "bell"];
const STORES: [&str; 2] = ["kms-ada", "kms-bell"];
const KEY_BITS: u64 = 256;
const BLOCK_BYTES: usize = 64 << 10;
/// Of a block so much is deducted for its confirmation.
const CONFIRMATION_BYTES: usize = 32;
const SMALL_KEYS: u64 = 40_000;
const LARGE_KEYS: u64 = 1_000_000;
const TURNS: usize = 6;
const SHUFFLED_S: f64 = 2.0;
const LOOK: Duration = Duration::from_millis(20);

const RATE_BAR: f64 = 20_000.0;
const LATENCY_BAR_MS: f64 = 5.0;
const RATIO_BAR: f64 = 0.9;
const CONNECTIONS_BAR: f64 = 1500.0;
const INGEST_BAR_MBIT: f64 = 100.0;

pub fn supply() {
    run("key supply", measure());
}

/// Key as fast as two stores take it, until it counts at both.
pub fn ingest() {
    run("ingest", feed());
}

fn run(what: &str, measure: impl Future<Output = Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let measured = runtime.context("start a runtime").and_then(|runtime| runtime.block_on(measure));
    if let Err(error) = measured {
        row(what, "FAILED".to_owned(), &format!("{error:#}"));
    }
}

async fn measure() -> Result<()> {
    let taking_s: f64 = std::env::var("QKDNET_BENCH_SUPPLY_S").ok().and_then(|text| text.parse().ok()).unwrap_or(60.0);
    let mut small = Pair::start(SMALL_KEYS).await?;
    let mut large = Pair::start(LARGE_KEYS).await?;
    let (mut taken, mut fetched) = ([Turns::default(), Turns::default()], [Turns::default(), Turns::default()]);
    for _ in 0..TURNS {
        for (pair, turns, share) in [(&mut small, 0, 1.0), (&mut large, 1, 0.4)] {
            let seconds = taking_s * share / TURNS as f64;
            let taking = |load: &mut Load| load.take(seconds, Connecting::KeptAlive, None);
            taken[turns].0.push(pair.turn(0, taking).await?);
        }
    }
    for at in 0..TURNS {
        for (pair, turns) in [(&mut small, 0), (&mut large, 1)] {
            let keys = taken[turns].requests().div_ceil(TURNS);
            let keys = if at + 1 == TURNS { usize::MAX } else { keys };
            fetched[turns].0.push(pair.turn(1, |load| load.fetch(keys, false)).await?);
        }
    }
    small.turn(0, |load| load.take(SHUFFLED_S, Connecting::KeptAlive, None)).await?;
    let shuffled = small.turn(1, |load| load.fetch(usize::MAX, true)).await?;
    rows("enc_keys", &format!("for {taking_s:.0} s"), &taken);
    rows("dec_keys", "in the order of taking", &fetched);
    let rate = format!("{:.0} /s", shuffled.report.rate());
    row("  in random order, pool of 40,000 keys", rate, "");
    row("  CPU time of a request, store + application", shuffled.cpu(), "");
    let (given, equal) = (taken[0].requests() + taken[1].requests(), fetched[0].requests() + fetched[1].requests());
    let all = if given == equal { "all of them: met" } else { "all of them: MISSED" };
    row("keys taken, then fetched at the peer byte for byte equal", equal.to_string(), all);
    for (what, connecting) in [("full handshakes", Connecting::NewFull), ("resumed", Connecting::NewResumed)] {
        let turn = small.turn(0, |load| load.take(5.0, connecting, None)).await?;
        let rate = turn.report.rate();
        row(
            &format!("014 enc_keys, a new TLS connection each, {what}"),
            format!("{rate:.0} /s"),
            &at_least(rate, CONNECTIONS_BAR),
        );
        row("  CPU time of a connection, store + application", turn.cpu(), "");
        small.turn(1, |load| load.fetch(usize::MAX, false)).await?;
    }
    small.stop().await?;
    large.stop().await
}

async fn feed() -> Result<()> {
    let network = Network::start(&SITES, None).await?;
    let mut feeder = network.feeder(SITES[0], SITES[1]).await?;
    let blocks = (64 << 20) / BLOCK_BYTES;
    let begun = Instant::now();
    feeder.feed(blocks, BLOCK_BYTES).await?;
    let fed_s = begun.elapsed().as_secs_f64();
    all_confirmed(&network, blocks).await?;
    let mbit = (blocks * BLOCK_BYTES * 8) as f64 * 1e-6;
    let rate = mbit / begun.elapsed().as_secs_f64();
    row("ingest, 64 KiB blocks, durable and confirmed at both sites", format!("{rate:.0} Mbit/s"), &{
        let verdict = if rate >= INGEST_BAR_MBIT { "met" } else { "MISSED" };
        format!(">= {INGEST_BAR_MBIT:.0} Mbit/s: {verdict}")
    });
    row("  until it was on both disks", format!("{:.0} Mbit/s", mbit / fed_s), "");
    let mut spent = Vec::with_capacity(SITES.len());
    for (site, store) in SITES.iter().zip(STORES) {
        let (cpu, fsyncs) = (cpu_s(network.pid(store)?)?, network.kms_status(site).await?.fsyncs);
        spent.push(format!("{cpu:.1} s, {:.1}", fsyncs as f64 / blocks as f64));
    }
    row("  CPU time, and fsyncs for a block, of each store", spent.join("; "), "");
    Ok(())
}

async fn all_confirmed(network: &Network, blocks: usize) -> Result<()> {
    let bits = (8 * blocks * (BLOCK_BYTES - CONFIRMATION_BYTES)) as u64;
    for (site, peer) in [(SITES[0], SITES[1]), (SITES[1], SITES[0])] {
        let mut watch = network.kms(site).await?;
        until("every block counts", async || Ok(watch.pool(peer).await?.confirmed_bits >= bits)).await?;
    }
    Ok(())
}

/// Two sites with a pool of this many keys.
struct Pair {
    network: Network,
    load: Option<Load>,
    keeper: JoinHandle<Result<()>>,
    stop: CancellationToken,
}

/// What a turn did and cost.
struct Turn {
    report: Report,
    fsyncs: u64,
    store_cpu_s: f64,
}

impl Turn {
    fn cpu(&self) -> String {
        let each = |seconds: f64| seconds * 1e6 / self.report.requests.max(1) as f64;
        format!("{:.0} + {:.0} us", each(self.store_cpu_s), each(self.report.cpu_s))
    }
}

#[derive(Default)]
struct Turns(Vec<Turn>);

impl Turns {
    fn requests(&self) -> usize {
        self.0.iter().map(|turn| turn.report.requests).sum()
    }

    /// One turn that stands for all.
    fn whole(&self) -> Turn {
        let mut whole = Turn { report: Report::default(), fsyncs: 0, store_cpu_s: 0.0 };
        for turn in &self.0 {
            whole.report.requests += turn.report.requests;
            whole.report.seconds += turn.report.seconds;
            whole.report.refused += turn.report.refused;
            whole.report.cpu_s += turn.report.cpu_s;
            whole.report.latencies_us.extend_from_slice(&turn.report.latencies_us);
            whole.fsyncs += turn.fsyncs;
            whole.store_cpu_s += turn.store_cpu_s;
        }
        whole.report.latencies_us.sort_by(f32::total_cmp);
        whole
    }
}

impl Pair {
    async fn start(keys: u64) -> Result<Self> {
        let network = Network::start(&SITES, None).await?;
        let mut feeder = network.feeder(SITES[0], SITES[1]).await?;
        let blocks = (keys * KEY_BITS / 8).div_ceil((BLOCK_BYTES - CONFIRMATION_BYTES) as u64) as usize;
        feeder.feed(blocks, BLOCK_BYTES).await?;
        all_confirmed(&network, blocks).await?;
        let load = Some(Load::start(network.place(SITES[0]).await?, network.place(SITES[1]).await?)?);
        let stop = CancellationToken::new();
        let watch = network.kms(SITES[0]).await?;
        let keeper = tokio::spawn(keep(feeder, watch, keys * KEY_BITS, stop.clone()));
        Ok(Self { network, load, keeper, stop })
    }

    /// Lets the load do something at the store of one site.
    async fn turn(&mut self, at: usize, work: impl FnOnce(&mut Load) -> Result<Report>) -> Result<Turn> {
        let pid = self.network.pid(STORES[at])?;
        let (fsyncs, cpu) = (self.fsyncs().await?, cpu_s(pid)?);
        let mut load = self.load.take().context("the load has ended")?;
        // The load is waited for on a thread that nobody needs: the pool is refilled meanwhile.
        let report = tokio::task::block_in_place(|| work(&mut load))?;
        self.load = Some(load);
        Ok(Turn { report, fsyncs: self.fsyncs().await? - fsyncs, store_cpu_s: cpu_s(pid)? - cpu })
    }

    /// Of both sites.
    async fn fsyncs(&self) -> Result<u64> {
        let mut all = 0;
        for site in SITES {
            all += self.network.kms_status(site).await?.fsyncs;
        }
        Ok(all)
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.keeper.await?
    }
}

/// Keeps so much ready for masters at the first site.
async fn keep(mut feeder: Feeder, mut watch: Watch, bits: u64, stop: CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        let missing = bits.saturating_sub(ready_bits(&watch.pool(SITES[1]).await?));
        let blocks = missing.div_ceil(8 * BLOCK_BYTES as u64) as usize;
        feeder.feed(blocks, BLOCK_BYTES).await?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn rows(what: &str, how: &str, turns: &[Turns; 2]) {
    let [small, large] = turns.each_ref().map(Turns::whole);
    let rate = small.report.rate();
    let refused = if small.report.refused > 0 { format!(", {} refused", small.report.refused) } else { String::new() };
    row(
        &format!("014 {what}, 8 connections, pool of 40,000 keys, {how}"),
        format!("{rate:.0} /s{refused}"),
        &at_least(rate, RATE_BAR),
    );
    let quantile_ms = |turn: &Turn, part: f64| quantile(&turn.report.latencies_us, part) * 1e-3;
    let p99_ms = quantile_ms(&small, 0.99);
    let verdict = if p99_ms < LATENCY_BAR_MS { "met" } else { "MISSED" };
    row(
        "  time of a request, p50 and p99",
        format!("{:.2}, {p99_ms:.2} ms", quantile_ms(&small, 0.5)),
        &format!("p99 < {LATENCY_BAR_MS:.0} ms: {verdict}"),
    );
    // Neighbours in time are compared, and of these ratios the median is told.
    let mut ratios: Vec<f64> =
        turns[0].0.iter().zip(&turns[1].0).map(|(small, large)| large.report.rate() / small.report.rate()).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN);
    let verdict = if ratio >= RATIO_BAR { "met" } else { "MISSED" };
    row(
        "  pool of 1,000,000 keys",
        format!("{:.0} /s, p99 {:.2} ms", large.report.rate(), quantile_ms(&large, 0.99)),
        "",
    );
    row("  rate at 1,000,000 over rate at 40,000 keys", format!("{ratio:.2}"), &format!(">= {RATIO_BAR}: {verdict}"));
    row("  CPU time of a request, store + application", small.cpu(), "");
    let fsyncs = small.fsyncs as f64 * 1e3 / small.report.requests.max(1) as f64;
    row("  fsyncs of both stores for 1,000 keys", format!("{fsyncs:.1}"), "");
}

fn at_least(rate: f64, bar: f64) -> String {
    format!(">= {bar:.0} /s: {}", if rate >= bar { "met" } else { "MISSED" })
}
