//! What a topology says about the instruments, resolved to plain numbers.
//!
//! The planner of `topology` fills these; nothing here knows YAML or units in strings.

mod prepared;

pub use prepared::{
    Basis, BasisChoice, Encoding, GatedAvalanche, Intensity, Light, PhaseDrift, PreparedAnalyser, PreparedDetectors,
    QuantumDot, TemporalFilter, Transmitter,
};

use serde::{Deserialize, Serialize};

/// Detector ports of an energy-time analyser, in the order of the bits of a tag's detector pattern.
///
/// `Short` and `Long` read the photon inside the arms (basis Z, bit 0 and 1), `Plus` and `Minus` after
/// recombination (basis X, bit 0 and 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Port {
    Short = 0,
    Long = 1,
    Plus = 2,
    Minus = 3,
}

/// Number of detector ports of an analyser.
pub const PORTS: usize = 4;

/// A disturbance scheduled at a simulated time: from `at_s` on its level is `value`, until a later step.
///
/// Steps are in ascending order of time. What the level means (a factor, an added angle) is said where they
/// are used; before the first step nothing is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub at_s: f64,
    pub value: f64,
}

/// Epochs in which something is out of order, once or again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    pub first_epoch: u64,
    pub epochs: u64,
    /// From the beginning of one to that of the next; 0 where there is one.
    #[serde(default)]
    pub period_epochs: u64,
}

impl Outage {
    pub fn is_in(&self, epoch: u64) -> bool {
        let Some(since) = epoch.checked_sub(self.first_epoch) else { return false };
        let since = if self.period_epochs > 0 { since % self.period_epochs } else { since };
        since < self.epochs
    }
}

/// Simulated time at which an epoch begins. Who schedules a [`Step`] and who applies it count alike.
pub fn epoch_start_s(epoch: u64, epoch_ps: u64) -> f64 {
    epoch as f64 * (epoch_ps as f64 * 1e-12)
}

/// A continuous-wave spontaneous parametric down-conversion source feeding one link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpdcCw {
    /// Pairs per second created in the channel pair of this link, at pump set-point 1.
    pub pair_rate_hz: f64,
    /// Two-photon interference visibility of the source itself.
    pub visibility: f64,
    /// Spectral width (FWHM) of one channel, which dispersion turns into time.
    pub bandwidth_nm: f64,
    /// Largest pump set-point, relative to the nominal one, that the loop may ask for.
    pub pump_max: f64,
    /// Scheduled levels of the laser's power relative to what its set-point asks for (undisturbed: 1).
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// One optical path from a source to an analyser: everything before the detector's own efficiency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub length_km: f64,
    /// Fibre, connectors, multiplexers and analyser together, without detector efficiency.
    pub loss_db: f64,
    /// Group delay at the start of the run.
    pub delay_ps: f64,
    /// Slow drift of the delay: amplitude and period of a sinusoid (temperature).
    pub delay_drift_amplitude_ps: f64,
    pub delay_drift_period_s: f64,
    /// Residual chromatic dispersion after compensation.
    pub dispersion_ps_per_nm: f64,
    pub polarisation: Polarisation,
}

/// Drift of the polarisation that reaches the analyser, and what it costs there.
///
/// The state is two small rotation angles (radian on the Poincare sphere); a controller at the analyser
/// subtracts its own two angles. Transmission is `1 - dependent_loss * sin^2(|error| / 2)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Polarisation {
    pub initial_rad: [f64; 2],
    pub drift_amplitude_rad: f64,
    pub drift_period_s: f64,
    /// Fraction of the light lost when the polarisation is orthogonal to the preferred one.
    pub dependent_loss: f64,
    /// Scheduled extra rotation, rad, added to the first angle (undisturbed: 0).
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// An unbalanced interferometer with a passive choice of basis and four outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyTimeAnalyser {
    /// Difference of the two arms: side peaks appear at plus and minus this.
    pub delay_ps: f64,
    /// Probability that a photon is read inside the arms (basis Z).
    pub z_probability: f64,
    /// Interference visibility of this interferometer.
    pub visibility: f64,
    /// Probability that a photon in basis Z fires the other arm's detector.
    pub crosstalk: f64,
    /// Interferometer phase at the start, and its drift.
    pub phase_initial_rad: f64,
    pub phase_drift_rad_per_s: f64,
    /// Strength of the phase's random walk, rad per square root of a second.
    pub phase_noise_rad_per_sqrt_s: f64,
    /// Scheduled extra phase, rad (undisturbed: 0).
    #[serde(default)]
    pub steps: Vec<Step>,
}

impl EnergyTimeAnalyser {
    /// The phase that its interferometer has by itself.
    pub fn phase(&self) -> PhaseDrift {
        PhaseDrift {
            initial_rad: self.phase_initial_rad,
            rad_per_s: self.phase_drift_rad_per_s,
            noise_rad_per_sqrt_s: self.phase_noise_rad_per_sqrt_s,
            steps: self.steps.clone(),
        }
    }
}

/// Four single-photon detectors of one kind and the time-to-digital converter behind them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detector {
    pub efficiency: f64,
    /// Timing jitter of detector and converter together, full width at half maximum of a Gaussian.
    pub jitter_fwhm_ps: f64,
    /// Dark counts per second and detector.
    pub dark_rate_hz: f64,
    pub dead_time_ps: f64,
    /// Probability that a click is followed by an afterpulse, and the mean delay of it after the dead time.
    pub afterpulse_probability: f64,
    pub afterpulse_decay_ps: f64,
    /// Probability that a click latches the detector, and how long it then stays blind.
    pub latch_probability: f64,
    pub latch_reset_ps: f64,
    /// Resolution of the converter. Tags are multiples of 4 ps; this is a multiple of that.
    pub tdc_resolution_ps: f64,
    /// Electronic delay of each detector that is left after calibration.
    pub skew_ps: [f64; PORTS],
}

/// A free-running clock: `local = true + offset + integral of frequency error`, all relative to simulated time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    pub offset_ps: f64,
    /// Fractional frequency error at the start (7e-12 is 7 ps/s).
    pub frequency_error: f64,
    /// Random walk of the fractional frequency, per square root of a second.
    pub frequency_walk_per_sqrt_s: f64,
    /// White frequency noise expressed as a random walk of phase, ps per square root of a second.
    pub phase_walk_ps_per_sqrt_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_in_its_epochs_alone_and_comes_again_after_its_period() {
        let once = Outage { first_epoch: 3, epochs: 2, period_epochs: 0 };
        let again = Outage { period_epochs: 5, ..once };
        let epochs = |outage: Outage| (0..15).filter(|epoch| outage.is_in(*epoch)).collect::<Vec<u64>>();
        assert_eq!(epochs(once), [3, 4]);
        assert_eq!(epochs(again), [3, 4, 8, 9, 13, 14]);
        assert!(!again.is_in(u64::MAX - 1) || again.is_in(u64::MAX - 1 - 5));
    }
}
