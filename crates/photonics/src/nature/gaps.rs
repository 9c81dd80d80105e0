//! Which way a Poisson process of a given rate is drawn.

use kernels::exponential::Gaps;

/// Rates of interest span ten orders of magnitude; only the frequent ones are worth a vector loop.
pub(crate) enum GapSource {
    Dense(Gaps),
    Sparse { mean_ps: f64 },
}

impl GapSource {
    pub(crate) fn new(rate_hz: f64) -> Self {
        let mean_ps = 1e12 / rate_hz;
        match Gaps::new(mean_ps) {
            Some(gaps) => Self::Dense(gaps),
            None => Self::Sparse { mean_ps },
        }
    }
}
