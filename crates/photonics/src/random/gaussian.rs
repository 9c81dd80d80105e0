//! Gaussian variates in whole units, from one random word each.

/// Ratio of a Gaussian's full width at half maximum to its standard deviation.
pub(crate) const FWHM_PER_SIGMA: f64 = 2.354_820_045_030_949_4;

/// Table units per standard deviation of a step of a random walk.
pub(crate) const STEP_UNITS: f64 = 512.0;

/// A Gaussian of mean 0, rounded to whole units, drawn by Walker's alias method (A. J. Walker, ACM TOMS 3,
/// 253, 1977).
///
/// Every value has the probability that rounding a real Gaussian gives it, to one part in 2^32. That is no
/// coarser than what it stands for: a time that is going to be rounded to the same unit anyway.
#[derive(Clone)]
pub struct Gaussian {
    columns: Box<[Column]>,
    reach: i32,
}

#[derive(Clone, Copy)]
struct Column {
    /// Random words below this are the column's own value. Their low bits, which choose the column, do not matter.
    threshold: u32,
    own: i32,
    other: i32,
}

/// Beyond this many standard deviations nothing has a probability of 2^-32.
const REACH_SIGMA: f64 = 7.0;

/// Widest Gaussian in a table, in units of the table; wider ones take coarser units.
const SIGMA_MAX_UNITS: f64 = 1024.0;

impl Gaussian {
    /// `sigma` in units. Negative or not a number counts as 0; at most 2^24.
    pub fn new(sigma: f64) -> Self {
        let sigma = if sigma > 0.0 { sigma.min(f64::from(1 << 24)) } else { 0.0 };
        let mut unit = 1;
        while sigma / f64::from(unit) > SIGMA_MAX_UNITS {
            unit *= 2;
        }
        let sigma = sigma / f64::from(unit);
        let half = (libm::ceil(REACH_SIGMA * sigma) as i32).max(0);
        let values: Vec<i32> = (-half..=half).map(|value| value * unit).collect();
        let weights: Vec<f64> = (-half..=half).map(|value| weight(value, sigma)).collect();
        let columns = columns(&values, &weights, values.len().next_power_of_two());
        Self { columns, reach: half * unit }
    }

    /// No variate is further from 0 than this.
    pub fn reach(&self) -> i32 {
        self.reach
    }

    #[inline]
    pub fn pick(&self, random: u32) -> i32 {
        let column = self.columns[random as usize & (self.columns.len() - 1)];
        if random < column.threshold { column.own } else { column.other }
    }
}

/// Probability that a Gaussian of standard deviation `sigma` rounds to `value`.
fn weight(value: i32, sigma: f64) -> f64 {
    if sigma == 0.0 {
        return 1.0;
    }
    // From the tail's side, where erfc keeps its relative precision.
    let scale = 1.0 / (sigma * std::f64::consts::SQRT_2);
    let centre = f64::from(value.unsigned_abs());
    0.5 * (libm::erfc((centre - 0.5) * scale) - libm::erfc((centre + 0.5) * scale))
}

/// Vose's construction of the alias table, in `len` columns of equal weight.
fn columns(values: &[i32], weights: &[f64], len: usize) -> Box<[Column]> {
    let total: f64 = weights.iter().sum();
    let one = (1u64 << 32) / len as u64;
    let mut shares: Vec<f64> = weights.iter().map(|w| w / total * len as f64).collect();
    shares.resize(len, 0.0);
    let value = |i: usize| values.get(i).copied().unwrap_or(0);
    let mut table: Vec<Column> =
        (0..len).map(|i| Column { threshold: u32::MAX, own: value(i), other: value(i) }).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..len).partition(|&i| shares[i] < 1.0);
    while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
        // Saturates for a full column, whose two values are then equal.
        table[taker].threshold = (libm::round(shares[taker] * one as f64) * len as f64) as u32;
        table[taker].other = value(giver);
        shares[giver] -= 1.0 - shares[taker];
        if shares[giver] < 1.0 {
            large.pop();
            small.push(giver);
        }
    }
    table.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Subseed;

    #[test]
    fn moments_and_tails() {
        for sigma in [0.8, 23.4, 512.0, 5000.0] {
            let gaussian = Gaussian::new(sigma);
            let mut words = vec![0; 1 << 20];
            Subseed::new([3; 32]).stream("gaussian").fill(0, 0, &mut words);
            let n = words.len() as f64;
            let values: Vec<f64> = words.iter().map(|&w| f64::from(gaussian.pick(w))).collect();
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| v * v).sum::<f64>() / n;
            let expected = sigma * sigma + if sigma < 1024.0 { 1.0 / 12.0 } else { 64.0 / 12.0 };
            assert!(mean.abs() < 3.0 * (expected / n).sqrt(), "mean {mean} of {sigma}");
            assert!((variance / expected - 1.0).abs() < 3.0 * (2.0 / n).sqrt(), "variance {variance} of {sigma}");
            if sigma > 20.0 {
                let beyond = values.iter().filter(|v| v.abs() > 3.0 * sigma).count() as f64;
                let p = libm::erfc(3.0 / std::f64::consts::SQRT_2);
                assert!((beyond - n * p).abs() < 6.0 * (n * p).sqrt(), "{beyond} beyond 3 sigma of {sigma}");
            }
            assert!(values.iter().all(|v| v.abs() <= f64::from(gaussian.reach())));
        }
    }

    #[test]
    fn no_width_is_no_spread() {
        for sigma in [0.0, -1.0, f64::NAN] {
            let gaussian = Gaussian::new(sigma);
            assert!([0, 1, u32::MAX].iter().all(|&w| gaussian.pick(w) == 0));
            assert_eq!(gaussian.reach(), 0);
        }
    }

    #[test]
    fn every_probability_is_exact() {
        let gaussian = Gaussian::new(9.0);
        let mut mass = std::collections::BTreeMap::new();
        let len = gaussian.columns.len() as u64;
        let one = (1u64 << 32) / len;
        for column in &gaussian.columns {
            let own = if column.threshold == u32::MAX { one } else { u64::from(column.threshold) / len };
            *mass.entry(column.own).or_insert(0u64) += own;
            *mass.entry(column.other).or_insert(0u64) += one - own;
        }
        for (value, mass) in mass {
            let expected = weight(value, 9.0) * (1u64 << 32) as f64;
            assert!((mass as f64 - expected).abs() < 70.0, "{value}: {mass} {expected}");
        }
    }
}
