//! Holds the error rate in Z of finished blocks at its target by the pump.
//!
//! Errors in Z are almost all accidentals, whose share grows with the pump: `Q = a + b p` with a small `a`. The loop
//! tracks the logarithm of the right pump; the right one has been found where the error rate is the target, whatever
//! `a` is.

use super::Tracker;
use crate::config::Loops;

const PUMP_MIN: f64 = 0.02;
/// Largest change of the logarithm for one block.
const MOVE_MAX: f64 = 0.35;
/// Change of the logarithm after which the block that was under way is not used: part of it had the old pump.
const SETTLED: f64 = 0.03;
const DRIFT: f64 = 0.003;
const OPEN: f64 = 0.5;

#[derive(Clone, Debug)]
pub struct PumpLoop {
    enabled: bool,
    target: f64,
    log_max: f64,
    tracker: Tracker,
    /// The block after this one began before the last large change.
    unsettled: bool,
}

impl PumpLoop {
    pub fn new(config: &Loops, initial: f64) -> Self {
        let log_max = libm::log(if config.pump_max > PUMP_MIN { config.pump_max } else { 1.0 });
        let initial = if initial.is_finite() && initial > PUMP_MIN { initial } else { 1.0 };
        Self {
            enabled: config.pump && config.target_qber_z > 0.0 && config.target_qber_z < 0.5,
            target: config.target_qber_z,
            log_max,
            tracker: Tracker::new(libm::log(initial), OPEN * OPEN, DRIFT * DRIFT, 0.8),
            unsettled: false,
        }
    }

    /// Relative to nominal.
    pub fn setpoint(&self) -> f64 {
        libm::exp(self.tracker.value)
    }

    /// Error rate in Z of a finished block of `bits` bits, one that gave no key included.
    pub fn observe(&mut self, qber_z: f64, bits: u64) {
        if !self.enabled || bits == 0 || !(0.0..=1.0).contains(&qber_z) {
            return;
        }
        if std::mem::take(&mut self.unsettled) {
            return;
        }
        let bits = bits as f64;
        // Half an error more, so that none does not mean infinitely far away.
        let rate = (qber_z * bits + 0.5) / (bits + 1.0);
        let innovation = libm::log(self.target / rate).clamp(-MOVE_MAX, MOVE_MAX);
        let before = self.tracker.value;
        self.tracker.update(innovation, (1.0 - rate) / (rate * bits));
        self.tracker.value = self.tracker.value.clamp(libm::log(PUMP_MIN), self.log_max);
        self.unsettled = (self.tracker.value - before).abs() > SETTLED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn config(pump: bool) -> Loops {
        Loops { polarisation: false, phase: false, pump, target_qber_z: 0.043, phase_dither_rad: 0.05, pump_max: 2.0 }
    }

    /// Error rate of the last `count` of `blocks` blocks of a link whose `Q = a + b p`.
    fn run(control: &mut PumpLoop, (a, b): (f64, f64), bits: u64, blocks: usize, random: &mut StdRng) -> f64 {
        let mut last = 0.0;
        let mut previous = control.setpoint();
        for _ in 0..blocks {
            // A third of the block was measured before the pump changed.
            let pump = (previous + 2.0 * control.setpoint()) / 3.0;
            previous = control.setpoint();
            let qber = (a + b * pump).min(0.5);
            let gauss = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
            let seen = qber + libm::sqrt(qber * (1.0 - qber) / bits as f64) * gauss;
            control.observe(seen.clamp(0.0, 1.0), bits);
            last = (a + b * control.setpoint()).min(0.5);
        }
        last
    }

    #[test]
    fn converges_to_the_target() {
        let mut random = StdRng::seed_from_u64(1);
        for slope in [0.025, 0.04, 0.06, 0.1] {
            for bits in [24_000, 160_000, 1_000_000] {
                let mut control = PumpLoop::new(&config(true), 1.0);
                let qber = run(&mut control, (0.003, slope), bits, 16, &mut random);
                assert!((qber - 0.043).abs() < 0.001, "b {slope}, {bits} bits: {qber}");
            }
        }
    }

    #[test]
    fn recovers_from_steps_and_only_with_the_loop_on() {
        let mut random = StdRng::seed_from_u64(2);
        for enabled in [true, false] {
            let mut control = PumpLoop::new(&config(enabled), 1.0);
            run(&mut control, (0.003, 0.04), 160_000, 10, &mut random);
            for slope in [0.06, 0.03, 0.055] {
                let qber = run(&mut control, (0.003, slope), 160_000, 12, &mut random);
                assert_eq!((qber - 0.043).abs() < 0.001, enabled, "b {slope}: {qber}");
            }
        }
    }

    #[test]
    fn stays_within_its_limits() {
        let mut control = PumpLoop::new(&config(true), 1.0);
        for _ in 0..100 {
            control.observe(0.0, 1_000_000);
        }
        assert!((control.setpoint() - 2.0).abs() < 1e-9);
        for _ in 0..100 {
            control.observe(0.5, 1_000_000);
        }
        assert!((control.setpoint() - PUMP_MIN).abs() < 1e-9);
        control.observe(f64::NAN, 10);
        control.observe(f64::INFINITY, 10);
        assert!(control.setpoint().is_finite());
    }
}
