//! Reserves that run empty, are refilled, or differ after a crash.

use super::*;

fn secret(bits: usize, seed: u64) -> Bits {
    let mut random = StdRng::seed_from_u64(seed);
    Bits::from_words((0..bits.div_ceil(64)).map(|_| random.random()).collect(), bits)
}

fn small(tags: u64) -> World<MemoryReserve> {
    let layout = Layout::new(4);
    let bits = 2 * 128 * (layout.pad_cell(tags - 1).unwrap() + 1);
    let ends = [Side::Initiator, Side::Responder].map(|side| {
        let reserve = MemoryReserve::new(side, layout, &secret(bits as usize, 9)).unwrap();
        Endpoint::new(EndpointConfig { side }, reserve.with_mask_key(MaskKey::new([5; 32])))
    });
    World::new(ends, 6)
}

#[test]
fn an_empty_reserve_closes_the_channel_until_it_is_rekeyed() {
    let mut world = small(3);
    for _ in 0..3 {
        world.round(|_, _, frame| vec![frame]);
        assert_eq!(world.modules[0].verified, 1);
    }
    world.open(0);
    world.open(1);
    for module in &world.modules {
        assert_eq!(module.closed, [CloseReason::ReserveExhausted]);
    }
    for end in &mut world.ends {
        end.reserve_mut().unwrap().rekey(&secret(2 * 128 * 10, 10)).unwrap();
    }
    world.round(|_, _, frame| vec![frame]);
    assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
}

#[test]
fn a_reserve_that_runs_out_inside_a_session_ends_it_at_both_ends() {
    let mut world = small(2);
    world.steps = 8;
    world.open(0);
    world.open(1);
    for _ in 0..20 {
        world.closes = world.modules.each_ref().map(|module| module.said.len() as u64);
        world.speak();
        for end in 0..2 {
            world.deliver(end);
        }
    }
    for module in &world.modules {
        assert_eq!((&module.closed[..], module.verified), (&[CloseReason::ReserveExhausted][..], 2));
    }
}

#[test]
fn an_end_that_a_crash_left_without_tags_ends_the_session_that_the_peer_still_has() {
    let mut world = small(1);
    world.open(0);
    world.open(1);
    while world.deliver(0) | world.deliver(1) {}
    assert!(world.ends.iter().all(|end| end.session().is_some()));
    // Its one tag was on disk as used when it crashed.
    let mut reserve = MemoryReserve::new(Side::Initiator, Layout::new(4), &secret(2 * 128 * 2, 9)).unwrap();
    reserve.take_send(0).unwrap();
    let reserve = reserve.with_mask_key(MaskKey::new([5; 32]));
    world.ends[0] = Endpoint::new(EndpointConfig { side: Side::Initiator }, reserve);
    world.open(0);
    assert_eq!(world.modules[0].closed, [CloseReason::ReserveExhausted]);
    world.speak();
    assert!(world.deliver(0) && world.deliver(1), "something is said, and answered");
    assert_eq!(world.modules[1].closed, [CloseReason::ReserveExhausted]);
    assert_eq!(world.ends[1].session(), None);
    assert_eq!(world.ends[0].counters().wrong_session, 1);
}

#[test]
fn a_crash_that_costs_an_end_a_tag_costs_that_one_and_a_proof() {
    for crashed in 0..2 {
        let mut world = small(9);
        world.round(|_, _, frame| vec![frame]);
        let side = [Side::Initiator, Side::Responder][crashed];
        let bits = 2 * 128 * (Layout::new(4).pad_cell(8).unwrap() + 1);
        let mut reserve = MemoryReserve::new(side, Layout::new(4), &secret(bits as usize, 9)).unwrap();
        // One more than the peer has seen.
        reserve.take_send(1).unwrap();
        reserve.verified(0).unwrap();
        let reserve = reserve.with_mask_key(MaskKey::new([5; 32]));
        world.ends[crashed] = Endpoint::new(EndpointConfig { side }, reserve);
        for _ in 0..3 {
            world.round(|_, _, frame| vec![frame]);
            assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1], "{side:?} crashed");
        }
        let next = world.ends.each_ref().map(|end| (end.reserve().next_send(), end.reserve().next_receive()));
        assert_eq!((next[crashed], next[1 - crashed]), ((6, 4), (4, 6)));
        assert_eq!(world.ends[crashed].counters().proofs_sent, 1);
        assert_eq!(world.ends[1 - crashed].counters().proofs_sent, 0);
    }
}

#[test]
fn a_forgery_that_comes_before_the_peer_has_spoken_costs_no_pad() {
    for victim in 0..2 {
        let mut world = small(9);
        for _ in 1..=3 {
            world.steps = 4;
            world.closes = [0, 0];
            world.line = Default::default();
            world.open(0);
            world.open(1);
            while world.deliver(0) | world.deliver(1) {}
            let session = world.ends[victim].session().expect("a session");
            let tag = Some(TagField { number: world.ends[victim].reserve().next_receive(), tag: [7; 16] });
            let frame = Frame { kind: Kind::Bundle, session, step: 0, payload: Bytes::new(), tag, repeated: false };
            let actions = world.ends[victim].receive(&frame.encode());
            world.act(victim, actions);
            assert_eq!(world.modules[victim].closed, [CloseReason::TagMismatch]);
            let counts = (world.ends[victim].reserve().next_receive(), world.ends[1 - victim].reserve().next_send());
            assert_eq!(counts, (0, 0));
        }
        world.steps = 3;
        world.closes = [1, 2];
        world.round(|_, _, frame| vec![frame]);
        assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
        assert_eq!(world.ends[1 - victim].reserve().next_send(), 1);
    }
}

