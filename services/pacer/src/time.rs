//! The network's time, as a state machine.
//!
//! It is the time of the slowest source that emits, and never goes back. A source may emit what ends within the skew of
//! that. One that begins, for the first time or after an interruption, begins no earlier: so what others were allowed
//! before stays right, and time that was dark costs nothing.
//!
//! The beginning is another matter. No source was interrupted, and keys at a seed must not depend on which one came
//! first. So sources that join are held until all are there, or until the caller has waited long enough
//! ([`NetworkTime::open`]). Then each begins where its data goes on; the time is that of the one with the most behind it,
//! and those that are further behind than the skew begin there. A pacer that was away finds sources in full flow: they
//! have what an earlier one allowed them, and get nothing new until it has heard all. Whoever has not come by then is
//! *missing*, holds nobody, and begins where the network is when it comes.
//!
//! A run that is to be repeated ([`NetworkTime::repeatable`]) lets nothing that happens in wall time decide where a
//! link has light. So each source begins where its outputs ask, which follows from contents alone: the
//! others wait until it is within the skew. One that stops emitting before its run is over is *expected* where it
//! stopped, as if it were slow, until the caller gives it up ([`NetworkTime::give_up`]); then it is missing, and the
//! others go on. When it comes after all, it still begins where it asks. The network's time stands until it has caught
//! up.

use std::collections::BTreeSet;

/// Where a source is. Times are in ps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// No source has this number any more.
    Vacant,
    /// Nothing was heard of it on its present stream, if it has one.
    #[default]
    Away,
    /// It emits nothing.
    Idle,
    /// It emits nothing, and will not.
    Ended,
    /// It is held at the beginning.
    Joining {
        number: u64,
        at_ps: u64,
    },
    Emitting(Emitting),
    /// It emits nothing, and the others wait for it behind what it has emitted.
    Expected {
        reached_ps: u64,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Emitting {
    /// Of this emission.
    pub number: u64,
    pub start_ps: u64,
    /// Begin of the next epoch.
    pub reached_ps: u64,
    /// End of that epoch, where it may not be emitted yet; otherwise 0.
    pub wants_ps: u64,
    /// How far it may go; 0 before it was told.
    limit_ps: u64,
    /// It may have reached this whatever its limit is: a pacer or a stream before this one let it go so far, or its first
    /// epoch is the first one behind its start.
    excused_ps: u64,
}

impl Emitting {
    /// Nothing that it may have emitted ends later.
    fn furthest_ps(&self) -> u64 {
        self.limit_ps.max(self.excused_ps)
    }
}

/// What a source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Behind the epoch that ends then.
    Idle {
        reached_ps: u64,
        /// Its run is over.
        ended: bool,
    },
    Join {
        number: u64,
        at_ps: u64,
    },
    Emitting {
        number: u64,
        reached_ps: u64,
        wants_ps: u64,
    },
}

/// What a source is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub number: u64,
    pub start_ps: u64,
    pub limit_ps: u64,
    pub network_ps: u64,
    pub skew_ps: u64,
    /// It is further behind than it may be: it has to begin again.
    pub behind: bool,
}

/// Grants by source, in the order in which they are to be told.
pub type Grants = Vec<(usize, Grant)>;

/// Why a report cannot be true.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("it emits, and was not told where to begin")]
    NotBegun,
    #[error("it has reached {reached_ps} ps, less than {before_ps} ps before")]
    Backwards { reached_ps: u64, before_ps: u64 },
    #[error("it has reached {reached_ps} ps, and was allowed {limit_ps} ps")]
    Beyond { reached_ps: u64, limit_ps: u64 },
    #[error("it waits for {wants_ps} ps, which it has passed")]
    Passed { wants_ps: u64 },
}

/// What the beginning waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The first source.
    Anybody,
    /// Sources are held; others may still come.
    Others,
    /// Some are in full flow; others may be as well.
    Flow,
}

/// What is known of one source.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    place: Place,
    /// It was waited for in vain, and has not emitted since.
    missing: bool,
    /// It came to a network that was under way already, and has not emitted yet.
    late: bool,
}

