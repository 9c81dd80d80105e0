//! The phase that an interferometer has by itself.

use crate::config::PhaseDrift;
use crate::path::disturbance::level;
use crate::random::{Gaussian, STEP_UNITS, Stream, Subseed};

pub(crate) struct Phase {
    drift: PhaseDrift,
    epoch_s: f64,
    steps: Stream,
    gaussian: Gaussian,
    epoch: u64,
    walk_rad: f64,
}

impl Phase {
    pub(crate) fn new(drift: &PhaseDrift, epoch_ps: u64, subseed: &Subseed) -> Self {
        Self {
            drift: drift.clone(),
            epoch_s: epoch_ps as f64 * 1e-12,
            steps: subseed.stream("phase"),
            gaussian: Gaussian::new(STEP_UNITS),
            epoch: 0,
            walk_rad: 0.0,
        }
    }

    /// The phase in `epoch`. Quick in ascending order; an earlier epoch costs the way from epoch 0.
    pub(crate) fn at(&mut self, epoch: u64) -> f64 {
        let step_rad = self.drift.noise_rad_per_sqrt_s * libm::sqrt(self.epoch_s) / STEP_UNITS;
        if step_rad != 0.0 {
            if epoch < self.epoch {
                (self.epoch, self.walk_rad) = (0, 0.0);
            }
            while self.epoch < epoch {
                self.walk_rad += step_rad * f64::from(self.gaussian.pick(self.steps.block(self.epoch)[0]));
                self.epoch += 1;
            }
        }
        let t_s = epoch as f64 * self.epoch_s;
        self.drift.initial_rad + self.drift.rad_per_s * t_s + self.walk_rad + level(&self.drift.steps, t_s, 0.0)
    }
}
