//! Which way a key goes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Relay};
use crate::event::RelayEvent;
use crate::graph::{CostedPath, Graph};
use crate::message::{LinkReport, Refusal, RefusalReason};
use crate::name::{HOPS_MAX, Path, SiteName};
use crate::record::OutgoingStage;

/// What every hop costs.
const HOP: u64 = 1000;
/// A hop whose pool holds just one more transfer costs so much more; one that holds n of them an n-th of it.
const SCARCITY: u64 = 4000;
/// A hop whose link needs a minute to make up for the transfer costs one hop more; four at most.
const SLOWNESS: u64 = 1000;
const SLOWNESS_MAX: u64 = 4 * SLOWNESS;
const SLOW_S: u64 = 60;
/// A hop that failed lately is used if there is no other way.
const SUSPECT: u64 = 20_000;

/// The cost of one hop for a transfer of this many bytes, in thousandths of a hop over a rich and fast link:
/// `1000 + 4000 bytes / available + 1000 min(4, t / 60 s)`, where `available_bytes` is stored key less the reserve and
/// what this site has on its way over the link, and `t` the time in which the link makes `bytes` of new key. `None`
/// if less is available than needed: such a link is not used at all.
pub fn hop_cost(available_bytes: u64, rate_bps: u64, bytes: u32) -> Option<u64> {
    let bytes = u64::from(bytes);
    if bytes == 0 || available_bytes < bytes {
        return None;
    }
    let scarcity = SCARCITY.saturating_mul(bytes) / available_bytes;
    let per_slow = rate_bps.saturating_mul(SLOW_S);
    let slowness = (SLOWNESS * 8 * bytes).checked_div(per_slow).unwrap_or(SLOWNESS_MAX).min(SLOWNESS_MAX);
    Some(HOP + scarcity + slowness)
}

/// A link that both ends say is up: a claim of one end alone is not used. Sites by number.
struct Usable {
    from: usize,
    to: usize,
    available_bytes: u64,
    rate_bps: u64,
}

/// The links that have enough pad for one transfer, those that have some margin beyond it, and what both are made of.
pub(super) struct Survey {
    every: Graph,
    roomy: Graph,
    names: Vec<SiteName>,
    usable: Vec<Usable>,
    suspects: BTreeSet<(usize, usize)>,
}

impl Survey {
    /// The ways around the link between two neighbours, over links that have so much more than the transfer needs.
    fn around(&self, from: &SiteName, to: &SiteName, bytes: u32, margin_bytes: u64) -> Graph {
        let link = numbers(&self.names, from, to);
        let others = self.usable.iter().filter(|usable| Some((usable.from, usable.to)) != link);
        graph(&self.names, others, &self.suspects, bytes, margin_bytes)
    }
}

impl Relay {
    /// Up to `count` cheapest node-disjoint paths to a site for a transfer of this many bytes, as things are now.
    /// Those to a neighbour include the link to it.
    pub fn paths(&mut self, now_ms: u64, target: &SiteName, count: usize, bytes: u32) -> Vec<CostedPath> {
        self.survey(now_ms, bytes).every.disjoint(&self.site, target, count, HOPS_MAX)
    }

    /// The network as it is now, for transfers of this many bytes.
    pub(super) fn survey(&mut self, now_ms: u64, bytes: u32) -> Survey {
        let names: Vec<SiteName> = self.database.states().map(|state| state.site.clone()).collect();
        let usable = self.usable(now_ms, bytes, &names);
        let suspects = self.suspects.iter().filter(|(_, until_ms)| now_ms < **until_ms);
        let suspects = suspects.filter_map(|((from, to), _)| numbers(&names, from, to)).collect();
        let graph = |margin_bytes| graph(&names, &usable, &suspects, bytes, margin_bytes);
        let (every, roomy) = (graph(0), graph(self.settings.reserve_bytes));
        Survey { every, roomy, names, usable, suspects }
    }

    /// The paths of the next key: those of the last one, unless one of them cannot be used any more or others are
    /// cheaper by more than the hysteresis. A link that ran dry counts again only when it has some margin. Fewer than
    /// wanted: how many there are.
    ///
    /// Key for a neighbour goes around the link to it, over links whose pools stay above what is wanted of this one:
    /// none becomes short for the sake of another, so that pools which fill each other do not drain each other in a
    /// circle.
    pub(super) fn choose(
        &mut self,
        survey: &Survey,
        target: &SiteName,
        count: usize,
        out: &mut Vec<Action>,
    ) -> Result<Vec<Path>, usize> {
        let around = self.neighbours.contains_key(target).then(|| {
            let margin_bytes = self.targets.get(target).map_or(0, |entry| entry.high_water_bytes);
            survey.around(&self.site, target, self.settings.chunk_bytes, margin_bytes)
        });
        let (every, roomy) = around.as_ref().map_or((&survey.every, &survey.roomy), |around| (around, around));
        let mut best = roomy.disjoint(&self.site, target, count, HOPS_MAX);
        if best.len() < count {
            best = every.disjoint(&self.site, target, count, HOPS_MAX);
        }
        if best.len() < count {
            return Err(best.len());
        }
        let best_cost: u64 = best.iter().map(|path| path.cost).sum();
        let best: Vec<Path> = best.into_iter().map(|costed| costed.path).collect();
        let Some(entry) = self.targets.get_mut(target) else { return Ok(best) };
        let current_cost = entry.paths.iter().try_fold(0, |sum, path| Some(sum + every.cost(path)?));
        let keep = 100 - self.settings.hysteresis_percent;
        if let Some(cost) = current_cost
            && entry.paths.len() == count
            && best_cost.saturating_mul(100) >= cost * keep
        {
            return Ok(entry.paths.clone());
        }
        if !entry.paths.is_empty() && entry.paths != best {
            out.push(Action::Event(RelayEvent::Rerouted { target: target.clone(), paths: best.clone() }));
        }
        entry.paths.clone_from(&best);
        Ok(best)
    }