/// Sources that emit nothing and are not missing.
#[derive(Clone, Copy, Debug, Default)]
struct Awaited {
    away: usize,
    idle: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct NetworkTime {
    skew_ps: u64,
    repeatable: bool,
    sources: Vec<Known>,
    /// What sources that emit, or are expected, have reached, with the source: the first is the slowest.
    reached: BTreeSet<(u64, usize)>,
    /// For what sources wait.
    wanted: BTreeSet<(u64, usize)>,
    vacant: BTreeSet<usize>,
    network_ps: u64,
    opening: bool,
    joining: usize,
    awaited: Awaited,
}

impl NetworkTime {
    pub fn new(sources: usize, skew_ps: u64) -> Self {
        Self {
            skew_ps,
            repeatable: false,
            sources: vec![Known::default(); sources],
            reached: BTreeSet::new(),
            wanted: BTreeSet::new(),
            vacant: BTreeSet::new(),
            network_ps: 0,
            opening: true,
            joining: 0,
            awaited: Awaited { away: sources, idle: 0 },
        }
    }

    /// Of a run that is to be repeated: see the module.
    pub fn repeatable(self, repeatable: bool) -> Self {
        Self { repeatable, ..self }
    }

    pub fn network_ps(&self) -> u64 {
        self.network_ps
    }

    pub fn skew_ps(&self) -> u64 {
        self.skew_ps
    }

    /// By source.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.sources.iter().map(|known| &known.place)
    }

    pub fn place(&self, source: usize) -> Place {
        self.sources[source].place
    }

    /// It was waited for in vain, and the others went on without it.
    pub fn is_missing(&self, source: usize) -> bool {
        self.sources[source].missing
    }

    /// The others wait for it: at the beginning, or because it stopped.
    pub fn is_expected(&self, source: usize) -> bool {
        let known = &self.sources[source];
        match known.place {
            Place::Expected { .. } => true,
            Place::Away | Place::Idle => !known.missing && self.opening() == Some(Opening::Others),
            _ => false,
        }
    }

    /// What the beginning waits for; nothing once it is over.
    pub fn opening(&self) -> Option<Opening> {
        let waits = match (self.reached.is_empty(), self.joining) {
            (false, _) => Opening::Flow,
            (true, 0) => Opening::Anybody,
            (true, _) => Opening::Others,
        };
        self.opening.then_some(waits)
    }

    /// Another source is of the network from now on; its number.
    pub fn add(&mut self) -> usize {
        let known = Known { late: !self.opening, ..Known::default() };
        self.awaited.away += 1;
        match self.vacant.pop_first() {
            Some(source) => {
                self.sources[source] = known;
                source
            }
            None => {
                self.sources.push(known);
                self.sources.len() - 1
            }
        }
    }

    /// The source is of the network no longer. Its number may be another one's later.
    pub fn remove(&mut self, source: usize, grants: &mut Grants) {
        self.put(source, Place::Vacant);
        self.vacant.insert(source);
        self.settle(grants);
    }

    /// How far sources may be apart from now on.
    pub fn set_skew(&mut self, skew_ps: u64, grants: &mut Grants) {
        self.skew_ps = skew_ps;
        self.settle(grants);
    }

    /// The source's stream has ended, or another one has begun.
    pub fn lost(&mut self, source: usize, grants: &mut Grants) {
        match self.sources[source].place {
            Place::Expected { .. } => return,
            Place::Emitting(Emitting { reached_ps, .. }) if self.expects() => {
                self.put(source, Place::Expected { reached_ps });
            }
            _ => self.put(source, Place::Away),
        }
        self.settle(grants);
    }

    /// Takes what a source says. After a refusal its stream is at an end ([`NetworkTime::lost`]).
    pub fn report(&mut self, source: usize, report: Report, grants: &mut Grants) -> Result<(), Refusal> {
        match report {
            Report::Idle { reached_ps, ended } => self.leave(source, reached_ps, ended),
            Report::Join { number, at_ps } if self.opening => self.put(source, Place::Joining { number, at_ps }),
            Report::Join { number, at_ps } => self.begin(source, number, at_ps),
            Report::Emitting { number, reached_ps, wants_ps } => {
                let checked = self.emitting(source, number, reached_ps, wants_ps)?;
                if !self.opening && checked.limit_ps == 0 && self.is_behind(reached_ps) {
                    self.put(source, Place::Idle);
                    grants.push((source, self.behind(number)));
                } else {
                    self.put(source, Place::Emitting(checked));
                }
            }
        }
        self.settle(grants);
        self.grant(source, grants);
        Ok(())
    }

