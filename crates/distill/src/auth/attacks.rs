//! Two endpoints with an attacker, a bad line or crashes between them.

#![allow(clippy::unwrap_used)]

mod apart;
mod reserves;

use std::collections::VecDeque;

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::frame::Kind;
use super::*;
use crate::bits::Bits;

/// Pads without end, each a function of its place.
struct Endless {
    side: Side,
    send: u64,
    receive: u64,
    key: Option<MaskKey>,
    rolled_back: bool,
}

fn cell(direction: Direction, place: Option<u64>) -> Cell {
    let mut x = place.unwrap().wrapping_mul(2).wrapping_add(u64::from(direction == Direction::Forward)) + 77;
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        half.copy_from_slice(&(z ^ z >> 31).to_le_bytes());
    }
    Cell::new(bytes)
}

impl Reserve for Endless {
    fn layout(&self) -> Layout {
        Layout::new(5)
    }
    fn next_send(&self) -> u64 {
        self.send
    }
    fn next_receive(&self) -> u64 {
        self.receive
    }
    fn remaining_send(&self) -> u64 {
        1
    }
    fn remaining_receive(&self) -> u64 {
        1
    }
    fn hash_key(&self, direction: Direction, tag: u64) -> Result<Cell, ReserveError> {
        Ok(cell(direction, self.layout().hash_cell(tag)))
    }
    fn take_send(&mut self, tag: u64) -> Result<Cell, ReserveError> {
        assert!(tag >= self.send, "pad {tag} would be used twice");
        self.send = tag + 1;
        Ok(cell(self.side.direction(), self.layout().pad_cell(tag)))
    }
    fn pad_to_verify(&self, tag: u64) -> Result<Cell, ReserveError> {
        assert!(tag >= self.receive, "pad {tag} would verify twice");
        Ok(cell(self.side.other().direction(), self.layout().pad_cell(tag)))
    }
    fn verified(&mut self, tag: u64) -> Result<(), ReserveError> {
        assert!(tag >= self.receive, "tag {tag} has verified twice");
        self.receive = tag + 1;
        Ok(())
    }
    fn mask_key(&self) -> Option<&MaskKey> {
        self.key.as_ref()
    }
    fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }
    fn roll_back(&mut self, _: &str) -> Result<(), ReserveError> {
        self.rolled_back = true;
        Ok(())
    }
    fn generation(&self) -> u64 {
        0
    }
    fn marks(&self) -> Vec<Mark> {
        vec![Mark { bits: 0, next_block: 0 }]
    }
    fn append(&mut self, _: u64, _: &Bits) -> Result<(), ReserveError> {
        Ok(())
    }
    fn align(&mut self, peer: &[Mark]) -> Result<(), ReserveError> {
        if peer == self.marks() { Ok(()) } else { Err(ReserveError::Diverged(String::new())) }
    }
}

/// What a module said and heard in the session at hand.
#[derive(Default)]
struct Module {
    open: bool,
    hello: Bytes,
    peer_hello: Bytes,
    said: Vec<Bytes>,
    heard: Vec<Bytes>,
    verified: u64,
    closed: Vec<CloseReason>,
    unfit: Vec<Misfit>,
}

/// Both ends, both modules and the line between. Index 0 is the initiator.
struct World<R> {
    ends: [Endpoint<R>; 2],
    modules: [Module; 2],
    /// Frames on their way to each end.
    line: [VecDeque<Bytes>; 2],
    random: StdRng,
    /// Steps of a round, and at which of them each module closes it.
    steps: u64,
    closes: [u64; 2],
    /// Whether each module stays as it is for as long as the other has a session with it.
    lasting: bool,
}

fn endless() -> [Endpoint<Endless>; 2] {
    [Side::Initiator, Side::Responder]
        .map(|side| Endpoint::new(EndpointConfig { side }, Endless::new(side, 0, 0, Some(MaskKey::new([3; 32])))))
}

impl Endless {
    fn new(side: Side, send: u64, receive: u64, key: Option<MaskKey>) -> Self {
        Self { side, send, receive, key, rolled_back: false }
    }
}

impl<R: Reserve> World<R> {
    fn new(ends: [Endpoint<R>; 2], seed: u64) -> Self {
        println!("seed {seed}");
        let random = StdRng::seed_from_u64(seed);
        Self {
            ends,
            modules: Default::default(),
            line: Default::default(),
            random,
            steps: 3,
            closes: [1, 2],
            lasting: true,
        }
    }

