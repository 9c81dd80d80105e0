//! Holds the polarisation at the most light by climbing the singles rate, one angle after the other.
//!
//! An analyser that passes `cos^2(e / 2)` of light turned by `e` gives, dithered by `d` either way,
//! `(R+ - R-) / (R+ + R-) = tan(e / 2) sin d`, nearly. One that depends less on polarisation gives less: then the loop
//! is slower, and has less to gain.

use std::collections::VecDeque;

use super::{Slots, Tracker, slot_steps};

/// Four slots, either way of either angle, make a cycle of about a second.
const SLOT_S: f64 = 0.25;
const DITHER_RAD: f64 = 0.1;
const DRIFT_RAD: f64 = 0.003;
/// Largest move of one cycle: singles also change for other reasons.
const MOVE_MAX_RAD: f64 = 0.5;
/// Clicks of a slot below which it says nothing.
const CLICKS_MIN: f64 = 1000.0;
/// Other changes of the rate, relative, between two slots.
const RATE_NOISE: f64 = 5e-4;
const HISTORY: usize = 256;

#[derive(Clone, Debug)]
pub struct PolarisationLoop {
    enabled: bool,
    slots: Slots,
    angles: [Tracker; 2],
    /// Centres that were commanded in each cycle.
    centres: VecDeque<(u64, [f64; 2])>,
    cycle: u64,
    /// Clicks and frames of each slot of the cycle that data come in for.
    clicks: [f64; 4],
    frames: [f64; 4],
}

impl PolarisationLoop {
    pub fn new(enabled: bool, frame_ps: u64, latency_steps: u64, initial_rad: [f64; 2]) -> Self {
        let tracker = |value| Tracker::new(value, 1.0, DRIFT_RAD * DRIFT_RAD, 0.8);
        Self {
            enabled,
            slots: Slots { steps: slot_steps(SLOT_S, frame_ps), latency: latency_steps },
            angles: initial_rad.map(tracker),
            centres: VecDeque::new(),
            cycle: 0,
            clicks: [0.0; 4],
            frames: [0.0; 4],
        }
    }

    fn centre(&self) -> [f64; 2] {
        [self.angles[0].value, self.angles[1].value]
    }

    /// The angles to command at `step`; steps must not go back.
    pub fn setpoint(&mut self, step: u64) -> [f64; 2] {
        if !self.enabled {
            return self.centre();
        }
        let slot = self.slots.commanded(step);
        let cycle = slot / 4;
        if self.centres.back().is_none_or(|(last, _)| *last < cycle) {
            self.centres.push_back((cycle, self.centre()));
            if self.centres.len() > HISTORY {
                self.centres.pop_front();
            }
        }
        let mut angles = self.centres.back().map_or_else(|| self.centre(), |(_, centre)| *centre);
        angles[(slot % 4 / 2) as usize] += if slot.is_multiple_of(2) { DITHER_RAD } else { -DITHER_RAD };
        angles
    }

    /// All clicks of the frame of `step`.
    pub fn observe(&mut self, step: u64, clicks: u64) {
        let Some(slot) = self.slots.active(step).filter(|_| self.enabled) else { return };
        let cycle = slot / 4;
        if cycle > self.cycle {
            self.finish_cycle();
            self.cycle = cycle;
        }
        if cycle == self.cycle {
            self.clicks[(slot % 4) as usize] += clicks as f64;
            self.frames[(slot % 4) as usize] += 1.0;
        }
    }

    fn finish_cycle(&mut self) {
        let (clicks, frames) = (std::mem::take(&mut self.clicks), std::mem::take(&mut self.frames));
        while self.centres.front().is_some_and(|(cycle, _)| *cycle < self.cycle) {
            self.centres.pop_front();
        }
        let Some(&(cycle, centre)) = self.centres.front() else { return };
        if cycle != self.cycle {
            return;
        }
        for angle in 0..2 {
            let way = |sign: usize| (clicks[2 * angle + sign], frames[2 * angle + sign]);
            if let Some((offset_rad, variance)) = slope(way(0), way(1)) {
                let move_rad = offset_rad.clamp(-MOVE_MAX_RAD, MOVE_MAX_RAD);
                let tracker = &mut self.angles[angle];
                tracker.update(centre[angle] + move_rad - tracker.value, variance);
            }
        }
    }
}

