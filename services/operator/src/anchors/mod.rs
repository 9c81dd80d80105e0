//! Keeps the ceilings of every topology's stores, in objects of the operator's own namespace: what backs up the
//! namespace of a topology does not take them, and so a volume that is put back is noticed.
//!
//! A service that counts is called and answers when it wants a ceiling raised; what is wanted within a second shares
//! one write, and only what is written is told.

pub mod object;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use proto::anchor::v1::anchor_client::AnchorClient;
use proto::anchor::v1::{ExchangeRequest, StoreCeilings};
use shell::anchoring::read_stores;
use shell::{Connector, Credentials, Endpoint};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use topology::plan::ServiceConfig;

use self::object::Kept;
use crate::build::labels;
use crate::layout::Layout;
use crate::material::Material;
use crate::names::{self, OBJECT_CHARS};
use crate::observe;
use crate::resource::TopologyObject;
use crate::settings::{OPERATOR, Settings};

/// What is wanted in this time is written together.
const BATCH: Duration = Duration::from_secs(1);
/// Longest time that a service may wait for something to say.
const CALL: Duration = Duration::from_secs(30);
/// Time to connect, and beyond [`CALL`] until an answer is given up.
const ANSWER: Duration = Duration::from_secs(5);
/// Wait before a service, or the API server, is tried again.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(8);
/// Connections of one topology that are opened at a time.
const CONNECTING_AT_ONCE: usize = 64;
/// A service that was not reached for so long is told of: others that start are not yet.
const SILENCE: Duration = Duration::from_secs(10);
/// Key of the text in its object.
const KEY: &str = "ceilings.json";
/// What an object keeps the ceilings of, as `NAMESPACE.NAME`.
const OF: &str = "qkdnet.dev/anchor-of";

/// Keepers of all topologies.
#[derive(Default)]
pub struct Keepers(Mutex<HashMap<ObjectRef<TopologyObject>, Keeper>>);

/// Whether a service counts what must not be put back.
pub fn counts(config: &ServiceConfig) -> bool {
    match config {
        ServiceConfig::Channel(_) | ServiceConfig::Kms(_) => true,
        ServiceConfig::Source(_)
        | ServiceConfig::Detector(_)
        | ServiceConfig::Transmitter(_)
        | ServiceConfig::Relay(_)
        | ServiceConfig::Pacer(_) => false,
    }
}

/// Name of the first object of a topology; of further ones with a number.
pub fn object_name(namespace: &str, topology: &str, part: usize) -> String {
    let number = if part == 0 { String::new() } else { format!(".{part}") };
    // A namespace has no dot, so no two topologies have the same name.
    names::object("qkdnet-anchor", &format!("{namespace}.{topology}{number}"), OBJECT_CHARS)
}

impl Keepers {
    /// Sees that every service of a topology that counts is followed.
    pub fn follow(
        &self,
        key: &ObjectRef<TopologyObject>,
        layout: &Layout,
        material: &Material,
        settings: &Settings,
        client: &Client,
    ) {
        let Some(own_namespace) = &settings.operator_namespace else { return };
        let services: BTreeMap<String, String> = layout
            .services()
            .filter(|(_, placed)| counts(&placed.service.config))
            .map(|(unit, placed)| (placed.service.name.clone(), observe::address(layout, unit, placed, settings)))
            .collect();
        let mut keepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keeper = keepers
            .entry(key.clone())
            .or_insert_with(|| Keeper::start(client, own_namespace, &layout.namespace, &layout.topology));
        let certificate = &material.control.certificate;
        if keeper.services == services && keeper.certificate == *certificate {
            return;
        }
        match material.control_credentials() {
            Ok(credentials) => {
                keeper.call(services, &credentials);
                keeper.certificate.clone_from(certificate);
            }
            Err(error) => tracing::error!(topology = %key, %error, "control certificate"),
        }
    }

    /// Services that wait to be told their ceilings and cannot be, with why.
    pub fn waiting(&self, key: &ObjectRef<TopologyObject>) -> BTreeMap<String, String> {
        let keepers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.get(key).map(|keeper| keeper.waiting(SILENCE)).unwrap_or_default()
    }

    /// Follows nobody of this topology any more; what is kept stays.
    pub fn stop(&self, key: &ObjectRef<TopologyObject>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    pub fn keep_only(&self, alive: &dyn Fn(&ObjectRef<TopologyObject>) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| alive(key));
    }
}

