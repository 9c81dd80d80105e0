//! Sessions that break while a block is being reconciled: the block comes to its end in a later one, and whoever heard
//! both has learned what the later one tells alone.

use proptest::prelude::*;

use super::messages::{BlockMessage, BlockStep};
use super::replay::Replay;
use super::stretch_tests::{Disk, End, Link, WHOLE};
use super::*;

/// What either end said of reconciliation, in its order.
type Dialogue = [Vec<BlockStep>; 2];

fn is_of_reconciliation(step: &BlockStep) -> bool {
    use BlockStep::{Amplify, Answer, Begin, Query, Verify};
    matches!(step, Begin(_) | Query(_) | Answer(_) | Verify(_) | Amplify(_))
}

/// A session of a link, and what was said of its first block of which anything was.
fn session(link: &mut Link, seed: u8, frames: std::ops::Range<u64>, ends: End) -> (Dialogue, u64) {
    let (mut said, mut first) = (Dialogue::default(), None);
    let steps = link.run_tapped(seed, frames, ends, &mut |end, bundle| {
        for message in &bundle.blocks {
            let step = message.step.as_ref().expect("an honest end");
            if is_of_reconciliation(step) && *first.get_or_insert(message.block) == message.block {
                said[end].push(step.clone());
            }
        }
    });
    (said, steps.expect("two honest ends"))
}

/// Steps in which a block of all its light is reconciled: the first and the one behind the last.
fn reconciliation() -> (u64, u64) {
    let (mut step, mut begins) = (0, None);
    let steps = Link::default().run_tapped(1, 0..WHOLE, End::Drained, &mut |end, bundle| {
        let begin = |message: &BlockMessage| matches!(message.step, Some(BlockStep::Begin(_)));
        if begins.is_none() && bundle.blocks.iter().any(begin) {
            begins = Some(step);
        }
        step += end as u64;
    });
    (begins.expect("a block"), steps.expect("two honest ends"))
}

fn whole_blocks(link: &Link) -> [usize; 2] {
    link.disks.each_ref().map(|disk| disk.keys.iter().filter(|block| block.frames == WHOLE).count())
}

#[test]
fn wherever_a_session_breaks_in_reconciliation_the_next_one_says_the_same_and_ends_the_block() {
    let mut unbroken = Link::default();
    let (whole, _) = session(&mut unbroken, 1, 0..WHOLE, End::Drained);
    let leaked = unbroken.disks[0].keys[0].ledger.get(Line::LEAKED);
    let (first, last) = reconciliation();
    assert!(whole.iter().all(|said| said.len() > 5) && last - first > 20);
    for step in first..last + 2 {
        for alone in [None, Some(0), Some(1)] {
            let mut link = Link::default();
            let (before, _) = session(&mut link, 1, 0..WHOLE, End::Broken { step, alone });
            let was_stored = !link.disks[0].keys.is_empty();
            let (after, _) = session(&mut link, 2, 100..101, End::Drained);
            let place = format!("broken before step {step}, alone {alone:?}");
            link.assert_equal_keys();
            let left = |disk: &Disk| disk.stretches.len() + disk.prepared.len() + usize::from(disk.begun.is_some());
            assert_eq!(link.disks.each_ref().map(left), [0, 0], "{place}");
            if whole_blocks(&link) != [1, 1] {
                // The corrector alone had begun, and nothing was told: the block is sifted on, to the end of the light.
                assert!(before[1].is_empty() && link.disks[0].keys[0].frames > WHOLE / 2, "{place}");
                continue;
            }
            assert_eq!(link.disks[1].keys[0].ledger.get(Line::LEAKED), leaked, "{place}: other parities");
            for (before, after) in before.iter().zip(&after).filter(|_| !was_stored) {
                assert_eq!(before[..], after[..before.len()], "{place}");
            }
        }
    }
}

#[test]
fn a_block_that_waits_for_its_tags_when_the_session_breaks_counts_once() {
    // The reference has prepared it, and the corrector has not stored it.
    let (first, last) = reconciliation();
    let mut seen = 0;
    for step in first..last + 2 {
        let mut link = Link::default();
        link.run(1, 0..WHOLE, End::Broken { step, alone: None });
        if link.disks[1].prepared.is_empty() || !link.disks[0].keys.is_empty() {
            continue;
        }
        seen += 1;
        let prepared = link.disks[1].prepared[0].key.clone();
        link.run(2, 100..101, End::Drained);
        link.assert_equal_keys();
        assert_eq!(whole_blocks(&link), [1, 1]);
        assert!(link.disks[1].keys[0].key.ct_eq(&prepared), "the same reconciliation makes another key");
    }
    assert!(seen > 0, "a step between the two");
}

