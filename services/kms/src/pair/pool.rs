//! What a site knows about the pool that it shares with one other site.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::{Context, Result};
use keystore::{KeyStore, Levels, RolledBack, Secret, StoreError, Use};
use proto::kms::v1::{self as wire, PairHello, PairMarks};
use tokio::sync::{Notify, mpsc, watch};

use super::line::ShareOut;
use super::marks::{PeerMarks, wire_marks};
use super::verdict::{End, Verdict, verdict};
use super::{
    GRANT_BYTES_MAX, GRANT_BYTES_MIN, GRANT_UNIT_BYTES, Lasting, MESSAGES_IN_FLIGHT, META_SECRET, PULSE, VERSION, lane,
    wire_rolled_back,
};
use crate::fair::FairShare;
use crate::key_id::{Form, ID_SECRET_BYTES, IdCodec};
use crate::origins::Origins;
use crate::seal::SEAL_OVERHEAD_BYTES;

/// A use gets more once it has less than half of its target: so half of these fit at any time, which is one more than
/// a relay leaves untouched and sends.
const TRANSFERS_AHEAD: u64 = 8;
const META_INSTANCE: &str = "peer-instance";
const META_ID_FORM: &str = "peer-key-id-form";
const META_MARKS: &str = "peer-marks";

/// What a site knows about the pool that it shares with one other site, beside what its store does.
pub struct Pool {
    pub store: Arc<KeyStore>,
    pub site: String,
    pub peer: String,
    pub adjacent: bool,
    /// Whether some relay draws from this pool.
    pub relayed: bool,
    /// Pad of one transfer of the relay, in whole units; it lies in one piece.
    pub(super) relay_pad_bytes: u64,
    /// Wall time for which a key waits to be taken.
    pub retention_ms: u64,
    /// Where key expires to make room: what the store holds for the pool at most. 0 where links wait.
    capacity_bytes: AtomicU64,
    /// In blocks that found no room, and with which links wait.
    waiting_bytes: AtomicU64,
    ids: RwLock<Option<Arc<IdCodec>>>,
    connected: AtomicBool,
    /// Number of the newest form of key IDs that the peer reads, as it last said.
    id_form: AtomicU32,
    /// Something has changed that the dialogue should look at: a block was offered, or key is wanted.
    pub wake: Notify,
    /// Counts what the dialogue has brought about: those who wait for key look again.
    progress: watch::Sender<u64>,
    demand: [Demand; 2],
    pub(crate) known_origins: Origins,
    /// The block that the site's module of each link handed over last.
    handed_over: Mutex<BTreeMap<String, u64>>,
    pub shares: mpsc::Sender<ShareOut>,
    /// What each application of this site has had of it.
    pub(crate) fair: FairShare,
    /// What the peer last said of itself.
    pub(super) peer_marks: Mutex<PeerMarks>,
    /// Another version of the dialogue, which the peer speaks.
    peer_version: Mutex<Option<u32>>,
    /// Key of the present generation for what must stay secret should a pad serve twice.
    generation_key: RwLock<Option<(u32, Secret)>>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept under these is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much of a use is drawn, and how much somebody waits for.
#[derive(Default)]
struct Demand {
    wanted_bytes: AtomicU64,
    handed_out_before: AtomicU64,
    target_bytes: AtomicU64,
}

impl Pool {
    pub fn new(
        store: Arc<KeyStore>,
        site: &str,
        peer: &str,
        adjacent: bool,
        relay_transfer_bytes: u64,
        retention_ms: u64,
    ) -> (Arc<Self>, mpsc::Receiver<ShareOut>) {
        let (shares, outgoing) = mpsc::channel(MESSAGES_IN_FLIGHT);
        let pool = Arc::new(Self {
            store,
            site: site.to_owned(),
            peer: peer.to_owned(),
            adjacent,
            relayed: relay_transfer_bytes > 0,
            relay_pad_bytes: match relay_transfer_bytes {
                0 => 0,
                key => (key + SEAL_OVERHEAD_BYTES as u64).next_multiple_of(GRANT_UNIT_BYTES),
            },
            retention_ms,
            capacity_bytes: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            ids: RwLock::default(),
            connected: AtomicBool::new(false),
            id_form: AtomicU32::new(Form::CycleWalking.number()),
            wake: Notify::new(),
            progress: watch::Sender::new(0),
            demand: Default::default(),
            known_origins: Origins::default(),
            handed_over: Mutex::default(),
            shares,
            fair: FairShare::default(),
            peer_marks: Mutex::default(),
            peer_version: Mutex::default(),
            generation_key: RwLock::default(),
        });
        (pool, outgoing)
    }

    /// Whether this site coordinates the pair.
    pub fn coordinates(&self) -> bool {
        self.site < self.peer
    }

