//! Binomial counts, and counts that scatter less or more than independent events do.

use super::Draws;

/// Below this mean, gaps between successes are quicker than rejection.
const SMALL_MEAN: f64 = 12.0;

pub(super) fn draw(draws: &mut Draws, trials: u64, p: f64) -> u64 {
    if p > 0.5 {
        return trials - draw(draws, trials, 1.0 - p);
    }
    if p.is_nan() || p <= 0.0 || trials == 0 {
        return 0;
    }
    if trials as f64 * p < SMALL_MEAN {
        let (mut count, mut used) = (0, 0u64);
        loop {
            used = used.saturating_add(draws.trials_to_success(p));
            if used > trials {
                return count;
            }
            count += 1;
        }
    }
    transformed_rejection(draws, trials, p)
}

/// Hormann, "The generation of binomial random variates", J. Stat. Comput. Simul. 46, 101 (1993), algorithm BTRS.
fn transformed_rejection(draws: &mut Draws, trials: u64, p: f64) -> u64 {
    let n = trials as f64;
    let sigma = libm::sqrt(n * p * (1.0 - p));
    let b = 1.15 + 2.53 * sigma;
    let a = -0.0873 + 0.0248 * b + 0.01 * p;
    let c = n * p + 0.5;
    let v_r = 0.92 - 4.2 / b;
    let alpha = (2.83 + 5.1 / b) * sigma;
    let odds = p / (1.0 - p);
    let mode = libm::floor((n + 1.0) * p);
    loop {
        let u = draws.uniform() - 0.5;
        let v = draws.uniform();
        let us = 0.5 - libm::fabs(u);
        let k = libm::floor((2.0 * a / us + b) * u + c);
        if us >= 0.07 && v <= v_r {
            return k as u64;
        }
        if k < 0.0 || k > n {
            continue;
        }
        // Probability of k over that of the mode. Ratios near 1 keep their precision for any number of trials.
        let at_mode = (mode + 0.5) * libm::log((mode + 1.0) / (odds * (n - mode + 1.0)));
        let between = (n + 1.0) * libm::log1p((k - mode) / (n - k + 1.0));
        let at_k = (k + 0.5) * libm::log(odds * (n - k + 1.0) / (k + 1.0));
        let tails = stirling(mode) + stirling(n - mode) - stirling(k) - stirling(n - k);
        if libm::log(v * alpha / (a / (us * us) + b)) <= at_mode + between + at_k + tails {
            return k as u64;
        }
    }
}

/// `ln k!` beyond Stirling's `(k + 1/2) ln(k + 1) - (k + 1) + ln(2 pi) / 2`.
fn stirling(k: f64) -> f64 {
    const SMALL: f64 = 16.0;
    if k < SMALL {
        let leading = (k + 0.5) * libm::log(k + 1.0) - (k + 1.0) + 0.918_938_533_204_672_7;
        return libm::lgamma(k + 1.0) - leading;
    }
    let square = (k + 1.0) * (k + 1.0);
    (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1260.0 / square) / square) / (k + 1.0)
}

/// A count of this mean whose variance is `fano` times the mean: binomial below 1, Poisson at 1, negative binomial
/// above.
pub(super) fn scattered(draws: &mut Draws, mean: f64, fano: f64) -> u64 {
    if mean.is_nan() || mean <= 0.0 {
        0
    } else if fano < 1.0 {
        // As many trials as are whole, and the probability that keeps the mean.
        let trials = libm::ceil(mean / (1.0 - fano.max(0.0)));
        draw(draws, trials as u64, mean / trials)
    } else if fano > 1.0 {
        let scale = fano - 1.0;
        let rate = scale * gamma(draws, mean / scale);
        draws.poisson(rate)
    } else {
        draws.poisson(mean)
    }
}

