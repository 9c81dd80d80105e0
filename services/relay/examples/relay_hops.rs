//! How fast key goes over three hops, and how long a hop takes: four sites in one process, real key stores and relays,
//! every record on the disk. Or, with `idle`, what a relay that has nothing to do keeps in memory.
//!
//! `cargo run --release -p relay --example relay_hops [-- <MiB of key per link> | idle]`. A key is 256 bit. The time of
//! a hop is that of one transfer at one site after the origin: from the arrival of the sealed key to its departure, or
//! at the target to the word that it has it; all durable writes are within.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../tests/network/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shell::launch::ServiceFile;
use shell::{Shutdown, pki};
use telemetry::names::{attribute, span};
use telemetry::store::Store;
use telemetry::{TelemetryConfig, init};
use topology::plan::{RelayConfig, RelayNeighbour};
use world::{Scale, World, eventually};

const LINE: [(&str, &str); 3] = [("ada", "bell"), ("bell", "curie"), ("curie", "dirac")];
const KEY_BYTES: u64 = 32;

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    let threads = if argument == "idle" { 1 } else { 2 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    match argument.as_str() {
        "idle" => runtime.block_on(idle()),
        size => runtime.block_on(measure(size.parse().unwrap_or(2))),
    }
}

async fn measure(mebibytes: usize) {
    println!("transfer bytes |  keys/s over 3 hops |  hop p50 ms |  hop p99 ms |  hops");
    for transfer_bytes in [32 + 32, 1024, 4096, 16_384] {
        let spans = tempfile::tempdir().unwrap();
        let guard = init(&TelemetryConfig {
            span_dir: Some(spans.path().to_owned()),
            log_format: None,
            ..TelemetryConfig::new("relay-hops")
        });
        let plenty = (mebibytes as u64) << 16;
        let scale = Scale { transfer_bytes, low_bytes: plenty - 1, high_bytes: plenty };
        let mut world = World::of_scale(&LINE, 1, 1, scale).await;
        // Until key is there nothing is relayed.
        world.feed_all(mebibytes << 20).await;
        eventually("a first key", async || world.status("ada").transfers_relayed > 0).await;
        let (begun, before) = (Instant::now(), relayed(&world));
        let enough = async || {
            begun.elapsed() >= Duration::from_secs(5) || world.stored_bytes("dirac", "ada") + (8 << 10) >= plenty
        };
        eventually("enough key", enough).await;
        let keys = (relayed(&world) - before) * (u64::from(transfer_bytes) - 32) / KEY_BYTES;
        let rate = keys as f64 / begun.elapsed().as_secs_f64();
        drop(world);
        drop(guard);
        let times_ms = hops_ms(spans.path());
        let at = |share: f64| times_ms.get((times_ms.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        let (p50, p99) = (at(0.5), at(0.99));
        println!("{transfer_bytes:>14} | {rate:>19.0} | {p50:>11.2} | {p99:>11.2} | {:>5}", times_ms.len());
    }
}

/// Transfers between the outer two sites.
fn relayed(world: &World) -> u64 {
    let routes = world.status("ada").routes;
    routes.iter().filter(|route| route.target == "dirac").map(|route| route.keys_relayed).sum()
}

/// Times that keys spent at sites after their origin, sorted.
fn hops_ms(folder: &std::path::Path) -> Vec<f64> {
    let mut times = Vec::new();
    let store = Store::open([folder]).unwrap();
    let visit = |record: telemetry::store::SpanRecord| {
        let outcome = record.text(attribute::TRANSFER_OUTCOME).unwrap_or_default();
        if record.name == span::TRANSFER && matches!(outcome, "forwarded" | "delivered") {
            times.push((record.end_ns - record.start_ns) as f64 / 1e6);
        }
    };
    store.spans(visit).unwrap();
    times.sort_by(f64::total_cmp);
    times
}

async fn idle() {
    let folder = tempfile::tempdir().unwrap();
    let sites = ["ada", "curie"];
    let file = ServiceFile {
        service: RelayConfig {
            name: "relay-bell".to_owned(),
            site: "bell".to_owned(),
            kms: "kms-bell".to_owned(),
            neighbours: sites
                .map(|site| RelayNeighbour { site: site.to_owned(), service: format!("relay-{site}"), rerouted: false })
                .to_vec(),
            targets: Vec::new(),
            transfer_bytes: 4096,
            low_water_bytes: 1 << 16,
            high_water_bytes: 1 << 17,
            shares: 1,
            faults_allowed: false,
            accepts: vec!["relay-ada".to_owned()],
        },
        topology: "idle".to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        health_listen: None,
        ports: BTreeMap::new(),
        pki: folder.path().join("pki"),
        run_dir: folder.path().to_owned(),
        data: folder.path().join("data"),
        secrets: None,
        anchor: None,
        restarted: false,
        span_dir: None,
        span_file_bytes: None,
        peers: BTreeMap::new(),
        directory: None,
    };
    pki::prepare(&file.pki, "idle", &["relay-bell".to_owned()]).unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(1));
    let asked = shutdown.clone();
    let serving = tokio::spawn(async move { relay::serve(file, &asked).await });
    tokio::time::sleep(Duration::from_secs(12)).await;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"))
        .for_each(|line| println!("{line}"));
    shutdown.request();
    serving.await.unwrap().unwrap();
}
