//! The key store as its front ends see it: which pool a pair of applications draws on, and what its keys are called.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keystore::{Drawn, KeyStore, Secret, StoreError, Use};
use serde_json::Map;
use telemetry::names::span;
use topology::plan::{KeySupply as Limits, KmsConfig};

use crate::Pools;
use crate::applications::Applications;
use crate::deliveries::Deliveries;
use crate::fair::Refused;
use crate::key_id::{Described, KeyPlace};
use crate::pair::Pool;
use crate::seal::SEAL_OVERHEAD_BYTES;
use crate::share::Multicast;
use crate::told::{self, Teller, Told};
use etsi014::supply::{Absence, GetKey, KeyId, KeyLimits, KeySupply, SaeId, Status, SuppliedKey, SupplyError};

/// How long a request waits for key that is stored but not assigned to it yet.
const ASSIGNMENT_PATIENCE: Duration = Duration::from_secs(1);
const RETRY_AFTER_S: u32 = 5;

/// Supplies the applications of one site.
pub struct Supplier {
    site: String,
    kme_id: String,
    store: Arc<KeyStore>,
    pools: Pools,
    applications: Applications,
    limits: Limits,
    buckets: Mutex<HashMap<SaeId, Bucket>>,
    /// Keys that an application may ask for once more.
    repeatable: Mutex<HashMap<KeyId, Repeatable>>,
    teller: Teller,
    pub counts: Counts,
}

/// Keys handed out since the start.
#[derive(Default)]
pub struct Counts {
    pub supplied: std::sync::atomic::AtomicU64,
    pub fetched: std::sync::atomic::AtomicU64,
}

struct Repeatable {
    slave: SaeId,
    key: Secret,
    until: Instant,
}

