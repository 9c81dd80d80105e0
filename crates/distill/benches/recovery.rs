//! Speed of the matcher's and the announcer's work per tag, and of acquisition.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use distill::config::{Acquisition, Authentication, Bound, LinkProtocol, Loops, Reconciliation, Role, Security};
use distill::sifting::entangled::announce::{Announcement, prepare};
use distill::sifting::entangled::recovery::{Recovery, State};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

#[allow(dead_code)]
#[path = "../src/sifting/entangled/recovery/synthetic.rs"]
mod synthetic;
use synthetic::{Link, Streams};

/// Frames before the measured ones: acquisition and a first tracking interval.
const WARM_UP: usize = 12;
const MEASURED: usize = 50;

fn protocol() -> LinkProtocol {
    LinkProtocol {
        role: Role::Matcher,
        frame_ps: 20_000_000_000,
        coincidence_window_ps: 120,
        analyser_delay_ps: 400,
        dead_time_ps: 30_000,
        round_frames: 50,
        acquisition: Acquisition {
            search_ps: 10_000_000_000,
            frequency_search: 2e-7,
            window_ps: 50_000_000_000,
            correlator: true,
        },
        tracking_interval_ps: 500_000_000_000,
        reconciliation: Reconciliation { frame_bits: 10_000, initial_qber: 0.04 },
        security: Security {
            bound: Bound::Asymptotic,
            epsilon_secrecy: 1e-9,
            epsilon_correctness: 1e-12,
            tolerated_qber: 0.1,
        },
        authentication: Authentication { tags_per_hash_key: 100 },
        loops: Loops {
            polarisation: false,
            phase: false,
            pump: false,
            target_qber_z: 0.043,
            phase_dither_rad: 0.0,
            pump_max: 2.0,
        },
    }
}

/// Time this thread has spent on a core, so that a busy machine does not count; wall time where there is none.
fn core_time(origin: Instant) -> Duration {
    let on_core = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = on_core.and_then(|s| s.split_whitespace().next().and_then(|n| n.parse().ok()));
    nanoseconds.map_or_else(|| origin.elapsed(), Duration::from_nanos)
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
            let announcement = prepare(frame, &peer, &protocol(), &mut rng).unwrap().announcement;
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
                    let mut recovery = Recovery::new(&protocol());
                    for frame in &recorded[..WARM_UP] {
                        step(&mut recovery, frame, frame.own.clone());
                    }
                    assert_eq!(recovery.status().state, State::Locked);
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
    let (protocol, mut rng) = (protocol(), ChaCha8Rng::seed_from_u64(1));
    group.sample_size(20);
    group.bench_function("announce", |bencher| {
        bencher.iter_custom(|iterations| {
            let origin = Instant::now();
            let begin = core_time(origin);
            for _ in 0..iterations {
                for frame in &recorded {
                    black_box(prepare(frame.frame, &frame.peer, &protocol, &mut rng).unwrap());
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
                    let mut recovery = Recovery::new(&protocol());
                    let own: Vec<Vec<u64>> = recorded.iter().map(|r| r.own.clone()).collect();
                    let begin = core_time(origin);
                    for (frame, own) in recorded.iter().zip(own) {
                        step(&mut recovery, frame, own);
                    }
                    total += core_time(origin) - begin;
                    assert_eq!(recovery.status().state, State::Locked);
                }
                total
            });
        });
    }
    group.finish();
}

criterion_group!(benches, matching, announcing, acquiring);
criterion_main!(benches);
