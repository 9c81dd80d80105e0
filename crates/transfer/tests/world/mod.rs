//! A network in memory: relays, their disks and KMSs, and a bus that loses, doubles, delays and reorders.

pub mod kms;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use kms::{Fate, Kms, Pool, Pools};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use transfer::{
    Action, CompletedTransfer, Input, KmsAnswer, KmsRequest, Message, NeighbourState, Record, RecordKey, Relay,
    RelayEvent, Settings, SiteName, TransferId,
};

pub fn site(name: &str) -> SiteName {
    SiteName::parse(name).unwrap()
}

/// What goes wrong, each in parts of a thousand.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub drop: u32,
    pub double: u32,
    /// Crash before an action.
    pub crash: u32,
    /// Messages that are late by seconds.
    pub late: u32,
}

pub struct Link {
    pub rate_bps: u64,
    pub up: bool,
}

pub struct Node {
    pub relay: Option<Relay>,
    pub disk: BTreeMap<RecordKey, Record>,
    /// Changes of the disk that nothing waits for: they go with the next one that something does.
    noted: Vec<(RecordKey, Option<Record>)>,
    pub kms: Kms,
    pub events: Vec<RelayEvent>,
    wants: BTreeMap<SiteName, Want>,
    tick_at_ms: u64,
}

#[derive(Clone, Copy)]
struct Want {
    low: u64,
    high: u64,
    shares: u8,
    /// What applications take, byte/s, while there is some.
    demand: u64,
    level: u64,
}

enum Happening {
    Arrive { from: SiteName, to: SiteName, message: Message },
    Ask { site: SiteName, request: KmsRequest },
    Answer { site: SiteName, answer: KmsAnswer },
    Tick(SiteName),
    Restart(SiteName),
    Supply,
}

pub struct World {
    pub now_ms: u64,
    pub nodes: BTreeMap<SiteName, Node>,
    pub links: BTreeMap<(SiteName, SiteName), Link>,
    pub pools: Pools,
    pub faults: Faults,
    pub crashes: usize,
    pub messages: usize,
    settings: Settings,
    rng: ChaCha8Rng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    serial: u64,
    pool_max_bytes: u64,
    /// Keys that both ends have confirmed: told again after a crash, they count once.
    confirmed: BTreeSet<TransferId>,
}

/// Times short enough that a test of a few simulated minutes sees all of them pass.
pub fn settings() -> Settings {
    Settings {
        chunk_bytes: 256,
        reserve_bytes: 512,
        scarce_bytes: 1024,
        retry_ms: 300,
        retry_max_ms: 3000,
        doubt_ms: 6000,
        backoff_ms: 100,
        backoff_max_ms: 2000,
        linger_ms: 60_000,
        keep_ms: 120_000,
        inquire_ms: 3_600_000,
        refresh_ms: 3000,
        link_state_min_ms: 200,
        suspect_ms: 3000,
        ..Settings::default()
    }
}

impl Node {
    fn write(&mut self) {
        for (key, record) in self.noted.drain(..) {
            match record {
                Some(record) => {
                    let json = serde_json::to_vec(&record).unwrap();
                    self.disk.insert(key, serde_json::from_slice(&json).unwrap());
                }
                None => drop(self.disk.remove(&key)),
            }
        }
    }
}

impl World {
    /// Links as (site, site, bit/s); every pool starts with this many bytes and holds at most `pool_max_bytes`.
    pub fn new(seed: u64, links: &[(String, String, u64)], start_bytes: u64, settings: Settings) -> Self {
        println!("seed {seed}");
        let mut world = Self {
            now_ms: 1000,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            pools: Pools::default(),
            faults: Faults::default(),
            crashes: 0,
            messages: 0,
            settings,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            serial: 0,
            pool_max_bytes: 65_536,
            confirmed: BTreeSet::new(),
        };
        for (a, b, rate_bps) in links {
            let (a, b) = (site(a), site(b));
            for (from, to) in [(&a, &b), (&b, &a)] {
                let mut pool = Pool::default();
                pool.stored_bytes = start_bytes;
                world.pools.0.insert((from.clone(), to.clone()), pool);
            }
            world.links.insert((a.clone().min(b.clone()), a.max(b)), Link { rate_bps: *rate_bps, up: true });
        }
        let sites: BTreeSet<SiteName> = world.links.keys().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        for name in sites {
            let relay = Some(Relay::new(name.clone(), world.settings.clone()));
            let node = Node {
                relay,
                disk: BTreeMap::new(),
                noted: Vec::new(),
                kms: Kms::default(),
                events: Vec::new(),
                wants: BTreeMap::new(),
                tick_at_ms: u64::MAX,
            };
            world.nodes.insert(name, node);
        }
        world.later(0, Happening::Supply);
        world
    }

