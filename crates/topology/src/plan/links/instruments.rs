//! Instruments that links of several kinds have, as plain numbers.

use photonics::config as instrument;

use crate::document::{Arm, Disturbance, Fibre, FreeRunningClock, Link, Phase, Snspd};
use crate::quantity::Duration;

pub(super) const PS_PER_S: f64 = 1e12;

pub(super) fn arm(link: &Link, arm: &Arm, fibre: &Fibre, epoch_ps: u64) -> instrument::Arm {
    let turns = link.disturbances.iter().filter_map(|disturbance| match disturbance {
        Disturbance::Polarisation(step) if step.site == arm.site => Some((step.at, step.step.value())),
        _ => None,
    });
    instrument::Arm {
        length_km: fibre.length.value(),
        loss_db: fibre.loss_db(),
        delay_ps: fibre.delay_ps(),
        delay_drift_amplitude_ps: fibre.delay_drift.amplitude.value(),
        delay_drift_period_s: fibre.delay_drift.period.value() / PS_PER_S,
        dispersion_ps_per_nm: fibre.residual_dispersion_ps_per_nm(),
        polarisation: instrument::Polarisation {
            initial_rad: fibre.polarisation.initial.map(|angle| angle.value()),
            drift_amplitude_rad: fibre.polarisation.drift_amplitude.value(),
            drift_period_s: fibre.polarisation.drift_period.value() / PS_PER_S,
            dependent_loss: fibre.polarisation.dependent_loss.value(),
            steps: levels(turns, epoch_ps, 0.0, |level, step| level + step),
        },
    }
}

/// A way without fibre: optics, and polarisation that stays as it is.
pub(super) fn free_space(loss_db: f64, delay_ps: f64) -> instrument::Arm {
    instrument::Arm {
        length_km: 0.0,
        loss_db,
        delay_ps,
        delay_drift_amplitude_ps: 0.0,
        delay_drift_period_s: 1.0,
        dispersion_ps_per_nm: 0.0,
        polarisation: instrument::Polarisation {
            initial_rad: [0.0; 2],
            drift_amplitude_rad: 0.0,
            drift_period_s: 1.0,
            dependent_loss: 0.0,
            steps: Vec::new(),
        },
    }
}

/// The phase of the interferometer at a site, with the steps that are scheduled there.
pub(super) fn phase(link: &Link, site: &str, phase: &Phase, epoch_ps: u64) -> instrument::PhaseDrift {
    let phases = link.disturbances.iter().filter_map(|disturbance| match disturbance {
        Disturbance::Phase(step) if step.site.as_str() == site => Some((step.at, step.step.value())),
        _ => None,
    });
    instrument::PhaseDrift {
        initial_rad: phase.initial.value(),
        rad_per_s: phase.drift.value(),
        noise_rad_per_sqrt_s: phase.noise.value(),
        steps: levels(phases, epoch_ps, 0.0, |level, step| level + step),
    }
}

pub(super) fn snspd(detector: &Snspd) -> instrument::Detector {
    instrument::Detector {
        efficiency: detector.efficiency.value(),
        jitter_fwhm_ps: detector.jitter.value(),
        dark_rate_hz: detector.dark_count_rate.value(),
        dead_time_ps: detector.dead_time.value(),
        afterpulse_probability: detector.afterpulse.probability.value(),
        afterpulse_decay_ps: detector.afterpulse.decay.value(),
        latch_probability: detector.latching.probability.value(),
        latch_reset_ps: detector.latching.reset.value(),
        tdc_resolution_ps: detector.tdc.resolution.value(),
        skew_ps: detector.skew.map(|skew| skew.value()),
    }
}

pub(super) fn clock(clock: &FreeRunningClock) -> instrument::Clock {
    instrument::Clock {
        offset_ps: clock.offset.value(),
        frequency_error: clock.frequency_error.value(),
        frequency_walk_per_sqrt_s: clock.frequency_walk.value(),
        phase_walk_ps_per_sqrt_s: clock.phase_walk.value(),
    }
}

/// Steps to levels: each step changes the level that the steps before it have reached. It acts from an epoch's
/// beginning on, which is found here, where times are exact.
pub(super) fn levels(
    steps: impl Iterator<Item = (Duration, f64)>,
    epoch_ps: u64,
    undisturbed: f64,
    apply: impl Fn(f64, f64) -> f64,
) -> Vec<instrument::Step> {
    let mut steps: Vec<(u64, f64)> = steps.map(|(at, step)| (at.rounded(), step)).collect();
    steps.sort_by_key(|(at_ps, _)| *at_ps);
    let mut level = undisturbed;
    let steps = steps.into_iter().map(|(at_ps, step)| {
        level = apply(level, step);
        let epoch = at_ps.div_ceil(epoch_ps);
        instrument::Step { at_s: instrument::epoch_start_s(epoch, epoch_ps), value: level }
    });
    steps.collect()
}
