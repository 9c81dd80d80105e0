//! Functions of one or two numbers that the models share.
//!
//! Transcendental functions come from `libm`, so that a figure that reaches a decision is the same everywhere.

use core::f64::consts::LN_2;

/// Share of coincidences with Gaussian timing that falls into a centred window (eq. (13)):
/// `erf(sqrt(ln 2) window / FWHM)`.
pub fn window_efficiency(window_over_fwhm: f64) -> f64 {
    libm::erf(libm::sqrt(LN_2) * window_over_fwhm)
}

/// Share of a Gaussian peak at `centre_ps` that falls into a window of `window_ps` around zero.
///
/// `window_share(0, w, fwhm)` is `window_efficiency(w / fwhm)`; side peaks and skewed detectors have other centres.
pub fn window_share(centre_ps: f64, window_ps: f64, fwhm_ps: f64) -> f64 {
    let half_ps = window_ps / 2.0;
    interval_share(-half_ps - centre_ps, half_ps - centre_ps, fwhm_ps)
}

/// Share of a Gaussian peak around zero that falls between two places.
pub fn interval_share(from_ps: f64, to_ps: f64, fwhm_ps: f64) -> f64 {
    if fwhm_ps <= 0.0 {
        return if from_ps <= 0.0 && to_ps >= 0.0 { 1.0 } else { 0.0 };
    }
    let scale = 2.0 * libm::sqrt(LN_2) / fwhm_ps;
    0.5 * (libm::erf(to_ps * scale) - libm::erf(from_ps * scale))
}

/// Secret-key capacity of a lossy channel, bits per use: Pirandola et al., Nat. Commun. 8, 15043 (2017), eq. (1).
pub fn plob_bits_per_use(transmission: f64) -> f64 {
    -libm::log1p(-transmission) / LN_2
}

/// Transmission of a loss in decibel.
pub fn transmission(loss_db: f64) -> f64 {
    libm::pow(10.0, -loss_db / 10.0)
}

/// Loss in decibel of a transmission.
pub fn loss_db(transmission: f64) -> f64 {
    -10.0 * libm::log10(transmission)
}

/// Standard deviation of a Gaussian over its full width at half maximum.
pub fn sigma_per_fwhm() -> f64 {
    1.0 / libm::sqrt(8.0 * LN_2)
}

/// The point between `low` and `high` where `f` changes sign, to the last bits of a double.
///
/// Where it does not change sign the end with the smaller magnitude is returned.
pub fn bisect(low: f64, high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (low, high);
    let (at_low, at_high) = (f(low), f(high));
    if (at_low > 0.0) == (at_high > 0.0) {
        return if libm::fabs(at_low) <= libm::fabs(at_high) { low } else { high };
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if (f(middle) > 0.0) == (at_low > 0.0) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Where a function with one maximum between `low` and `high` is largest (golden-section search).
pub fn golden_section_maximum(low: f64, high: f64, tolerance: f64, f: impl Fn(f64) -> f64) -> f64 {
    let ratio = 0.5 * (libm::sqrt(5.0) - 1.0);
    let (mut low, mut high) = (low, high);
    let mut left = high - ratio * (high - low);
    let mut right = low + ratio * (high - low);
    let (mut at_left, mut at_right) = (f(left), f(right));
    for _ in 0..200 {
        if high - low <= tolerance {
            break;
        }
        if at_left >= at_right {
            high = right;
            (right, at_right) = (left, at_left);
            left = high - ratio * (high - low);
            at_left = f(left);
        } else {
            low = left;
            (left, at_left) = (right, at_right);
            right = low + ratio * (high - low);
            at_right = f(right);
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_efficiency_matches_the_table() {
        let table = [(0.5, 0.44394), (1.0, 0.76097), (1.2, 0.84231), (1.5, 0.92262), (2.0, 0.98147), (3.0, 0.99959)];
        for (ratio, share) in table {
            assert!((window_efficiency(ratio) - share).abs() < 1e-4, "ratio {ratio}");
            assert!((window_share(0.0, 120.0 * ratio, 120.0) - window_efficiency(ratio)).abs() < 1e-12);
        }
    }

    #[test]
    fn plob_matches_the_table() {
        let table = [(10.0, 1.4381), (50.0, 0.15200), (100.0, 1.4500e-2), (200.0, 1.4428e-4), (300.0, 1.4427e-6)];
        for (length_km, bits) in table {
            let found = plob_bits_per_use(transmission(0.2 * length_km));
            assert!((found / bits - 1.0).abs() < 1e-3, "{length_km} km: {found} against {bits}");
        }
    }

    #[test]
    fn window_share_far_from_the_window_is_the_tail() {
        assert!(window_share(400.0, 120.0, 87.0) < 1e-15);
        let tail = window_share(400.0, 120.0, 300.0);
        assert!(tail > 1e-3 && tail < 0.02, "{tail}");
        assert!((window_share(400.0, 120.0, 300.0) - window_share(-400.0, 120.0, 300.0)).abs() < 1e-15);
    }

    #[test]
    fn a_window_of_no_width_or_jitter_behaves() {
        assert_eq!(window_share(0.0, 120.0, 0.0), 1.0);
        assert_eq!(window_share(61.0, 120.0, 0.0), 0.0);
        assert_eq!(window_share(0.0, 0.0, 50.0), 0.0);
    }

    #[test]
    fn searches_find_known_points() {
        let maximum = golden_section_maximum(0.0, 4.0, 1e-9, |x| 3.0 - (x - 1.25) * (x - 1.25));
        assert!((maximum - 1.25).abs() < 1e-6);
        assert!((bisect(0.0, 2.0, |x| x * x - 2.0) - 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(bisect(1.0, 2.0, |x| x), 1.0);
    }
}