    pub fn want(&mut self, from: &str, to: &str, (low, high): (u64, u64), shares: u8, demand: u64) {
        let (from, to) = (site(from), site(to));
        assert!(from < to, "the smaller name originates");
        let want = Want { low, high, shares, demand, level: 0 };
        self.nodes.get_mut(&from).unwrap().wants.insert(to.clone(), want);
        self.tell_want(&from, &to);
    }

    fn tell_want(&mut self, from: &SiteName, to: &SiteName) {
        let Want { low, high, shares, level, .. } = self.nodes[from].wants[to];
        let (low_water_bytes, high_water_bytes) = (low, high);
        let input = Input::Want { target: to.clone(), level_bytes: level, low_water_bytes, high_water_bytes, shares };
        self.input(from, input);
    }

    pub fn unwant_all(&mut self) {
        for from in self.names() {
            let wants = std::mem::take(&mut self.nodes.get_mut(&from).unwrap().wants);
            wants.into_keys().for_each(|target| self.input(&from, Input::Unwant { target }));
        }
    }

    pub fn level(&self, from: &str, to: &str) -> u64 {
        self.nodes[&site(from)].wants[&site(to)].level
    }

    pub fn set_link(&mut self, a: &str, b: &str, up: bool) {
        let (a, b) = (site(a).min(site(b)), site(a).max(site(b)));
        self.links.get_mut(&(a.clone(), b.clone())).unwrap().up = up;
        self.tell_neighbour(&a, &b);
        self.tell_neighbour(&b, &a);
    }

    pub fn names(&self) -> Vec<SiteName> {
        self.nodes.keys().cloned().collect()
    }

    fn linked(&self, a: &SiteName, b: &SiteName) -> bool {
        let up = self.links.get(&(a.min(b).clone(), a.max(b).clone())).is_some_and(|link| link.up);
        up && self.nodes[a].relay.is_some() && self.nodes[b].relay.is_some()
    }

    fn tell_neighbour(&mut self, at: &SiteName, about: &SiteName) {
        let link = &self.links[&(at.min(about).clone(), at.max(about).clone())];
        let stored = |from: &SiteName, to: &SiteName| self.pools.0[&(from.clone(), to.clone())].stored_bytes;
        let state = NeighbourState {
            connected: self.linked(at, about),
            stored_bytes_out: stored(at, about),
            stored_bytes_in: stored(about, at),
            rate_bps: if link.up { link.rate_bps } else { 0 },
        };
        self.input(at, Input::Neighbour { site: about.clone(), state });
    }

    fn tell_all_about(&mut self, name: &SiteName) {
        let near = |(a, b): &(SiteName, SiteName)| match () {
            () if a == name => Some(b.clone()),
            () if b == name => Some(a.clone()),
            () => None,
        };
        let neighbours: Vec<SiteName> = self.links.keys().filter_map(near).collect();
        for neighbour in neighbours {
            self.tell_neighbour(name, &neighbour);
            self.tell_neighbour(&neighbour, name);
        }
    }

    fn later(&mut self, wait_ms: u64, happening: Happening) {
        self.serial += 1;
        self.queue.push(Reverse((self.now_ms + wait_ms, self.serial)));
        self.happenings.insert(self.serial, happening);
    }

    fn chance(&mut self, parts: u32) -> bool {
        parts > 0 && self.rng.random_ratio(parts, 1000)
    }