    fn open(&mut self, end: usize) {
        let hello = Bytes::from(self.random.random::<[u8; 8]>().to_vec());
        let nonce = self.random.random_range(1..u64::MAX);
        self.modules[end] = Module { hello: hello.clone(), ..Module::default() };
        let actions = self.ends[end].open(nonce, &hello).unwrap();
        self.act(end, actions);
    }

    fn act(&mut self, end: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(frame) => self.line[1 - end].push_back(frame),
                Action::Opened { peer_hello, .. } => {
                    self.modules[end].open = true;
                    self.modules[end].peer_hello = peer_hello;
                }
                Action::Delivered { step, payload, authenticated } => {
                    assert_eq!(step, self.modules[end].heard.len() as u64);
                    self.modules[end].heard.push(payload);
                    if authenticated {
                        self.modules[end].verified += 1;
                        if self.lasting {
                            self.check(end);
                        }
                    }
                }
                Action::Closed(reason) => {
                    self.modules[end].closed.push(reason);
                    self.modules[end].open = false;
                }
                Action::Unfit(misfit) => self.modules[end].unfit.push(misfit),
                Action::Refilled { .. } | Action::Refused(_) | Action::Failed(_) => {}
            }
        }
    }

    /// Whatever counts as authentic must be what the other module really said, and said in this session.
    fn check(&self, end: usize) {
        let (own, other) = (&self.modules[end], &self.modules[1 - end]);
        assert_eq!(own.peer_hello, other.hello, "forged hello accepted");
        assert_eq!(own.heard[..], other.said[..own.heard.len()], "forgery accepted");
        assert_eq!(other.peer_hello, own.hello, "the peer authenticated another hello");
        let known = own.heard.len() - 1;
        assert_eq!(other.heard[..known], own.said[..known], "the peer authenticated what was not said");
    }

    /// Lets each module say what it can.
    /// Brings the next frame to an end, if there is one on the way.
    fn deliver(&mut self, end: usize) -> bool {
        let Some(frame) = self.line[end].pop_front() else { return false };
        let actions = self.ends[end].receive(&frame);
        self.act(end, actions);
        true
    }

    fn speak(&mut self) {
        for end in 0..2 {
            let module = &self.modules[end];
            let step = module.said.len() as u64;
            if !module.open || step >= self.steps || step > module.heard.len() as u64 {
                continue;
            }
            let length = self.random.random_range(0..40);
            let payload: Bytes = (0..length).map(|_| self.random.random::<u8>()).collect();
            self.modules[end].said.push(payload.clone());
            let close = step == self.closes[end];
            let actions = self.ends[end].send(step, payload, close).unwrap();
            self.act(end, actions);
        }
    }

    fn done(&self) -> bool {
        let complete = |module: &Module| module.heard.len() as u64 == self.steps;
        self.modules.iter().all(complete) || self.modules.iter().any(|module| !module.closed.is_empty())
    }

    /// Runs a round while `line` decides what becomes of each frame on its way to an end.
    fn round(&mut self, mut line: impl FnMut(&mut StdRng, usize, Bytes) -> Vec<Bytes>) {
        self.line = Default::default();
        self.open(0);
        self.open(1);
        let mut stalls = 0;
        while !self.done() {
            self.speak();
            let mut moved = false;
            for end in 0..2 {
                if let Some(frame) = self.line[end].pop_front() {
                    moved = true;
                    for frame in line(&mut self.random, end, frame) {
                        let actions = self.ends[end].receive(&frame);
                        self.act(end, actions);
                    }
                }
            }
            if !moved && !self.done() {
                stalls += 1;
                assert!(stalls < 200, "the session does not come forward");
                for end in 0..2 {
                    if self.ends[end].waits() {
                        self.line[1 - end].extend(self.ends[end].on_stall());
                    }
                }
            }
        }
    }
}

#[test]
fn honest_rounds_verify_in_both_directions() {
    let mut world = World::new(endless(), 1);
    for closes in [[1, 2], [2, 1], [2, 2], [0, 0], [0, 1]] {
        world.closes = closes;
        for _ in 0..50 {
            world.round(|_, _, frame| vec![frame]);
            assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
        }
    }
    for end in &world.ends {
        assert_eq!((end.counters().tags_mismatched, end.counters().refused()), (0, 0));
    }
}

