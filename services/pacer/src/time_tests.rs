use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const SKEW_PS: u64 = 1000;

/// A source as the state machine should find it: it goes as far as it is allowed, and says so each quarter of the skew.
#[derive(Clone, Debug, Default)]
struct Source {
    epoch_ps: u64,
    /// Begin of its next epoch.
    next_ps: u64,
    reported_ps: u64,
    /// End of what it has emitted since it began.
    emitted_ps: u64,
    number: u64,
    limit_ps: u64,
    state: State,
    /// It has a stream to the pacer.
    attached: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Joining,
    Emitting,
}

impl Source {
    fn may_emit(&self) -> bool {
        self.state == State::Emitting && self.next_ps + self.epoch_ps <= self.limit_ps
    }

    fn place(&self) -> Report {
        let wants_ps = if self.may_emit() { 0 } else { self.next_ps + self.epoch_ps };
        match self.state {
            State::Idle => Report::Idle { reached_ps: self.emitted_ps, ended: false },
            State::Joining => Report::Join { number: self.number, at_ps: self.next_ps },
            State::Emitting => Report::Emitting { number: self.number, reached_ps: self.next_ps, wants_ps },
        }
    }
}

struct World {
    time: NetworkTime,
    sources: Vec<Source>,
}

impl World {
    fn new(epochs_ps: &[u64]) -> Self {
        let source = |epoch_ps: &u64| Source { epoch_ps: *epoch_ps, attached: true, ..Source::default() };
        let mut world =
            Self { time: NetworkTime::new(epochs_ps.len(), SKEW_PS), sources: epochs_ps.iter().map(source).collect() };
        (0..epochs_ps.len()).for_each(|source| world.say(source));
        world
    }

    fn all_at(epochs_ps: &[u64], at_ps: &[u64]) -> Self {
        let mut world = Self::new(epochs_ps);
        for (source, at_ps) in at_ps.iter().enumerate() {
            world.sources[source].next_ps = *at_ps;
            world.join(source);
        }
        world
    }

    fn take(&mut self, grants: Grants) {
        for (source, grant) in grants {
            let source = &mut self.sources[source];
            if grant.number != source.number || !source.attached {
                continue;
            }
            if grant.behind {
                source.state = State::Idle;
                continue;
            }
            if source.state == State::Joining {
                assert!(grant.start_ps >= source.next_ps);
                source.state = State::Emitting;
                source.next_ps = grant.start_ps.next_multiple_of(source.epoch_ps);
                source.reported_ps = grant.start_ps;
            }
            source.limit_ps = grant.limit_ps;
        }
        // Whoever cannot go on says so, once.
        let stuck = |source: &Source| source.attached && source.state == State::Emitting && !source.may_emit();
        let unsaid: Vec<usize> = (0..self.sources.len())
            .filter(|&index| {
                let waits = matches!(self.time.place(index), Place::Emitting(Emitting { wants_ps: 1.., .. }));
                stuck(&self.sources[index]) && !waits
            })
            .collect();
        unsaid.into_iter().for_each(|source| self.say(source));
    }

    /// The source says where it is.
    fn say(&mut self, source: usize) {
        let (mut grants, report) = (Grants::new(), self.sources[source].place());
        self.sources[source].reported_ps = self.sources[source].next_ps;
        self.time.report(source, report, &mut grants).unwrap();
        self.take(grants);
    }

    fn join(&mut self, source: usize) {
        let it = &mut self.sources[source];
        (it.number, it.state, it.limit_ps, it.emitted_ps) = (it.number + 1, State::Joining, 0, 0);
        self.say(source);
    }

    fn leave(&mut self, source: usize) {
        self.sources[source].state = State::Idle;
        self.say(source);
    }

    fn emit(&mut self, source: usize) {
        let it = &mut self.sources[source];
        assert!(it.may_emit());
        it.next_ps += it.epoch_ps;
        it.emitted_ps = it.next_ps;
        if it.attached && (it.next_ps - it.reported_ps >= SKEW_PS / 4 || !it.may_emit()) {
            self.say(source);
        }
    }

    fn cut(&mut self, source: usize) {
        self.sources[source].attached = false;
        let mut grants = Grants::new();
        self.time.lost(source, &mut grants);
        self.take(grants);
    }

    fn attach(&mut self, source: usize) {
        self.sources[source].attached = true;
        self.say(source);
    }

    fn emitting(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.state == State::Emitting && source.attached)
    }

    /// How far the emitted light of the fastest is beyond where the slowest is.
    fn apart_ps(&self) -> u64 {
        let slowest = self.emitting().map(|source| source.next_ps).min().unwrap_or(0);
        self.emitting().map(|source| source.emitted_ps.saturating_sub(slowest)).max().unwrap_or(0)
    }

    fn starts(&self) -> Vec<Option<u64>> {
        self.sources.iter().map(|source| (source.state == State::Emitting).then_some(source.next_ps)).collect()
    }
}

