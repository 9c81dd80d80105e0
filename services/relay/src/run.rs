//! The relay of one site at work.

mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anchor::Anchor;
use anyhow::{Context, Result, bail};
use proto::anchor::v1::RolledBack;
use proto::kms::v1::{RelayAnswer, RelayRequest};
use proto::relay::v1::{GetStatusResponse, NeighbourStatus};
use shell::disk::Disk;
use shell::fault;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::RelayConfig;
use transfer::{
    AckStatus, Action, Input, KmsRequest, Malformed, Message, NeighbourState, Relay, RelayEvent, Settings, SiteName,
};

use crate::key_store::Pending;
use crate::records::{Batch, Change, RecordError, Records};
use crate::spans::Spans;
use crate::status::{Routes, Status};
use crate::streams::Outbox;
use crate::{Dials, Incoming, Lent, Targets, key_store, streams};

/// What may wait to be looked at, and how much of it shares one commit.
const EVENTS_WAITING: usize = 1024;
const EVENTS_PER_COMMIT: usize = 256;
/// Changes of the records that nothing waits for: beyond it they are written at once.
const NOTES_MAX: usize = 1024;
/// The status is at most so old, and what nothing waits for is written after so long.
const STATUS_PULSE: Duration = Duration::from_millis(100);
/// How long the records of a life before may still be open.
const OPEN_ATTEMPTS: u32 = 40;
const OPEN_PAUSE: Duration = Duration::from_millis(50);
/// An anchor is told so often how much was written. Nothing waits for it: records that are put back lose what was under
/// way, and never make a pad serve twice.
const CEILING_EVERY: Duration = Duration::from_secs(10);
const PUT_BACK: &str = "its records are older than what was done with them; transfers that were under way are given up, \
    and no key is in danger, as a relay holds none";

/// What comes in from outside.
pub enum Event {
    NeighbourUp { site: SiteName, life: u64, outbox: Outbox },
    NeighbourSays { site: SiteName, life: u64, said: Result<(Message, String), Malformed> },
    NeighbourDown { site: SiteName, life: u64 },
    KmsUp { life: u64, outbox: mpsc::Sender<RelayRequest> },
    KmsSays { life: u64, answer: RelayAnswer },
    KmsDown { life: u64 },
}

/// Numbers streams, so that what an old one still says is told apart.
#[derive(Default)]
pub struct Lives(AtomicU64);

