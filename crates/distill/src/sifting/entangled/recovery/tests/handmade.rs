//! Matching on clicks written down by hand, and against a search that compares everything with everything.

use proptest::prelude::*;

use super::super::clock::FrameClock;
use super::*;

/// Detectors, by their bit in a tag.
const Z0: u64 = 1;
const Z1: u64 = 2;
const X0: u64 = 4;
const X1: u64 = 8;

/// 30 ns, in units.
const DEAD: u64 = 7500;
const STILL: FrameClock = FrameClock { base: 0, slope: 0.0 };

fn tag(time: u64, detectors: u64) -> u64 {
    time << 10 | detectors
}

fn event(time: u64, basis: Basis) -> u64 {
    time << 1 | u64::from(basis == Basis::X)
}

struct Desk {
    finder: Finder,
    sifter: Sifter,
    start: u64,
}

impl Desk {
    fn new() -> Self {
        Self { finder: Finder::new(250), sifter: Sifter::new(30, DEAD), start: 0 }
    }

    /// Judges one frame of 20 ms; the next begins where it ends.
    fn frame(&mut self, events: &[(u64, Basis)], own: &[(u64, u64)]) -> (Vec<(u32, Basis, bool)>, FrameCounts) {
        let events: Vec<u64> = events.iter().map(|(time, basis)| event(*time, *basis)).collect();
        let own: Vec<u64> = own.iter().map(|(time, fired)| tag(self.start + time, *fired)).collect();
        let events = Events { start: self.start, events: &events };
        let mut pairs = Vec::new();
        self.finder.find(events, &own, STILL, &mut pairs);
        let mut counts = FrameCounts {
            announced: events.events.len() as u64,
            own_clicks: own.len() as u64,
            ..FrameCounts::default()
        };
        let kept = self.sifter.sift(events, &own, &pairs, &mut counts);
        self.start += 5_000_000_000;
        let list = kept.iter().map(|k| (k.index, k.basis, k.bit)).collect();
        check_sums(&FrameResult { frame: 0, locked: true, kept, counts }, counts.announced);
        (list, counts)
    }
}

fn judge(events: &[(u64, Basis)], own: &[(u64, u64)]) -> (Vec<(u32, Basis, bool)>, FrameCounts) {
    Desk::new().frame(events, own)
}

use Basis::{X, Z};

#[test]
fn clicks_in_the_same_basis_are_kept_with_the_detectors_bit() {
    let far = 1_000_000;
    let events = [(far, Z), (2 * far, Z), (3 * far, X), (4 * far, X), (5 * far, Z), (6 * far, X)];
    let own = [(far, Z0), (2 * far, Z1), (3 * far, X0), (4 * far, X1), (5 * far, X0), (6 * far, Z1)];
    let (kept, counts) = judge(&events, &own);
    assert_eq!(kept, [(0, Z, false), (1, Z, true), (2, X, false), (3, X, true)]);
    assert_eq!((counts.kept_z, counts.kept_x, counts.basis_mismatch), (2, 2, 2));
}