/// A token bucket: what an application may still take.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Supplier {
    pub fn new(
        config: &KmsConfig,
        store: Arc<KeyStore>,
        pools: Pools,
        applications: Applications,
        deliveries: Deliveries,
    ) -> Self {
        Self {
            site: config.site.clone(),
            kme_id: config.name.clone(),
            store,
            pools,
            applications,
            limits: config.supply.clone(),
            buckets: Mutex::default(),
            repeatable: Mutex::default(),
            teller: Teller::new(&config.name, &config.site, deliveries),
            counts: Counts::default(),
        }
    }

    pub fn store(&self) -> &KeyStore {
        &self.store
    }

    /// Where an ID of any pool points, for those who look for a key that is not there.
    #[cfg(test)]
    pub fn describe(&self, id: &KeyId) -> String {
        let of = |pool: Arc<Pool>| {
            let place = pool.ids().and_then(|ids| ids.decode(id)).map(|described| described.place);
            format!(
                "{place:?} in the pool with {} of {:?}, {:?}",
                pool.peer,
                pool.levels(),
                pool.store.ledger(&pool.peer)
            )
        };
        self.pools.all().into_iter().map(of).collect::<Vec<_>>().join("; ")
    }

    fn site_of(&self, sae: &SaeId) -> Result<Arc<str>, SupplyError> {
        self.applications.site_of(sae).ok_or(SupplyError::UnknownSae)
    }

    /// There is a pool for every site to which links lead, whether there is key in it yet or not.
    fn pool(&self, site: &str, slave: usize) -> Result<Arc<Pool>, SupplyError> {
        self.pools.get(site).ok_or(SupplyError::NoPath { slave })
    }

    /// Takes `keys` from what the application may take in this second.
    fn admit(&self, sae: &SaeId, keys: u32) -> Result<(), SupplyError> {
        let rate = f64::from(self.limits.keys_per_second);
        if rate == 0.0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let bucket = buckets.entry(sae.clone()).or_insert(Bucket { tokens: rate, at: now });
        bucket.tokens = (bucket.tokens + rate * now.duration_since(bucket.at).as_secs_f64()).min(rate);
        bucket.at = now;
        // A request larger than a second's worth is let through when the bucket is full, and empties it below zero.
        if bucket.tokens < f64::from(keys).min(rate) {
            return Err(SupplyError::RateLimited { retry_after_s: 1 });
        }
        bucket.tokens -= f64::from(keys);
        Ok(())
    }

    /// Books `bytes` of what is assigned to applications of this site, as far as the others' shares leave them.
    fn claim(&self, sae: &SaeId, pool: &Pool, bytes: u64) -> Result<(), Refused> {
        pool.fair.claim(sae, bytes, || pool.levels().available(Use::SupplyOut), Instant::now())
    }

    fn give_back(&self, sae: &SaeId, pool: &Pool, bytes: u64) {
        pool.fair.give_back(sae, bytes);
    }

    /// Draws keys from the pool within the application's share; where there is enough but not assigned yet, waits for
    /// that a little.
    async fn draw(&self, sae: &SaeId, pool: &Pool, bytes: usize, number: usize) -> Result<Vec<Drawn>, SupplyError> {
        let asked = (bytes * number) as u64;
        let patience = tokio::time::Instant::now() + ASSIGNMENT_PATIENCE;
        let mut progress = pool.progress();
        loop {
            let claimed = self.claim(sae, pool, asked);
            if claimed.is_ok() {
                match pool.store.draw_many_async(&pool.peer, Use::SupplyOut, bytes, number).await {
                    Ok(keys) => {
                        shell::failpoint::hit("key.drawn");
                        told::drawn(pool, Use::SupplyOut, &keys);
                        return Ok(keys);
                    }
                    Err(error) => {
                        self.give_back(sae, pool, asked);
                        if matches!(error, StoreError::RolledBack { .. }) {
                            return Err(SupplyError::RolledBack);
                        }
                        if !matches!(error, StoreError::Exhausted { .. } | StoreError::UnknownPeer { .. }) {
                            tracing::error!(%error, peer = pool.peer, "cannot draw key");
                            return Err(SupplyError::Failed("the key store cannot be used"));
                        }
                    }
                }
            }
            let levels = pool.levels();
            let could_be = levels.available(Use::SupplyOut) + levels.unassigned_bytes;
            let exhausted = SupplyError::Exhausted {
                asked_bits: 8 * asked,
                available_bits: 8 * claimed.map_or_else(|refused| refused.allowed_bytes, |()| could_be),
                retry_after_s: RETRY_AFTER_S,
            };
            if could_be < asked || !pool.connected() || (claimed.is_err() && levels.unassigned_bytes == 0) {
                return Err(exhausted);
            }
            // Some is lost at the ends of grants, and the others' shares have to lie beside it.
            let reserved = claimed.map_or_else(|refused| refused.reserved_bytes, |()| 0);
            pool.want(Use::SupplyOut, asked + bytes as u64 + reserved);
            if tokio::time::timeout_at(patience, progress.changed()).await.is_err() {
                return Err(exhausted);
            }
        }
    }

    async fn unicast(&self, request: &GetKey<'_>, pool: &Pool) -> Result<Vec<SuppliedKey>, SupplyError> {
        let (bytes, number) = (request.size_bits as usize / 8, request.number as usize);
        let ids = pool.ids().ok_or(SupplyError::Exhausted {
            asked_bits: 8 * (bytes * number) as u64,
            available_bits: 0,
            retry_after_s: RETRY_AFTER_S,
        })?;
        let (master, slave) = (ids.tag(request.master.as_str()), ids.tag(request.slave.as_str()));
        let drawn = self.draw(request.master, pool, bytes, number).await?;
        if drawn.iter().any(|drawn| drawn.generation != ids.generation()) {
            // The generation ended meanwhile, and what was drawn of it with it.
            let (asked_bits, available_bits) = (8 * (bytes * number) as u64, 0);
            return Err(SupplyError::Exhausted { asked_bits, available_bits, retry_after_s: RETRY_AFTER_S });
        }
        let form = pool.id_form();
        let (mut keys, mut places) = (Vec::with_capacity(number), Vec::with_capacity(number));
        for drawn in drawn {
            let place = KeyPlace {
                generation: drawn.generation,
                start: drawn.start,
                bytes: bytes as u32,
                from_coordinator: pool.coordinates(),
            };
            let id = ids.encode(Described { place, master, slave }, form);
            let id = id.ok_or(SupplyError::Failed("the pool is too long for key IDs"))?;
            places.push(drawn.start);
            keys.push(SuppliedKey { id, key: drawn.key });
        }
        let told = Told { master: request.master, slave: request.slave, keys: &keys, pool: Some((pool, &places)) };
        self.teller.tell(span::SUPPLY, &told).await;
        if !pool.adjacent || pool.has_relayed() {
            self.teller.note_relayed(&told).await;
        }
        Ok(keys)
    }

    /// Keys that more than one site, or only this one, has to hold: kept under random IDs until they are taken.
    async fn multicast(&self, request: &GetKey<'_>) -> Result<Vec<SuppliedKey>, SupplyError> {
        let mut sites: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
        for (index, slave) in std::iter::once(request.slave).chain(request.additional).enumerate() {
            let site = self.site_of(slave)?;
            // Before any site gets a key: all of them can get it, or none does.
            if *site != *self.site {
                self.pool(&site, index)?;
            }
            sites.entry(site).or_default().push(slave.as_str().to_owned());
        }
        let asked_bits = u64::from(request.number) * u64::from(request.size_bits);
        let failed = |_: anyhow::Error| SupplyError::Failed("no random bytes");
        let mut keys = Vec::with_capacity(request.number as usize);
        for _ in 0..request.number {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map_err(|_| SupplyError::Failed("no random bytes"))?;
            let id = KeyId::v4(id);
            let key = crate::seal::random(request.size_bits as usize / 8).map_err(failed)?;
            for (site, slaves) in &sites {
                let multicast = Multicast {
                    key_id: id.0,
                    key: &key,
                    master: request.master,
                    slaves: slaves.clone(),
                    expires_ms: crate::now_ms() + self.limits.retention_ms,
                };
                self.place(site, &multicast, asked_bits).await?;
            }
            keys.push(SuppliedKey { id, key });
        }
        let told = Told { master: request.master, slave: request.slave, keys: &keys, pool: None };
        self.teller.tell(span::SUPPLY, &told).await;
        Ok(keys)
    }

    async fn place(&self, site: &str, multicast: &Multicast<'_>, asked_bits: u64) -> Result<(), SupplyError> {
        if site == self.site {
            return self.store.deposit(multicast.deposit()).await.map_err(|error| match error {
                StoreError::TooManyDeposits { .. } => SupplyError::TooManyWait { retry_after_s: RETRY_AFTER_S },
                StoreError::RolledBack { .. } => SupplyError::RolledBack,
                error => {
                    tracing::error!(%error, "cannot keep a key");
                    SupplyError::Failed("the key store cannot be used")
                }
            });
        }
        let pool = &self.pool(site, 0)?;
        let bytes = (multicast.key.len() + SEAL_OVERHEAD_BYTES) as u64;
        self.claim(multicast.master, pool, bytes).map_err(|refused| SupplyError::Exhausted {
            asked_bits,
            available_bits: 8 * refused.allowed_bytes.saturating_sub(SEAL_OVERHEAD_BYTES as u64),
            retry_after_s: RETRY_AFTER_S,
        })?;
        multicast.send(pool).await.map_err(|error| {
            self.give_back(multicast.master, pool, bytes);
            tracing::warn!(peer = site, "a key did not reach a further slave: {}", shell::chain(&error));
            lasting(pool, SupplyError::Exhausted { asked_bits, available_bits: 0, retry_after_s: RETRY_AFTER_S })
        })
    }

    async fn fetch_places(
        &self,
        pool: &Pool,
        slave: &SaeId,
        master: &SaeId,
        ids: &[KeyId],
    ) -> Result<Option<(Vec<Secret>, Vec<u64>)>, SupplyError> {
        let Some(codec) = pool.ids() else { return Ok(None) };
        let described: Vec<Option<Described>> = ids.iter().map(|id| codec.decode(id)).collect();
        if described.iter().all(Option::is_none) {
            return Ok(None);
        }
        let (master, slave) = (codec.tag(master.as_str()), codec.tag(slave.as_str()));
        let generation = pool.levels().generation;
        let mut ranges = Vec::with_capacity(ids.len());
        for (at, described) in described.into_iter().enumerate() {
            let unknown = SupplyError::NotFound { at, why: Absence::Unknown };
            let Described { place, master: made_for, slave: made_to } = described.ok_or(unknown)?;
            if made_to != slave {
                return Err(SupplyError::Unauthorized);
            }
            if made_for != master || place.from_coordinator == pool.coordinates() {
                return Err(unknown);
            }
            if place.generation != generation {
                return Err(unknown);
            }
            ranges.push((place.start, u64::from(place.bytes)));
        }
        let absent = |start: u64, why| {
            let at = ranges.iter().position(|range| range.0 == start).unwrap_or_default();
            Err(SupplyError::NotFound { at, why })
        };
        match pool.store.redeem(&pool.peer, Use::SupplyIn, generation, &ranges).await {
            Ok(keys) => {
                shell::failpoint::hit("key.redeemed");
                Ok(Some((keys, ranges.iter().map(|(start, _)| *start).collect())))
            }
            Err(StoreError::NotGranted { start, .. }) => absent(start, Absence::Unknown),
            Err(StoreError::AlreadyTaken { start, .. }) => absent(start, Absence::Taken),
            Err(StoreError::OtherGeneration { .. } | StoreError::UnknownPeer { .. }) => {
                Err(SupplyError::NotFound { at: 0, why: Absence::Unknown })
            }
            Err(StoreError::RolledBack { .. }) => Err(SupplyError::RolledBack),
            Err(error) => {
                tracing::error!(%error, peer = pool.peer, "cannot redeem key");
                Err(SupplyError::Failed("the key store cannot be used"))
            }
        }
    }

    async fn fetch_deposits(&self, slave: &SaeId, master: &SaeId, ids: &[KeyId]) -> Result<Vec<Secret>, SupplyError> {
        let ids: Vec<[u8; 16]> = ids.iter().map(|id| id.0).collect();
        match self.store.take_deposit(&ids, slave.as_str(), master.as_str(), crate::now_ms()).await {
            Ok(taken) => Ok(taken.into_iter().map(|taken| taken.key).collect()),
            // One that every slave has fetched is not remembered.
            Err(StoreError::DepositNotFound { index }) => {
                Err(SupplyError::NotFound { at: index, why: Absence::Unknown })
            }
            Err(StoreError::DepositNotForCaller) => Err(SupplyError::Unauthorized),
            Err(StoreError::RolledBack { .. }) => Err(SupplyError::RolledBack),
            Err(error) => {
                tracing::error!(%error, "cannot take a deposit");
                Err(SupplyError::Failed("the key store cannot be used"))
            }
        }
    }

    /// Keys of an earlier answer, where the topology lets it be repeated.
    fn repeated(&self, slave: &SaeId, ids: &[KeyId]) -> Option<Vec<SuppliedKey>> {
        if self.limits.redelivery_window_ms == 0 {
            return None;
        }
        let now = Instant::now();
        let mut kept = self.repeatable.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.retain(|_, known| known.until > now);
        let again = |id: &KeyId| {
            let known = kept.get(id).filter(|known| known.slave == *slave)?;
            Some(SuppliedKey { id: *id, key: known.key.clone() })
        };
        ids.iter().map(again).collect()
    }

    fn keep(&self, slave: &SaeId, keys: &[SuppliedKey]) {
        if self.limits.redelivery_window_ms == 0 {
            return;
        }
        let until = Instant::now() + Duration::from_millis(self.limits.redelivery_window_ms);
        let mut kept = self.repeatable.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for supplied in keys {
            kept.insert(supplied.id, Repeatable { slave: slave.clone(), key: supplied.key.clone(), until });
        }
    }
}

