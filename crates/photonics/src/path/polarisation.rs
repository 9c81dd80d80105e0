//! Polarisation of the light, and what a controller makes of it.

use super::disturbance::level;
use crate::config::Polarisation;

const TAU: f64 = std::f64::consts::TAU;

/// The two angles that are left of the light's polarisation when a controller has taken away its own.
///
/// The two angles drift with incommensurate periods.
pub(crate) fn angles_rad(light: &Polarisation, t_s: f64, controller_rad: [f64; 2]) -> [f64; 2] {
    let drift = |period_s: f64| {
        if light.drift_period_s > 0.0 { light.drift_amplitude_rad * libm::sin(TAU * t_s / period_s) } else { 0.0 }
    };
    let first = light.initial_rad[0] + drift(light.drift_period_s) + level(&light.steps, t_s, 0.0) - controller_rad[0];
    let second = light.initial_rad[1] + drift(light.drift_period_s * std::f64::consts::SQRT_2) - controller_rad[1];
    [first, second]
}

/// Angle between the polarisation that arrives and the one the controller makes of it.
pub(crate) fn error_rad(light: &Polarisation, t_s: f64, controller_rad: [f64; 2]) -> f64 {
    let [first, second] = angles_rad(light, t_s, controller_rad);
    libm::sqrt(first * first + second * second).min(std::f64::consts::PI)
}
