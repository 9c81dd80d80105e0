//! Keeping the levels of wanted targets between their low and high water marks.

use std::collections::BTreeMap;

use super::routes::Survey;
use super::{Action, Relay};
use crate::error::{Malformed, Rejection};
use crate::event::RelayEvent;
use crate::message::SHARES_MAX;
use crate::name::{IdSource, Path, SiteName};

#[derive(Default)]
pub(super) struct Target {
    level_bytes: u64,
    low_water_bytes: u64,
    pub(super) high_water_bytes: u64,
    shares: u8,
    /// Between the low and the high water mark: whether it is on its way up.
    filling: bool,
    /// Released since the level was last told, and until when that counts: the level may have been told with them.
    credited_bytes: u64,
    credited_until_ms: u64,
    /// The paths of the last key.
    pub(super) paths: Vec<Path>,
    /// Nothing is begun before this.
    pub(super) hold_until_ms: u64,
    failures: u32,
    pub(super) waits_for_path: bool,
}

impl Target {
    /// Whether one more key is wanted, with this many bytes on their way.
    fn hungry(&mut self, now_ms: u64, on_way_bytes: u64) -> bool {
        if now_ms >= self.credited_until_ms {
            self.credited_bytes = 0;
        }
        let expected_bytes = self.level_bytes.saturating_add(self.credited_bytes).saturating_add(on_way_bytes);
        if expected_bytes < self.low_water_bytes {
            self.filling = true;
        }
        if expected_bytes >= self.high_water_bytes {
            self.filling = false;
        }
        self.filling
    }
}

/// Keys on their way to one target.
#[derive(Clone, Copy, Default)]
struct OnWay {
    keys: usize,
    bytes: u64,
}

impl Relay {
    /// Of a pair the site with the smaller name originates.
    pub(super) fn on_want(&mut self, target: SiteName, water: (u64, u64, u64), shares: u8) -> Result<(), Rejection> {
        if shares == 0 || shares > SHARES_MAX {
            return Err(Malformed::Share.into());
        }
        if target <= self.site {
            return Err(Rejection::NotOurs { target });
        }
        if !self.targets.contains_key(&target) && self.targets.len() >= self.settings.targets_max {
            return Err(Rejection::TooMany);
        }
        let entry = self.targets.entry(target).or_default();
        (entry.level_bytes, entry.low_water_bytes, entry.high_water_bytes) = water;
        entry.shares = shares;
        entry.credited_bytes = 0;
        Ok(())
    }

    /// Begins keys, one target after the other, as long as limits, pads and wishes allow.
    pub(super) fn fill(&mut self, now_ms: u64, ids: &mut dyn IdSource, out: &mut Vec<Action>) {
        let mut on_way: BTreeMap<SiteName, OnWay> = BTreeMap::new();
        for outgoing in self.outgoing.values().filter(|outgoing| outgoing.in_flight()) {
            let entry = on_way.entry(outgoing.record.target.clone()).or_default();
            entry.keys += 1;
            entry.bytes += u64::from(outgoing.record.bytes);
        }
        let chunk_bytes = self.settings.chunk_bytes;
        let mut survey = None;
        while let Some(target) = self.next_hungry(now_ms, &on_way) {
            if !self.may_start() {
                return;
            }
            self.served = Some(target.clone());
            // What one key takes the next one does not find; who finds no way changes nothing.
            let surveyed = survey.take().unwrap_or_else(|| self.survey(now_ms, chunk_bytes));
            let Some(paths) = self.ways(now_ms, &target, &surveyed, out) else {
                survey = Some(surveyed);
                continue;
            };
            let entry = on_way.entry(target.clone()).or_default();
            entry.keys += 1;
            entry.bytes += u64::from(chunk_bytes);
            self.start(now_ms, &target, chunk_bytes, paths, ids, out);
        }
    }

    /// The next target in turn after the one served last.
    fn next_hungry(&mut self, now_ms: u64, on_way: &BTreeMap<SiteName, OnWay>) -> Option<SiteName> {
        let (window, served) = (self.settings.window, self.served.clone());
        let mut first = None;
        for (name, target) in &mut self.targets {
            let flying = on_way.get(name).copied().unwrap_or_default();
            let wanted = target.hungry(now_ms, flying.bytes) && flying.keys < window && target.hold_until_ms <= now_ms;
            if wanted && served.as_ref().is_none_or(|served| name > served) {
                return Some(name.clone());
            }
            if wanted && first.is_none() {
                first = Some(name.clone());
            }
        }
        first
    }

    fn ways(&mut self, now_ms: u64, target: &SiteName, survey: &Survey, out: &mut Vec<Action>) -> Option<Vec<Path>> {
        let wanted = self.targets.get(target)?.shares;
        let chosen = self.choose(survey, target, usize::from(wanted), out);
        let hold_ms = self.settings.no_path_ms;
        let entry = self.targets.get_mut(target)?;
        let had_none = std::mem::replace(&mut entry.waits_for_path, chosen.is_err());
        match chosen {
            Ok(paths) => {
                if had_none {
                    out.push(Action::Event(RelayEvent::PathsFound { target: target.clone() }));
                }
                Some(paths)
            }
            Err(found) => {
                entry.hold_until_ms = now_ms.saturating_add(hold_ms);
                if !had_none {
                    let found = u8::try_from(found).unwrap_or(u8::MAX);
                    out.push(Action::Event(RelayEvent::TooFewPaths { target: target.clone(), wanted, found }));
                }
                None
            }
        }
    }

    pub(super) fn target_succeeded(&mut self, now_ms: u64, target: &SiteName, bytes: u32) {
        if let Some(target) = self.targets.get_mut(target) {
            target.credited_until_ms = now_ms.saturating_add(self.settings.retry_ms);
            target.credited_bytes = target.credited_bytes.saturating_add(u64::from(bytes));
            target.failures = 0;
        }
    }

    /// Pauses a target. Keys that fail together count once.
    pub(super) fn target_failed(&mut self, now_ms: u64, target: &SiteName) {
        if let Some(target) = self.targets.get_mut(target).filter(|target| target.hold_until_ms <= now_ms) {
            target.failures = target.failures.saturating_add(1);
            target.hold_until_ms = now_ms.saturating_add(self.settings.backoff_after_ms(target.failures));
            target.waits_for_path = false;
        }
    }

    pub(super) fn filling_deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let held = self.targets.values().filter(|target| target.filling).map(|target| target.hold_until_ms);
        let credited = self.targets.values().filter(|target| target.credited_bytes > 0);
        let until_ms = held.chain(credited.map(|target| target.credited_until_ms));
        until_ms.filter(|until_ms| *until_ms > now_ms).min()
    }
}
