//! What one call costs: a draw, and a redemption with its fsync. `supply_rates` (an example) prints rates under load.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use keystore::{Grant, KeyStore, MasterKey, Offer, Secret, Settings, Use};

const PEER: &str = "sophia";
const BLOCK_BYTES: usize = 2 << 20;

/// A pool that is refilled whenever it runs dry.
struct Pool {
    store: KeyStore,
    use_: Use,
    blocks: u64,
    _folder: tempfile::TempDir,
}

impl Pool {
    fn new(use_: Use) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = KeyStore::open(folder.path(), &MasterKey::from_bytes([1; 32]), &Settings::default()).unwrap();
        Self { store, use_, blocks: 0, _folder: folder }
    }

    fn refill(&mut self, least_bytes: u64) {
        while self.store.levels(PEER).map_or(0, |levels| levels.available(self.use_)) < least_bytes {
            let (number, bytes) = (self.blocks, BLOCK_BYTES as u64);
            let (id, start) = (u128::from(number).to_be_bytes(), number * bytes);
            let offer = Offer {
                id,
                key: Secret::new(vec![1; BLOCK_BYTES]),
                origin: "{}".to_owned(),
                span: [0; 25],
                offered_ms: 0,
                relayed: false,
            };
            self.store.offer(PEER, offer).wait().unwrap();
            self.store.confirm(PEER, id, 0, start, 0).wait().unwrap();
            let grant =
                Grant { generation: 0, seq: number, use_: self.use_, start, bytes, granted_ms: 0, active: true };
            self.store.grant(PEER, grant).wait().unwrap();
            self.blocks += 1;
        }
    }
}

fn draw(criterion: &mut Criterion) {
    for count in [1, 8] {
        let mut pool = Pool::new(Use::SupplyOut);
        criterion.bench_function(&format!("draw {count} x 32 bytes"), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut missing = iterations;
                while missing > 0 {
                    // Refilled outside of what is measured, some megabytes at a time.
                    let now = missing.min(100_000);
                    pool.refill(now * 32 * count as u64);
                    let begun = Instant::now();
                    for _ in 0..now {
                        black_box(pool.store.draw_many(PEER, Use::SupplyOut, 32, count).unwrap());
                    }
                    spent += begun.elapsed();
                    missing -= now;
                }
                spent
            });
        });
    }
}

fn redeem(criterion: &mut Criterion) {
    let mut pool = Pool::new(Use::SupplyIn);
    let mut next = 0;
    criterion.bench_function("redeem 32 bytes, one caller, on the disk", |bencher| {
        bencher.iter_custom(|iterations| {
            pool.refill(iterations * 32);
            let begun = Instant::now();
            for _ in 0..iterations {
                black_box(pool.store.redeem(PEER, Use::SupplyIn, 0, &[(next, 32)]).wait().unwrap());
                next += 32;
            }
            begun.elapsed()
        });
    });
}

criterion_group!(benches, draw, redeem);
criterion_main!(benches);
