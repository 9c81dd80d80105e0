//! Blocks of several stretches, in sessions that break: what survives, what does not, and what both ends make of it.

use proptest::prelude::*;
use rand::Rng;

use super::messages::Checkpoint;
use super::*;
use crate::config::{Framing, Loops, Role, Sifting as Config};
use crate::sifting::Light;
use crate::sifting::counts::{Counts, Frame, Labelled};

const STRETCHES: u64 = 4;
const STRETCH_FRAMES: u64 = 5;
const KEY_BITS: usize = 600;
const CHECK_BITS: usize = 300;

fn protocol(role: Role) -> LinkProtocol {
    let mut protocol = LinkProtocol::bbm92(role);
    let PostProcessing { framing, authentication, .. } = &mut protocol.post_processing;
    *framing = Framing { frame_ps: 1_000_000_000_000, round_frames: STRETCHES * STRETCH_FRAMES };
    authentication.stretches = STRETCHES;
    protocol.sifting = Config::Counts(Counts { side: role.side(), loops: Loops::default() });
    protocol
}

/// Light of one frame for either end, with 2 % of errors at the first.
fn light(number: u64) -> [FrameInput; 2] {
    let mut rng = ChaCha20Rng::from_seed([number as u8; 32]);
    let halves = [KEY_BITS, CHECK_BITS].map(|len| {
        let sent = Bits::from_words((0..len.div_ceil(64)).map(|_| rng.next_u64()).collect(), len);
        let mut seen = sent.clone();
        (0..len).filter(|place| (place * 7 + number as usize).is_multiple_of(50)).for_each(|place| {
            seen.set(place, !sent.get(place));
        });
        [seen, sent]
    });
    let [key, check] = halves;
    let frames = key.into_iter().zip(check).map(|(key, check)| {
        let labelled = |bits| Labelled { bits, kinds: Vec::new() };
        let clicks = (KEY_BITS + CHECK_BITS) as u64;
        let frame = Frame { key: labelled(key), check: labelled(check), clicks, ..Frame::default() };
        FrameInput { number, light: Light::Counts(Box::new(frame)), traceparent: format!("00-{number}") }
    });
    let frames: Vec<FrameInput> = frames.collect();
    frames.try_into().ok().expect("two ends")
}

/// One end with its disk, over its sessions.
#[derive(Default)]
struct Disk {
    stretches: Vec<Stretch>,
    prepared: Vec<FinishedBlock>,
    keys: Vec<FinishedBlock>,
    aborted: Vec<u64>,
    spent: Vec<u64>,
    voided: BlockLedger,
    next_block: u64,
}

impl Disk {
    fn offers(&self) -> Vec<Offer> {
        self.stretches.iter().rev().take(OFFERS).map(|kept| Offer::new(kept.rounds, &kept.digest)).collect()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Keep { stretch, .. } => self.stretches.push(stretch),
            Action::Settle { rounds, .. } => {
                let beyond = self.stretches.extract_if(.., |kept| kept.rounds > rounds);
                for kept in beyond {
                    let mut account = kept.material.account;
                    account.void();
                    self.voided.add(&account);
                }
            }
            Action::Spend { block } => {
                self.stretches.clear();
                self.spent.push(block);
            }
            Action::Prepare(block) => self.prepared.push(block),
            Action::Store(block) => self.keys.push(block),
            Action::Commit { block } => {
                let at = self.prepared.iter().position(|prepared| prepared.number == block).expect("prepared");
                self.keys.push(self.prepared.remove(at));
            }
            Action::Void { block } => self.prepared.retain(|prepared| prepared.number != block),
            Action::Abort { block, .. } => self.aborted.push(block),
            Action::Stage { .. } | Action::Trace { .. } | Action::Note { .. } => {}
        }
    }
}

/// Corrector and reference.
#[derive(Default)]
struct Link {
    disks: [Disk; 2],
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// With its light.
    Drained,
    /// Before this step; the last one was taken by one end alone, if any.
    Broken { step: u64, alone: Option<usize> },
}

struct Session {
    modules: [Module; 2],
    said: [Option<PeerInput>; 2],
    step: u64,
}

