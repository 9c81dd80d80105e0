//! From pairs inside the coincidence window to kept events, and what became of everything else.

use zeroize::{Zeroize, Zeroizing};

use super::search::{Events, Pair};
use super::{FrameCounts, Kept};
use crate::sifting::entangled::announce::{Basis, Resolved, detectors, resolve, time_units};

/// Remembers, across frames, what the dead-time rule needs.
///
/// Two clicks of one end closer than the dead time come from different detectors, and everybody can see how
/// close they are. So of two kept events within a dead time the second is dropped. In the key basis, with its two
/// detectors, the same is true along a chain: if every announced event of a basis follows the one before within a
/// dead time, detectors alternate, and the bits of all of them follow from one. So only one of a chain is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct DeadTime {
    last_kept: Option<u64>,
    chains: [Chain; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    /// Last event of this basis before this frame, and whether its chain has a kept one.
    carried: Option<(u64, bool)>,
    /// The same for an event of this frame, by index.
    judged: Option<(usize, bool)>,
}

pub(super) struct Sifter {
    window_parts: i32,
    window_units: u64,
    dead_units: u64,
    dead: DeadTime,
    hits: Vec<Hit>,
}

/// An announced event and an own happening inside the window.
#[derive(Clone, Copy)]
struct Hit {
    event: u32,
    own: u32,
    /// Clicks of the own happening.
    clicks: u32,
}

fn basis_of(event: u64) -> Basis {
    if event & 1 == 1 { Basis::X } else { Basis::Z }
}

impl Sifter {
    pub fn new(window_units: u64, dead_units: u64) -> Self {
        Self {
            // Half the window either way, in 1/256 units.
            window_parts: (window_units * 128) as i32,
            window_units,
            dead_units: dead_units + window_units,
            dead: DeadTime::default(),
            hits: Vec::new(),
        }
    }

    /// Judges one frame. `pairs` may hold wider differences than the window.
    pub fn sift(
        &mut self,
        events: Events,
        own: &[u64],
        pairs: &[Pair],
        counts: &mut FrameCounts,
    ) -> Zeroizing<Vec<Kept>> {
        self.collect(own, pairs);
        let mut kept = Zeroizing::new(Vec::with_capacity(self.hits.len()));
        let hits = std::mem::take(&mut self.hits);
        let (mut matched, mut own_matched, mut last_ambiguous) = (0, 0, (None, None));
        for (index, hit) in hits.iter().enumerate() {
            let touches = |other: Option<&Hit>| other.is_some_and(|o| o.event == hit.event || o.own == hit.own);
            if touches(index.checked_sub(1).and_then(|i| hits.get(i))) || touches(hits.get(index + 1)) {
                if last_ambiguous.0 != Some(hit.event) {
                    counts.ambiguous += 1;
                    matched += 1;
                }
                if last_ambiguous.1 != Some(hit.own) {
                    counts.own_ambiguous += u64::from(hit.clicks);
                    own_matched += u64::from(hit.clicks);
                }
                last_ambiguous = (Some(hit.event), Some(hit.own));
                continue;
            }
            matched += 1;
            own_matched += u64::from(hit.clicks);
            self.judge(events, own, hit, counts, &mut kept);
        }
        self.hits = hits;
        self.end_frame(events);
        counts.unmatched += events.events.len() as u64 - matched;
        counts.own_unmatched += own.len() as u64 - own_matched;
        kept
    }

    /// Own clicks within a window of each other are one happening, at the time of the first of them.
    fn collect(&mut self, own: &[u64], pairs: &[Pair]) {
        self.hits.clear();
        let window = self.window_units;
        let near = |i: usize| own.get(i + 1).is_some_and(|next| time_units(*next) - time_units(own[i]) <= window);
        for pair in pairs.iter().filter(|p| p.difference.abs() <= self.window_parts) {
            let first = pair.own as usize;
            if first > 0 && near(first - 1) {
                continue;
            }
            let clicks = 1 + (first..own.len()).take_while(|i| near(*i)).count() as u32;
            self.hits.push(Hit { event: pair.event, own: pair.own, clicks });
        }
    }