    /// From here on the oldest key expires where the pool is about to hold as much as this.
    pub fn expire_beyond(&self, capacity_bytes: u64) {
        self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
    }

    /// In blocks that found no room, and with which links wait.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// A link waits with a block of this many bytes until there is room, or until this is dropped.
    pub(crate) fn wait_for_room(&self, bytes: u64) -> WaitsForRoom<'_> {
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.wake.notify_one();
        WaitsForRoom { pool: self, bytes }
    }

    /// What must expire: a sixteenth of the pool is kept free, so that links seldom wait for two disks, and another
    /// sixteenth goes with it, so that it is seldom done.
    pub(super) fn excess_bytes(&self) -> u64 {
        let capacity = self.capacity_bytes.load(Ordering::Relaxed);
        if capacity == 0 {
            return 0;
        }
        let Levels { stored_bytes, offered_bytes, .. } = self.levels();
        let held = stored_bytes + offered_bytes + self.waiting_bytes();
        if held <= capacity - capacity / 16 { 0 } else { held - (capacity - capacity / 8) }
    }

    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub fn levels(&self) -> Levels {
        self.store.levels(&self.peer).unwrap_or_default()
    }

    /// Whether a part of it ever came over relays.
    pub fn has_relayed(&self) -> bool {
        self.store.ledger(&self.peer).is_ok_and(|ledger| ledger.relayed_bits > 0)
    }

