//! Ends that count differently: by accident, because a volume was put back, or because somebody says so.

use super::super::counts::OLD_FORM_LEAD;
use super::*;

const KEY: [u8; 32] = [3; 32];

/// Ends that send and have verified so much, with a key of masks or in the older form.
fn world(counts: [(u64, u64); 2], masked: bool) -> World<Endless> {
    let ends = [(Side::Initiator, counts[0]), (Side::Responder, counts[1])].map(|(side, (send, receive))| {
        let key = masked.then(|| MaskKey::new(KEY));
        Endpoint::new(EndpointConfig { side }, Endless::new(side, send, receive, key))
    });
    World::new(ends, 7)
}

/// Lets both modules open and the two ends say all that they have to say to each other.
fn meet(world: &mut World<Endless>) {
    world.line = Default::default();
    world.open(0);
    world.open(1);
    let mut frames = 0;
    while world.deliver(0) | world.deliver(1) {
        frames += 1;
        assert!(frames < 50, "they do not come to an end");
    }
    (0..3).for_each(|_| stall(world));
}

/// Lets both ends say once more what they last said.
fn stall(world: &mut World<Endless>) {
    for end in 0..2 {
        if world.ends[end].waits() {
            world.line[1 - end].extend(world.ends[end].on_stall());
        }
    }
    while world.deliver(0) | world.deliver(1) {}
}

fn counts(world: &World<Endless>) -> [(u64, u64); 2] {
    world.ends.each_ref().map(|end| (end.reserve().next_send(), end.reserve().next_receive()))
}

#[test]
fn a_sender_that_is_ahead_proves_it_with_one_tag_and_the_session_goes_on_behind() {
    for ahead in [[1, 0], [0, 1], [7, 2], [5000, 9]] {
        for masked in [true, false] {
            let before = [(10 + ahead[0], 20), (20 + ahead[1], 10)];
            let mut world = world(before, masked);
            world.round(|_, _, frame| vec![frame]);
            assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
            let spent = ahead.map(|tags| 1 + u64::from(tags > 0));
            let after = [10 + ahead[0] + spent[0], 20 + ahead[1] + spent[1]];
            assert_eq!(counts(&world), [(after[0], after[1]), (after[1], after[0])]);
        }
    }
}

#[test]
fn a_lost_proof_is_said_again_and_not_made_again() {
    let mut world = world([(15, 20), (23, 10)], true);
    world.round(|random, _, frame| if random.random_range(0..2) == 0 { vec![] } else { vec![frame] });
    assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
    assert_eq!(world.ends.each_ref().map(|end| end.counters().proofs_sent), [1, 1]);
}

#[test]
fn an_end_whose_volume_was_put_back_is_told_by_proof_makes_no_tag_and_both_name_its_site() {
    for behind in 0..2 {
        for lag in [1, 5, 200] {
            let mut before = [(500, 600), (600, 500)];
            before[behind] = (before[behind].0 - lag, before[behind].1 - lag);
            let mut world = world(before, true);
            for again in 0..4 {
                meet(&mut world);
                let closed = world.modules.each_ref().map(|module| module.closed.last().copied());
                assert_eq!(closed[behind], Some(CloseReason::RolledBack(Whose::Own)), "lag {lag}, {again}");
                assert_eq!(closed[1 - behind], Some(CloseReason::RolledBack(Whose::Peer)), "lag {lag}, {again}");
            }
            let after = counts(&world);
            assert_eq!(after[behind].0, before[behind].0, "a pad that was used may be among those");
            assert_eq!(after[1 - behind].0, before[1 - behind].0 + 1, "one pad shows it, and no retry costs another");
            // The peer is started again, and hears it from the end that knows.
            let side = [Side::Initiator, Side::Responder][1 - behind];
            let (send, receive) = after[1 - behind];
            let reserve = Endless::new(side, send, receive, Some(MaskKey::new(KEY)));
            world.ends[1 - behind] = Endpoint::new(EndpointConfig { side }, reserve);
            meet(&mut world);
            assert_eq!(world.modules[1 - behind].closed, [CloseReason::RolledBack(Whose::Peer)]);
            assert_eq!(counts(&world), after);
        }
    }
}

