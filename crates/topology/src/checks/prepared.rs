//! Prepared links: values that cannot be, and a transmitter and a receiver that do not fit each other.

use distill::auth::MAX_PAYLOAD;
use distill::config::Emission;
use distill::sifting::prepared::announce::EVENTS_MAX;
use distill::sifting::prepared::config::{ConfigError, PREAMBLE_PULSES_MAX, Part};

use super::instruments::{self, afterpulse, bounded, converter, efficiency, z_probability};
use super::links::{bound, epochs, round};
use super::{Epoch, Finding, Report, space};
use crate::document::{
    Acquisition, BasisErrors, Clock, Disturbance, Encoding, GatedAvalanche, Intensities, QuantumDot, Snspd, Sync,
};
use crate::resolve::{PreparedLink, PreparedSource, PulseDetector, Way};

/// Clicks per second beyond which an epoch does not fit into memory, and clicks of a round.
const CLICK_RATE_HZ_MAX: f64 = 1e9;
const CLICKS_OF_ROUND_MAX: f64 = 2.5e8;
/// Bits of a seed of amplification, which goes in one message; the number of clicks scatters.
const SEED_BITS_MAX: f64 = 0.99 * (8 * MAX_PAYLOAD) as f64;
/// Events that are expected of an epoch: what sifting takes in a frame, less six standard deviations.
const EVENTS_OF_EPOCH_MAX: f64 = (EVENTS_MAX - 6 * EVENTS_MAX.isqrt()) as f64;

pub(super) fn check(epoch: &Epoch, kind: &PreparedLink<'_>, path: &str, report: &mut Report<'_>) {
    let link = kind.link;
    only_of_pairs(kind, path, report);
    match kind.transmitter {
        PreparedSource::Coherent(source) => {
            intensities(&source.intensities, &format!("{path}.source.intensities"), report)
        }
        PreparedSource::Dot(source) => dot(source, &format!("{path}.source"), report),
    }
    bounded(&format!("{path}.source"), "pulseWidth", kind.transmitter.pulse_width(), "1 ms", report);
    encoder(kind, path, report);
    let arm = format!("{path}.arms[0]");
    match kind.way {
        Way::Fibre(fibre) => instruments::fibre(fibre, &format!("{arm}.fibre"), report),
        Way::FreeSpace(way) => space::way(way, &format!("{arm}.freeSpace"), report),
    }
    instruments::clock(kind.clock, &format!("{arm}.clock"), report);
    match kind.detector {
        PulseDetector::FreeRunning(detector) => {
            instruments::snspd(detector, &format!("{arm}.detector"), report);
            latching(detector, &format!("{arm}.detector"), report);
        }
        PulseDetector::Gated(detector) => gated(kind, detector, path, report),
    }
    analyser(kind, path, report);
    // What arrives through free space depends on where the satellite is; counts say how much of it an epoch holds.
    if matches!(kind.way, Way::Fibre(_)) {
        arrivals(epoch, kind, path, report);
    }
    bound(link, &kind.emission(), path, report);
    round(link, "24 h", path, report);
    if epoch.clicks {
        epochs(epoch, &[("tracking.interval", link.tracking.interval)], path, report);
    }
    sync(epoch, kind, path, report);
    disturbances(kind, path, report);
}

/// What belongs to links of entangled pairs.
fn only_of_pairs(kind: &PreparedLink<'_>, path: &str, report: &mut Report<'_>) {
    let link = kind.link;
    if let Some(window) = link.window {
        let finding = Finding::error(format!("{path}.window"), "a coincidence window on a pulsed link", "no window")
            .hint(Some(format!("a click counts within `gate` around its pulse: write gate: {window}")));
        report.add(finding, &[]);
    }
    if link.acquisition != Acquisition::default() {
        let finding =
            Finding::error(format!("{path}.acquisition"), "a search for coincidences on a pulsed link", "`sync`")
                .hint(Some("say in `sync` how the receiver finds the pulses".into()));
        report.add(finding, &[]);
    }
    if link.loops.pump.target_qber.is_some() {
        let message = "a target for a pump loop, which a transmitter does not have";
        report.add(Finding::error(format!("{path}.loops.pump.targetQber"), message, "no target"), &[]);
    }
}