    /// The caller waits no longer for those that are not there: the beginning is over.
    pub fn open(&mut self, grants: &mut Grants) {
        if !self.opening {
            return;
        }
        for source in 0..self.sources.len() {
            if matches!(self.sources[source].place, Place::Away | Place::Idle) {
                self.miss(source);
            }
        }
        self.begin_all(grants);
    }

    /// The caller waits no longer for a source that is expected.
    pub fn give_up(&mut self, source: usize, grants: &mut Grants) {
        if let Place::Expected { .. } = self.sources[source].place {
            self.put(source, Place::Away);
            self.miss(source);
            self.settle(grants);
        }
    }

    fn miss(&mut self, source: usize) {
        self.count(source, false);
        self.sources[source].missing = true;
        self.count(source, true);
    }

    /// Whoever is there begins.
    fn begin_all(&mut self, grants: &mut Grants) {
        self.opening = false;
        let joining = self.sources.iter().enumerate().filter_map(|(source, known)| match known.place {
            Place::Joining { number, at_ps } => Some((source, number, at_ps)),
            _ => None,
        });
        let joining: Vec<(usize, u64, u64)> = joining.collect();
        let at_ps = joining.iter().map(|(_, _, at_ps)| *at_ps);
        let slowest_ps = self.reached.first().map(|(slowest_ps, _)| *slowest_ps);
        self.network_ps = if self.repeatable {
            at_ps.chain(slowest_ps).min().unwrap_or(0)
        } else {
            slowest_ps.unwrap_or_else(|| at_ps.map(|at_ps| at_ps.saturating_sub(self.skew_ps)).max().unwrap_or(0))
        };
        for (source, number, at_ps) in joining {
            self.begin(source, number, at_ps);
        }
        self.settle(grants);
        for source in 0..self.sources.len() {
            self.grant(source, grants);
        }
    }

    /// Whether one that stops emitting is waited for.
    fn expects(&self) -> bool {
        self.repeatable && !self.opening
    }

    /// Nothing is emitted any more. With the last source that emits, the time stays where that one has come to.
    fn leave(&mut self, source: usize, reached_ps: u64, ended: bool) {
        let before = self.sources[source].place;
        let place = match before {
            _ if ended => Place::Ended,
            Place::Expected { .. } => return,
            Place::Emitting(emitting) if self.expects() => {
                Place::Expected { reached_ps: reached_ps.clamp(emitting.reached_ps, emitting.furthest_ps()) }
            }
            _ => Place::Idle,
        };
        self.put(source, place);
        if let Place::Emitting(emitting) = before
            && self.reached.is_empty()
        {
            self.network_ps = self.network_ps.max(reached_ps.min(emitting.furthest_ps()));
        }
    }

    /// Begins an emission that is to begin at `at_ps`, or where the network is by now.
    fn begin(&mut self, source: usize, number: u64, at_ps: u64) {
        let asked = self.repeatable && !self.sources[source].late;
        let start_ps = if asked { at_ps } else { at_ps.max(self.network_ps) };
        let excused_ps = start_ps.saturating_add(self.skew_ps);
        let emitting = Emitting { number, start_ps, reached_ps: start_ps, excused_ps, ..Emitting::default() };
        self.put(source, Place::Emitting(emitting));
    }

