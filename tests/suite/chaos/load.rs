//! Applications that ask for keys and fetch each other's, whatever happens to their key stores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etsi014::client::{Client, ClientError, NewKeys};
use etsi014::supply::{KeyId, SaeId};
use keystore::Secret;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::APPLICATIONS;

const NOT_FOUND: u16 = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The master has it, and the slave can have it.
    Supplied,
    Fetched,
    /// The slave asked, and no answer came.
    Doubtful,
}

pub struct Entry {
    pub key: Secret,
    pub master: &'static str,
    pub slave: &'static str,
    pub state: State,
}

/// What all applications know together.
#[derive(Default)]
pub struct Book {
    keys: Mutex<BTreeMap<KeyId, Entry>>,
    seen: Mutex<BTreeSet<Vec<u8>>>,
    progress: Mutex<BTreeSet<(&'static str, &'static str)>>,
    wrong: Mutex<Vec<String>>,
}

impl Book {
    /// Whether each application has fetched a key of each other one.
    pub fn all_pairs_fetch(&self) -> bool {
        self.check();
        self.progress.lock().expect("a lock").len() == APPLICATIONS.len() * (APPLICATIONS.len() - 1)
    }

    /// Which of them have not.
    pub fn missing(&self) -> String {
        let progress = self.progress.lock().expect("a lock");
        let missing: Vec<_> = pairs().into_iter().filter(|pair| !progress.contains(pair)).collect();
        format!("{missing:?} have not, {}", self.summary())
    }

    pub fn forget_progress(&self) {
        self.progress.lock().expect("a lock").clear();
    }

    fn complain(&self, what: String) {
        self.wrong.lock().expect("a lock").push(what);
    }

    /// Fails if anything went wrong so far.
    pub fn check(&self) {
        let wrong = self.wrong.lock().expect("a lock");
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    fn supplied(&self, master: &'static str, slave: &'static str, id: KeyId, key: Secret) {
        // Keys have 32 bytes or 64, and no 16 of them are seen twice.
        let mut seen = self.seen.lock().expect("a lock");
        if !key.expose().chunks_exact(16).all(|piece| seen.insert(piece.to_vec())) {
            self.complain(format!("{master} and {slave}: key was supplied twice"));
        }
        let entry = Entry { key, master, slave, state: State::Supplied };
        if self.keys.lock().expect("a lock").insert(id, entry).is_some() {
            self.complain(format!("{master} and {slave}: two keys have one ID"));
        }
    }

    fn to_fetch(&self, master: &str, slave: &str, rng: &mut ChaCha8Rng) -> Option<(KeyId, State)> {
        let keys = self.keys.lock().expect("a lock");
        let of_pair = keys.iter().filter(|(_, entry)| entry.master == master && entry.slave == slave);
        let waiting: Vec<_> = of_pair.filter(|(_, entry)| entry.state != State::Fetched).collect();
        let (id, entry) = waiting.get(rng.random_range(0..waiting.len().max(1)))?;
        Some((**id, entry.state))
    }

    fn set(&self, id: KeyId, state: State) {
        if let Some(entry) = self.keys.lock().expect("a lock").get_mut(&id) {
            entry.state = state;
        }
    }

    pub fn fetched(&self, id: KeyId, key: &Secret) {
        let mut keys = self.keys.lock().expect("a lock");
        let Some(entry) = keys.get_mut(&id) else { return };
        let (master, slave) = (entry.master, entry.slave);
        if entry.key != *key {
            self.complain(format!("{master} and {slave}: the two ends got different keys"));
        }
        if entry.state == State::Fetched {
            self.complain(format!("{master} and {slave}: a key was fetched twice"));
        }
        entry.state = State::Fetched;
        self.progress.lock().expect("a lock").insert((master, slave));
    }

    pub fn lost(&self, id: KeyId) {
        let keys = self.keys.lock().expect("a lock");
        let Some(entry) = keys.get(&id) else { return };
        self.complain(format!("{} and {}: a key that was supplied is lost", entry.master, entry.slave));
    }

    /// Every key, as it is now.
    pub fn all(&self) -> Vec<(KeyId, &'static str, &'static str, State)> {
        let keys = self.keys.lock().expect("a lock");
        keys.iter().map(|(id, entry)| (*id, entry.master, entry.slave, entry.state)).collect()
    }

    pub fn summary(&self) -> String {
        let keys = self.keys.lock().expect("a lock");
        let count = |state| keys.values().filter(|entry| entry.state == state).count();
        format!(
            "{} keys supplied, {} fetched and equal, {} lost with an answer",
            keys.len(),
            count(State::Fetched),
            count(State::Doubtful)
        )
    }
}

/// The applications at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    runtime: tokio::runtime::Runtime,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub fn start(data: &Path, book: Arc<Book>, seed: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (number, (master, slave)) in pairs().into_iter().enumerate() {
            let pair = Pair {
                ends: [master, slave].map(|application| Door::new(data, application)),
                book: book.clone(),
                stop: stop.clone(),
                rng: ChaCha8Rng::seed_from_u64(seed << 8 | number as u64),
            };
            tasks.push(runtime.spawn(pair.run()));
        }
        Self { stop, runtime, tasks }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            self.runtime.block_on(task).expect("an application");
        }
    }
}