/// How far from the most light the centre is, and the variance of that figure; each side is clicks and frames.
fn slope(plus: (f64, f64), minus: (f64, f64)) -> Option<(f64, f64)> {
    if plus.0 < CLICKS_MIN || minus.0 < CLICKS_MIN || plus.1 < 1.0 || minus.1 < 1.0 {
        return None;
    }
    let (r_plus, r_minus) = (plus.0 / plus.1, minus.0 / minus.1);
    let sine = libm::sin(DITHER_RAD);
    let tangent = (r_plus - r_minus) / (r_plus + r_minus) / sine;
    let relative = 0.25 * (1.0 / plus.0 + 1.0 / minus.0) + RATE_NOISE * RATE_NOISE;
    Some((2.0 * libm::atan(tangent), 4.0 * relative / (sine * sine)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use std::f64::consts::TAU;

    const LATENCY: u64 = 4;
    const FRAME_PS: u64 = 20_000_000_000;

    /// Transmission of light turned by both errors, and the loop that follows it.
    struct Plant {
        control: PolarisationLoop,
        commanded: VecDeque<[f64; 2]>,
        dependent_loss: f64,
        offset_rad: [f64; 2],
        drift_period_s: f64,
        step: u64,
        random: StdRng,
    }

    impl Plant {
        fn new(enabled: bool, dependent_loss: f64, offset_rad: [f64; 2], seed: u64) -> Self {
            Self {
                control: PolarisationLoop::new(enabled, FRAME_PS, LATENCY, [0.0; 2]),
                commanded: VecDeque::new(),
                dependent_loss,
                offset_rad,
                drift_period_s: 600.0,
                step: 0,
                random: StdRng::seed_from_u64(seed),
            }
        }

        /// Least transmission over `seconds`, of frames whole.
        fn run(&mut self, seconds: u64) -> f64 {
            let mut least = 1.0f64;
            for _ in 0..seconds * 50 {
                self.commanded.push_back(self.control.setpoint(self.step));
                let active = if self.commanded.len() as u64 > LATENCY { self.commanded.pop_front() } else { None };
                let active = active.unwrap_or([0.0; 2]);
                let t_s = self.step as f64 * 0.02;
                // Far faster than the ten hours of a diurnal drift.
                let drift = libm::sin(TAU * t_s / self.drift_period_s);
                let first = self.offset_rad[0] + drift - active[0];
                let second = self.offset_rad[1] - 0.7 * drift - active[1];
                let sine = libm::sin(0.5 * libm::sqrt(first * first + second * second).min(std::f64::consts::PI));
                let transmission = 1.0 - self.dependent_loss * sine * sine;
                let mean = 6.4e6 * 0.02 * transmission;
                // Twelve uniform numbers make a good enough Gaussian here.
                let gauss = (0..12).map(|_| self.random.random::<f64>()).sum::<f64>() - 6.0;
                let clicks = mean + libm::sqrt(mean) * gauss;
                self.control.observe(self.step, clicks.max(0.0) as u64);
                least = least.min(transmission);
                self.step += 1;
            }
            least
        }
    }

    #[test]
    fn holds_the_light_within_three_percent() {
        for (dependent_loss, seed) in [(1.0, 1), (0.5, 2), (0.3, 3)] {
            let mut plant = Plant::new(true, dependent_loss, [1.5, -1.0], seed);
            plant.run(60);
            let least = plant.run(600);
            assert!(least > 0.97, "seed {seed}, loss {dependent_loss}: {least}");
        }
    }

    #[test]
    fn recovers_from_steps_and_only_with_the_loop_on() {
        for (enabled, seed) in [(true, 10), (false, 11)] {
            let mut plant = Plant::new(enabled, 0.9, [0.0; 2], seed);
            plant.run(20);
            for step_rad in [[1.0, 0.0], [0.0, -1.5], [2.5, 1.0]] {
                plant.offset_rad[0] += step_rad[0];
                plant.offset_rad[1] += step_rad[1];
                plant.run(40);
                let least = plant.run(20);
                assert_eq!(least > 0.97, enabled, "seed {seed}, step {step_rad:?}: {least}");
            }
        }
    }

    #[test]
    fn stays_where_it_is_in_the_dark() {
        let mut control = PolarisationLoop::new(true, FRAME_PS, LATENCY, [0.5, -0.5]);
        for step in 0..2000 {
            let angles = control.setpoint(step);
            assert!((angles[0] - 0.5).abs() < 0.1001 && (angles[1] + 0.5).abs() < 0.1001);
            control.observe(step, 3);
        }
    }
}