fn intensities(intensities: &Intensities, path: &str, report: &mut Report<'_>) {
    let all: Vec<_> = intensities.by_name().collect();
    for pair in all.windows(2) {
        let [(above, brighter), (below, weaker)] = [pair[0], pair[1]];
        if weaker.mean_photons >= brighter.mean_photons {
            let how = if weaker.mean_photons == brighter.mean_photons { "as bright as" } else { "brighter than" };
            let message = format!("{below} pulses of {} photons are {how} {above} pulses", weaker.mean_photons);
            let expected = format!("below the {} of `{above}`", brighter.mean_photons);
            let finding = Finding::error(format!("{path}.{below}.meanPhotons"), message, expected)
                .hint(Some("signal, decoy and vacuum are in falling order, or nothing tells them apart".into()));
            report.add(finding, &[&format!("{path}.{above}.meanPhotons")]);
        }
    }
    for (name, intensity) in &all {
        if intensity.probability.value() <= 0.0 {
            let message = format!("{name} pulses are never sent");
            report.add(Finding::error(format!("{path}.{name}.probability"), message, "above 0 %"), &[]);
        }
    }
    let sum: f64 = all.iter().map(|(_, intensity)| intensity.probability.value()).sum();
    if (sum - 1.0).abs() > 1e-9 {
        let percent = (sum * 1e11).round() / 1e9;
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let message = format!("the probabilities of {} sum to {percent} %", names.join(", "));
        let rest = 1.0 - all.iter().skip(1).map(|(_, intensity)| intensity.probability.value()).sum::<f64>();
        let hint = (rest > 0.0).then(|| format!("with a signal of {} % they would", (rest * 1e11).round() / 1e9));
        report.add(Finding::error(path, message, "100 % together").hint(hint), &[]);
    }
}

fn dot(source: &QuantumDot, path: &str, report: &mut Report<'_>) {
    if source.brightness <= 0.0 {
        let finding = Finding::error(format!("{path}.brightness"), "a dot that sends nothing", "above 0 and at most 1");
        report.add(finding, &[]);
    }
    if source.g2 >= 1.0 {
        let message = format!("a g2 of {}: this is no source of single photons", source.g2);
        let finding = Finding::error(format!("{path}.g2"), message, "from 0 to below 1")
            .hint(Some("laser light has a g2 of 1: make it `type: weak-coherent` under decoy-bb84".into()));
        report.add(finding, &[]);
    }
    bounded(path, "lifetime", source.lifetime, "1 ms", report);
    if source.temporal_filter.as_ref().is_some_and(|filter| filter.width.rounded() == 0) {
        let finding =
            Finding::error(format!("{path}.temporalFilter.width"), "a filter that is never open", "above 0 ps");
        report.add(finding, &[]);
    }
}

fn encoder(kind: &PreparedLink<'_>, link_path: &str, report: &mut Report<'_>) {
    let encoder = kind.transmitter.encoder();
    let path = &format!("{link_path}.source.encoder");
    z_probability(encoder.z_probability, &format!("{path}.zProbability"), report);
    errors(&encoder.error, &format!("{path}.error"), report);
    of_time_bins(encoder.encoding, encoder.bin_separation.is_some(), path, "binSeparation", report);
    if let Some(separation) = encoder.bin_separation.filter(|_| encoder.encoding == Encoding::TimeBin) {
        let period_ps = kind.period_ps();
        if separation.whole().is_none_or(|separation_ps| separation_ps <= 0) || separation.value() >= period_ps {
            let message = format!("bins that are {separation} apart, with {} between pulses", in_ps(period_ps));
            let expected = "a multiple of 1 ps, above 0 and below the period of the pulses";
            let finding = Finding::error(format!("{path}.binSeparation"), message, expected);
            report.add(finding, &[&format!("{link_path}.source.repetitionRate")]);
        }
    }
}

fn errors(error: &BasisErrors, path: &str, report: &mut Report<'_>) {
    for (basis, value) in [("z", error.z), ("x", error.x)] {
        if value.value() >= 0.5 {
            let message = format!("an error probability of {value}");
            report.add(Finding::error(format!("{path}.{basis}"), message, "below 50 %"), &[]);
        }
    }
}