impl Lives {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Runs the relay of a site until `stop`.
pub async fn run(
    config: RelayConfig,
    data: &Path,
    dials: Dials,
    incoming: Incoming,
    lent: Lent,
    stop: CancellationToken,
) -> Result<()> {
    let settings = Settings::of_chunks(config.transfer_bytes);
    run_with(config, settings, data, dials, incoming, lent, stop).await
}

/// As [`run`], with other limits and times. What the configuration says goes before them.
pub async fn run_with(
    config: RelayConfig,
    settings: Settings,
    data: &Path,
    dials: Dials,
    incoming: Incoming,
    Lent { status, anchor, faults }: Lent,
    stop: CancellationToken,
) -> Result<()> {
    let settings = Settings { chunk_bytes: config.transfer_bytes, ..settings };
    let disk = faults.as_ref().map(fault::Desk::disk).unwrap_or_default();
    let records = open(data, &config.site, disk).await?;
    let _reading = status.lend(&records);
    let put_back = blocking(&records, &anchor, |records, anchor| records.examine(anchor, wall_ms())).await?;
    let mut service = Service::new(&config, settings, records.clone(), status, put_back).await?;
    let (events_tx, events) = mpsc::channel(EVENTS_WAITING);
    let lives = Arc::new(Lives::default());
    // Ends with this function, however it ends.
    let mut tasks = JoinSet::new();
    let mut accepted = BTreeMap::new();
    for (site, _) in service.neighbours.iter() {
        match dials.neighbours.get(site.as_str()) {
            Some(dial) => drop(tasks.spawn(streams::keep_dialling(
                site.clone(),
                fault::dial(faults.as_ref(), site.as_str(), dial.clone()),
                lives.clone(),
                events_tx.clone(),
                stop.clone(),
            ))),
            None => drop(accepted.insert(site.to_string(), site.clone())),
        }
    }
    tasks.spawn(streams::keep_accepting(
        accepted,
        incoming.neighbours,
        faults,
        lives.clone(),
        events_tx.clone(),
        stop.clone(),
    ));
    tasks.spawn(key_store::keep_dialling(dials.kms, lives, events_tx, stop.clone()));
    tasks.spawn(keep_ceiling(records.clone(), anchor.clone()));
    let ended = service.work(events, incoming.targets, &stop).await;
    tasks.shutdown().await;
    ended?;
    blocking(&records, &anchor, |records, anchor| records.close(anchor)).await
}

/// Tells an anchor how much was written, as long as the relay runs.
async fn keep_ceiling(records: Records, anchor: Arc<dyn Anchor>) {
    let (mut told, mut failing) = (0, false);
    let mut due = tokio::time::interval(CEILING_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        match blocking(&records, &anchor, move |records, anchor| records.raise(anchor, told)).await {
            Ok(known) => (told, failing) = (known, false),
            Err(error) if !failing => {
                failing = true;
                tracing::warn!("records that are put back may go unnoticed: {}", shell::chain(&error));
            }
            Err(_) => {}
        }
    }
}

/// Does with the records what blocks for disk or anchor.
async fn blocking<T: Send + 'static>(
    records: &Records,
    anchor: &Arc<dyn Anchor>,
    what: impl FnOnce(&Records, &dyn Anchor) -> Result<T, RecordError> + Send + 'static,
) -> Result<T> {
    let (records, anchor) = (records.clone(), anchor.clone());
    let done = tokio::task::spawn_blocking(move || what(&records, &*anchor)).await;
    done.context("use the relay's records")?.context("use the relay's records")
}

async fn open(data: &Path, site: &str, disk: Disk) -> Result<Records> {
    let mut attempts = 0;
    loop {
        let (data, site, disk) = (data.to_owned(), site.to_owned(), disk.clone());
        let opened = tokio::task::spawn_blocking(move || Records::open(&data, &site, disk)).await;
        match opened.context("open the relay's records")? {
            Err(RecordError::InUse { .. }) if attempts < OPEN_ATTEMPTS => attempts += 1,
            opened => return opened.context("open the relay's records"),
        }
        tokio::time::sleep(OPEN_PAUSE).await;
    }
}

/// A neighbour as the service sees it.
#[derive(Default)]
struct Neighbour {
    stream: Option<(u64, Outbox)>,
    pad_out_bytes: u64,
    pad_in_bytes: u64,
    rate_bps: u64,
}

struct Service {
    relay: Relay,
    now_ms: u64,
    records: Records,
    neighbours: BTreeMap<SiteName, Neighbour>,
    pending: Pending,
    water_bytes: (u64, u64),
    shares: u8,
    /// Neighbours whose pools are filled over others while there is little in them.
    rerouted: BTreeSet<SiteName>,
    routes: Routes,
    actions: Vec<Action>,
    /// Changes of the records that nothing waits for.
    noted: Vec<Change>,
    spans: Spans,
    status: Arc<Status>,
    /// Since when it is known that the records were put back.
    put_back_since_ms: Option<u64>,
    /// Levels that the state machine was told since the key store was connected.
    told: BTreeSet<SiteName>,
    malformed: u64,
}