impl Link {
    /// Both ends have greeted each other; `seed` is of their randomness.
    fn open(&mut self, seed: u8) -> Session {
        let hellos = [0, 1].map(|end| {
            let disk = &self.disks[end];
            let role = [Role::Matcher, Role::Announcer][end];
            Hello::new(&protocol(role), disk.next_block, 0, 0).with_stretches(disk.offers())
        });
        let first_block = hellos[0].start(&hellos[1]).0;
        let modules = [0, 1].map(|end| {
            let (role, disk) = ([Role::Matcher, Role::Announcer][end], &self.disks[end]);
            let start = SessionStart {
                first_block,
                in_doubt: disk.prepared.last().map(|block| block.number),
                peer_committed_end: self.disks[0].keys.last().map_or(0, |block| block.number + 1),
                own_committed_end: disk.keys.last().map_or(0, |block| block.number + 1),
                latency_steps: 8,
                setpoints: Setpoints::default(),
            };
            let mut module = Module::new(&protocol(role), &start, [seed ^ end as u8; 32]);
            if let Some(rounds) = hellos[end].carries(&hellos[1 - end]) {
                let carried: Vec<_> = disk.stretches.iter().filter(|kept| kept.rounds <= rounds).cloned().collect();
                assert_eq!(carried.last().map_or(0, |last| last.rounds), rounds);
                module.carry(carried).expect("stretches of one link");
            }
            module
        });
        Session { modules, said: [None, None], step: 0 }
    }

    /// One step of one end, what must be durable included.
    fn step(
        &mut self,
        session: &mut Session,
        end: usize,
        frame: Option<FrameInput>,
    ) -> Result<StepOutput, ModuleError> {
        let peer = session.said[1 - end].clone();
        let mut output = session.modules[end].step(frame, peer)?;
        output.actions.drain(..).for_each(|action| self.disks[end].act(action));
        Ok(output)
    }

    /// A session on frames of light, until it ends.
    fn run(&mut self, seed: u8, frames: std::ops::Range<u64>, ends: End) {
        let mut session = self.open(seed);
        let mut finished = [false; 2];
        let mut due = frames;
        while finished != [true; 2] {
            let lights = due.next().map(light);
            let mut lights = lights.map_or([None, None], |lights| lights.map(Some));
            if let End::Broken { step, alone } = ends
                && session.step == step
            {
                if let Some(end) = alone {
                    self.step(&mut session, end, lights[end].take()).expect("two honest ends");
                }
                break;
            }
            let mut said = [None, None];
            for end in 0..2 {
                if !finished[end] {
                    let output = self.step(&mut session, end, lights[end].take()).expect("two honest ends");
                    finished[end] = output.finished;
                    said[end] = Some(PeerInput { payload: output.payload.into(), authenticated: output.close_round });
                }
            }
            session.said = said;
            session.step += 1;
            assert!(session.step < 10_000, "the session does not end");
        }
        for (disk, module) in self.disks.iter_mut().zip(&mut session.modules) {
            for (block, account) in module.void() {
                account.check().expect("an account that sums");
                disk.voided.add(&account);
                disk.next_block = disk.next_block.max(block + 1);
            }
            disk.next_block = disk.keys.iter().map(|block| block.number + 1).fold(disk.next_block, u64::max);
        }
    }

    /// Both ends hold the same key, and some.
    fn assert_equal_keys(&self) {
        let [corrector, reference] = &self.disks;
        assert_eq!((corrector.keys.len(), &corrector.aborted), (reference.keys.len(), &reference.aborted));
        for (own, twin) in corrector.keys.iter().zip(&reference.keys) {
            assert_eq!((own.number, own.reserve_bits, own.frames), (twin.number, twin.reserve_bits, twin.frames));
            assert!(own.key.len() > own.reserve_bits && own.key.ct_eq(&twin.key), "block {} differs", own.number);
            own.ledger.check().expect("an account that sums");
            twin.ledger.check().expect("an account that sums");
        }
    }
}

const WHOLE: u64 = STRETCHES * STRETCH_FRAMES;

#[test]
fn a_block_over_two_sessions_has_the_key_that_one_session_makes_of_the_same_light() {
    let mut whole = Link::default();
    whole.run(1, 0..WHOLE, End::Drained);
    whole.assert_equal_keys();
    let mut broken = Link::default();
    // Two stretches are closed; of the third three frames are sifted and void.
    broken.run(9, 0..13, End::Broken { step: 13, alone: None });
    for disk in &broken.disks {
        assert_eq!(disk.stretches.iter().map(|kept| kept.rounds).collect::<Vec<_>>(), [1, 2]);
        assert!(disk.voided.get(Line::VOIDED) <= 3 * KEY_BITS as u64 && disk.voided.get(Line::VOIDED) > 0);
        assert_eq!(disk.voided.get(Line::BLOCKS_VOIDED), 0, "the block is not");
    }
    broken.run(1, 10..WHOLE, End::Drained);
    broken.assert_equal_keys();
    let ([one], [two]) = (&whole.disks[0].keys[..], &broken.disks[0].keys[..]) else { panic!("a block each") };
    assert!(one.key.ct_eq(&two.key), "the same light makes another key over two sessions");
    assert_eq!((one.frames, two.frames), (WHOLE, WHOLE));
    assert_eq!(one.ledger.get(Line::SIFTED_KEY), two.ledger.get(Line::SIFTED_KEY));
    // A pair of tags for each checkpoint, for the close, and for settling what the second session began with.
    let pair = crate::auth::refill_bits(64) as usize;
    assert_eq!((one.reserve_bits, two.reserve_bits), (4 * pair, 5 * pair));
    for disk in &broken.disks {
        assert!(disk.stretches.is_empty() && disk.spent == [two.number]);
    }
}