/// A session in which somebody changes the first thing of this kind that comes so many steps after the first word of
/// reconciliation, and which breaks when it was heard.
fn tampered(after: u64, change: impl Fn(&mut BlockStep) -> bool) -> Link {
    let (mut link, (first, _)) = (Link::default(), reconciliation());
    let (mut step, mut changed) = (0, None);
    let broken = End::Broken { step: first + after + 4, alone: None };
    let ended = link.run_tapped(1, 0..WHOLE, broken, &mut |end, bundle| {
        let due = step >= first + after && changed.is_none();
        for said in bundle.blocks.iter_mut().filter(|_| due).filter_map(|message| message.step.as_mut()) {
            changed = changed.or(change(said).then_some(step));
        }
        step += end as u64;
    });
    // Whether or not the end that heard it found out by itself, later.
    drop(ended);
    assert!(changed.is_some_and(|at| at < first + after + 3), "something to change, and a step in which it is heard");
    link
}

/// The block is given up at both ends, and the link goes on.
fn assert_given_up(mut link: Link) {
    assert!(link.disks.iter().all(|disk| disk.begun.is_some()), "both ends had begun");
    let error = link.run_tapped(2, 100..101, End::Drained, &mut |_, _| {}).err();
    assert!(matches!(error, Some(ModuleError::OtherWay)), "{error:?}");
    link.run(3, 200..200 + WHOLE, End::Drained);
    link.assert_equal_keys();
    for disk in &link.disks {
        assert_eq!(disk.keys.iter().map(|block| block.frames).collect::<Vec<_>>(), [WHOLE]);
        assert!(disk.keys.len() == 1 && disk.voided.get(Line::VOIDED) >= disk.keys[0].ledger.get(Line::SIFTED_KEY));
    }
}

#[test]
fn parities_that_somebody_else_asked_for_cost_the_block() {
    assert_given_up(tampered(0, |said| match said {
        BlockStep::Begin(begin) => {
            begin.seed ^= 1;
            true
        }
        _ => false,
    }));
}

#[test]
fn parities_that_somebody_else_answered_cost_the_block() {
    assert_given_up(tampered(6, |said| match said {
        BlockStep::Answer(bytes) => bytes.first_mut().map(|parities| *parities ^= 1).is_some(),
        _ => false,
    }));
}

#[test]
fn what_is_heard_must_be_what_was_heard_and_all_of_it() {
    let step = |n: u8| BlockStep::Query(vec![n; 4]);
    let mut draft = Draft::new(0);
    let mut replay = Replay::new(Begun { rounds: 1, records: Vec::new() });
    for n in 0..3 {
        replay.hear(5, &step(n), &mut draft).expect("heard for the first time");
    }
    assert_eq!(replay.draw(5, || vec![1], &mut draft), [1]);
    replay.check_ended().expect("nothing is left");
    let records = draft.actions.drain(..).map(|action| match action {
        Action::Record { block: 5, record } => record,
        other => panic!("{other:?}"),
    });
    let begun = Begun { rounds: 1, records: records.collect() };
    assert_eq!(begun.records.len(), 4);
    let mut replay = Replay::new(begun);
    assert_eq!(replay.draw(6, || vec![2], &mut draft), [1], "drawn before");
    replay.hear(6, &step(0), &mut draft).expect("as before");
    assert!(matches!(replay.check_ended(), Err(ModuleError::OtherWay)), "two more were heard before");
    assert!(matches!(replay.hear(6, &step(2), &mut draft), Err(ModuleError::OtherWay)), "another one came second");
    assert!(draft.actions.is_empty(), "nothing is recorded twice");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn however_often_sessions_break_in_reconciliation_the_block_is_made_once(
        breaks in prop::collection::vec((0u64..70, prop::option::of(0usize..2)), 1..6),
    ) {
        let (first, _) = reconciliation();
        let mut link = Link::default();
        // The first one breaks behind the step in which the reference has begun, too.
        link.run(1, 0..WHOLE, End::Broken { step: first + 2, alone: None });
        for (session, (step, alone)) in breaks.iter().enumerate() {
            link.run(10 + session as u8, 50..50, End::Broken { step: *step, alone: *alone });
        }
        link.run(99, 100..101, End::Drained);
        link.assert_equal_keys();
        prop_assert_eq!(whole_blocks(&link), [1, 1]);
        prop_assert!(link.disks.iter().all(|disk| disk.stretches.is_empty() && disk.prepared.is_empty()));
    }
}