fn pairs() -> Vec<(&'static str, &'static str)> {
    let names = APPLICATIONS.map(|(name, _)| name);
    names.into_iter().flat_map(|a| names.into_iter().filter(move |b| *b != a).map(move |b| (a, b))).collect()
}

pub fn sae(name: &str) -> SaeId {
    SaeId::new(name).expect("the name of an application")
}

/// The way of an application to its key store, which may come back at another address.
struct Door {
    name: &'static str,
    address: PathBuf,
    pki: PathBuf,
    open: Option<(String, Client)>,
}

impl Door {
    fn new(data: &Path, name: &'static str) -> Self {
        let (_, site) = APPLICATIONS.into_iter().find(|(known, _)| *known == name).expect("an application");
        let own = data.join(".qkdnet");
        let address = own.join(format!("run/kms-{site}.etsi014.addr"));
        Self { name, address, pki: own.join("pki"), open: None }
    }

    fn client(&mut self) -> Option<&Client> {
        let address = std::fs::read_to_string(&self.address).ok()?.trim().to_owned();
        if self.open.as_ref().is_none_or(|(known, _)| *known != address) {
            let file = |end: &str| self.pki.join("saes").join(format!("{}.{end}", self.name));
            let url = format!("https://{address}");
            let built = Client::builder(url, self.pki.join("ca.pem"), file("pem"), file("key"));
            self.open = Some((address, built.time_limit(Duration::from_secs(5)).build().ok()?));
        }
        self.open.as_ref().map(|(_, client)| client)
    }
}

/// A master and a slave.
struct Pair {
    ends: [Door; 2],
    book: Arc<Book>,
    stop: Arc<AtomicBool>,
    rng: ChaCha8Rng,
}

impl Pair {
    async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.ask().await;
            for _ in 0..2 {
                self.fetch().await;
            }
            // What lies ready is not all taken: relaying needs key, too.
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(200..900))).await;
        }
    }

    async fn ask(&mut self) {
        let request = NewKeys {
            number: Some(self.rng.random_range(1..4)),
            size_bits: Some([256, 512][self.rng.random_range(0..2)]),
            ..NewKeys::default()
        };
        let (master, slave) = (self.ends[0].name, self.ends[1].name);
        let Some(client) = self.ends[0].client() else { return };
        // Where no answer comes the keys are with nobody.
        if let Ok(keys) = client.get_keys(&sae(slave), &request).await {
            keys.into_iter().for_each(|delivered| self.book.supplied(master, slave, delivered.id, delivered.key));
        }
    }

    async fn fetch(&mut self) {
        let (master, slave) = (self.ends[0].name, self.ends[1].name);
        let Some((id, before)) = self.book.to_fetch(master, slave, &mut self.rng) else { return };
        let refuse = self.rng.random_range(0..6) == 0;
        let mut unknown = [0; 16];
        self.rng.fill(&mut unknown);
        let Some(client) = self.ends[1].client() else { return };
        if refuse {
            // All or nothing: a request that is refused takes nothing.
            let answer = client.get_keys_with_ids(&sae(master), &[id, KeyId::v4(unknown)]).await;
            if answer.is_ok() {
                self.book.complain(format!("{slave} got a key that does not exist"));
            }
        }
        match client.get_keys_with_ids(&sae(master), &[id]).await {
            Ok(keys) => keys.iter().for_each(|delivered| self.book.fetched(id, &delivered.key)),
            Err(ClientError::Refused { status: NOT_FOUND, .. }) if before == State::Supplied => self.book.lost(id),
            // It went with an answer that never came.
            Err(ClientError::Refused { status: NOT_FOUND, .. }) => {}
            // Refused for now: nothing was taken.
            Err(ClientError::Refused { .. } | ClientError::Connect { .. }) => {}
            Err(_) => self.book.set(id, State::Doubtful),
        }
    }
}
