//! Links of entangled pairs: values that cannot be, and arms that do not fit each other.

use super::instruments::{TAG_UNIT_PS, clock, fibre, snspd, z_probability};
use super::links::{bound, epochs, error_rate, round};
use super::{Epoch, Finding, Report};
use crate::document::{Disturbance, FreeRunningClock, Link, SpdcCw};
use crate::quantity::Decimal;
use crate::resolve::{EntangledEnd, EntangledLink};

/// Pairs per second and channel pair beyond which an epoch does not fit into memory.
const PAIR_RATE_HZ_MAX: f64 = 1e12;
/// Photons per second at one end beyond which an epoch does not fit into memory.
const ARRIVAL_RATE_HZ_MAX: f64 = 1e9;

pub(super) fn check(epoch: &Epoch, kind: &EntangledLink<'_>, path: &str, report: &mut Report<'_>) {
    let link = kind.link;
    only_of_pulses(link, path, report);
    bound(link, &distill::config::Emission::Pairs, path, report);
    round(link, "1 h", path, report);
    source(kind.source, path, report);
    for (index, end) in kind.ends.iter().enumerate() {
        let at = format!("{path}.arms[{index}]");
        fibre(end.fibre, &format!("{at}.fibre"), report);
        clock(end.clock, &format!("{at}.clock"), report);
        snspd(end.detector, &format!("{at}.detector"), report);
        analyser(link, end, path, &format!("{at}.analyser"), report);
        arrivals(kind, end, path, &at, report);
    }
    pair(kind, path, report);
    if epoch.clicks {
        epochs(epoch, &[("tracking.interval", link.tracking.interval)], path, report);
    }
    acquisition(epoch, link, path, report);
    loops(link, path, report);
}

/// What belongs to prepared links.
fn only_of_pulses(link: &Link, path: &str, report: &mut Report<'_>) {
    if link.window.is_none() {
        let expected = "a duration such as \"120 ps\"; full width of the coincidence window";
        report.add(Finding::error(path, "the field \"window\" is missing", expected), &[]);
    }
    let given = [("gate", link.gate.is_some()), ("sync", link.sync.is_some()), ("keyBasis", link.key_basis.is_some())];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        let message = format!("`{field}` on a link of entangled pairs");
        let finding = Finding::error(format!("{path}.{field}"), message, "this field on prepared links alone");
        let hint = match field {
            "gate" => "coincidences are told by `window`",
            "sync" => "the clocks of entangled links are found by `acquisition`",
            _ => "the key of entangled links is made in basis Z",
        };
        report.add(finding.hint(Some(hint.into())), &[]);
    }
    for (index, disturbance) in link.disturbances.iter().enumerate() {
        if matches!(disturbance, Disturbance::Power(_)) {
            let path = format!("{path}.disturbances[{index}].type");
            let finding = Finding::error(path, "a link of entangled pairs has no transmitter", "pump");
            report.add(finding, &[]);
        }
    }
}

fn acquisition(epoch: &Epoch, link: &Link, path: &str, report: &mut Report<'_>) {
    let acquisition = &link.acquisition;
    if epoch.clicks && acquisition.window < epoch.length {
        let message = format!("{} is shorter than an epoch", acquisition.window);
        let expected = format!("at least {}", epoch.length);
        report.add(Finding::error(format!("{path}.acquisition.window"), message, expected), &[&epoch.path]);
    }
    if acquisition.search.rounded() == 0 {
        let finding =
            Finding::error(format!("{path}.acquisition.search"), "a search over nothing", "a duration above 0");
        report.add(finding, &[]);
    }
    if acquisition.frequency_search.value() < 0.0 {
        let message = format!("{} is negative", acquisition.frequency_search);
        let path = format!("{path}.acquisition.frequencySearch");
        report.add(Finding::error(path, message, "the largest difference, either way"), &[]);
    }
}

fn loops(link: &Link, path: &str, report: &mut Report<'_>) {
    let loops = &link.loops;
    if loops.pump.target_qber.is_some() && !loops.pump.enabled {
        let finding = Finding::error(
            format!("{path}.loops.pump.targetQber"),
            "a target for a loop that is off",
            "a target only with enabled: true",
        );
        report.add(finding.hint(Some("remove the target, or enable the loop".into())), &[]);
    }
    if loops.phase.dither.is_some() && !loops.phase.enabled {
        let path = format!("{path}.loops.phase.dither");
        report.add(Finding::error(path, "a dither for a loop that is off", "a dither only with enabled: true"), &[]);
    }
    if !(0.0..=0.5).contains(&loops.phase.dither_rad()) {
        let path = format!("{path}.loops.phase.dither");
        report.add(Finding::error(path, "a dither outside the range", "between 0 and 0.5 rad"), &[]);
    }
    if let Some(target) = loops.pump.target_qber {
        error_rate(target, 25, format!("{path}.loops.pump.targetQber"), report);
    }
}