    /// What a source that emits becomes by its report.
    fn emitting(&self, source: usize, number: u64, reached_ps: u64, wants_ps: u64) -> Result<Emitting, Refusal> {
        if wants_ps != 0 && wants_ps <= reached_ps {
            return Err(Refusal::Passed { wants_ps });
        }
        match self.sources[source].place {
            // Of an expected one, too, the stream alone may have been lost.
            Place::Away | Place::Expected { .. } => {
                let excused_ps = reached_ps.saturating_add(self.skew_ps);
                Ok(Emitting { number, reached_ps, wants_ps, excused_ps, ..Emitting::default() })
            }
            Place::Emitting(before) if before.number == number => {
                if reached_ps < before.reached_ps {
                    return Err(Refusal::Backwards { reached_ps, before_ps: before.reached_ps });
                }
                if reached_ps > before.furthest_ps() {
                    return Err(Refusal::Beyond { reached_ps, limit_ps: before.limit_ps });
                }
                Ok(Emitting { reached_ps, wants_ps, ..before })
            }
            _ => Err(Refusal::NotBegun),
        }
    }

    fn is_behind(&self, reached_ps: u64) -> bool {
        !self.repeatable && reached_ps.saturating_add(self.skew_ps) < self.network_ps
    }

    fn behind(&self, number: u64) -> Grant {
        let (network_ps, skew_ps) = (self.network_ps, self.skew_ps);
        Grant { number, start_ps: 0, limit_ps: 0, network_ps, skew_ps, behind: true }
    }

    /// Puts a source to another place.
    fn put(&mut self, source: usize, place: Place) {
        self.count(source, false);
        let known = &mut self.sources[source];
        match place {
            Place::Joining { .. } => known.missing = false,
            Place::Emitting(_) => (known.missing, known.late) = (false, false),
            _ => {}
        }
        known.place = place;
        self.count(source, true);
    }

    /// Enters a source where it is, or takes it out from there.
    fn count(&mut self, source: usize, is_there: bool) {
        let known = self.sources[source];
        let number = match known.place {
            Place::Away if !known.missing => &mut self.awaited.away,
            Place::Idle if !known.missing => &mut self.awaited.idle,
            Place::Joining { .. } => &mut self.joining,
            Place::Expected { reached_ps } => return keep(&mut self.reached, (reached_ps, source), is_there),
            Place::Emitting(emitting) => {
                keep(&mut self.reached, (emitting.reached_ps, source), is_there);
                return keep(&mut self.wanted, (emitting.wants_ps, source), is_there && emitting.wants_ps != 0);
            }
            Place::Vacant | Place::Away | Place::Idle | Place::Ended => return,
        };
        *number = if is_there { *number + 1 } else { *number - 1 };
    }

    /// How far sources may go.
    fn limit_ps(&self) -> Option<u64> {
        let (slowest_ps, _) = self.reached.first()?;
        Some(slowest_ps.saturating_add(self.skew_ps))
    }

    /// Moves the network's time on, and lets those go that waited for it.
    fn settle(&mut self, grants: &mut Grants) {
        if self.opening {
            let anybody = self.joining > 0 || !self.reached.is_empty();
            let all = self.awaited.away == 0 && (self.awaited.idle == 0 || !self.reached.is_empty());
            if all && anybody {
                self.begin_all(grants);
            }
            return;
        }
        let Some(limit_ps) = self.limit_ps() else { return };
        self.network_ps = self.network_ps.max(limit_ps.saturating_sub(self.skew_ps));
        while let Some(&(wants_ps, source)) = self.wanted.first()
            && wants_ps <= limit_ps
        {
            self.wanted.pop_first();
            if let Place::Emitting(emitting) = &mut self.sources[source].place {
                emitting.wants_ps = 0;
            }
            self.grant(source, grants);
        }
    }

    /// Tells a source how far it may go, where that is further than it knows.
    fn grant(&mut self, source: usize, grants: &mut Grants) {
        let (Some(limit_ps), network_ps, false) = (self.limit_ps(), self.network_ps, self.opening) else { return };
        let skew_ps = self.skew_ps;
        let Place::Emitting(emitting) = &mut self.sources[source].place else { return };
        if limit_ps > emitting.limit_ps {
            emitting.limit_ps = limit_ps;
            let (number, start_ps) = (emitting.number, emitting.start_ps);
            grants.push((source, Grant { number, start_ps, limit_ps, network_ps, skew_ps, behind: false }));
        }
    }
}

fn keep(set: &mut BTreeSet<(u64, usize)>, entry: (u64, usize), is_there: bool) {
    if is_there {
        set.insert(entry);
    } else {
        set.remove(&entry);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "time_tests.rs"]
mod tests;
