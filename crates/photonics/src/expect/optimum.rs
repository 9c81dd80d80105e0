//! Where to set the pump.

use std::cell::Cell;

use super::bbm92::{Prediction, predict};
use super::inputs::Bbm92Inputs;
use super::math::{bisect, golden_section_maximum};

/// A pump set-point and what the link does there.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatingPoint {
    /// Relative to the pair rate of the inputs.
    pub pump: f64,
    pub prediction: Prediction,
}

/// Range of pump powers, relative to the inputs, in which an operating point is searched.
const PUMP_RANGE: (f64, f64) = (1e-4, 1e3);

/// Prediction with the pump changed by a factor.
pub fn at_pump(inputs: &Bbm92Inputs, pump: f64) -> OperatingPoint {
    let mut inputs = inputs.clone();
    inputs.pair_rate_hz *= pump;
    OperatingPoint { pump, prediction: predict(&inputs) }
}

/// The pump with the highest key rate by `rate_bps`, which gives nothing where blocks abort. The rate has one maximum:
/// pairs make key, accidentals of more pairs take it back, all of it where blocks abort. Searched on a logarithmic
/// scale.
pub fn optimum(inputs: &Bbm92Inputs, rate_bps: impl Fn(&Prediction) -> f64) -> OperatingPoint {
    let (low, high) = (libm::log(PUMP_RANGE.0), libm::log(PUMP_RANGE.1));
    // The maximum may be at the edge beyond which blocks abort, so what counts is a point that was tried.
    let best = Cell::new((f64::NEG_INFINITY, low));
    let score = |log_pump: f64| {
        let point = at_pump(inputs, libm::exp(log_pump));
        let rate_bps = rate_bps(&point.prediction);
        // Where no key is left, lead back to lower error rates.
        let score = if rate_bps > 0.0 { rate_bps } else { -point.prediction.z.qber };
        if score > best.get().0 {
            best.set((score, log_pump));
        }
        score
    };
    golden_section_maximum(low, high, 1e-9, score);
    at_pump(inputs, libm::exp(best.get().1))
}

/// The pump at which a loop that holds the Z error rate settles: the larger solution, where accidentals rule.
pub fn at_qber_z(inputs: &Bbm92Inputs, qber_z: f64) -> OperatingPoint {
    let lowest = lowest_qber_pump(inputs);
    let log_pump = bisect(libm::log(lowest), libm::log(PUMP_RANGE.1), |log_pump| {
        at_pump(inputs, libm::exp(log_pump)).prediction.z.qber - qber_z
    });
    at_pump(inputs, libm::exp(log_pump))
}

/// Below this pump dark counts rule and the error rate rises again.
fn lowest_qber_pump(inputs: &Bbm92Inputs) -> f64 {
    let (low, high) = (libm::log(PUMP_RANGE.0), libm::log(PUMP_RANGE.1));
    let score = |log_pump: f64| -at_pump(inputs, libm::exp(log_pump)).prediction.z.qber;
    libm::exp(golden_section_maximum(low, high, 1e-9, score))
}