fn source(source: &SpdcCw, path: &str, report: &mut Report<'_>) {
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

fn analyser(link: &Link, end: &EntangledEnd<'_>, link_path: &str, path: &str, report: &mut Report<'_>) {
    const DELAY_PS_MAX: i128 = 1_000_000;
    let analyser = end.analyser;
    if !analyser.delay.whole().is_some_and(|delay_ps| (1..=DELAY_PS_MAX).contains(&delay_ps)) {
        let message = format!("a delay of {}", analyser.delay);
        report.add(Finding::error(format!("{path}.delay"), message, "a multiple of 1 ps between 1 ps and 1 us"), &[]);
    } else if let Some(window) = link.window.filter(|window| *window > analyser.delay) {
        let message = format!("a window of {window} is wider than the analyser's delay of {}", analyser.delay);
        let finding = Finding::error(format!("{link_path}.window"), message, format!("at most {}", analyser.delay))
            .hint(Some("the side peaks at plus and minus the delay must stay outside".into()));
        report.add(finding, &[&format!("{path}.delay")]);
    }
    let is_sound = |window_ps: i128| window_ps >= TAG_UNIT_PS.into();
    if let Some(window) = link.window.filter(|window| !window.whole().is_some_and(is_sound)) {
        let message = format!("a window of {window}");
        report.add(Finding::error(format!("{link_path}.window"), message, "a multiple of 1 ps, at least 4 ps"), &[]);
    }
    z_probability(analyser.z_probability, &format!("{path}.zProbability"), report);
    if analyser.crosstalk.value() >= 0.5 {
        let message = format!("a crosstalk of {}", analyser.crosstalk);
        report.add(Finding::error(format!("{path}.crosstalk"), message, "below 50 %"), &[]);
    }
}

/// Photons at one end that no machine could hold.
fn arrivals(kind: &EntangledLink<'_>, end: &EntangledEnd<'_>, link_path: &str, path: &str, report: &mut Report<'_>) {
    let (source, detector) = (kind.source, end.detector);
    let transmission = 10f64.powf(-end.fibre.loss_db() / 10.0) * detector.efficiency.value();
    let rate_hz =
        source.pair_rate.value() * source.pump_max.max(1.0) * transmission + 4.0 * detector.dark_count_rate.value();
    if rate_hz > ARRIVAL_RATE_HZ_MAX && source.pair_rate.value() <= PAIR_RATE_HZ_MAX {
        let message = format!("{rate_hz:.1e} clicks per second at \"{}\" (at the highest pump power)", end.site());
        let expected = format!("at most {ARRIVAL_RATE_HZ_MAX:e} /s");
        let pair_rate = format!("{link_path}.source.pairRate");
        report.add(Finding::error(path, message, expected), &[&pair_rate]);
    }
}

/// What the two arms must have in common.
fn pair(kind: &EntangledLink<'_>, path: &str, report: &mut Report<'_>) {
    let EntangledLink { link, source, ends } = kind;
    let [first, second] = ends.map(|end| end.analyser);
    if first.delay != second.delay {
        let message = format!("delays of {} and {}: the amplitudes cannot interfere", first.delay, second.delay);
        let finding =
            Finding::error(format!("{path}.arms[1].analyser.delay"), message, format!("{} in both", first.delay));
        report.add(finding, &[&format!("{path}.arms[0].analyser.delay")]);
    }
    let clocks: [&FreeRunningClock; 2] = ends.map(|end| end.clock);
    let [one, other] = ends.map(|end| end.clock.offset.value() + end.fibre.delay_ps());
    let apart_ps = (other - one).abs();
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
    let residual: f64 = ends.iter().map(|end| end.fibre.residual_dispersion_ps_per_nm()).sum();
    let spread_ps = (residual * source.bandwidth.value()).abs();
    if spread_ps > first.delay.value() {
        let message =
            format!("dispersion spreads the coincidences over {spread_ps:.0} ps, more than the analysers' delay");
        let finding =
            Finding::warning(format!("{path}.arms[1].fibre.dispersion"), message, "a compensation of both arms");
        report.add(finding, &[&format!("{path}.arms[0].fibre"), &format!("{path}.source.bandwidth")]);
    }
}
