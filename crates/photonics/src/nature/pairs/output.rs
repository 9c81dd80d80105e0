//! One output of a source of pairs: its fibre, and the photons that are under way over the border of an epoch.

use crate::analyser::AnalyserState;
use crate::config::{Arm, Detector, EnergyTimeAnalyser, SpdcCw};
use crate::nature::under_way::UnderWay;
use crate::path::{Fibre, probability};
use crate::photons::{Arrival, arrival};
use crate::random::{Draws, FWHM_PER_SIGMA};
use kernels::exponential::THRESHOLD_ONE;

pub(super) struct Output {
    fibre: Fibre,
    epoch_ps: i64,
    threshold: u32,
    /// Delay by dispersion of one standard deviation of detuning.
    dispersion_ps: f64,
    /// Photons of pairs. What is later than the window waits for the next epoch.
    pairs: UnderWay,
}

impl Output {
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
            fibre: Fibre::new(arm, detector.efficiency, epoch_ps),
            epoch_ps: epoch_ps as i64,
            threshold: libm::round(z_probability * f64::from(THRESHOLD_ONE)) as u32,
            dispersion_ps: sign * arm.dispersion_ps_per_nm * source.bandwidth_nm / FWHM_PER_SIGMA,
            pairs: UnderWay::default(),
        }
    }

    /// Sets the arm to what it is in the epoch that begins at `t_s`.
    pub(super) fn enter(&mut self, t_s: f64, state: &AnalyserState) {
        self.fibre.enter(t_s, state.polarisation_rad);
    }

    pub(super) fn fibre(&self) -> &Fibre {
        &self.fibre
    }

    pub(super) fn fibre_mut(&mut self) -> &mut Fibre {
        &mut self.fibre
    }

    /// When a photon arrives that was born at `birth_ps` with a detuning in standard deviations.
    pub(super) fn arrival_ps(&self, birth_ps: f64, detuning: f64) -> f64 {
        self.fibre.arrival_ps(birth_ps) + self.dispersion_ps * detuning
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
        self.pairs.add(photon);
    }

    /// The photons of pairs that belong to this epoch.
    pub(super) fn due(&self) -> &[Arrival] {
        self.pairs.due(self.fibre.window_ps().1)
    }

    /// Leaves the epoch behind; what is still under way is counted from the next one's start.
    pub(super) fn leave(&mut self) {
        self.pairs.leave(self.fibre.window_ps().1, self.epoch_ps);
    }

    pub(super) fn forget(&mut self) {
        self.pairs.forget();
    }
}
