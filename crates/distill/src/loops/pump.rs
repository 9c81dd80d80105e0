//! Holds the error rate in Z of finished blocks at its target by the pump.
//!
//! Errors in Z are almost all accidentals, whose share grows with the pump: `Q = a + b p` with a small `a`. The loop
//! tracks the logarithm of the right pump; the right one has been found where the error rate is the target, whatever
//! `a` is. A block is known only some time after its light: what it shows is compared with the pump that was active
//! while it was measured.

use std::collections::VecDeque;

use super::Tracker;
use crate::config::Loops;

const PUMP_MIN: f64 = 0.02;
/// Largest change of the logarithm for one block. As long as `a` counts for something, what a block shows asks for
/// less than the whole way, so that a large change does not overshoot.
const MOVE_MAX: f64 = 1.2;
const DRIFT: f64 = 0.003;
const OPEN: f64 = 0.5;
/// Changes of the set-point that blocks under way may still have been measured with.
const HISTORY: usize = 256;

#[derive(Clone, Debug)]
pub struct PumpLoop {
    enabled: bool,
    target: f64,
    latency: u64,
    log_max: f64,
    tracker: Tracker,
    /// Set-points and the steps from which on they were commanded, oldest first.
    commanded: VecDeque<(u64, f64)>,
}

impl PumpLoop {
    pub fn new(config: &Loops, latency_steps: u64, initial: f64) -> Self {
        let log_max = libm::log(if config.pump_max > PUMP_MIN { config.pump_max } else { 1.0 });
        let initial = if initial.is_finite() && initial > PUMP_MIN { initial } else { 1.0 };
        Self {
            enabled: config.pump && config.target_qber_z > 0.0 && config.target_qber_z < 0.5,
            target: config.target_qber_z,
            latency: latency_steps,
            log_max,
            tracker: Tracker::new(libm::log(initial), OPEN * OPEN, DRIFT * DRIFT, 0.8),
            commanded: VecDeque::from([(0, initial)]),
        }
    }

    /// The pump to command at `step`, relative to nominal; steps must not go back.
    pub fn setpoint(&mut self, step: u64) -> f64 {
        let pump = libm::exp(self.tracker.value);
        if self.commanded.back().is_none_or(|&(_, last)| last != pump) {
            self.commanded.push_back((step, pump));
            if self.commanded.len() > HISTORY {
                self.commanded.pop_front();
            }
        }
        pump
    }

    /// Error rate in Z of a finished block of `bits` bits, one that gave no key included; its light came in the
    /// `frames` steps from `first_step` on. Blocks come in order.
    pub fn observe(&mut self, first_step: u64, frames: u64, qber_z: f64, bits: u64) {
        if !self.enabled || bits == 0 || frames == 0 || !(0.0..=1.0).contains(&qber_z) {
            return;
        }
        let active = libm::log(self.mean_active(first_step, frames));
        let bits = bits as f64;
        // Half an error more, so that none does not mean infinitely far away.
        let rate = (qber_z * bits + 0.5) / (bits + 1.0);
        let step = libm::log(self.target / rate).clamp(-MOVE_MAX, MOVE_MAX);
        self.tracker.update(active + step - self.tracker.value, (1.0 - rate) / (rate * bits));
        self.tracker.value = self.tracker.value.clamp(libm::log(PUMP_MIN), self.log_max);
    }