#[test]
fn the_window_is_60_ps_either_way() {
    let events: Vec<_> = (1..=4).map(|i| (i * 1_000_000, Z)).collect();
    let own = [(999_984, Z0), (1_999_985, Z0), (3_000_015, Z0), (4_000_016, Z0)];
    let (kept, counts) = judge(&events, &own);
    assert_eq!(kept.iter().map(|k| k.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((counts.unmatched, counts.own_unmatched), (2, 2));
}

#[test]
fn own_doubles_of_one_basis_are_one_event_with_a_random_bit() {
    let events: Vec<_> = (1..=400).map(|i| (i * 1_000_000, Z)).collect();
    let mut random = Random::new(91);
    let own: Vec<_> =
        (1..=400).flat_map(|i| [(i * 1_000_000 - 10 + random.next() % 20, Z0), (i * 1_000_000 + 15, Z1)]).collect();
    let (kept, counts) = judge(&events, &own);
    assert_eq!((counts.kept_z, counts.random_bits, counts.own_merged, counts.own_unmatched), (400, 400, 400, 0));
    let ones = kept.iter().filter(|k| k.2).count();
    assert!((170..=230).contains(&ones), "{ones} of 400");
}

#[test]
fn own_doubles_of_both_bases_are_discarded() {
    let (kept, counts) = judge(&[(1_000_000, Z)], &[(1_000_000, Z0), (1_000_010, X1)]);
    assert!(kept.is_empty());
    assert_eq!((counts.cross_basis_doubles, counts.own_cross_basis_doubles), (1, 2));
}

#[test]
fn a_happening_has_the_time_of_its_first_click() {
    // The second click is inside the window, the first is not.
    let (kept, counts) = judge(&[(1_000_000, Z)], &[(999_980, Z0), (1_000_005, Z1)]);
    assert!(kept.is_empty());
    assert_eq!((counts.unmatched, counts.own_unmatched), (1, 2));
}

#[test]
fn a_click_between_two_announced_events_is_ambiguous() {
    let (kept, counts) = judge(&[(1_000_000, Z), (1_000_010, Z), (2_000_000, Z)], &[(1_000_005, Z0), (2_000_000, Z0)]);
    assert_eq!(kept, [(2, Z, false)]);
    assert_eq!((counts.ambiguous, counts.own_ambiguous), (2, 1));
}

#[test]
fn of_two_kept_events_within_a_dead_time_the_second_is_dropped() {
    for second in [Z, X] {
        let fired = if second == Z { Z1 } else { X0 };
        let near = [(1_000_000, Z0), (1_000_000 + DEAD, fired)];
        let (kept, counts) = judge(&[(1_000_000, Z), (1_000_000 + DEAD, second)], &near);
        assert_eq!(kept.len(), 1);
        assert_eq!(counts.within_dead_time, 1);
        // The window is added: both ends measure the distance with some jitter.
        let far = 1_000_000 + DEAD + 31;
        let (kept, _) = judge(&[(1_000_000, Z), (far, second)], &[(1_000_000, Z0), (far, fired)]);
        assert_eq!(kept.len(), 2);
    }
}

#[test]
fn of_a_chain_of_announced_events_of_one_basis_only_one_is_kept() {
    let times = [1_000_000, 1_000_000 + DEAD - 100, 1_000_000 + 2 * DEAD - 200];
    let own = [(times[0], Z0), (times[2], Z0)];
    let (kept, counts) = judge(&[(times[0], Z), (times[1], Z), (times[2], Z)], &own);
    assert_eq!((kept.len(), counts.within_dead_time, counts.unmatched), (1, 1, 1));
    // An event of the other basis between them says nothing.
    let (kept, _) = judge(&[(times[0], Z), (times[1], X), (times[2], Z)], &own);
    assert_eq!(kept.len(), 2);
    // Nor does a chain without a kept event.
    let (kept, _) = judge(&[(times[0], Z), (times[1], Z), (times[2], Z)], &own[1..]);
    assert_eq!(kept.len(), 1);
}

#[test]
fn dead_time_and_chains_go_on_across_frames() {
    let end = 5_000_000_000;
    for between in [Z, X] {
        let mut desk = Desk::new();
        let (kept, _) =
            desk.frame(&[(end - 2 * DEAD + 300, Z), (end - DEAD + 200, between)], &[(end - 2 * DEAD + 300, Z0)]);
        assert_eq!(kept.len(), 1);
        let (kept, counts) = desk.frame(&[(100, Z)], &[(100, Z0)]);
        let expected = if between == Z { (0, 1) } else { (1, 0) };
        assert_eq!((kept.len(), counts.within_dead_time), expected);
    }
    let mut desk = Desk::new();
    desk.frame(&[(end - 10, Z)], &[(end - 10, Z0)]);
    let (kept, _) = desk.frame(&[(100, X)], &[(100, X0)]);
    assert!(kept.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn search_finds_what_comparing_everything_finds(
        seed in any::<u64>(),
        range in 20u64..3000,
        slope in -0.00005f64..0.00005,
        base in -1_000_000_000i64..1_000_000_000,
        density in 1u64..200_000,
    ) {
        let mut random = Random::new(seed);
        let mut stream = |count: usize, origin: u64| {
            let mut time = origin;
            (0..count)
                .map(|_| {
                    time += 1 + random.next() % density;
                    time
                })
                .collect::<Vec<u64>>()
        };
        let start = 10_000_000_000u64;
        let clock = FrameClock { base, slope };
        let events: Vec<u64> = stream(400, 0).into_iter().map(|t| event(t, Z)).collect();
        let own: Vec<u64> =
            stream(600, start.saturating_add_signed(base / 256 - 1000)).into_iter().map(|t| tag(t, Z0)).collect();
        let mut expected = Vec::new();
        for (i, e) in events.iter().enumerate() {
            let predicted = ((e >> 1) as i64) * 256 + clock.offset(e >> 1);
            for (j, o) in own.iter().enumerate() {
                let difference = ((o >> 10) as i64 - start as i64) * 256 - predicted;
                if difference.abs() <= range as i64 * 256 {
                    expected.push(Pair { event: i as u32, own: j as u32, difference: difference as i32 });
                }
            }
        }
        let mut found = Vec::new();
        Finder::new(range).find(Events { start, events: &events }, &own, clock, &mut found);
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn hostile_announcements_are_refused() {
    let mut recovery = Recovery::new(framing(), &config());
    let good = Announcement { frame: 7, count: 0, packed: Vec::new() };
    recovery.push_peer(&good).unwrap();
    assert_eq!(recovery.push_peer(&good), Err(RecoveryError::OutOfOrder { expected: 8, found: 7 }));
    let truncated = Announcement { frame: 8, count: 1, packed: vec![1, 2] };
    assert_eq!(recovery.push_peer(&truncated), Err(RecoveryError::Frame(AnnounceError::Length { frame: 8 })));
    for frame in 8.. {
        if let Err(error) = recovery.push_peer(&Announcement { frame, ..good.clone() }) {
            assert!(matches!(error, RecoveryError::Backlog { frames } if frames < 100));
            break;
        }
    }
    let far = Announcement { frame: u64::MAX, ..good };
    let refused = Recovery::new(framing(), &config()).push_peer(&far);
    assert_eq!(refused, Err(RecoveryError::Frame(AnnounceError::FrameRange { frame: u64::MAX })));
}

#[test]
fn own_frames_must_be_sorted_consecutive_and_inside() {
    let mut recovery = Recovery::new(framing(), &config());
    let start = 5 * 5_000_000_000;
    recovery.push_own(5, vec![tag(start, 1), tag(start, 0), tag(start + 3, 2)]).unwrap();
    assert_eq!(recovery.push_own(7, Vec::new()), Err(RecoveryError::OutOfOrder { expected: 6, found: 7 }));
    assert!(recovery.push_own(6, vec![tag(start, 1)]).is_err());
    assert!(recovery.push_own(6, vec![tag(2 * start, 1), tag(start + 5_000_000_000, 1)]).is_err());
    recovery.push_own(6, vec![tag(start + 5_000_000_000, 1)]).unwrap();
}

#[test]
fn memory_is_bounded_when_the_peer_is_silent() {
    let mut recovery = Recovery::new(framing(), &config());
    for frame in 5..500u64 {
        recovery.push_own(frame, vec![tag(frame * 5_000_000_000, 1)]).unwrap();
    }
    assert!(recovery.own.frames.len() < 30);
}
