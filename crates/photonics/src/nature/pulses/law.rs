//! How many photons of a pulse arrive, given that any does.

use crate::path::probability;

/// Photons per pulse before any loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PhotonNumber {
    Poisson {
        mean: f64,
    },
    /// Never more than two.
    UpToTwo {
        one: f64,
        two: f64,
    },
}

impl PhotonNumber {
    pub(crate) fn mean(self) -> f64 {
        match self {
            Self::Poisson { mean } => mean,
            Self::UpToTwo { one, two } => one + 2.0 * two,
        }
    }

    /// The number that arrives where each photon comes through with probability `survival`.
    pub(crate) fn arriving(self, survival: f64) -> Arriving {
        let survival = probability(survival);
        match self {
            Self::Poisson { mean } => {
                let mean = if mean > 0.0 && survival > 0.0 { (mean * survival).min(MEAN_MAX) } else { 0.0 };
                let any = -libm::expm1(-mean);
                let one = if any > 0.0 { mean * libm::exp(-mean) / any } else { 1.0 };
                Arriving { any, one, rest: Rest::Poisson { mean } }
            }
            Self::UpToTwo { one, two } => {
                let single = one * survival + 2.0 * two * survival * (1.0 - survival);
                let both = two * survival * survival;
                let any = single + both;
                Arriving { any, one: if any > 0.0 { single / any } else { 1.0 }, rest: Rest::Two }
            }
        }
    }
}

/// More light than this blinds a detector in any case; the cap keeps a pulse's photons few, and their law within a
/// double.
const MEAN_MAX: f64 = 500.0;

/// Numbers beyond this come of rounding alone.
const PHOTONS_MAX: u32 = 1000;

/// The number of photons that arrive of one pulse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arriving {
    /// Probability that any photon arrives.
    pub(crate) any: f64,
    /// Probability that one arrives, given that any does.
    pub(crate) one: f64,
    rest: Rest,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rest {
    Poisson { mean: f64 },
    Two,
}

impl Arriving {
    /// The number, given that there are at least two, from a uniform number.
    pub(crate) fn several(&self, uniform: f64) -> u32 {
        let Rest::Poisson { mean } = self.rest else { return 2 };
        // Upwards from two until the share of the tail is used up.
        let tail = self.any * (1.0 - self.one);
        let mut left = uniform * tail;
        let mut share = 0.5 * mean * mean * libm::exp(-mean);
        let mut number = 2;
        while left > share && number < PHOTONS_MAX {
            left -= share;
            number += 1;
            share *= mean / f64::from(number);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_their_law() {
        for mean in [1e-3, 0.3, 2.0, 30.0] {
            let arriving = PhotonNumber::Poisson { mean: mean * 4.0 }.arriving(0.25);
            assert!((arriving.any + libm::exp(-mean) - 1.0).abs() < 1e-12);
            // The inverse of the distribution at the middles of many equal shares gives its mean.
            let n = 200_000;
            let several: f64 =
                (0..n).map(|i| f64::from(arriving.several((f64::from(i) + 0.5) / f64::from(n)))).sum::<f64>()
                    / f64::from(n);
            let total = arriving.any * (arriving.one + (1.0 - arriving.one) * several);
            assert!((total / mean - 1.0).abs() < 1e-3, "{total} of {mean}");
        }
    }

    #[test]
    fn a_pair_that_loses_one_photon_is_one_photon() {
        let arriving = PhotonNumber::UpToTwo { one: 0.2, two: 0.1 }.arriving(0.5);
        assert!((arriving.any - (0.2 * 0.5 + 0.1 * 0.75)).abs() < 1e-12);
        assert!((arriving.any * (1.0 - arriving.one) - 0.1 * 0.25).abs() < 1e-12);
        assert_eq!(arriving.several(0.7), 2);
    }

    #[test]
    fn nothing_arrives_of_nothing_and_extremes_do_no_harm() {
        for number in [PhotonNumber::Poisson { mean: 0.0 }, PhotonNumber::UpToTwo { one: 0.0, two: 0.0 }] {
            assert_eq!(number.arriving(1.0).any, 0.0);
        }
        for (mean, survival) in [(1.0, 0.0), (1.0, f64::NAN), (f64::NAN, 1.0), (1e-300, 1e-300)] {
            assert!(PhotonNumber::Poisson { mean }.arriving(survival).any < 1e-100);
        }
        let bright = PhotonNumber::Poisson { mean: f64::INFINITY }.arriving(1.0);
        assert!(bright.any == 1.0 && (0..100).all(|i| bright.several(f64::from(i) / 99.0) <= PHOTONS_MAX));
    }
}
