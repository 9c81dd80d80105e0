//! Links: names, the sites that they join, times that must be multiples of each other, protocol settings.

use std::collections::{BTreeMap, BTreeSet};

use distill::config::Emission;

use super::instruments::{OUTAGE_MAX, TAG_UNIT_PS, bounded, cooling};
use super::{Epoch, Finding, Report, budget, entangled, prepared, twin_field};
use crate::document::{
    Bound, Detector, Fidelity, Link, Measure, Name, Outage, Reference, Snspd, Source, Spec, Tolerance,
};
use crate::figure::Listing;
use crate::plan::{ServiceNames, links};
use crate::quantity::{Decimal, Duration, Fraction};
use crate::resolve::{LinkKind, resolve};
use crate::structure::STAND_IN;
use crate::suggest;

/// Kubernetes and certificates want names of at most this length.
pub(super) const SERVICE_NAME_LENGTH_MAX: usize = 63;
const PS_PER_MS: u64 = 1_000_000_000;

pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    run(spec, report);
    names(spec, report);
    let known: BTreeSet<&Name> = spec.sites.iter().map(|site| &site.name).collect();
    for (index, link) in spec.links.iter().enumerate() {
        let path = format!("spec.links[{index}]");
        sites(spec, &known, link, &path, report);
        let epoch = Epoch::of(spec, index);
        if link.epoch.is_some() {
            length(&epoch, report);
        }
        epochs(&epoch, &[("round", link.round)], &path, report);
        if let Some(checkpoint) = link.authentication.checkpoint {
            epochs(&epoch, &[("authentication.checkpoint", checkpoint)], &path, report);
            budget::interval(link.round, checkpoint, &path, report);
        }
        post_processing(link, &path, report);
        references(link, &path, report);
        outages(&epoch, link, &path, report);
        match resolve(link) {
            Ok(LinkKind::Entangled(kind)) => entangled::check(&epoch, &kind, &path, report),
            Ok(LinkKind::Prepared(kind)) => prepared::check(&epoch, &kind, &path, report),
            Ok(LinkKind::TwinField(kind)) => twin_field::check(&epoch, &kind, &path, report),
            Err(findings) => {
                let depends_on = [format!("{path}.protocol"), format!("{path}.source")];
                let depends_on = depends_on.each_ref().map(String::as_str);
                findings.into_iter().for_each(|finding| report.add(finding.below(&path), &depends_on));
            }
        }
    }
}

fn run(spec: &Spec, report: &mut Report<'_>) {
    let theirs = spec.links.iter().filter(|link| link.epoch.is_none());
    let all_counted = theirs.clone().count() > 0 && theirs.clone().all(|link| spec.fidelity(link) == Fidelity::Counts);
    let path = "spec.run.epoch".to_owned();
    length(&Epoch { length: spec.run.epoch, path, field: "run.epoch", clicks: !all_counted }, report);
    if spec.run.duration.is_some_and(|duration| duration.rounded() == 0) {
        report.add(Finding::error("spec.run.for", "a run that ends at once", "a duration above 0"), &[]);
    }
}

fn names(spec: &Spec, report: &mut Report<'_>) {
    let mut links: BTreeMap<&str, String> = BTreeMap::new();
    let mut services: BTreeMap<String, &Name> = BTreeMap::new();
    for (index, link) in spec.links.iter().enumerate() {
        let path = format!("spec.links[{index}].name");
        if report.places.is_replaced(&path) {
            continue;
        }
        if let Some(other) = links.get(link.name.as_str()) {
            let hint = format!("the first is in line {}", report.line(other));
            let message = format!("a second link with the name \"{}\"", link.name);
            report.add(Finding::error(path, message, "a name of its own for each link").hint(Some(hint)), &[]);
            continue;
        }
        links.insert(link.name.as_str(), path.clone());
        let Some([first, second]) = link.pair() else { continue };
        let arms_path = format!("spec.links[{index}].arms");
        if first == second {
            continue;
        }
        let names = ServiceNames::of(link, [first.as_str(), second.as_str()]);
        if let Some(longest) = names.all().max_by_key(|name| name.len())
            && longest.len() > SERVICE_NAME_LENGTH_MAX
        {
            let message = format!("the service name \"{longest}\" has {} characters", longest.len());
            let expected = format!("names of link and site that give at most {SERVICE_NAME_LENGTH_MAX}");
            report.add(Finding::error(path.clone(), message, expected), &[&arms_path]);
        }
        for service in names.all() {
            if let Some(other) = services.insert(service.clone(), &link.name) {
                let message = format!("the service name \"{service}\" also arises from the link \"{other}\"");
                report.add(Finding::error(path.clone(), message, "names that cannot be confused"), &[&arms_path]);
            }
        }
    }
}