#[test]
fn refills_keep_the_reserve_level() {
    let mut world = small(5);
    for block in 0..60u64 {
        world.round(|_, _, frame| vec![frame]);
        assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1], "block {block}");
        for end in 0..2 {
            let bits = secret(refill_bits(4) as usize, block);
            let actions = world.ends[end].refill(block, &bits);
            assert_eq!(actions, [Action::Refilled { block }]);
        }
    }
    assert!(world.ends.iter().all(|end| end.remaining() >= 5));
}

#[test]
fn a_refill_that_one_end_lost_is_dropped_at_the_other() {
    let mut world = small(8);
    world.round(|_, _, frame| vec![frame]);
    world.ends[0].refill(0, &secret(320, 1));
    world.round(|_, _, frame| vec![frame]);
    let marks = world.ends.each_ref().map(|end| end.reserve().marks());
    assert_eq!(marks[0], marks[1]);
    for end in 0..2 {
        world.ends[end].refill(1, &secret(320, 2));
    }
    for _ in 0..6 {
        world.round(|_, _, frame| vec![frame]);
        assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
    }
}

#[test]
fn reserves_whose_refills_went_different_ways_are_told_as_such_before_a_tag_is_spent() {
    // The same number of refills, none of them known to both.
    let mut world = small(12);
    world.round(|_, _, frame| vec![frame]);
    for block in 0..super::super::reserve::MARKS as u64 + 1 {
        for end in 0..2 {
            world.ends[end].refill(block, &secret(if end == 0 { 320 } else { 640 }, block));
        }
    }
    // And an end that has used bits which the other never had.
    let mut ahead = small(12);
    ahead.round(|_, _, frame| vec![frame]);
    ahead.ends[0].refill(0, &secret(128 * 20, 1));
    ahead.ends[0].keeper().verified(14).unwrap();
    for mut world in [world, ahead] {
        let sent = world.ends.each_ref().map(|end| end.reserve().next_send());
        for _ in 0..5 {
            world.line = Default::default();
            world.open(0);
            world.open(1);
            while world.deliver(0) | world.deliver(1) {}
        }
        assert!(world.modules.iter().any(|module| module.unfit == [Misfit::OtherRefills]));
        assert!(world.modules.iter().all(|module| !module.open));
        assert_eq!(world.ends.each_ref().map(|end| end.reserve().next_send()), sent);
    }
}

#[test]
fn an_end_that_was_re_keyed_alone_and_its_peer_say_that_their_secrets_differ_and_spend_nothing() {
    let mut world = small(9);
    world.round(|_, _, frame| vec![frame]);
    world.ends[1].leave();
    world.ends[1].reserve_mut().unwrap().rekey(&secret(2 * 128 * 10, 10)).unwrap();
    let before = world.ends.each_ref().map(|end| (end.reserve().next_send(), end.reserve().next_receive()));
    world.line = Default::default();
    world.open(0);
    world.open(1);
    for _ in 0..10 {
        while world.deliver(0) | world.deliver(1) {}
        for end in 0..2 {
            let frames = world.ends[end].on_stall();
            world.line[1 - end].extend(frames);
        }
    }
    assert!(world.modules.iter().all(|module| module.unfit == [Misfit::OtherSecret] && module.closed.is_empty()));
    let after = world.ends.each_ref().map(|end| (end.reserve().next_send(), end.reserve().next_receive()));
    assert_eq!(before, after);
    // The same secret at the other end brings them together.
    world.ends[0].reserve_mut().unwrap().rekey(&secret(2 * 128 * 10, 10)).unwrap();
    let actions = world.ends[0].rekeyed();
    world.act(0, actions);
    world.round(|_, _, frame| vec![frame]);
    assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
}

#[test]
fn an_end_that_missed_more_refills_than_are_remembered_is_rolled_back_and_both_say_so() {
    for behind in 0..2 {
        let mut world = small(12);
        world.round(|_, _, frame| vec![frame]);
        for block in 0..super::super::reserve::MARKS as u64 + 1 {
            world.ends[1 - behind].refill(block, &secret(320, block));
        }
        world.round(|_, _, frame| vec![frame]);
        // Whoever verifies the first tag ends the session; the other one hears of it when they meet again.
        world.line = Default::default();
        world.open(0);
        world.open(1);
        while world.deliver(0) | world.deliver(1) {}
        if !world.ends[behind].reserve().is_rolled_back() {
            world.round(|_, _, frame| vec![frame]);
        }
        let sent = world.ends.each_ref().map(|end| end.reserve().next_send());
        for _ in 0..5 {
            world.line = Default::default();
            world.open(0);
            world.open(1);
            while world.deliver(0) | world.deliver(1) {}
        }
        let closed = world.modules.each_ref().map(|module| module.closed.last().copied());
        assert_eq!(closed[behind], Some(CloseReason::RolledBack(Whose::Own)));
        assert_eq!(closed[1 - behind], Some(CloseReason::RolledBack(Whose::Peer)));
        assert_eq!(world.ends.each_ref().map(|end| end.reserve().next_send()), sent, "trying again spends nothing");
    }
}