/// Emits, joins, leaves, and with `cuts` loses streams, in whatever order.
fn wander(seed: u64, cuts: bool, limit_ps: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let epochs_ps: Vec<u64> =
        (0..rng.random_range(2..9)).map(|_| [1, 20, 70, 250, 999][rng.random_range(0..5)]).collect();
    let mut world = World::new(&epochs_ps);
    let mut emitted = 0;
    for _ in 0..4000 {
        let source = rng.random_range(0..epochs_ps.len());
        let it = &world.sources[source];
        match rng.random_range(0..100) {
            0..80 if it.may_emit() => {
                world.emit(source);
                emitted += 1;
            }
            80..90 if it.state == State::Idle && it.attached => {
                // Leases of epochs make a link go on a bit behind where it was.
                world.sources[source].next_ps += rng.random_range(0..3) * epochs_ps[source];
                world.join(source);
            }
            90..92 if it.state != State::Idle && it.attached => world.leave(source),
            92..94 if cuts && it.attached => world.cut(source),
            94..100 if !it.attached => world.attach(source),
            _ => {}
        }
        if world.time.opening() == Some(Opening::Others) && rng.random_range(0..10) == 0 {
            let mut grants = Grants::new();
            world.time.open(&mut grants);
            world.take(grants);
        }
        assert!(world.apart_ps() <= limit_ps, "seed {seed}: {world:?}", world = world.sources);
        let stuck = world.time.opening().is_none() && world.emitting().count() > 0;
        assert!(!stuck || world.emitting().any(Source::may_emit), "seed {seed}: {:?}", world.sources);
    }
    assert!(emitted > 500, "seed {seed}: {emitted}");
}

#[test]
fn no_source_goes_further_than_the_skew_beyond_the_slowest_and_none_waits_for_ever() {
    (0..200).for_each(|seed| wander(seed, false, SKEW_PS));
}

#[test]
fn sources_whose_streams_break_come_back_and_are_twice_the_skew_apart_at_most() {
    // One without a stream goes on to its limit; when it is back, others may be as far beyond where it was lost.
    (0..200).for_each(|seed| wander(1000 + seed, true, 2 * SKEW_PS));
}

#[test]
fn nobody_begins_before_all_are_there_and_each_begins_where_its_data_goes_on() {
    let mut world = World::new(&[20, 20, 20]);
    world.sources[0].next_ps = 5000;
    world.join(0);
    world.sources[1].next_ps = 4100;
    world.join(1);
    assert_eq!(world.time.opening(), Some(Opening::Others));
    assert_eq!(world.starts(), [None; 3]);
    world.sources[2].next_ps = 4000;
    world.join(2);
    assert_eq!(world.starts(), [Some(5000), Some(4100), Some(4000)], "within the skew nothing moves");
    assert_eq!(world.time.network_ps(), 4000);
}

#[test]
fn a_link_that_is_far_behind_begins_at_the_time_of_the_others_in_whatever_order_they_come() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut world = World::new(&[20; 3]);
        for source in order {
            world.sources[source].next_ps = [9000, 0, 8500][source];
            world.join(source);
        }
        assert_eq!(world.starts(), [Some(9000), Some(8000), Some(8500)]);
    }
}

#[test]
fn a_link_that_does_not_come_is_waited_for_no_longer_than_the_runner_wants() {
    let mut world = World::new(&[20, 20, 20]);
    world.join(0);
    world.join(1);
    assert_eq!(world.starts(), [None; 3]);
    let mut grants = Grants::new();
    world.time.open(&mut grants);
    world.take(grants);
    assert_eq!(world.starts(), [Some(0), Some(0), None]);
    while world.sources.iter().any(|source| source.state == State::Emitting && source.next_ps < 50_000) {
        for source in 0..2 {
            while world.sources[source].may_emit() && world.sources[source].next_ps < 50_000 {
                world.emit(source);
            }
        }
    }
    world.join(2);
    let start = world.starts()[2].unwrap();
    assert!((50_000 - SKEW_PS..=50_000).contains(&start), "{start}: what was dark is over");
}

#[test]
fn an_idle_source_holds_nobody_and_begins_again_where_the_network_is() {
    let mut world = World::all_at(&[20, 20], &[0, 0]);
    world.leave(1);
    for _ in 0..1000 {
        world.emit(0);
    }
    assert_eq!(world.sources[0].next_ps, 20_000);
    world.join(1);
    let (reached, back) = (world.sources[0].next_ps, world.sources[1].next_ps);
    assert!(back >= reached - SKEW_PS && back <= reached, "{back}");
}

