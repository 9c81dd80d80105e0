//! A node's free-running clock.

use crate::config::Clock;
use crate::random::{Gaussian, STEP_UNITS, Stream, Subseed};
use crate::tag::UNIT_PS;

/// Local time when true time and the clock's offset are zero, so that no local time is negative.
const ORIGIN_PS: i64 = 1_000_000_000_000;

/// No clock starts earlier, whatever its offset.
const LOCAL_MIN_PS: i64 = 1_000_000_000;

/// Largest fractional frequency error; keeps local time in order.
const FREQUENCY_MAX: f64 = 1e-3;

/// Elapsed time is taken in units of 64 ps and slopes in units of 2^-38, so that their product is in units of
/// 2^-32 ps and fits 64 bits for epochs up to a second.
const COARSE_BITS: u32 = 6;
const SLOPE_BITS: u32 = 38;
const FRACTION_BITS: u32 = SLOPE_BITS - COARSE_BITS;

/// A clock that somebody has set wrong: in epochs from `epoch_first` to before `epoch_end` it is `by_ps` ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    pub epoch_first: u64,
    pub epoch_end: u64,
    pub by_ps: i64,
}

/// Where the clock is, epoch after epoch. It can be followed from epoch 0 again by any process.
pub(super) struct LocalClock {
    clock: Clock,
    epoch_ps: u64,
    steps: Stream,
    gaussian: Gaussian,
    epoch: u64,
    offset_ps: f64,
    frequency: f64,
    shifts: Vec<Shift>,
}

/// The clock during one epoch: a straight line in fixed point.
#[derive(Clone)]
pub(super) struct Segment {
    epoch: u64,
    epoch_ps: i64,
    local_ps: i64,
    fraction: i64,
    slope: i64,
}

/// A segment as a function of the time after the start of some epoch.
#[derive(Clone, Copy)]
pub(super) struct Line {
    start_ps: i64,
    local_ps: i64,
    fraction: i64,
    slope: i64,
}

impl LocalClock {
    pub(super) fn new(clock: &Clock, epoch_ps: u64, subseed: &Subseed) -> Self {
        Self {
            clock: clock.clone(),
            epoch_ps: epoch_ps.max(1),
            steps: subseed.stream("clock"),
            gaussian: Gaussian::new(STEP_UNITS),
            epoch: 0,
            offset_ps: clock.offset_ps,
            frequency: clock.frequency_error,
            shifts: Vec::new(),
        }
    }

    /// What the clock is off by beside its own error. Epochs that were asked for already stay as they were.
    pub(super) fn shift(&mut self, shifts: &[Shift]) {
        if self.shifts != shifts {
            self.shifts = shifts.to_vec();
        }
    }

    fn shift_ps(&self, epoch: u64) -> i64 {
        let acting = self.shifts.iter().filter(|shift| (shift.epoch_first..shift.epoch_end).contains(&epoch));
        acting.fold(0, |sum, shift| sum.saturating_add(shift.by_ps))
    }

    /// The last epoch that the clock's range reaches over: 53 days.
    pub(super) fn last_epoch(&self) -> u64 {
        (1 << 62) / self.epoch_ps
    }

    /// The clock in `epoch`. Quick in ascending order; an earlier epoch costs the way from epoch 0.
    pub(super) fn segment(&mut self, epoch: u64) -> Segment {
        if epoch < self.epoch {
            (self.epoch, self.offset_ps, self.frequency) = (0, self.clock.offset_ps, self.clock.frequency_error);
        }
        while self.epoch < epoch {
            self.offset_ps += self.slope() * self.epoch_ps as f64;
            self.frequency += self.clock.frequency_walk_per_sqrt_s * self.step(1);
            self.epoch += 1;
        }
        let whole = libm::floor(self.offset_ps);
        let true_ps = epoch.saturating_mul(self.epoch_ps) as i64;
        Segment {
            epoch,
            epoch_ps: self.epoch_ps as i64,
            local_ps: true_ps
                .saturating_add(ORIGIN_PS)
                .saturating_add(whole as i64)
                .saturating_add(self.shift_ps(epoch))
                .max(LOCAL_MIN_PS),
            fraction: libm::ldexp(self.offset_ps - whole, FRACTION_BITS as i32) as i64,
            slope: libm::ldexp(self.slope(), SLOPE_BITS as i32) as i64,
        }
    }

    /// Fractional frequency error during the current epoch. White frequency noise tilts the epoch's line, so
    /// that local time has no jumps.
    fn slope(&self) -> f64 {
        let noise = self.clock.phase_walk_ps_per_sqrt_s * self.step(0) / self.epoch_ps as f64;
        (self.frequency + noise).clamp(-FREQUENCY_MAX, FREQUENCY_MAX)
    }

    /// The current epoch's step of a random walk of one per square root of a second.
    fn step(&self, walk: usize) -> f64 {
        let deviate = f64::from(self.gaussian.pick(self.steps.block(self.epoch)[walk])) / STEP_UNITS;
        deviate * libm::sqrt(self.epoch_ps as f64 * 1e-12)
    }
}

impl Segment {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where this epoch ends, relative to the start of epoch `origin`.
    pub(super) fn end_ps(&self, origin: u64) -> i64 {
        self.start_ps(origin) + self.epoch_ps
    }

    /// Local time as a function of the time after the start of epoch `origin`.
    pub(super) fn line(&self, origin: u64) -> Line {
        let Self { local_ps, fraction, slope, .. } = *self;
        Line { start_ps: self.start_ps(origin), local_ps, fraction, slope }
    }

    fn start_ps(&self, origin: u64) -> i64 {
        // Epochs are close to each other and within the clock's range.
        self.epoch.wrapping_sub(origin) as i64 * self.epoch_ps
    }
}

impl Line {
    /// Local time in units of a tag.
    #[inline]
    pub(super) fn units(&self, at_ps: i64) -> u64 {
        let elapsed_ps = at_ps - self.start_ps;
        let error_ps = ((elapsed_ps >> COARSE_BITS) * self.slope + self.fraction) >> FRACTION_BITS;
        (self.local_ps + elapsed_ps + error_ps) as u64 / UNIT_PS
    }
}