    fn judge(&mut self, events: Events, own: &[u64], hit: &Hit, counts: &mut FrameCounts, kept: &mut Vec<Kept>) {
        let (index, first, clicks) = (hit.event as usize, hit.own as usize, hit.clicks as usize);
        let fired = own[first..first + clicks].iter().fold(0, |fired, tag| fired | detectors(*tag));
        let extra = clicks as u64 - 1;
        let (basis, bit, random) = match resolve(fired, clicks) {
            Resolved::Single(basis, bit) => (basis, bit, false),
            Resolved::SameBasisDouble(basis) => (basis, private_coin(own[first]), true),
            Resolved::CrossBasisDouble => {
                counts.cross_basis_doubles += 1;
                counts.own_cross_basis_doubles += 1 + extra;
                return;
            }
        };
        counts.own_merged += extra;
        if basis != basis_of(events.events[index]) {
            counts.basis_mismatch += 1;
            return;
        }
        if self.within_dead_time(events, index, basis) {
            counts.within_dead_time += 1;
            return;
        }
        match basis {
            Basis::Z => counts.kept_z += 1,
            Basis::X => counts.kept_x += 1,
        }
        counts.random_bits += u64::from(random);
        kept.push(Kept { index: hit.event, basis, bit });
    }

    /// Whether keeping this event would say something about the bit of one that is kept already; if not, it is
    /// noted as kept.
    fn within_dead_time(&mut self, events: Events, index: usize, basis: Basis) -> bool {
        let time = events.start + (events.events[index] >> 1);
        let chained = self.chain_has_kept(events, index, basis);
        let close = self.dead.last_kept.is_some_and(|last| time.saturating_sub(last) <= self.dead_units);
        self.dead.chains[basis as usize].judged = Some((index, chained || !close));
        if chained || close {
            return true;
        }
        self.dead.last_kept = Some(time);
        false
    }

    /// Walks back along the chain of event `index` to the last one whose chain is known.
    fn chain_has_kept(&self, events: Events, index: usize, basis: Basis) -> bool {
        let chain = &self.dead.chains[basis as usize];
        let time_of = |i: usize| events.start + (events.events[i] >> 1);
        let mut time = time_of(index);
        let stop = chain.judged.map_or(0, |(judged, _)| judged + 1);
        for before in (stop..index).rev() {
            let gap = time - time_of(before);
            if gap > self.dead_units {
                return false;
            }
            if basis_of(events.events[before]) == basis {
                time = time_of(before);
            }
        }
        let known = match chain.judged {
            Some((judged, has_kept)) => Some((time_of(judged), has_kept)),
            None => chain.carried,
        };
        known.is_some_and(|(last, has_kept)| has_kept && time.saturating_sub(last) <= self.dead_units)
    }

    /// Carries the chains of both bases over to the next frame.
    fn end_frame(&mut self, events: Events) {
        for basis in [Basis::Z, Basis::X] {
            let from = self.dead.chains[basis as usize].judged.map_or(0, |(judged, _)| judged);
            let last = (from..events.events.len()).rev().find(|i| basis_of(events.events[*i]) == basis);
            let Some(last) = last else { continue };
            let has_kept = match self.dead.chains[basis as usize].judged {
                Some((judged, has_kept)) if judged == last => has_kept,
                _ => self.chain_has_kept(events, last, basis),
            };
            let time = events.start + (events.events[last] >> 1);
            self.dead.chains[basis as usize] = Chain { carried: Some((time, has_kept)), judged: None };
        }
    }
}

/// A random bit for a same-basis double: the parity of the click's own time. Steps of 4 ps are far finer than a
/// detector's jitter, and own times are never published, so nobody else can know it better than by chance.
fn private_coin(tag: u64) -> bool {
    time_units(tag).count_ones() & 1 == 1
}

impl Zeroize for Kept {
    fn zeroize(&mut self) {
        self.bit.zeroize();
    }
}
