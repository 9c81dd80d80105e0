//! Crowds at the door of a key store: an application takes keys, each over a connection of its own, while others of its
//! own address hold thousands of connections that say nothing, or only how a hello begins, and open a thousand a second.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::client::{Connecting, Load, quantile};
use crate::network::{Network, until};
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
    let authority = here.authority.clone();
    let mut load = Load::start(here, there)?;
    // The first key is there once both stores have confirmed a block.
    let mut pool = network.kms(SITES[0]).await?;
    until("key", async || Ok(pool.pool(SITES[1]).await?.confirmed_bits > 0)).await?;
    tokio::task::block_in_place(|| load.take(1.0, Connecting::KeptAlive, Some(KEYS_PER_SECOND)))?;
    // A request that got no key counts as one that never came to its end.
    let mut take = |seconds, connecting| -> Result<([f64; 2], String)> {
        let rate = Some(KEYS_PER_SECOND);
        let mut report = tokio::task::block_in_place(|| load.try_to_take(seconds, connecting, rate))?;
        ensure!(report.requests > 0, "no request got a key: {}", report.failure.unwrap_or_default());
        report.latencies_us.extend(std::iter::repeat_n(f32::INFINITY, report.refused + report.failed));
        report.latencies_us.sort_by(f32::total_cmp);
        let without = match (report.refused, report.failed) {
            (0, 0) => String::new(),
            (refused, 0) => format!(", {refused} refused for want of key"),
            (refused, failed) => {
                format!(", {refused} refused for want of key, {failed} failed ({})", report.failure.unwrap_or_default())
            }
        };
        Ok(([0.5, 0.99].map(|part| quantile(&report.latencies_us, part) * 1e-3), without))
    };
    for (what, connecting) in [("full handshake", Connecting::NewFull), ("resumed", Connecting::NewResumed)] {
        let ([p50, p99], without) = take(SECONDS / 2.0, connecting)?;
        let figures = format!("{p50:.2}, {p99:.2} ms{without}");
        row(&format!("014, a new connection each, {what}, p50 and p99"), figures, "");
        for (sort, words) in
            [("silent or slow", vec![vec![], SLOW.to_vec()]), ("hello alone", vec![hello(&authority)?])]
        {
            let crowd = Crowd::gather(address, words)?;
            let taken = take(SECONDS, connecting);
            let came = crowd.disperse();
            let ([p50, p99], without) = taken?;
            let met = if p99 < LATENCY_BAR_MS { "met" } else { "MISSED" };
            // Each whole hello costs a signature, so that this flood is one of the processor.
            let barred = sort == "silent or slow";
            row(
                &format!("  beside {STANDING} that are {sort} and {:.0} new a second", came / SECONDS),
                format!("{p50:.2}, {p99:.2} ms{without}"),
                &if barred { format!("p99 < {LATENCY_BAR_MS:.0} ms: {met}") } else { String::new() },
            );
        }
    }
    Ok(())
}

/// What a client says first, whole; nothing follows.
fn hello(authority: &str) -> Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// Connections that want nothing.
struct Crowd {
    over: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    door: JoinHandle<()>,
}

impl Crowd {
    /// Each says one of the words, in turn.
    fn gather(address: SocketAddr, words: Vec<Vec<u8>>) -> Result<Self> {
        let word = move |number: usize| words[number % words.len()].clone();
        let mut held = Vec::with_capacity(STANDING);
        for number in 0..STANDING {
            held.push(loiter(address, &word(number)).context("the crowd needs more open files: raise `ulimit -n`")?);
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
                        if let Ok(stream) = loiter(address, &word(number)) {
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

fn loiter(address: SocketAddr, word: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    // A connection that was closed already takes no bytes.
    let _ = stream.write_all(word);
    Ok(stream)
}
