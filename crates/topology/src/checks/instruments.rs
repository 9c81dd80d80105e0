//! Instruments that links of all kinds have: values that cannot be.

use super::{Epoch, Finding, Report};
use crate::document::{Afterpulse, Cooling, Fibre, FreeRunningClock, Snspd, Tdc};
use crate::quantity::{Decimal, Duration, Fraction, TimeOffset};

/// No outage begins later, or lasts for longer: a run that shows it would take too long for anybody.
pub(super) const OUTAGE_MAX: &str = "600 h";

/// A time tag counts units of this.
pub(super) const TAG_UNIT_PS: u64 = 4;

pub(super) fn fibre(fibre: &Fibre, path: &str, report: &mut Report<'_>) {
    for (field, period) in
        [("delayDrift.period", fibre.delay_drift.period), ("polarisation.driftPeriod", fibre.polarisation.drift_period)]
    {
        if period.rounded() == 0 {
            report.add(Finding::error(format!("{path}.{field}"), "a period of nothing", "a duration above 0"), &[]);
        }
    }
    /// Beyond this not one photon in a day arrives.
    const LOSS_DB_MAX: f64 = 200.0;
    if fibre.loss_db() > LOSS_DB_MAX {
        let message = format!("a loss of {:.0} dB on one arm", fibre.loss_db());
        report.add(Finding::error(path, message, format!("at most {LOSS_DB_MAX} dB")), &[]);
    }
}

pub(super) fn clock(clock: &FreeRunningClock, path: &str, report: &mut Report<'_>) {
    /// Larger offsets are a mistake: no search reaches them.
    const OFFSET_PS_MAX: i64 = 10_000_000_000_000;
    if clock.offset.exact().map(Decimal::abs) > Some(OFFSET_PS_MAX.into()) {
        let message = format!("a clock that is {} off", clock.offset);
        report.add(Finding::error(format!("{path}.offset"), message, "at most 10 s, either way"), &[]);
    }
}

/// A duration that is too long for what it is.
pub(super) fn bounded(path: &str, field: &str, value: Duration, most: &'static str, report: &mut Report<'_>) {
    if value > Duration::preset(most) {
        let message = format!("{value} is too long");
        report.add(Finding::error(format!("{path}.{field}"), message, format!("at most {most}")), &[]);
    }
}

pub(super) fn snspd(detector: &Snspd, path: &str, report: &mut Report<'_>) {
    efficiency(detector.efficiency, path, report);
    bounded(path, "jitter", detector.jitter, "100 ns", report);
    bounded(path, "deadTime", detector.dead_time, "1 ms", report);
    bounded(path, "latching.reset", detector.latching.reset, "10 s", report);
    afterpulse(&detector.afterpulse, path, report);
    converter(&detector.tdc, &detector.skew, path, report);
    if detector.dead_time.whole().is_none() {
        let message = format!("{} is not a whole number of ps", detector.dead_time);
        report.add(Finding::error(format!("{path}.deadTime"), message, "a multiple of 1 ps"), &[]);
    }
}

/// Times of less than an epoch would not be seen.
pub(super) fn cooling(cooling: &Cooling, epoch: &Epoch, path: &str, report: &mut Report<'_>) {
    let path = format!("{path}.cooling");
    for (field, time) in [("holdTime", cooling.hold_time), ("recyclingTime", cooling.recycling_time)] {
        if time < epoch.length {
            let (at, message) = (format!("{path}.{field}"), format!("{time} is shorter than an epoch"));
            report.add(Finding::error(at, message, format!("at least {}", epoch.length)), &[&epoch.path]);
        }
        bounded(&path, field, time, OUTAGE_MAX, report);
    }
    if let Some(first) = cooling.first {
        bounded(&path, "first", first, OUTAGE_MAX, report);
    }
}

pub(super) fn efficiency(efficiency: Fraction, path: &str, report: &mut Report<'_>) {
    if efficiency.value() <= 0.0 {
        let finding = Finding::error(format!("{path}.efficiency"), "a detector that sees nothing", "above 0 %");
        report.add(finding, &[]);
    }
}

pub(super) fn afterpulse(afterpulse: &Afterpulse, path: &str, report: &mut Report<'_>) {
    bounded(path, "afterpulse.decay", afterpulse.decay, "1 ms", report);
    if afterpulse.probability.value() > 0.5 {
        let message = "more than every second click makes another one";
        report.add(Finding::error(format!("{path}.afterpulse.probability"), message, "at most 50 %"), &[]);
    }
}

/// The time-to-digital converter and the delays before it.
pub(super) fn converter(tdc: &Tdc, skew: &[TimeOffset; 4], path: &str, report: &mut Report<'_>) {
    let in_units = |resolution_ps: i128| resolution_ps > 0 && resolution_ps % i128::from(TAG_UNIT_PS) == 0;
    if !tdc.resolution.whole().is_some_and(in_units) {
        let message = format!("{} is not a multiple of 4 ps", tdc.resolution);
        let expected = "a multiple of 4 ps, the unit of a time tag";
        report.add(Finding::error(format!("{path}.tdc.resolution"), message, expected), &[]);
    }
    bounded(path, "tdc.resolution", tdc.resolution, "1 us", report);
    const SKEW_PS_MAX: i64 = 1_000_000;
    for (index, skew) in skew.iter().enumerate() {
        if skew.exact().map(Decimal::abs) > Some(SKEW_PS_MAX.into()) {
            let message = format!("{skew} is too long");
            report.add(Finding::error(format!("{path}.skew[{index}]"), message, "at most 1 us, either way"), &[]);
        }
    }
}

/// Both bases are needed: one for the key, one for checks.
pub(super) fn z_probability(probability: Fraction, path: &str, report: &mut Report<'_>) {
    let z = probability.value();
    if z <= 0.0 || z >= 1.0 {
        let message = format!("basis Z with a probability of {probability}");
        let expected = "above 0 % and below 100 %: both bases are needed";
        report.add(Finding::error(path, message, expected), &[]);
    }
}