fn sites(spec: &Spec, known: &BTreeSet<&Name>, link: &Link, path: &str, report: &mut Report<'_>) {
    let mut exists = |site: &Name, path: String| {
        let names = || spec.sites.iter().map(|site| site.name.as_str());
        if !known.contains(site) {
            let hint = suggest::nearest(site.as_str(), names()).map(|name| format!("did you mean \"{name}\"?"));
            let expected = format!("one of {}", names().take(12).collect::<Vec<_>>().join(", "));
            let message = format!("there is no site \"{site}\"");
            let nameless = names().any(|name| name == STAND_IN);
            report
                .add(Finding::error(path, message, expected).hint(hint), if nameless { &["spec.sites"] } else { &[] });
        }
    };
    exists(link.source_site(), format!("{path}.source.site"));
    for (index, arm) in link.arms.iter().enumerate() {
        exists(&arm.site, format!("{path}.arms[{index}].site"));
    }
    if let Source::TwinField(source) = &link.source {
        for (index, transmitter) in source.transmitters.iter().enumerate() {
            exists(&transmitter.site, format!("{path}.source.transmitters[{index}].site"));
        }
    }
    if let Some([first, second]) = link.pair()
        && first == second
    {
        let (message, own, other) = match &link.source {
            Source::TwinField(_) => {
                let message = format!("both transmitters are at \"{first}\"");
                (message, "source.transmitters[1].site", "source.transmitters[0].site")
            }
            source if source.is_transmitter() => {
                (format!("transmitter and receiver are both at \"{first}\""), "arms[0].site", "source.site")
            }
            _ => (format!("both arms end at \"{first}\""), "arms[1].site", "arms[0].site"),
        };
        let finding = Finding::error(format!("{path}.{own}"), message, "two different sites");
        report.add(finding, &[&format!("{path}.{other}")]);
    }
    for (index, disturbance) in link.disturbances.iter().enumerate() {
        let Some(site) = disturbance.site() else { continue };
        let ends: Vec<&str> = link.ends().map(Name::as_str).collect();
        if !ends.contains(&site.as_str()) {
            let hint =
                suggest::nearest(site.as_str(), ends.iter().copied()).map(|name| format!("did you mean \"{name}\"?"));
            let message = format!("the link does not end at \"{site}\"");
            let finding = Finding::error(format!("{path}.disturbances[{index}].site"), message, ends.join(" or "));
            report.add(finding.hint(hint), &[&format!("{path}.arms")]);
        }
    }
}

/// An epoch that everything after it can work with.
fn length(epoch: &Epoch, report: &mut Report<'_>) {
    let Epoch { length, path, clicks, .. } = epoch;
    let (most_ms, most) = if *clicks { (1000, "1 s") } else { (3_600_000, "1 h") };
    let good = |length_ps: u64| {
        (PS_PER_MS..=most_ms * PS_PER_MS).contains(&length_ps) && length_ps.is_multiple_of(TAG_UNIT_PS)
    };
    if !good(length.rounded()) || length.whole().is_none() {
        let expected = format!("between 1 ms and {most}, a multiple of 4 ps");
        let longer = *clicks && length.rounded() > PS_PER_MS;
        let hint = longer.then(|| "at the fidelity of counts the epoch of a link may be as long as a round".to_owned());
        report.add(Finding::error(path, format!("an epoch of {length}"), expected).hint(hint), &[]);
    }
}