impl Service {
    async fn new(
        config: &RelayConfig,
        settings: Settings,
        records: Records,
        status: Arc<Status>,
        put_back_since_ms: Option<u64>,
    ) -> Result<Self> {
        if put_back_since_ms.is_some() {
            tracing::warn!(site = config.site, "the relay was put back: {PUT_BACK}");
        }
        let parse = |site: &String| SiteName::parse(site).with_context(|| format!("`{site}` is no site"));
        let site = parse(&config.site)?;
        let neighbours: Result<Vec<SiteName>> = config.neighbours.iter().map(|near| parse(&near.site)).collect();
        let targets: Result<BTreeSet<SiteName>> = config.targets.iter().map(parse).collect();
        let rerouted = config.neighbours.iter().filter(|near| near.rerouted).map(|near| parse(&near.site));
        let rerouted = rerouted.collect::<Result<BTreeSet<SiteName>>>()?;
        let known = {
            let records = records.clone();
            tokio::task::spawn_blocking(move || records.load()).await
        };
        let known = known.context("read the relay's records")?.context("read the relay's records")?;
        let now_ms = wall_ms();
        let routes = Routes::new(&config.name, &site, targets?.into_iter().chain(rerouted.iter().cloned()));
        Ok(Self {
            relay: Relay::restore(site, settings, known, now_ms),
            now_ms,
            records,
            neighbours: neighbours?.into_iter().map(|site| (site, Neighbour::default())).collect(),
            pending: Pending::default(),
            water_bytes: (config.low_water_bytes, config.high_water_bytes),
            shares: config.shares,
            rerouted,
            routes,
            actions: Vec::new(),
            noted: Vec::new(),
            spans: Spans::new(&config.name, &config.site),
            status,
            put_back_since_ms,
            told: BTreeSet::new(),
            malformed: 0,
        })
    }

