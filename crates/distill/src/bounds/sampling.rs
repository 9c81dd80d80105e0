//! What errors in one sample say of errors in another.

/// How much higher the error rate of `unseen` bits may be than the rate `seen_rate` of `seen` bits, but with a
/// probability of `failure`: Lim et al., PRA 89, 022307 (2014), equation (5) with its `gamma`, after Fung, Ma and Chau,
/// PRA 81, 012318 (2010). The logarithm under the root is the binary one, the `ln 2` before it the natural one of 2.
///
/// The formula is an approximation that vanishes where nothing was seen to be wrong, and falls again at high error
/// rates where `failure` is large. A bound does neither: one error is taken to have been seen at least, and from its
/// largest value on it stays there.
pub fn deviation(seen_rate: f64, seen: f64, unseen: f64, failure: f64) -> f64 {
    let scale = (seen + unseen) / (seen * unseen);
    let rate = seen_rate.max(1.0 / seen).min(0.5);
    // `x log(c / x)` has its largest value at `c / e`.
    let c = scale / (failure * failure);
    let variance = (rate * (1.0 - rate)).min(c / core::f64::consts::E);
    libm::sqrt(scale / core::f64::consts::LN_2 * variance * libm::log2(c / variance))
}

/// Phase error rate of `unseen` bits: at most, and at most a half, where every rate is possible.
pub fn phase_error(errors: f64, seen: f64, unseen: f64, failure: Option<f64>) -> f64 {
    let rate = errors.max(0.0) / seen;
    let deviation = failure.map_or(0.0, |failure| deviation(rate, seen, unseen, failure));
    (rate + deviation).min(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_with_the_errors_and_shrinks_with_the_sample_whatever_its_failure() {
        for failure in [1e-2, 1e-5, 1e-12, 1e-30] {
            for bits in [10.0, 1e3, 1e6, 1e10] {
                let at = |rate: f64, bits: f64| phase_error(rate * bits, bits, bits, Some(failure));
                let mut last = 0.0;
                for step in 0..=500 {
                    let rate = f64::from(step) / 1000.0;
                    let own = at(rate, bits);
                    assert!(own >= last && own >= rate && own <= 0.5, "{failure} {bits} {rate}: {own} after {last}");
                    assert!(own >= at(rate, 4.0 * bits));
                    last = own;
                }
            }
        }
    }

    #[test]
    fn a_sample_without_errors_proves_no_more_than_its_size() {
        let certain = phase_error(0.0, 1e4, 1e6, Some(1e-10));
        assert!(certain > 5e-4 && certain < 5e-3, "{certain}");
        let with_one = phase_error(1.0, 1e4, 1e6, Some(1e-10));
        assert!((with_one - certain - 1e-4).abs() < 1e-12, "{certain} {with_one}");
    }
}
