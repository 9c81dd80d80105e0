//! Clock recovery of a pulsed link: when pulses come in the receiver's own time, and what number each of them has.
//!
//! The first stretch of light is folded at the period of the pulses, which gives phase and frequency. The preamble's
//! public pattern then says which pulse is which; nothing else does, and nothing that a peer announces. From there on
//! the phase is measured interval by interval, and a filter corrects the clock. A darkness that is too long for that is
//! waited out (`dark`).

mod clock;
mod dark;
mod fold;
mod preamble;

use std::collections::VecDeque;
use std::ops::Range;

use zeroize::{Zeroize, Zeroizing};

use self::clock::PulseClock;
use self::dark::Dark;
use self::fold::{Acquired, Click, Fold, Gathered};
use self::preamble::Seen;
use super::config::{Encoding, Prepared, Search, Sync};
use crate::config::Emission;
use crate::sifting::entangled::announce::{self, AnnounceError, UNIT_PS};
use crate::sifting::entangled::recovery::{LockState, RecoveryStatus};
use crate::sifting::tracking::Filter;

/// Z0, Z1, X0, X1.
const OUTCOMES: usize = 4;
/// An interval with fewer clicks than this goes on.
const CLICKS_MIN: f64 = 64.0;
/// Intervals that one may go on for.
const INTERVAL_STRETCH: u64 = 8;
/// Measurements without a significant phase after which clicks are not used.
const WEAK_MAX: u32 = 4;
/// What a measurement must reach.
const TRACKING_SIGNIFICANCE_MIN: f64 = 16.0;

/// Why the receiver's clicks cannot be numbered. The session ends with it: the preamble is at the start of each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Frame(#[from] AnnounceError),
    #[error("frame {found} came where frame {expected} was due")]
    OutOfOrder { expected: u64, found: u64 },
    #[error("the preamble was not found: it came too early or too late, or is not the one that was agreed on")]
    NoPreamble,
    #[error("light came after the preamble; the next session begins with one")]
    LateLight,
    #[error("light is back after so long that numbers of pulses are not certain; the next session has a preamble")]
    LockLost,
}

/// Clicks that belong to one pulse.
#[derive(Clone, Copy, PartialEq, Eq, Zeroize)]
pub struct Happening {
    pub pulse: u64,
    /// Outcomes that were seen: bits 0 and 1 for Z, 2 and 3 for X.
    pub outcomes: u8,
    pub clicks: u32,
}

impl std::fmt::Debug for Happening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Happening({})", self.pulse)
    }
}

/// Clicks of a frame that are part of no happening, and all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    pub clicks: u64,
    /// Words that no detector belongs to.
    pub invalid: u64,
    /// While the pulses' numbers were not known.
    pub unlocked: u64,
    /// In the preamble or before it.
    pub preamble: u64,
    /// Too far from any moment at which light is expected.
    pub outside_gate: u64,
    /// Of a pulse that came while a detector may have been dead.
    pub dead: u64,
    /// Of a pulse that the frame before has taken.
    pub repeated: u64,
}

/// One frame of clicks, numbered.
#[derive(Debug)]
pub struct Numbered {
    pub frame: u64,
    /// Numbers of the pulses that came in the frame and make key; empty while they are not known.
    pub pulses: Range<u64>,
    /// In the order of their numbers, each of them once and in `pulses`.
    pub happenings: Zeroizing<Vec<Happening>>,
    pub counts: FrameCounts,
}

struct Frame {
    number: u64,
    start_ps: u64,
    end_ps: u64,
    tags: Vec<u64>,
}

impl Frame {
    fn clicks(&self) -> impl Iterator<Item = Click> {
        self.tags.iter().map(|tag| Click::of(*tag)).filter(|click| click.pattern != 0)
    }
}

struct Lock {
    clock: PulseClock,
    filter: Filter,
    gathered: Gathered,
    /// Where the interval began, and its length, which grows to the full one.
    begin_ps: u64,
    interval_ps: u64,
    weak: u32,
    /// The light is away for so long that the numbers of pulses are no longer certain.
    lost: bool,
    /// The last click of any detector, used or not. At first the start of the session: nobody knows what came before.
    last_click_ps: u64,
}