/// Removes what is kept of a topology whose volumes go with it.
pub async fn remove(client: &Client, settings: &Settings, namespace: &str, topology: &str) -> Result<(), kube::Error> {
    let Some(own_namespace) = &settings.operator_namespace else { return Ok(()) };
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), own_namespace);
    for part in 0.. {
        match api.delete(&object_name(namespace, topology, part), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Follows the services of one topology, until it is dropped.
pub struct Keeper {
    book: Arc<Book>,
    services: BTreeMap<String, String>,
    certificate: String,
    /// Ends the calls of the present services.
    calls: CancellationToken,
    stop: CancellationToken,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Keeper {
    /// Reads what is kept in the operator's namespace.
    pub fn start(client: &Client, own_namespace: &str, namespace: &str, topology: &str) -> Self {
        let objects = Objects {
            api: Api::namespaced(client.clone(), own_namespace),
            namespace: namespace.to_owned(),
            topology: topology.to_owned(),
        };
        let (book, stop) = (Arc::new(Book::default()), CancellationToken::new());
        let (writing, stopped) = (book.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = writing.keep(objects) => {}
                () = stopped.cancelled() => {}
            }
        });
        let calls = stop.child_token();
        Self { book, services: BTreeMap::new(), certificate: String::new(), calls, stop }
    }

    /// Services that were not reached for so long, with why.
    pub fn waiting(&self, silence: Duration) -> BTreeMap<String, String> {
        self.book.waiting(silence)
    }

    /// Calls these services from now on, at these addresses.
    pub fn call(&mut self, services: BTreeMap<String, String>, credentials: &Credentials) {
        self.calls.cancel();
        self.book.unreached.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.calls = self.stop.child_token();
        let connecting = Arc::new(Semaphore::new(CONNECTING_AT_ONCE));
        for (name, address) in &services {
            let caller = Caller {
                name: name.clone(),
                address: address.clone(),
                credentials: credentials.clone(),
                book: self.book.clone(),
                connecting: connecting.clone(),
            };
            let stop = self.calls.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = caller.call() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        self.services = services;
    }
}

/// What is kept of a topology, and what is to be.
#[derive(Default)]
struct Book {
    state: Mutex<State>,
    dirty: Notify,
    /// Number of the last write that is done; 0 before all was read.
    written: watch::Sender<u64>,
    /// Services that are not reached, since when and why.
    unreached: Mutex<BTreeMap<String, (Instant, String)>>,
}

#[derive(Default)]
struct State {
    /// What the cluster has.
    kept: Kept,
    /// With what is wanted since.
    next: Kept,
    /// Number of the write that will have it.
    round: u64,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self, service: &str) {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }

    fn not_reached(&self, service: &str, why: &str) {
        let mut unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        let known = unreached.entry(service.to_owned()).or_insert_with(|| (Instant::now(), String::new()));
        why.clone_into(&mut known.1);
    }

    fn waiting(&self, silence: Duration) -> BTreeMap<String, String> {
        let unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        let late = unreached.iter().filter(|(_, (since, _))| since.elapsed() >= silence);
        late.map(|(service, (_, why))| (service.clone(), why.clone())).collect()
    }

    /// Reads what is kept, then writes whatever is wanted.
    async fn keep(&self, objects: Objects) {
        let mut retry = RETRY_MIN;
        let mut texts = loop {
            let failure = match objects.read().await {
                Ok(texts) => match Kept::read(texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))) {
                    Ok(kept) => {
                        let mut state = self.lock();
                        (state.kept, state.next, state.round) = (kept.clone(), kept, 2);
                        break texts.into_iter().map(|(_, text)| text).collect::<Vec<String>>();
                    }
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            tracing::warn!(topology = objects.topology, "ceilings are not read, its services wait: {failure}");
            tokio::time::sleep(retry).await;
            retry = (2 * retry).min(RETRY_MAX);
        };
        self.written.send_replace(1);
        loop {
            self.dirty.notified().await;
            tokio::time::sleep(BATCH).await;
            let (next, round) = {
                let mut state = self.lock();
                let state = &mut *state;
                state.round += 1;
                (state.next.clone(), state.round - 1)
            };
            retry = RETRY_MIN;
            while let Err(error) = objects.write(&next, &mut texts).await {
                tracing::warn!(topology = objects.topology, "ceilings are not written: {error}");
                tokio::time::sleep(retry).await;
                retry = (2 * retry).min(RETRY_MAX);
            }
            self.lock().kept = next;
            self.written.send_replace(round);
        }
    }

    /// Enters what a service wants; the number of the write that will have it.
    fn take(&self, service: &str, wanted: Vec<StoreCeilings>) -> Result<u64, String> {
        let wanted = read_stores(wanted)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let mut state = self.lock();
        for (store, (ceilings, settled)) in wanted {
            state.next.take(service, store, &ceilings, settled, now_ms);
        }
        let round = state.round;
        drop(state);
        self.dirty.notify_one();
        Ok(round)
    }

    async fn until_written(&self, round: u64) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.written.subscribe().wait_for(|written| *written >= round).await;
    }
}

