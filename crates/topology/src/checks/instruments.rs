//! Instruments: values that cannot be, and arms that do not fit each other.

use super::{Finding, Report};
use crate::document::{Analyser, Arm, Clock, Detector, EnergyTimeAnalyser, FreeRunningClock, Link, Source};
use crate::quantity::{Decimal, Duration};

/// A time tag counts units of this.
const TAG_UNIT_PS: i64 = 4;
/// Pairs per second and channel pair beyond which an epoch does not fit into memory.
const PAIR_RATE_HZ_MAX: f64 = 1e12;
/// Photons per second at one end beyond which an epoch does not fit into memory.
const ARRIVAL_RATE_HZ_MAX: f64 = 1e9;

pub(super) fn check(link: &Link, path: &str, report: &mut Report<'_>) {
    source(link, path, report);
    for (index, end) in link.arms.iter().enumerate() {
        let at = format!("{path}.arms[{index}]");
        arm(end, &at, report);
        detector(&end.detector, &format!("{at}.detector"), report);
        analyser(link, end, path, &format!("{at}.analyser"), report);
        arrivals(link, end, path, &at, report);
    }
    if let [first, second] = link.arms.as_slice() {
        pair(link, [first, second], path, report);
    }
}

fn source(link: &Link, path: &str, report: &mut Report<'_>) {
    let Source::SpdcCw(source) = &link.source;
    let rate = source.pair_rate.value();
    if rate <= 0.0 || rate > PAIR_RATE_HZ_MAX {
        let expected = format!("above 0 and at most {PAIR_RATE_HZ_MAX:e} /s");
        let finding =
            Finding::error(format!("{path}.source.pairRate"), format!("a rate of {}", source.pair_rate), expected);
        report.add(finding, &[]);
    }
    for (field, value) in [("wavelength", source.wavelength), ("bandwidth", source.bandwidth)] {
        if value.value() <= 0.0 {
            report.add(
                Finding::error(format!("{path}.source.{field}"), format!("a {field} of {value}"), "above 0 nm"),
                &[],
            );
        }
    }
    if source.pump_initial > source.pump_max {
        let message = format!("{} is above the maximum of {}", source.pump_initial, source.pump_max);
        let finding = Finding::error(format!("{path}.source.pumpInitial"), message, "at most pumpMax");
        report.add(finding, &[&format!("{path}.source.pumpMax")]);
    }
}

fn arm(arm: &Arm, path: &str, report: &mut Report<'_>) {
    let fibre = &arm.fibre;
    for (field, period) in
        [("delayDrift.period", fibre.delay_drift.period), ("polarisation.driftPeriod", fibre.polarisation.drift_period)]
    {
        if period.rounded() == 0 {
            report
                .add(Finding::error(format!("{path}.fibre.{field}"), "a period of nothing", "a duration above 0"), &[]);
        }
    }
    /// Beyond this not one photon in a day arrives.
    const LOSS_DB_MAX: f64 = 200.0;
    if fibre.loss_db() > LOSS_DB_MAX {
        let message = format!("a loss of {:.0} dB on one arm", fibre.loss_db());
        report.add(Finding::error(format!("{path}.fibre"), message, format!("at most {LOSS_DB_MAX} dB")), &[]);
    }
    let Clock::Rubidium(clock) = &arm.clock;
    /// Larger offsets are a mistake: no search reaches them.
    const OFFSET_PS_MAX: i64 = 10_000_000_000_000;
    if clock.offset.exact().map(Decimal::abs) > Some(OFFSET_PS_MAX.into()) {
        let message = format!("a clock that is {} off", clock.offset);
        report.add(Finding::error(format!("{path}.clock.offset"), message, "at most 10 s, either way"), &[]);
    }
}

