//! The matcher's half of sifting: finds the peer's clock from the photons alone, follows it, and decides which
//! announced events both ends keep.
//!
//! Everything follows from the sequence of pushed frames; a transform is used only to propose a lag, which
//! counting then confirms.

mod acquire;
mod clock;
mod correlate;
mod own;
mod peak;
mod result;
mod search;
mod sifting;
#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use zeroize::Zeroizing;

use self::acquire::Limits;
use self::clock::Clock;
use self::correlate::Streams;
use self::own::OwnClicks;
use self::peak::{Fit, Histogram, Shape};
pub use self::result::{FrameCounts, FrameResult, Kept, LockState, RecoveryError, RecoveryStatus};
use self::search::{Events, Finder, Pair};
use self::sifting::Sifter;
use crate::config::{Entangled, Framing};
use crate::sifting::entangled::announce::{self, Announcement, UNIT_PS};
use crate::sifting::tracking::Filter;

const PS_PER_UNIT: f64 = UNIT_PS as f64;
/// Frames of either stream that may wait beyond what acquisition needs.
const SPARE_FRAMES: u64 = 10;
/// A peak below this many standard deviations of its floor says nothing yet.
const PEAK_SIGMA: f64 = 6.0;
/// A peak above this was strong: it cannot become insignificant by chance.
const STRONG_SIGMA: f64 = 20.0;
/// Tracking intervals without a significant peak after which lock is lost.
const WEAK_INTERVALS: u32 = 4;
const WEAK_INTERVALS_AFTER_STRONG: u32 = 2;
/// After this many failures in a row, pauses between attempts grow.
const PATIENCE: u32 = 3;
const PAUSE_FRAMES_MAX: usize = 32;
/// Longer windows than the first smear more over the lags, so that several frequencies are tried.
const LONG_WINDOW: u64 = 2;
const LONG_HYPOTHESES: u32 = 4;

/// The relation of the clocks and what is measured to keep it.
struct Lock {
    clock: Clock,
    filter: Filter,
    histogram: Histogram,
    /// Peer's time at which the interval began, and its length, which grows to the full interval after lock.
    begin: u64,
    interval: u64,
    weak: u32,
    strong: bool,
    /// A frame has been judged: own clicks before the next one's belong to it or to the one before.
    running: bool,
}

struct PeerFrame {
    frame: u64,
    start: u64,
    end: u64,
    events: Vec<u64>,
}

/// See the module.
pub struct Recovery {
    frame_ps: u64,
    limits: Limits,
    shape: Shape,
    window_units: u64,
    interval_units: u64,
    backlog_max: usize,
    own: OwnClicks,
    peer: VecDeque<PeerFrame>,
    peer_next: Option<u64>,
    finished: bool,
    lock: Option<Lock>,
    failures: u32,
    /// Frames at the head of `peer` that will get no lock any more.
    given_up: usize,
    /// Own clicks that were let go while not locked, and words without a detector; for the next result.
    own_unlocked: u64,
    own_invalid: u64,
    finder: Finder,
    sifter: Sifter,
    pairs: Vec<Pair>,
    clicks: Vec<u64>,
    /// Buffers of judged frames, to be used again.
    spare: Vec<Vec<u64>>,
    status: RecoveryStatus,
}

impl Recovery {
    pub fn new(framing: Framing, config: &Entangled) -> Self {
        let units = |ps: u64| ps / UNIT_PS;
        let delay = units(config.analyser_delay_ps).clamp(16, 1 << 12) as i64;
        let window = units(config.coincidence_window_ps).min(2 * delay as u64);
        let acquisition = &config.acquisition;
        let reach = units(acquisition.search_ps) as i64;
        let frames = (LONG_WINDOW * acquisition.window_ps + 2 * acquisition.search_ps).div_ceil(framing.frame_ps);
        let shape = Shape::new(delay, window as i64);
        Self {
            frame_ps: framing.frame_ps,
            limits: Limits {
                reach,
                delay,
                frequency: acquisition.frequency_search,
                correlator: acquisition.correlator,
            },
            shape,
            window_units: units(acquisition.window_ps),
            interval_units: units(config.tracking_interval_ps),
            backlog_max: (frames + SPARE_FRAMES) as usize,
            own: OwnClicks::default(),
            peer: VecDeque::new(),
            peer_next: None,
            finished: false,
            lock: None,
            failures: 0,
            given_up: 0,
            own_unlocked: 0,
            own_invalid: 0,
            finder: Finder::new(shape.range as u64),
            sifter: Sifter::new(window, units(config.dead_time_ps)),
            pairs: Vec::new(),
            clicks: Vec::new(),
            spare: Vec::new(),
            status: RecoveryStatus { accidental_fraction_estimate: 1.0, ..RecoveryStatus::default() },
        }
    }