/// Calls one service for as long as it is planned.
struct Caller {
    name: String,
    address: String,
    credentials: Credentials,
    book: Arc<Book>,
    connecting: Arc<Semaphore>,
}

impl Caller {
    async fn call(self) {
        self.book.not_reached(&self.name, "what is kept of its ceilings is not read yet");
        self.book.until_written(1).await;
        let (mut channel, mut retry) = (None, RETRY_MIN);
        loop {
            match self.round(&mut channel).await {
                Ok(()) => retry = RETRY_MIN,
                Err(why) => {
                    tracing::debug!(service = self.name, why, "ceilings are not exchanged");
                    self.book.not_reached(&self.name, &why);
                    channel = None;
                    tokio::time::sleep(retry).await;
                    retry = (2 * retry).min(RETRY_MAX);
                }
            }
        }
    }

    async fn round(&self, channel: &mut Option<Channel>) -> Result<(), String> {
        let connected = match channel.take() {
            Some(channel) => channel,
            None => self.connect().await?,
        };
        // From here on it is told, and waits for nobody.
        self.book.reached(&self.name);
        let kept = self.book.lock().kept.of(&self.name);
        let kept = kept.into_iter().map(|(store, ceilings)| StoreCeilings {
            instance: store.bytes().to_vec().into(),
            ceilings: ceilings.into_iter().collect(),
            settled: false,
        });
        let patience_ms = CALL.as_millis() as u32;
        let request = ExchangeRequest { kept: kept.collect(), patience_ms };
        let mut client = shell::limited!(AnchorClient::new(connected.clone()));
        let answer = tokio::time::timeout(CALL + ANSWER, client.exchange(request)).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|status| status.to_string())?;
        let wanted = answer.into_inner().wanted;
        if !wanted.is_empty() {
            let round = self.book.take(&self.name, wanted)?;
            self.book.until_written(round).await;
        }
        *channel = Some(connected);
        Ok(())
    }

    async fn connect(&self) -> Result<Channel, String> {
        // Never closed, so it always gives.
        let _permit = self.connecting.acquire().await.map_err(|error| error.to_string())?;
        let endpoint: Endpoint = self.address.parse().map_err(|error| format!("{error}"))?;
        let connector = Connector::new(&endpoint, &self.name, &self.credentials).deadline(ANSWER);
        connector.connect().await.map_err(|error| error.to_string())
    }
}

/// The objects of one topology.
struct Objects {
    api: Api<ConfigMap>,
    namespace: String,
    topology: String,
}

impl Objects {
    /// The texts by the names of their objects.
    async fn read(&self) -> Result<Vec<(String, String)>, kube::Error> {
        let mut texts = Vec::new();
        for part in 0.. {
            let name = object_name(&self.namespace, &self.topology, part);
            let Some(object) = self.api.get_opt(&name).await? else { break };
            let text = object.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
            texts.push((name, text));
        }
        Ok(texts)
    }

    /// Writes what differs from `before`, which becomes what is there.
    async fn write(&self, kept: &Kept, before: &mut Vec<String>) -> Result<(), String> {
        let mut texts = kept.texts().map_err(|error| error.to_string())?;
        // One that is not needed any more stays and says so.
        let empty = Kept::default().texts().map_err(|error| error.to_string())?;
        texts.extend(empty.into_iter().cycle().take(before.len().saturating_sub(texts.len())));
        for (part, text) in texts.iter().enumerate() {
            if before.get(part) == Some(text) {
                continue;
            }
            self.apply(part, text).await.map_err(|error| error.to_string())?;
            match before.get_mut(part) {
                Some(known) => known.clone_from(text),
                None => before.push(text.clone()),
            }
        }
        Ok(())
    }

    async fn apply(&self, part: usize, text: &str) -> Result<(), kube::Error> {
        let name = object_name(&self.namespace, &self.topology, part);
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(
                    [
                        label(labels::PART_OF, "qkdnet"),
                        label(labels::COMPONENT, "anchor"),
                        label(labels::MANAGED_BY, OPERATOR),
                    ]
                    .into(),
                ),
                annotations: Some([(OF.to_owned(), format!("{}.{}", self.namespace, self.topology))].into()),
                ..ObjectMeta::default()
            },
            data: Some([(KEY.to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        };
        self.api.patch(&name, &PatchParams::apply(OPERATOR).force(), &Patch::Apply(&object)).await.map(drop)
    }
}
