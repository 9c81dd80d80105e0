//! Crowds at the door of a key store: an application takes keys, each over a connection of its own, while others of its
//! own address hold thousands of connections that say nothing, or only how a hello begins, and open a thousand a second.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Connecting, Load, quantile};
use crate::network::Network;
use crate::row;

const SITES: [&str; 2] = ["ada", "bell"];
const STANDING: usize = 4096;
const PER_SECOND: usize = 1000;
const SECONDS: f64 = 10.0;
/// Keys that the application takes a second.
const KEYS_PER_SECOND: f64 = 50.0;
const LATENCY_BAR_MS: f64 = 50.0;
const BLOCK_BYTES: usize = 64 << 10;
/// The first bytes of a hello that never comes to its end: a record of 512 bytes.
const SLOW: [u8; 6] = [22, 3, 1, 2, 0, 1];

pub fn flood() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let measured = runtime.context("start a runtime").and_then(|runtime| runtime.block_on(measure()));
    if let Err(error) = measured {
        row("crowds at the door", "FAILED".to_owned(), &format!("{error:#}"));
    }
}

async fn measure() -> Result<()> {
    let network = Network::start(&SITES, None).await?;
    network.feeder(SITES[0], SITES[1]).await?.feed(16, BLOCK_BYTES).await?;
    let (here, there) = (network.place(SITES[0]).await?, network.place(SITES[1]).await?);
    let address: SocketAddr = here.url.strip_prefix("https://").context("no address")?.parse()?;
    let mut load = Load::start(here, there)?;
    let mut take = |seconds, connecting| -> Result<[f64; 2]> {
        let mut report = tokio::task::block_in_place(|| load.take(seconds, connecting, Some(KEYS_PER_SECOND)))?;
        report.latencies_us.sort_by(f32::total_cmp);
        ensure!(report.requests > 0 && report.refused == 0, "{} requests got no key", report.refused);
        Ok([0.5, 0.99].map(|part| quantile(&report.latencies_us, part) * 1e-3))
    };
    for (what, connecting) in [("full handshake", Connecting::NewFull), ("resumed", Connecting::NewResumed)] {
        let [p50, p99] = take(SECONDS / 2.0, connecting)?;
        row(&format!("014, a new connection each, {what}, p50 and p99"), format!("{p50:.2}, {p99:.2} ms"), "");
        let crowd = Crowd::gather(address)?;
        let taken = take(SECONDS, connecting);
        let came = crowd.disperse();
        let [p50, p99] = taken?;
        let verdict = if p99 < LATENCY_BAR_MS { "met" } else { "MISSED" };
        row(
            &format!("  beside {STANDING} silent or slow ones and {:.0} new a second", came / SECONDS),
            format!("{p50:.2}, {p99:.2} ms"),
            &format!("p99 < {LATENCY_BAR_MS:.0} ms: {verdict}"),
        );
    }
    Ok(())
}

/// Connections that want nothing.
struct Crowd {
    over: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    door: JoinHandle<()>,
}

impl Crowd {
    fn gather(address: SocketAddr) -> Result<Self> {
        let mut held = Vec::with_capacity(STANDING);
        for number in 0..STANDING {
            held.push(loiter(address, number).context("the crowd needs more open files: raise `ulimit -n`")?);
        }
        let (over, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let door = std::thread::spawn({
            let (over, came) = (over.clone(), came.clone());
            move || {
                let begun = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    let due = (begun.elapsed().as_secs_f64() * PER_SECOND as f64) as usize;
                    while came.load(Ordering::Relaxed) < due {
                        let number = came.fetch_add(1, Ordering::Relaxed);
                        // The oldest one goes for the new one, so that there are always as many.
                        if let Ok(stream) = loiter(address, number) {
                            held[number % STANDING] = stream;
                        }
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Ok(Self { over, came, door })
    }

    /// Ends it; how many came while it stood there.
    fn disperse(self) -> f64 {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.door.join();
        self.came.load(Ordering::Relaxed) as f64
    }
}

fn loiter(address: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    if number.is_multiple_of(2) {
        // Whoever was sent away already writes in vain.
        let _ = stream.write_all(&SLOW);
    }
    Ok(stream)
}
