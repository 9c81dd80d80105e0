//! When a link had light, over all sessions, those of earlier processes too.

use serde::{Deserialize, Serialize};
use topology::figure::{Figure, Figures, Measured};

use crate::light::Remark;

/// What is counted of a link end, and kept beside its blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// First epoch that is counted, and the one behind the last.
    first: Option<u64>,
    end: u64,
    /// Epochs of sessions that had light.
    lit: u64,
    restarts: u64,
    /// Orders to go on: to meet the peer again, or with another authentication secret.
    interventions: u64,
    /// There was light once, and there was an end to it since.
    interrupted: bool,
    /// The last run ended in order: the next one is no restart.
    ended: bool,
}

impl Counts {
    /// Whether more has changed than that time went on.
    pub fn tells_news_to(&self, before: &Self) -> bool {
        let Self { first, restarts, interventions, ended, .. } = *self;
        (first, restarts, interventions, ended) != (before.first, before.restarts, before.interventions, before.ended)
    }
}

/// What restarts and availability are counted by, epoch by epoch.
#[derive(Debug, Default)]
pub struct Uptime {
    counts: Counts,
    /// Epoch in which an outage began that is not over.
    dark_since: Option<u64>,
    /// What earlier processes counted is in it.
    resumed: bool,
}

impl Uptime {
    /// Goes on where an earlier process had come to; once.
    pub fn resume(&mut self, before: Counts) {
        if !std::mem::replace(&mut self.resumed, true) {
            // Nothing but an order can have come before.
            let interventions = before.interventions.saturating_add(self.counts.interventions);
            self.counts = Counts { interventions, ..before };
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A session begins. Where there was one before, its light was interrupted.
    pub fn session_begins(&mut self) {
        if !std::mem::take(&mut self.counts.ended) {
            self.counts.interrupted = self.counts.lit > 0;
        }
        self.dark_since = None;
    }

    /// The run has no more light, in order.
    pub fn run_ends(&mut self) {
        self.counts.ended = true;
    }

    pub fn intervention(&mut self) {
        self.counts.interventions = self.counts.interventions.saturating_add(1);
    }

    /// The next epoch of the session, and why it had no light, if it had none. Gives what is to be said of it.
    pub fn epoch(&mut self, epoch: u64, outage: &str, epoch_s: f64) -> Option<Remark> {
        let counts = &mut self.counts;
        counts.first.get_or_insert(epoch);
        counts.end = epoch.saturating_add(1);
        if !outage.is_empty() {
            counts.interrupted = counts.lit > 0;
            let begins = self.dark_since.is_none();
            self.dark_since.get_or_insert(epoch);
            return begins.then(|| ("light-out", outage.to_owned()));
        }
        counts.lit = counts.lit.saturating_add(1);
        let restarts = u64::from(std::mem::take(&mut counts.interrupted));
        counts.restarts = counts.restarts.saturating_add(restarts);
        let since = self.dark_since.take()?;
        let dark_s = epoch.saturating_sub(since) as f64 * epoch_s;
        Some(("light-back", format!("after {dark_s:.1} s without light")))
    }

    pub fn is_dark(&self) -> bool {
        self.dark_since.is_some()
    }

    /// Enters what is known into the figures of the run.
    pub fn tell(&self, figures: &mut Figures) {
        let Counts { first, end, lit, restarts, interventions, .. } = self.counts;
        let epochs = first.map_or(0, |first| end.saturating_sub(first));
        figures.set(Figure::Availability, Measured::ratio(lit.min(epochs), epochs));
        figures.set(Figure::Restarts, Measured::Value(restarts as f64));
        figures.set(Figure::Interventions, Measured::Value(interventions as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Restarts and the share of epochs with light.
    fn told(uptime: &Uptime) -> (f64, Option<Measured>) {
        let mut figures = Figures::default();
        uptime.tell(&mut figures);
        (figures.value(Figure::Restarts).unwrap_or(f64::NAN), figures.get(Figure::Availability))
    }

    fn run(uptime: &mut Uptime, epochs: std::ops::Range<u64>, outage: &str) -> Vec<Remark> {
        epochs.filter_map(|epoch| uptime.epoch(epoch, outage, 0.5)).collect()
    }

    #[test]
    fn each_outage_is_one_restart_once_it_is_over_and_its_epochs_are_without_light() {
        let mut uptime = Uptime::default();
        uptime.session_begins();
        assert_eq!(run(&mut uptime, 0..80, ""), []);
        assert_eq!(told(&uptime), (0.0, Measured::ratio(80, 80)));
        assert_eq!(run(&mut uptime, 80..90, "cooled"), [("light-out", "cooled".to_owned())]);
        assert_eq!(told(&uptime), (0.0, Measured::ratio(80, 90)));
        assert_eq!(run(&mut uptime, 90..100, ""), [("light-back", "after 5.0 s without light".to_owned())]);
        assert_eq!(told(&uptime), (1.0, Measured::ratio(90, 100)));
    }

    #[test]
    fn a_session_after_another_one_is_a_restart_and_what_lies_between_them_was_without_light() {
        let mut uptime = Uptime::default();
        uptime.session_begins();
        // The first light of all is none.
        run(&mut uptime, 10..12, "dark from the beginning");
        run(&mut uptime, 12..20, "");
        assert_eq!(told(&uptime), (0.0, Measured::ratio(8, 10)));
        uptime.session_begins();
        // An outage that goes on into the next session counts with it, once.
        run(&mut uptime, 30..35, "cut");
        uptime.session_begins();
        run(&mut uptime, 40..50, "");
        assert_eq!(told(&uptime), (1.0, Measured::ratio(18, 40)));
    }

    #[test]
    fn a_process_that_starts_again_is_a_restart_and_a_run_after_one_that_ended_is_none() {
        let mut uptime = Uptime::default();
        uptime.session_begins();
        run(&mut uptime, 0..50, "");
        uptime.intervention();
        let kept = uptime.counts();
        let mut again = Uptime::default();
        again.intervention();
        again.resume(kept);
        again.resume(Counts::default());
        again.session_begins();
        run(&mut again, 75..100, "");
        assert_eq!(told(&again), (1.0, Measured::ratio(75, 100)));
        let mut figures = Figures::default();
        again.tell(&mut figures);
        assert_eq!(figures.value(Figure::Interventions), Some(2.0));
        again.run_ends();
        let mut next = Uptime::default();
        next.resume(again.counts());
        next.session_begins();
        run(&mut next, 100..200, "");
        assert_eq!(told(&next), (1.0, Measured::ratio(175, 200)));
    }
}
