//! What every site has said about its links, newest first to last.

use std::collections::BTreeMap;

use crate::message::LinkState;
use crate::name::SiteName;

/// Whether a link state tells something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Newer,
    Same,
    Older,
    Full,
}

struct Entry {
    state: LinkState,
    received_ms: u64,
}

#[derive(Default)]
pub(crate) struct Database {
    entries: BTreeMap<SiteName, Entry>,
}

impl Database {
    /// Keeps a link state if it is newer than what is known of its site and there is room.
    pub(crate) fn offer(&mut self, state: &LinkState, now_ms: u64, sites_max: usize) -> Verdict {
        let age = |state: &LinkState| (state.incarnation, state.seq);
        match self.entries.get(&state.site) {
            Some(known) if age(state) == age(&known.state) => return Verdict::Same,
            Some(known) if age(state) < age(&known.state) => return Verdict::Older,
            None if self.entries.len() >= sites_max => return Verdict::Full,
            _ => {}
        }
        self.entries.insert(state.site.clone(), Entry { state: state.clone(), received_ms: now_ms });
        Verdict::Newer
    }

    pub(crate) fn get(&self, site: &SiteName) -> Option<&LinkState> {
        self.entries.get(site).map(|entry| &entry.state)
    }

    /// Everything that is known, by name of the site.
    pub(crate) fn states(&self) -> impl Iterator<Item = &LinkState> {
        self.entries.values().map(|entry| &entry.state)
    }

    /// Drops what was not refreshed for so long, except what `own` says; true if something went.
    pub(crate) fn expire(&mut self, own: &SiteName, now_ms: u64, age_max_ms: u64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|site, entry| site == own || now_ms < entry.received_ms.saturating_add(age_max_ms));
        self.entries.len() < before
    }

    /// When the next link state grows too old.
    pub(crate) fn next_expiry_ms(&self, own: &SiteName, age_max_ms: u64) -> Option<u64> {
        let others = self.entries.iter().filter(|(site, _)| *site != own);
        others.map(|(_, entry)| entry.received_ms.saturating_add(age_max_ms)).min()
    }
}
