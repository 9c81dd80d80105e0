//! What a module tells about itself: its latest figures, and a stream of what happens.

use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::channel::v1::ReserveReplaced;
use proto::detector::v1::module_event::Event;
use proto::detector::v1::{BlockStored, LinkState, ModuleEvent, ModuleStatus, Note};
use shell::{Health, figures};
use tokio::sync::{broadcast, watch};
use topology::figure::Figures;

use crate::uptime::{Counts, Uptime};

/// Events that a slow watcher may be behind before it misses some.
const EVENTS_KEPT: usize = 256;

/// Shared between the session that updates it and the services that read it.
pub struct Monitor {
    status: Mutex<ModuleStatus>,
    events: broadcast::Sender<ModuleEvent>,
    recover: watch::Sender<u64>,
    uptime: Mutex<Uptime>,
    health: Health,
}

impl Monitor {
    pub fn new(status: ModuleStatus) -> Self {
        Self {
            status: Mutex::new(status),
            events: broadcast::channel(EVENTS_KEPT).0,
            recover: watch::channel(0).0,
            uptime: Mutex::default(),
            health: Health::new(),
        }
    }

    pub fn status(&self) -> ModuleStatus {
        self.look(Clone::clone)
    }

    pub fn update(&self, change: impl FnOnce(&mut ModuleStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn state(&self) -> LinkState {
        self.look(ModuleStatus::state)
    }

    /// One thing of the status, without a copy of it all.
    pub fn look<T>(&self, of: impl FnOnce(&ModuleStatus) -> T) -> T {
        of(&self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Enters a state and tells watchers, unless this is the state already.
    pub fn enter(&self, state: LinkState) {
        if self.state() != state {
            self.update(|s| s.state = state.into());
            self.publish();
        }
    }

    pub fn watch(&self) -> broadcast::Receiver<ModuleEvent> {
        self.events.subscribe()
    }

    /// Asks the running session to give up and meet the peer again.
    pub fn request_recovery(&self) {
        self.uptime().intervention();
        self.recover.send_modify(|count| *count += 1);
    }

    pub fn recoveries(&self) -> watch::Receiver<u64> {
        self.recover.subscribe()
    }

    pub fn note(&self, name: &str, message: &str) {
        tracing::info!(event = name, "{message}");
        self.send(Event::Note(Note { name: name.to_owned(), message: message.to_owned() }));
    }

    /// Goes on with what an earlier process counted, which is told from now on.
    pub fn resume(&self, before: Counts) {
        self.uptime().resume(before);
        self.update(|s| {
            let mut counted = figures::hear(&s.counted);
            self.tell_uptime(&mut counted);
            s.counted = figures::tell(&counted);
        });
    }

    /// What is to be kept for later processes.
    pub fn counts(&self) -> Counts {
        self.uptime().counts()
    }

    /// The run has no more light, in order.
    pub fn run_ends(&self) {
        self.uptime().run_ends();
    }

    /// A session begins.
    pub fn session_begins(&self) {
        self.uptime().session_begins();
    }

    /// An epoch of the session is over. `outage` says why it had no light, if it had none.
    pub fn epoch(&self, epoch: u64, outage: &str, epoch_s: f64) {
        let remark = self.uptime().epoch(epoch, outage, epoch_s);
        if let Some((name, message)) = remark {
            self.note(name, &message);
        }
    }

    /// Whether the last epoch had no light.
    pub fn is_dark(&self) -> bool {
        self.uptime().is_dark()
    }

    /// Enters restarts, interventions and availability into the figures of the run.
    pub fn tell_uptime(&self, figures: &mut Figures) {
        self.uptime().tell(figures);
    }

    fn uptime(&self) -> MutexGuard<'_, Uptime> {
        // Counts that are changed as a whole.
        self.uptime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel has told that its reserve was replaced.
    pub fn reserve_replaced(&self, replaced: ReserveReplaced) {
        let message = format!(
            "`{}` replaced the authentication reserve: it holds {} tags",
            replaced.by.escape_debug(),
            replaced.reserve_tags
        );
        self.uptime().intervention();
        self.update(|s| s.reserve_replaced = Some(replaced));
        self.note("reserve-replaced", &message);
        self.publish();
    }

    /// Key flows where this end is locked and has stored a block.
    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn block(&self, block: BlockStored) {
        self.send(Event::Block(block));
    }

    /// Tells watchers the figures as they stand.
    pub fn publish(&self) {
        let status = self.status();
        self.health.set_link(status.state() == LinkState::Locked && status.blocks > 0);
        self.send(Event::Status(status));
    }

    fn send(&self, event: Event) {
        let simulated_s = self.look(|status| status.simulated_s);
        // No watcher is no error.
        let _ = self.events.send(ModuleEvent { simulated_s, event: Some(event) });
    }
}