    async fn work(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        mut targets: mpsc::Receiver<Targets>,
        stop: &CancellationToken,
    ) -> Result<()> {
        for site in self.neighbours.keys().cloned().collect::<Vec<_>>() {
            self.tell_neighbour(&site)?;
        }
        self.flush().await?;
        self.status.set(self.figures());
        let mut pulse = tokio::time::interval(STATUS_PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut stale = false;
        loop {
            self.now_ms = self.now_ms.max(wall_ms());
            let deadline_ms = self.relay.next_deadline_ms(self.now_ms);
            let wait = Duration::from_millis(deadline_ms.saturating_sub(self.now_ms));
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.now_ms = self.now_ms.max(wall_ms());
                    self.take(event)?;
                    for _ in 1..EVENTS_PER_COMMIT {
                        let Ok(event) = events.try_recv() else { break };
                        self.take(event)?;
                    }
                }
                Some(Targets { sites, done }) = targets.recv() => {
                    // Whoever asked may have gone.
                    let _ = done.send(self.set_targets(&sites)?);
                }
                () = tokio::time::sleep(wait) => {}
                _ = pulse.tick(), if stale => {
                    self.status.set(self.figures());
                    stale = false;
                    self.write_notes().await?;
                    continue;
                }
                () = stop.cancelled() => return self.write_notes().await,
            }
            self.now_ms = self.now_ms.max(wall_ms());
            if self.now_ms >= deadline_ms {
                self.input(Input::Tick)?;
            }
            self.flush().await?;
            stale = true;
        }
    }

    fn input(&mut self, input: Input) -> Result<()> {
        let mut failed = false;
        let mut ids = || {
            let mut id = [0; 16];
            failed |= getrandom::fill(&mut id).is_err();
            id
        };
        let actions = self.relay.handle(self.now_ms, input, &mut ids);
        if failed {
            bail!("the system gives no random bytes");
        }
        self.actions.extend(actions);
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::NeighbourUp { site, life, outbox } => {
                tracing::info!(neighbour = %site, "connected");
                if self.neighbours.get_mut(&site).is_some_and(|link| link.stream.take().is_some()) {
                    // What was said on the old stream may be lost: start over.
                    self.tell_neighbour(&site)?;
                }
                if let Some(link) = self.neighbours.get_mut(&site) {
                    link.stream = Some((life, outbox));
                }
                self.tell_neighbour(&site)
            }
            Event::NeighbourDown { site, life } => match self.is_present(&site, life) {
                true => self.lose(&site),
                false => Ok(()),
            },
            Event::NeighbourSays { site, life, said } => match said {
                Ok((message, traceparent)) if self.is_present(&site, life) => {
                    if let Message::Carry { header, .. } = &message {
                        self.spans.begin(header, &traceparent);
                    }
                    self.input(Input::Peer { from: site, message })
                }
                Ok(_) => Ok(()),
                Err(why) => {
                    self.malformed += 1;
                    tracing::debug!(neighbour = %site, %why, "a message is dropped");
                    Ok(())
                }
            },
            Event::KmsUp { life, outbox } => {
                tracing::info!("connected to the key store");
                self.told.clear();
                self.pending.connect(life, outbox);
                Ok(())
            }
            Event::KmsDown { life } => match self.pending.disconnect(life) {
                true => self.lose_kms(),
                false => Ok(()),
            },
            Event::KmsSays { life, answer } if self.pending.is(life) => self.hear_kms(answer),
            Event::KmsSays { .. } => Ok(()),
        }
    }

    fn is_present(&self, site: &SiteName, life: u64) -> bool {
        self.neighbours.get(site).and_then(|link| link.stream.as_ref()).is_some_and(|(present, _)| *present == life)
    }

    fn lose(&mut self, site: &SiteName) -> Result<()> {
        tracing::info!(neighbour = %site, "lost");
        if let Some(link) = self.neighbours.get_mut(site) {
            link.stream = None;
        }
        self.tell_neighbour(site)
    }

    fn tell_neighbour(&mut self, site: &SiteName) -> Result<()> {
        let Some(link) = self.neighbours.get(site) else { return Ok(()) };
        let state = NeighbourState {
            connected: link.stream.is_some(),
            stored_bytes_out: link.pad_out_bytes,
            stored_bytes_in: link.pad_in_bytes,
            rate_bps: link.rate_bps,
        };
        self.input(Input::Neighbour { site: site.clone(), state })
    }

    /// Writes what is to be remembered, then does the rest.
    async fn flush(&mut self) -> Result<()> {
        while !self.actions.is_empty() {
            let mut changes = std::mem::take(&mut self.noted);
            let (mut completed, mut awaited) = (Vec::new(), false);
            let mut rest = Vec::with_capacity(self.actions.len());
            for action in self.actions.drain(..) {
                awaited |= matches!(action, Action::Persist(_) | Action::Forget(_));
                match action {
                    Action::Persist(record) | Action::Note(record) => changes.push(Change::Put(record)),
                    Action::Forget(key) | Action::Drop(key) => changes.push(Change::Forget(key)),
                    Action::Event(RelayEvent::Completed(transfer)) => {
                        completed.push(transfer.clone());
                        rest.push(Action::Event(RelayEvent::Completed(transfer)));
                    }
                    other => rest.push(other),
                }
            }
            if awaited || !completed.is_empty() || changes.len() > NOTES_MAX {
                self.write(Batch { changes, completed }).await?;
            } else {
                self.noted = changes;
            }
            for action in rest {
                self.act(action)?;
            }
        }
        Ok(())
    }

    async fn write_notes(&mut self) -> Result<()> {
        let changes = std::mem::take(&mut self.noted);
        if changes.is_empty() { Ok(()) } else { self.write(Batch { changes, ..Batch::default() }).await }
    }

    async fn write(&self, batch: Batch) -> Result<()> {
        let records = self.records.clone();
        let written = tokio::task::spawn_blocking(move || records.write(&batch)).await;
        written.context("write the relay's records")?.context("write the relay's records")?;
        shell::failpoint::hit("relay.persisted");
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Kms(request) => self.ask(request),
            Action::Send { to, message } => self.send(&to, message),
            Action::Event(event) => {
                self.note(&event);
                Ok(())
            }
            Action::Persist(_) | Action::Forget(_) | Action::Note(_) | Action::Drop(_) => Ok(()),
        }
    }

    fn ask(&mut self, request: KmsRequest) -> Result<()> {
        let traceparent = match &request {
            KmsRequest::Originate { header, .. } => {
                self.spans.begin(header, "");
                self.spans.traceparent(header.transfer)
            }
            KmsRequest::Reseal { header, .. } | KmsRequest::Deliver { header, .. } => {
                self.spans.traceparent(header.transfer)
            }
            KmsRequest::Release { group, .. } => self.spans.traceparent(*group),
            KmsRequest::Void { transfers, .. } => {
                transfers.iter().for_each(|transfer| self.spans.end(*transfer, "voided"));
                String::new()
            }
            KmsRequest::Settle { .. } => String::new(),
        };
        let connected = self.pending.is_connected();
        self.pending.ask(request, traceparent);
        if connected && !self.pending.is_connected() { self.lose_kms() } else { Ok(()) }
    }

    fn send(&mut self, to: &SiteName, message: Message) -> Result<()> {
        let mut traceparent = String::new();
        match &message {
            Message::Carry { header, .. } => {
                traceparent = self.spans.traceparent(header.transfer);
                if header.hop > 1 {
                    self.spans.end(header.transfer, "forwarded");
                }
            }
            Message::Ack { header, status: AckStatus::Relayed, .. } => self.spans.end(header.transfer, "delivered"),
            Message::Ack { header, status: AckStatus::Failed, .. } => self.spans.end(header.transfer, "refused"),
            _ => {}
        }
        let Some(link) = self.neighbours.get(to) else { return Ok(()) };
        let Some((_, outbox)) = &link.stream else { return Ok(()) };
        if outbox.send(message, traceparent).is_err() {
            tracing::warn!(neighbour = %to, "it does not take what is sent to it");
            return self.lose(to);
        }
        Ok(())
    }

    fn note(&mut self, event: &RelayEvent) {
        self.routes.note(event);
        match event {
            RelayEvent::Completed(completed) => self.spans.end(completed.transfer, "released"),
            RelayEvent::Voided { group, target, reason } => {
                tracing::debug!(%group, %target, ?reason, "a key was given up");
            }
            RelayEvent::Rerouted { target, paths } => tracing::info!(%target, ?paths, "keys go another way"),
            RelayEvent::TooFewPaths { target, wanted, found } => {
                tracing::info!(%target, wanted, found, "too few paths: no key is made meanwhile");
            }
            RelayEvent::PathsFound { target } => tracing::info!(%target, "there is a way again"),
            RelayEvent::Abandoned { transfer, path } => {
                tracing::warn!(%transfer, ?path, "what became of a transfer was never confirmed");
            }
            RelayEvent::FailedToVoid { transfer, path } => {
                tracing::error!(%transfer, ?path, "a void key had been settled at its target");
            }
            RelayEvent::Rejected { from, why } => tracing::debug!(?from, %why, "an input was dropped"),
            RelayEvent::Started { .. } => {}
        }
    }

    fn figures(&self) -> GetStatusResponse {
        let counters = self.relay.counters();
        let (own, others) = self.relay.known_transfers();
        let neighbour = |(site, neighbour): (&SiteName, &Neighbour)| NeighbourStatus {
            site: site.to_string(),
            connected: neighbour.stream.is_some(),
            pad_out_bytes: neighbour.pad_out_bytes,
            pad_in_bytes: neighbour.pad_in_bytes,
            rate_bps: neighbour.rate_bps,
        };
        let rejected = [
            counters.malformed,
            counters.unknown_neighbour,
            counters.not_on_path,
            counters.wrong_sender,
            counters.other_transfer,
            counters.out_of_order,
            counters.link_states_dropped,
            self.malformed,
        ];
        GetStatusResponse {
            site: self.relay.site().to_string(),
            transfers_relayed: counters.transfers_completed,
            transfers_failed: counters.transfers_voided,
            transfers_in_flight: own as u64,
            routes: self.routes.all(),
            neighbours: self.neighbours.iter().map(neighbour).collect(),
            kms_connected: self.pending.is_connected(),
            transfers_carried: counters.carried,
            transfers_refused: counters.refused,
            transfers_known: others as u64,
            messages_rejected: rejected.iter().sum(),
            rolled_back: self.put_back_since_ms.map(|since_ms| RolledBack {
                site: self.relay.site().to_string(),
                store: "relay".to_owned(),
                since_ms,
                message: PUT_BACK.to_owned(),
            }),
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