#[test]
fn several_rounds_of_one_session_verify() {
    let mut world = World::new(endless(), 2);
    world.steps = 40;
    world.open(0);
    world.open(1);
    while !world.done() {
        // Every bundle of both sides carries a tag.
        world.closes = world.modules.each_ref().map(|module| module.said.len() as u64);
        world.speak();
        for end in 0..2 {
            world.deliver(end);
        }
    }
    assert_eq!(world.modules.each_ref().map(|module| module.verified), [40, 40]);
}

/// A line that loses, repeats, delays and reorders but forges nothing costs no session.
#[test]
fn a_bad_line_is_survived() {
    let mut world = World::new(endless(), 3);
    world.steps = 6;
    world.closes = [4, 5];
    for _ in 0..2000 {
        let mut late = [None, None];
        world.round(|random, end, frame| match random.random_range(0..10) {
            0 => vec![],
            1 => vec![frame.clone(), frame],
            2 => late[end].replace(frame).into_iter().collect(),
            3 => std::iter::once(frame).chain(late[end].take()).collect(),
            _ => vec![frame],
        });
        assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
    }
    assert!(world.ends.iter().all(|end| end.counters().tags_mismatched == 0 && end.counters().refused() > 100));
}

/// Noise and old frames beside the true ones are refused and counted.
#[test]
fn foreign_frames_do_not_end_a_session() {
    let mut world = World::new(endless(), 4);
    let mut old: Vec<Bytes> = Vec::new();
    for _ in 0..2000 {
        let mut seen = Vec::new();
        world.round(|random, _, frame| {
            let mut frames = vec![frame.clone()];
            if !old.is_empty() {
                frames.insert(random.random_range(0..2), old[random.random_range(0..old.len())].clone());
            }
            let noise: Vec<u8> = (0..random.random_range(0..60)).map(|_| random.random()).collect();
            frames.insert(0, noise.into());
            seen.push(frame);
            frames
        });
        assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
        old = seen;
    }
}

/// One manipulation of one frame; `past` and `other` are what the attacker recorded: frames of earlier sessions and
/// the latest of this one by direction.
fn manipulate(
    random: &mut StdRng,
    bytes: &Bytes,
    past: &[Bytes],
    other: &[Option<Frame>; 2],
    end: usize,
) -> Vec<Bytes> {
    let mut frame = Frame::decode(bytes).unwrap();
    let recorded = past.get(random.random_range(0..past.len().max(1))).map(|bytes| Frame::decode(bytes).unwrap());
    let mut before = Vec::new();
    match random.random_range(0..14) {
        0 | 1 => frame.payload = flipped(random, &frame.payload),
        2 => frame.payload = frame.payload.slice(..frame.payload.len() / 2),
        3 => frame.payload = frame.payload.iter().copied().chain([random.random::<u8>() & 1]).collect(),
        // Reflection: what this end itself said last, as if the peer had said it.
        4 => {
            if let Some(own) = &other[1 - end] {
                (frame.payload, frame.tag) = (own.payload.clone(), own.tag.or(frame.tag));
            }
        }
        // The step before once more in place of this one.
        5 => {
            if let Some(last) = &other[end] {
                frame.payload = last.payload.clone();
            }
        }
        // An old round, dressed up as this one.
        6 | 7 => {
            if let Some(old) = recorded.filter(|old| old.kind == frame.kind) {
                let number = frame.tag.map(|tag| tag.number);
                frame.payload = old.payload;
                frame.tag = old.tag.map(|tag| TagField { number: number.unwrap_or(tag.number), ..tag });
            }
        }
        8 => {
            if let Some(tag) = &mut frame.tag {
                tag.tag[random.random_range(0..16)] ^= 1 << random.random_range(0..8);
            }
        }
        // The tag of another round or direction.
        9 => {
            if let (Some(tag), Some(old)) = (&mut frame.tag, recorded.and_then(|old| old.tag)) {
                tag.tag = old.tag;
            }
        }
        10 => frame.tag = None,
        11 if frame.kind == Kind::Bundle => {
            let number = frame.tag.map_or_else(|| random.random_range(0..100), |tag| tag.number);
            frame.tag = Some(TagField { number, tag: random.random() });
        }
        // Before the true frame a forged one, which takes its place.
        12 => {
            let payload = flipped(random, &frame.payload);
            before.push(Frame { payload, ..frame.clone() }.encode());
        }
        _ => match random.random_range(0..4) {
            0 => frame.step ^= 1 << random.random_range(0..64),
            1 => frame.session ^= 1 << random.random_range(0..64),
            2 => {
                if let Some(tag) = &mut frame.tag {
                    tag.number = tag.number.wrapping_add(random.random_range(0..3)).wrapping_sub(1);
                }
            }
            _ => {
                let mut raw = bytes.to_vec();
                raw[random.random_range(0..bytes.len())] ^= 1 << random.random_range(0..8);
                return vec![raw.into()];
            }
        },
    }
    before.push(frame.encode());
    before
}

