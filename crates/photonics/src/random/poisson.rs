//! Poisson counts.

use super::Draws;

/// Below this mean, products of uniforms are quicker than rejection.
const SMALL_MEAN: f64 = 10.0;

pub(super) fn draw(draws: &mut Draws, mean: f64) -> u64 {
    if mean >= SMALL_MEAN && mean.is_finite() {
        transformed_rejection(draws, mean)
    } else if mean > 0.0 && mean < SMALL_MEAN {
        let limit = libm::exp(-mean);
        let mut product = draws.uniform();
        let mut count = 0;
        while product > limit {
            product *= draws.uniform();
            count += 1;
        }
        count
    } else {
        0
    }
}

/// Hormann, "The transformed rejection method for generating Poisson random variables", Insurance:
/// Mathematics and Economics 12, 39 (1993), algorithm PTRS.
fn transformed_rejection(draws: &mut Draws, mean: f64) -> u64 {
    let log_mean = libm::log(mean);
    let b = 0.931 + 2.53 * libm::sqrt(mean);
    let a = -0.059 + 0.02483 * b;
    let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
    let v_r = 0.9277 - 3.6224 / (b - 2.0);
    loop {
        let u = draws.uniform() - 0.5;
        let v = draws.uniform();
        let us = 0.5 - libm::fabs(u);
        let k = libm::floor((2.0 * a / us + b) * u + mean + 0.43);
        if us >= 0.07 && v <= v_r {
            return k as u64;
        }
        if k < 0.0 || (us < 0.013 && v > us) {
            continue;
        }
        let left = libm::log(v) + libm::log(inverse_alpha) - libm::log(a / (us * us) + b);
        if left <= -mean + k * log_mean - libm::lgamma(k + 1.0) {
            return k as u64;
        }
    }
}
