//! A quantum dot: at most two photons per pulse, each some time after its trigger.

use super::pulses::law::PhotonNumber;
use crate::config::QuantumDot;
use crate::path::probability;

/// What a dot emits of a pulse, the transmitter's temporal filter included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Emission {
    pub(crate) number: PhotonNumber,
    pub(crate) delay: Delay,
}

/// Delay of a photon after its trigger: exponential, cut off where a filter is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Delay {
    lifetime_ps: f64,
    start_ps: f64,
    /// Share of what comes after the start that comes before the end.
    share: f64,
}

impl Delay {
    /// No delay at all.
    pub(crate) const NONE: Self = Self { lifetime_ps: 0.0, start_ps: 0.0, share: 1.0 };

    pub(crate) fn is_none(&self) -> bool {
        self.lifetime_ps == 0.0 && self.start_ps == 0.0
    }

    /// The delay by a uniform number in (0, 1), ps.
    pub(crate) fn at(&self, uniform: f64) -> f64 {
        self.start_ps - self.lifetime_ps * libm::log1p(-uniform * self.share)
    }
}

impl Emission {
    pub(crate) fn of(dot: &QuantumDot) -> Self {
        let mean = probability(dot.mean_photons);
        // Beyond these there would be pulses with more photons than two, or fewer than none.
        let two = probability(0.5 * dot.g2 * mean * mean).min(0.5 * mean);
        let one = (mean - 2.0 * two).min(1.0 - two);
        let lifetime_ps = if dot.lifetime_ps > 0.0 { dot.lifetime_ps } else { 0.0 };
        let Some(filter) = dot.temporal_filter else {
            let delay = Delay { lifetime_ps, ..Delay::NONE };
            return Self { number: PhotonNumber::UpToTwo { one, two }, delay };
        };
        let later = |start_ps: f64| if lifetime_ps > 0.0 { libm::exp(-start_ps / lifetime_ps) } else { 1.0 };
        let start_ps = if filter.start_ps > 0.0 { filter.start_ps } else { 0.0 };
        let before = |width_ps: f64| if width_ps > 0.0 { 1.0 - later(width_ps) } else { 0.0 };
        // Without a lifetime all comes at the trigger itself.
        let (after_start, share) = match lifetime_ps > 0.0 {
            true => (later(start_ps), before(filter.width_ps)),
            false => (if start_ps > 0.0 { 0.0 } else { 1.0 }, if filter.width_ps > 0.0 { 1.0 } else { 0.0 }),
        };
        let passed = probability(after_start * share);
        let number = PhotonNumber::UpToTwo {
            one: one * passed + 2.0 * two * passed * (1.0 - passed),
            two: two * passed * passed,
        };
        Self { number, delay: Delay { lifetime_ps, start_ps, share } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TemporalFilter;

    fn dot(temporal_filter: Option<TemporalFilter>) -> QuantumDot {
        QuantumDot { mean_photons: 0.2, g2: 0.04, lifetime_ps: 1000.0, temporal_filter }
    }

    #[test]
    fn photon_numbers_have_the_mean_and_the_correlation() {
        let PhotonNumber::UpToTwo { one, two } = Emission::of(&dot(None)).number else { unreachable!() };
        assert!((one + 2.0 * two - 0.2).abs() < 1e-15);
        assert!((2.0 * two / 0.04 - 0.04).abs() < 1e-12, "g2 is twice p2 over the mean squared");
    }

    #[test]
    fn a_filter_keeps_its_share_and_the_correlation() {
        let emission = Emission::of(&dot(Some(TemporalFilter { start_ps: 500.0, width_ps: 2000.0 })));
        let PhotonNumber::UpToTwo { one, two } = emission.number else { unreachable!() };
        let passed = libm::exp(-0.5) - libm::exp(-2.5);
        let mean = one + 2.0 * two;
        assert!((mean - 0.2 * passed).abs() < 1e-12);
        assert!((2.0 * two / (mean * mean) - 0.04).abs() < 1e-12, "what is not told apart is thinned alike");
        for i in 1..1000 {
            let delay_ps = emission.delay.at(f64::from(i) / 1000.0);
            assert!((500.0..2500.0).contains(&delay_ps), "{delay_ps}");
        }
    }

    #[test]
    fn impossible_dots_emit_what_is_possible() {
        for (mean_photons, g2) in [(1.0, 0.0), (1.0, 1.0), (1.0, 5.0), (3.0, 0.5), (f64::NAN, 0.1), (0.5, -1.0)] {
            let emission = Emission::of(&QuantumDot { mean_photons, g2, ..dot(None) });
            let PhotonNumber::UpToTwo { one, two } = emission.number else { unreachable!() };
            assert!(one >= 0.0 && two >= 0.0 && one + two <= 1.0 + 1e-12, "{mean_photons} {g2}: {one} {two}");
        }
        let filter = TemporalFilter { start_ps: f64::NAN, width_ps: f64::NAN };
        assert_eq!(Emission::of(&dot(Some(filter))).number, PhotonNumber::UpToTwo { one: 0.0, two: 0.0 });
    }
}