/// A field that time-bin encoding needs and others do not have.
fn of_time_bins(encoding: Encoding, given: bool, path: &str, field: &str, report: &mut Report<'_>) {
    match (encoding == Encoding::TimeBin, given) {
        (true, false) => {
            let message = format!("the field \"{field}\" is missing, which time-bin encoding needs");
            report.add(Finding::error(path, message, "a duration such as \"3 ns\""), &[&format!("{path}.encoding")]);
        }
        (false, true) => {
            let message = format!("`{field}` with {} encoding", encoding.name());
            let finding = Finding::error(format!("{path}.{field}"), message, "this field with time-bin encoding alone");
            report.add(finding, &[&format!("{path}.encoding")]);
        }
        _ => {}
    }
}

/// The receiver's analyser, and that it measures what the transmitter prepares.
fn analyser(kind: &PreparedLink<'_>, link_path: &str, report: &mut Report<'_>) {
    let (analyser, encoder) = (kind.analyser, kind.transmitter.encoder());
    let path = format!("{link_path}.arms[0].analyser");
    z_probability(analyser.z_probability, &format!("{path}.zProbability"), report);
    errors(&analyser.error, &format!("{path}.error"), report);
    let sent = format!("{link_path}.source.encoder");
    if analyser.encoding != encoder.encoding {
        let message = format!("an analyser of {} encoding", analyser.encoding.name());
        let expected = format!("{}, which is what the transmitter prepares", encoder.encoding.name());
        report.add(Finding::error(format!("{path}.encoding"), message, expected), &[&format!("{sent}.encoding")]);
        return;
    }
    of_time_bins(analyser.encoding, analyser.delay.is_some(), &path, "delay", report);
    if let (Some(delay), Some(separation)) = (analyser.delay, encoder.bin_separation)
        && delay != separation
    {
        let message = format!("a delay of {delay} where bins are {separation} apart: early and late cannot interfere");
        let finding = Finding::error(format!("{path}.delay"), message, format!("{separation} in both"));
        report.add(finding, &[&format!("{sent}.binSeparation")]);
    }
}

fn gated(kind: &PreparedLink<'_>, detector: &GatedAvalanche, link_path: &str, report: &mut Report<'_>) {
    let path = &format!("{link_path}.arms[0].detector");
    efficiency(detector.efficiency, path, report);
    bounded(path, "jitter", detector.jitter, "100 ns", report);
    bounded(path, "holdOff", detector.hold_off, "1 ms", report);
    afterpulse(&detector.afterpulse, path, report);
    converter(&detector.tdc, &detector.skew, path, report);
    let (width_ps, period_ps) = (detector.gate_width.value(), kind.period_ps());
    let rate = kind.transmitter.repetition_rate();
    if width_ps <= 0.0 || width_ps > period_ps {
        let message = format!("a gate of {} where a pulse comes every {}", detector.gate_width, in_ps(period_ps));
        let finding = Finding::error(
            format!("{path}.gateWidth"),
            message,
            format!("above 0 ps and at most {}", in_ps(period_ps)),
        )
        .hint(Some(format!("the period is that of the transmitter's {rate}")));
        report.add(finding, &[&format!("{link_path}.source.repetitionRate")]);
    }
    if detector.dark_probability.value() >= 0.5 {
        let message = format!("dark counts in {} of all gates", detector.dark_probability);
        let finding = Finding::error(format!("{path}.darkProbability"), message, "below 50 %");
        report.add(finding.hint(Some("it is the probability of one gate, not a rate".into())), &[]);
    }
    if detector.saturation.is_some_and(|rate| rate.value() <= 0.0) {
        let message = "a detector that never clicks";
        report.add(Finding::error(format!("{path}.saturation"), message, "above 0 /s, or no such field"), &[]);
    }
}

