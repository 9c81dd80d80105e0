//! Drives the processes of two sites: carries what their key stores say to each other, is their applications and their
//! relay, and keeps account of every key and every pad.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::future::join_all;
use prost::Message as _;
use proto::kms::v1::{
    DeliverShare, Originate, RelayAnswer, RelayRequest, Release, Settle, relay_answer, relay_request::What,
};
use proto::relay::v1::Header;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::super::{PATIENCE, SITES};
use super::frame::{self, Frame, Kind};
use super::process;
use super::{FETCHED, FETCHES_PER_SECOND, GONE, KEY_BITS};
use crate::seal::Sealed;

const KEY_BYTES: usize = KEY_BITS as usize / 8;
const PULSE: Duration = Duration::from_millis(10);
/// Keys of one request.
const KEYS: u8 = (FETCHES_PER_SECOND as u128 * PULSE.as_millis() / 1000 / 2) as u8;
/// Requests under way at most: a machine that is slow is asked less.
const UNDER_WAY: usize = 32;
const SHARE_BYTES: usize = 64;
/// Keys that were fetched and are asked for again after each start.
const AGAIN: usize = 48;

type Id = [u8; 16];

/// The process of a site.
struct Process {
    said: mpsc::UnboundedSender<Frame>,
    connected: AtomicBool,
    answers: Mutex<Option<BTreeMap<u64, oneshot::Sender<Vec<u8>>>>>,
}