fn flipped(random: &mut StdRng, payload: &Bytes) -> Bytes {
    if payload.is_empty() {
        return Bytes::from(vec![random.random::<u8>()]);
    }
    let mut payload = payload.to_vec();
    let at = random.random_range(0..payload.len());
    payload[at] ^= 1 << random.random_range(0..8);
    payload.into()
}

/// Well-formed manipulations that get as far as the tag: none is accepted. `QKDNET_SOAK_ATTACKS` asks for more.
#[test]
fn no_manipulation_that_reaches_the_tag_is_accepted() {
    let wanted: u64 = std::env::var("QKDNET_SOAK_ATTACKS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    // In the older form, whose greetings have no check: more of what is forged gets as far as a tag.
    let ends = [Side::Initiator, Side::Responder]
        .map(|side| Endpoint::new(EndpointConfig { side }, Endless::new(side, 0, 0, None)));
    let mut world = World::new(ends, 5);
    let mut past: Vec<Bytes> = Vec::new();
    let (mut reached, mut rounds, mut ended_otherwise) = (0, 0u64, 0u64);
    while reached < wanted {
        rounds += 1;
        world.closes = [rounds % 3, (rounds / 3) % 3];
        let victim = world.random.random_range(0..10);
        let mut count = 0;
        let mut latest: [Option<Frame>; 2] = [None, None];
        let mut seen = Vec::new();
        world.round(|random, end, frame| {
            count += 1;
            let out =
                if count == victim + 1 { manipulate(random, &frame, &past, &latest, end) } else { vec![frame.clone()] };
            latest[end] = Some(Frame::decode(&frame).unwrap());
            seen.push(frame);
            out
        });
        let mismatched: u64 = world.ends.iter().map(|end| end.counters().tags_mismatched).sum();
        let closed = world.modules.iter().any(|module| !module.closed.is_empty());
        ended_otherwise += u64::from(closed && mismatched == reached);
        reached = mismatched;
        if rounds % 16 == 1 {
            past = seen;
        }
    }
    println!("{rounds} rounds, {reached} reached a tag, {ended_otherwise} ended otherwise, none accepted");
    assert!(rounds < 10 * wanted);
}

#[test]
fn the_lockstep_is_kept() {
    let mut world = World::new(endless(), 7);
    assert_eq!(world.ends[0].send(0, Bytes::new(), false), Err(SendError::NotOpen));
    world.steps = 0;
    world.open(0);
    world.open(1);
    for end in [1, 0, 1, 0, 1, 0] {
        world.deliver(end);
    }
    assert!(world.modules.iter().all(|module| module.open));
    assert_eq!(world.ends[0].send(1, Bytes::new(), false), Err(SendError::Step { step: 1, expected: 0 }));
    world.ends[0].send(0, Bytes::new(), false).unwrap();
    assert_eq!(world.ends[0].send(1, Bytes::new(), false), Err(SendError::AheadOfPeer(1)));
    let long = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
    assert_eq!(world.ends[1].send(0, long, false), Err(SendError::TooLong(MAX_PAYLOAD + 1)));
}

#[test]
fn a_module_that_opens_anew_ends_the_session_at_the_other_end() {
    let mut world = World::new(endless(), 8);
    world.round(|_, _, frame| vec![frame]);
    // The notice of the end is lost; only the new hello arrives.
    world.open(0);
    world.line[1].pop_front();
    for _ in 0..10 {
        for end in 0..2 {
            world.deliver(end);
        }
    }
    assert_eq!(world.modules[1].closed, [CloseReason::PeerRestarted]);
    world.round(|_, _, frame| vec![frame]);
    assert_eq!(world.modules.each_ref().map(|module| module.verified), [1, 1]);
}