#[test]
fn a_source_hears_of_the_slowest_only_what_it_waits_for() {
    let mut world = World::all_at(&[10, 10], &[0, 0]);
    while world.sources[0].may_emit() {
        world.emit(0);
    }
    assert_eq!(world.sources[0].next_ps, SKEW_PS);
    // The slow one goes on by less than a quarter: nobody is told.
    let mut told = 0;
    for _ in 0..100 {
        let before = world.sources[0].limit_ps;
        world.emit(1);
        told += u32::from(world.sources[0].limit_ps != before);
    }
    assert_eq!((world.sources[1].next_ps, told), (1000, 1), "once, and not again before it asks");
}

#[test]
fn a_pacer_that_starts_again_in_full_flow_allows_nothing_new_before_it_has_heard_all() {
    let mut world = World::all_at(&[20, 20, 20], &[0, 0, 0]);
    while world.sources[0].may_emit() {
        world.emit(0);
    }
    world.leave(2);
    let flow = world.sources.clone();
    world.time = NetworkTime::new(3, SKEW_PS);
    world.say(0);
    assert_eq!(world.time.opening(), Some(Opening::Flow));
    assert_eq!(world.sources[0].limit_ps, flow[0].limit_ps);
    world.say(1);
    world.say(2);
    assert_eq!((world.time.opening(), world.time.network_ps()), (None, 0));
    assert!(world.sources[1].may_emit() && !world.sources[0].may_emit());
    for _ in 0..30 {
        world.emit(1);
    }
    assert!(world.sources[0].may_emit());
}

#[test]
fn a_source_that_the_network_went_on_without_has_to_begin_again() {
    let mut world = World::all_at(&[20, 20], &[0, 0]);
    world.cut(1);
    for _ in 0..200 {
        world.emit(0);
    }
    world.attach(1);
    assert_eq!(world.sources[1].state, State::Idle);
    world.join(1);
    assert!(world.starts()[1].unwrap() >= 4000 - SKEW_PS);
}

#[test]
fn what_cannot_be_true_is_refused() {
    let mut time = NetworkTime::new(2, SKEW_PS);
    let mut grants = Grants::new();
    let emitting = |number, reached_ps, wants_ps| Report::Emitting { number, reached_ps, wants_ps };
    time.report(0, Report::Join { number: 1, at_ps: 100 }, &mut grants).unwrap();
    assert_eq!(time.report(0, emitting(1, 100, 0), &mut grants), Err(Refusal::NotBegun));
    time.report(1, Report::Join { number: 9, at_ps: 0 }, &mut grants).unwrap();
    time.report(0, emitting(1, 200, 0), &mut grants).unwrap();
    assert_eq!(time.report(0, emitting(2, 300, 0), &mut grants), Err(Refusal::NotBegun));
    let backwards = Refusal::Backwards { reached_ps: 150, before_ps: 200 };
    assert_eq!(time.report(0, emitting(1, 150, 0), &mut grants), Err(backwards));
    let beyond = Refusal::Beyond { reached_ps: 1101, limit_ps: 1000 };
    assert_eq!(time.report(0, emitting(1, 1101, 0), &mut grants), Err(beyond));
    assert_eq!(time.report(0, emitting(1, 300, 300), &mut grants), Err(Refusal::Passed { wants_ps: 300 }));
    time.report(1, Report::Idle { reached_ps: 300, ended: false }, &mut grants).unwrap();
    assert_eq!(time.report(1, emitting(9, 10, 0), &mut grants), Err(Refusal::NotBegun));
    // Times at the end of what can be said are no reason to panic.
    time.lost(0, &mut grants);
    time.report(0, emitting(1, u64::MAX - 1, u64::MAX), &mut grants).unwrap();
    time.report(1, Report::Join { number: 10, at_ps: u64::MAX }, &mut grants).unwrap();
}

#[test]
fn whatever_a_source_says_the_others_go_on() {
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(5000 + seed);
        let mut world = World::all_at(&[20, 70, 20], &[0, 0, 0]);
        for _ in 0..500 {
            let any = [0, 1, SKEW_PS, u64::MAX - 1, u64::MAX, rng.random_range(0..10_000), world.time.network_ps()];
            let mut any = || any[rng.random_range(0..any.len())];
            let report = match any() % 3 {
                0 => Report::Idle { reached_ps: any(), ended: any() == 0 },
                1 => Report::Join { number: any(), at_ps: any() },
                _ => Report::Emitting { number: any(), reached_ps: any(), wants_ps: any() },
            };
            let mut grants = Grants::new();
            if world.time.report(2, report, &mut grants).is_err() {
                world.time.lost(2, &mut grants);
            }
            grants.retain(|(source, _)| *source != 2);
            world.take(grants);
            // It may hold them by saying that it is slow, and no longer than it says so.
            for source in 0..2 {
                while world.sources[source].may_emit() && world.sources[source].next_ps < 10_000 {
                    world.emit(source);
                }
            }
        }
        let mut grants = Grants::new();
        world.time.lost(2, &mut grants);
        grants.retain(|(source, _)| *source != 2);
        world.take(grants);
        let before: Vec<u64> = world.sources[..2].iter().map(|source| source.next_ps).collect();
        for _ in 0..1000 {
            for source in 0..2 {
                if world.sources[source].may_emit() {
                    world.emit(source);
                }
            }
        }
        assert!((0..2).all(|source| world.sources[source].next_ps > before[source] + SKEW_PS), "seed {seed}");
    }
}