/// Clicks that no machine could hold, and events that no announcement could.
fn arrivals(epoch: &Epoch, kind: &PreparedLink<'_>, path: &str, report: &mut Report<'_>) {
    let pulses_hz = kind.transmitter.repetition_rate().value();
    let light_hz = pulses_hz * mean_photons(kind) * largest_power(kind) * survival(kind);
    let rate_hz = (light_hz + dark_hz(kind)) * (1.0 + afterpulses(kind));
    let rests_on = [&*format!("{path}.source"), &*format!("{path}.arms"), &*format!("{path}.disturbances")];
    if rate_hz > CLICK_RATE_HZ_MAX {
        let message = format!("{rate_hz:.1e} clicks per second at \"{}\"", kind.arm.site);
        let expected = format!("at most {CLICK_RATE_HZ_MAX:e} /s");
        report.add(Finding::error(format!("{path}.arms[0]"), message, expected), &rests_on);
        return;
    }
    let clicks = rate_hz * kind.link.round.value() * 1e-12;
    if clicks > CLICKS_OF_ROUND_MAX {
        let message = format!("a round of {} has {clicks:.1e} clicks, more than a block can have", kind.link.round);
        let expected =
            format!("at most {:.0} s at {rate_hz:.1e} clicks per second", (CLICKS_OF_ROUND_MAX / rate_hz).floor());
        report.add(Finding::error(format!("{path}.round"), message, expected), &rests_on);
    }
    let bits_hz = rate_hz * kind.key_basis_probability().iter().product::<f64>();
    let bits = bits_hz * kind.link.round.value() * 1e-12;
    // The seed is as long as these bits and the key that comes of them: up to all, with decoys hardly half.
    let bits_max = SEED_BITS_MAX / if matches!(kind.emission(), Emission::SinglePhotons(_)) { 2.0 } else { 1.5 };
    if bits > bits_max && clicks <= CLICKS_OF_ROUND_MAX {
        let message = format!("a round of {} has {bits:.1e} bits of the key basis", kind.link.round);
        let longest_s = (10.0 * bits_max / bits_hz).floor() / 10.0;
        let expected = format!("at most {bits_max:.1e}, which are {longest_s} s");
        let finding = Finding::error(format!("{path}.round"), message, expected)
            .hint(Some("the seed of privacy amplification is longer, and more does not fit into a message".into()));
        report.add(finding, &rests_on);
    }
    // Several clicks of one pulse are one event.
    let events_hz = -pulses_hz * (-rate_hz / pulses_hz).exp_m1();
    let events = events_hz * epoch.length.value() * 1e-12;
    if epoch.clicks && events > EVENTS_OF_EPOCH_MAX {
        let message =
            format!("an epoch of {} has {events:.2e} detected pulses, more than a message can announce", epoch.length);
        let expected = format!("at most {EVENTS_OF_EPOCH_MAX:.0}");
        let longest_ms = EVENTS_OF_EPOCH_MAX / events_hz * 1e3;
        let hint = (longest_ms >= 1.0).then(|| format!("with an epoch of {} ms there are fewer", longest_ms.floor()));
        let rests_on = [rests_on[0], rests_on[1], rests_on[2], &*epoch.path];
        report.add(Finding::error(format!("{path}.arms[0]"), message, expected).hint(hint), &rests_on);
    }
}

/// Of a pulse of any intensity, as the transmitter sends it.
fn mean_photons(kind: &PreparedLink<'_>) -> f64 {
    match kind.emission() {
        Emission::SinglePhotons(source) => source.mean_photons,
        light => light.intensities().iter().map(|of| of.probability * of.mean_photons).sum(),
    }
}

/// Steps of the power multiply.
fn largest_power(kind: &PreparedLink<'_>) -> f64 {
    let steps = kind.link.disturbances.iter().filter_map(|disturbance| match disturbance {
        Disturbance::Power(step) => Some((step.at, step.factor)),
        _ => None,
    });
    let mut steps: Vec<_> = steps.collect();
    steps.sort_by_key(|(at, _)| at.rounded());
    let levels = steps.iter().scan(1.0, |level, (_, factor)| {
        *level *= factor;
        Some(*level)
    });
    levels.fold(1.0, f64::max)
}

/// Probability that a photon which is sent makes a click.
fn survival(kind: &PreparedLink<'_>) -> f64 {
    10f64.powf(-kind.way_loss_db() / 10.0) * kind.detector.efficiency()
}

/// Dark counts of all detectors together.
fn dark_hz(kind: &PreparedLink<'_>) -> f64 {
    let each_hz = match kind.detector {
        PulseDetector::FreeRunning(detector) => detector.dark_count_rate.value(),
        PulseDetector::Gated(detector) => {
            kind.transmitter.repetition_rate().value() * detector.dark_probability.value()
        }
    };
    kind.detectors() * each_hz
}

/// Per click.
fn afterpulses(kind: &PreparedLink<'_>) -> f64 {
    match kind.detector {
        PulseDetector::FreeRunning(detector) => detector.afterpulse.probability.value(),
        PulseDetector::Gated(detector) => detector.afterpulse.probability.value(),
    }
}

