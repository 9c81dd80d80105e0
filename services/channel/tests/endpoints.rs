//! Two endpoints with modules, a line that listens in, faults on it, and crashes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use channel::{BUNDLES_IN_FLIGHT, Handle, ModuleStream, PeerStream};
use distill::auth::frame::Kind;
use distill::auth::{Frame, refill_bits};
use distill::bits::Bits;
use futures::future::BoxFuture;
use proto::channel::v1::channel_message::Message as Heard;
use proto::channel::v1::module_message::Message as Said;
use proto::channel::v1::{
    Bundle, ChannelMessage, CloseReason, ModuleMessage, Open, PeerFrame, Refill, channel_message,
};
use proto::fault::v1::AttackKind;
use shell::dial::{Dial, MemoryDial};
use shell::duplex::Duplex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use topology::plan::{ChannelConfig, Speed};
use zeroize::Zeroizing;

/// Only what hangs waits so long: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(300);
const TAGS_PER_HASH_KEY: u64 = 4;
/// Steps of a round; each side closes it at one of them.
const ROUND: u64 = 4;

fn config(initiates: bool, faults_allowed: bool) -> ChannelConfig {
    let sites = ["valrose", "sophia"];
    let (own, other) = if initiates { (sites[0], sites[1]) } else { (sites[1], sites[0]) };
    ChannelConfig {
        name: format!("channel-{own}"),
        link: "valrose-sophia".to_owned(),
        site: own.to_owned(),
        peer_site: other.to_owned(),
        initiates,
        peer: format!("channel-{other}"),
        module: format!("detector-{own}"),
        delay_ps: 30_000_000_000,
        speed: Speed::Max,
        reserve_bits: 128 * 60,
        tags_per_hash_key: TAGS_PER_HASH_KEY,
        faults_allowed,
        accepts: vec![],
    }
}

/// Every tag that was ever on the line, by secret, direction and number.
#[derive(Default)]
struct Tap {
    tags: Mutex<BTreeMap<(u64, bool, u64), [u8; 16]>>,
    /// The secret that each direction's last greeting is about.
    generations: Mutex<[u64; 2]>,
    /// Instead of ending the run, where the test counts them.
    twice: AtomicU64,
}

impl Tap {
    fn listen(&self, forward: bool, frame: &PeerFrame) {
        let Ok(frame) = Frame::decode(&frame.frame) else { return };
        let generation = &mut self.generations.lock().unwrap()[usize::from(forward)];
        if frame.kind == Kind::Hello {
            *generation = u64::from_le_bytes(frame.payload[16..24].try_into().unwrap());
            return;
        }
        let Some(tag) = frame.tag else { return };
        let before = self.tags.lock().unwrap().insert((*generation, forward, tag.number), tag.tag);
        if before.is_some_and(|before| before != tag.tag) {
            println!("pad {} of {forward} was used twice", tag.number);
            self.twice.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn count(&self) -> usize {
        self.tags.lock().unwrap().len()
    }

    fn numbers(&self, forward: bool) -> Vec<u64> {
        self.tags.lock().unwrap().keys().filter(|key| key.1 == forward).map(|key| key.2).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.tap.twice.load(Ordering::SeqCst), 0, "pads were used twice");
        }
    }
}

/// Dials through the tap.
struct TappedDial {
    line: MemoryDial<PeerFrame, PeerFrame>,
    tap: Arc<Tap>,
}

impl Dial<PeerFrame, PeerFrame> for TappedDial {
    fn dial(&self) -> BoxFuture<'_, Result<PeerStream>> {
        Box::pin(async move {
            let far = self.line.dial().await?;
            let (near, inner) = Duplex::pair(BUNDLES_IN_FLIGHT);
            for (forward, mut rx, tx) in [(true, inner.rx, far.tx), (false, far.rx, inner.tx)] {
                let tap = self.tap.clone();
                tokio::spawn(async move {
                    while let Some(frame) = rx.recv().await {
                        tap.listen(forward, &frame);
                        if tx.send(frame).await.is_err() {
                            break;
                        }
                    }
                });
            }
            Ok(near)
        })
    }
}

