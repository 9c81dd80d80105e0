//! A fibre arm: what of the light survives it and when it arrives.

use super::polarisation::error_rad;
use crate::config::Arm;

const TAU: f64 = std::f64::consts::TAU;

/// One arm, epoch after epoch. Everything is a function of the epoch's start and of what [`Self::set_loss_db`] and
/// [`Self::attenuate`] said last: any epoch can be entered, in any order.
pub(crate) struct Fibre {
    arm: Arm,
    epoch_s: f64,
    epoch_ps: i64,
    efficiency: f64,
    transmission: f64,
    /// Part of the light that is left by what came between since the start.
    left: f64,
    survival: f64,
    delay_ps: f64,
    delay_growth: f64,
    window_ps: (i64, i64),
}

impl Fibre {
    /// `efficiency` is that of the detectors behind the arm: a photon that they miss is lost here.
    pub(crate) fn new(arm: &Arm, efficiency: f64, epoch_ps: u64) -> Self {
        Self {
            arm: arm.clone(),
            epoch_s: epoch_ps as f64 * 1e-12,
            epoch_ps: epoch_ps as i64,
            efficiency,
            transmission: transmission(arm.loss_db, efficiency),
            left: 1.0,
            survival: 0.0,
            delay_ps: 0.0,
            delay_growth: 0.0,
            window_ps: (0, 0),
        }
    }

    /// Sets the arm to what it is in the epoch that begins at `t_s`, with the controller at the analyser where it is.
    pub(crate) fn enter(&mut self, t_s: f64, controller_rad: [f64; 2]) {
        let error = error_rad(&self.arm.polarisation, t_s, controller_rad);
        let sine = libm::sin(error / 2.0);
        self.survival =
            probability(self.transmission * self.left * (1.0 - self.arm.polarisation.dependent_loss * sine * sine));
        self.delay_ps = self.delay_at(t_s);
        let next_delay_ps = self.delay_at(t_s + self.epoch_s);
        self.delay_growth = (next_delay_ps - self.delay_ps) / self.epoch_ps as f64;
        let rounded = |delay_ps: f64| libm::round(delay_ps) as i64;
        self.window_ps = (rounded(self.delay_ps), self.epoch_ps + rounded(next_delay_ps));
    }

    /// Gives the arm another loss than it was made with.
    pub(crate) fn set_loss_db(&mut self, loss_db: f64) {
        self.transmission = transmission(loss_db, self.efficiency);
    }

    /// Loss beside what the arm has anyway; infinite where no light comes through.
    pub(crate) fn attenuate(&mut self, loss_db: f64) {
        self.left = probability(libm::exp10(-loss_db / 10.0));
    }

    fn delay_at(&self, t_s: f64) -> f64 {
        let drift = if self.arm.delay_drift_period_s > 0.0 {
            self.arm.delay_drift_amplitude_ps * libm::sin(TAU * t_s / self.arm.delay_drift_period_s)
        } else {
            0.0
        };
        (self.arm.delay_ps + drift).max(0.0)
    }

    /// Probability that a photon of this epoch comes through and is detected.
    pub(crate) fn survival(&self) -> f64 {
        self.survival
    }

    /// When the first and after the last light of this epoch arrive, relative to its nominal start.
    pub(crate) fn window_ps(&self) -> (i64, i64) {
        self.window_ps
    }

    /// When light arrives that left at `birth_ps`, dispersion not counted.
    pub(crate) fn arrival_ps(&self, birth_ps: f64) -> f64 {
        birth_ps + self.delay_ps + self.delay_growth * birth_ps
    }
}

/// The part of the light that comes through and is detected.
fn transmission(loss_db: f64, efficiency: f64) -> f64 {
    probability(libm::exp10(-loss_db / 10.0) * efficiency)
}

/// The nearest probability; what is no number counts as 0.
pub(crate) fn probability(value: f64) -> f64 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}