/// Sifting knows the dead time of a detector, but not that one may stay blind: a basis would be silent for that long.
fn latching(detector: &Snspd, path: &str, report: &mut Report<'_>) {
    let probability = detector.latching.probability;
    if probability.value() > 0.0 {
        let message = format!("detectors that latch ({probability} of all clicks) on a prepared link");
        let finding = Finding::error(format!("{path}.latching.probability"), message, "0 %, or no such field")
            .hint(Some("while one is latched its basis would be silent, which sifting cannot know".into()));
        report.add(finding, &[]);
    }
}

/// How the receiver finds the pulses, and whether that can work.
fn sync(epoch: &Epoch, kind: &PreparedLink<'_>, path: &str, report: &mut Report<'_>) {
    match &kind.link.sync {
        None => {
            let finding = Finding::error(path, "the field \"sync\" is missing", "how the receiver finds the pulses")
                .hint(Some("sync: {type: photons, preamble: 20 ms}, or sync: {type: distributed}".into()));
            return report.add(finding, &[]);
        }
        Some(Sync::Photons(sync)) => {
            if let Some(reach) = sync.reach.filter(|reach| epoch.clicks && *reach < epoch.length) {
                let message = format!("a reach of {reach} is shorter than an epoch");
                let expected = format!("at least {}", epoch.length);
                let finding = Finding::error(format!("{path}.sync.reach"), message, expected)
                    .hint(Some("the receiver's first frame begins up to one epoch after the first pulse".into()));
                return report.add(finding, &[&epoch.path]);
            }
        }
        Some(Sync::Distributed(_)) => distributed(epoch, kind, path, report),
    }
    if kind.link.gate.is_none() && matches!(kind.detector, PulseDetector::FreeRunning(_)) {
        let message = "the field \"gate\" is missing, which free-running detectors need";
        let expected = "a duration such as \"1 ns\"; full width around a pulse within which a click counts";
        return report.add(Finding::error(path, message, expected), &[&format!("{path}.arms[0].detector")]);
    }
    let epoch_ps = epoch.length.rounded();
    let (sifting, emission) = (kind.sifting(Part::Receiver, epoch_ps), kind.emission());
    // At counts nothing is searched for.
    let checked = if epoch.clicks { sifting.check(epoch_ps, &emission) } else { sifting.check_values(&emission) };
    if let Err(error) = checked {
        not_runnable(epoch, kind, error, path, report);
    }
}

fn distributed(epoch: &Epoch, kind: &PreparedLink<'_>, path: &str, report: &mut Report<'_>) {
    if kind.arm.clock != Clock::default() {
        let finding = Finding::error(
            format!("{path}.arms[0].clock"),
            "a clock of the receiver's own beside the transmitter's, which is distributed",
            "no clock, or `sync: {type: photons, ...}`",
        );
        report.add(finding, &[&format!("{path}.sync")]);
    }
    let pulses = kind.transmitter.repetition_rate().exact().zip(epoch.length.whole());
    let pulses = pulses.and_then(|(rate, epoch_ps)| rate.scaled(epoch_ps, -12));
    if epoch.clicks && pulses.is_none_or(|pulses| pulses.whole().is_none()) {
        let message = format!(
            "an epoch of {} holds no whole number of pulses at {}, by which a distributed clock counts them",
            epoch.length,
            kind.transmitter.repetition_rate()
        );
        let finding = Finding::error(format!("{path}.source.repetitionRate"), message, "a whole number in each epoch");
        report.add(finding, &[&epoch.path]);
    }
}