/// What a test module has seen.
#[derive(Default)]
struct Progress {
    rounds: AtomicU64,
    sessions: AtomicU64,
    closed: Mutex<Vec<CloseReason>>,
    blocks: AtomicU64,
    /// How often it was told that the two ends' reserves differ.
    differ: AtomicU64,
}

struct World {
    folder: tempfile::TempDir,
    tap: Arc<Tap>,
    progress: [Arc<Progress>; 2],
    ends: [Option<End>; 2],
    /// Where the initiator finds the responder, whichever one runs.
    responder: Arc<Mutex<mpsc::Sender<PeerStream>>>,
    faults_allowed: bool,
    speed: Speed,
    /// Each end's own.
    anchors: [Arc<dyn anchor::Anchor>; 2],
}

struct End {
    handle: Handle,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

/// Follows the responder through restarts.
struct CurrentDial {
    responder: Arc<Mutex<mpsc::Sender<PeerStream>>>,
    tap: Arc<Tap>,
}

impl Dial<PeerFrame, PeerFrame> for CurrentDial {
    fn dial(&self) -> BoxFuture<'_, Result<PeerStream>> {
        let listener = self.responder.lock().unwrap().clone();
        let dial = TappedDial { line: MemoryDial::new(listener, BUNDLES_IN_FLIGHT), tap: self.tap.clone() };
        Box::pin(async move { dial.dial().await })
    }
}

impl World {
    fn new(reserve_bits: u64, faults_allowed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = channel::new_secret(reserve_bits).unwrap();
        for site in ["valrose", "sophia"] {
            let path = channel::secret_path(folder.path(), site, "valrose-sophia");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, secret.as_slice()).unwrap();
        }
        let responder = Arc::new(Mutex::new(mpsc::channel(1).0));
        Self {
            folder,
            tap: Arc::default(),
            progress: Default::default(),
            ends: [None, None],
            responder,
            faults_allowed,
            speed: Speed::Max,
            anchors: [Arc::new(anchor::MemoryAnchor::default()), Arc::new(anchor::MemoryAnchor::default())],
        }
    }

    fn data(&self) -> &Path {
        self.folder.path()
    }

    /// Starts endpoint and module of one side; 0 initiates.
    fn start(&mut self, side: usize) {
        let config = ChannelConfig { speed: self.speed, ..config(side == 0, self.faults_allowed) };
        let end = channel::open(&config, self.data(), None, self.anchors[side].clone()).unwrap();
        let handle = end.handle();
        let (modules_tx, modules) = mpsc::channel::<ModuleStream>(4);
        let (peers_tx, peers) = mpsc::channel::<PeerStream>(4);
        if side == 1 {
            *self.responder.lock().unwrap() = peers_tx.clone();
        }
        let dial = Arc::new(CurrentDial { responder: self.responder.clone(), tap: self.tap.clone() });
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                let _listening = peers_tx;
                channel::run(end, modules, peers, dial, stop).await.unwrap();
            }
        });
        let module = tokio::spawn(module(side, MemoryDial::new(modules_tx, 3), self.progress[side].clone()));
        self.ends[side] = Some(End { handle, tasks: vec![task, module], stop });
    }

    /// Drops endpoint and module where they stand, as a crash would.
    async fn kill(&mut self, side: usize) {
        for task in self.ends[side].take().unwrap().tasks {
            task.abort();
            let _ = task.await;
        }
    }

    fn handle(&self, side: usize) -> &Handle {
        &self.ends[side].as_ref().unwrap().handle
    }

    fn rounds(&self) -> [u64; 2] {
        self.progress.each_ref().map(|progress| progress.rounds.load(Ordering::SeqCst))
    }

    /// Waits until both modules have seen this many more rounds authenticated.
    async fn advance(&self, rounds: u64) {
        let target = self.rounds().map(|seen| seen + rounds);
        self.wait(|world| world.rounds().iter().zip(target).all(|(seen, target)| *seen >= target)).await;
    }

    async fn wait(&self, condition: impl Fn(&Self) -> bool) {
        let waited = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let status = || self.ends.each_ref().map(|e| e.as_ref().map(|e| e.handle.status().figures()));
        tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("stuck: {:?}", status()));
    }

    fn closed(&self, side: usize, reason: CloseReason) -> bool {
        self.progress[side].closed.lock().unwrap().contains(&reason)
    }
}

