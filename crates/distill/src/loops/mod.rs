//! The control loops of a link end: polarisation, phase and pump, from measured data and step numbers alone.
//!
//! A set-point commanded at step `s` acts on what is measured at step `s + latency`. Each loop keeps its own history
//! of set-points and compares what it measures with the one that was active then; what lies near a change is left out,
//! because a local frame and an epoch of the light need not begin together.

mod phase;
mod polarisation;
mod pump;

pub use phase::PhaseLoop;
pub use polarisation::PolarisationLoop;
pub use pump::PumpLoop;

/// Where the instruments are told to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setpoints {
    pub phase_rad: f64,
    pub polarisation_rad: [f64; 2],
    /// Relative to nominal; 0 at the end that does not control it.
    pub pump: f64,
}

impl Default for Setpoints {
    fn default() -> Self {
        Self { phase_rad: 0.0, polarisation_rad: [0.0; 2], pump: 1.0 }
    }
}

/// Frames at either end of a slot that may belong to its neighbour.
const GUARD_STEPS: u64 = 3;

/// Steps in `duration_s`, at least enough that something is left between the guards.
fn slot_steps(duration_s: f64, frame_ps: u64) -> u64 {
    let steps = libm::round(duration_s * 1e12 / frame_ps.max(1) as f64) as u64;
    steps.max(2 * GUARD_STEPS + 4)
}

/// Time cut into slots of constant set-point, seen from the data.
#[derive(Clone, Copy, Debug)]
struct Slots {
    steps: u64,
    latency: u64,
}

impl Slots {
    /// The slot in which a set-point of this step is commanded.
    fn commanded(&self, step: u64) -> u64 {
        step / self.steps
    }

    /// The slot whose set-point certainly was active where this step was measured.
    fn active(&self, step: u64) -> Option<u64> {
        let commanded = step.checked_sub(self.latency)?;
        let place = commanded % self.steps;
        (GUARD_STEPS..self.steps - GUARD_STEPS).contains(&place).then_some(commanded / self.steps)
    }
}

/// A scalar Kalman filter for something that stands nearly still and jumps at times.
#[derive(Clone, Debug)]
struct Tracker {
    value: f64,
    variance: f64,
    /// Variance before anything was measured, and after a jump.
    open_variance: f64,
    /// What drift adds between two measurements.
    drift_variance: f64,
    /// Keeps the loop stable where the model of the measurement is steeper than the truth.
    gain_max: f64,
}

/// Innovations beyond this many standard deviations mean that the truth has jumped.
const JUMP_SIGMA: f64 = 4.0;

impl Tracker {
    fn new(value: f64, open_variance: f64, drift_variance: f64, gain_max: f64) -> Self {
        Self { value, variance: open_variance, open_variance, drift_variance, gain_max }
    }

    /// Takes a measurement that differs from the value by `innovation`.
    fn update(&mut self, innovation: f64, variance: f64) {
        if !(innovation.is_finite() && variance.is_finite()) {
            return;
        }
        let variance = variance.max(1e-12);
        if innovation * innovation > JUMP_SIGMA * JUMP_SIGMA * (self.variance + variance) {
            self.variance = self.open_variance;
        }
        let gain = (self.variance / (self.variance + variance)).min(self.gain_max);
        self.value += gain * innovation;
        self.variance = (1.0 - gain) * self.variance + self.drift_variance;
    }
}
