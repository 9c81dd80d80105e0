//! What is wrong with one service now, and what will be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use proto::fault::v1::fault::What;
use proto::fault::v1::{FaultState, FrameAttack, ListResponse, Phase};
use telemetry::names::{attribute, span};
use telemetry::trace::Tracer;
use tokio::sync::{broadcast, watch};

use super::check::{self, Refusal};
use super::{FAULTS_MAX, Order, Place};
use crate::disk::Disk;
use crate::files;

/// Events that a slow watcher may be behind before it misses some.
const EVENTS_KEPT: usize = 256;
/// Epochs between now and the beginning of a step of a clock: the instrument looks so far ahead.
const CLOCK_LEAD_EPOCHS: u64 = 3;
/// An order is answered when the fault has begun, or after this.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);
/// Time for the answer to leave before a process aborts.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Takes orders for one service and knows what is wrong with it. Clones are the same desk.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    place: Place,
    disk: Disk,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    events: broadcast::Sender<FaultState>,
    tracer: Tracer,
    /// Who strikes at frames.
    attacker: Mutex<Option<Attacker>>,
}

type Attacker = Box<dyn Fn(FrameAttack) + Send + Sync>;

#[derive(Default)]
struct State {
    faults: Vec<FaultState>,
    /// The first epoch that has not begun.
    next_epoch: u64,
    clock: Vec<ClockShift>,
    /// How often a clock was stopped, the service, and the way to each site cut: one that is over before anybody has
    /// looked has happened all the same.
    clock_stops: u64,
    crashes: u64,
    cuts: BTreeMap<String, u64>,
}

impl State {
    fn count(&mut self, what: &What) {
        match what {
            What::ClockStop(_) => self.clock_stops += 1,
            What::Stop(_) => self.crashes += 1,
            What::Partition(partition) => *self.cuts.entry(partition.site.clone()).or_default() += 1,
            _ => {}
        }
    }

    fn cuts(&self, site: &str) -> u64 {
        self.cuts.get(site).copied().unwrap_or(0)
    }

    fn take_up(&mut self, faults: Vec<FaultState>) {
        for fault in &faults {
            if let (Some(What::ClockStep(step)), Phase::Active) = (what(fault), fault.phase()) {
                self.clock.push(shift(fault, step.by_ps));
            }
        }
        self.faults = faults;
    }
}

fn shift(fault: &FaultState, by_ps: i64) -> ClockShift {
    let epoch_end = if fault.epoch_end == 0 { u64::MAX } else { fault.epoch_end };
    ClockShift { epoch_first: fault.epoch_first, epoch_end, by_ps }
}

/// A clock that is off by a step for some epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockShift {
    pub epoch_first: u64,
    /// First epoch that it is over in.
    pub epoch_end: u64,
    pub by_ps: i64,
}

/// What an epoch of light suffers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Loss of either output; infinite where the fibre is cut.
    pub loss_db: [f64; 2],
    /// Every step of the clock that has begun or is about to.
    pub clock: Vec<ClockShift>,
    /// IDs of the faults that act, for spans.
    pub ids: Vec<String>,
}

impl Desk {
    /// Takes up the faults that outlived the last process. To be called within the runtime.
    pub fn open(place: Place) -> std::io::Result<Self> {
        let known = match &place.record {
            Some(path) if path.exists() => ListResponse::decode(std::fs::read(path)?.as_slice())?.faults,
            _ => Vec::new(),
        };
        let desk = Self(Arc::new(Inner {
            tracer: Tracer::new(place.service.clone()),
            disk: Disk::fillable(),
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            events: broadcast::channel(EVENTS_KEPT).0,
            attacker: Mutex::default(),
            place,
        }));
        desk.lock().take_up(known);
        desk.apply();
        for state in desk.list() {
            desk.time(&state);
        }
        Ok(desk)
    }

    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// The service's disk.
    pub fn disk(&self) -> Disk {
        self.0.disk.clone()
    }

