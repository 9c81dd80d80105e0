//! A key supply of memory, with the semantics that the front end counts on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use etsi014::supply::{Absence, GetKey, KeyId, KeySupply, SaeId, Status, SuppliedKey, SupplyError};
use keystore::Secret;
use tokio::sync::Semaphore;

pub struct Fake {
    pub state: Mutex<State>,
    /// Requests for keys wait for a permit each.
    pub gate: Semaphore,
}

pub struct State {
    pub known: BTreeSet<&'static str>,
    pub available_bits: u64,
    pub max_sae_id_count: u32,
    /// The answer to the next requests, whatever they are.
    pub failure: Option<SupplyError>,
    /// Keys handed to masters and not yet to every slave.
    pub waiting: HashMap<KeyId, Waiting>,
    /// Requests for keys that arrived.
    pub asked: usize,
}

pub struct Waiting {
    master: SaeId,
    slaves: BTreeSet<SaeId>,
    /// Slaves that have not fetched it yet.
    left: BTreeSet<SaeId>,
    key: Vec<u8>,
}

impl Default for Fake {
    fn default() -> Self {
        let state = State {
            known: BTreeSet::from(["sae-a", "sae-b", "sae-c", "sae-d", "SAE A/1 é"]),
            available_bits: 1 << 20,
            max_sae_id_count: 2,
            failure: None,
            waiting: HashMap::new(),
            asked: 0,
        };
        Self { state: Mutex::new(state), gate: Semaphore::new(Semaphore::MAX_PERMITS) }
    }
}

impl Fake {
    fn known(&self, sae: &SaeId) -> Result<(), SupplyError> {
        let state = self.state.lock().unwrap();
        if let Some(failure) = state.failure {
            return Err(failure);
        }
        if state.known.contains(sae.as_str()) { Ok(()) } else { Err(SupplyError::UnknownSae) }
    }

    async fn wait(&self) {
        self.state.lock().unwrap().asked += 1;
        self.gate.acquire().await.unwrap().forget();
    }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

impl KeySupply for Fake {
    fn status(&self, caller: &SaeId, slave: &SaeId) -> Result<Status, SupplyError> {
        self.known(slave)?;
        let state = self.state.lock().unwrap();
        Ok(Status {
            source_KME_ID: "kme-a".to_owned(),
            target_KME_ID: "kme-b".to_owned(),
            master_SAE_ID: caller.to_string(),
            slave_SAE_ID: slave.to_string(),
            key_size: 256,
            stored_key_count: u32::try_from(state.available_bits / 256).unwrap(),
            max_key_count: 1_000_000,
            max_key_per_request: 128,
            max_key_size: 4096,
            min_key_size: 64,
            max_SAE_ID_count: state.max_sae_id_count,
            status_extension: None,
        })
    }

    async fn get_key(&self, request: GetKey<'_>) -> Result<Vec<SuppliedKey>, SupplyError> {
        self.wait().await;
        request.additional.iter().try_for_each(|sae| self.known(sae))?;
        let mut state = self.state.lock().unwrap();
        let asked_bits = u64::from(request.number) * u64::from(request.size_bits);
        if asked_bits > state.available_bits {
            let available_bits = state.available_bits;
            return Err(SupplyError::Exhausted { asked_bits, available_bits, retry_after_s: 7 });
        }
        state.available_bits -= asked_bits;
        let slaves: BTreeSet<_> = request.additional.iter().chain([request.slave]).cloned().collect();
        let make = |_| {
            let (id, mut key) = (KeyId::v4(random()), vec![0; request.size_bits as usize / 8]);
            getrandom::fill(&mut key).unwrap();
            let master = request.master.clone();
            let waiting = Waiting { master, slaves: slaves.clone(), left: slaves.clone(), key: key.clone() };
            state.waiting.insert(id, waiting);
            SuppliedKey { id, key: Secret::new(key) }
        };
        Ok((0..request.number).map(make).collect())
    }

    async fn get_key_with_ids(
        &self,
        caller: &SaeId,
        master: &SaeId,
        ids: &[KeyId],
    ) -> Result<Vec<SuppliedKey>, SupplyError> {
        self.wait().await;
        self.known(master)?;
        let mut state = self.state.lock().unwrap();
        for (at, id) in ids.iter().enumerate() {
            let waiting = state.waiting.get(id).filter(|waiting| waiting.master == *master);
            let waiting = waiting.ok_or(SupplyError::NotFound { at, why: Absence::Unknown })?;
            if !waiting.slaves.contains(caller) {
                return Err(SupplyError::Unauthorized);
            }
            if !waiting.left.contains(caller) {
                return Err(SupplyError::NotFound { at, why: Absence::Taken });
            }
        }
        let mut keys = vec![];
        for id in ids {
            let waiting = state.waiting.get_mut(id).unwrap();
            keys.push(SuppliedKey { id: *id, key: Secret::new(waiting.key.clone()) });
            waiting.left.remove(caller);
            if waiting.left.is_empty() {
                state.waiting.remove(id);
            }
        }
        Ok(keys)
    }
}
