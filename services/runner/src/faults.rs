//! Faults of a network that runs here: the desks of its tasks, and what is seen of desks wherever they are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use proto::fault::v1::faults_client::FaultsClient;
use proto::fault::v1::{FaultState, ListRequest, Phase, WatchRequest};
use shell::fault::{Desk, FaultService, Place};
use shell::{AllowList, Connector, Credentials, Role, Server};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::{CONTROL_IDENTITY, Plan, Service, ServiceConfig};

use super::Start;
use crate::snapshot::{Event, FaultRow};

/// What happens to faults while nobody looks.
const EVENTS_WAITING: usize = 256;
/// Wait before a service that died is watched again.
const RETRY: Duration = Duration::from_millis(200);

/// What begins and ends, from all services.
pub type Feed = mpsc::Receiver<FaultState>;

/// The desks of services that run as tasks; none where the topology allows no faults.
pub struct Desks(BTreeMap<String, Desk>);

impl Desks {
    pub fn open(plan: &Plan) -> Result<Self> {
        let desk = |service: &Service| {
            let desk = Desk::open(place(service)).with_context(|| format!("make the desk of {}", service.name))?;
            Ok((service.name.clone(), desk))
        };
        let services = plan.services.iter().filter(|_| plan.faults_allowed);
        Ok(Self(services.map(desk).collect::<Result<_>>()?))
    }

    pub fn get(&self, service: &str) -> Option<Desk> {
        self.0.get(service).cloned()
    }

    /// Everyone in this process who needs a certificate.
    pub fn names(&self, plan: &Plan) -> Vec<String> {
        let control = (!self.0.is_empty()).then(|| CONTROL_IDENTITY.to_owned());
        plan.key_stores().map(|config| config.name.clone()).chain(control).collect()
    }

    /// Serves all desks at one address, `<run>/control.addr`, to whoever controls the network.
    pub async fn serve(
        &self,
        start: &Start<'_>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<Result<()>>,
    ) -> Result<Feed> {
        let (tx, feed) = mpsc::channel(EVENTS_WAITING);
        if self.0.is_empty() {
            return Ok(feed);
        }
        let credentials = Credentials::from_folder(&start.folders.pki, CONTROL_IDENTITY)?;
        let allow = AllowList::new([CONTROL_IDENTITY])?.with(Role::Control, [CONTROL_IDENTITY])?;
        let service = FaultService::new(self.0.values().cloned(), stop).server();
        let server = Server::builder(CONTROL_IDENTITY, &credentials, &allow).run_dir(&start.folders.run);
        let running = server.add_service(service).start(stop.clone()).await.context("serve the faults")?;
        tasks.spawn(async move { Ok(running.stopped().await?) });
        for desk in self.0.values() {
            tokio::spawn(forward(desk.watch(), tx.clone()));
        }
        Ok(feed)
    }
}

fn place(service: &Service) -> Place {
    match &service.config {
        ServiceConfig::Source(config) => source::place(config),
        ServiceConfig::Detector(config) => detector::place(config),
        ServiceConfig::Transmitter(config) => transmitter::place(config),
        ServiceConfig::Channel(config) => channel::place(config),
        ServiceConfig::Kms(config) => kms::place(config),
        ServiceConfig::Relay(config) => relay::place(config),
        ServiceConfig::Pacer(config) => pacer::place(config),
    }
}

async fn forward(mut events: broadcast::Receiver<FaultState>, tx: mpsc::Sender<FaultState>) {
    loop {
        match events.recv().await {
            Ok(state) => {
                if tx.send(state).await.is_err() {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Watches the desks of services in other processes.
pub struct Watchers {
    tx: mpsc::Sender<FaultState>,
    stop: CancellationToken,
}

impl Watchers {
    pub fn new(stop: &CancellationToken) -> (Self, Feed) {
        let (tx, feed) = mpsc::channel(EVENTS_WAITING);
        (Self { tx, stop: stop.clone() }, feed)
    }

    pub fn follow(&self, connector: Connector, tasks: &mut JoinSet<Result<()>>) {
        let (tx, stop) = (self.tx.clone(), self.stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = follow(connector, tx) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }
}

/// One connection after the other.
async fn follow(connector: Connector, tx: mpsc::Sender<FaultState>) {
    let mut known: BTreeMap<String, FaultState> = BTreeMap::new();
    loop {
        if let Ok(channel) = connector.clone().connect().await {
            let mut client = FaultsClient::new(channel);
            // What ended while nobody looked is over.
            if let Ok(listed) = client.list(ListRequest::default()).await {
                let listed = listed.into_inner().faults;
                let over: Vec<String> =
                    known.keys().filter(|id| listed.iter().all(|fault| fault.id != **id)).cloned().collect();
                for id in over {
                    let Some(mut gone) = known.remove(&id) else { continue };
                    gone.set_phase(Phase::Over);
                    let _ = tx.send(gone).await;
                }
            }
            if let Ok(events) = client.watch(WatchRequest {}).await {
                let mut events = events.into_inner();
                while let Ok(Some(state)) = events.message().await {
                    match state.phase() {
                        Phase::Over => drop(known.remove(&state.id)),
                        _ => drop(known.insert(state.id.clone(), state.clone())),
                    }
                    if tx.send(state).await.is_err() {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The faults of a network, each by its ID and the services that suffer it.
#[derive(Default)]
pub struct Log(BTreeMap<String, BTreeMap<String, FaultState>>);

impl Log {
    /// Takes up what a service says; an event where the network has not heard of it from another one.
    pub fn take(&mut self, state: FaultState) -> Option<Event> {
        let services = self.0.entry(state.id.clone()).or_default();
        let phase = |services: &BTreeMap<String, FaultState>, phase| services.values().any(|s| s.phase() == phase);
        let (waited, acted) = (phase(services, Phase::Waiting), phase(services, Phase::Active));
        let name = match state.phase() {
            // What is to begin at once is not announced.
            Phase::Waiting if !waited && !acted && state.at_ps > 0 => Some("fault-waiting"),
            Phase::Active if !acted => Some("fault"),
            Phase::Over => {
                services.remove(&state.service);
                services.is_empty().then_some("fault-over")
            }
            _ => None,
        };
        if state.phase() == Phase::Over {
            if services.is_empty() {
                self.0.remove(&state.id);
            }
        } else {
            services.insert(state.service.clone(), state.clone());
        }
        Some(event(name?, &state))
    }

    pub fn rows(&self) -> Vec<FaultRow> {
        let row = |(id, services): (&String, &BTreeMap<String, FaultState>)| {
            let first = services.values().next()?;
            Some(FaultRow {
                id: id.clone(),
                what: first.description.clone(),
                active: services.values().any(|state| state.phase() == Phase::Active),
                services: services.keys().cloned().collect(),
            })
        };
        self.0.iter().filter_map(row).collect()
    }
}

fn event(name: &str, state: &FaultState) -> Event {
    let message = match (name, state.epoch_first, state.epoch_end) {
        ("fault", 0, 0) | ("fault-waiting", ..) => format!("{}: {}", state.id, state.description),
        ("fault", first, _) => format!("{}: {}, from epoch {first} on", state.id, state.description),
        (_, 0, 0) => format!("{}: {} no more", state.id, state.description),
        (_, _, end) => format!("{}: {} no more, from epoch {end} on", state.id, state.description),
    };
    Event {
        simulated_s: state.simulated_s,
        link: state.link.clone(),
        site: state.site.clone(),
        name: name.to_owned(),
        message,
        block: None,
    }
}
