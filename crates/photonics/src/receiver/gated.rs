//! Detectors that are sensitive in gates: from light, dark counts and afterpulses to clicks, gate by gate.
//!
//! Gates stand where pulses arrive: the first light of an epoch and that of the next one bound the epoch's gates, so
//! they follow the arm's delay as a receiver's own gate control does.

use crate::config::{Basis, BasisChoice, Detector, Encoding, GatedAvalanche, PORTS, PreparedAnalyser};
use crate::nature::pulses::{BasisChoices, PulseClock};
use crate::photons::{Arrival, arrival, port, time_ps};
use crate::random::{Draws, Stream, Subseed};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Latest time of an afterpulse: what comes later is a dark count.
const LATEST_PS: f64 = (1u64 << 60) as f64;

const NEVER: Arrival = Arrival::MAX;

/// Which ports are one detector, and which port stands for a detector that fires by itself.
#[derive(Clone, Copy)]
struct Wiring {
    detector: [usize; PORTS],
    detectors: u32,
    /// Ports of a detector by the basis that is being measured.
    port: [[u32; 2]; PORTS],
}

impl Wiring {
    fn new(analyser: &PreparedAnalyser) -> Self {
        match (analyser.encoding, analyser.basis_choice) {
            (Encoding::TimeBin, _) => {
                Self { detector: [0, 0, 1, 2], detectors: 3, port: [[0, 0], [2, 2], [3, 3], [3, 3]] }
            }
            (_, BasisChoice::Passive) => {
                Self { detector: [0, 1, 2, 3], detectors: 4, port: [[0, 0], [1, 1], [2, 2], [3, 3]] }
            }
            (_, BasisChoice::Active) => {
                Self { detector: [0, 1, 0, 1], detectors: 2, port: [[0, 2], [1, 3], [1, 3], [1, 3]] }
            }
        }
    }
}

/// The next whole number below: a cast and a comparison in place of a call.
#[inline]
fn whole(value: f64) -> i64 {
    let towards_zero = value as i64;
    towards_zero.saturating_sub(i64::from(towards_zero as f64 > value))
}

/// The gates of an epoch as a straight line in time.
#[derive(Clone, Copy)]
struct Grid {
    /// Middle of gate 0, which is that of the epoch's first pulse.
    first_ps: f64,
    step_ps: f64,
    /// Number of that pulse since simulated time zero.
    pulse: u64,
}

impl Grid {
    /// The gate that a time is nearest to.
    #[inline]
    fn gate(&self, at_ps: i64) -> i64 {
        whole((at_ps as f64 - self.first_ps) / self.step_ps + 0.5)
    }

    #[inline]
    fn middle_ps(&self, gate: i64) -> f64 {
        self.first_ps + gate as f64 * self.step_ps
    }

    /// The first gate whose middle is not before a time.
    fn first_from(&self, at_ps: i64) -> i64 {
        libm::ceil((at_ps as f64 - self.first_ps) / self.step_ps) as i64
    }
}

/// Detectors as gates see them.
pub(super) struct Gates {
    width_ps: f64,
    dark_probability: f64,
    hold_off_gates: i64,
    blind_ps: i64,
    afterpulse_probability: f64,
    release: Release,
    skew_ps: [f64; PORTS],
}

/// When a charge that a click has left behind is released.
#[derive(Clone, Copy)]
enum Release {
    /// In a gate after the one of the click, where it is lost if the detector is still off.
    InGate { decay_gates: f64 },
    /// After the dead time.
    AfterDeadTime { decay_ps: f64 },
}

impl From<&GatedAvalanche> for Gates {
    fn from(detector: &GatedAvalanche) -> Self {
        let saturation_ps = if detector.saturation_hz > 0.0 { 1e12 / detector.saturation_hz } else { 0.0 };
        Self {
            width_ps: detector.gate_width_ps,
            dark_probability: detector.dark_probability,
            hold_off_gates: i64::try_from(detector.hold_off_gates).unwrap_or(i64::MAX).min(1 << 40),
            blind_ps: libm::round(saturation_ps) as i64,
            afterpulse_probability: detector.afterpulse_probability,
            release: Release::InGate { decay_gates: detector.afterpulse_decay_gates.max(0.0) },
            skew_ps: detector.skew_ps,
        }
    }
}

impl Gates {
    /// Free-running detectors that are read pulse by pulse: gates of a whole period. They do not latch.
    pub(super) fn always_open(detector: &Detector, period_ps: f64) -> Self {
        Self {
            width_ps: period_ps,
            dark_probability: -libm::expm1(-detector.dark_rate_hz.max(0.0) * period_ps * 1e-12),
            hold_off_gates: 0,
            blind_ps: libm::round(detector.dead_time_ps) as i64,
            afterpulse_probability: detector.afterpulse_probability,
            release: Release::AfterDeadTime { decay_ps: detector.afterpulse_decay_ps.max(0.0) },
            skew_ps: detector.skew_ps,
        }
    }
}

