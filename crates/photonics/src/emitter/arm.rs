//! One arm: what survives it, when it arrives, and what is under way over the border of an epoch.

use super::AnalyserState;
use crate::config::{Arm, Detector, EnergyTimeAnalyser, Polarisation, SpdcCw};
use crate::disturbance::level;
use crate::photons::{Arrival, arrival, time_ps};
use crate::random::Draws;
use kernels::exponential::THRESHOLD_ONE;

const TAU: f64 = std::f64::consts::TAU;

/// Ratio of a Gaussian's full width at half maximum to its standard deviation.
pub(crate) const FWHM_PER_SIGMA: f64 = 2.354_820_045_030_949_4;

pub(super) struct ArmState {
    arm: Arm,
    epoch_s: f64,
    epoch_ps: i64,
    efficiency: f64,
    transmission: f64,
    /// Part of the light that is left by what came between since the start.
    left: f64,
    threshold: u32,
    /// Delay by dispersion of one standard deviation of detuning.
    dispersion_ps: f64,
    survival: f64,
    delay_ps: f64,
    delay_growth: f64,
    window_ps: (i64, i64),
    /// Photons of pairs in order of time. What is later than the window waits for the next epoch.
    pairs: Vec<Arrival>,
}

impl ArmState {
    /// `sign` is that of this arm's detuning: the two photons of a pair are detuned in opposite ways.
    pub(super) fn new(
        source: &SpdcCw,
        arm: &Arm,
        analyser: &EnergyTimeAnalyser,
        detector: &Detector,
        epoch_ps: u64,
        sign: f64,
    ) -> Self {
        let z_probability = probability(analyser.z_probability);
        Self {
            arm: arm.clone(),
            epoch_s: epoch_ps as f64 * 1e-12,
            epoch_ps: epoch_ps as i64,
            efficiency: detector.efficiency,
            transmission: transmission(arm.loss_db, detector.efficiency),
            left: 1.0,
            threshold: libm::round(z_probability * f64::from(THRESHOLD_ONE)) as u32,
            dispersion_ps: sign * arm.dispersion_ps_per_nm * source.bandwidth_nm / FWHM_PER_SIGMA,
            survival: 0.0,
            delay_ps: 0.0,
            delay_growth: 0.0,
            window_ps: (0, 0),
            pairs: Vec::new(),
        }
    }

    /// Sets the arm to what it is in the epoch that begins at `t_s`.
    pub(super) fn enter(&mut self, t_s: f64, state: &AnalyserState) {
        let error = polarisation_error_rad(&self.arm.polarisation, t_s, state.polarisation_rad);
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
    pub(super) fn set_loss_db(&mut self, loss_db: f64) {
        self.transmission = transmission(loss_db, self.efficiency);
    }

    /// Loss beside what the arm has anyway; infinite where no light comes through.
    pub(super) fn attenuate(&mut self, loss_db: f64) {
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
    pub(super) fn survival(&self) -> f64 {
        self.survival
    }

    /// When the first and after the last light of this epoch arrive, relative to its nominal start.
    pub(super) fn window_ps(&self) -> (i64, i64) {
        self.window_ps
    }

    /// When a photon arrives that was born at `birth_ps` with a detuning in standard deviations.
    pub(super) fn arrival_ps(&self, birth_ps: f64, detuning: f64) -> f64 {
        birth_ps + self.delay_ps + self.delay_growth * birth_ps + self.dispersion_ps * detuning
    }

    pub(super) fn dispersion_ps(&self) -> f64 {
        self.dispersion_ps
    }

    /// Probability of basis Z in units of [`THRESHOLD_ONE`].
    pub(super) fn threshold(&self) -> u32 {
        self.threshold
    }

    /// A photon that has lost its partner leaves by any port of its basis.
    pub(super) fn single(&self, at_ps: i64, draws: &mut Draws) -> Arrival {
        let word = draws.word();
        let basis = u32::from(word >> 9 >= self.threshold);
        arrival(at_ps, basis << 1 | word & 1)
    }

    /// Takes the photon of a pair. Births are in order of time, arrivals nearly.
    pub(super) fn add(&mut self, photon: Arrival) {
        let mut place = self.pairs.len();
        while place > 0 && self.pairs[place - 1] > photon {
            place -= 1;
        }
        self.pairs.insert(place, photon);
    }

    /// The photons of pairs that belong to this epoch.
    pub(super) fn due(&self) -> &[Arrival] {
        &self.pairs[..self.due_len()]
    }

    fn due_len(&self) -> usize {
        self.pairs.partition_point(|&photon| time_ps(photon) < self.window_ps.1)
    }

    /// Leaves the epoch behind; what is still under way is counted from the next one's start.
    pub(super) fn leave(&mut self) {
        self.pairs.drain(..self.due_len());
        let epoch = arrival(self.epoch_ps, 0);
        self.pairs.iter_mut().for_each(|photon| *photon -= epoch);
    }

    pub(super) fn forget(&mut self) {
        self.pairs.clear();
    }
}

/// The part of the light that comes through and is detected.
fn transmission(loss_db: f64, efficiency: f64) -> f64 {
    probability(libm::exp10(-loss_db / 10.0) * efficiency)
}

/// The nearest probability; what is no number counts as 0.
fn probability(value: f64) -> f64 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// Angle between the polarisation that arrives and the one the controller makes of it.
///
/// The two angles drift with incommensurate periods.
fn polarisation_error_rad(light: &Polarisation, t_s: f64, controller_rad: [f64; 2]) -> f64 {
    let drift = |period_s: f64| {
        if light.drift_period_s > 0.0 { light.drift_amplitude_rad * libm::sin(TAU * t_s / period_s) } else { 0.0 }
    };
    let first = light.initial_rad[0] + drift(light.drift_period_s) + level(&light.steps, t_s, 0.0) - controller_rad[0];
    let second = light.initial_rad[1] + drift(light.drift_period_s * std::f64::consts::SQRT_2) - controller_rad[1];
    libm::sqrt(first * first + second * second).min(std::f64::consts::PI)
}
