//! What a relay tells about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use proto::relay::v1::{GetStatusResponse, Route, RoutePath, Transfer};
use telemetry::metrics::{Counter, Meter};
use telemetry::names::{attribute, metric};
use transfer::{CompletedTransfer, Path, RelayEvent, SiteName};

use crate::records::{RecordError, Records};

/// The latest figures of one relay, and its completed transfers.
#[derive(Default)]
pub struct Status {
    figures: Mutex<GetStatusResponse>,
    records: Mutex<Option<Records>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked while holding these left nothing half done that matters.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Status {
    pub fn figures(&self) -> GetStatusResponse {
        locked(&self.figures).clone()
    }

    pub(crate) fn set(&self, figures: GetStatusResponse) {
        *locked(&self.figures) = figures;
    }

    /// Completed transfers from number `first` on, at most `limit` of them. Nothing before the relay runs. Blocks for
    /// the disk.
    pub fn transfers(&self, first: u64, limit: usize) -> Result<Vec<Transfer>, RecordError> {
        let Some(records) = locked(&self.records).clone() else { return Ok(Vec::new()) };
        Ok(records.page(first, limit)?.into_iter().map(|(number, completed)| transfer(number, &completed)).collect())
    }

    /// Lets the records be read for as long as the guard lives.
    pub(crate) fn lend(self: &Arc<Self>, records: &Records) -> Reading {
        *locked(&self.records) = Some(records.clone());
        Reading(self.clone())
    }
}

pub(crate) struct Reading(Arc<Status>);

impl Drop for Reading {
    fn drop(&mut self) {
        *locked(&self.0.records) = None;
    }
}

fn sites(path: &Path) -> Vec<String> {
    path.sites().iter().map(ToString::to_string).collect()
}

fn transfer(number: u64, completed: &CompletedTransfer) -> Transfer {
    Transfer {
        number,
        transfer: completed.transfer.0.to_vec().into(),
        group: completed.group.0.to_vec().into(),
        share: completed.share.into(),
        of: completed.of.into(),
        bytes: completed.bytes,
        path: sites(&completed.path),
    }
}

/// What becomes of keys with each target, gathered from what the state machine reports.
pub(crate) struct Routes {
    site: SiteName,
    routes: BTreeMap<SiteName, Route>,
    relayed: Counter,
    failed: Counter,
}

fn unrouted(target: &SiteName) -> Route {
    Route { target: target.to_string(), ..Route::default() }
}

impl Routes {
    pub fn new(service: &str, site: &SiteName, targets: impl Iterator<Item = SiteName>) -> Self {
        let route = |target: SiteName| (target.clone(), unrouted(&target));
        let meter = Meter::new(service).with(attribute::SITE_ID, site.as_str());
        Self {
            site: site.clone(),
            routes: targets.map(route).collect(),
            relayed: meter.counter(metric::RELAY_RELAYED, "{key}"),
            failed: meter.counter(metric::RELAY_FAILED, "{key}"),
        }
    }

    /// Has these targets from now on; those that are gone, or nothing where they are the same as before.
    pub fn replace(&mut self, targets: &BTreeSet<SiteName>) -> Option<Vec<SiteName>> {
        if self.routes.keys().eq(targets) {
            return None;
        }
        let gone = self.routes.keys().filter(|known| !targets.contains(*known)).cloned().collect();
        self.routes.retain(|known, _| targets.contains(known));
        for target in targets {
            self.routes.entry(target.clone()).or_insert_with(|| unrouted(target));
        }
        Some(gone)
    }

    pub fn wanted(&self, target: &SiteName) -> bool {
        self.routes.contains_key(target)
    }

    /// True where the level is not what it was.
    pub fn level(&mut self, target: &SiteName, level_bytes: u64) -> bool {
        let route = self.routes.get_mut(target);
        route.is_some_and(|route| std::mem::replace(&mut route.level_bytes, level_bytes) != level_bytes)
    }

    pub fn note(&mut self, event: &RelayEvent) {
        match event {
            RelayEvent::Started { target, paths, .. } | RelayEvent::Rerouted { target, paths } => {
                if let Some(route) = self.routes.get_mut(target) {
                    let mut all = paths.iter().map(sites);
                    route.path = all.next().unwrap_or_default();
                    route.further = all.map(|path| RoutePath { path }).collect();
                }
            }
            // Each share is told; the key is counted with its first.
            RelayEvent::Completed(completed) if completed.origin == self.site && completed.share == 0 => {
                self.relayed.add(1);
                self.change(&completed.target, |route| route.keys_relayed += 1);
            }
            RelayEvent::Voided { target, .. } => {
                self.failed.add(1);
                self.change(target, |route| route.keys_failed += 1);
            }
            RelayEvent::TooFewPaths { target, .. } => self.change(target, |route| route.no_path = true),
            RelayEvent::PathsFound { target } => self.change(target, |route| route.no_path = false),
            _ => {}
        }
    }

    fn change(&mut self, target: &SiteName, change: impl FnOnce(&mut Route)) {
        if let Some(route) = self.routes.get_mut(target) {
            change(route);
        }
    }

    pub fn all(&self) -> Vec<Route> {
        self.routes.values().cloned().collect()
    }
}
