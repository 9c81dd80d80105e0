//! Sites: unique names, applications only where there is key, nothing that takes no part.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Report};
use crate::document::{Link, Name, Spec};
use crate::plan::{APPLICATION_NAMES, is_service_name};

pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    duplicates(spec, report);
    applications(spec, report);
}

fn duplicates(spec: &Spec, report: &mut Report<'_>) {
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    for (index, site) in spec.sites.iter().enumerate() {
        let path = format!("spec.sites[{index}].name");
        if report.places.is_replaced(&path) {
            continue;
        }
        if let Some(other) = first.get(site.name.as_str()) {
            let hint = format!("the first is in line {}", report.line(other));
            let message = format!("a second site with the name \"{}\"", site.name);
            report.add(Finding::error(path, message, "a name of its own for each site").hint(Some(hint)), &[]);
        } else {
            first.insert(site.name.as_str(), path);
        }
    }
}

fn applications(spec: &Spec, report: &mut Report<'_>) {
    // A misspelt site in a link leaves another one without; saying so twice helps nobody.
    let known: BTreeSet<&Name> = spec.sites.iter().map(|site| &site.name).collect();
    let ends: BTreeSet<&Name> = spec.links.iter().flat_map(Link::ends).collect();
    let sources: BTreeSet<&Name> = spec.links.iter().map(Link::source_site).collect();
    let all_known = ends.union(&sources).all(|site| known.contains(*site));
    // So does a link whose arms do not fit its source.
    let all_known = all_known && spec.links.iter().all(|link| link.pair().is_some());
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    for (index, site) in spec.sites.iter().enumerate() {
        let path = format!("spec.sites[{index}]");
        let ends_a_link = ends.contains(&site.name);
        let holds_a_source = sources.contains(&site.name);
        if all_known && !ends_a_link && !site.saes.is_empty() {
            let message = format!("the site \"{}\" ends no link, so its applications can get no key", site.name);
            let finding = Finding::error(format!("{path}.saes"), message, "applications only at sites that end a link");
            report.add(finding, &["spec.links"]);
        } else if all_known && !ends_a_link && !holds_a_source {
            let message = format!("the site \"{}\" takes part in no link", site.name);
            report.add(Finding::warning(format!("{path}.name"), message, "a link that ends there"), &["spec.links"]);
        }
        for (position, sae) in site.saes.iter().enumerate() {
            let path = format!("{path}.saes[{position}]");
            if is_service_name(sae.as_str()) {
                let message = format!("an application with the name \"{sae}\", which is a service's");
                report.add(Finding::error(path.clone(), message, APPLICATION_NAMES), &[]);
            }
            if let Some(other) = first.get(sae.as_str()) {
                let hint = format!("the first is in line {}", report.line(other));
                let message = format!("a second application with the name \"{sae}\"");
                let finding = Finding::error(path, message, "a name of its own for each application in the network");
                report.add(finding.hint(Some(hint)), &[]);
            } else {
                first.insert(sae.as_str(), path);
            }
        }
    }
}
