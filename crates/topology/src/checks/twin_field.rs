//! Twin-field links: values that cannot be, and transmitters that do not fit each other.

use distill::bounds::imbalance;

use super::instruments;
use super::links::{bound, round};
use super::{Epoch, Finding, Report};
use crate::document::{Acquisition, TwinFieldTransmitter};
use crate::quantity::Fraction;
use crate::resolve::TwinFieldLink;

/// How far what must be equal may be apart, as figures in a document are rounded.
const BALANCE_TOLERANCE: f64 = 1e-3;

pub(super) fn check(_: &Epoch, kind: &TwinFieldLink<'_>, path: &str, report: &mut Report<'_>) {
    let source = format!("{path}.source");
    not_of_others(kind, path, report);
    instruments::snspd(kind.detector, &format!("{source}.detector"), report);
    interference(kind, &source, report);
    for (index, transmitter) in kind.transmitters.iter().enumerate() {
        let path = format!("{source}.transmitters[{index}]");
        instruments::fibre(&transmitter.fibre, &format!("{path}.fibre"), report);
        windows(transmitter, &path, report);
    }
    if kind.source.repetition_rate.value() <= 0.0 {
        let path = format!("{source}.repetitionRate");
        report.add(Finding::error(path, "transmitters that send nothing", "above 0 /s"), &[]);
    } else if kind.dark_probability() >= 0.5 {
        let message =
            format!("{} of dark counts in windows of {:.3e} s", kind.detector.dark_count_rate, kind.window_s());
        let path = format!("{source}.detector.darkCountRate");
        report
            .add(Finding::error(path, message, "less than one in two windows"), &[&format!("{source}.repetitionRate")]);
    }
    balance(kind, &source, report);
    bound(kind.link, &kind.emission(), path, report);
    round(kind.link, "600 h", path, report);
}

/// What belongs to other kinds of links.
fn not_of_others(kind: &TwinFieldLink<'_>, path: &str, report: &mut Report<'_>) {
    let link = kind.link;
    let mut refuse = |field: &str, found: &str, hint: &str| {
        let finding = Finding::error(format!("{path}.{field}"), format!("{found} on a twin-field link"), "none");
        report.add(finding.hint(Some(hint.to_owned())), &[&format!("{path}.protocol")]);
    };
    if link.window.is_some() {
        refuse("window", "a coincidence window", "a click counts within `gate` around its pulse");
    }
    if link.sync.is_some() {
        refuse("sync", "a receiver that looks for pulses", "transmitters and station share their clocks");
    }
    if link.key_basis.is_some() {
        refuse("keyBasis", "a basis of the key", "the key is of windows in which one end sent");
    }
    if link.acquisition != Acquisition::default() {
        refuse("acquisition", "a search for coincidences", "transmitters and station share their clocks");
    }
    if link.loops.pump.target_qber.is_some() {
        refuse("loops.pump.targetQber", "a target for a pump loop", "transmitters have no pump");
    }
    if !link.disturbances.is_empty() {
        refuse("disturbances", "a step of an instrument", "say in `source.interference` what compensation leaves");
    }
}

fn interference(kind: &TwinFieldLink<'_>, source: &str, report: &mut Report<'_>) {
    let interference = &kind.source.interference;
    if interference.error.value() >= 0.5 {
        let message = format!("light that goes wrong with a probability of {}", interference.error);
        let path = format!("{source}.interference.error");
        report.add(Finding::error(path, message, "below 50 %, where phases say nothing"), &[]);
    }
    let slice = interference.slice;
    if slice.value() <= 0.0 || slice.value() > core::f64::consts::PI {
        let message = format!("a phase slice of {slice}");
        let path = format!("{source}.interference.slice");
        report.add(Finding::error(path, message, "above 0 and at most 3.14159 rad, where slices meet"), &[]);
    }
    let residual = interference.residual_phase;
    if residual.value() < 0.0 || residual.value() > core::f64::consts::PI {
        let message = format!("a residual phase of {residual}");
        let path = format!("{source}.interference.residualPhase");
        report.add(Finding::error(path, message, "from 0 to 3.14159 rad"), &[]);
    }
}

fn windows(transmitter: &TwinFieldTransmitter, path: &str, report: &mut Report<'_>) {
    let chance = |value: Fraction| value.value() > 0.0 && value.value() < 1.0;
    let TwinFieldTransmitter { key_windows, sending, signal, weak_decoy: weak, strong_decoy: strong, .. } = transmitter;
    for (field, value, what) in [
        ("keyWindows", *key_windows, "windows for key"),
        ("sending", *sending, "a signal pulse in windows for key"),
        ("weakDecoy.probability", weak.probability, "weak decoys"),
        ("strongDecoy.probability", strong.probability, "strong decoys"),
    ] {
        if !chance(value) {
            let message = format!("{what} with a probability of {value}");
            report.add(Finding::error(format!("{path}.{field}"), message, "above 0 % and below 100 %"), &[]);
        }
    }
    for (field, mean) in [("signal", *signal), ("weakDecoy.meanPhotons", weak.mean_photons)] {
        if mean <= 0.0 {
            report.add(Finding::error(format!("{path}.{field}"), "pulses without light", "above 0"), &[]);
        }
    }
    if weak.mean_photons >= strong.mean_photons {
        let message =
            format!("a weak decoy of {} photons, and a strong one of {}", weak.mean_photons, strong.mean_photons);
        let expected = format!("below the {} of `strongDecoy`", strong.mean_photons);
        let depends_on = format!("{path}.strongDecoy.meanPhotons");
        report.add(Finding::error(format!("{path}.weakDecoy.meanPhotons"), message, expected), &[&depends_on]);
    }
    if transmitter.dark_windows() <= 0.0 {
        let sum = (1.0 - transmitter.dark_windows()) * 100.0;
        let message = format!("windows for key and decoys are {sum:.4} % of all");
        let finding = Finding::error(format!("{path}.keyWindows"), message, "less than 100 % together")
            .hint(Some("what is left is dark, and shows how often the station clicks without light".into()));
        report.add(finding, &[&format!("{path}.weakDecoy"), &format!("{path}.strongDecoy")]);
    }
}

/// Lone photons must be as likely of either end, in windows for key and in decoys: the proof takes it for granted.
fn balance(kind: &TwinFieldLink<'_>, source: &str, report: &mut Report<'_>) {
    let [off, _] = imbalance(&kind.users());
    if !off.is_finite() || (off - 1.0).abs() <= BALANCE_TOLERANCE {
        return;
    }
    let [first, second] = kind.transmitters;
    let expected = first.weak_decoy.mean_photons / off;
    let message =
        format!("weak decoys of {} and {} photons", first.weak_decoy.mean_photons, second.weak_decoy.mean_photons);
    let hint = "weak decoys are in the ratio of the lone photons in windows for key: \
                sending (1 - sending of the other) signal exp(-signal), Hu et al., PRA 100, 062337 (2019)";
    let path = format!("{source}.transmitters[0].weakDecoy.meanPhotons");
    let finding = Finding::error(path, message, format!("{expected:.6} where the rest stays")).hint(Some(hint.into()));
    let others = [0, 1].map(|index| format!("{source}.transmitters[{index}]"));
    let depends_on: Vec<String> = others
        .iter()
        .flat_map(|at| ["signal", "sending", "weakDecoy.meanPhotons"].map(|field| format!("{at}.{field}")))
        .collect();
    report.add(finding, &depends_on.iter().map(String::as_str).collect::<Vec<_>>());
}