#[test]
fn ends_that_both_claim_to_be_ahead_of_each_other_wait_and_spend_nothing() {
    let before = [(5, 20), (10, 9)];
    let mut world = world(before, true);
    meet(&mut world);
    assert!(world.modules.iter().all(|module| module.closed.is_empty() && !module.open));
    assert_eq!(counts(&world), before);
    // Checked under the key of the masks it is said at once, and once.
    assert!(world.modules.iter().all(|module| module.unfit == [Misfit::BothBehind]));
    let mut world = self::world(before, false);
    world.open(0);
    world.open(1);
    while world.deliver(0) | world.deliver(1) {}
    assert!(world.modules.iter().all(|module| module.unfit.is_empty()), "a few greetings may come from anybody");
    (0..4).for_each(|_| stall(&mut world));
    assert!(world.modules.iter().all(|module| module.unfit == [Misfit::BothBehind] && module.closed.is_empty()));
    assert_eq!(counts(&world), before);
}

#[test]
fn receivers_of_the_older_form_are_followed_behind_a_proof_up_to_what_forgeries_explain() {
    for (lead, follows) in [(1, true), (OLD_FORM_LEAD, true), (OLD_FORM_LEAD + 1, false)] {
        let mut world = world([(10, 20), (20, 10 + lead)], false);
        meet(&mut world);
        assert_eq!(world.modules.each_ref().map(|module| module.open), [follows; 2], "lead {lead}");
        assert_eq!(world.ends[0].reserve().is_rolled_back(), !follows);
        assert_eq!(counts(&world)[0].0, 10, "nothing is sent on the strength of a greeting");
        if follows {
            world.round(|_, _, frame| vec![frame]);
            assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1], "lead {lead}");
        } else {
            (0..5).for_each(|_| stall(&mut world));
            assert_eq!(world.modules[0].closed, [CloseReason::RolledBack(Whose::Own)]);
            assert_eq!((&world.modules[1].unfit[..], counts(&world)[1].0), (&[Misfit::PeerBehind][..], 21));
        }
    }
}

#[test]
fn ends_with_other_keys_or_forms_do_not_meet_and_spend_nothing() {
    for (key, misfit) in [(None, Misfit::OtherForm), (Some(MaskKey::new([4; 32])), Misfit::OtherSecret)] {
        let mut world = world([(3, 9), (10, 2)], true);
        let side = Side::Responder;
        world.ends[1] = Endpoint::new(EndpointConfig { side }, Endless::new(side, 10, 2, key));
        meet(&mut world);
        assert!(world.modules.iter().all(|module| module.closed.is_empty() && !module.open));
        assert_eq!(counts(&world), [(3, 9), (10, 2)]);
        assert!(world.ends.iter().all(|end| end.counters().hellos_refused > 0));
        assert!(world.modules.iter().all(|module| module.unfit == [misfit]), "said once, however often they greet");
        (0..20).for_each(|_| stall(&mut world));
        assert!(world.modules.iter().all(|module| module.unfit.len() == 1 && module.closed.is_empty()));
        assert_eq!(counts(&world), [(3, 9), (10, 2)]);
        // Made the same again, it meets: nobody has to open it again.
        world.ends[1] = Endpoint::new(EndpointConfig { side }, Endless::new(side, 10, 2, Some(MaskKey::new(KEY))));
        world.open(1);
        while world.deliver(0) | world.deliver(1) {}
        assert!(world.modules.iter().all(|module| module.open));
    }
}