/// Durations that must be whole numbers of epochs.
pub(super) fn epochs(epoch: &Epoch, durations: &[(&str, Duration)], path: &str, report: &mut Report<'_>) {
    let (epoch, of) = (epoch.length, &epoch.path);
    for (field, value) in durations {
        let fits = match (value.whole(), epoch.whole()) {
            (Some(value_ps), Some(epoch_ps)) => value_ps > 0 && epoch_ps > 0 && value_ps % epoch_ps == 0,
            _ => false,
        };
        if !fits {
            let message = format!("{value} is not a multiple of the epoch ({epoch})");
            let expected = format!("a whole number of epochs, at least {epoch}");
            report.add(Finding::error(format!("{path}.{field}"), message, expected), &[of]);
        }
    }
}

/// A round becomes one block, which must fit into memory.
pub(super) fn round(link: &Link, most: &'static str, path: &str, report: &mut Report<'_>) {
    if link.round > Duration::preset(most) {
        let message = format!("a round of {}", link.round);
        report.add(Finding::error(format!("{path}.round"), message, format!("at most {most}")), &[]);
    }
}

/// An error rate that a protocol is told: above nothing, and below what it can mean.
pub(super) fn error_rate(value: Fraction, most_percent: i64, path: String, report: &mut Report<'_>) {
    let most = Decimal::from(most_percent).scaled(1, -2);
    if value.exact() <= Some(Decimal::from(0)) || value.exact() >= most {
        let message = format!("an error rate of {value}");
        let expected = format!("above 0 % and below {most_percent} %");
        report.add(Finding::error(path, message, expected), &[]);
    }
}

fn post_processing(link: &Link, path: &str, report: &mut Report<'_>) {
    error_rate(link.security.tolerated_qber, 50, format!("{path}.security.toleratedQber"), report);
    error_rate(link.reconciliation.initial_qber, 50, format!("{path}.reconciliation.initialQber"), report);
    /// One hash key and a few tags.
    const RESERVE_BITS_MIN: u64 = 1024;
    if link.authentication.reserve.rounded() < RESERVE_BITS_MIN {
        let message = format!("a reserve of {}", link.authentication.reserve);
        let expected = format!("at least {RESERVE_BITS_MIN} bit");
        report.add(Finding::error(format!("{path}.authentication.reserve"), message, expected), &[]);
    }
}

/// A bound must be one for the light of the link.
pub(super) fn bound(link: &Link, emission: &Emission, path: &str, report: &mut Report<'_>) {
    const ALL: [Bound; 5] = [Bound::Asymptotic, Bound::Finite, Bound::Lim2014, Bound::Rusca2018, Bound::Wiesemann2024];
    let own = links::bound(link.security.bound);
    if own.fits(emission) {
        return;
    }
    let light = match emission {
        Emission::Pairs => "pairs",
        Emission::OneDecoy(_) => "pulses with one decoy",
        Emission::TwoDecoys(_) => "pulses with two decoys (decoy and vacuum)",
        Emission::SinglePhotons(_) => "single photons",
        Emission::TwinField(_) => "twin fields",
    };
    let fitting = ALL.into_iter().map(links::bound).filter(|bound| bound.fits(emission)).map(|bound| bound.name());
    let expected = format!("one of {}", fitting.collect::<Vec<_>>().join(", "));
    let message = format!("the bound {} does not hold for {light}", own.name());
    let finding = Finding::error(format!("{path}.security.bound"), message, expected)
        .hint(Some("`finite` is the recommended one of each kind of light".into()));
    report.add(finding, &[&format!("{path}.source"), &format!("{path}.protocol")]);
}

