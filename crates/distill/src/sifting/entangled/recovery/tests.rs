#![allow(clippy::unwrap_used)]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::synthetic::{Link, Random, Streams};
use super::*;
use crate::sifting::entangled::announce::tests::{config, framing};
use crate::sifting::entangled::announce::{AnnounceError, Basis, OwnEvents, prepare};

mod handmade;
mod observer;
mod tracking;

/// What both ends of one frame come to.
struct Judged {
    result: FrameResult,
    announcement: Announcement,
    own: OwnEvents,
}

impl Judged {
    /// Kept events and differing bits, per basis.
    fn errors(&self) -> [(u64, u64); 2] {
        let mut errors = [(0, 0); 2];
        for kept in self.result.kept.iter() {
            let entry = &mut errors[kept.basis as usize];
            assert_eq!(self.own.basis(kept.index as usize), kept.basis);
            entry.0 += 1;
            entry.1 += u64::from(self.own.bit(kept.index as usize) != kept.bit);
        }
        errors
    }
}

/// Both ends in lockstep: the announcement of a frame arrives one step later.
struct Bench {
    streams: Streams,
    recovery: Recovery,
    rng: ChaCha8Rng,
    config: Entangled,
    in_flight: Option<Announcement>,
    announced: VecDeque<(Announcement, OwnEvents)>,
    clicks: u64,
    own_clicks: u64,
}

impl Bench {
    fn new(link: Link, config: Entangled) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(link.seed);
        let recovery = Recovery::new(framing(), &config);
        let streams = Streams::new(link);
        Self { streams, recovery, rng, config, in_flight: None, announced: VecDeque::new(), clicks: 0, own_clicks: 0 }
    }

    fn step(&mut self) -> Vec<Judged> {
        let (frame, own, peer) = self.streams.next_frame();
        self.clicks += own.len() as u64;
        self.recovery.push_own(frame, own).unwrap();
        let prepared = prepare(frame, &peer, framing(), &self.config, &mut self.rng).unwrap();
        let arrived = self.in_flight.replace(prepared.announcement.clone());
        self.announced.push_back((prepared.announcement, prepared.own));
        if let Some(announcement) = arrived {
            self.recovery.push_peer(&announcement).unwrap();
        }
        self.results()
    }

    fn results(&mut self) -> Vec<Judged> {
        let mut judged = Vec::new();
        while let Some(result) = self.recovery.next_result() {
            let (announcement, own) = self.announced.pop_front().unwrap();
            assert_eq!(announcement.frame, result.frame);
            check_sums(&result, u64::from(announcement.count));
            self.own_clicks += result.counts.own_clicks;
            judged.push(Judged { result, announcement, own });
        }
        judged
    }
}

fn check_sums(result: &FrameResult, announced: u64) {
    let c = &result.counts;
    assert_eq!(c.announced, announced);
    let common = c.basis_mismatch + c.within_dead_time + c.kept_z + c.kept_x;
    assert_eq!(c.announced, common + c.unlocked + c.unmatched + c.ambiguous + c.cross_basis_doubles);
    let own = c.own_invalid + c.own_unlocked + c.own_unmatched + c.own_ambiguous + c.own_merged;
    assert_eq!(c.own_clicks, common + own + c.own_cross_basis_doubles);
    assert_eq!(c.kept_z + c.kept_x, result.kept.len() as u64);
    assert!(result.kept.windows(2).all(|pair| pair[0].index < pair[1].index));
}

/// Random offset within the search, frequency and epoch origin.
fn shuffled(mut link: Link) -> Link {
    let mut random = Random::new(link.seed ^ 0x5eed);
    link.offset_ps = (2.0 * random.uniform() - 1.0) * 9.9e9;
    link.frequency = (2.0 * random.uniform() - 1.0) * 1.9e-7;
    link.first_frame = 2 + random.next() % 3_000_000;
    link
}

/// Steps until there is a lock; the frames after it give few errors.
fn acquires(link: Link, steps_max: usize) {
    let seed = link.seed;
    let about = format!("seed {seed}: offset {} ps, frequency {}", link.offset_ps, link.frequency);
    let mut bench = Bench::new(link, config());
    let mut locked = Vec::new();
    for _ in 0..steps_max {
        locked.extend(bench.step().into_iter().filter(|j| j.result.locked));
        if !locked.is_empty() {
            break;
        }
    }
    assert_eq!(bench.recovery.status().state, LockState::Locked, "{about}");
    for _ in 0..10 {
        locked.extend(bench.step());
    }
    let (mut kept, mut errors) = (0, 0);
    for judged in &locked {
        assert!(judged.result.locked, "{about}");
        for (n, e) in judged.errors() {
            kept += n;
            errors += e;
        }
    }
    // A fifth of all pairs are in the central peak, in one basis, and inside the window.
    let link = &bench.streams.link;
    let expected = link.pair_rate / 4.0 * 0.02 * locked.len() as f64 * 0.4;
    assert!(kept as f64 > expected, "{about}: {kept} kept, expected more than {expected}");
    assert!((errors as f64) < 0.12 * kept as f64, "{about}: {errors} errors of {kept}");
    let difference = bench.recovery.status().offset_ps - bench.streams.difference_ps;
    // The generator runs up to 30 ms ahead of the last result.
    let drift = 0.06e12 * link.frequency.abs();
    assert!(difference.abs() < drift + 100.0, "{about}: off by {difference} ps");
}

#[test]
fn acquires_at_random_offsets_frequencies_and_origins() {
    for seed in 1..=20 {
        acquires(shuffled(Link::short(seed)), 8);
    }
}

#[test]
fn acquires_at_the_edges_of_the_search() {
    for (seed, sign) in [(31, -1.0), (32, 1.0)] {
        acquires(Link { offset_ps: sign * 9.99e9, frequency: -sign * 2e-7, ..Link::short(seed) }, 8);
    }
}

#[test]
fn acquires_a_weak_link() {
    for seed in 41..=45 {
        acquires(shuffled(Link::long(seed)), 50);
    }
}

#[test]
fn finds_no_lock_without_the_correlator() {
    let mut without = config();
    without.acquisition.correlator = false;
    let mut bench = Bench::new(shuffled(Link::short(51)), without);
    let mut frames = 0;
    for _ in 0..30 {
        for judged in bench.step() {
            assert!(!judged.result.locked);
            assert_eq!(judged.result.counts.unlocked, judged.result.counts.announced);
            frames += 1;
        }
    }
    assert!(frames > 10);
    assert_eq!(bench.recovery.status().acquisitions, 0);
}

#[test]
fn finds_no_lock_where_there_are_no_pairs() {
    let mut bench = Bench::new(Link { pair_rate: 1e-3, ..Link::short(61) }, config());
    for _ in 0..20 {
        assert!(bench.step().iter().all(|j| !j.result.locked));
    }
    assert!(bench.recovery.status().attempts >= 2);
}

#[test]
fn the_end_of_a_run_gives_every_frame_its_result() {
    let mut bench = Bench::new(shuffled(Link::short(71)), config());
    let mut frames = 0;
    for _ in 0..14 {
        frames += bench.step().len();
    }
    let last = bench.in_flight.take().unwrap();
    bench.recovery.push_peer(&last).unwrap();
    bench.recovery.finish();
    frames += bench.results().len();
    assert_eq!(frames, 14);
    // Own clicks after the last announced frame's end belong to no result; all others are accounted for once.
    assert!(bench.own_clicks <= bench.clicks && bench.own_clicks > bench.clicks * 12 / 14);
}