/// What sifting cannot work with, at the value that is to be changed.
fn not_runnable(at: &Epoch, kind: &PreparedLink<'_>, error: ConfigError, path: &str, report: &mut Report<'_>) {
    let rate = kind.transmitter.repetition_rate();
    let rate_path = format!("{path}.source.repetitionRate");
    let depends_on = [&*rate_path, &*at.path];
    let (epoch, field) = (at.length, at.field);
    let (at, message, expected, hint) = match error {
        ConfigError::Period { .. } => {
            (rate_path.clone(), format!("a repetition rate of {rate}"), "between 1 kHz and 100 GHz".to_owned(), None)
        }
        // Said where the values are.
        ConfigError::Order | ConfigError::Separation { .. } | ConfigError::Pairs | ConfigError::Tracking => return,
        ConfigError::Gate { gate_ps, limit_ps } => {
            let own = if kind.link.gate.is_some() { "gate" } else { "arms[0].detector.gateWidth" };
            let message = format!("a gate of {} where light may come every {}", in_ps(gate_ps), in_ps(limit_ps));
            let hint = "a wider one would count a click for the wrong pulse or bin";
            (
                format!("{path}.{own}"),
                message,
                format!("above 0 ps and at most {}", in_ps(limit_ps)),
                Some(hint.to_owned()),
            )
        }
        ConfigError::DeadTime { dead_time_ps } => {
            let own = if matches!(kind.detector, PulseDetector::Gated(_)) { "holdOff" } else { "deadTime" };
            let message = format!("a detector that is dead for {} after a click", in_ps(dead_time_ps));
            (format!("{path}.arms[0].detector.{own}"), message, "at most 1 s".to_owned(), None)
        }
        ConfigError::Dither { dither_rad } => {
            let message = format!("a dither of {dither_rad} rad");
            let hint = "the loop finds the fewest errors by it";
            let expected = "0.001 rad to 0.5 rad where a loop of phase or polarisation is on".to_owned();
            (format!("{path}.loops.phase.dither"), message, expected, Some(hint.to_owned()))
        }
        ConfigError::PreambleLong { pulses } => {
            let message = format!("a preamble of {pulses} pulses");
            let longest_ps = PREAMBLE_PULSES_MAX as f64 * kind.period_ps();
            (
                format!("{path}.sync.preamble"),
                message,
                format!("at most {PREAMBLE_PULSES_MAX} pulses ({})", in_ps(longest_ps)),
                None,
            )
        }
        ConfigError::PreambleShort { pulses, needed } => {
            let message =
                format!("a preamble of {pulses} pulses is shorter than the reach of the search, {needed} pulses");
            let hint = "the receiver may miss the whole preamble before its first frame begins";
            let expected = format!("at least {}", in_ps(kind.reach_ps(epoch.rounded()) as f64));
            (format!("{path}.sync.preamble"), message, expected, Some(hint.to_owned()))
        }
        ConfigError::Search { reach_ps, .. } => {
            let message =
                format!("a search over {} at {rate}, or a frequency search that is too wide", in_ps(reach_ps as f64));
            let expected = "a reach of at most 2^24 pulses, and at most 100 us/s".to_owned();
            let hint = format!("the reach is at least an epoch ({epoch}): shorten `{field}`, or distribute the clock");
            (format!("{path}.sync"), message, expected, Some(hint))
        }
        ConfigError::Frame { .. } => {
            let message = format!("an epoch of {epoch} at {rate}");
            (at.path.clone(), message, "between 1 and 2^26 pulses in an epoch".to_owned(), None)
        }
        ConfigError::Backlog { frames } => {
            let message = format!("{frames} frames would wait until the preamble is over");
            let hint = format!("shorten preamble or reach, or lengthen `{field}`");
            (format!("{path}.sync.preamble"), message, "fewer frames".to_owned(), Some(hint))
        }
    };
    report.add(Finding::error(at, message, expected).hint(hint), &depends_on);
}

fn disturbances(kind: &PreparedLink<'_>, path: &str, report: &mut Report<'_>) {
    let encoding = kind.transmitter.encoder().encoding;
    for (index, disturbance) in kind.link.disturbances.iter().enumerate() {
        let path = format!("{path}.disturbances[{index}]");
        let finding = match disturbance {
            Disturbance::Pump(_) => Finding::error(format!("{path}.type"), "a transmitter has no pump", "power"),
            Disturbance::Polarisation(step) if step.site == *kind.transmitter.site() => {
                let message = "a step of polarisation at the transmitter, where no arm ends";
                Finding::error(format!("{path}.site"), message, format!("{}", kind.arm.site))
            }
            Disturbance::Phase(_) if encoding == Encoding::Polarisation => {
                let message = "a step of phase on a link of polarisation encoding, which has no interferometer";
                Finding::error(format!("{path}.type"), message, "polarisation or power")
            }
            Disturbance::Phase(_) | Disturbance::Polarisation(_) | Disturbance::Power(_) => continue,
        };
        report.add(finding, &[]);
    }
}

/// A time in the unit that people would choose.
fn in_ps(time_ps: f64) -> String {
    let (unit, scale) = match time_ps {
        time if time >= 1e12 => ("s", 1e12),
        time if time >= 1e9 => ("ms", 1e9),
        time if time >= 1e6 => ("us", 1e6),
        time if time >= 1e3 => ("ns", 1e3),
        _ => ("ps", 1.0),
    };
    format!("{} {unit}", (time_ps / scale * 1e3).round() / 1e3)
}