    /// How key IDs of this pair are made; nothing before the two sites have met.
    pub fn ids(&self) -> Option<Arc<IdCodec>> {
        self.ids.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The form that IDs for this peer have: what it last said that it reads, also across a restart. So a store that was
    /// put back gives a place the ID that it had, before it meets its peer.
    pub fn id_form(&self) -> Form {
        Form::read_by(self.id_form.load(Ordering::Relaxed))
    }

    /// The peer says what it reads: it may have become another release.
    pub(super) async fn hear_id_form(&self, theirs: &PairHello) -> Result<()> {
        let form = Form::read_by(theirs.key_id_form);
        if form != self.id_form() {
            let known = Secret::new(form.number().to_le_bytes().to_vec());
            self.store.meta_put(&self.peer, META_ID_FORM, known).await.context("note which key IDs the peer reads")?;
            self.id_form.store(form.number(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes up what the two sites agreed on before this start, and how far the modules of these links came.
    pub async fn load(&self, links: impl Iterator<Item = &str>) -> Result<()> {
        for link in links {
            let known = self.store.meta_get(&self.peer, &handed_over_name(link)).await;
            let known = known.context("read which block was handed over")?;
            if let Some(number) = known.and_then(|number| number.expose().try_into().ok()) {
                let mut handed_over = self.handed_over.lock().unwrap_or_else(PoisonError::into_inner);
                handed_over.insert(link.to_owned(), u64::from_le_bytes(number));
            }
        }
        let marks = self.store.meta_get(&self.peer, META_MARKS).await.context("read what the peer said of itself")?;
        if let Some(marks) = marks.as_ref().and_then(PeerMarks::decode) {
            *locked(&self.peer_marks) = marks;
        }
        let form = self.store.meta_get(&self.peer, META_ID_FORM).await.context("read which key IDs the peer reads")?;
        if let Some(form) = form.and_then(|form| form.expose().try_into().ok()) {
            self.id_form.store(u32::from_le_bytes(form), Ordering::Relaxed);
        }
        let generation = self.levels().generation;
        if let Some(secret) = self.id_secret_of(generation).await? {
            self.set_ids(generation, &secret)?;
        }
        Ok(())
    }

    fn set_ids(&self, generation: u32, secret: &Secret) -> Result<()> {
        let bytes: &[u8; ID_SECRET_BYTES] = secret.expose().try_into().ok().context("an ID secret has 32 bytes")?;
        let codec = Arc::new(IdCodec::new(generation, bytes));
        *self.ids.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(codec);
        Ok(())
    }

    /// The secret under which the key IDs of a generation are made, where the two ends have agreed on one. That of an
    /// earlier release was one for all generations.
    pub(super) async fn id_secret_of(&self, generation: u32) -> Result<Option<Secret>> {
        let known = self.store.meta_get(&self.peer, META_SECRET).await.context("read the ID secret")?;
        Ok(known.and_then(|known| match known.expose() {
            all if all.len() == ID_SECRET_BYTES => Some(known.clone()),
            bytes => {
                let (of, secret) = bytes.split_first_chunk::<4>()?;
                (u32::from_le_bytes(*of) == generation).then(|| Secret::copy_of(secret))
            }
        }))
    }

    /// From here on the IDs of this generation are made under `secret`, also after a restart.
    pub(super) async fn keep_id_secret(&self, generation: u32, secret: &Secret) -> Result<()> {
        self.set_ids(generation, secret)?;
        let kept = Secret::new([&generation.to_le_bytes()[..], secret.expose()].concat());
        self.store.meta_put(&self.peer, META_SECRET, kept).await.context("keep the ID secret")
    }

    /// Key that both ends kept apart from the first block of the present generation. A pool that an earlier release
    /// began has none before its next generation.
    pub(crate) async fn generation_key(&self, generation: u32) -> Result<Option<Secret>, StoreError> {
        let known = self.generation_key.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, key)) = known.filter(|(of, _)| *of == generation) {
            return Ok(Some(key));
        }
        let key = self.store.generation_key(&self.peer, generation).await?;
        if let Some(key) = &key {
            let mut known = self.generation_key.write().unwrap_or_else(PoisonError::into_inner);
            *known = Some((generation, key.clone()));
        }
        Ok(key)
    }

    /// Why nothing of the pool is used, if so, with the site whose store was put back.
    pub fn rolled_back(&self) -> Option<RolledBack> {
        let mut known = self.store.rolled_back(&self.peer)?;
        if known.site.is_empty() {
            known.site.clone_from(&self.site);
        }
        Some(known)
    }

    /// The version that the peer speaks, where it is another one.
    pub fn peer_version(&self) -> Option<u32> {
        *locked(&self.peer_version)
    }

    pub(super) fn check_version(&self, theirs: &PairHello) -> Result<()> {
        let other = Some(theirs.version).filter(|version| *version != VERSION);
        *locked(&self.peer_version) = other;
        match other {
            Some(theirs) => Err(Lasting::PeerVersion { theirs }.into()),
            None => Ok(()),
        }
    }

    /// What the peer says of itself, in the present generation.
    pub(super) fn hear_marks(&self, marks: Option<PairMarks>) {
        let (Some(marks), generation) = (marks, self.levels().generation) else { return };
        let mut known = locked(&self.peer_marks);
        if known.generation != generation || known.marks != marks {
            *known = PeerMarks { generation, marks, noted: false };
        }
    }

    /// Puts on the disk what the peer last said of itself, so that it is held against what it says next.
    pub(crate) async fn note_marks(&self) -> Result<()> {
        let known = {
            let mut known = locked(&self.peer_marks);
            if known.noted || known.marks == PairMarks::default() {
                return Ok(());
            }
            known.noted = true;
            *known
        };
        self.store.meta_put(&self.peer, META_MARKS, known.encode()).await.context("note what the peer said of itself")
    }

    /// Compares where both ends stand.
    pub(super) fn judge(&self, ours: &PairHello, theirs: &PairHello) -> Verdict {
        let end = |site: &str, hello: &PairHello| End { site: site.to_owned(), hello: hello.clone() };
        // Key was handed out while the peer was heard.
        let most = Some(wire_marks(&self.store.standing(&self.peer).unwrap_or_default().most));
        let ours = &PairHello { most, ..ours.clone() };
        let known = *locked(&self.peer_marks);
        let remembered = if known.generation == theirs.generation { known.marks } else { PairMarks::default() };
        verdict(&end(&self.site, ours), &end(&self.peer, theirs), &remembered, self.coordinates())
    }

    /// Nothing of the pool is used from here on: the store of `site` was put back.
    pub(super) async fn give_in(&self, site: &str, why: &str) -> Result<Lasting> {
        let site = if site == self.site { &self.site } else { &self.peer };
        let known = RolledBack { site: site.clone(), since_ms: crate::now_ms(), why: why.chars().take(200).collect() };
        self.store.mark_rolled_back(&self.peer, known).await.context("note that a store was put back")?;
        self.advanced();
        Ok(Lasting::RolledBack { site: site.clone(), why: why.to_owned() })
    }

    /// Somebody waits for this much of a use that is drawn from.
    pub fn want(&self, use_: Use, bytes: u64) {
        self.demand[lane(use_)].wanted_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// A module handed a block over, and it is on the disk. So is this, once it returns.
    pub async fn has_handed_over(&self, link: &str, number: u64) -> Result<()> {
        let value = Secret::copy_of(&number.to_le_bytes());
        let noted = self.store.meta_put(&self.peer, &handed_over_name(link), value).await;
        noted.context("note which block was handed over")?;
        self.handed_over.lock().unwrap_or_else(PoisonError::into_inner).insert(link.to_owned(), number);
        self.wake.notify_one();
        Ok(())
    }

    /// The block that a link's module handed over last. It hands them over in order: none before comes any more.
    pub(crate) fn handed_over(&self, link: &str) -> Option<u64> {
        self.handed_over.lock().unwrap_or_else(PoisonError::into_inner).get(link).copied()
    }

    pub(super) fn is_passed_over(&self, link: &str, number: u64) -> bool {
        self.handed_over(link).is_some_and(|newest| newest > number)
    }

    /// Sees changes from now on.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub(super) fn advanced(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    /// How much of a use should lie ready: what two seconds at the present rate draw, falling away slowly when less is
    /// drawn, and what somebody waits for.
    fn target(&self, use_: Use, pulse: bool) -> u64 {
        let demand = &self.demand[lane(use_)];
        if use_ == Use::RelayOut && !self.relayed {
            return 0;
        }
        let mut target = demand.target_bytes.load(Ordering::Relaxed);
        if pulse {
            let ledger = self.store.ledger(&self.peer).unwrap_or_default();
            let handed_out = ledger.of(use_).handed_out_bits / 8;
            let drawn = handed_out.saturating_sub(demand.handed_out_before.swap(handed_out, Ordering::Relaxed));
            let ahead = drawn * 2 * (1000 / PULSE.as_millis() as u64);
            target = ahead.max(target - target / 16);
        }
        let wanted = demand.wanted_bytes.load(Ordering::Relaxed);
        if self.levels().available(use_) >= wanted {
            demand.wanted_bytes.store(0, Ordering::Relaxed);
        } else {
            target = target.max(2 * wanted);
        }
        // However little key there is: the relay asks for none until a transfer fits.
        let transfers = if use_ == Use::RelayOut { TRANSFERS_AHEAD * self.relay_pad_bytes } else { 0 };
        target = target.clamp(transfers.clamp(GRANT_BYTES_MIN, GRANT_BYTES_MAX), GRANT_BYTES_MAX);
        demand.target_bytes.store(target, Ordering::Relaxed);
        target
    }

    /// What this site has to draw from, and what it should have.
    pub(super) fn own_levels(&self, pulse: bool) -> wire::Levels {
        let levels = self.levels();
        wire::Levels {
            supply_out_bytes: levels.available(Use::SupplyOut),
            relay_out_bytes: levels.available(Use::RelayOut),
            supply_wanted_bytes: self.target(Use::SupplyOut, pulse),
            relay_wanted_bytes: self.target(Use::RelayOut, pulse),
            marks: Some(wire_marks(&self.store.standing(&self.peer).unwrap_or_default().least)),
            excess_bytes: self.excess_bytes(),
        }
    }

    async fn remembered_instance(&self) -> Result<Vec<u8>> {
        let known = self.store.meta_get(&self.peer, META_INSTANCE).await.context("read the peer's instance")?;
        Ok(known.map(|instance| instance.expose().to_vec()).unwrap_or_default())
    }

    pub(super) async fn remember_instance(&self, instance: &[u8]) -> Result<()> {
        let instance = Secret::new(instance.to_vec());
        self.store.meta_put(&self.peer, META_INSTANCE, instance).await.context("remember the peer's instance")
    }

    /// Where this end stands.
    pub(super) async fn hello(&self) -> Result<PairHello> {
        // First what waits its turn behind all that an earlier dialogue may have left under way.
        let peer_instance = self.remembered_instance().await?.into();
        let levels = self.levels();
        let standing = self.store.standing(&self.peer).unwrap_or_default();
        Ok(PairHello {
            version: VERSION,
            key_id_form: Form::NEWEST.number(),
            least: Some(wire_marks(&standing.least)),
            most: Some(wire_marks(&standing.most)),
            rolled_back: self.rolled_back().map(|known| wire_rolled_back(&known)),
            instance: self.store.instance_id().to_vec().into(),
            peer_instance,
            generation: levels.generation,
            stream_end: levels.end_bytes,
            grants: levels.next_grant,
            ..PairHello::default()
        })
    }

    /// Ends generations until `generation` is the current one.
    pub(super) async fn void_to(&self, generation: u32, why: &str) -> Result<()> {
        self.store.void_pool_to(&self.peer, generation, why).await.context("void the pool")?;
        Ok(())
    }
}

/// A link that waits with a block because the pool is full.
pub(crate) struct WaitsForRoom<'p> {
    pool: &'p Pool,
    bytes: u64,
}

impl Drop for WaitsForRoom<'_> {
    fn drop(&mut self) {
        self.pool.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Marks a pool as connected for as long as the dialogue lasts.
pub(super) struct Connected<'p>(&'p Pool);

impl<'p> Connected<'p> {
    pub fn new(pool: &'p Pool) -> Self {
        pool.connected.store(true, Ordering::Relaxed);
        pool.advanced();
        Self(pool)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connected.store(false, Ordering::Relaxed);
        self.0.advanced();
    }
}

fn handed_over_name(link: &str) -> String {
    format!("handed-over:{link}")
}
