//! Which stores of a network were put back, from all that say so.

use std::collections::BTreeMap;

use proto::anchor::v1::RolledBack;
use proto::detector::v1::LinkState;
use proto::detector::v1::ModuleStatus;

use super::End;
use super::keys::{RelayMonitor, StoreMonitor};
use crate::snapshot::RolledBackRow;

/// What is known while a network runs.
#[derive(Default)]
pub struct Book {
    /// What each end of a link said before it ended.
    ends: BTreeMap<(String, String), RolledBackRow>,
    rows: Vec<RolledBackRow>,
}

impl Book {
    /// Looks at everything that runs. Gives what is new.
    pub fn look(&mut self, ends: &[End], stores: &[StoreMonitor], relays: &[RelayMonitor]) -> Vec<RolledBackRow> {
        for end in ends {
            let key = (end.link.clone(), end.site.clone());
            match (said(&end.monitor.status()), end.monitor.state()) {
                (Some(row), _) => drop(self.ends.insert(key, row)),
                // What a link has come to when the run ends stays.
                (None, LinkState::Ended) => {}
                (None, _) => drop(self.ends.remove(&key)),
            }
        }
        let mut rows: Vec<RolledBackRow> = self.ends.values().cloned().collect();
        for store in stores {
            rows.extend(store.latest.borrow().pools.iter().filter_map(|pool| pool.rolled_back.as_ref()).map(row));
        }
        rows.extend(relays.iter().filter_map(|relay| relay.rolled_back.borrow().as_ref().map(row)));
        self.take(rows)
    }

    /// Both ends may say it of the same store: the first that knew it counts.
    fn take(&mut self, mut rows: Vec<RolledBackRow>) -> Vec<RolledBackRow> {
        rows.sort();
        rows.dedup_by(|later, earlier| later.is_same_store(earlier));
        let before = std::mem::replace(&mut self.rows, rows);
        self.rows.iter().filter(|row| !before.iter().any(|known| known.is_same_store(row))).cloned().collect()
    }

    pub fn rows(&self) -> &[RolledBackRow] {
        &self.rows
    }
}

fn said(status: &ModuleStatus) -> Option<RolledBackRow> {
    (status.state() == LinkState::RolledBack).then(|| status.rolled_back.as_ref().map(row)).flatten()
}

/// As it is shown.
pub fn row(said: &RolledBack) -> RolledBackRow {
    let since = i64::try_from(said.since_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    RolledBackRow {
        site: said.site.clone(),
        store: said.store.clone(),
        since: since.unwrap_or_default().to_string(),
        message: said.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(site: &str, since_ms: u64) -> RolledBackRow {
        row(&RolledBack { site: site.into(), store: "key store".into(), since_ms, message: "why".into() })
    }

    #[test]
    fn a_store_is_told_once_however_many_say_it_and_again_when_it_comes_back() {
        let mut book = Book::default();
        let first = book.take(vec![said("valrose", 2000), said("valrose", 1000), said("sophia", 3000)]);
        assert_eq!(first, [said("sophia", 3000), said("valrose", 1000)]);
        assert_eq!(book.rows()[1].since, "1970-01-01T00:00:01Z");
        assert!(book.take(vec![said("valrose", 2000)]).is_empty());
        assert_eq!(book.take(vec![said("valrose", 1000), said("sophia", 4000)]), [said("sophia", 4000)]);
    }
}
