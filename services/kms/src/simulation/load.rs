//! What both sites are given to do: blocks of two links, and applications that ask each other's keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystore::{Secret, Use};
use proto::kms::v1::Block;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shell::duplex::Duplex;
use shell::handover::Handover;
use tokio::sync::mpsc;

use super::site::{self, Handles};
use crate::ingest::{BLOCKS_IN_FLIGHT, ModuleStream};
use crate::pair::Pool;
use crate::supplier::Supplier;
use etsi014::supply::{GetKey, KeyId, KeySupply, SaeId, SupplyError};

pub const LINKS: [&str; 2] = ["one", "two"];

/// A block of a link, and what becomes of it on its way to the two stores.
#[derive(Clone)]
pub struct Made {
    pub link: &'static str,
    pub number: u64,
    pub id: [u8; 16],
    pub reaches: [bool; 2],
    pub differs: bool,
    key: Vec<u8>,
}

/// All blocks that were ever made.
pub struct Blocks(Mutex<(ChaCha8Rng, [Vec<Made>; LINKS.len()])>);

impl Blocks {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new((ChaCha8Rng::seed_from_u64(seed), Default::default())))
    }

    pub fn make(&self, count: usize) {
        for _ in 0..count {
            let fate = self.0.lock().unwrap().0.random_range(0..100);
            let (reaches, differs) = match fate {
                0..5 => ([true, false], false),
                5..10 => ([false, true], false),
                10..13 => ([true, true], true),
                13..15 => ([false, false], false),
                _ => ([true, true], false),
            };
            self.add(None, reaches, differs);
        }
    }

    /// The last block of each link reaches both sites: behind it nothing comes that was made before.
    pub fn close(&self) {
        (0..LINKS.len()).for_each(|link| self.add(Some(link), [true, true], false));
        (0..LINKS.len()).for_each(|link| self.add(Some(link), [true, true], false));
    }

    fn add(&self, link: Option<usize>, reaches: [bool; 2], differs: bool) {
        let mut state = self.0.lock().unwrap();
        let (rng, links) = &mut *state;
        let link = link.unwrap_or_else(|| rng.random_range(0..LINKS.len()));
        let mut key = vec![0; rng.random_range(200..9_000)];
        rng.fill_bytes(&mut key);
        let number = links[link].len() as u64;
        links[link].push(Made { link: LINKS[link], number, id: rng.random(), reaches, differs, key });
    }

    pub fn all(&self) -> Vec<Made> {
        self.0.lock().unwrap().1.iter().flatten().cloned().collect()
    }

    /// The first block from `from` on that reaches this end, and its place.
    pub fn next(&self, end: usize, link: usize, from: usize) -> Option<(usize, Made)> {
        let state = self.0.lock().unwrap();
        let blocks = state.1[link].iter().enumerate().skip(from);
        blocks.filter(|(_, block)| block.reaches[end]).map(|(at, block)| (at, block.clone())).next()
    }
}

/// A module with its outbox: hands over in order, and again what was not said to be durable.
pub struct Module {
    pub end: usize,
    pub link: usize,
    pub blocks: Arc<Blocks>,
    pub marks: Arc<Mutex<[usize; LINKS.len()]>>,
    pub seed: u64,
}

