//! One watcher of services for each topology, kept in step with what is planned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use proto::anchor::v1::RolledBack;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use topology::plan::{Plan, PlannedLink};

use crate::figures;
use crate::layout::Layout;
use crate::material::Material;
use crate::observe::{self, Observed, Target};
use crate::resource::TopologyObject;
use crate::settings::Settings;

/// Figures that only moved are told this seldom.
const FIGURES_EVERY: Duration = Duration::from_secs(30);

/// What is known of one topology's services.
#[derive(Clone)]
pub struct Monitor {
    latest: watch::Receiver<Option<Arc<Observed>>>,
}

impl Monitor {
    /// The newest round of answers; `None` before the first one is over.
    pub fn latest(&self) -> Option<Arc<Observed>> {
        self.latest.borrow().clone()
    }
}

/// All watchers, and whom they tell.
pub struct Monitors {
    running: Mutex<HashMap<ObjectRef<TopologyObject>, Running>>,
    /// Topologies that have something new to say.
    tell: mpsc::Sender<ObjectRef<TopologyObject>>,
}

struct Running {
    targets: Vec<Target>,
    certificate: String,
    monitor: Monitor,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Monitors {
    pub fn new(tell: mpsc::Sender<ObjectRef<TopologyObject>>) -> Self {
        Self { running: Mutex::default(), tell }
    }

    /// The watcher of a topology: the one that runs, unless services came, went or moved.
    pub fn follow(
        &self,
        key: &ObjectRef<TopologyObject>,
        layout: &Layout,
        plan: &Plan,
        material: &Material,
        settings: &Settings,
    ) -> Monitor {
        let targets = observe::targets(layout, settings);
        let certificate = material.control.certificate.clone();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = running.get(key)
            && found.targets == targets
            && found.certificate == certificate
        {
            return found.monitor.clone();
        }
        let (observed, latest) = watch::channel(None);
        let (monitor, stop) = (Monitor { latest: latest.clone() }, CancellationToken::new());
        match material.control_credentials() {
            Ok(credentials) => {
                let links = plan.links.clone();
                let teller =
                    Teller { key: key.clone(), tell: self.tell.clone(), links: links.clone(), said: Mutex::default() };
                let settled = move |seen: &Observed| figures::links(&links, seen).iter().all(|link| link.flowing);
                let changed = move || teller.look(latest.borrow().as_deref());
                tokio::spawn(observe::watch(targets.clone(), credentials, observed, settled, changed, stop.clone()));
            }
            // The certificate was just made or checked; without it nobody can be asked, which the status says.
            Err(error) => tracing::error!(topology = %key, %error, "control certificate"),
        }
        let new = Running { targets, certificate, monitor: monitor.clone(), stop };
        running.insert(key.clone(), new);
        monitor
    }

    pub fn stop(&self, key: &ObjectRef<TopologyObject>) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    pub fn keep_only(&self, alive: &dyn Fn(&ObjectRef<TopologyObject>) -> bool) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| alive(key));
    }
}

/// States of links, sites whose key store does not answer, pairs of other versions, stores that were put back, and
/// whether the pacer does not answer.
type Said = (Vec<figures::State>, [Vec<String>; 2], Vec<RolledBack>, bool);

/// Tells that a topology has something new to say: at once if a link changed its state, seldom if figures moved.
struct Teller {
    key: ObjectRef<TopologyObject>,
    tell: mpsc::Sender<ObjectRef<TopologyObject>>,
    links: Vec<PlannedLink>,
    said: Mutex<Option<(Instant, Said)>>,
}

impl Teller {
    fn look(&self, observed: Option<&Observed>) {
        let Some(observed) = observed else { return };
        let states: Vec<figures::State> = figures::links(&self.links, observed).iter().map(|link| link.state).collect();
        let silent = [observed.silent_stores(), observed.other_versions()];
        let states = (states, silent, observed.rolled_back(), observed.pacer_is_silent);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let news = match &*said {
            Some((at, before)) => *before != states || at.elapsed() >= FIGURES_EVERY,
            None => true,
        };
        // A full queue has been told enough; the next round says it again.
        if news && self.tell.try_send(self.key.clone()).is_ok() {
            *said = Some((Instant::now(), states));
        }
    }
}