/// Why there is no key: the pool was put back, if it was. The store refuses then, so a request that gets its key need
/// not ask.
fn lasting(pool: &Pool, error: SupplyError) -> SupplyError {
    if pool.rolled_back().is_some() { SupplyError::RolledBack } else { error }
}

/// What does not come from the pool itself is handed out only while the pool is used.
fn usable(pool: Option<&Pool>) -> Result<(), SupplyError> {
    if pool.is_some_and(|pool| pool.rolled_back().is_some()) { Err(SupplyError::RolledBack) } else { Ok(()) }
}

impl KeySupply for Supplier {
    fn status(&self, caller: &SaeId, slave: &SaeId) -> Result<Status, SupplyError> {
        let site = self.site_of(slave)?;
        let limits = KeySupply::limits(self, caller, slave)?;
        let key_bytes = u64::from(limits.key_size_bits / 8).max(1);
        let pool = self.pools.get(&site);
        // No key will ever be stored, which a count of 0 alone does not say.
        let no_path = pool.is_none() && *site != *self.site;
        let stored = match pool {
            Some(pool) if pool.rolled_back().is_some() => 0,
            Some(pool) if pool.ids().is_some() => {
                let levels = pool.levels();
                (levels.available(Use::SupplyOut) + levels.unassigned_bytes) / key_bytes
            }
            // Keys for this site itself are made when they are asked for.
            _ if *site == *self.site => u64::from(self.limits.key_count_max),
            _ => 0,
        };
        Ok(Status {
            source_KME_ID: self.kme_id.clone(),
            target_KME_ID: topology::plan::kms_name(&site),
            master_SAE_ID: caller.as_str().to_owned(),
            slave_SAE_ID: slave.as_str().to_owned(),
            key_size: limits.key_size_bits,
            stored_key_count: u32::try_from(stored).unwrap_or(u32::MAX).min(self.limits.key_count_max),
            max_key_count: self.limits.key_count_max,
            max_key_per_request: limits.max_key_per_request,
            max_key_size: limits.max_key_size_bits,
            min_key_size: limits.min_key_size_bits,
            max_SAE_ID_count: limits.max_sae_id_count,
            status_extension: no_path.then(|| Map::from_iter([("path".to_owned(), "none".into())])),
        })
    }