impl Module {
    pub async fn run(self, store: mpsc::Sender<ModuleStream>) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        loop {
            let (ours, theirs) = Duplex::pair(BLOCKS_IN_FLIGHT);
            if store.send(theirs).await.is_err() {
                return;
            }
            if let Ok(store) = Handover::open(ours).await {
                self.deliver(store, &mut rng).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn deliver(&self, mut store: Handover, rng: &mut ChaCha8Rng) {
        loop {
            let mark = self.marks.lock().unwrap()[self.link];
            let Some((at, block)) = self.blocks.next(self.end, self.link, mark) else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let mut key = block.key.clone();
            if block.differs && self.end == 1 {
                let at = rng.random_range(0..key.len());
                key[at] ^= 1;
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..10))).await;
            let message = Block {
                link: block.link.to_owned(),
                number: block.number,
                id: block.id.to_vec().into(),
                key_bits: 8 * key.len() as u64,
                ..Block::default()
            };
            if store.send(message, &key).await.is_err() {
                return;
            }
            let Ok(number) = store.taken().await else { return };
            assert_eq!(number, block.number);
            // A module that dies before it has noted that hands the block over once more.
            if rng.random_range(0..8) > 0 {
                self.marks.lock().unwrap()[self.link] = at + 1;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The master has it, and the slave can have it.
    Supplied,
    Fetched,
    /// The slave asked, and nobody heard the answer.
    Doubtful,
}

struct Entry {
    key: Secret,
    master: usize,
    state: State,
}

/// What applications know of their keys.
#[derive(Default)]
pub struct Book {
    keys: Mutex<BTreeMap<KeyId, Entry>>,
    seen: Mutex<BTreeSet<Vec<u8>>>,
    /// Pads on their way to a site: generation, start, bytes; and those that were taken off there.
    pads: [Mutex<Vec<(u32, u64, Secret)>>; 2],
    taken_off: Mutex<BTreeSet<Vec<u8>>>,
    /// A store has lost its volume, and keys of the old pool with it.
    lossy: AtomicBool,
}

fn sae(end: usize) -> SaeId {
    SaeId::new(site::application(end)).unwrap()
}

impl Book {
    pub fn pool_is_lost(&self) {
        self.lossy.store(true, Ordering::Relaxed);
    }

    /// Whether none of its bytes was seen before. Sizes are multiples of 8 bytes, and so are the places of keys.
    pub fn is_new(&self, key: &Secret) -> bool {
        let mut seen = self.seen.lock().unwrap();
        key.expose().chunks_exact(8).all(|piece| seen.insert(piece.to_vec()))
    }

    fn supplied(&self, master: usize, id: KeyId, key: Secret) {
        assert!(self.is_new(&key), "key was supplied twice");
        let entry = Entry { key, master, state: State::Supplied };
        assert!(self.keys.lock().unwrap().insert(id, entry).is_none(), "two keys have one ID");
    }

    /// Some key that the other site's application got and this one has not.
    fn to_fetch(&self, end: usize, rng: &mut ChaCha8Rng) -> Option<KeyId> {
        let keys = self.keys.lock().unwrap();
        let waiting: Vec<&KeyId> = keys
            .iter()
            .filter(|(_, entry)| entry.master != end && entry.state != State::Fetched)
            .map(|(id, _)| id)
            .collect();
        (!waiting.is_empty()).then(|| *waiting[rng.random_range(0..waiting.len())])
    }

    fn fetched(&self, id: KeyId, key: &Secret) {
        let mut keys = self.keys.lock().unwrap();
        let entry = keys.get_mut(&id).unwrap();
        assert!(entry.key == *key, "the two ends got different keys");
        assert!(entry.state != State::Fetched, "a key was fetched twice");
        entry.state = State::Fetched;
    }

    fn state(&self, id: KeyId) -> State {
        self.keys.lock().unwrap()[&id].state
    }

    /// A key is not there, and was never asked for before.
    fn missed(&self, id: KeyId, supplier: &Supplier) {
        let lossy = self.lossy.load(Ordering::Relaxed);
        assert!(lossy, "a key that was supplied is lost: {}", supplier.describe(&id));
    }

    fn doubt(&self, id: KeyId) {
        let mut keys = self.keys.lock().unwrap();
        let entry = keys.get_mut(&id).unwrap();
        if entry.state == State::Supplied {
            entry.state = State::Doubtful;
        }
    }

    /// Fetches what is left: everything that was supplied is there, unless its pool was lost. Keys supplied, fetched.
    pub async fn fetch_the_rest(&self, nodes: &[Handles; 2]) -> (u64, u64) {
        let rest: Vec<(KeyId, usize, State)> = {
            let keys = self.keys.lock().unwrap();
            keys.iter().map(|(id, entry)| (*id, entry.master, entry.state)).collect()
        };
        for (id, master, state) in rest {
            let slave = 1 - master;
            let answer = nodes[slave].supplier.get_key_with_ids(&sae(slave), &sae(master), &[id]).await;
            match (answer, state) {
                (Ok(_), State::Fetched) => panic!("a key was fetched twice"),
                (Ok(keys), _) => self.fetched(id, &keys[0].key),
                (Err(SupplyError::NotFound { .. }), State::Supplied) => self.missed(id, &nodes[slave].supplier),
                (Err(SupplyError::NotFound { .. }), _) => {}
                (Err(error), _) => panic!("{error:?}"),
            }
        }
        let keys = self.keys.lock().unwrap();
        let fetched = keys.values().filter(|entry| entry.state == State::Fetched).count();
        (keys.len() as u64, fetched as u64)
    }
}

/// A relay that sends under pads, and takes off those of the other one, some of them a second time.
pub async fn relay(end: usize, book: Arc<Book>, pool: Arc<Pool>) {
    const PAD_BYTES: usize = 96;
    let mut repeat = None;
    loop {
        tokio::time::sleep(Duration::from_millis(4)).await;
        pool.want(Use::RelayOut, PAD_BYTES as u64);
        if let Ok(mut pads) = pool.store.draw_many_async(&pool.peer, Use::RelayOut, PAD_BYTES, 1).await
            && let Some(pad) = pads.pop()
        {
            assert!(book.is_new(&pad.key), "a pad was used twice");
            book.pads[1 - end].lock().unwrap().push((pad.generation, pad.start, pad.key));
        }
        let next = book.pads[end].lock().unwrap().pop();
        for (generation, start, key) in repeat.take().into_iter().chain(next) {
            let range = [(start, PAD_BYTES as u64)];
            if let Ok(taken) = pool.store.redeem(&pool.peer, Use::RelayIn, generation, &range).await {
                assert!(taken[0] == key, "the two ends have different pads");
                let first = book.taken_off.lock().unwrap().insert(key.expose().to_vec());
                assert!(first, "a pad was taken off twice");
            }
            repeat = Some((generation, start, key));
        }
    }
}

/// An application that is master of some keys and slave of others, until it is stopped.
pub async fn application(end: usize, book: Arc<Book>, supplier: Arc<Supplier>, seed: u64, pause_ms: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..pause_ms))).await;
        if rng.random_bool(0.5) {
            ask(end, &book, &supplier, &mut rng).await;
        } else if let Some(id) = book.to_fetch(end, &mut rng) {
            fetch(end, &book, &supplier, &mut rng, id).await;
        }
    }
}