    fn usable(&mut self, now_ms: u64, bytes: u32, names: &[SiteName]) -> Vec<Usable> {
        let Ok(here) = names.binary_search(&self.site) else { return Vec::new() };
        let number = |link: &'_ LinkReport| names.binary_search(&link.neighbour).ok().filter(|_| link.up);
        let reports: Vec<Vec<(usize, &LinkReport)>> = self
            .database
            .states()
            .map(|state| state.links.iter().filter_map(|link| Some((number(link)?, link))).collect())
            .collect();
        let says_up = |at: usize, neighbour: usize| reports[at].iter().any(|(other, _)| *other == neighbour);
        let on_way = self.on_way(names);
        let own_shares = self.own_shares();
        let settings = &self.settings;
        let mut usable = Vec::new();
        for (from, links) in reports.iter().enumerate().filter(|(from, _)| *from != here) {
            for (to, link) in links.iter().filter(|(to, _)| says_up(*to, from)) {
                let spent = on_way.get(&(from, *to)).copied().unwrap_or_default();
                let available_bytes = link.stored_bytes.saturating_sub(settings.reserve_bytes).saturating_sub(spent);
                usable.push(Usable { from, to: *to, available_bytes, rate_bps: link.rate_bps });
            }
        }
        // Of its own links this site knows more than it last said.
        for (site, neighbour) in &mut self.neighbours {
            let Ok(to) = names.binary_search(site) else { continue };
            let free = own_shares.get(site).is_none_or(|shares| *shares < settings.outgoing_per_neighbour_max);
            let connected = neighbour.state.connected && says_up(to, here);
            if free && connected && neighbour.allows(now_ms, bytes, settings) {
                let available_bytes = neighbour.state.stored_bytes_out.saturating_sub(settings.reserve_bytes);
                usable.push(Usable { from: here, to, available_bytes, rate_bps: neighbour.state.rate_bps });
            }
        }
        usable
    }

    /// Bytes of this site's keys on their way over each link: the link states do not show them yet.
    fn on_way(&self, names: &[SiteName]) -> BTreeMap<(usize, usize), u64> {
        let mut on_way = BTreeMap::new();
        for outgoing in self.outgoing.values().filter(|outgoing| outgoing.record.stage == OutgoingStage::Carrying) {
            for share in outgoing.record.shares.iter().filter(|share| !share.relayed) {
                for link in share.path.links().filter_map(|(from, to)| numbers(names, from, to)) {
                    *on_way.entry(link).or_default() += u64::from(outgoing.record.bytes);
                }
            }
        }
        on_way
    }

    /// Shares of this site on their way by first hop.
    fn own_shares(&self) -> BTreeMap<SiteName, usize> {
        let mut shares = BTreeMap::new();
        for outgoing in self.outgoing.values().filter(|outgoing| outgoing.in_flight()) {
            for next in outgoing.record.shares.iter().filter_map(|share| share.path.get(1)) {
                *shares.entry(next.clone()).or_default() += 1;
            }
        }
        shares
    }

    /// Notes which link failed a transfer; without a refusal it may have been any of the path. One that the KMS
    /// refused as false or unknown was spoilt before the site that refused it.
    pub(super) fn suspect(&mut self, now_ms: u64, path: &Path, refusal: Option<Refusal>) {
        let until_ms = now_ms.saturating_add(self.settings.suspect_ms);
        let guilty = refusal.map(|refusal| {
            let hop = usize::from(refusal.hop);
            match refusal.reason {
                RefusalReason::Insufficient | RefusalReason::Unreachable => hop,
                RefusalReason::BadTag | RefusalReason::Unknown | RefusalReason::Busy => hop.saturating_sub(1),
            }
        });
        for (at, (from, to)) in path.links().enumerate() {
            if guilty.is_none_or(|guilty| guilty == at) {
                self.suspects.insert((from.clone(), to.clone()), until_ms);
            }
        }
    }
}

fn numbers(names: &[SiteName], from: &SiteName, to: &SiteName) -> Option<(usize, usize)> {
    Some((names.binary_search(from).ok()?, names.binary_search(to).ok()?))
}

fn graph<'u>(
    names: &[SiteName],
    usable: impl IntoIterator<Item = &'u Usable>,
    suspects: &BTreeSet<(usize, usize)>,
    bytes: u32,
    margin_bytes: u64,
) -> Graph {
    let links = usable.into_iter().filter_map(|link| {
        let enough = link.available_bytes >= margin_bytes.saturating_add(u64::from(bytes));
        let cost = hop_cost(link.available_bytes, link.rate_bps, bytes).filter(|_| enough)?;
        let suspect = suspects.contains(&(link.from, link.to));
        Some((link.from, link.to, if suspect { cost + SUSPECT } else { cost }))
    });
    Graph::numbered(names.to_vec(), links)
}