pub(super) struct Gated {
    clock: PulseClock,
    epoch_ps: i64,
    /// How much later than its pulse a gate is in the middle.
    centre_ps: f64,
    wiring: Wiring,
    half_width_ps: f64,
    dark_probability: f64,
    dark_words: Stream,
    chance_words: Stream,
    draws: Draws,
    afterpulse_probability: f64,
    /// Clicks until the next one that leaves a charge behind.
    clicks_to_afterpulse: u64,
    release: Release,
    hold_off_gates: i64,
    blind_ps: i64,
    bases: Option<BasisChoices>,
    /// Number of pulse 0 of the session.
    session_pulse: u64,
    grid: Grid,
    /// When each detector sees again.
    blind: [i64; PORTS],
    darks: VecDeque<Arrival>,
    pulses: BinaryHeap<Reverse<Arrival>>,
    clicks: Vec<Arrival>,
    /// Electronic delay of each port, which comes after the gate.
    skew_ps: [i64; PORTS],
}

impl Gated {
    pub(super) fn new(
        gates: &Gates,
        analyser: &PreparedAnalyser,
        clock: PulseClock,
        epoch_ps: u64,
        subseed: &Subseed,
    ) -> Self {
        let chance_words = subseed.stream("gated afterpulses");
        let separation_ps = if analyser.encoding == Encoding::TimeBin { analyser.bin_separation_ps } else { 0.0 };
        let step_ps = clock.period_ps();
        Self {
            clock,
            epoch_ps: epoch_ps as i64,
            // Time slots of a time-bin analyser reach over twice the separation.
            centre_ps: separation_ps,
            wiring: Wiring::new(analyser),
            half_width_ps: 0.5 * gates.width_ps.min(step_ps),
            dark_probability: gates.dark_probability,
            dark_words: subseed.stream("gated dark counts"),
            draws: chance_words.draws(0),
            chance_words,
            afterpulse_probability: gates.afterpulse_probability,
            clicks_to_afterpulse: u64::MAX,
            release: gates.release,
            hold_off_gates: gates.hold_off_gates,
            blind_ps: gates.blind_ps,
            bases: None,
            session_pulse: 0,
            grid: Grid { first_ps: 0.0, step_ps, pulse: 0 },
            blind: [i64::MIN; PORTS],
            darks: VecDeque::new(),
            pulses: BinaryHeap::new(),
            clicks: Vec::new(),
            skew_ps: gates.skew_ps.map(|skew_ps| libm::round(skew_ps) as i64),
        }
    }

    /// The receiver's own choices of basis from the session on that begins at `epoch`.
    pub(super) fn choose_bases(&mut self, epoch: u64, bases: Option<BasisChoices>) {
        self.bases = bases;
        self.session_pulse = self.clock.epoch(epoch).first;
    }

    pub(super) fn rest(&mut self) {
        self.blind = [i64::MIN; PORTS];
        self.pulses.clear();
        self.darks.clear();
    }

    /// Begins an epoch whose first light arrives at `light_ps.0` and that of the next one at `light_ps.1`. Dark counts
    /// of gates in `[from_ps, to_ps)` are drawn.
    pub(super) fn enter(&mut self, epoch: u64, light_ps: (i64, i64), from_ps: i64, to_ps: i64) {
        self.draws = self.chance_words.draws(epoch);
        self.clicks_to_afterpulse = self.draws.trials_to_success(self.afterpulse_probability);
        let pulses = self.clock.epoch(epoch);
        let growth = (light_ps.1 - light_ps.0) as f64 / self.epoch_ps as f64;
        self.grid = Grid {
            first_ps: light_ps.0 as f64 + (pulses.first_ps + self.centre_ps) * growth,
            step_ps: self.clock.period_ps() * growth,
            pulse: pulses.first,
        };
        self.draw_darks(epoch, from_ps, to_ps);
    }

    fn draw_darks(&mut self, epoch: u64, from_ps: i64, to_ps: i64) {
        let mut draws = self.dark_words.draws(epoch);
        let detectors = u64::from(self.wiring.detectors);
        let first = self.grid.first_from(from_ps);
        // Gates of all detectors one after the other.
        let end = (self.grid.first_from(to_ps) - first).max(0) as u64 * detectors;
        let mut place = 0u64;
        loop {
            place = place.saturating_add(draws.trials_to_success(self.dark_probability) - 1);
            if place >= end {
                return;
            }
            let gate = first + (place / detectors) as i64;
            let within = (2.0 * draws.uniform() - 1.0) * self.half_width_ps;
            let at_ps = (libm::round(self.grid.middle_ps(gate) + within) as i64).clamp(from_ps, to_ps - 1);
            let dark = arrival(at_ps, self.port((place % detectors) as usize, gate));
            let later = self.darks.iter().rev().take_while(|&&other| other > dark).count();
            self.darks.insert(self.darks.len() - later, dark);
            place += 1;
        }
    }