/// Gamma of scale 1: Marsaglia and Tsang, ACM TOMS 26, 363 (2000).
fn gamma(draws: &mut Draws, shape: f64) -> f64 {
    if shape < 1.0 {
        let less = libm::pow(draws.uniform(), 1.0 / shape);
        return gamma(draws, shape + 1.0) * less;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        // Box and Muller.
        let radius = libm::sqrt(2.0 * draws.exponential());
        let x = radius * libm::cos(std::f64::consts::TAU * draws.uniform());
        let v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        if v > 0.0 && libm::log(draws.uniform()) < 0.5 * x * x + d - d * v + d * libm::log(v) {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Subseed;

    fn draws(label: &str) -> Draws {
        Subseed::new([9; 32]).stream(label).draws(0)
    }

    /// Chi-square of draws against the exact law, cells of few draws taken together.
    fn assert_binomial(trials: u64, p: f64, samples: usize) {
        let mut draws = draws("binomial");
        let mut counts = std::collections::BTreeMap::new();
        (0..samples).for_each(|_| *counts.entry(draw(&mut draws, trials, p)).or_insert(0u64) += 1);
        let n = trials as f64;
        let probability = |k: u64| {
            let k = k as f64;
            let choose = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
            libm::exp(choose + k * libm::log(p) + (n - k) * libm::log1p(-p))
        };
        let (first, last) = (*counts.keys().next().unwrap(), *counts.keys().last().unwrap());
        let (mut chi, mut cells, mut seen, mut expected) = (0.0, 0.0, 0.0, 0.0);
        for k in first..=last {
            seen += counts.get(&k).copied().unwrap_or(0) as f64;
            expected += probability(k) * samples as f64;
            if expected >= 20.0 {
                chi += (seen - expected) * (seen - expected) / expected;
                (cells, seen, expected) = (cells + 1.0, 0.0, 0.0);
            }
        }
        println!("{trials} at {p}: chi-square {chi:.1} of {cells} cells");
        assert!(chi < cells + 4.0 * libm::sqrt(2.0 * cells), "{chi} of {cells}");
    }

    #[test]
    fn binomials_follow_their_law() {
        for (trials, p) in
            [(10, 0.3), (1000, 0.004), (60, 0.4), (500, 0.06), (40, 0.7), (3000, 0.93), (1_000_000, 2e-4)]
        {
            assert_binomial(trials, p, 100_000);
        }
    }

    #[test]
    fn binomials_of_many_trials_keep_mean_and_variance() {
        let mut draws = draws("many trials");
        for (trials, p) in [(20_000_000_000, 0.005), (1 << 50, 1e-3), (1 << 50, 1e-13)] {
            let samples = 40_000;
            let mean = trials as f64 * p;
            let variance = mean * (1.0 - p);
            let off: Vec<f64> = (0..samples).map(|_| draw(&mut draws, trials, p) as f64 - mean).collect();
            let n = f64::from(samples);
            let first = off.iter().sum::<f64>() / n;
            let second = off.iter().map(|off| off * off).sum::<f64>() / n;
            assert!(first.abs() < 3.0 * libm::sqrt(variance / n), "mean {first} at {trials}");
            assert!((second / variance - 1.0).abs() < 3.0 * libm::sqrt(2.0 / n), "variance {second} of {variance}");
        }
        for (trials, p, count) in [(5, 0.0, 0), (5, 1.0, 5), (0, 0.5, 0), (5, -1.0, 0), (5, f64::NAN, 0), (5, 7.0, 5)] {
            assert_eq!(draw(&mut draws, trials, p), count, "{trials} at {p}");
        }
    }

    #[test]
    fn counts_scatter_as_much_as_they_are_told_to() {
        let mut draws = draws("scattered");
        for (mean, fano) in
            [(1000.0, 0.8), (1000.0, 1.0), (1000.0, 1.105), (3.0, 0.5), (0.2, 1.5), (2e6, 0.99), (50.0, 9.0)]
        {
            let samples = 40_000;
            let n = f64::from(samples);
            let counts: Vec<f64> = (0..samples).map(|_| scattered(&mut draws, mean, fano) as f64).collect();
            let first = counts.iter().sum::<f64>() / n;
            let second = counts.iter().map(|count| (count - mean) * (count - mean)).sum::<f64>() / n;
            let (variance, skewed) = (fano * mean, 3.0 * fano * fano / mean);
            assert!((first - mean).abs() < 3.0 * libm::sqrt(variance / n), "mean {first} of {mean} at {fano}");
            // Whole trials miss the variance of few counts by a little.
            let slack = 3.0 * libm::sqrt((2.0 + skewed) / n) + 0.3 / mean.max(6.0);
            assert!((second / variance - 1.0).abs() < slack, "variance {second} of {variance}");
        }
        assert_eq!([0.0, -1.0, f64::NAN].map(|mean| scattered(&mut draws, mean, 1.0)), [0; 3]);
    }
}
