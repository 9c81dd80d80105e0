//! A protocol that is not in the library: what somebody writes who adds one, and what the pipeline makes of it.
//!
//! Its light is a stream of bits that both ends get, with errors at one of them. Of each frame the sender discloses
//! every third bit, the receiver answers with what it had there, and the rest is key.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use distill::bits::Bits;
use distill::bounds::Evidence;
use distill::config::{Authentication, Bound, Emission, Framing, PostProcessing, Reconciliation, Security};
use distill::ledger::{BlockLedger, Book, Item, Line};
use distill::pipeline::{
    Action, FinishedBlock, FrameInput, Module, ModuleError, PeerInput, SessionStart, Setpoints, Side,
};
use distill::sifting::{
    Context, Detected, Event, Light, Reconciled, SiftedRound, Sifting, SiftingError, SiftingFigures, Tag,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const FRAME_BITS: usize = 3000;
const ROUND_FRAMES: u64 = 8;
const FRAMES: u64 = 20;

/// A frame that was disclosed in part, or will be.
struct Waiting {
    step: u64,
    key: Vec<bool>,
    check: Vec<bool>,
}

/// Both halves: they differ in who speaks first.
struct Toy {
    sends: bool,
    waiting: VecDeque<Waiting>,
    /// What the peer disclosed, until there is light of the same frame here.
    heard: VecDeque<Vec<u8>>,
    said: Vec<u8>,
    open: SiftedRound,
    frames: u64,
    over: [bool; 2],
    ready: VecDeque<SiftedRound>,
    reconciled: Arc<Mutex<Vec<Reconciled>>>,
}

fn round(number: u64) -> SiftedRound {
    SiftedRound {
        number,
        frames: 0,
        first_step: 0,
        key: Bits::default(),
        decoys: None,
        evidence: Evidence::CheckBits { bits: 0, errors: 0 },
        detected: Detected::default(),
        account: BlockLedger::default(),
    }
}

impl Toy {
    fn new(sends: bool, reconciled: Arc<Mutex<Vec<Reconciled>>>) -> Self {
        Self {
            sends,
            waiting: VecDeque::new(),
            heard: VecDeque::new(),
            said: Vec::new(),
            open: round(0),
            frames: 0,
            over: [false; 2],
            ready: VecDeque::new(),
            reconciled,
        }
    }

    fn close(&mut self) {
        let next = round(self.open.number + 1);
        self.ready.push_back(std::mem::replace(&mut self.open, next));
    }

    /// Both ends' disclosed bits of the oldest frame are known here.
    fn compare(&mut self, peer: &[u8]) -> Result<(), SiftingError> {
        let waiting = self.waiting.pop_front().ok_or(SiftingError::Protocol("bits of a frame that was not taken"))?;
        if peer.len() != waiting.check.len() {
            return Err(SiftingError::Malformed("toy message"));
        }
        let errors = peer.iter().zip(&waiting.check).filter(|(peer, own)| (**peer == 1) != **own).count() as u64;
        let (bits, open) = (peer.len() as u64, &mut self.open);
        let Evidence::CheckBits { bits: all, errors: wrong } = &mut open.evidence else {
            return Err(SiftingError::Protocol("evidence of another kind"));
        };
        *all += bits;
        *wrong += errors;
        if open.frames == 0 {
            open.first_step = waiting.step;
        }
        open.frames += 1;
        let kept = waiting.key.len() as u64;
        waiting.key.into_iter().for_each(|bit| open.key.push(bit));
        let end = if self.sends { Book::Announcer } else { Book::Matcher };
        for (line, value) in [
            (Line(end, Item::Clicks), bits + kept),
            (Line(end, Item::SiftedCheck), bits),
            (Line(end, Item::SiftedKey), kept),
            (Line::CHECK_DISCLOSED, bits),
            (Line::CHECK_ERRORS, errors),
            (Line::SIFTED_KEY, kept),
        ] {
            open.account.book(line, value);
        }
        if open.frames == ROUND_FRAMES {
            self.close();
        }
        Ok(())
    }
}

impl Sifting for Toy {
    fn tag(&self) -> Tag {
        Tag(u32::MAX)
    }

    fn peer_light_over(&mut self) {
        self.over[1] = true;
    }

    fn hear(&mut self, message: &[u8], _context: &mut Context<'_>) -> Result<(), SiftingError> {
        if self.sends {
            return message.chunks(FRAME_BITS / 3).try_for_each(|bits| self.compare(bits));
        }
        self.heard.push_back(message.to_vec());
        Ok(())
    }

    fn reconciled(&mut self, reconciled: &Reconciled) {
        self.reconciled.lock().unwrap().push(*reconciled);
    }

    fn take(&mut self, frame: FrameInput, context: &mut Context<'_>) -> Result<(), SiftingError> {
        if self.frames.is_multiple_of(ROUND_FRAMES) {
            context.events.push(Event::RoundBegins { round: self.frames / ROUND_FRAMES });
        }
        self.frames += 1;
        let (mut key, mut check) = (Vec::new(), Vec::new());
        let Light::Tags(tags) = frame.light else { return Err(SiftingError::Light("a transmitter's pulses")) };
        for (index, bit) in tags.iter().map(|tag| *tag == 1).enumerate() {
            if index % 3 == 0 { check.push(bit) } else { key.push(bit) }
        }
        if self.sends {
            self.said = check.iter().map(|bit| u8::from(*bit)).collect();
        }
        self.waiting.push_back(Waiting { step: context.step, key, check });
        Ok(())
    }

    fn light_over(&mut self) {
        self.over[0] = true;
    }

    fn say(&mut self, _context: &mut Context<'_>) -> Result<Vec<u8>, SiftingError> {
        while !self.waiting.is_empty()
            && let Some(heard) = self.heard.pop_front()
        {
            self.said.extend(self.waiting[0].check.iter().map(|bit| u8::from(*bit)));
            self.compare(&heard)?;
        }
        if self.over == [true; 2] && self.waiting.is_empty() && self.open.frames > 0 {
            self.close();
        }
        Ok(std::mem::take(&mut self.said))
    }

    fn next_round(&mut self) -> Option<SiftedRound> {
        self.ready.pop_front()
    }

    fn is_over(&self) -> bool {
        self.over == [true; 2] && self.waiting.is_empty() && self.open.frames == 0 && self.ready.is_empty()
    }

    fn setpoints(&mut self, _step: u64) -> Setpoints {
        Setpoints::default()
    }

    fn figures(&self) -> SiftingFigures {
        SiftingFigures::default()
    }

    fn void(&mut self) -> Vec<(u64, BlockLedger)> {
        if self.open.frames == 0 {
            return Vec::new();
        }
        self.open.account.void();
        vec![(self.open.number, self.open.account.clone())]
    }
}

struct End {
    module: Module,
    actions: Vec<Action>,
    reconciled: Arc<Mutex<Vec<Reconciled>>>,
}

/// The sender holds the reference string, or corrects it: a protocol may have it either way.
fn ends(sender: Side, tolerated_qber: f64) -> [End; 2] {
    let config = PostProcessing {
        framing: Framing::of_a_second(),
        reconciliation: Reconciliation { frame_bits: 10_000, initial_qber: 0.03 },
        security: Security {
            bound: Bound::Finite,
            epsilon_secrecy: 1e-10,
            epsilon_correctness: 1e-15,
            tolerated_qber,
            emission: Emission::Pairs,
        },
        authentication: Authentication::new(64),
    };
    let start = SessionStart {
        first_block: 5,
        in_doubt: None,
        peer_committed_end: 0,
        own_committed_end: 0,
        latency_steps: 1,
        setpoints: Setpoints::default(),
    };
    let other = if sender == Side::Reference { Side::Corrector } else { Side::Reference };
    [(true, sender, 1), (false, other, 2)].map(|(sends, side, seed)| {
        let reconciled = Arc::default();
        let toy = Box::new(Toy::new(sends, Arc::clone(&reconciled)));
        let module = Module::with_sifting(toy, side, &config, &start, [seed; 32]);
        End { module, actions: Vec::new(), reconciled }
    })
}

/// One frame of light for both ends, with an error rate at the second.
fn light(number: u64, qber: f64) -> [FrameInput; 2] {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    let sent: Vec<u64> = (0..FRAME_BITS).map(|_| u64::from(rng.next_u32() & 1)).collect();
    let wrong = (qber * f64::from(u32::MAX)) as u32;
    let received = sent.iter().map(|bit| bit ^ u64::from(rng.next_u32() < wrong)).collect();
    [sent, received].map(|tags| FrameInput::tags(number, tags, format!("00-{number}")))
}

/// Steps until both ends are done; the tag of a closed round is taken as verified.
fn run(ends: &mut [End; 2], qber: f64) -> Result<(), ModuleError> {
    let (mut said, mut finished, mut step) = ([None, None], [false; 2], 0);
    while finished != [true; 2] {
        let frames = if step < FRAMES { light(step, qber).map(Some) } else { [None, None] };
        let mut outputs = [None, None];
        for (i, frame) in frames.into_iter().enumerate() {
            if !finished[i] {
                let output = ends[i].module.step(frame, said[1 - i].take())?;
                ends[i].actions.extend(output.actions);
                finished[i] = output.finished;
                outputs[i] = Some(PeerInput { payload: output.payload.into(), authenticated: output.close_round });
            }
        }
        said = outputs;
        step += 1;
        assert!(step < 1000, "the run does not end");
    }
    Ok(())
}

/// Blocks of an end that count, with their key.
fn stored(end: &End) -> Vec<&FinishedBlock> {
    let commits = |number| end.actions.iter().any(|a| matches!(a, Action::Commit { block } if *block == number));
    let blocks = end.actions.iter().filter_map(|action| match action {
        Action::Store(block) => Some(block),
        Action::Prepare(block) if commits(block.number) => Some(block),
        _ => None,
    });
    blocks.collect()
}

#[test]
fn a_protocol_that_the_library_does_not_know_makes_key_through_the_same_pipeline() {
    for sender in [Side::Reference, Side::Corrector] {
        let mut ends = ends(sender, 0.05);
        run(&mut ends, 0.02).unwrap();
        let [sent, received] = ends.each_ref().map(stored);
        // 20 frames in rounds of 8: two whole ones and a short one.
        let numbers = |blocks: &[&FinishedBlock]| blocks.iter().map(|b| (b.number, b.frames)).collect::<Vec<_>>();
        assert_eq!(numbers(&sent), [(5, 8), (6, 8), (7, 4)], "the sender is the {sender:?}");
        assert_eq!(numbers(&sent), numbers(&received));
        for (own, peer) in sent.iter().zip(&received) {
            assert!(own.key.len() > 1000 && own.key.ct_eq(&peer.key), "block {}", own.number);
            own.ledger.check().unwrap();
            peer.ledger.check().unwrap();
        }
        for end in &ends {
            let mut told = end.reconciled.lock().unwrap().clone();
            told.sort_by_key(|reconciled| reconciled.first_step);
            assert_eq!(told.iter().map(|r| (r.first_step, r.frames)).collect::<Vec<_>>(), [(0, 8), (8, 8), (16, 4)]);
            assert!(told.iter().all(|r| r.bits > 7000 && (0.01..0.03).contains(&r.qber)));
            let traces: Vec<_> = end.actions.iter().filter(|a| matches!(a, Action::Trace { .. })).collect();
            assert_eq!(traces.len(), 3, "{traces:?}");
        }
    }
}

#[test]
fn a_session_that_breaks_gives_every_round_of_any_protocol_up() {
    let mut ends = ends(Side::Reference, 0.05);
    let mut said = [None, None];
    for step in 0..12 {
        let mut outputs = [None, None];
        for (i, frame) in light(step, 0.02).into_iter().enumerate() {
            let output = ends[i].module.step(Some(frame), said[1 - i].take()).unwrap();
            outputs[i] = Some(PeerInput { payload: output.payload.into(), authenticated: output.close_round });
        }
        said = outputs;
    }
    for end in &mut ends {
        let voided = end.module.void();
        assert_eq!(voided.iter().map(|(block, _)| *block).collect::<Vec<_>>(), [5, 6]);
        for (block, ledger) in voided {
            ledger.check().unwrap();
            assert!(
                ledger.get(Line::VOIDED) > 0 && ledger.get(Line::VOIDED) == ledger.get(Line::SIFTED_KEY),
                "block {block}"
            );
        }
    }
}
