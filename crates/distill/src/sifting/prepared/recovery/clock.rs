//! Where pulses fall in the receiver's own time.

use crate::sifting::tracking::Correction;

/// The next whole number below: for each click, and so no call.
#[inline]
pub(super) fn whole(value: f64) -> i64 {
    let towards_zero = value as i64;
    towards_zero.saturating_sub(i64::from(towards_zero as f64 > value))
}

/// The first moment of pulse `number` is at `reference_ps + phase_ps`, and pulses follow each other by `period_ps`, all
/// in the receiver's own time. The reference stays near, so that no digits are lost.
#[derive(Clone, Debug)]
pub(super) struct PulseClock {
    pub reference_ps: u64,
    pub phase_ps: f64,
    pub number: i64,
    pub period_ps: f64,
}

impl PulseClock {
    /// The pulse of which light is nearest to `time_ps` if it lags `delay_ps` behind the first moment, and by how much
    /// it is late.
    #[inline]
    pub fn place(&self, time_ps: u64, delay_ps: f64) -> (i64, f64) {
        let since = (time_ps as i64 - self.reference_ps as i64) as f64 - self.phase_ps - delay_ps;
        let pulses = whole(since / self.period_ps + 0.5);
        (self.number + pulses, since - pulses as f64 * self.period_ps)
    }

    /// How much later `time_ps` is than the first moment of pulse `number`.
    pub fn since_ps(&self, number: i64, time_ps: u64) -> f64 {
        let since = (time_ps as i64 - self.reference_ps as i64) as f64 - self.phase_ps;
        since - (number - self.number) as f64 * self.period_ps
    }

    /// Number of the first pulse that comes at `time_ps` or later.
    pub fn first_from(&self, time_ps: u64) -> i64 {
        let (number, late_ps) = self.place(time_ps, 0.0);
        number + i64::from(late_ps > 0.0)
    }

    /// Moves the reference without changing what the clock says.
    pub fn refer_to(&mut self, time_ps: u64) {
        let (number, late_ps) = self.place(time_ps, 0.0);
        (self.reference_ps, self.number, self.phase_ps) = (time_ps, number, -late_ps);
    }

    /// Corrects the phase at `time_ps`, and the frequency from there on.
    pub fn correct(&mut self, time_ps: u64, correction: Correction) {
        self.refer_to(time_ps);
        self.phase_ps += correction.phase_ps;
        self.period_ps *= 1.0 + correction.frequency;
    }

    /// Period of this clock relative to `nominal_ps`, less one.
    pub fn frequency(&self, nominal_ps: f64) -> f64 {
        self.period_ps / nominal_ps - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> PulseClock {
        PulseClock { reference_ps: 1_000_000, phase_ps: 3.0, number: 70, period_ps: 1000.125 }
    }

    #[test]
    fn a_moment_belongs_to_the_nearest_pulse_before_and_after_the_reference() {
        let clock = clock();
        assert_eq!(clock.place(1_000_003, 0.0), (70, 0.0));
        assert_eq!(clock.place(1_000_503, 0.0), (70, 500.0));
        assert_eq!(clock.place(1_000_505, 0.0).0, 71);
        assert_eq!(clock.place(1_000_505, 400.0), (70, 102.0));
        assert_eq!(clock.place(1_000_003 - 8001, 0.0), (62, 0.0));
        assert_eq!((clock.since_ps(62, 1_000_003), clock.since_ps(71, 1_000_003)), (8001.0, -1000.125));
        assert_eq!((clock.first_from(1_000_003), clock.first_from(1_000_004)), (70, 71));
    }

    #[test]
    fn another_reference_says_the_same() {
        let (before, mut after) = (clock(), clock());
        after.refer_to(500_000_000_000);
        for time_ps in [500_000_000_100, 500_123_456_789, 499_999_000_000] {
            let ((a, late_a), (b, late_b)) = (before.place(time_ps, 0.0), after.place(time_ps, 0.0));
            assert_eq!(a, b);
            assert!((late_a - late_b).abs() < 1e-3, "{late_a} {late_b}");
        }
        assert!((after.frequency(1000.0) - 1.25e-4).abs() < 1e-12);
    }

    #[test]
    fn a_correction_moves_the_phase_there_and_the_period_after_it() {
        let mut clock = clock();
        clock.correct(2_000_000, Correction { phase_ps: 10.0, frequency: 1e-6 });
        let late = |clock: &PulseClock, time_ps| clock.place(time_ps, 0.0).1;
        let before = super::tests::clock();
        assert!((late(&before, 2_000_000) - late(&clock, 2_000_000) - 10.0).abs() < 1e-6);
        assert!((clock.period_ps - 1000.125 * (1.0 + 1e-6)).abs() < 1e-9);
    }
}
