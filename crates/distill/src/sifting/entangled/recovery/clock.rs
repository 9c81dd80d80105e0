//! The recovered relation of the two clocks, and the filter that keeps it.

use super::PS_PER_UNIT;

/// Fixed point of delays: 256 parts of a unit, a sixty-fourth of a picosecond.
pub(super) const PARTS: i64 = 256;

const UNITS_PER_S: f64 = 1e12 / PS_PER_UNIT;

/// Own time as a function of the peer's: `own = peer + offset + frequency * (peer - reference)`, in units of 4 ps.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub reference: u64,
    /// The offset is split so that no digits are lost: whole units and what is beyond.
    pub offset: i64,
    pub fraction: f64,
    pub frequency: f64,
}

/// [`Clock`] inside one frame of the peer, in 1/256 units after that frame's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameClock {
    pub base: i64,
    pub slope: f64,
}

impl FrameClock {
    /// Own minus peer time for an event `delay` units after the frame's start.
    #[inline]
    pub fn offset(&self, delay: u64) -> i64 {
        self.base + (self.slope * delay as f64) as i64
    }
}

impl Clock {
    fn drift(&self, peer: u64) -> f64 {
        self.fraction + self.frequency * (peer as i64 - self.reference as i64) as f64
    }

    pub fn at_frame(&self, start: u64) -> FrameClock {
        let parts = PARTS as f64;
        let base = self.offset * PARTS + libm::floor(self.drift(start) * parts + 0.5) as i64;
        FrameClock { base, slope: self.frequency * parts }
    }

    /// Own time of a moment of the peer's clock; never before the clock's zero.
    pub fn map(&self, peer: u64) -> u64 {
        peer.saturating_add_signed(self.offset + libm::floor(self.drift(peer) + 0.5) as i64)
    }

    pub fn offset_ps(&self, peer: u64) -> f64 {
        (self.offset as f64 + self.drift(peer)) * PS_PER_UNIT
    }

    /// Moves the reference without changing the relation, then shifts it by a measured error.
    pub fn correct(&mut self, reference: u64, phase_units: f64, frequency: f64) {
        let drift = self.drift(reference) + phase_units;
        let whole = libm::floor(drift);
        self.offset += whole as i64;
        self.fraction = drift - whole;
        self.reference = reference;
        self.frequency += frequency;
    }
}

/// White frequency noise of the two clocks together: 4 ps after one second, good rubidium clocks.
const WHITE_FM_PS2_PER_S: f64 = 16.0;
/// Random walk of the frequency difference: 0.3 ps/s in one second, far more than such clocks show.
const RANDOM_WALK_FM_PS2_PER_S3: f64 = 0.1;
/// An error beyond this many standard deviations is a jump of phase and says nothing about frequency.
const JUMP_SIGMA: f64 = 6.0;

/// Second-order tracking loop: a Kalman filter of phase (ps) and frequency (ps/s) whose noise model is that of
/// Zucca and Tavella, IEEE Trans. UFFC 52, 289 (2005), eq. 10.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    phase: f64,
    cross: f64,
    frequency: f64,
    time: u64,
}

impl Filter {
    /// Variances in ps^2 and (ps/s)^2, valid at the moment `time` of the peer's clock.
    pub fn new(time: u64, phase_variance: f64, frequency_variance: f64) -> Self {
        Self { phase: phase_variance, cross: 0.0, frequency: frequency_variance, time }
    }

    /// Takes the measured centre of the peak relative to its prediction at `time`, and corrects the clock.
    pub fn update(&mut self, clock: &mut Clock, time: u64, error_ps: f64, variance: f64) {
        let dt = time.saturating_sub(self.time) as f64 / UNITS_PER_S;
        self.time = time;
        self.phase += dt * (2.0 * self.cross + dt * self.frequency)
            + WHITE_FM_PS2_PER_S * dt
            + RANDOM_WALK_FM_PS2_PER_S3 * dt * dt * dt / 3.0;
        self.cross += dt * self.frequency + RANDOM_WALK_FM_PS2_PER_S3 * dt * dt / 2.0;
        self.frequency += RANDOM_WALK_FM_PS2_PER_S3 * dt;
        let expected = self.phase + variance;
        if error_ps * error_ps > JUMP_SIGMA * JUMP_SIGMA * expected {
            clock.correct(time, error_ps / PS_PER_UNIT, 0.0);
            // If it was the frequency after all, the next interval corrects it.
            self.frequency = self.frequency.max(error_ps * error_ps / (dt * dt).max(1e-6));
            (self.phase, self.cross) = (variance, 0.0);
            return;
        }
        let (gain_phase, gain_frequency) = (self.phase / expected, self.cross / expected);
        clock.correct(time, gain_phase * error_ps / PS_PER_UNIT, gain_frequency * error_ps * 1e-12);
        self.frequency -= gain_frequency * self.cross;
        self.cross -= gain_phase * self.cross;
        self.phase -= gain_phase * self.phase;
    }
}