#[test]
fn forged_greetings_that_do_not_fit_end_nothing_and_the_true_one_opens_the_session() {
    let mut world = world([(3, 2), (2, 3)], true);
    world.open(0);
    world.open(1);
    let seen = Frame::decode(world.line[0].front().unwrap()).unwrap();
    for n in 0..1000u64 {
        let mut payload = seen.payload.to_vec();
        payload[16..24].copy_from_slice(&n.wrapping_mul(77).to_le_bytes());
        let frame = Frame { payload: payload.into(), session: n + 1, ..seen.clone() };
        let actions = world.ends[0].receive(&frame.encode());
        world.act(0, actions);
    }
    assert_eq!(world.modules[0].unfit.len(), 1);
    while world.deliver(0) | world.deliver(1) {}
    assert!(world.modules.iter().all(|module| module.open && module.closed.is_empty()));
    assert_eq!(counts(&world), [(3, 2), (2, 3)]);
}

#[test]
fn a_greeting_that_comes_back_to_its_sender_is_not_the_peers() {
    let mut world = world([(3, 9), (10, 2)], true);
    world.open(0);
    let own = world.line[1].pop_front().unwrap();
    world.ends[0].receive(&own);
    assert_eq!(world.ends[0].counters().hellos_refused, 1);
}

#[test]
fn a_peer_of_another_version_is_said_and_costs_nothing() {
    let mut world = world([(3, 9), (10, 2)], true);
    world.open(0);
    let mut old = world.line[1].pop_front().unwrap().to_vec();
    old[0] -= 1;
    let actions = world.ends[0].receive(&old.clone().into());
    world.act(0, actions);
    assert_eq!(world.modules[0].closed, [CloseReason::PeerVersion]);
    assert_eq!(counts(&world)[0], (3, 9));
    // One that stands in the way of an open session is noise.
    let mut world = self::world([(3, 2), (2, 3)], true);
    meet(&mut world);
    let actions = world.ends[0].receive(&old.into());
    world.act(0, actions);
    assert!(world.modules[0].open);
}

/// What an attacker makes who sees both nonces: greetings with any counts, bundles and proofs with any tag.
fn forgery(random: &mut StdRng, seen: &Frame, masked: bool) -> Frame {
    let near = |random: &mut StdRng| match random.random_range(0..3) {
        0 => random.random::<u64>(),
        _ => random.random_range(0..200_000),
    };
    let mut payload = seen.payload.to_vec();
    let mut frame = seen.clone();
    match random.random_range(0..3) {
        0 => {
            for at in [0, 8] {
                if random.random_range(0..2) == 0 {
                    payload[at..at + 8].copy_from_slice(&near(random).to_le_bytes());
                }
            }
            if random.random_range(0..8) == 0 {
                payload[32] ^= 2;
            }
            frame.payload = payload.into();
            if random.random_range(0..2) == 0 {
                frame.session = random.random_range(1..u64::MAX);
            }
            frame.tag = masked.then(|| TagField { number: 0, tag: random.random() });
        }
        1 => {
            let tag = TagField { number: near(random), tag: random.random() };
            let payload = if masked { Bytes::from(random.random::<[u8; 16]>().to_vec()) } else { Bytes::new() };
            frame = Frame { kind: Kind::Proof, session: random.random(), step: 0, payload, tag: Some(tag), ..frame };
        }
        _ => {
            let tag = TagField { number: near(random), tag: random.random() };
            frame = Frame { kind: Kind::Bundle, step: 0, payload: Bytes::new(), tag: Some(tag), ..frame };
        }
    }
    frame
}