fn outages(epoch: &Epoch, link: &Link, path: &str, report: &mut Report<'_>) {
    for (index, arm) in link.arms.iter().enumerate() {
        if let Detector::Snspd(Snspd { cooling: Some(times), .. }) = &arm.detector {
            cooling(times, epoch, &format!("{path}.arms[{index}].detector"), report);
        }
    }
    for (index, outage) in link.outages.iter().enumerate() {
        let at = format!("{path}.outages[{index}]");
        bounded(&at, "at", outage.at, OUTAGE_MAX, report);
        bounded(&at, "lasts", outage.lasts, OUTAGE_MAX, report);
        if outage.lasts < epoch.length {
            let message = format!("an outage of {} is shorter than an epoch", outage.lasts);
            let finding = Finding::error(format!("{at}.lasts"), message, format!("at least {}", epoch.length));
            report.add(finding, &[&epoch.path]);
        }
        let end = |outage: &Outage| outage.at.rounded().saturating_add(outage.lasts.rounded());
        let overlaps = |other: &&Outage| other.at.rounded() <= end(outage) && outage.at.rounded() <= end(other);
        if let Some(other) = link.outages[..index].iter().position(|other| overlaps(&other)) {
            let other = format!("{path}.outages[{other}]");
            let message = format!("an outage at {} meets another one", outage.at);
            let hint = format!("the other one is in line {}: make one of the two", report.line(&other));
            let finding = Finding::error(format!("{at}.at"), message, "outages with light between them");
            report.add(finding.hint(Some(hint)), &[&format!("{at}.lasts"), &other]);
        }
    }
}

fn references(link: &Link, path: &str, report: &mut Report<'_>) {
    for (index, reference) in link.reference.iter().enumerate() {
        let at = format!("{path}.reference[{index}]");
        let quantity = format!("{at}.quantity");
        if !reference.quantity.fits(reference.value) {
            let message = format!("{} does not measure {}", reference.value, reference.quantity.name());
            let expected = match reference.quantity.is_counted() {
                true => "how often, such as \"9 times\"".to_owned(),
                false => format!("a value in {}", reference.quantity.unit()),
            };
            report.add(Finding::error(format!("{at}.value"), message, expected), &[&quantity]);
        }
        if !Listing::of(link.protocol).all().any(|figure| figure == reference.quantity.figure()) {
            let message = format!("a link under {} has no {}", link.protocol.name(), reference.quantity.name());
            let expected = "a figure that `qkdnet verify` can compare on such a link";
            report.add(Finding::error(quantity.clone(), message, expected), &[&format!("{path}.protocol")]);
        }
        let of_percentages = matches!(reference.quantity, Measure::QberZ | Measure::QberX | Measure::Availability);
        if matches!(reference.tolerance, Tolerance::Points(_)) && !of_percentages {
            let message = format!("percentage points of {}", reference.quantity.name());
            let expected = "a part of the value such as \"5 %\", or \"factor 1.3\"";
            report.add(Finding::error(format!("{at}.tolerance"), message, expected), &[&quantity]);
        }
        if let Some(duty) = reference.duty {
            let path = format!("{at}.duty");
            if reference.quantity != Measure::SecretKeyRate {
                let message = format!("a duty of {}", reference.quantity.name());
                let expected = "a duty with secretKeyRate alone";
                report.add(Finding::error(path, message, expected), &[&quantity]);
            } else if duty.value() <= 0.0 {
                report.add(Finding::error(path, "a system that never made key", "above 0 %"), &[]);
            }
        }
        let same =
            |other: &Reference| other.quantity == reference.quantity && other.is_fitted() == reference.is_fitted();
        if link.reference[..index].iter().any(same) {
            let message = format!("a second reference for {}", reference.quantity.name());
            let expected = "one reference for each quantity, and one that is fitted";
            report.add(Finding::error(quantity, message, expected), &[]);
        }
    }
}