/// Opens sessions for ever and talks in them, a tag per round; the key of a round refills the reserve.
async fn module(side: usize, dial: MemoryDial<ModuleMessage, ChannelMessage>, progress: Arc<Progress>) {
    loop {
        if let Ok(stream) = dial.dial().await {
            session(side, stream, &progress).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn session(side: usize, mut stream: Duplex<ModuleMessage, ChannelMessage>, progress: &Progress) -> Option<()> {
    let blocks = progress.blocks.load(Ordering::SeqCst);
    say(&stream, Said::Open(Open { hello: Bytes::copy_from_slice(&blocks.to_le_bytes()) })).await?;
    let Heard::Opened(opened) = hear(&mut stream, progress).await? else { return None };
    progress.sessions.fetch_add(1, Ordering::SeqCst);
    let peer_blocks = u64::from_le_bytes(opened.peer_hello[..].try_into().unwrap());
    let mut block = blocks.max(peer_blocks);
    for step in 0.. {
        let payload = Bytes::from(vec![side as u8 + 1; (step % 50) as usize * 100]);
        let close_round = step % ROUND == ROUND - 1 - side as u64;
        say(&stream, Said::Bundle(Bundle { step, payload, close_round })).await?;
        let delivered = loop {
            match hear(&mut stream, progress).await? {
                Heard::Delivered(delivered) => break delivered,
                Heard::Refilled(_) => {}
                _ => return None,
            }
        };
        assert_eq!(delivered.step, step);
        let expected = step % ROUND == ROUND - 1 - (1 - side as u64);
        if delivered.authenticated != expected {
            // Somebody has taken the tag off: what was said cannot be trusted.
            return None;
        }
        if delivered.authenticated {
            assert_eq!(delivered.payload.len(), (step % 50) as usize * 100);
            assert!(delivered.payload.iter().all(|byte| *byte == 2 - side as u8), "a forgery was authenticated");
            let bits = refill_bits(TAGS_PER_HASH_KEY) as usize;
            let key = Bits::from_words((0..bits.div_ceil(64) as u64).map(|i| (block + 1) << 8 | i).collect(), bits);
            say(&stream, Said::Refill(Refill { block, key: key.to_bytes().into() })).await?;
            block += 1;
            progress.blocks.store(block, Ordering::SeqCst);
            progress.rounds.fetch_add(1, Ordering::SeqCst);
        }
    }
    None
}

async fn say(stream: &Duplex<ModuleMessage, ChannelMessage>, message: Said) -> Option<()> {
    stream.send(ModuleMessage { message: Some(message) }).await.ok()
}

async fn hear(
    stream: &mut Duplex<ModuleMessage, ChannelMessage>,
    progress: &Progress,
) -> Option<channel_message::Message> {
    let heard = loop {
        match tokio::time::timeout(Duration::from_secs(20), stream.receive()).await.ok()??.message? {
            Heard::ReservesDiffer(_) => drop(progress.differ.fetch_add(1, Ordering::SeqCst)),
            heard => break heard,
        }
    };
    if let Heard::Closed(closed) = &heard {
        progress.closed.lock().unwrap().push(closed.reason());
        return None;
    }
    Some(heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_are_authenticated_and_the_reserve_lasts() {
    let mut world = World::new(128 * 20, false);
    world.start(0);
    world.start(1);
    world.advance(100).await;
    for side in 0..2 {
        let status = world.handle(side).status().figures();
        assert!(status.reserve_tags_send >= 12 && status.reserve_tags_receive >= 12, "{status:?}");
        assert_eq!((status.tags_mismatched, world.progress[side].sessions.load(Ordering::SeqCst)), (0, 1));
    }
    assert!(world.tap.count() >= 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_survived_and_none_is_accepted() {
    let mut world = World::new(128 * 400, true);
    world.start(0);
    world.start(1);
    for kind in [
        AttackKind::Tamper,
        AttackKind::Inject,
        AttackKind::Replay,
        AttackKind::Reorder,
        AttackKind::Drop,
        AttackKind::Delay,
    ] {
        for side in 0..2 {
            world.advance(1).await;
            let faults = world.handle(side).faults().unwrap();
            let hit = faults.hit();
            faults.order(kind, 1, Duration::from_millis(30));
            world.wait(|world| world.handle(side).faults().unwrap().hit() > hit).await;
            world.advance(3).await;
        }
    }
    let mismatched: u64 = (0..2).map(|side| world.handle(side).status().figures().tags_mismatched).sum();
    assert!(mismatched >= 2, "tampering and injection reach a tag");
    assert!(world.closed(0, CloseReason::TagMismatch) && world.closed(1, CloseReason::TagMismatch));
    let refused: u64 = (0..2).map(|side| world.handle(side).status().figures().frames_refused).sum();
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_not_there_unless_the_topology_allows_them() {
    let mut world = World::new(128 * 20, false);
    world.start(0);
    assert!(world.handle(0).faults().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pad_is_used_twice_across_crashes() {
    let mut world = World::new(128 * 400, false);
    world.start(0);
    world.start(1);
    for crash in 0..12u64 {
        world.advance(1 + crash % 3).await;
        tokio::time::sleep(Duration::from_micros(crash * 370)).await;
        let side = (crash % 2) as usize;
        world.kill(side).await;
        if crash % 3 == 2 {
            world.kill(1 - side).await;
            world.start(1 - side);
        }
        world.start(side);
    }
    world.advance(5).await;
    assert!(world.tap.count() >= 30);
    for side in 0..2 {
        let status = world.handle(side).status().figures();
        assert_eq!(status.tags_mismatched, 0, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_leaves_ends_the_session_at_the_other_end_too() {
    let mut world = World::new(128 * 60, false);
    world.start(0);
    world.start(1);
    world.advance(1).await;
    world.ends[1].as_ref().unwrap().tasks[1].abort();
    world.wait(|world| world.closed(0, CloseReason::PeerLeft)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_stops_says_so() {
    let mut world = World::new(128 * 60, false);
    world.start(0);
    world.start(1);
    world.advance(1).await;
    world.ends[1].as_ref().unwrap().stop.cancel();
    world.wait(|world| world.closed(0, CloseReason::PeerLeft)).await;
    world.kill(1).await;
    world.start(1);
    world.advance(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_time_is_paced_frames_take_the_fibres_delay_and_at_full_speed_they_do_not() {
    let mut took = Vec::new();
    for speed in [Speed::Max, Speed::RealTime(2.0)] {
        let mut world = World::new(128 * 60, false);
        world.speed = speed;
        world.start(0);
        world.start(1);
        world.advance(1).await;
        let started = std::time::Instant::now();
        world.advance(10).await;
        took.push(started.elapsed());
    }
    // Ten rounds are forty steps in lockstep, each of them at least one way: 30 ms of fibre at double speed. The
    // first and the last step of the count may have been under way.
    let least = Duration::from_millis(15) * (10 * ROUND as u32 - 2);
    assert!(took[1] >= least, "{took:?}, at least {least:?}");
    assert!(took[0] < least, "{took:?}, less than {least:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_reserve_is_said_and_a_fresh_secret_revives_it() {
    let mut world = World::new(128 * 5, true);
    world.start(0);
    world.start(1);
    world.advance(1).await;
    assert!(world.handle(0).rekey(channel::new_secret(1280).unwrap()).await.is_err(), "a session is open");
    // Rounds that are spoilt are not paid for by any key.
    let spoil = async {
        loop {
            world.handle(0).faults().unwrap().order(AttackKind::Tamper, 1, Duration::ZERO);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let exhausted = world.wait(|world| {
        (0..2).any(|side| world.closed(side, CloseReason::ReserveExhausted))
            && world.handle(0).status().figures().session == 0
    });
    tokio::select! {
        () = spoil => {}
        () = exhausted => {}
    }
    let secret = channel::new_secret(128 * 300).unwrap();
    for side in 0..2 {
        while world.handle(side).rekey(Zeroizing::new(secret.to_vec())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let again = world.handle(side).rekey(Zeroizing::new(secret.to_vec())).await;
        assert!(again.is_err(), "the same secret twice");
    }
    world.advance(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_peers_and_modules_do_no_harm() {
    let folder = World::new(128 * 20, false);
    let end = channel::open(&config(false, false), folder.data(), None, Arc::new(anchor::Unanchored)).unwrap();
    let handle = end.handle();
    let (modules_tx, modules) = mpsc::channel::<ModuleStream>(4);
    let (peers_tx, peers) = mpsc::channel::<PeerStream>(4);
    let nowhere = Arc::new(MemoryDial::new(mpsc::channel(1).0, 1));
    let stop = CancellationToken::new();
    let task = tokio::spawn(channel::run(end, modules, peers, nowhere, stop.clone()));
    let module = MemoryDial::new(modules_tx, 3).dial().await.unwrap();
    say(&module, Said::Open(Open { hello: Bytes::new() })).await.unwrap();
    let peer = MemoryDial::new(peers_tx, 3).dial().await.unwrap();
    for length in 0..300usize {
        let frame: Vec<u8> = (0..length).map(|i| (i * 37 + length) as u8).collect();
        peer.send(PeerFrame { frame: frame.into() }).await.unwrap();
    }
    let waited = async {
        while handle.status().figures().frames_refused < 300 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap();
    say(&module, Said::Bundle(Bundle { step: 77, payload: Bytes::new(), close_round: true })).await.unwrap();
    assert!(!task.is_finished());
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_with_different_secrets_say_so_cost_nothing_and_meet_once_they_have_the_same() {
    let mut world = World::new(128 * 400, false);
    let other = channel::secret_path(world.data(), "sophia", "valrose-sophia");
    std::fs::write(other, channel::new_secret(128 * 400).unwrap()).unwrap();
    world.start(0);
    world.start(1);
    let differ = |world: &World, side: usize| !world.handle(side).status().figures().reserves_differ.is_empty();
    world.wait(|world| (0..2).all(|side| differ(world, side))).await;
    let told = |world: &World| world.progress.each_ref().map(|end| end.differ.load(Ordering::SeqCst));
    world.wait(|world| told(world) == [1, 1]).await;
    let tags = || (0..2).map(|side| world.handle(side).status().figures().reserve_tags_send).collect::<Vec<_>>();
    let (before, refused) = (tags(), world.handle(0).status().figures().frames_refused);
    // They go on greeting, slowly.
    world.wait(|world| world.handle(0).status().figures().frames_refused > refused).await;
    assert_eq!((tags(), world.rounds(), told(&world), world.tap.count()), (before, [0, 0], [1, 1], 0));
    let fresh = channel::new_secret(128 * 300).unwrap();
    for side in 0..2 {
        world.handle(side).rekey(Zeroizing::new(fresh.to_vec())).await.unwrap();
    }
    world.advance(3).await;
    assert!((0..2).all(|side| !differ(&world, side)));
}

/// The reserve of an end, as a backup of its volume has it.
fn reserve_file(world: &World, side: usize) -> std::path::PathBuf {
    channel::reserve_path(world.data(), ["valrose", "sophia"][side], "valrose-sophia")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_put_back_is_named_at_both_ends_and_a_fresh_secret_mends_it() {
    // Told by the anchor, and without one by the peer.
    for anchored in [true, false] {
        let mut world = World::new(128 * 400, false);
        if !anchored {
            world.anchors = [Arc::new(anchor::Unanchored), Arc::new(anchor::Unanchored)];
        }
        world.start(0);
        world.start(1);
        world.advance(2).await;
        let backup = std::fs::read(reserve_file(&world, 1)).unwrap();
        world.advance(12).await;
        for side in 0..2 {
            world.kill(side).await;
        }
        std::fs::write(reserve_file(&world, 1), backup).unwrap();
        for side in 0..2 {
            world.start(side);
        }
        world.wait(|world| (0..2).all(|side| world.closed(side, CloseReason::RolledBack))).await;
        let tags = || (0..2).map(|side| world.handle(side).status().figures().reserve_tags_send).collect::<Vec<_>>();
        let (before, rounds) = (tags(), world.rounds());
        for side in 0..2 {
            let told = world.handle(side).status().figures().rolled_back.unwrap();
            assert_eq!((&told.site[..], &told.store[..]), ("sophia", "authentication reserve of valrose-sophia"));
            assert!(told.since_ms > 0 && told.message.contains("`qkdnet rekey`"), "{told:?}");
        }
        // Modules ask again and again: nothing is spent, and nothing begins.
        let closed = |world: &World| world.progress[0].closed.lock().unwrap().len();
        let asked = closed(&world);
        world.wait(|world| closed(world) > asked + 20).await;
        assert_eq!((tags(), world.rounds()), (before, rounds));
        let secret = channel::new_secret(128 * 300).unwrap();
        for side in 0..2 {
            world.handle(side).rekey(Zeroizing::new(secret.to_vec())).await.unwrap();
        }
        world.advance(3).await;
        for side in 0..2 {
            assert_eq!(world.handle(side).status().figures().rolled_back, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_good_order_costs_no_tag_and_a_crash_at_most_a_chunk() {
    let mut world = World::new(128 * 400, false);
    world.start(0);
    world.start(1);
    world.advance(3).await;
    let next = |world: &World| world.tap.numbers(true).into_iter().max().unwrap() + 1;
    let End { stop, tasks, .. } = world.ends[0].take().unwrap();
    let [endpoint, module] = tasks.try_into().unwrap();
    stop.cancel();
    endpoint.await.unwrap();
    module.abort();
    let before = next(&world);
    world.start(0);
    world.advance(1).await;
    let numbers = world.tap.numbers(true);
    assert!(numbers.iter().any(|number| *number == before || *number == before + 1), "{before}: {numbers:?}");
    world.kill(0).await;
    let before = next(&world);
    world.start(0);
    world.advance(1).await;
    let numbers = world.tap.numbers(true);
    assert!(numbers.iter().any(|number| (before..=before + channel::reserve::CHUNK).contains(number)), "{numbers:?}");
}

/// Backups of either end's reserve, put back at random: no pad is made twice, or a site is named before. Rounds that
/// `QKDNET_SOAK_RESTORES` asks for; the anchors are kept, as they are outside of what is put back.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_put_back_no_pad_is_made_twice() {
    let rounds: u64 = std::env::var("QKDNET_SOAK_RESTORES").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let seed = 11;
    println!("seed {seed}");
    let mut random = seed;
    let mut below = |n: u64| {
        random = u64::wrapping_mul(random, 0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % n
    };
    let mut world = World::new(128 * 400, false);
    world.start(0);
    world.start(1);
    let (mut backups, mut told) = ([Vec::new(), Vec::new()], 0);
    for round in 0..rounds {
        world.advance(1 + below(6)).await;
        for (side, kept) in backups.iter_mut().enumerate() {
            kept.push(std::fs::read(reserve_file(&world, side)).unwrap());
        }
        world.advance(below(12)).await;
        let put_back = [below(2) == 0, below(2) == 0];
        for side in 0..2 {
            world.kill(side).await;
            if put_back[side] {
                let age = below(backups[side].len().min(6) as u64) as usize;
                let backup = &backups[side][backups[side].len() - 1 - age];
                std::fs::write(reserve_file(&world, side), backup).unwrap();
            }
        }
        let before = world.rounds();
        for side in 0..2 {
            world.start(side);
        }
        let named = |world: &World| (0..2).any(|side| world.handle(side).status().figures().rolled_back.is_some());
        let flows = |world: &World| world.rounds().iter().zip(before).all(|(now, before)| *now > before + 1);
        world.wait(|world| flows(world) || named(world)).await;
        let named = named(&world);
        told += u64::from(named);
        assert!(!named || put_back != [false, false], "round {round}: nothing was put back");
        if named {
            let secret = channel::new_secret(128 * 400).unwrap();
            for side in 0..2 {
                world.handle(side).rekey(Zeroizing::new(secret.to_vec())).await.unwrap();
            }
        }
    }
    println!("{told} of {rounds} were told");
    world.advance(2).await;
    assert!(told > 0 && told < rounds);
}
