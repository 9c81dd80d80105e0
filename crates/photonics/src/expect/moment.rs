//! What a link is at one moment of a run, for the formulae: what was scheduled, and what drifts where no loop holds it.
//!
//! The emitters of clicks take the same functions of time, so that an expectation of a moment is one of their epochs.

use super::inputs::Bbm92Inputs;
use super::math::loss_db;
use crate::config::{Encoding, Polarisation, PreparedAnalyser, Step, Transmitter};
use crate::path::disturbance::level;
use crate::path::polarisation::{angles_rad, error_rad};

/// The scheduled power of a source, relative to what it should be.
pub fn power(steps: &[Step], t_s: f64) -> f64 {
    level(steps, t_s, 1.0).max(0.0)
}

/// What is left of the light's polarisation at an end, when the controller there has taken away its own angles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turned {
    pub angles_rad: [f64; 2],
    /// Loss that comes of it.
    pub loss_db: f64,
}

impl Turned {
    pub fn at(light: &Polarisation, t_s: f64, controller_rad: [f64; 2]) -> Self {
        let sine = libm::sin(error_rad(light, t_s, controller_rad) / 2.0);
        Self {
            angles_rad: angles_rad(light, t_s, controller_rad),
            loss_db: loss_db(1.0 - light.dependent_loss * sine * sine),
        }
    }
}

/// Pairs whose analysers' phases, which nothing holds, come to this sum.
pub fn with_phase(inputs: &mut Bbm92Inputs, phase_rad: f64) {
    inputs.mean_cos_phase = libm::cos(phase_rad);
}

/// Pulses of which nothing holds the polarisation, or the phase: errors of both bases are those that are left.
///
/// A state that is turned reads with a smaller contrast; one that is turned too far, with the opposite one.
pub fn turn(
    transmitter: &mut Transmitter,
    analyser: &PreparedAnalyser,
    turned: Option<&Turned>,
    phase_rad: Option<f64>,
) {
    let contrast = match (analyser.encoding, turned, phase_rad) {
        (Encoding::Polarisation, Some(Turned { angles_rad: [first, second], .. }), _) => {
            let plane = libm::cos(*first);
            [plane * libm::cos(*second), plane]
        }
        (Encoding::Phase, _, Some(phase_rad)) => [libm::cos(phase_rad); 2],
        (Encoding::TimeBin, _, Some(phase_rad)) => [1.0, libm::cos(phase_rad)],
        _ => [1.0; 2],
    };
    for (error, contrast) in transmitter.intrinsic_error.iter_mut().zip(contrast) {
        *error = 0.5 * (1.0 - (1.0 - 2.0 * *error) * contrast);
    }
}