    /// The port that stands for a detector which fires in a gate by itself.
    fn port(&self, detector: usize, gate: i64) -> u32 {
        self.wiring.port[detector][self.basis(gate) as usize]
    }

    fn basis(&self, gate: i64) -> Basis {
        let pulse = self.grid.pulse.wrapping_add_signed(gate).wrapping_sub(self.session_pulse);
        self.bases.as_ref().map_or(Basis::Z, |bases| bases.at(pulse))
    }

    /// Clicks of the events, which are in order and before `limit_ps`, and of what else happens until then.
    pub(super) fn run(&mut self, events: &[Arrival], limit_ps: i64) -> &[Arrival] {
        let limit = arrival(limit_ps, 0);
        self.clicks.clear();
        let mut used = 0;
        loop {
            let dark = self.darks.front().copied().unwrap_or(NEVER);
            let pulse = self.pulses.peek().map_or(NEVER, |pulse| pulse.0);
            let interruption = dark.min(pulse);
            // Most events are light. An afterpulse that it leaves behind may come before the next photon.
            let charges = self.pulses.len();
            while let Some(&photon) = events.get(used).filter(|&&photon| photon <= interruption) {
                used += 1;
                let gate = self.grid.gate(time_ps(photon));
                let off_ps = time_ps(photon) as f64 - self.grid.middle_ps(gate);
                if off_ps.abs() <= self.half_width_ps + 0.5 {
                    self.see(photon, gate);
                    if self.pulses.len() > charges {
                        break;
                    }
                }
            }
            if self.pulses.len() > charges {
                continue;
            }
            if interruption >= limit {
                break;
            }
            let gate = self.grid.gate(time_ps(interruption));
            if interruption == dark {
                self.darks.pop_front();
                self.see(dark, gate);
            } else {
                self.pulses.pop();
                // A charge waits for its gate without knowing the basis that is measured there.
                let detector = self.wiring.detector[port(pulse) as usize];
                self.see(arrival(time_ps(pulse), self.port(detector, gate)), gate);
            }
        }
        if self.skew_ps != [0; PORTS] {
            self.delay();
        }
        &self.clicks
    }

    /// One event: a click unless its detector is off.
    fn see(&mut self, event: Arrival, gate: i64) {
        let detector = self.wiring.detector[port(event) as usize];
        if time_ps(event) < self.blind[detector] {
            return;
        }
        self.clicks.push(event);
        // The next gate begins half a step before its middle.
        let next_ps = self.grid.middle_ps(gate) + (self.hold_off_gates as f64 + 0.5) * self.grid.step_ps;
        self.blind[detector] = whole(-next_ps).saturating_neg().max(time_ps(event).saturating_add(self.blind_ps));
        self.clicks_to_afterpulse -= 1;
        if self.clicks_to_afterpulse == 0 {
            let at_ps = match self.release {
                Release::InGate { decay_gates } => {
                    let later = 1.0 + libm::floor(self.draws.exponential() * decay_gates);
                    let within = (2.0 * self.draws.uniform() - 1.0) * self.half_width_ps;
                    self.grid.middle_ps(gate) + later * self.grid.step_ps + within
                }
                Release::AfterDeadTime { decay_ps } => {
                    self.blind[detector] as f64 + self.draws.exponential() * decay_ps
                }
            };
            self.pulses.push(Reverse(arrival(libm::round(at_ps.min(LATEST_PS)) as i64, port(event))));
            self.clicks_to_afterpulse = self.draws.trials_to_success(self.afterpulse_probability);
        }
    }

    /// Adds the delays of the electronics, and restores the order.
    fn delay(&mut self) {
        self.clicks.iter_mut().for_each(|click| *click += arrival(self.skew_ps[port(*click) as usize], 0));
        // Nearly in order, as delays are shorter than gaps.
        self.clicks.sort();
    }

    /// From now on times count from `epoch_ps` later.
    pub(super) fn leave(&mut self, epoch_ps: i64) {
        let shift = arrival(epoch_ps, 0);
        self.blind = self.blind.map(|until| until.saturating_sub(epoch_ps));
        self.pulses = self.pulses.drain().map(|pulse| Reverse(pulse.0 - shift)).collect();
        self.darks.iter_mut().for_each(|dark| *dark -= shift);
    }
}
