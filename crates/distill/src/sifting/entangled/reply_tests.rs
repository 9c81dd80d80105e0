#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use zeroize::Zeroizing;

use super::*;
use crate::sifting::entangled::announce::tests::{config, framing};
use crate::sifting::entangled::announce::{Prepared, prepare};
use crate::sifting::entangled::recovery::{FrameCounts, Kept};

/// Events of frame 0: event `i` is in basis X where `i % 3 == 0`, with bit `i % 2`.
fn announced(count: u64) -> Prepared {
    let detector = |i: u64| 1u64 << (2 * u64::from(i.is_multiple_of(3)) + i % 2);
    let tags: Vec<u64> = (0..count).map(|i| (i * 1000) << 10 | detector(i)).collect();
    prepare(0, &tags, framing(), &config(), &mut ChaCha8Rng::seed_from_u64(1)).unwrap()
}

/// The matcher's view in which every listed event is kept with the announcer's bit.
fn result(own: &OwnEvents, indices: &[u32]) -> FrameResult {
    let kept: Vec<Kept> = indices
        .iter()
        .map(|index| Kept { index: *index, basis: own.basis(*index as usize), bit: own.bit(*index as usize) })
        .collect();
    let kept_x = kept.iter().filter(|k| k.basis == Basis::X).count() as u64;
    let counts = FrameCounts {
        announced: own.len() as u64,
        unmatched: own.len() as u64 - indices.len() as u64 - 1,
        basis_mismatch: 1,
        kept_x,
        kept_z: indices.len() as u64 - kept_x,
        ..FrameCounts::default()
    };
    FrameResult { frame: own.frame(), locked: true, kept: Zeroizing::new(kept), counts }
}

fn good() -> (OwnEvents, SiftReply) {
    let own = announced(2000).own;
    let sifted = reply(&result(&own, &[0, 1, 5, 300, 301, 1999]), &mut Bits::default());
    (own, sifted.reply)
}

#[test]
fn both_ends_come_to_the_same_strings() {
    let own = announced(2000).own;
    let (mut z_matcher, mut z_announcer) = (Bits::default(), Bits::default());
    let result = result(&own, &[0, 1, 5, 300, 301, 1998, 1999]);
    let sifted = reply(&result, &mut z_matcher);
    let applied = apply(&sifted.reply, &own, &mut z_announcer).unwrap();
    assert!(z_matcher.ct_eq(&z_announcer));
    assert_eq!(z_matcher.len(), 4);
    assert!(sifted.own_x.ct_eq(&applied.peer_x) && sifted.own_x.ct_eq(&applied.own_x));
    let c = applied.counts;
    assert_eq!((c.announced, c.kept_z, c.kept_x, c.basis_mismatch, c.unmatched), (2000, 4, 3, 1, 1992));
    let answer = x_reply(0, &applied.own_x);
    assert!(x_bits(&answer, sifted.own_x.len()).unwrap().ct_eq(&applied.own_x));
}

#[test]
fn a_reply_does_not_depend_on_key_bits() {
    let own = announced(100).own;
    let mut flipped = result(&own, &[1, 3, 4, 6]);
    let before = reply(&flipped, &mut Bits::default()).reply;
    for kept in flipped.kept.iter_mut().filter(|k| k.basis == Basis::Z) {
        kept.bit = !kept.bit;
    }
    assert_eq!(reply(&flipped, &mut Bits::default()).reply, before);
}

#[test]
fn hostile_replies_are_refused_and_leave_no_bits() {
    let (own, good) = good();
    let refused = |change: &dyn Fn(&mut SiftReply)| {
        let mut reply = good.clone();
        change(&mut reply);
        let mut z = Bits::default();
        let error = apply(&reply, &own, &mut z).unwrap_err();
        assert!(z.is_empty());
        error
    };
    assert_eq!(refused(&|r| r.frame = 1), ReplyError::Frame { expected: 0, found: 1 });
    assert_eq!(refused(&|r| r.kept = 7), ReplyError::Indices { entry: 6 });
    assert_eq!(refused(&|r| r.kept = 5), ReplyError::Indices { entry: 5 });
    assert_eq!(refused(&|r| r.kept = u32::MAX).to_string(), "the reply states 4294967296 of 2000 events");
    assert_eq!(refused(&|r| r.unlocked = 1994), ReplyError::Counts { stated: 2001, announced: 2000 });
    assert_eq!(refused(&|r| r.indices[0] = 1), ReplyError::UnknownEvent { index: 2000 });
    // A number that is not written in the shortest way, and one that never ends.
    assert_eq!(refused(&|r| r.indices = vec![0x80, 0x00]), ReplyError::Indices { entry: 0 });
    assert_eq!(refused(&|r| r.indices = vec![0xff; 64]), ReplyError::Indices { entry: 0 });
    assert!(matches!(refused(&|r| r.x_bits.push(0)), ReplyError::CheckBits { .. }));
    assert!(matches!(refused(&|r| r.x_bits.clear()), ReplyError::CheckBits { .. }));
    assert!(matches!(refused(&|r| r.x_bits[0] |= 0x80), ReplyError::CheckBits { .. }));
}

#[test]
fn check_bits_of_another_number_are_refused() {
    let reply = XReply { frame: 0, x_bits: vec![0b101] };
    assert!(x_bits(&reply, 3).is_ok());
    assert_eq!(x_bits(&reply, 2).unwrap_err(), ReplyError::CheckBits { found: 1, events: 2 });
    assert_eq!(x_bits(&reply, 9).unwrap_err(), ReplyError::CheckBits { found: 1, events: 9 });
    assert!(x_bits(&XReply { frame: 0, x_bits: Vec::new() }, 0).is_ok());
}

proptest! {
    #[test]
    fn any_reply_is_applied_or_refused(
        kept in 0u32..40,
        indices in prop::collection::vec(any::<u8>(), 0..60),
        x_bits in prop::collection::vec(any::<u8>(), 0..6),
    ) {
        let own = announced(100).own;
        let reply = SiftReply { kept, indices, x_bits, ..SiftReply::default() };
        let mut z = Bits::default();
        match apply(&reply, &own, &mut z) {
            Ok(applied) => prop_assert_eq!(applied.counts.kept_z as usize, z.len()),
            Err(_) => prop_assert!(z.is_empty()),
        }
    }
}
