//! From light, dark counts and afterpulses to clicks: detectors that are blind after each.

use crate::config::{Detector, PORTS};
use crate::photons::{Arrival, arrival, port, time_ps};
use crate::random::{Draws, Stream, Subseed};
use crate::tag::UNIT_PS;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Shortest dead time in resolutions of the converter: one detector never fires twice in one.
const DEAD_TIME_MIN_RESOLUTIONS: f64 = 2.0;

/// Longest delay of an afterpulse, ps.
const AFTERPULSE_MAX_PS: i64 = 1 << 50;

const NEVER: Arrival = Arrival::MAX;

/// Ports of a receiver with a detector at each.
pub(super) const EVERY_PORT: &[u32] = &[0, 1, 2, 3];
/// In time-bin encoding one detector reads Z.
pub(super) const TIME_BIN_PORTS: &[u32] = &[0, 2, 3];

pub(super) struct Clicks {
    /// Those that have a detector.
    ports: &'static [u32],
    dark_mean_ps: f64,
    dark_words: Stream,
    chance_words: Stream,
    draws: Draws,
    /// Dead time as a difference of arrivals.
    dead: Arrival,
    latch: Chance,
    latch_reset: Arrival,
    afterpulse: Chance,
    afterpulse_decay_ps: f64,
    /// When each detector sees again.
    blind: [Arrival; PORTS],
    /// Dark counts to come in this epoch.
    darks: VecDeque<Arrival>,
    /// Afterpulses to come.
    pulses: BinaryHeap<Reverse<Arrival>>,
    clicks: Vec<Arrival>,
    len: usize,
}

/// Something that follows a click with a small probability: the clicks until it does are counted down.
struct Chance {
    probability: f64,
    clicks: u64,
}

impl Chance {
    fn new(probability: f64) -> Self {
        Self { probability, clicks: u64::MAX }
    }

    fn draw(&mut self, draws: &mut Draws) {
        self.clicks = draws.trials_to_success(self.probability);
    }
}

impl Clicks {
    pub(super) fn new(detector: &Detector, ports: &'static [u32], subseed: &Subseed) -> Self {
        let shortest_ps = DEAD_TIME_MIN_RESOLUTIONS * detector.tdc_resolution_ps.max(UNIT_PS as f64);
        let dead_ps = libm::round(detector.dead_time_ps.max(shortest_ps)) as i64;
        let latch_ps = libm::round(detector.latch_reset_ps) as i64;
        let chance_words = subseed.stream("afterpulses and latching");
        Self {
            ports,
            dark_mean_ps: 1e12 / (detector.dark_rate_hz.max(0.0) * ports.len() as f64),
            dark_words: subseed.stream("dark counts"),
            draws: chance_words.draws(0),
            chance_words,
            dead: arrival(dead_ps, 0),
            latch: Chance::new(detector.latch_probability),
            latch_reset: arrival(latch_ps.max(dead_ps), 0),
            afterpulse: Chance::new(detector.afterpulse_probability),
            afterpulse_decay_ps: detector.afterpulse_decay_ps.max(0.0),
            blind: [Arrival::MIN; PORTS],
            darks: VecDeque::new(),
            pulses: BinaryHeap::new(),
            clicks: Vec::new(),
            len: 0,
        }
    }

    /// Forgets all that has happened.
    pub(super) fn rest(&mut self) {
        self.blind = [Arrival::MIN; PORTS];
        self.pulses.clear();
        self.darks.clear();
    }

    /// Begins an epoch, whose dark counts fall into `[from_ps, to_ps)`.
    pub(super) fn enter(&mut self, epoch: u64, from_ps: i64, to_ps: i64) {
        self.draws = self.chance_words.draws(epoch);
        self.afterpulse.draw(&mut self.draws);
        self.latch.draw(&mut self.draws);
        let mut draws = self.dark_words.draws(epoch);
        let mut at_ps = from_ps;
        loop {
            // Saturates where there are none.
            at_ps = at_ps.saturating_add((draws.exponential() * self.dark_mean_ps + 0.5) as i64);
            if at_ps >= to_ps {
                break;
            }
            let port = self.ports[draws.word() as usize % self.ports.len()];
            self.darks.push_back(arrival(at_ps, port));
        }
    }

    /// Clicks of the events, which are in order and before `limit_ps`, and of what else happens until then.
    pub(super) fn run(&mut self, events: &[Arrival], limit_ps: i64) -> &[Arrival] {
        let limit = arrival(limit_ps, 0);
        let mut used = 0;
        self.len = 0;
        loop {
            // Room for every event that is left and one more.
            let room = self.len + events.len() - used + 1;
            if self.clicks.len() < room {
                self.clicks.resize(room, 0);
            }
            let pulse = self.pulses.peek().map_or(NEVER, |pulse| pulse.0);
            let dark = self.darks.front().copied().unwrap_or(NEVER);
            let interruption = pulse.min(dark).min(limit);
            let before = self.len;
            let lucky = self.afterpulse.clicks.min(self.latch.clicks);
            let stop = before.saturating_add(usize::try_from(lucky).unwrap_or(usize::MAX));
            used += self.see(&events[used..], interruption, stop);
            if self.len != stop {
                if interruption >= limit {
                    self.count(before);
                    return &self.clicks[..self.len];
                }
                if pulse <= dark {
                    self.pulses.pop();
                } else {
                    self.darks.pop_front();
                }
                self.see(&[interruption], NEVER, stop);
            }
            self.count(before);
            if self.len == stop {
                self.follow(self.clicks[stop - 1]);
            }
        }
    }

    /// Counts down the chances for the clicks since there were `before`.
    fn count(&mut self, before: usize) {
        let seen = (self.len - before) as u64;
        self.afterpulse.clicks -= seen;
        self.latch.clicks -= seen;
    }

    /// Clicks where the detector is not blind, up to an interruption or until there are `stop` clicks.
    /// Returns how many events were used.
    fn see(&mut self, events: &[Arrival], interruption: Arrival, stop: usize) -> usize {
        let mut blind = self.blind;
        let mut len = self.len;
        let dead = self.dead;
        let clicks = &mut self.clicks[..];
        let mut used = events.len();
        for (i, &event) in events.iter().enumerate() {
            if event >= interruption || len == stop {
                used = i;
                break;
            }
            // Without a branch: whether a detector is blind is anyone's guess.
            let until = &mut blind[port(event) as usize];
            let seen = event >= *until;
            *until = if seen { event + dead } else { *until };
            clicks[len] = event;
            len += usize::from(seen);
        }
        self.blind = blind;
        self.len = len;
        used
    }

    /// What follows a click whose turn has come.
    fn follow(&mut self, click: Arrival) {
        if self.latch.clicks == 0 {
            self.blind[port(click) as usize] = click + self.latch_reset;
            self.latch.draw(&mut self.draws);
        }
        if self.afterpulse.clicks == 0 {
            let delay_ps = (self.draws.exponential() * self.afterpulse_decay_ps + 0.5) as i64;
            let at_ps = time_ps(click + self.dead) + delay_ps.min(AFTERPULSE_MAX_PS);
            self.pulses.push(Reverse(arrival(at_ps, port(click))));
            self.afterpulse.draw(&mut self.draws);
        }
    }

    /// From now on times count from `epoch_ps` later.
    pub(super) fn leave(&mut self, epoch_ps: i64) {
        let shift = arrival(epoch_ps, 0);
        self.blind = self.blind.map(|until| until.saturating_sub(shift));
        self.pulses = self.pulses.drain().map(|pulse| Reverse(pulse.0 - shift)).collect();
    }
}