impl Process {
    /// Nothing once the process has gone.
    async fn ask(&self, kind: Kind, number: u64, body: impl Into<Vec<u8>>) -> Option<Vec<u8>> {
        let (tx, rx) = oneshot::channel();
        locked(&self.answers).as_mut()?.insert(number, tx);
        self.said.send(Frame::new(kind, number, body)).ok()?;
        rx.await.ok()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// What applications and relays know.
#[derive(Default)]
struct Book {
    keys: BTreeMap<Id, Vec<u8>>,
    seen: BTreeSet<Vec<u8>>,
    /// By the end that fetches, the latest last.
    fetched: [VecDeque<Id>; 2],
    /// Generation and start of the pads of each end's transfers.
    pads: [BTreeSet<(u32, u64)>; 2],
    wrong: Vec<String>,
}

struct Shared {
    folders: [TempDir; 2],
    ends: [Mutex<Option<Arc<Process>>>; 2],
    book: Mutex<Book>,
    numbers: AtomicU64,
    fetched: [AtomicU64; 2],
    relayed: [AtomicU64; 2],
    room: Arc<Semaphore>,
    /// Nobody asks for anything.
    rests: AtomicBool,
}

pub struct World {
    shared: Arc<Shared>,
    children: [Mutex<Option<Child>>; 2],
    load: Vec<JoinHandle<()>>,
    began: Instant,
}

impl Shared {
    fn process(&self, end: usize) -> Option<Arc<Process>> {
        locked(&self.ends[end]).clone()
    }

    fn complain(&self, what: String) {
        locked(&self.book).wrong.push(what);
    }

    /// Hears a process until it has gone.
    async fn listen(self: Arc<Self>, end: usize, process: Arc<Process>, mut heard: tokio::net::unix::OwnedReadHalf) {
        let mut streams = BTreeSet::new();
        while let Ok(frame) = frame::read(&mut heard).await {
            match frame.kind {
                Kind::Open | Kind::Pair | Kind::Close => {
                    streams.insert(frame.number);
                    match self.process(1 - end) {
                        Some(other) => drop(other.said.send(frame)),
                        None => drop(process.said.send(Frame::new(Kind::Close, frame.number, Vec::new()))),
                    }
                }
                Kind::Status => {
                    let (connected, rolled_back) = frame.body.split_first().unwrap();
                    process.connected.store(*connected == 1, Ordering::SeqCst);
                    if !rolled_back.is_empty() {
                        self.complain(format!("{} says {}", SITES[end], String::from_utf8_lossy(rolled_back)));
                    }
                }
                _ => {
                    if let Some(answer) = locked(&process.answers).as_mut().and_then(|all| all.remove(&frame.number)) {
                        // Who asked may have given up.
                        let _ = answer.send(frame.body);
                    }
                }
            }
        }
        *locked(&self.ends[end]) = None;
        *locked(&process.answers) = None;
        if let Some(other) = self.process(1 - end) {
            for number in streams {
                let _ = other.said.send(Frame::new(Kind::Close, number, Vec::new()));
            }
        }
    }

    /// A master asks for keys, and the slave at the other end fetches each of them.
    async fn supply_and_fetch(&self, master: usize) {
        let (Some(here), number) = (self.process(master), self.number()) else { return };
        let Some(keys) = here.ask(Kind::Ask, number, [KEYS]).await else { return };
        let ids: Vec<Id> = keys
            .chunks_exact(16 + KEY_BYTES)
            .map(|supplied| {
                let (id, key) = supplied.split_first_chunk().unwrap();
                let mut book = locked(&self.book);
                if !key.chunks_exact(16).all(|piece| book.seen.insert(piece.to_vec())) {
                    book.wrong.push(format!("{} supplied key twice", SITES[master]));
                }
                if book.keys.insert(*id, key.to_vec()).is_some() {
                    book.wrong.push("two keys have one ID".to_owned());
                }
                *id
            })
            .collect();
        join_all(ids.into_iter().map(|id| self.fetch(1 - master, id))).await;
    }

    async fn fetch(&self, slave: usize, id: Id) {
        let Some(there) = self.process(slave) else { return };
        let Some(answer) = there.ask(Kind::Fetch, self.number(), id).await else { return };
        if let [FETCHED, key @ ..] = &answer[..] {
            let mut book = locked(&self.book);
            if book.keys[&id] != key {
                book.wrong.push("the two ends got different keys".to_owned());
            }
            book.fetched[slave].push_back(id);
            if book.fetched[slave].len() > AGAIN {
                book.fetched[slave].pop_front();
            }
            self.fetched[slave].fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A key that a relay moves over one hop, from its making to its end.
    async fn relay(&self, origin: usize) -> Option<()> {
        let (here, there) = (self.process(origin)?, self.process(1 - origin)?);
        let transfer = crate::seal::random(16).unwrap().expose().to_vec();
        let path = [origin, 1 - origin].map(|end| SITES[end].to_owned()).to_vec();
        let header = |hop| Header {
            transfer: transfer.clone().into(),
            group: transfer.clone().into(),
            of: 1,
            bytes: SHARE_BYTES as u32,
            path: path.clone(),
            hop,
            ..Header::default()
        };
        let sealed = self.request(&here, What::Originate(Originate { header: Some(header(0)) })).await?;
        let relay_answer::What::Sealed(payload) = sealed else { return None };
        let pad = Sealed::decode(&payload).unwrap();
        let is_new = locked(&self.book).pads[origin].insert((pad.generation, pad.start));
        if !is_new {
            self.complain(format!("{} sealed two keys under the pad at {}", SITES[origin], pad.start));
        }
        let deliver = DeliverShare { header: Some(header(1)), payload };
        let relay_answer::What::Done(_) = self.request(&there, What::Deliver(deliver)).await? else { return None };
        let release = Release { group: transfer.clone().into(), transfers: vec![transfer.clone().into()] };
        let relay_answer::What::Done(_) = self.request(&here, What::Release(release)).await? else { return None };
        let settle = Settle { group: transfer.clone().into(), transfer: transfer.into() };
        let relay_answer::What::Done(_) = self.request(&there, What::Settle(settle)).await? else { return None };
        self.relayed[origin].fetch_add(1, Ordering::SeqCst);
        Some(())
    }

    async fn request(&self, process: &Process, what: What) -> Option<relay_answer::What> {
        let request = self.number();
        let asked = RelayRequest { request, what: Some(what), traceparent: String::new() };
        let answer = process.ask(Kind::Relay, request, asked.encode_to_vec()).await?;
        RelayAnswer::decode(&answer[..]).unwrap().what
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

async fn applications(shared: Arc<Shared>) {
    let mut pulse = tokio::time::interval(PULSE);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        pulse.tick().await;
        if shared.rests.load(Ordering::SeqCst) {
            continue;
        }
        for master in 0..2 {
            let Ok(room) = shared.room.clone().try_acquire_owned() else { continue };
            let shared = shared.clone();
            tokio::spawn(async move {
                shared.supply_and_fetch(master).await;
                drop(room);
            });
        }
    }
}

async fn relays(shared: Arc<Shared>, origin: usize) {
    loop {
        if !shared.rests.load(Ordering::SeqCst) {
            shared.relay(origin).await;
        }
        tokio::time::sleep(2 * PULSE).await;
    }
}

impl World {
    pub async fn new() -> Self {
        let folder = || tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared {
            folders: [folder(), folder()],
            ends: Default::default(),
            book: Mutex::default(),
            numbers: AtomicU64::new(0),
            fetched: Default::default(),
            relayed: Default::default(),
            room: Arc::new(Semaphore::new(UNDER_WAY)),
            rests: AtomicBool::new(false),
        });
        let load = vec![
            tokio::spawn(applications(shared.clone())),
            tokio::spawn(relays(shared.clone(), 0)),
            tokio::spawn(relays(shared.clone(), 1)),
        ];
        let world = Self { shared, children: Default::default(), load, began: Instant::now() };
        for end in 0..2 {
            world.start(end).await;
        }
        world.flows("the beginning").await;
        world
    }

    /// Starts the process of a site on what it has on its disk.
    pub async fn start(&self, end: usize) {
        let folder = self.shared.folders[end].path();
        let socket = folder.join(format!("{}.sock", self.shared.number()));
        let listener = UnixListener::bind(&socket).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["simulation::steps::process::one_site", "--exact", "--ignored", "--nocapture"])
            .env(process::FOLDER, folder)
            .env(process::END, end.to_string())
            .env(process::SOCKET, &socket)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *locked(&self.children[end]) = Some(child);
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let (stream, _) = accepted.unwrap_or_else(|_| panic!("it does not start: {}", self.log(end))).unwrap();
        let (heard, writer) = stream.into_split();
        let process = Arc::new(Process {
            said: frame::writer(writer),
            connected: AtomicBool::new(false),
            answers: Mutex::new(Some(BTreeMap::new())),
        });
        *locked(&self.shared.ends[end]) = Some(process.clone());
        tokio::spawn(self.shared.clone().listen(end, process, heard));
    }

    fn log(&self, end: usize) -> String {
        let log = std::fs::read_to_string(self.shared.folders[end].path().join("log")).unwrap_or_default();
        log.lines().rev().take(8).collect::<Vec<_>>().join(" / ")
    }

    /// Fails at once if anything was wrong so far.
    fn check(&self, at: &str) {
        let wrong = std::mem::take(&mut locked(&self.shared.book).wrong);
        assert!(wrong.is_empty(), "{at}: {wrong:?}");
    }

    async fn wait(&self, at: &str, what: &str, condition: impl Fn() -> bool) {
        let patience = Instant::now() + PATIENCE;
        while !condition() {
            self.check(at);
            let logs = || [0, 1].map(|end| self.log(end));
            assert!(Instant::now() < patience, "{at}: waited in vain for {what}: {:?}", logs());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until a site has ended at an armed step, in the way that was asked for.
    pub async fn end_at(&self, end: usize, armed: &str, aborts: bool) {
        let process = self.shared.process(end).expect("a site that runs");
        process.said.send(Frame::new(Kind::Arm, 0, armed)).unwrap();
        let status = Mutex::new(None);
        self.wait(armed, "the end of the process", || {
            let mut child = locked(&self.children[end]);
            *locked(&status) = child.as_mut().unwrap().try_wait().unwrap();
            locked(&status).is_some()
        })
        .await;
        let status = locked(&status).take().unwrap();
        let expected = if aborts { status.signal() == Some(6) } else { status.code() == Some(0) };
        let place = armed.split('=').next().unwrap();
        assert!(expected && self.log(end).contains(&format!("`{place}`")), "{armed}: {status}, {}", self.log(end));
        self.wait(armed, "the end of its stream", || self.shared.process(end).is_none()).await;
    }

    /// Nobody asks for anything from now on, until keys are to flow: a store that starts says at the greeting where it
    /// ended.
    pub fn rest(&self) {
        self.shared.rests.store(true, Ordering::SeqCst);
    }

    /// Waits until both key stores have greeted each other, and keys are supplied, fetched and relayed both ways.
    pub async fn flows(&self, at: &str) {
        let connected =
            || (0..2).all(|end| self.shared.process(end).is_some_and(|p| p.connected.load(Ordering::SeqCst)));
        self.wait(at, "the greeting", connected).await;
        self.shared.rests.store(false, Ordering::SeqCst);
        let counts = [&self.shared.fetched, &self.shared.relayed];
        let now = || counts.map(|both| both.each_ref().map(|count| count.load(Ordering::SeqCst)));
        let before = now();
        self.wait(at, "keys", || now().iter().flatten().zip(before.iter().flatten()).all(|(now, then)| now > then))
            .await;
        self.check(at);
    }

    /// What was fetched is gone, whatever happened since.
    pub async fn fetch_again(&self, at: &str) {
        for slave in 0..2 {
            let ids = locked(&self.shared.book).fetched[slave].clone();
            let process = self.shared.process(slave).expect("a site that runs");
            for id in ids {
                let answer = process.ask(Kind::Fetch, self.shared.number(), id).await.expect("an answer");
                assert_eq!(answer, [GONE], "{at}: a key was fetched twice");
            }
        }
    }

    /// Stops both sites. Keys fetched, and for how long there was load.
    pub async fn finish(self) -> (u64, Duration) {
        let during = self.began.elapsed();
        for end in 0..2 {
            let process = self.shared.process(end).expect("a site that runs");
            process.said.send(Frame::new(Kind::Stop, 0, Vec::new())).unwrap();
            self.wait("the end", "an orderly stop", || {
                locked(&self.children[end]).as_mut().unwrap().try_wait().unwrap().is_some_and(|status| status.success())
            })
            .await;
        }
        self.check("the end");
        (self.shared.fetched.iter().map(|count| count.load(Ordering::SeqCst)).sum(), during)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.load.iter().for_each(JoinHandle::abort);
        for child in &self.children {
            if let Some(child) = locked(child).as_mut() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