fn detector(detector: &Detector, path: &str, report: &mut Report<'_>) {
    let Detector::Snspd(detector) = detector;
    if detector.efficiency.value() <= 0.0 {
        let finding = Finding::error(format!("{path}.efficiency"), "a detector that sees nothing", "above 0 %");
        report.add(finding, &[]);
    }
    let in_units = |resolution_ps: i128| resolution_ps > 0 && resolution_ps % i128::from(TAG_UNIT_PS) == 0;
    if !detector.tdc.resolution.whole().is_some_and(in_units) {
        let message = format!("{} is not a multiple of 4 ps", detector.tdc.resolution);
        let expected = "a multiple of 4 ps, the unit of a time tag";
        report.add(Finding::error(format!("{path}.tdc.resolution"), message, expected), &[]);
    }
    let mut bounded = |field: &str, value: Duration, most: &'static str| {
        if value > Duration::preset(most) {
            report.add(
                Finding::error(format!("{path}.{field}"), format!("{value} is too long"), format!("at most {most}")),
                &[],
            );
        }
    };
    bounded("jitter", detector.jitter, "100 ns");
    bounded("deadTime", detector.dead_time, "1 ms");
    bounded("afterpulse.decay", detector.afterpulse.decay, "1 ms");
    bounded("latching.reset", detector.latching.reset, "10 s");
    bounded("tdc.resolution", detector.tdc.resolution, "1 us");
    const SKEW_PS_MAX: i64 = 1_000_000;
    for (index, skew) in detector.skew.iter().enumerate() {
        if skew.exact().map(Decimal::abs) > Some(SKEW_PS_MAX.into()) {
            let message = format!("{skew} is too long");
            report.add(Finding::error(format!("{path}.skew[{index}]"), message, "at most 1 us, either way"), &[]);
        }
    }
    if detector.afterpulse.probability.value() > 0.5 {
        let message = "more than every second click makes another one";
        report.add(Finding::error(format!("{path}.afterpulse.probability"), message, "at most 50 %"), &[]);
    }
    if detector.dead_time.whole().is_none() {
        let message = format!("{} is not a whole number of ps", detector.dead_time);
        report.add(Finding::error(format!("{path}.deadTime"), message, "a multiple of 1 ps"), &[]);
    }
}

fn interferometer(arm: &Arm) -> &EnergyTimeAnalyser {
    let Analyser::EnergyTime(analyser) = &arm.analyser;
    analyser
}

fn analyser(link: &Link, arm: &Arm, link_path: &str, path: &str, report: &mut Report<'_>) {
    const DELAY_PS_MAX: i128 = 1_000_000;
    let analyser = interferometer(arm);
    if !analyser.delay.whole().is_some_and(|delay_ps| (1..=DELAY_PS_MAX).contains(&delay_ps)) {
        let message = format!("a delay of {}", analyser.delay);
        report.add(Finding::error(format!("{path}.delay"), message, "a multiple of 1 ps between 1 ps and 1 us"), &[]);
    } else if link.window > analyser.delay {
        let message = format!("a window of {} is wider than the analyser's delay of {}", link.window, analyser.delay);
        let finding = Finding::error(format!("{link_path}.window"), message, format!("at most {}", analyser.delay))
            .hint(Some("the side peaks at plus and minus the delay must stay outside".into()));
        report.add(finding, &[&format!("{path}.delay")]);
    }
    if link.window.whole().is_none_or(|window_ps| window_ps < TAG_UNIT_PS.into()) {
        let message = format!("a window of {}", link.window);
        report.add(Finding::error(format!("{link_path}.window"), message, "a multiple of 1 ps, at least 4 ps"), &[]);
    }
    let z = analyser.z_probability.value();
    if z <= 0.0 || z >= 1.0 {
        let message = format!("basis Z with a probability of {}", analyser.z_probability);
        let expected = "above 0 % and below 100 %: both bases are needed";
        report.add(Finding::error(format!("{path}.zProbability"), message, expected), &[]);
    }
    if analyser.crosstalk.value() >= 0.5 {
        let message = format!("a crosstalk of {}", analyser.crosstalk);
        report.add(Finding::error(format!("{path}.crosstalk"), message, "below 50 %"), &[]);
    }
}