#[test]
fn a_session_of_many_blocks_makes_the_key_of_one_whose_blocks_are_sifted_at_one_go() {
    let mut link = Link::default();
    link.run(3, 0..3 * WHOLE + 7, End::Drained);
    link.assert_equal_keys();
    let frames: Vec<u64> = link.disks[0].keys.iter().map(|block| block.frames).collect();
    assert_eq!(frames, [WHOLE, WHOLE, WHOLE, 7], "a run that ends makes a block of what there is");
}

#[test]
fn what_one_end_alone_has_closed_is_given_up_and_accounted_for() {
    // The corrector's checkpoint is on its disk, and the reference never hears of it.
    let closes = (0..30).find(|step| {
        let mut link = Link::default();
        link.run(1, 0..WHOLE, End::Broken { step: *step, alone: Some(0) });
        link.disks.each_ref().map(|disk| disk.stretches.len()) == [1, 0]
    });
    let mut link = Link::default();
    link.run(1, 0..WHOLE, End::Broken { step: closes.expect("a step that closes"), alone: Some(0) });
    link.run(2, 40..41, End::Broken { step: 3, alone: None });
    assert!(link.disks.iter().all(|disk| disk.stretches.is_empty()));
    let voided = link.disks[0].voided.get(Line::VOIDED);
    assert!(voided >= STRETCH_FRAMES * KEY_BITS as u64, "{voided}");
    link.run(3, 50..50 + WHOLE, End::Drained);
    link.assert_equal_keys();
}

#[test]
fn ends_that_know_different_stretches_void_them_all_and_go_on() {
    let mut link = Link::default();
    link.run(1, 0..12, End::Broken { step: 12, alone: None });
    let mut other = Link::default();
    other.run(2, 60..72, End::Broken { step: 12, alone: None });
    // One end's disk was put back.
    let [_, reference] = other.disks;
    link.disks[1] = reference;
    link.run(3, 80..80 + WHOLE, End::Drained);
    link.assert_equal_keys();
    for disk in &link.disks {
        assert!(disk.voided.get(Line::VOIDED) >= 2 * STRETCH_FRAMES * KEY_BITS as u64);
        assert_eq!(disk.keys[0].frames, WHOLE, "nothing of it is in the key");
    }
}

/// Runs to the step in which the corrector says a checkpoint; the reference has not heard it.
fn before_a_checkpoint(link: &mut Link) -> (Session, Bundle) {
    let mut session = link.open(1);
    for number in 0.. {
        let mut said = [None, None];
        for (end, frame) in light(number).into_iter().enumerate() {
            let output = link.step(&mut session, end, Some(frame)).expect("two honest ends");
            said[end] = Some(PeerInput { payload: output.payload.into(), authenticated: output.close_round });
        }
        session.said = said;
        session.step += 1;
        let payload = session.said[0].as_ref().expect("the corrector's").payload.clone();
        let bundle = Bundle::decode_bytes(payload).expect("an honest end");
        if bundle.blocks.iter().any(|message| matches!(message.step, Some(BlockStep::Checkpoint(_)))) {
            return (session, bundle);
        }
    }
    unreachable!("light has no end")
}

/// Whether the reference takes this in place of what the corrector says.
fn takes(change: impl Fn(&mut BlockMessage), authenticated: bool) -> bool {
    let mut link = Link::default();
    let (mut session, mut bundle) = before_a_checkpoint(&mut link);
    bundle.blocks.iter_mut().for_each(change);
    session.said[0] = Some(PeerInput { payload: bundle.encode_to_vec().into(), authenticated });
    let [_, frame] = light(90);
    let taken = link.step(&mut session, 1, Some(frame)).is_ok();
    assert_eq!(taken, !link.disks[1].stretches.is_empty(), "what is refused leaves nothing on the disk");
    taken
}

fn checkpoint(message: &mut BlockMessage) -> &mut Checkpoint {
    match &mut message.step {
        Some(BlockStep::Checkpoint(checkpoint)) => checkpoint,
        _ => panic!("a checkpoint alone"),
    }
}