    /// Takes the next frame of own clicks.
    pub fn push_own(&mut self, frame: u64, mut tags: Vec<u64>) -> Result<(), RecoveryError> {
        if let Some(expected) = self.own.next_frame.filter(|expected| *expected != frame) {
            return Err(RecoveryError::OutOfOrder { expected, found: frame });
        }
        let (start, end) = announce::frame_units(frame, self.frame_ps)?;
        let invalid = announce::check_tags(frame, &tags, start, end)?;
        if invalid > 0 {
            tags.retain(|tag| announce::detectors(*tag) != 0);
            self.own_invalid += invalid;
        }
        self.own.frames.push_back(tags);
        self.own.end = end;
        self.own.next_frame = Some(frame + 1);
        if self.own.frames.len() > self.backlog_max {
            self.own_unlocked += self.own.discard_oldest_frame();
        }
        Ok(())
    }

    /// Takes the peer's next announcement. It is hostile input: nothing of a refused one is used.
    pub fn push_peer(&mut self, announcement: &Announcement) -> Result<(), RecoveryError> {
        let frame = announcement.frame;
        if let Some(expected) = self.peer_next.filter(|expected| *expected != frame) {
            return Err(RecoveryError::OutOfOrder { expected, found: frame });
        }
        if self.peer.len() >= self.backlog_max {
            return Err(RecoveryError::Backlog { frames: self.peer.len() });
        }
        let (start, end) = announce::frame_units(frame, self.frame_ps)?;
        let mut events = self.spare.pop().unwrap_or_default();
        announcement.unpack_into(self.frame_ps, &mut events)?;
        self.peer.push_back(PeerFrame { frame, start, end, events });
        self.peer_next = Some(frame + 1);
        Ok(())
    }

