//! The filter that keeps the model of a clock true to what is measured of it.

use super::entangled::announce::UNIT_PS;

const UNITS_PER_S: f64 = 1e12 / UNIT_PS as f64;

/// White frequency noise of the two clocks together: 4 ps after one second, good rubidium clocks.
const WHITE_FM_PS2_PER_S: f64 = 16.0;
/// Random walk of the frequency difference: 0.3 ps/s in one second, far more than such clocks show.
const RANDOM_WALK_FM_PS2_PER_S3: f64 = 0.1;
/// An error beyond this many standard deviations is a jump of phase and says nothing about frequency.
const JUMP_SIGMA: f64 = 6.0;

/// What is added to a model's phase and to its relative frequency.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Correction {
    pub phase_ps: f64,
    pub frequency: f64,
}

/// Second-order tracking loop: a Kalman filter of phase (ps) and frequency (ps/s) whose noise model is that of
/// Zucca and Tavella, IEEE Trans. UFFC 52, 289 (2005), eq. 10.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    phase: f64,
    cross: f64,
    frequency: f64,
    time: u64,
}

impl Filter {
    /// Variances in ps^2 and (ps/s)^2, valid at the moment `time`, in units of 4 ps.
    pub fn new(time: u64, phase_variance: f64, frequency_variance: f64) -> Self {
        Self { phase: phase_variance, cross: 0.0, frequency: frequency_variance, time }
    }

    /// Takes a measured error of the model's phase at `time`; gives what corrects the model there.
    pub fn update(&mut self, time: u64, error_ps: f64, variance: f64) -> Correction {
        (self.phase, self.cross, self.frequency) = self.predicted(time);
        let dt = self.since_s(time);
        self.time = time;
        let expected = self.phase + variance;
        if error_ps * error_ps > JUMP_SIGMA * JUMP_SIGMA * expected {
            // If it was the frequency after all, the next interval corrects it.
            self.frequency = self.frequency.max(error_ps * error_ps / (dt * dt).max(1e-6));
            (self.phase, self.cross) = (variance, 0.0);
            return Correction { phase_ps: error_ps, frequency: 0.0 };
        }
        let (gain_phase, gain_frequency) = (self.phase / expected, self.cross / expected);
        self.frequency -= gain_frequency * self.cross;
        self.cross -= gain_phase * self.cross;
        self.phase -= gain_phase * self.phase;
        Correction { phase_ps: gain_phase * error_ps, frequency: gain_frequency * error_ps * 1e-12 }
    }

    /// Variance of the phase at a later moment, if nothing is measured until then.
    pub fn phase_variance(&self, time: u64) -> f64 {
        self.predicted(time).0
    }

    fn since_s(&self, time: u64) -> f64 {
        time.saturating_sub(self.time) as f64 / UNITS_PER_S
    }

    /// The variances at a later moment.
    fn predicted(&self, time: u64) -> (f64, f64, f64) {
        let dt = self.since_s(time);
        let phase = self.phase
            + (dt * (2.0 * self.cross + dt * self.frequency)
                + WHITE_FM_PS2_PER_S * dt
                + RANDOM_WALK_FM_PS2_PER_S3 * dt * dt * dt / 3.0);
        let cross = self.cross + (dt * self.frequency + RANDOM_WALK_FM_PS2_PER_S3 * dt * dt / 2.0);
        (phase, cross, self.frequency + RANDOM_WALK_FM_PS2_PER_S3 * dt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_followed_for_a_minute_is_certain_of_pulses_at_1_ghz_for_half_a_minute_without_light() {
        let at = |seconds: f64| (seconds * UNITS_PER_S) as u64;
        let mut filter = Filter::new(0, 25.0, 1e6);
        for interval in 1..=600 {
            filter.update(at(0.1 * f64::from(interval)), 0.0, 0.2);
        }
        let uncertain_ps = |seconds: f64| filter.phase_variance(at(60.0 + seconds)).sqrt();
        let (after_30_s, after_60_s) = (uncertain_ps(30.0), uncertain_ps(60.0));
        assert!(after_30_s < 1000.0 / 16.0 && after_60_s > 1000.0 / 16.0, "{after_30_s} {after_60_s}");
    }
}