impl Lock {
    fn new(clock: PulseClock, filter: Filter, begin_ps: u64, interval_ps: u64, origin_ps: u64) -> Self {
        let gathered = Gathered::default();
        Self { clock, filter, gathered, begin_ps, interval_ps, weak: 0, lost: false, last_click_ps: origin_ps }
    }

    /// Whether there has been no light for so long that clicks are not used.
    fn is_dark(&self) -> bool {
        self.weak >= WEAK_MAX || self.lost
    }
}

/// See the module.
pub struct Recovery {
    config: Prepared,
    /// Mean numbers of photons of the brightest and of the dimmest pulses.
    intensities: [f64; 2],
    frame_ps: u64,
    fold: Fold,
    frames: VecDeque<Frame>,
    /// Start of the session's first frame.
    origin_ps: Option<u64>,
    next_frame: Option<u64>,
    finished: bool,
    lock: Option<Lock>,
    /// Where this session cannot number the light to come.
    dark: Option<Dark>,
    /// Pulses below this number were part of a frame or never make key.
    taken: u64,
    status: RecoveryStatus,
}

impl Recovery {
    pub fn new(config: &Prepared, emission: &Emission, frame_ps: u64) -> Self {
        let means = emission.mean_photons();
        let brightest = means.first().copied().unwrap_or(1.0);
        Self {
            config: config.clone(),
            intensities: [brightest, means.last().copied().unwrap_or(brightest)],
            frame_ps,
            fold: Fold::new(config.encoding, config.period_ps),
            frames: VecDeque::new(),
            origin_ps: None,
            next_frame: None,
            finished: false,
            lock: None,
            dark: None,
            taken: config.preamble_pulses,
            status: RecoveryStatus { accidental_fraction_estimate: 1.0, ..RecoveryStatus::default() },
        }
    }

    /// Takes the next frame of clicks.
    pub fn push(&mut self, frame: u64, tags: Vec<u64>) -> Result<(), RecoveryError> {
        if let Some(expected) = self.next_frame.filter(|expected| *expected != frame) {
            return Err(RecoveryError::OutOfOrder { expected, found: frame });
        }
        let (start, end) = announce::frame_units(frame, self.frame_ps)?;
        announce::check_tags(frame, &tags, start, end)?;
        let (start_ps, end_ps) = (start * UNIT_PS, end * UNIT_PS);
        let origin_ps = *self.origin_ps.get_or_insert(start_ps);
        self.next_frame = Some(frame + 1);
        if let Sync::Distributed { delay_ps } = self.config.sync
            && self.lock.is_none()
        {
            self.lock_distributed(origin_ps, delay_ps);
        }
        self.frames.push_back(Frame { number: frame, start_ps, end_ps, tags });
        Ok(())
    }