    /// No more frames will be pushed: every announced frame gets its result from what is there.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    pub fn status(&self) -> RecoveryStatus {
        self.status.clone()
    }

    /// The next announced frame's result, in order, as soon as own clicks cover it. Frames that come while the
    /// clock is searched wait for it; if it is not found, they get empty results.
    pub fn next_result(&mut self) -> Option<FrameResult> {
        loop {
            if self.given_up > 0 && !self.peer.is_empty() {
                self.given_up -= 1;
                return self.peer.pop_front().map(|frame| self.unlocked(&frame));
            }
            let front = self.peer.front()?;
            match &self.lock {
                Some(lock) => {
                    let end = lock.clock.map(front.end);
                    if self.own.end < end.saturating_add(self.shape.range as u64) && !self.finished {
                        return None;
                    }
                    let frame = self.peer.pop_front()?;
                    let result = self.judge(&frame);
                    if self.spare.is_empty() {
                        self.spare.push(frame.events);
                    }
                    return Some(result);
                }
                None => self.try_to_acquire()?,
            }
        }
    }

    /// An empty result; own clicks that no later frame can need go with it.
    fn unlocked(&mut self, frame: &PeerFrame) -> FrameResult {
        self.own_unlocked += self.own.discard(frame.end.saturating_sub(self.limits.reach as u64));
        let announced = frame.events.len() as u64;
        let mut counts = FrameCounts { announced, unlocked: announced, ..FrameCounts::default() };
        self.account_own(&mut counts, 0);
        FrameResult { frame: frame.frame, locked: false, kept: Zeroizing::new(Vec::new()), counts }
    }

    /// Adds up own clicks: those judged with this frame and those let go since the result before.
    fn account_own(&mut self, counts: &mut FrameCounts, judged: u64) {
        counts.own_unlocked += std::mem::take(&mut self.own_unlocked);
        counts.own_invalid = std::mem::take(&mut self.own_invalid);
        counts.own_clicks = judged + counts.own_unlocked + counts.own_invalid;
    }

    /// One attempt, if there is enough data for it; afterwards there is a lock or frames are given up.
    fn try_to_acquire(&mut self) -> Option<()> {
        let long = self.failures > 0;
        let window = self.window_units * if long { LONG_WINDOW } else { 1 };
        let begin = self.peer.front()?.start;
        let count = self.peer.iter().position(|f| f.end - begin >= window).map_or(usize::MAX, |i| i + 1);
        let Some(last) = count.checked_sub(1).and_then(|i| self.peer.get(i)) else {
            // Nothing more will come: what there is stays without a lock.
            self.given_up = if self.finished { self.peer.len() } else { 0 };
            return self.finished.then_some(());
        };
        let reach = self.limits.reach as u64;
        if self.own.end < last.end + reach && !self.finished {
            return None;
        }
        let span = (last.end - begin) as i64;
        let own = self.own.times(begin.saturating_sub(reach), last.end + reach, begin);
        let peer: Vec<i64> = self
            .peer
            .iter()
            .take(count)
            .flat_map(|frame| frame.events.iter().map(move |e| (e >> 1) as i64 + (frame.start - begin) as i64))
            .collect();
        self.status.attempts += 1;
        let streams = Streams { own: &own, peer: &peer, span };
        let hypotheses = if long { LONG_HYPOTHESES } else { 1 };
        match acquire::acquire(&streams, begin, &self.limits, hypotheses) {
            Some(acquired) => self.start_lock(acquired, begin, span as u64),
            None => {
                self.failures = self.failures.saturating_add(1);
                let pause = 1usize << self.failures.saturating_sub(PATIENCE).min(5);
                self.given_up = count + if self.failures > PATIENCE { pause.min(PAUSE_FRAMES_MAX) } else { 0 };
            }
        }
        Some(())
    }

    fn start_lock(&mut self, acquired: acquire::Acquired, begin: u64, span: u64) {
        self.failures = 0;
        self.status.acquisitions += 1;
        self.status.state = LockState::Locked;
        self.status.significance = acquired.significance;
        self.status.frequency = acquired.clock.frequency;
        self.status.offset_ps = acquired.clock.offset_ps(begin);
        self.lock = Some(Lock {
            clock: acquired.clock,
            filter: acquired.filter,
            histogram: Histogram::new(self.shape),
            // The window itself has been used: it is matched, but the first measurement is of what follows.
            begin: begin + span,
            interval: span.min(self.interval_units),
            weak: 0,
            strong: false,
            running: false,
        });
    }

    /// Matches one frame, and corrects the clock where an interval ends with it.
    fn judge(&mut self, frame: &PeerFrame) -> FrameResult {
        let announced = frame.events.len() as u64;
        let mut counts = FrameCounts { announced, ..FrameCounts::default() };
        let Some(lock) = &mut self.lock else { return self.unlocked(frame) };
        if !lock.running {
            lock.running = true;
            self.own_unlocked += self.own.discard(lock.clock.map(frame.start));
        }
        self.clicks.clear();
        self.own.take(lock.clock.map(frame.end), &mut self.clicks);
        self.pairs.clear();
        let events = Events { start: frame.start, events: &frame.events };
        self.finder.find(events, &self.clicks, lock.clock.at_frame(frame.start), &mut self.pairs);
        if frame.start >= lock.begin {
            for pair in &self.pairs {
                lock.histogram.add(i64::from(pair.difference));
            }
        }
        let kept = self.sifter.sift(events, &self.clicks, &self.pairs, &mut counts);
        self.account_own(&mut counts, self.clicks.len() as u64);
        self.track(frame.end);
        FrameResult { frame: frame.frame, locked: true, kept, counts }
    }

    /// Ends the tracking interval if it is full.
    fn track(&mut self, now: u64) {
        let Some(lock) = &mut self.lock else { return };
        self.status.offset_ps = lock.clock.offset_ps(now);
        if now < lock.begin + lock.interval * u64::from(lock.weak + 1) {
            return;
        }
        let fit = lock.histogram.fit();
        self.status.significance = fit.significance;
        if fit.significance < PEAK_SIGMA {
            lock.weak += 1;
            if lock.weak >= if lock.strong { WEAK_INTERVALS_AFTER_STRONG } else { WEAK_INTERVALS } {
                self.lock = None;
                self.status.state = LockState::Acquiring;
                self.status.losses += 1;
            }
            return;
        }
        let middle = lock.begin + (now - lock.begin) / 2;
        let correction = lock.filter.update(middle, fit.centre_ps, fit.variance_ps2);
        lock.clock.correct(middle, correction.phase_ps / PS_PER_UNIT, correction.frequency);
        self.status.settled = lock.interval >= self.interval_units;
        lock.strong = fit.significance > STRONG_SIGMA;
        lock.weak = 0;
        lock.begin = now;
        lock.interval = (2 * lock.interval).min(self.interval_units);
        lock.histogram.clear();
        self.report(&fit);
    }

    fn report(&mut self, fit: &Fit) {
        self.status.measurements += 1;
        self.status.residual_ps = fit.centre_ps;
        self.status.peak_fwhm_ps = fit.fwhm_ps;
        self.status.accidental_fraction_estimate = fit.accidental_fraction;
        if let Some(lock) = &self.lock {
            self.status.frequency = lock.clock.frequency;
        }
    }
}