    fn limits(&self, _: &SaeId, slave: &SaeId) -> Result<KeyLimits, SupplyError> {
        self.site_of(slave)?;
        Ok(KeyLimits {
            key_size_bits: self.limits.key_size_bits,
            min_key_size_bits: self.limits.key_size_min_bits,
            max_key_size_bits: self.limits.key_size_max_bits,
            max_key_per_request: self.limits.keys_per_request,
            max_sae_id_count: self.limits.additional_saes,
        })
    }

    async fn get_key(&self, request: GetKey<'_>) -> Result<Vec<SuppliedKey>, SupplyError> {
        let site = self.site_of(request.slave)?;
        for further in request.additional {
            self.site_of(further)?;
        }
        self.admit(request.master, request.number)?;
        let keys = if request.additional.is_empty() && *site != *self.site {
            let pool = self.pool(&site, 0)?;
            self.unicast(&request, &pool).await.map_err(|error| lasting(&pool, error))?
        } else {
            self.multicast(&request).await?
        };
        self.counts.supplied.fetch_add(keys.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(keys)
    }

    async fn get_key_with_ids(
        &self,
        caller: &SaeId,
        master: &SaeId,
        ids: &[KeyId],
    ) -> Result<Vec<SuppliedKey>, SupplyError> {
        let site = self.site_of(master)?;
        let pool = self.pools.get(&site);
        if let Some(again) = self.repeated(caller, ids) {
            usable(pool.as_deref())?;
            return Ok(again);
        }
        let fetched = match pool.as_deref() {
            Some(pool) => self.fetch_places(pool, caller, master, ids).await.map_err(|error| lasting(pool, error))?,
            None => None,
        };
        let (keys, places) = match fetched {
            Some((keys, places)) => (keys, Some(places)),
            None => {
                usable(pool.as_deref())?;
                (self.fetch_deposits(caller, master, ids).await?, None)
            }
        };
        let keys: Vec<SuppliedKey> = ids.iter().zip(keys).map(|(id, key)| SuppliedKey { id: *id, key }).collect();
        self.keep(caller, &keys);
        self.counts.fetched.fetch_add(keys.len() as u64, std::sync::atomic::Ordering::Relaxed);
        let pool = pool.as_deref().zip(places.as_deref());
        self.teller.tell(span::FETCH, &Told { master, slave: caller, keys: &keys, pool }).await;
        Ok(keys)
    }
}
