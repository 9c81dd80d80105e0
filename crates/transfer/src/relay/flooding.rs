//! Link states: saying one's own, passing on those of others, forgetting old ones.

use super::{Action, NeighbourState, Relay};
use crate::database::Verdict;
use crate::error::Rejection;
use crate::event::RelayEvent;
use crate::message::{LinkReport, LinkState, Message};
use crate::name::SiteName;
use crate::record::Record;

use super::neighbour::Neighbour;

/// Refresh periods after which a silent site is forgotten.
const PERIODS_TO_LIVE: u64 = 3;

/// When own link state was last said, and what may be said next.
#[derive(Default)]
pub(super) struct Said {
    at_ms: Option<u64>,
    seq: u64,
    /// Incarnation of something newer that is about in this site's name.
    outranked_by: Option<u64>,
}

impl Relay {
    pub(super) fn on_neighbour(&mut self, now_ms: u64, site: SiteName, state: NeighbourState, out: &mut Vec<Action>) {
        if site == self.site
            || (!self.neighbours.contains_key(&site) && self.neighbours.len() >= self.settings.neighbours_max)
        {
            return self.reject(None, Rejection::TooMany, out);
        }
        let settings = &self.settings;
        let neighbour = self.neighbours.entry(site.clone()).or_insert_with(|| Neighbour::new(now_ms, settings));
        let arrived = state.connected && !neighbour.state.connected;
        neighbour.update(now_ms, state, settings);
        if arrived {
            let known: Vec<LinkState> = self.database.states().cloned().collect();
            for state in known {
                self.send(&site, Message::LinkState(state), out);
            }
            self.hurry(now_ms, &site);
        }
        self.network_changed(now_ms);
        self.advertise(now_ms, out);
    }

    pub(super) fn on_neighbour_gone(&mut self, now_ms: u64, site: &SiteName, out: &mut Vec<Action>) {
        if self.neighbours.remove(site).is_some() {
            self.advertise(now_ms, out);
        }
    }

    pub(super) fn on_link_state(
        &mut self,
        now_ms: u64,
        from: &SiteName,
        state: LinkState,
        out: &mut Vec<Action>,
    ) -> Result<(), Rejection> {
        let known = self.neighbours.get_mut(from);
        let neighbour = known.ok_or_else(|| Rejection::UnknownNeighbour { from: from.clone() })?;
        if !neighbour.takes_link_state(now_ms, &self.settings) {
            return Err(Rejection::TooManyLinkStates);
        }
        state.check()?;
        if state.site == self.site {
            self.outlive(now_ms, &state, out);
            return Ok(());
        }
        match self.database.offer(&state, now_ms, self.settings.sites_max) {
            Verdict::Newer => {
                self.network_changed(now_ms);
                self.flood(Some(from), &state, out);
            }
            Verdict::Same => {}
            Verdict::Older => {
                if let Some(newer) = self.database.get(&state.site).cloned() {
                    self.send(from, Message::LinkState(newer), out);
                }
            }
            Verdict::Full => return Err(Rejection::TooManySites),
        }
        Ok(())
    }

    /// Something that this site said in an earlier life, or that somebody else says in its name, is about: what it
    /// says next must be newer. It does not say it more often than anything else, whoever claims what.
    fn outlive(&mut self, now_ms: u64, said: &LinkState, out: &mut Vec<Action>) {
        if (said.incarnation, said.seq) > (self.incarnation, self.said.seq) && said.incarnation < u64::MAX {
            self.said.outranked_by = self.said.outranked_by.max(Some(said.incarnation));
            self.advertise(now_ms, out);
        }
    }

    fn flood(&mut self, except: Option<&SiteName>, state: &LinkState, out: &mut Vec<Action>) {
        let to: Vec<SiteName> = self.neighbours.keys().filter(|site| Some(*site) != except).cloned().collect();
        for site in to {
            if self.connected(&site) {
                self.counters.link_states_flooded += 1;
                self.send(&site, Message::LinkState(state.clone()), out);
            }
        }
    }

    /// Says own link state if it is due: something changed by more than a fifth, or a period has passed.
    pub(super) fn advertise(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        if self.advertise_due_ms(now_ms) <= now_ms {
            self.say(now_ms, out);
        }
    }

    fn say(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        if let Some(incarnation) = self.said.outranked_by.filter(|incarnation| *incarnation >= self.incarnation) {
            self.incarnation = incarnation.saturating_add(1);
            out.push(Action::Persist(Record::Incarnation(self.incarnation)));
        }
        self.said = Said { at_ms: Some(now_ms), seq: self.said.seq.saturating_add(1), outranked_by: None };
        let links = self.neighbours.iter().map(|(site, neighbour)| neighbour.report(site)).collect();
        let state = LinkState { site: self.site.clone(), incarnation: self.incarnation, seq: self.said.seq, links };
        self.database.offer(&state, now_ms, usize::MAX);
        self.flood(None, &state, out);
    }

    fn advertise_due_ms(&self, now_ms: u64) -> u64 {
        let Some(at_ms) = self.said.at_ms else { return now_ms };
        let hasty = self.said.outranked_by.is_some() || self.differs();
        let wait_ms = if hasty { self.settings.link_state_min_ms } else { self.settings.refresh_ms };
        at_ms.saturating_add(wait_ms)
    }

    /// Whether own links differ by more than a fifth from what was last said of them.
    fn differs(&self) -> bool {
        let Some(said) = self.database.get(&self.site) else { return true };
        let chunk = u64::from(self.settings.chunk_bytes);
        let changed = |now: u64, then: u64, least: u64| {
            let difference = now.abs_diff(then);
            difference >= least && difference.saturating_mul(5) > now.max(then)
        };
        let link_changed = |then: &LinkReport| {
            self.neighbours.get(&then.neighbour).is_none_or(|neighbour| {
                let now = neighbour.report(&then.neighbour);
                now.up != then.up
                    || changed(now.stored_bytes, then.stored_bytes, chunk)
                    || changed(now.rate_bps, then.rate_bps, 1)
            })
        };
        said.links.len() != self.neighbours.len() || said.links.iter().any(link_changed)
    }

    pub(super) fn tick_flooding(&mut self, now_ms: u64, out: &mut Vec<Action>) {
        if self.database.expire(&self.site, now_ms, self.settings.refresh_ms.saturating_mul(PERIODS_TO_LIVE)) {
            self.network_changed(now_ms);
        }
        self.advertise(now_ms, out);
    }

    pub(super) fn flooding_deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let age_max_ms = self.settings.refresh_ms.saturating_mul(PERIODS_TO_LIVE);
        let expiry_ms = self.database.next_expiry_ms(&self.site, age_max_ms);
        expiry_ms.into_iter().chain([self.advertise_due_ms(now_ms)]).min()
    }

    /// Targets that wait for a way look again, though not for every small change at once.
    fn network_changed(&mut self, now_ms: u64) {
        let soon_ms = now_ms.saturating_add(self.settings.no_path_ms / 4);
        for target in self.targets.values_mut().filter(|target| target.waits_for_path) {
            target.hold_until_ms = target.hold_until_ms.min(soon_ms);
        }
    }

    pub(super) fn reject(&mut self, from: Option<SiteName>, why: Rejection, out: &mut Vec<Action>) {
        self.counters.count(&why);
        out.push(Action::Event(RelayEvent::Rejected { from, why }));
    }
}