    /// No more frames will be pushed.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    pub fn status(&self) -> RecoveryStatus {
        self.status.clone()
    }

    /// Why no light that comes can be numbered in this session, if that is so.
    pub fn darkness(&self) -> Option<&RecoveryError> {
        self.dark.as_ref().map(|dark| &dark.why)
    }

    /// The next frame, as soon as its clicks can be numbered.
    pub fn next_frame(&mut self) -> Result<Option<Numbered>, RecoveryError> {
        if self.lock.is_none() && self.dark.is_none() {
            let Some(origin_ps) = self.origin_ps else { return Ok(None) };
            if let Sync::Photons(search) = self.config.sync.clone() {
                let end_ps = origin_ps.saturating_add(search.reach_ps).saturating_add(self.config.preamble_ps());
                if self.frames.back().is_some_and(|last| last.end_ps >= end_ps) {
                    self.acquire(origin_ps, end_ps, &search)?;
                } else if !self.finished {
                    return Ok(None);
                }
            }
        }
        let Some(frame) = self.frames.pop_front() else { return Ok(None) };
        match self.lock.take() {
            Some(mut lock) => {
                let numbered = self.number(&frame, &mut lock);
                if lock.lost {
                    self.status.losses += 1;
                    self.status.state = LockState::Acquiring;
                    self.dark = Some(Dark::new(RecoveryError::LockLost, frame.end_ps));
                } else {
                    self.lock = Some(lock);
                }
                Ok(Some(numbered))
            }
            None => {
                if let (Some(dark), Sync::Photons(search)) = (&mut self.dark, &self.config.sync)
                    && dark.ends(&frame, &self.fold, &self.config, search)
                {
                    return Err(dark.why.clone());
                }
                Ok(Some(self.unlocked(&frame)))
            }
        }
    }

    /// In darkness, or in a session that ended before its preamble was over.
    fn unlocked(&mut self, frame: &Frame) -> Numbered {
        let invalid = frame.tags.iter().filter(|tag| announce::detectors(**tag) == 0).count() as u64;
        let clicks = frame.tags.len() as u64;
        let counts = FrameCounts { clicks, invalid, unlocked: clicks - invalid, ..FrameCounts::default() };
        let happenings = Zeroizing::new(Vec::new());
        Numbered { frame: frame.number, pulses: self.taken..self.taken, happenings, counts }
    }

    fn lock_distributed(&mut self, origin_ps: u64, delay_ps: f64) {
        let (clock, filter) = self.distributed(origin_ps, delay_ps, origin_ps);
        let interval_ps = self.config.tracking_interval_ps;
        self.start(Lock::new(clock, filter, origin_ps, interval_ps, origin_ps));
    }

    /// The clock beside the light: the time of a tag says which pulse it is of. What the fibres' lengths leave is
    /// followed from `now_ps` on.
    fn distributed(&self, origin_ps: u64, delay_ps: f64, now_ps: u64) -> (PulseClock, Filter) {
        let period_ps = self.config.period_ps;
        let phase_ps = 0.5 * period_ps + delay_ps;
        let mut clock = PulseClock { reference_ps: origin_ps, phase_ps, number: 0, period_ps };
        clock.refer_to(now_ps);
        let uncertain_ps = period_ps / 16.0;
        (clock, Filter::new(now_ps / UNIT_PS, uncertain_ps * uncertain_ps, 1.0))
    }

    fn acquire(&mut self, origin_ps: u64, end_ps: u64, search: &Search) -> Result<(), RecoveryError> {
        self.status.attempts += 1;
        let clicks = self.frames.iter().flat_map(Frame::clicks);
        let clicks: Vec<Click> = clicks.filter(|click| click.time_ps < end_ps).collect();
        // From here on there is light, however late it began.
        let lit = clicks.partition_point(|click| click.time_ps < origin_ps + search.reach_ps);
        let acquired = fold::acquire(&self.fold, &clicks[lit..], self.config.period_ps, search.frequency);
        let Some(acquired) = acquired else {
            self.dark = Some(Dark::new(RecoveryError::LateLight, end_ps));
            return Ok(());
        };
        let Acquired { mut clock, middle_ps, variances, significance } = acquired;
        self.number_pulses(&mut clock, &clicks, origin_ps, search)?;
        clock.refer_to(end_ps);
        self.status.significance = significance;
        let filter = Filter::new(middle_ps / UNIT_PS, variances[0], variances[1]);
        let interval_ps = (2 * (end_ps - middle_ps)).clamp(1, self.config.tracking_interval_ps);
        self.start(Lock::new(clock, filter, end_ps, interval_ps, origin_ps));
        Ok(())
    }

    /// Compares the clicks with the preamble's pattern.
    fn number_pulses(
        &self,
        clock: &mut PulseClock,
        clicks: &[Click],
        origin_ps: u64,
        search: &Search,
    ) -> Result<(), RecoveryError> {
        let config = &self.config;
        let reach = (search.reach_ps as f64 / config.period_ps) as i64 + 2;
        let mut best: Option<(preamble::Found, PulseClock)> = None;
        // A fold at a harmonic leaves open which of its maxima in a period is the first moment of a pulse.
        for part in 0..self.fold.harmonic {
            let mut shifted = clock.clone();
            shifted.phase_ps += f64::from(part) * clock.period_ps / f64::from(self.fold.harmonic);
            let seen: Vec<Seen> = clicks.iter().filter_map(|click| self.seen(&shifted, *click)).collect();
            let (origin, _) = shifted.place(origin_ps, 0.0);
            let found =
                preamble::find(&seen, config.preamble_pulses, self.intensities, origin - reach, 2 * reach as usize + 1);
            let better = |found: &preamble::Found| best.as_ref().is_none_or(|b| found.significance > b.0.significance);
            if let Some(found) = found.filter(better) {
                best = Some((found, shifted));
            }
        }
        let (found, shifted) = best.ok_or(RecoveryError::NoPreamble)?;
        *clock = shifted;
        clock.number -= found.place;
        Ok(())
    }

    fn start(&mut self, lock: Lock) {
        self.status.state = LockState::Locked;
        self.status.acquisitions += 1;
        self.status.offset_ps = lock.clock.place(lock.clock.reference_ps, 0.0).1;
        self.status.frequency = lock.clock.frequency(self.config.period_ps);
        self.lock = Some(lock);
    }

    /// A click that says one thing.
    fn seen(&self, clock: &PulseClock, click: Click) -> Option<Seen> {
        let (place, outcomes) = self.place(clock, click)?;
        outcomes.is_power_of_two().then(|| Seen { place, outcome: outcomes.trailing_zeros() as usize })
    }

    /// The pulse that a click belongs to and what it says of it, if it is at a moment at which light is expected.
    #[inline]
    fn place(&self, clock: &PulseClock, click: Click) -> Option<(i64, u8)> {
        let half_ps = 0.5 * self.config.gate_ps;
        let at = |outcome: usize| {
            let (pulse, late_ps) = clock.place(click.time_ps, self.config.delay_ps(outcome));
            (late_ps.abs() <= half_ps).then_some(pulse)
        };
        if self.config.encoding == Encoding::Detectors {
            return at(0).map(|pulse| (pulse, click.pattern));
        }
        let z = (click.pattern & 0b0011 != 0)
            .then(|| at(0).map(|pulse| (pulse, 0b0001)).or_else(|| at(1).map(|pulse| (pulse, 0b0010))))
            .flatten();
        let x = (click.pattern & 0b1100 != 0).then(|| at(2).map(|pulse| (pulse, click.pattern & 0b1100))).flatten();
        match (z, x) {
            (Some((pulse, z)), Some((_, x))) => Some((pulse, z | x)),
            (one, other) => one.or(other),
        }
    }

    /// Whether a detector may have been dead in any moment of a pulse, after a click at `last_ps`.
    ///
    /// The click before tells which detector is dead. So a pulse that not every detector was ready for would tell a bit
    /// by its number alone. All detectors must be ready at the first moment at which light of the pulse may be seen:
    /// then early and late have the same chance. The half gate before that moment is room for the error of a tag.
    #[inline]
    fn is_dead(&self, clock: &PulseClock, pulse: u64, last_ps: u64) -> bool {
        let blind_ps = self.config.dead_time_ps + 0.5 * self.config.gate_ps;
        self.config.dead_time_ps > 0.0 && clock.since_ps(pulse as i64, last_ps) + blind_ps > 0.0
    }

    fn number(&mut self, frame: &Frame, lock: &mut Lock) -> Numbered {
        let mut counts = FrameCounts { clicks: frame.tags.len() as u64, ..FrameCounts::default() };
        let mut happenings: Zeroizing<Vec<Happening>> = Zeroizing::new(Vec::with_capacity(frame.tags.len()));
        let first = self.taken.max(u64::try_from(lock.clock.first_from(frame.start_ps)).unwrap_or(0));
        for tag in &frame.tags {
            let click = Click::of(*tag);
            if click.pattern == 0 {
                counts.invalid += 1;
                continue;
            }
            let before = std::mem::replace(&mut lock.last_click_ps, click.time_ps);
            self.track(lock, click.time_ps);
            if click.time_ps >= lock.begin_ps {
                self.fold.add(&mut lock.gathered, &lock.clock, click);
            }
            if lock.is_dark() {
                counts.unlocked += 1;
                continue;
            }
            let Some((pulse, outcomes)) = self.place(&lock.clock, click) else {
                counts.outside_gate += 1;
                continue;
            };
            let Some(pulse) = u64::try_from(pulse).ok().filter(|pulse| *pulse >= self.config.preamble_pulses) else {
                counts.preamble += 1;
                continue;
            };
            if let Some(last) = happenings.last_mut().filter(|last| last.pulse == pulse) {
                last.outcomes |= outcomes;
                last.clicks += 1;
            } else if pulse < happenings.last().map_or(self.taken, |last| last.pulse) {
                counts.repeated += 1;
            } else if self.is_dead(&lock.clock, pulse, before) {
                counts.dead += 1;
            } else {
                happenings.push(Happening { pulse, outcomes, clicks: 1 });
            }
        }
        self.track(lock, frame.end_ps);
        let first = happenings.first().map_or(first, |happening| happening.pulse.min(first));
        let end = u64::try_from(lock.clock.first_from(frame.end_ps)).unwrap_or(0);
        let end = happenings.last().map_or(end, |happening| end.max(happening.pulse + 1)).max(first);
        let pulses = if lock.is_dark() && happenings.is_empty() { first..first } else { first..end };
        self.taken = self.taken.max(pulses.end);
        Numbered { frame: frame.number, pulses, happenings, counts }
    }

    /// Ends the tracking interval if it is over at `now_ps`.
    #[inline]
    fn track(&mut self, lock: &mut Lock, now_ps: u64) {
        let length_ps = now_ps.saturating_sub(lock.begin_ps);
        if length_ps < lock.interval_ps {
            return;
        }
        if lock.gathered.clicks() < CLICKS_MIN && length_ps < INTERVAL_STRETCH * lock.interval_ps {
            return;
        }
        self.end_interval(lock, now_ps);
    }

    #[cold]
    fn end_interval(&mut self, lock: &mut Lock, now_ps: u64) {
        let middle_ps = lock.begin_ps + (now_ps - lock.begin_ps) / 2;
        let gathered = std::mem::take(&mut lock.gathered);
        lock.begin_ps = now_ps;
        self.status.significance = gathered.significance();
        if gathered.significance() < TRACKING_SIGNIFICANCE_MIN {
            lock.weak = lock.weak.saturating_add(1);
            if lock.is_dark() {
                self.status.state = LockState::Acquiring;
                self.in_darkness(lock, now_ps);
            }
            return;
        }
        let (late_ps, variance) = self.fold.late_ps(&gathered, lock.clock.period_ps);
        let correction = lock.filter.update(middle_ps / UNIT_PS, late_ps, variance);
        lock.clock.correct(middle_ps, correction);
        lock.clock.refer_to(now_ps);
        lock.weak = 0;
        self.status.settled = lock.interval_ps >= self.config.tracking_interval_ps;
        lock.interval_ps = (2 * lock.interval_ps).min(self.config.tracking_interval_ps);
        self.status.state = LockState::Locked;
        self.status.measurements += 1;
        self.status.residual_ps = late_ps;
        self.status.offset_ps = lock.clock.place(now_ps, 0.0).1;
        self.status.frequency = lock.clock.frequency(self.config.period_ps);
    }

    /// A clock runs on without light for as long as it is certain which pulse is which.
    fn in_darkness(&self, lock: &mut Lock, now_ps: u64) {
        let uncertain_ps = lock.filter.phase_variance(now_ps / UNIT_PS).sqrt();
        let cycle_ps = self.config.period_ps / f64::from(self.fold.harmonic);
        if uncertain_ps <= cycle_ps / 16.0 {
            return;
        }
        match self.config.sync {
            Sync::Photons(_) => lock.lost = true,
            // The clock beside the light knows the numbers, however long it is dark.
            Sync::Distributed { delay_ps } => {
                let origin_ps = self.origin_ps.unwrap_or(now_ps);
                (lock.clock, lock.filter) = self.distributed(origin_ps, delay_ps, now_ps);
            }
        }
    }
}