/// Photons at one end that no machine could hold.
fn arrivals(link: &Link, arm: &Arm, link_path: &str, path: &str, report: &mut Report<'_>) {
    let Source::SpdcCw(source) = &link.source;
    let Detector::Snspd(detector) = &arm.detector;
    let transmission = 10f64.powf(-arm.fibre.loss_db() / 10.0) * detector.efficiency.value();
    let rate_hz =
        source.pair_rate.value() * source.pump_max.max(1.0) * transmission + 4.0 * detector.dark_count_rate.value();
    if rate_hz > ARRIVAL_RATE_HZ_MAX && source.pair_rate.value() <= PAIR_RATE_HZ_MAX {
        let message = format!("{rate_hz:.1e} clicks per second at \"{}\" (at the highest pump power)", arm.site);
        let expected = format!("at most {ARRIVAL_RATE_HZ_MAX:e} /s");
        let pair_rate = format!("{link_path}.source.pairRate");
        report.add(Finding::error(path, message, expected), &[&pair_rate]);
    }
}

/// What the two arms must have in common.
fn pair(link: &Link, arms: [&Arm; 2], path: &str, report: &mut Report<'_>) {
    let [first, second] = arms.map(interferometer);
    if first.delay != second.delay {
        let message = format!("delays of {} and {}: the amplitudes cannot interfere", first.delay, second.delay);
        let finding =
            Finding::error(format!("{path}.arms[1].analyser.delay"), message, format!("{} in both", first.delay));
        report.add(finding, &[&format!("{path}.arms[0].analyser.delay")]);
    }
    let clocks: [&FreeRunningClock; 2] = arms.map(|arm| {
        let Clock::Rubidium(clock) = &arm.clock;
        clock
    });
    let arrival = |end: usize| clocks[end].offset.value() + arms[end].fibre.delay_ps();
    let apart_ps = (arrival(1) - arrival(0)).abs();
    if apart_ps > link.acquisition.search.value() {
        let message = format!("clocks and fibres put the two ends {:.3} ms apart", apart_ps / 1e9);
        let expected = format!("at most the {} that acquisition.search covers", link.acquisition.search);
        let finding = Finding::error(format!("{path}.arms[1].clock.offset"), message, expected);
        let [near, far] = [0, 1].map(|end| format!("{path}.arms[{end}]"));
        report.add(
            finding,
            &[
                &format!("{path}.acquisition.search"),
                &format!("{near}.clock"),
                &format!("{near}.fibre"),
                &format!("{far}.fibre"),
            ],
        );
    }
    let [one, other] = clocks.map(|clock| clock.frequency_error);
    let difference = one.exact().zip(other.exact()).and_then(|(one, other)| one.minus(other)).map(Decimal::abs);
    if difference > link.acquisition.frequency_search.exact().map(Decimal::abs) {
        let message = format!("the two clocks differ by {:.1} ns/s", (other.value() - one.value()).abs() * 1e9);
        let expected =
            format!("at most the {} that acquisition.frequencySearch covers", link.acquisition.frequency_search);
        let finding = Finding::error(format!("{path}.arms[1].clock.frequencyError"), message, expected);
        report.add(finding, &[&format!("{path}.acquisition.frequencySearch"), &format!("{path}.arms[0].clock")]);
    }
    let Source::SpdcCw(source) = &link.source;
    let residual: f64 = arms.iter().map(|arm| arm.fibre.residual_dispersion_ps_per_nm()).sum();
    let spread_ps = (residual * source.bandwidth.value()).abs();
    if spread_ps > first.delay.value() {
        let message =
            format!("dispersion spreads the coincidences over {spread_ps:.0} ps, more than the analysers' delay");
        let finding =
            Finding::warning(format!("{path}.arms[1].fibre.dispersion"), message, "a compensation of both arms");
        report.add(finding, &[&format!("{path}.arms[0].fibre"), &format!("{path}.source.bandwidth")]);
    }
}
