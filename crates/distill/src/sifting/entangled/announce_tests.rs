#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::config::Role;

/// Frame 3 of 20 ms, in units.
const START: u64 = 3 * 5_000_000_000;
const FRAME_PS: u64 = 20_000_000_000;

pub(crate) fn framing() -> Framing {
    Framing::of_a_second()
}

pub(crate) fn config() -> Entangled {
    Entangled::usual(Role::Announcer)
}

fn tag(time: u64, fired: u64) -> u64 {
    (START + time) << 10 | fired
}

fn prepared(tags: &[u64]) -> Prepared {
    prepare(3, tags, framing(), &config(), &mut ChaCha8Rng::seed_from_u64(1)).unwrap()
}

pub(crate) fn unpacked(announcement: &Announcement) -> Result<Vec<u64>, AnnounceError> {
    let mut events = Vec::new();
    announcement.unpack_into(FRAME_PS, &mut events).map(|()| events)
}

fn events(announcement: &Announcement) -> Vec<(u64, u64)> {
    unpacked(announcement).unwrap().iter().map(|e| (e >> 1, e & 1)).collect()
}

#[test]
fn publishes_time_and_basis_and_keeps_the_bit() {
    let p = prepared(&[tag(0, 1), tag(1000, 2), tag(2000, 4), tag(4_999_999_999, 8)]);
    assert_eq!(events(&p.announcement), [(0, 0), (1000, 0), (2000, 1), (4_999_999_999, 1)]);
    assert_eq!((0..4).map(|i| p.own.bit(i)).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!((0..4).map(|i| p.own.basis(i)).collect::<Vec<_>>(), [Basis::Z, Basis::Z, Basis::X, Basis::X]);
    assert_eq!(p.own.counts(), &ClickCounts { clicks: 4, events: 4, ..ClickCounts::default() });
}

#[test]
fn bits_change_nothing_in_the_announcement() {
    let one = prepared(&[tag(10, 1), tag(1000, 1), tag(2000, 4)]);
    let other = prepared(&[tag(10, 2), tag(1000, 1), tag(2000, 8)]);
    assert_eq!(one.announcement, other.announcement);
}

#[test]
fn doubles_of_one_basis_are_one_event_with_a_random_bit() {
    let tags: Vec<u64> = (0..400).flat_map(|i| [tag(i * 10_000, 1), tag(i * 10_000 + 30, 2)]).collect();
    let p = prepared(&tags);
    assert_eq!(p.own.len(), 400);
    assert_eq!((p.own.counts().same_basis_doubles, p.own.counts().merged), (400, 400));
    let ones = (0..400).filter(|i| p.own.bit(*i)).count();
    assert!((170..=230).contains(&ones), "{ones} of 400");
    // One unit more than the window, and they are two events.
    assert_eq!(prepared(&[tag(0, 1), tag(31, 2)]).own.len(), 2);
}

#[test]
fn doubles_of_both_bases_are_discarded() {
    let p = prepared(&[tag(0, 1), tag(30, 8), tag(60, 1), tag(5000, 0b0101), tag(9000, 2)]);
    assert_eq!(events(&p.announcement), [(9000, 0)]);
    assert_eq!(p.own.counts().cross_basis_doubles, 4);
}

#[test]
fn words_without_a_detector_are_counted_and_skipped() {
    let p = prepared(&[tag(0, 0), tag(10, 16), tag(20, 1), tag(25, 0), tag(30, 2)]);
    assert_eq!(p.own.len(), 1);
    assert_eq!((p.own.counts().invalid, p.own.counts().merged), (3, 1));
}

#[test]
fn clicks_that_are_unsorted_or_outside_the_frame_are_refused() {
    let refused = |tags: &[u64]| prepare(3, tags, framing(), &config(), &mut ChaCha8Rng::seed_from_u64(1)).unwrap_err();
    assert_eq!(refused(&[tag(5, 1), tag(4, 1)]), AnnounceError::Unsorted { frame: 3, index: 1 });
    assert_eq!(refused(&[(START - 1) << 10 | 1]), AnnounceError::OutsideFrame { frame: 3, index: 0 });
    assert_eq!(refused(&[tag(1, 1), tag(5_000_000_000, 1)]), AnnounceError::OutsideFrame { frame: 3, index: 1 });
}

#[test]
fn hostile_announcements_are_refused() {
    let word = |delay: u32, x: u32| (delay << 1 | x).to_le_bytes()[..3].to_vec();
    let unpack = |count: u32, words: &[Vec<u8>]| {
        unpacked(&Announcement { frame: 3, count, packed: words.concat() }).map(|e| e.len())
    };
    let gap = GAP_UNITS as u32;
    assert_eq!(unpack(1, &[word(0, 1)]), Ok(1));
    assert_eq!(unpack(1, &[vec![0, 0]]), Err(AnnounceError::Length { frame: 3 }));
    assert_eq!(unpack(2, &[word(1, 0)]), Err(AnnounceError::Count { frame: 3, stated: 2, found: 1 }));
    assert_eq!(unpack(0, &[word(1, 0)]), Err(AnnounceError::Count { frame: 3, stated: 0, found: 1 }));
    assert_eq!(unpack(2, &[word(7, 0), word(0, 0)]), Err(AnnounceError::NotIncreasing { frame: 3 }));
    assert_eq!(unpack(1, &[word(7, 0), word(gap, 0)]), Err(AnnounceError::NotCanonical { frame: 3 }));
    assert_eq!(unpack(1, &[word(gap, 1), word(7, 0)]), Err(AnnounceError::NotCanonical { frame: 3 }));
    assert_eq!(unpack(2, &[word(7, 0), word(gap, 0), word(0, 0)]), Ok(2));
    let long: Vec<Vec<u8>> = (0..596).map(|_| word(gap, 0)).chain([word(gap - 1, 0)]).collect();
    assert_eq!(unpack(1, &long), Err(AnnounceError::BeyondFrame { frame: 3 }));
    assert_eq!(unpack(1, &vec![word(gap, 0); 700]), Err(AnnounceError::Length { frame: 3 }));
    let many = EVENTS_MAX as u32 + 1;
    assert_eq!(unpack(many, &[]), Err(AnnounceError::TooMany { frame: 3, events: EVENTS_MAX + 1 }));
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(delays in prop::collection::vec((31u64..40_000_000, 0u64..4), 0..120)) {
        let mut time = 0;
        let clicks: Vec<(u64, u64)> = delays.iter().map(|(delay, d)| { time += delay; (time, *d) }).collect();
        let tags: Vec<u64> = clicks.iter().map(|(time, d)| tag(*time, 1 << d)).collect();
        prop_assume!(time < 5_000_000_000);
        let p = prepared(&tags);
        let expected: Vec<(u64, u64)> = clicks.iter().map(|(time, d)| (*time, d / 2)).collect();
        prop_assert_eq!(events(&p.announcement), expected);
        for (index, (_, d)) in clicks.iter().enumerate() {
            prop_assert_eq!(p.own.bit(index), d % 2 == 1);
        }
    }

    #[test]
    fn any_bytes_are_unpacked_or_refused(
        frame in any::<u64>(),
        count in 0u32..2000,
        packed in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let announcement = Announcement { frame, count, packed };
        if let Ok(events) = unpacked(&announcement) {
            prop_assert_eq!(events.len(), count as usize);
            prop_assert!(events.windows(2).all(|pair| pair[0] >> 1 < pair[1] >> 1));
            prop_assert!(events.iter().all(|e| e >> 1 < 5_000_000_000));
        }
    }

    #[test]
    fn every_click_is_counted_once(clicks in prop::collection::vec((0u64..100, 0u64..16), 0..300)) {
        let mut time = 0;
        let tags: Vec<u64> = clicks.iter().map(|(delay, d)| { time += delay; tag(time, *d) }).collect();
        let p = prepared(&tags);
        let c = p.own.counts();
        prop_assert_eq!(c.clicks, c.events + c.merged + c.cross_basis_doubles + c.invalid);
        prop_assert_eq!(c.events, u64::from(p.announcement.count));
        let events = events(&p.announcement);
        prop_assert!(events.windows(2).all(|pair| pair[1].0 - pair[0].0 > 30));
    }
}