async fn ask(end: usize, book: &Book, supplier: &Supplier, rng: &mut ChaCha8Rng) {
    let (master, slave) = (sae(end), sae(1 - end));
    let size_bits = [64, 128, 256, 512][rng.random_range(0..4)];
    let span = tracing::Span::none();
    let number = rng.random_range(1..4);
    let request = GetKey { master: &master, slave: &slave, additional: &[], number, size_bits, span: &span };
    // A reply that is lost: the keys are with nobody, and must never be with anybody else.
    let lost = rng.random_range(0..8) == 0;
    if let Ok(keys) = supplier.get_key(request).await {
        for supplied in keys {
            match lost {
                true => assert!(book.is_new(&supplied.key), "key was supplied twice"),
                false => book.supplied(end, supplied.id, supplied.key),
            }
        }
    }
}

async fn fetch(end: usize, book: &Book, supplier: &Supplier, rng: &mut ChaCha8Rng, id: KeyId) {
    let (slave, master) = (sae(end), sae(1 - end));
    // Refusals of every kind take nothing.
    match rng.random_range(0..6) {
        0 => {
            // The wrong way round: this site's application is no slave of its own.
            assert!(supplier.get_key_with_ids(&master, &slave, &[id]).await.is_err());
        }
        1 => {
            let mut unknown = [0; 16];
            rng.fill_bytes(&mut unknown);
            let answer = supplier.get_key_with_ids(&slave, &master, &[id, KeyId::v4(unknown)]).await;
            assert!(answer.is_err(), "all or nothing");
        }
        2 => {
            let answer = supplier.get_key_with_ids(&slave, &master, &[id, id]).await;
            assert!(answer.is_err(), "a key was fetched twice in one request");
        }
        _ => {}
    }
    let lost = rng.random_range(0..8) == 0;
    if lost || book.state(id) == State::Doubtful {
        book.doubt(id);
    }
    let before = book.state(id);
    // In doubt from the moment it is asked until the answer is there: the site may crash in between.
    book.doubt(id);
    match supplier.get_key_with_ids(&slave, &master, &[id]).await {
        Ok(_) if lost => {}
        Ok(keys) => book.fetched(id, &keys[0].key),
        Err(SupplyError::NotFound { .. }) if before == State::Supplied => book.missed(id, supplier),
        Err(_) => {}
    }
}
