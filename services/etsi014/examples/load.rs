//! How many requests the front end answers: HTTP and TLS alone, before a key supply that costs next to nothing.
//!
//! `cargo run --release -p etsi014 --example load [-- <seconds per figure> [<part of its name>]]`. Server and clients
//! share one process and two worker threads.

#[path = "../tests/conformance/pki.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod pki;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etsi014::client::{Client, NewKeys};
use etsi014::supply::{GetKey, KeyId, KeyLimits, KeySupply, SaeId, Status, SuppliedKey, SupplyError};
use etsi014::{Access, AccessList, Credentials, Naming, Running, Server};
use keystore::Secret;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 8;

/// Gives away numbers in place of keys.
#[derive(Default)]
struct Numbers(AtomicU64);

impl KeySupply for Numbers {
    fn status(&self, _caller: &SaeId, _slave: &SaeId) -> Result<Status, SupplyError> {
        Err(SupplyError::Failed("not measured"))
    }

    fn limits(&self, _caller: &SaeId, _slave: &SaeId) -> Result<KeyLimits, SupplyError> {
        Ok(KeyLimits {
            key_size_bits: 256,
            min_key_size_bits: 8,
            max_key_size_bits: 4096,
            max_key_per_request: 128,
            max_sae_id_count: 0,
        })
    }

    async fn get_key(&self, request: GetKey<'_>) -> Result<Vec<SuppliedKey>, SupplyError> {
        let make = |_| {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let mut key = vec![0; request.size_bits as usize / 8];
            key[..8].copy_from_slice(&number.to_le_bytes());
            SuppliedKey { id: KeyId::v4(id), key: Secret::new(key) }
        };
        Ok((0..request.number).map(make).collect())
    }

    async fn get_key_with_ids(
        &self,
        _caller: &SaeId,
        _master: &SaeId,
        _ids: &[KeyId],
    ) -> Result<Vec<SuppliedKey>, SupplyError> {
        Err(SupplyError::NotFound { at: 0, why: etsi014::supply::Absence::Unknown })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5.0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(Duration::from_secs_f64(seconds)))
}

async fn measure(time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let pki = pki::Pki::new();
    let (kme, sae) = (pki.server("kme"), pki.sae("sae-a"));
    let key_pem = std::fs::read_to_string(&kme.key)?;
    let credentials = Credentials::from_pem(&pki.authority_pem, &kme.certificate_pem, &key_pem)?;
    let access = AccessList::new(Access::new([SaeId::new("sae-a")?]));
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = Server::new(Arc::<Numbers>::default(), credentials, access)
        .naming(Naming::AnyName)
        .start(listener, stop.clone())?;
    let url = format!("https://{}", server.address());
    let client = || Client::builder(&url, pki.authority(), &sae.certificate, &sae.key);
    println!("{:<44} {:>12} {:>10} {:>10} {:>10}", "", "requests/s", "p50 us", "p99 us", "cpu us");
    let rows = [
        ("kept alive, 1 connection", 1, client()),
        ("kept alive, 8 connections", CONNECTIONS, client()),
        ("a new connection each, session resumed", CONNECTIONS, client().keep_alive(false)),
        ("a new connection each, full handshake", CONNECTIONS, client().keep_alive(false).resume(false)),
    ];
    let wanted = std::env::args().nth(2).unwrap_or_default();
    for (name, connections, builder) in rows.into_iter().filter(|(name, ..)| name.contains(&wanted)) {
        let clients: Vec<_> = (0..connections).map(|_| builder.clone().build()).collect::<Result<_, _>>()?;
        let (before, cpu) = (server.counts(), cpu_s()?);
        let (count, rate, p50, p99) = drive(clients, time).await?;
        // What a request costs of both ends, whatever else the machine does meanwhile.
        let cpu_us = (cpu_s()? - cpu) * 1e6 / count as f64;
        println!("{name:<44} {rate:>12.0} {p50:>10.1} {p99:>10.1} {cpu_us:>10.1}");
        report_handshakes(&server, before.handshakes_full, before.handshakes_resumed);
    }
    stop.cancel();
    server.finished().await;
    Ok(())
}

fn report_handshakes(server: &Running, full: u64, resumed: u64) {
    let now = server.counts();
    println!("    handshakes: {} full, {} resumed", now.handshakes_full - full, now.handshakes_resumed - resumed);
}

/// Processor time of this process so far, of all threads.
fn cpu_s() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field after it, in 1/100 s.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// Every client asks for one key after the other. Returns how often, requests per second, and two
/// quantiles in us.
async fn drive(clients: Vec<Client>, time: Duration) -> Result<(usize, f64, f64, f64), Box<dyn std::error::Error>> {
    let (started, slave) = (Instant::now(), SaeId::new("sae-b")?);
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let slave = slave.clone();
            tokio::spawn(async move {
                let (mut latencies, request) = (vec![], NewKeys::default());
                while started.elapsed() < time {
                    let asked = Instant::now();
                    let keys = client.get_keys(&slave, &request).await?;
                    latencies.push(asked.elapsed());
                    assert_eq!(keys[0].key.len_bits(), 256);
                }
                Ok::<_, etsi014::client::ClientError>(latencies)
            })
        })
        .collect();
    let mut latencies = vec![];
    for task in tasks {
        latencies.extend(task.await??);
    }
    let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let quantile = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Ok((latencies.len(), rate, quantile(0.5), quantile(0.99)))
}