#[test]
fn a_checkpoint_that_is_forged_or_comes_without_a_tag_is_refused() {
    assert!(takes(|_| {}, true));
    assert!(!takes(|_| {}, false), "without a tag");
    assert!(!takes(|message| message.block += 1, true), "of another block");
    assert!(!takes(|message| checkpoint(message).rounds = 0, true), "of nothing");
    assert!(!takes(|message| checkpoint(message).rounds += 1, true), "of rounds that are not sifted");
    assert!(!takes(|message| checkpoint(message).digest[3] ^= 1, true), "of another transcript");
    assert!(!takes(|message| checkpoint(message).digest.clear(), true), "of none");
}

#[test]
fn a_checkpoint_that_comes_twice_and_an_answer_to_none_are_refused() {
    let mut link = Link::default();
    let (mut session, bundle) = before_a_checkpoint(&mut link);
    let replayed = bundle.blocks.clone();
    for number in [91, 92] {
        let mut outputs = Vec::new();
        for (end, frame) in light(number).into_iter().enumerate() {
            outputs.push(link.step(&mut session, end, Some(frame)).expect("two honest ends"));
        }
        let said = outputs
            .into_iter()
            .map(|output| Some(PeerInput { payload: output.payload.into(), authenticated: output.close_round }));
        session.said = said.collect::<Vec<_>>().try_into().ok().expect("two ends");
    }
    assert_eq!(link.disks.each_ref().map(|disk| disk.stretches.len()), [1, 1]);
    let again = |said: &PeerInput, blocks: Vec<BlockMessage>| {
        let bundle = Bundle { blocks, ..Bundle::decode_bytes(said.payload.clone()).expect("an honest end") };
        Some(PeerInput { payload: bundle.encode_to_vec().into(), authenticated: true })
    };
    let [to_reference, to_corrector] = session.said.each_ref().map(|said| said.clone().expect("said"));
    let answer = BlockMessage { block: 0, step: Some(BlockStep::Kept(1)) };
    session.said = [again(&to_reference, replayed), again(&to_corrector, vec![answer])];
    for (end, frame) in light(93).into_iter().enumerate() {
        assert!(link.step(&mut session, end, Some(frame)).is_err());
    }
    assert_eq!(link.disks.each_ref().map(|disk| disk.stretches.len()), [1, 1]);
}

#[test]
fn a_greeting_alone_erases_nothing() {
    let mut link = Link::default();
    link.run(1, 0..12, End::Broken { step: 12, alone: None });
    let before = link.disks.each_ref().map(Disk::offers);
    // Somebody greets in the peer's name, names no stretch, and can make no tag.
    let start = SessionStart {
        first_block: 1,
        in_doubt: None,
        peer_committed_end: 0,
        own_committed_end: 0,
        latency_steps: 8,
        setpoints: Setpoints::default(),
    };
    for (end, role) in [Role::Matcher, Role::Announcer].into_iter().enumerate() {
        let mut module = Module::new(&protocol(role), &start, [7; 32]);
        module.carry(Vec::new()).expect("nothing is carried");
        let output = module.step(None, None).expect("the first step needs no peer");
        output.actions.into_iter().for_each(|action| link.disks[end].act(action));
        for message in [
            BlockStep::Kept(0),
            BlockStep::Checkpoint(Checkpoint { rounds: 0, digest: vec![0; 32] }),
            BlockStep::Begin(super::messages::Begin { rounds: 1, ..Default::default() }),
        ] {
            let bundle = Bundle { blocks: vec![BlockMessage { block: 1, step: Some(message) }], ..Bundle::default() };
            let peer = PeerInput { payload: bundle.encode_to_vec().into(), authenticated: false };
            assert!(module.step(None, Some(peer)).is_err());
        }
    }
    assert_eq!(link.disks.each_ref().map(Disk::offers), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn wherever_sessions_break_both_ends_make_the_same_key_of_what_survives(
        breaks in prop::collection::vec((1u64..90, prop::option::of(0usize..2)), 1..5),
        frames in 1u64..200,
    ) {
        let mut link = Link::default();
        let mut number = 0;
        for (session, (step, alone)) in breaks.iter().enumerate() {
            // Light of this session ends, or it breaks before.
            link.run(session as u8, number..number + frames, End::Broken { step: *step, alone: *alone });
            number += 200;
            let [corrector, reference] = link.disks.each_ref().map(|disk| disk.stretches.len());
            prop_assert!(corrector <= reference + 1, "{corrector} and {reference} stretches");
        }
        link.run(100, number..number + WHOLE, End::Drained);
        link.assert_equal_keys();
        for disk in &link.disks {
            prop_assert!(disk.prepared.is_empty() && disk.stretches.is_empty());
            let sifted: u64 = disk.keys.iter().map(|block| block.ledger.get(Line::SIFTED_KEY)).sum();
            let frames: u64 = disk.keys.iter().map(|block| block.frames).sum();
            prop_assert_eq!(sifted, frames * KEY_BITS as u64);
        }
    }
}