    /// Mean of the pump over the steps in which a block was measured: most of it may have come before the last
    /// change, and its error rate is nearly linear in the pump.
    fn mean_active(&mut self, first_step: u64, frames: u64) -> f64 {
        let begin = first_step.saturating_sub(self.latency);
        let end = begin.saturating_add(frames);
        while self.commanded.get(1).is_some_and(|&(step, _)| step <= begin) {
            self.commanded.pop_front();
        }
        let mut sum = 0.0;
        for (i, &(step, pump)) in self.commanded.iter().enumerate() {
            let until = self.commanded.get(i + 1).map_or(end, |&(next, _)| next.min(end));
            // What was commanded first also holds for the light before it could act.
            let from = if i == 0 { begin } else { step };
            sum += pump * until.saturating_sub(from) as f64;
        }
        sum / frames as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const LATENCY: u64 = 8;

    fn config(pump: bool) -> Loops {
        Loops { polarisation: false, phase: false, pump, target_qber_z: 0.043, phase_dither_rad: 0.05, pump_max: 2.0 }
    }

    /// A link whose `Q = a + b p`, with blocks of 50 steps that are told of `delay` steps after their end.
    struct Plant {
        control: PumpLoop,
        commanded: VecDeque<f64>,
        step: u64,
        sum: f64,
        /// First step and error rate of blocks that are not corrected yet.
        under_way: VecDeque<(u64, f64)>,
        delay: u64,
        bits: u64,
        random: StdRng,
    }

    const BLOCK: u64 = 50;

    impl Plant {
        fn new(enabled: bool, bits: u64, delay: u64, seed: u64) -> Self {
            Self {
                control: PumpLoop::new(&config(enabled), LATENCY, 1.0),
                commanded: VecDeque::new(),
                step: 0,
                sum: 0.0,
                under_way: VecDeque::new(),
                delay,
                bits,
                random: StdRng::seed_from_u64(seed),
            }
        }

        /// Runs `blocks` blocks; true error rates of the last eight.
        fn run(&mut self, slope: f64, blocks: u64) -> Vec<f64> {
            let mut rates = VecDeque::new();
            for _ in 0..blocks * BLOCK {
                self.commanded.push_back(self.control.setpoint(self.step));
                let late = self.commanded.len() as u64 > LATENCY;
                let pump = if late { self.commanded.pop_front() } else { None }.unwrap_or(1.0);
                self.sum += (0.003 + slope * pump).min(0.5) / BLOCK as f64;
                self.step += 1;
                if self.step.is_multiple_of(BLOCK) {
                    let rate = std::mem::take(&mut self.sum);
                    rates.push_back(rate);
                    if rates.len() > 8 {
                        rates.pop_front();
                    }
                    self.under_way.push_back((self.step - BLOCK, rate));
                }
                self.tell();
            }
            rates.into()
        }

        fn tell(&mut self) {
            let Some(&(first, rate)) = self.under_way.front() else { return };
            if first + BLOCK + self.delay <= self.step {
                self.under_way.pop_front();
                let gauss = (0..12).map(|_| self.random.random::<f64>()).sum::<f64>() - 6.0;
                let seen = rate + libm::sqrt(rate * (1.0 - rate) / self.bits as f64) * gauss;
                self.control.observe(first, BLOCK, seen.clamp(0.0, 1.0), self.bits);
            }
        }
    }

    fn near(rates: &[f64], within: f64) -> bool {
        rates.iter().all(|rate| (rate - 0.043).abs() < within)
    }

    #[test]
    fn converges_to_the_target_however_late_blocks_are() {
        for slope in [0.025, 0.04, 0.06, 0.1] {
            for bits in [24_000, 160_000, 1_000_000] {
                for delay in [0, 40, 200] {
                    let mut plant = Plant::new(true, bits, delay, 1);
                    let rates = plant.run(slope, 40);
                    // Three standard deviations of one block, although the loop averages over several.
                    let within = 0.0005 + 3.0 * libm::sqrt(0.043 / bits as f64);
                    assert!(near(&rates, within), "b {slope}, {bits} bits, delay {delay}: {rates:?}");
                }
            }
        }
    }

    #[test]
    fn recovers_from_steps_and_only_with_the_loop_on() {
        for enabled in [true, false] {
            let mut plant = Plant::new(enabled, 160_000, 100, 2);
            plant.run(0.04, 20);
            for slope in [0.06, 0.03, 0.055] {
                let rates = plant.run(slope, 30);
                assert_eq!(near(&rates, 0.002), enabled, "b {slope}: {rates:?}");
            }
        }
    }

    #[test]
    fn stays_within_its_limits() {
        let mut control = PumpLoop::new(&config(true), LATENCY, 1.0);
        let mut step = 0;
        let mut tell = |qber_z, bits| {
            control.setpoint(step);
            control.observe(step, 50, qber_z, bits);
            step += 50;
            control.setpoint(step)
        };
        for _ in 0..100 {
            tell(0.0, 1_000_000);
        }
        assert!((tell(0.0, 1_000_000) - 2.0).abs() < 1e-9);
        for _ in 0..100 {
            tell(0.5, 1_000_000);
        }
        assert!((tell(0.5, 1_000_000) - PUMP_MIN).abs() < 1e-9);
        for strange in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(tell(strange, 10).is_finite());
        }
    }
}