#[test]
fn a_hundred_thousand_forgeries_roll_nothing_back_and_cost_at_most_a_pad_each() {
    for masked in [true, false] {
        let mut world = world([(1000, 1000), (1000, 1000)], masked);
        let mut forged = 0u64;
        while forged < 100_000 {
            world.line = Default::default();
            world.open(0);
            world.open(1);
            let victim = world.random.random_range(0..2);
            // The nonces as an attacker sees them; the true greeting of the peer is late.
            let hello = |frames: &VecDeque<Bytes>| {
                let frames = frames.iter().map(|bytes| Frame::decode(bytes).unwrap());
                frames.filter(|frame| frame.kind == Kind::Hello).last().unwrap()
            };
            let (own, peer) = (hello(&world.line[1 - victim]), hello(&world.line[victim]));
            let spent = counts(&world)[victim].0;
            for forgery_no in 0..5 {
                let mut frame = forgery(&mut world.random, &Frame { step: own.session, ..peer.clone() }, masked);
                if let Some(session) = world.ends[victim].session().filter(|_| frame.kind == Kind::Bundle) {
                    frame.session = session;
                    if let Some(tag) = frame.tag.as_mut().filter(|_| forgery_no % 2 == 0) {
                        tag.number = world.ends[victim].reserve().next_receive();
                    }
                }
                forged += 1;
                let actions = world.ends[victim].receive(&frame.encode());
                world.act(victim, actions);
            }
            let cost = counts(&world)[victim].0 - spent;
            assert!(cost <= if masked { 0 } else { 5 }, "{cost} pads");
            let rolled = |reason: &CloseReason| matches!(reason, CloseReason::RolledBack(_));
            assert!(!world.modules[victim].closed.iter().any(rolled));
            assert!(!world.ends[victim].reserve().is_rolled_back());
        }
        assert!(counts(&world).iter().all(|(_, receive)| *receive == 1000), "a receiver takes none on their strength");
        // And nobody has to help them.
        for _ in 0..2 {
            world.round(|_, _, frame| vec![frame]);
            assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
        }
    }
}

/// Ends that crash, that start again, and that have tags on the disk which never left, on a line that loses, repeats
/// and delays: nothing of it looks like a volume that was put back. `QKDNET_SOAK_ATTACKS` asks for more.
#[test]
fn crashes_at_any_moment_on_a_bad_line_roll_nothing_back() {
    let events: u64 = std::env::var("QKDNET_SOAK_ATTACKS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    for masked in [true, false] {
        let mut world = world([(10, 10), (10, 10)], masked);
        world.lasting = false;
        let mut late: Vec<(usize, Bytes)> = Vec::new();
        let (mut verified, mut proofs) = (0, 0);
        world.open(0);
        world.open(1);
        for _ in 0..events {
            let end = world.random.random_range(0..2);
            match world.random.random_range(0..100) {
                0..2 => {
                    proofs += world.ends[end].counters().proofs_sent;
                    let reserve = world.ends[end].reserve();
                    let send = reserve.next_send() + [0, 0, 1, 8][world.random.random_range(0..4)];
                    let reserve = Endless::new(reserve.side, send, reserve.next_receive(), reserve.key.clone());
                    let side = reserve.side;
                    world.ends[end] = Endpoint::new(EndpointConfig { side }, reserve);
                    world.open(end);
                }
                2..4 => world.open(end),
                4..8 => drop(world.line[end].pop_front()),
                8..12 => {
                    if let Some(frame) = world.line[end].front().cloned() {
                        late.push((end, frame));
                    }
                }
                12..14 if !late.is_empty() => {
                    let which = world.random.random_range(0..late.len());
                    let (end, frame) = late.swap_remove(which);
                    world.line[end].push_back(frame);
                }
                14..20 if world.ends[end].waits() => {
                    let frames = world.ends[end].on_stall();
                    world.line[1 - end].extend(frames);
                }
                20..40 => world.speak(),
                _ => drop(world.deliver(end)),
            }
            for module in &world.modules {
                let ended = module.closed.iter().all(|reason| {
                    matches!(reason, CloseReason::PeerRestarted | CloseReason::PeerLeft | CloseReason::TagMismatch)
                });
                assert!(ended, "{:?}", module.closed);
            }
            late.truncate(50);
            world.line.iter_mut().for_each(|line| line.truncate(100));
            for end in 0..2 {
                let done = world.modules[end].heard.len() as u64 == world.steps;
                if done || !world.modules[end].closed.is_empty() {
                    verified += world.modules[end].verified;
                    world.open(end);
                }
            }
        }
        println!("{verified} tags verified, {proofs} proofs");
        assert!(verified > 500 && proofs > 100);
    }
}