    /// Runs for this many simulated milliseconds.
    pub fn run(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some(Reverse((at_ms, serial))) = self.queue.peek().copied().filter(|next| next.0.0 <= end_ms) {
            self.queue.pop();
            self.now_ms = at_ms;
            let happening = self.happenings.remove(&serial).unwrap();
            self.happen(happening);
        }
        self.now_ms = end_ms;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { from, to, message } => {
                if self.linked(&from, &to) {
                    self.messages += 1;
                    self.input(&to, Input::Peer { from, message });
                }
            }
            Happening::Ask { site, request } => {
                let node = self.nodes.get_mut(&site).unwrap();
                let answers = node.kms.answer(&site, &mut self.pools, request.clone());
                if let KmsRequest::Release { group, transfers } = request {
                    self.confirm(&site, group, &transfers);
                }
                for answer in answers {
                    // A KMS that stops before it answers.
                    if self.chance(self.faults.drop / 8) {
                        continue;
                    }
                    let wait_ms = self.rng.random_range(0..5);
                    self.later(wait_ms, Happening::Answer { site: site.clone(), answer });
                }
            }
            Happening::Answer { site, answer } => self.input(&site, Input::Kms(answer)),
            Happening::Tick(site) => {
                if self.nodes[&site].tick_at_ms <= self.now_ms {
                    self.input(&site, Input::Tick);
                }
            }
            Happening::Restart(name) => {
                let node = self.nodes.get_mut(&name).unwrap();
                let records: Vec<Record> = node.disk.values().cloned().collect();
                node.relay = Some(Relay::restore(name.clone(), self.settings.clone(), records, self.now_ms));
                self.input(&name, Input::Tick);
                self.tell_all_about(&name);
                let targets: Vec<SiteName> = self.nodes[&name].wants.keys().cloned().collect();
                targets.iter().for_each(|target| self.tell_want(&name, target));
            }
            Happening::Supply => self.supply(200),
        }
    }

    /// What the pair protocol does when the origin releases: both ends must hold the same key, shares and all.
    fn confirm(&mut self, origin: &SiteName, group: TransferId, transfers: &[TransferId]) {
        let made: Vec<_> =
            transfers.iter().map(|transfer| self.nodes[origin].kms.originated[transfer].clone()).collect();
        let header = &made[0].header;
        assert_eq!(usize::from(header.of), made.len(), "released with shares missing");
        let target = header.path.target().clone();
        for share in &made {
            let there = &self.nodes[&target].kms.delivered[&share.header.transfer];
            assert_ne!(there.fate, Fate::Void, "{group} was released after the target had dropped it");
            assert!(there.key == share.key, "{group}: the ends differ");
        }
        let bytes = u64::from(header.bytes);
        if let Some(want) = self.nodes.get_mut(origin).unwrap().wants.get_mut(&target)
            && self.confirmed.insert(group)
        {
            want.level += bytes;
            self.tell_want(origin, &target);
        }
    }

    fn supply(&mut self, period_ms: u64) {
        for ((a, b), link) in self.links.iter().filter(|(_, link)| link.up) {
            for key in [(a.clone(), b.clone()), (b.clone(), a.clone())] {
                let pool = self.pools.0.get_mut(&key).unwrap();
                let made = link.rate_bps / 8 * period_ms / 1000 / 2;
                pool.stored_bytes = (pool.stored_bytes + made).min(self.pool_max_bytes);
            }
        }
        let links: Vec<(SiteName, SiteName)> = self.links.keys().cloned().collect();
        for (a, b) in links {
            self.tell_neighbour(&a, &b);
            self.tell_neighbour(&b, &a);
        }
        for from in self.names() {
            let targets: Vec<SiteName> = self.nodes[&from].wants.keys().cloned().collect();
            for to in targets {
                let want = self.nodes.get_mut(&from).unwrap().wants.get_mut(&to).unwrap();
                let before = want.level;
                want.level = want.level.saturating_sub(want.demand * period_ms / 1000);
                if want.level != before {
                    self.tell_want(&from, &to);
                }
            }
        }
        self.later(period_ms, Happening::Supply);
    }

    fn input(&mut self, name: &SiteName, input: Input) {
        let now_ms = self.now_ms;
        let Some(relay) = self.nodes.get_mut(name).unwrap().relay.as_mut() else { return };
        let rng = &mut self.rng;
        let mut ids = || {
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            id
        };
        let actions = relay.handle(now_ms, input, &mut ids);
        let tick_at_ms = relay.next_deadline_ms(now_ms);
        self.nodes.get_mut(name).unwrap().tick_at_ms = tick_at_ms;
        for action in actions {
            let crash = self.faults.crash;
            if self.chance(crash) {
                return self.crash(name);
            }
            self.act(name, action);
        }
        if tick_at_ms < u64::MAX {
            self.later(tick_at_ms - now_ms, Happening::Tick(name.clone()));
        }
    }

    pub fn crash(&mut self, name: &SiteName) {
        let node = self.nodes.get_mut(name).unwrap();
        node.relay = None;
        // Of what nobody waited for some is on the disk, the earlier before the later.
        node.noted.truncate(self.rng.random_range(0..=node.noted.len()));
        node.write();
        self.crashes += 1;
        let wait_ms = self.rng.random_range(50..1500);
        self.later(wait_ms, Happening::Restart(name.clone()));
        self.tell_all_about(name);
    }

    fn act(&mut self, name: &SiteName, action: Action) {
        let node = self.nodes.get_mut(name).unwrap();
        match action {
            Action::Note(record) => node.noted.push((record.key(), Some(record))),
            Action::Drop(key) => node.noted.push((key, None)),
            Action::Persist(record) => {
                node.noted.push((record.key(), Some(record)));
                node.write();
            }
            Action::Forget(key) => {
                node.noted.push((key, None));
                node.write();
            }
            Action::Event(event) => node.events.push(event),
            // In order, as the contract says: the KMS is asked one after the other.
            Action::Kms(request) => self.later(1, Happening::Ask { site: name.clone(), request }),
            Action::Send { to, message } => {
                let copies = if self.chance(self.faults.double) { 2 } else { 1 };
                for _ in 0..copies {
                    if !self.chance(self.faults.drop) {
                        let late = if self.chance(self.faults.late) { 20_000 } else { 0 };
                        let wait_ms = self.rng.random_range(1..40) + self.rng.random_range(0..=late);
                        let (from, to, message) = (name.clone(), to.clone(), message.clone());
                        self.later(wait_ms, Happening::Arrive { from, to, message });
                    }
                }
            }
        }
    }

    pub fn completed(&self, at: &str) -> Vec<CompletedTransfer> {
        let completed = |event: &RelayEvent| match event {
            RelayEvent::Completed(transfer) => Some(transfer.clone()),
            _ => None,
        };
        self.nodes[&site(at)].events.iter().filter_map(completed).collect()
    }

    /// Repairs everything, wants nothing any more, and waits until even the longest memory has passed.
    pub fn heal(&mut self) {
        self.faults = Faults::default();
        let links: Vec<(SiteName, SiteName)> = self.links.keys().cloned().collect();
        for (a, b) in links {
            self.set_link(a.as_str(), b.as_str(), true);
        }
        self.unwant_all();
        self.run(200_000);
    }

    /// What must hold when everything has calmed down.
    pub fn check(&self) {
        let mut good = 0;
        let mut draws = 0;
        for (name, node) in &self.nodes {
            let relay = node.relay.as_ref().expect("every relay runs");
            assert_eq!(relay.known_transfers(), (0, 0), "{name} is stuck with a transfer: {:?}", node.disk);
            let kept = node.noted.iter().fold(node.disk.keys().collect::<BTreeSet<_>>(), |mut kept, (key, record)| {
                if record.is_some() {
                    kept.insert(key)
                } else {
                    kept.remove(key)
                };
                kept
            });
            assert!(kept.len() <= 1, "{name} left records behind");
            for (transfer, share) in &node.kms.originated {
                let there = self.nodes[share.header.path.target()].kms.delivered.get(transfer);
                let hops = self.pools.hops_of(*transfer, share.header.bytes);
                draws += hops.len();
                let on_path: BTreeSet<_> = share.header.path.links().map(|(a, b)| (a.clone(), b.clone())).collect();
                assert!(hops.is_subset(&on_path), "{transfer} drew pad off its path");
                match share.fate {
                    Fate::Pending => panic!("{transfer} at {name} is neither key nor void"),
                    Fate::Good => {
                        let there = there.expect("a released key is at its target");
                        assert_eq!(there.fate, Fate::Good, "{transfer} is key at one end alone");
                        assert!(there.key == share.key, "{transfer}: the ends differ");
                        assert_eq!(hops, on_path);
                        good += 1;
                    }
                    Fate::Void => assert!(there.is_none_or(|there| there.fate == Fate::Void)),
                }
            }
            assert!(
                node.kms.delivered.values().all(|share| share.fate != Fate::Pending),
                "{name} keeps a pending share"
            );
            let owners =
                |transfer| self.nodes.values().filter(|node| node.kms.delivered.contains_key(transfer)).count();
            assert!(node.kms.originated.keys().all(|transfer| owners(transfer) <= 1), "a key has two targets");
        }
        assert_eq!(draws, self.pools.draws(), "pad was drawn for what nobody made");
        println!(
            "{} ms, {} messages, {} crashes, {good} good shares, {draws} pads drawn",
            self.now_ms, self.messages, self.crashes
        );
    }
}
