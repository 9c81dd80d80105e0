//! Speed of the matcher's and the announcer's work per tag, and of acquisition.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use distill::config::{Entangled, Framing, Role};
use distill::sifting::entangled::announce::{Announcement, prepare};
use distill::sifting::entangled::recovery::{LockState, Recovery};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

#[path = "common/core_time.rs"]
mod core_time;
#[allow(dead_code)]
#[path = "../src/sifting/entangled/recovery/synthetic.rs"]
mod synthetic;
use core_time::core_time;
use synthetic::{Link, Streams};

/// Frames before the measured ones: acquisition and a first tracking interval.
const WARM_UP: usize = 12;
const MEASURED: usize = 50;

fn config() -> Entangled {
    Entangled::usual(Role::Matcher)
}

struct Recorded {
    frame: u64,
    own: Vec<u64>,
    peer: Vec<u64>,
    announcement: Announcement,
}

fn record(link: Link, frames: usize) -> Vec<Recorded> {
    let mut rng = ChaCha8Rng::seed_from_u64(link.seed);
    let mut streams = Streams::new(Link { offset_ps: 4.321e9, frequency: 1.1e-7, ..link });
    (0..frames)
        .map(|_| {
            let (frame, own, peer) = streams.next_frame();
            let announcement = prepare(frame, &peer, Framing::of_a_second(), &config(), &mut rng).unwrap().announcement;
            Recorded { frame, own, peer, announcement }
        })
        .collect()
}

/// Pushes a frame of both ends and takes what comes out.
fn step(recovery: &mut Recovery, recorded: &Recorded, own: Vec<u64>) -> u64 {
    recovery.push_own(recorded.frame, own).unwrap();
    recovery.push_peer(&recorded.announcement).unwrap();
    let mut kept = 0;
    while let Some(result) = recovery.next_result() {
        kept += result.kept.len() as u64;
    }
    kept
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (name, link) in [("match 33.5 dB", Link::short(1)), ("match 45 dB", Link::long(1))] {
        let recorded = record(link, WARM_UP + MEASURED);
        let tags: u64 = recorded[WARM_UP..].iter().map(|r| r.own.len() as u64 + u64::from(r.announcement.count)).sum();
        group.throughput(Throughput::Elements(tags));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let (mut total, origin) = (Duration::ZERO, Instant::now());
                for _ in 0..iterations {
                    let mut recovery = Recovery::new(Framing::of_a_second(), &config());
                    for frame in &recorded[..WARM_UP] {
                        step(&mut recovery, frame, frame.own.clone());
                    }
                    assert_eq!(recovery.status().state, LockState::Locked);
                    let own: Vec<Vec<u64>> = recorded[WARM_UP..].iter().map(|r| r.own.clone()).collect();
                    let begin = core_time(origin);
                    for (frame, own) in recorded[WARM_UP..].iter().zip(own) {
                        black_box(step(&mut recovery, frame, own));
                    }
                    total += core_time(origin) - begin;
                }
                total
            });
        });
    }
    group.finish();
}

fn announcing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    let recorded = record(Link::short(2), 10);
    group.throughput(Throughput::Elements(recorded.iter().map(|r| r.peer.len() as u64).sum()));
    let (config, mut rng) = (config(), ChaCha8Rng::seed_from_u64(1));
    group.sample_size(20);
    group.bench_function("announce", |bencher| {
        bencher.iter_custom(|iterations| {
            let origin = Instant::now();
            let begin = core_time(origin);
            for _ in 0..iterations {
                for frame in &recorded {
                    black_box(prepare(frame.frame, &frame.peer, Framing::of_a_second(), &config, &mut rng).unwrap());
                }
            }
            core_time(origin) - begin
        });
    });
    group.finish();
}

fn acquiring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    for (name, link) in [("acquire 33.5 dB", Link::short(3)), ("acquire 45 dB", Link::long(3))] {
        let recorded = record(link, 6);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let (mut total, origin) = (Duration::ZERO, Instant::now());
                for _ in 0..iterations {
                    let mut recovery = Recovery::new(Framing::of_a_second(), &config());
                    let own: Vec<Vec<u64>> = recorded.iter().map(|r| r.own.clone()).collect();
                    let begin = core_time(origin);
                    for (frame, own) in recorded.iter().zip(own) {
                        step(&mut recovery, frame, own);
                    }
                    total += core_time(origin) - begin;
                    assert_eq!(recovery.status().state, LockState::Locked);
                }
                total
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matching, announcing, acquiring);
criterion_main!(benches);
