//! When a link had light, over all sessions of a process.

use topology::figure::{Figure, Figures, Measured};

use crate::light::Remark;

/// What restarts and availability are counted by, epoch by epoch.
#[derive(Debug, Default)]
pub struct Uptime {
    /// First epoch that is counted, and the one behind the last.
    first: Option<u64>,
    end: u64,
    /// Epochs of sessions that had light.
    lit: u64,
    restarts: u64,
    /// There was light once, and there was an end to it since.
    interrupted: bool,
    /// Epoch in which an outage began that is not over.
    dark_since: Option<u64>,
}

impl Uptime {
    /// A session begins. Where there was one before, its light was interrupted.
    pub fn session_begins(&mut self) {
        self.interrupted = self.lit > 0;
        self.dark_since = None;
    }

    /// The next epoch of the session, and why it had no light, if it had none. Gives what is to be said of it.
    pub fn epoch(&mut self, epoch: u64, outage: &str, epoch_s: f64) -> Option<Remark> {
        self.first.get_or_insert(epoch);
        self.end = epoch.saturating_add(1);
        if !outage.is_empty() {
            self.interrupted = self.lit > 0;
            let begins = self.dark_since.is_none();
            self.dark_since.get_or_insert(epoch);
            return begins.then(|| ("light-out", outage.to_owned()));
        }
        self.lit += 1;
        self.restarts += u64::from(std::mem::take(&mut self.interrupted));
        let since = self.dark_since.take()?;
        let dark_s = epoch.saturating_sub(since) as f64 * epoch_s;
        Some(("light-back", format!("after {dark_s:.1} s without light")))
    }

    pub fn is_dark(&self) -> bool {
        self.dark_since.is_some()
    }

    /// Enters what is known into the figures of the run.
    pub fn tell(&self, figures: &mut Figures, interventions: u64) {
        let epochs = self.first.map_or(0, |first| self.end.saturating_sub(first));
        figures.set(Figure::Availability, Measured::ratio(self.lit.min(epochs), epochs));
        figures.set(Figure::Restarts, Measured::Value(self.restarts as f64));
        figures.set(Figure::Interventions, Measured::Value(interventions as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Restarts and the share of epochs with light.
    fn told(uptime: &Uptime) -> (f64, Option<Measured>) {
        let mut figures = Figures::default();
        uptime.tell(&mut figures, 0);
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
}