    /// Who strikes at frames where that is ordered. A service that came back takes the place of the one before.
    pub fn on_attack(&self, attacker: impl Fn(FrameAttack) + Send + Sync + 'static) {
        *self.0.attacker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(attacker));
    }

    pub fn watch(&self) -> broadcast::Receiver<FaultState> {
        self.0.events.subscribe()
    }

    pub fn list(&self) -> Vec<FaultState> {
        self.lock().faults.clone()
    }

    /// Takes an order. The answer says when it took effect, or that it waits.
    pub async fn inject(&self, order: Order) -> Result<FaultState, Refusal> {
        let mut events = self.watch();
        let state = self.take(order)?;
        // What is scheduled for later is not waited for.
        if state.phase() != Phase::Waiting || state.at_ps > 0 {
            return Ok(state);
        }
        let id = state.id.clone();
        let began = async move {
            while let Ok(event) = events.recv().await {
                if event.id == id && event.phase() != Phase::Waiting {
                    return event;
                }
            }
            std::future::pending().await
        };
        Ok(tokio::time::timeout(BEGIN_PATIENCE, began).await.unwrap_or(state))
    }

    fn take(&self, order: Order) -> Result<FaultState, Refusal> {
        let what = check::check(&order, &self.0.place)?.clone();
        let simulated = check::is_simulated(&what);
        let mut held = self.lock();
        if held.faults.len() >= FAULTS_MAX {
            return Err(Refusal::TooMany);
        }
        if held.faults.iter().any(|fault| fault.id == order.id) {
            return Err(Refusal::Known(order.id));
        }
        if order.at_ps > 0 && self.first_epoch(order.at_ps) < held.next_epoch {
            let (asked_s, now_s) = (order.at_ps as f64 * 1e-12, self.seconds(held.next_epoch));
            return Err(Refusal::Past { asked_s, now_s });
        }
        let now_ms = unix_ms();
        let ends_ms = if simulated || order.duration_ps == 0 { 0 } else { now_ms + order.duration_ps / 1_000_000_000 };
        let state = FaultState {
            id: order.id,
            service: self.0.place.service.clone(),
            site: self.0.place.site.clone(),
            link: self.0.place.link.clone(),
            fault: Some(order.fault),
            description: order.description,
            phase: if simulated { Phase::Waiting } else { Phase::Active }.into(),
            simulated_s: self.seconds(held.next_epoch),
            begun_unix_ms: now_ms,
            ends_unix_ms: ends_ms,
            at_ps: order.at_ps,
            duration_ps: order.duration_ps,
            ..FaultState::default()
        };
        held.faults.push(state.clone());
        if let Err(error) = self.record(&held.faults) {
            held.faults.pop();
            return Err(Refusal::Record(error.to_string()));
        }
        held.count(&what);
        drop(held);
        tracing::info!(fault = state.id, "{}", state.description);
        self.apply();
        self.tell(state.clone());
        self.time(&state);
        match &what {
            What::Attack(attack) => self.strike(&state.id, *attack),
            What::Stop(_) if self.0.place.record.is_some() => abort_soon(),
            _ => {}
        }
        Ok(state)
    }

    /// Ends one fault, or all; how many there were.
    pub fn clear(&self, id: &str) -> u32 {
        let ids: Vec<String> = self.list().into_iter().map(|fault| fault.id).collect();
        ids.into_iter().filter(|known| id.is_empty() || known == id).filter(|known| self.end(known)).count() as u32
    }

    /// Ends a fault now; false where there is none.
    fn end(&self, id: &str) -> bool {
        let mut held = self.lock();
        let Some(at) = held.faults.iter().position(|fault| fault.id == id) else { return false };
        let mut over = held.faults.remove(at);
        let next = held.next_epoch;
        if let Some(What::ClockStep(_)) = what(&over) {
            for shift in held.clock.iter_mut().filter(|shift| shift.epoch_first == over.epoch_first) {
                shift.epoch_end = shift.epoch_end.min((next + CLOCK_LEAD_EPOCHS).max(shift.epoch_first));
            }
        }
        if over.epoch_first > 0 || over.epoch_end > 0 {
            over.epoch_end = if over.epoch_end == 0 { next } else { over.epoch_end.min(next) };
            over.simulated_s = self.seconds(over.epoch_end);
        }
        if let Err(error) = self.record(&held.faults) {
            tracing::warn!("what was over may come back with the next start: {error}");
        }
        drop(held);
        self.apply();
        self.span(&over);
        over.set_phase(Phase::Over);
        tracing::info!(fault = over.id, "over: {}", over.description);
        self.tell(over);
        true
    }

    /// The instrument or source begins an epoch: faults begin and end, and this is what acts.
    pub fn enter_epoch(&self, epoch: u64) -> Effects {
        let mut held = self.lock();
        if held.faults.is_empty() && held.clock.is_empty() {
            held.next_epoch = epoch + 1;
            return Effects::default();
        }
        held.next_epoch = epoch + 1;
        let (mut begun, mut over) = (Vec::new(), Vec::new());
        let mut effects = Effects::default();
        let State { faults, clock, .. } = &mut *held;
        for fault in faults.iter_mut() {
            let Some(what) = what(fault).cloned() else { continue };
            if fault.phase() == Phase::Waiting {
                let lead = if matches!(what, What::ClockStep(_)) { CLOCK_LEAD_EPOCHS } else { 0 };
                if epoch + lead < self.first_epoch(fault.at_ps) {
                    continue;
                }
                self.begin(fault, epoch + lead);
                if let What::ClockStep(step) = &what {
                    clock.push(shift(fault, step.by_ps));
                }
                begun.push(fault.clone());
            }
            if check::is_simulated(&what) && fault.epoch_end != 0 && epoch >= fault.epoch_end {
                over.push(fault.id.clone());
                continue;
            }
            if let What::Loss(loss) = &what {
                let added = if loss.cut { f64::INFINITY } else { loss.loss_db };
                for output in &loss.outputs {
                    effects.loss_db[usize::from(*output == 1)] += added;
                }
                effects.ids.push(fault.id.clone());
            }
        }
        // A session may start again behind where it was; what is long over acts no more.
        clock.retain(|shift| shift.epoch_end.saturating_add(CLOCK_LEAD_EPOCHS) > epoch);
        effects.clock.clone_from(clock);
        if !begun.is_empty()
            && let Err(error) = self.record(&held.faults)
        {
            tracing::warn!("a fault that has begun may begin again with the next start: {error}");
        }
        drop(held);
        begun.into_iter().for_each(|fault| self.tell(fault));
        for id in over {
            self.end(&id);
        }
        effects
    }

    fn begin(&self, fault: &mut FaultState, epoch: u64) {
        fault.set_phase(Phase::Active);
        fault.epoch_first = epoch;
        let epochs = fault.duration_ps.div_ceil(self.0.place.epoch_ps.max(1));
        fault.epoch_end = if epochs == 0 { 0 } else { epoch.saturating_add(epochs) };
        fault.simulated_s = self.seconds(epoch);
        fault.begun_unix_ms = unix_ms();
    }

    /// Whether the service and this site do not reach each other.
    pub fn is_cut_off(&self, site: &str) -> bool {
        self.any(|what| matches!(what, What::Partition(partition) if partition.site == site))
    }

    /// Waits until the service and this site do not reach each other, if only for a moment.
    pub async fn cut_off(&self, site: &str) {
        let before = self.lock().cuts(site);
        self.until(|| self.is_cut_off(site) || self.lock().cuts(site) != before).await;
    }

    pub fn clock_stands_still(&self) -> bool {
        self.any(|what| matches!(what, What::ClockStop(_)))
    }

    /// How often the clock was stopped so far.
    pub fn clock_stops(&self) -> u64 {
        self.lock().clock_stops
    }

    /// Waits until the clock runs.
    pub async fn clock_runs(&self) {
        self.until(|| !self.clock_stands_still()).await;
    }

    pub fn is_stopped(&self) -> bool {
        self.any(|what| matches!(what, What::Stop(_)))
    }

    /// For a service that runs as a task: waits until it is to be dropped, as if it had crashed.
    pub async fn crashed(&self) {
        let before = self.lock().crashes;
        self.until(|| self.is_stopped() || self.lock().crashes != before).await;
    }

    /// Whether the service may start: nothing has stopped it, and there is room for what it writes when it starts.
    pub fn may_start(&self) -> bool {
        !self.is_stopped() && !self.any(|what| matches!(what, What::DiskFull(_)))
    }

    /// Waits until the service may be started again.
    pub async fn released(&self) {
        self.until(|| self.may_start()).await;
    }

    fn any(&self, wanted: impl Fn(&What) -> bool) -> bool {
        self.lock().faults.iter().any(|fault| fault.phase() == Phase::Active && what(fault).is_some_and(&wanted))
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.0.changes.subscribe().wait_for(|_| condition()).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Throws the switches.
    fn apply(&self) {
        self.0.disk.fill(self.any(|what| matches!(what, What::DiskFull(_))));
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn tell(&self, state: FaultState) {
        // No watcher is no error.
        let _ = self.0.events.send(state);
    }

    /// Sees to it that what goes by wall time ends.
    fn time(&self, state: &FaultState) {
        if state.ends_unix_ms == 0 {
            return;
        }
        let left = Duration::from_millis(state.ends_unix_ms.saturating_sub(unix_ms()));
        let (desk, id, begun) = (self.clone(), state.id.clone(), state.begun_unix_ms);
        tokio::spawn(async move {
            tokio::time::sleep(left).await;
            // Another one may have come under the same name.
            if desk.list().iter().any(|fault| fault.id == id && fault.begun_unix_ms == begun) {
                desk.end(&id);
            }
        });
    }

    fn strike(&self, id: &str, attack: FrameAttack) {
        if let Some(attacker) = &*self.0.attacker.lock().unwrap_or_else(PoisonError::into_inner) {
            attacker(attack);
        }
        self.end(id);
    }

    fn record(&self, faults: &[FaultState]) -> std::io::Result<()> {
        let Some(path) = &self.0.place.record else { return Ok(()) };
        let list = ListResponse { faults: faults.to_vec() };
        files::write_durably(path, &list.encode_to_vec())
    }

    fn span(&self, fault: &FaultState) {
        let kind = what(fault).map_or("", check::kind);
        let span = self.0.tracer.span(span::FAULT).started_at(UNIX_EPOCH + Duration::from_millis(fault.begun_unix_ms));
        let span = span
            .attribute(attribute::FAULT_ID, fault.id.as_str())
            .attribute(attribute::FAULT_KIND, kind)
            .attribute(attribute::FAULT_WHAT, fault.description.as_str())
            .attribute(attribute::SITE_ID, fault.site.as_str())
            .attribute(attribute::LINK_ID, fault.link.as_str())
            .attribute(attribute::EPOCH_FIRST, fault.epoch_first)
            .attribute(attribute::EPOCH_LAST, fault.epoch_end.saturating_sub(1));
        span.start().end();
    }

    fn first_epoch(&self, at_ps: u64) -> u64 {
        at_ps.div_ceil(self.0.place.epoch_ps.max(1))
    }

    fn seconds(&self, epoch: u64) -> f64 {
        epoch as f64 * self.0.place.epoch_ps as f64 * 1e-12
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What nobody has ended is in the trace all the same.
        let held = std::mem::take(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner));
        for fault in held.faults.iter().filter(|fault| fault.phase() == Phase::Active) {
            let span = self.tracer.span(span::FAULT).attribute(attribute::FAULT_ID, fault.id.as_str());
            let span = span.attribute(attribute::FAULT_WHAT, fault.description.as_str());
            span.started_at(UNIX_EPOCH + Duration::from_millis(fault.begun_unix_ms)).start().end();
        }
    }
}

fn what(fault: &FaultState) -> Option<&What> {
    fault.fault.as_ref()?.what.as_ref()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Ends the process without unwinding or flushing.
fn abort_soon() {
    std::thread::spawn(|| {
        std::thread::sleep(LAST_WORDS);
        std::process::abort();
    });
}