/// Goes on until nobody may, or until the first is at `until_ps`.
fn go_on(world: &mut World, until_ps: u64) {
    while world.sources[0].next_ps < until_ps {
        let before = world.sources.clone();
        for source in 0..world.sources.len() {
            if world.sources[source].may_emit() {
                world.emit(source);
            }
        }
        if (0..before.len()).all(|source| before[source].next_ps == world.sources[source].next_ps) {
            return;
        }
    }
}

#[test]
fn in_a_run_that_is_to_be_repeated_a_link_begins_where_it_asks_whenever_it_comes() {
    // How far the other one has come meanwhile is wall time's.
    for others_ps in [0, 500, 4000, 50_000] {
        let mut world = World::new(&[20, 20]);
        world.time = NetworkTime::new(2, SKEW_PS).repeatable(true);
        (0..2).for_each(|source| world.join(source));
        go_on(&mut world, 200);
        world.leave(1);
        let stopped_ps = world.sources[1].next_ps;
        go_on(&mut world, stopped_ps + others_ps);
        assert!(world.sources[0].next_ps <= stopped_ps + SKEW_PS, "it is waited for");
        if others_ps > SKEW_PS {
            let mut grants = Grants::new();
            world.time.give_up(1, &mut grants);
            world.take(grants);
            assert!(world.time.is_missing(1));
            go_on(&mut world, stopped_ps + others_ps);
            assert_eq!(world.sources[0].next_ps, (stopped_ps + others_ps).next_multiple_of(20), "the wait has an end");
        }
        let network_ps = world.time.network_ps();
        world.sources[1].next_ps += 60;
        world.join(1);
        assert_eq!(world.starts()[1], Some(stopped_ps + 60));
        assert!(world.time.network_ps() >= network_ps, "it never goes back");
        assert!(!world.time.is_missing(1));
        // The other one goes on when this one has caught up.
        let ahead_ps = world.sources[0].next_ps;
        go_on(&mut world, ahead_ps + 2000);
        assert!(world.sources[0].next_ps > ahead_ps && world.apart_ps() <= SKEW_PS);
    }
}

#[test]
fn in_a_run_that_is_to_be_repeated_links_begin_where_their_data_goes_on_whoever_comes() {
    for late in [false, true] {
        let mut world = World::new(&[20, 20]);
        world.time = NetworkTime::new(2, SKEW_PS).repeatable(true);
        world.sources[0].next_ps = 9000;
        world.join(0);
        if late {
            let mut grants = Grants::new();
            world.time.open(&mut grants);
            world.take(grants);
            go_on(&mut world, 20_000);
        }
        world.join(1);
        assert_eq!(world.starts()[1], Some(0));
        // But one that was not of the network when it began has no place of its own.
        let added = world.time.add();
        let (mut grants, report) = (Grants::new(), Report::Join { number: 1, at_ps: 0 });
        world.time.report(added, report, &mut grants).unwrap();
        let start_ps = grants.iter().find(|(source, _)| *source == added).unwrap().1.start_ps;
        assert_eq!(start_ps, world.time.network_ps());
    }
}

#[test]
fn a_link_whose_run_is_over_holds_nobody() {
    for repeatable in [false, true] {
        let mut world = World::new(&[20, 20, 20]);
        world.time = NetworkTime::new(3, SKEW_PS).repeatable(repeatable);
        let mut grants = Grants::new();
        world.time.report(2, Report::Idle { reached_ps: 0, ended: true }, &mut grants).unwrap();
        (0..2).for_each(|source| world.join(source));
        assert_eq!(world.time.opening(), None, "nor at the beginning");
        go_on(&mut world, 200);
        let over = Report::Idle { reached_ps: world.sources[1].emitted_ps, ended: true };
        world.sources[1].state = State::Idle;
        world.time.report(1, over, &mut grants).unwrap();
        world.take(grants);
        go_on(&mut world, 20_000);
        assert_eq!(world.sources[0].next_ps, 20_000);
    }
}
