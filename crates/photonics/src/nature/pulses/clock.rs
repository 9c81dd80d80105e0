//! When pulses are born: whole numbers, so that no pulse is lost or doubled at the border of an epoch.

/// Pulses of a fixed rate against epochs of a fixed length.
#[derive(Clone, Copy, Debug)]
pub struct PulseClock {
    rate_mhz: u128,
    period_ps: f64,
    epoch_ps: u128,
}

/// Picoseconds in a thousand seconds: the period is `KILOSECOND_PS / rate_mhz`.
const KILOSECOND_PS: u128 = 1_000_000_000_000_000;

/// Pulses of one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochPulses {
    /// Number of the first, from simulated time zero on.
    pub first: u64,
    pub count: u64,
    /// When the first one is born, after the epoch's start.
    pub first_ps: f64,
}

impl PulseClock {
    /// `rate_hz` counts to a thousandth of a hertz; at least that.
    pub fn new(rate_hz: f64, epoch_ps: u64) -> Self {
        let rate_mhz = libm::round(if rate_hz > 0.0 { rate_hz.min(1e12) * 1e3 } else { 0.0 }) as u128;
        let rate_mhz = rate_mhz.max(1);
        let period_ps = KILOSECOND_PS as f64 / rate_mhz as f64;
        Self { rate_mhz, period_ps, epoch_ps: u128::from(epoch_ps.max(1)) }
    }

    pub(crate) fn period_ps(&self) -> f64 {
        self.period_ps
    }

    pub fn epoch(&self, epoch: u64) -> EpochPulses {
        let (first, next) = (self.first(epoch), self.first(epoch.saturating_add(1)));
        let into = (u128::from(first) * KILOSECOND_PS).saturating_sub(self.elapsed(epoch));
        // Born in the middle of their period.
        let first_ps = into as f64 / self.rate_mhz as f64 + 0.5 * self.period_ps();
        EpochPulses { first, count: next - first, first_ps }
    }

    /// Number of the first pulse whose period begins in `epoch`.
    fn first(&self, epoch: u64) -> u64 {
        u64::try_from(self.elapsed(epoch).div_ceil(KILOSECOND_PS)).unwrap_or(u64::MAX)
    }

    /// Time until the start of `epoch`, in units of which a period has [`KILOSECOND_PS`].
    fn elapsed(&self, epoch: u64) -> u128 {
        u128::from(epoch).saturating_mul(self.epoch_ps).saturating_mul(self.rate_mhz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_share_pulses_without_gap_or_overlap() {
        for rate_hz in [1e9, 75.947e6, 40e6, 1.0 / 3.0, 0.0, f64::NAN] {
            let clock = PulseClock::new(rate_hz, 20_000_000_000);
            let mut next = clock.epoch(40).first;
            for epoch in 40..200 {
                let pulses = clock.epoch(epoch);
                assert_eq!(pulses.first, next);
                assert!(pulses.first_ps >= 0.5 * clock.period_ps() && pulses.first_ps < 1.5 * clock.period_ps() + 1.0);
                next += pulses.count;
            }
        }
        assert_eq!(PulseClock::new(1e9, 20_000_000_000).epoch(7).count, 20_000_000);
        // The last epochs that there are do not overflow.
        PulseClock::new(1e12, u64::MAX).epoch(u64::MAX);
    }
}
