//! Prints what the store does per second on this machine's disk, and what it keeps in memory.
//!
//! `cargo run --release -p keystore --example supply_rates [folder]`
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keystore::{Activity, Grant, KeyStore, MasterKey, Offer, Secret, Settings, Use};

const PEER: &str = "sophia";
const BLOCK_BYTES: usize = 64 << 10;
const KEY_BYTES: usize = 32;
const CALLERS: usize = 8;

fn main() {
    if let Some(folder) = std::env::var_os("SUPPLY_RATES_IDLE") {
        return idle_memory_here(Path::new(&folder));
    }
    let base = std::env::args().nth(1).unwrap_or_else(|| "/tmp".to_owned());
    let folder = tempfile::Builder::new().prefix("supply-rates").tempdir_in(base).unwrap();
    println!("{:<46} {:>14}  fsyncs", "what", "rate");
    fill_rate(&folder.path().join("fill"));
    draw_rate(&folder.path().join("draw"));
    for keys in [40_000, 1_000_000] {
        redeem_rate(&folder.path().join(format!("redeem-{keys}")), keys);
    }
}

fn open(folder: &Path) -> KeyStore {
    KeyStore::open(folder, &MasterKey::from_bytes([1; 32]), &Settings::default()).unwrap()
}

fn id(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

fn offer(number: u64, bytes: usize) -> Offer {
    Offer {
        id: id(number),
        key: Secret::new(vec![number as u8; bytes]),
        origin: "{}".to_owned(),
        span: [0; 25],
        offered_ms: 0,
        relayed: false,
    }
}

/// Blocks in, `window` of them offered ahead of their confirmation.
fn fill(store: &KeyStore, bytes: usize, use_: Use) -> usize {
    let blocks = bytes.div_ceil(BLOCK_BYTES);
    let numbers: Vec<u64> = (0..blocks as u64).collect();
    for window in numbers.chunks(8) {
        let mut answers: Vec<_> = window.iter().map(|n| store.offer(PEER, offer(*n, BLOCK_BYTES))).collect();
        answers.drain(..).for_each(|answer| assert!(answer.wait().is_ok()));
        let start = |n: &u64| n * BLOCK_BYTES as u64;
        let mut answers: Vec<_> = window.iter().map(|n| store.confirm(PEER, id(*n), 0, start(n), 0)).collect();
        answers.drain(..).for_each(|answer| assert!(answer.wait().is_ok()));
        let bytes = BLOCK_BYTES as u64;
        let grant =
            |n: &u64| Grant { generation: 0, seq: *n, use_, start: start(n), bytes, granted_ms: 0, active: true };
        let mut answers: Vec<_> = window.iter().map(|n| store.grant(PEER, grant(n))).collect();
        answers.drain(..).for_each(|answer| assert!(answer.wait().is_ok()));
    }
    blocks * BLOCK_BYTES
}

fn fill_rate(folder: &Path) {
    let store = open(folder);
    let begun = Instant::now();
    let bytes = fill(&store, 64 << 20, Use::SupplyOut);
    let mbit = bytes as f64 * 8e-6 / begun.elapsed().as_secs_f64();
    line("offer + confirm + grant, 64 KiB blocks", format!("{mbit:.0} Mbit/s"), store.activity());
}

fn draw_rate(folder: &Path) {
    let store = open(folder);
    let keys = fill(&store, 128 << 20, Use::SupplyOut) / KEY_BYTES;
    let before = store.activity();
    let begun = Instant::now();
    for _ in 0..keys {
        store.draw(PEER, Use::SupplyOut, KEY_BYTES).unwrap();
    }
    let rate = keys as f64 / begun.elapsed().as_secs_f64();
    let activity = since(store.activity(), before);
    line("draw 32 bytes, one thread, 4 M keys", format!("{rate:.0} /s"), activity);
    println!("{:<46} {} leases, {} stalls", "", activity.leases, activity.stalls);
}

fn redeem_rate(folder: &Path, keys: usize) {
    let store = Arc::new(open(folder));
    let keys = fill(&store, keys * KEY_BYTES, Use::SupplyIn) / KEY_BYTES;
    let store = if keys > 100_000 {
        store.close().unwrap();
        drop(store);
        idle_memory(folder);
        Arc::new(open(folder))
    } else {
        store
    };
    let redeemed = 36_000;
    // A permutation: every key at most once, far from its neighbours.
    let order = move |number: usize| (number * 7_368_787) % keys;
    let before = store.activity();
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let mut slowest = Duration::ZERO;
                for number in (caller..redeemed).step_by(CALLERS) {
                    let range = ((order(number) * KEY_BYTES) as u64, KEY_BYTES as u64);
                    let begun = Instant::now();
                    store.redeem(PEER, Use::SupplyIn, 0, &[range]).wait().unwrap();
                    slowest = slowest.max(begun.elapsed());
                }
                slowest
            })
        })
        .collect();
    let slowest = callers.into_iter().map(|caller| caller.join().unwrap()).max().unwrap();
    let rate = redeemed as f64 / begun.elapsed().as_secs_f64();
    let activity = since(store.activity(), before);
    line(&format!("redeem 32 bytes, 8 callers, {keys} keys"), format!("{rate:.0} /s"), activity);
    let group = redeemed as f64 / activity.journal_commits as f64;
    let fsync = activity.journal_sync / u32::try_from(activity.journal_commits).unwrap();
    println!("{:<46} {group:.1} in a group, fsync {fsync:?}, slowest answer {slowest:?}", "");
}

/// A store of 1,000,000 keys that does nothing, in a process of its own.
fn idle_memory(folder: &Path) {
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new(program).env("SUPPLY_RATES_IDLE", folder).status().unwrap();
    assert!(status.success());
}

fn idle_memory_here(folder: &Path) {
    let before = resident_kib();
    let begun = Instant::now();
    let store = open(folder);
    let (opened, after) = (begun.elapsed(), resident_kib());
    let keys = store.levels(PEER).unwrap().stored_bytes as usize / KEY_BYTES;
    println!("{:<46} {:>10} KiB  of {after} KiB; opened in {opened:?}", format!("idle, {keys} keys"), after - before);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn line(what: &str, rate: String, activity: Activity) {
    let Activity { database_commits, journal_commits, .. } = activity;
    println!("{what:<46} {rate:>14}  {database_commits} of the database, {journal_commits} of the journal");
}

fn since(after: Activity, before: Activity) -> Activity {
    Activity {
        requests: after.requests - before.requests,
        database_commits: after.database_commits - before.database_commits,
        journal_commits: after.journal_commits - before.journal_commits,
        journal_sync: after.journal_sync - before.journal_sync,
        checkpoints: after.checkpoints - before.checkpoints,
        leases: after.leases - before.leases,
        stalls: after.stalls - before.stalls,
    }
}
