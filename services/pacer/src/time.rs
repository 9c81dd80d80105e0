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
//! have what an earlier one allowed them, and get nothing new until it has heard all.

use std::collections::BTreeSet;

/// Where a source is. Times are in ps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nothing was heard of it on its present stream, if it has one.
    #[default]
    Away,
    /// It emits nothing.
    Idle,
    /// It is held at the beginning.
    Joining {
        number: u64,
        at_ps: u64,
    },
    Emitting(Emitting),
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

/// See the module.
#[derive(Clone, Debug)]
pub struct NetworkTime {
    skew_ps: u64,
    places: Vec<Place>,
    /// What sources that emit have reached, with the source: the first is the slowest.
    reached: BTreeSet<(u64, usize)>,
    /// For what sources wait.
    wanted: BTreeSet<(u64, usize)>,
    network_ps: u64,
    opening: bool,
    away: usize,
    idle: usize,
}

impl NetworkTime {
    pub fn new(sources: usize, skew_ps: u64) -> Self {
        Self {
            skew_ps,
            places: vec![Place::Away; sources],
            reached: BTreeSet::new(),
            wanted: BTreeSet::new(),
            network_ps: 0,
            opening: true,
            away: sources,
            idle: 0,
        }
    }

    pub fn network_ps(&self) -> u64 {
        self.network_ps
    }

    pub fn skew_ps(&self) -> u64 {
        self.skew_ps
    }

    /// By source.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What the beginning waits for; nothing once it is over.
    pub fn opening(&self) -> Option<Opening> {
        let joining = self.places.len() - self.away - self.idle - self.reached.len();
        let waits = match (self.reached.is_empty(), joining) {
            (false, _) => Opening::Flow,
            (true, 0) => Opening::Anybody,
            (true, _) => Opening::Others,
        };
        self.opening.then_some(waits)
    }

    /// The source's stream has ended, or another one has begun.
    pub fn lost(&mut self, source: usize, grants: &mut Grants) {
        self.put(source, Place::Away);
        self.settle(grants);
    }

    /// Takes what a source says. After a refusal its stream is at an end ([`NetworkTime::lost`]).
    pub fn report(&mut self, source: usize, report: Report, grants: &mut Grants) -> Result<(), Refusal> {
        match report {
            Report::Idle { reached_ps } => self.leave(source, reached_ps),
            Report::Join { number, at_ps } if self.opening => self.put(source, Place::Joining { number, at_ps }),
            Report::Join { number, at_ps } => self.begin(source, number, at_ps.max(self.network_ps)),
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

    /// Ends the beginning: whoever is there begins.
    pub fn open(&mut self, grants: &mut Grants) {
        if !self.opening {
            return;
        }
        self.opening = false;
        let joining = self.places.iter().enumerate().filter_map(|(source, place)| match *place {
            Place::Joining { number, at_ps } => Some((source, number, at_ps)),
            _ => None,
        });
        let joining: Vec<(usize, u64, u64)> = joining.collect();
        self.network_ps = match self.reached.first() {
            Some((slowest_ps, _)) => *slowest_ps,
            None => joining.iter().map(|(_, _, at_ps)| at_ps.saturating_sub(self.skew_ps)).max().unwrap_or(0),
        };
        for (source, number, at_ps) in joining {
            self.begin(source, number, at_ps.max(self.network_ps));
        }
        self.settle(grants);
        for source in 0..self.places.len() {
            self.grant(source, grants);
        }
    }

    /// Nothing is emitted any more. With the last source that emits, the time stays where that one has come to.
    fn leave(&mut self, source: usize, reached_ps: u64) {
        let before = self.places[source];
        self.put(source, Place::Idle);
        if let Place::Emitting(emitting) = before
            && self.reached.is_empty()
        {
            self.network_ps = self.network_ps.max(reached_ps.min(emitting.furthest_ps()));
        }
    }

    fn begin(&mut self, source: usize, number: u64, start_ps: u64) {
        let excused_ps = start_ps.saturating_add(self.skew_ps);
        let emitting = Emitting { number, start_ps, reached_ps: start_ps, excused_ps, ..Emitting::default() };
        self.put(source, Place::Emitting(emitting));
    }

    /// What a source that emits becomes by its report.
    fn emitting(&self, source: usize, number: u64, reached_ps: u64, wants_ps: u64) -> Result<Emitting, Refusal> {
        if wants_ps != 0 && wants_ps <= reached_ps {
            return Err(Refusal::Passed { wants_ps });
        }
        match self.places[source] {
            Place::Away => {
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
        reached_ps.saturating_add(self.skew_ps) < self.network_ps
    }

    fn behind(&self, number: u64) -> Grant {
        Grant { number, start_ps: 0, limit_ps: 0, network_ps: self.network_ps, behind: true }
    }

    /// Puts a source to another place.
    fn put(&mut self, source: usize, place: Place) {
        let before = std::mem::replace(&mut self.places[source], place);
        match before {
            Place::Away => self.away -= 1,
            Place::Idle => self.idle -= 1,
            Place::Joining { .. } => {}
            Place::Emitting(emitting) => {
                self.reached.remove(&(emitting.reached_ps, source));
                self.wanted.remove(&(emitting.wants_ps, source));
            }
        }
        match place {
            Place::Away => self.away += 1,
            Place::Idle => self.idle += 1,
            Place::Joining { .. } => {}
            Place::Emitting(emitting) => {
                self.reached.insert((emitting.reached_ps, source));
                if emitting.wants_ps != 0 {
                    self.wanted.insert((emitting.wants_ps, source));
                }
            }
        }
    }

    /// How far sources may go.
    fn limit_ps(&self) -> Option<u64> {
        let (slowest_ps, _) = self.reached.first()?;
        Some(slowest_ps.saturating_add(self.skew_ps))
    }

    /// Moves the network's time on, and lets those go that waited for it.
    fn settle(&mut self, grants: &mut Grants) {
        if self.opening {
            let all = self.away == 0 && (self.idle == 0 || !self.reached.is_empty());
            if all {
                self.open(grants);
            }
            return;
        }
        let Some(limit_ps) = self.limit_ps() else { return };
        self.network_ps = self.network_ps.max(limit_ps.saturating_sub(self.skew_ps));
        while let Some(&(wants_ps, source)) = self.wanted.first()
            && wants_ps <= limit_ps
        {
            self.wanted.pop_first();
            if let Place::Emitting(emitting) = &mut self.places[source] {
                emitting.wants_ps = 0;
            }
            self.grant(source, grants);
        }
    }

    /// Tells a source how far it may go, where that is further than it knows.
    fn grant(&mut self, source: usize, grants: &mut Grants) {
        let (Some(limit_ps), network_ps, false) = (self.limit_ps(), self.network_ps, self.opening) else { return };
        let Place::Emitting(emitting) = &mut self.places[source] else { return };
        if limit_ps > emitting.limit_ps {
            emitting.limit_ps = limit_ps;
            let (number, start_ps) = (emitting.number, emitting.start_ps);
            grants.push((source, Grant { number, start_ps, limit_ps, network_ps, behind: false }));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "time_tests.rs"]
mod tests;
