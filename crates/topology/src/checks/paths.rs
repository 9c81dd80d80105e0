//! Pairs of sites whose applications can never share key: no links join them, or relaying is off.
//!
//! The work grows with sites and links, not with pairs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Report};
use crate::document::Spec;

/// Names that a message lists before it only counts.
const LISTED_MAX: usize = 3;

pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    for finding in findings(spec) {
        report.add(finding, &["spec.links", "spec.sites"]);
    }
}

/// The same in words, for the person who runs the network.
pub(crate) fn messages(spec: &Spec) -> Vec<String> {
    findings(spec).into_iter().map(|finding| finding.message).collect()
}

fn findings(spec: &Spec) -> Vec<Finding> {
    let mut findings = Vec::new();
    let index: BTreeMap<&str, usize> =
        spec.sites.iter().enumerate().map(|(index, site)| (site.name.as_str(), index)).collect();
    let mut links = Vec::with_capacity(spec.links.len());
    for link in &spec.links {
        let Some(ends) = link.pair() else { return findings };
        // A site that does not exist is an error of its own.
        let (Some(a), Some(b)) = (index.get(ends[0].as_str()), index.get(ends[1].as_str())) else {
            return findings;
        };
        links.push([*a, *b]);
    }
    let ends: BTreeSet<usize> = links.iter().flatten().copied().collect();
    // Applications at a site without a link are an error of their own, too.
    let served: Vec<usize> =
        ends.into_iter().filter(|site| spec.sites.get(*site).is_some_and(|site| !site.saes.is_empty())).collect();
    let parts = parts(spec.sites.len(), &links, &served);
    if parts.len() > 1 {
        findings.push(in_parts(spec, &parts));
    }
    if !spec.key_management.relay.enabled {
        let strangers = parts.iter().find_map(|part| strangers(part, &links));
        if let Some([a, b]) = strangers.map(|pair| pair.map(|site| &spec.sites[site].name)) {
            let message = format!("without relaying, applications at \"{a}\" and \"{b}\" can share no key");
            let finding =
                Finding::warning("spec.keyManagement.relay.enabled", message, "relaying, or a link of the two");
            findings.push(finding);
        }
    }
    findings
}

/// Sites with applications, by the part of the network in which they are; parts in the order of their first site.
fn parts(sites: usize, links: &[[usize; 2]], served: &[usize]) -> Vec<Vec<usize>> {
    let mut above: Vec<usize> = (0..sites).collect();
    for ends in links {
        let [a, b] = ends.map(|site| root(&mut above, site));
        above[a.max(b)] = a.min(b);
    }
    let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for site in served {
        parts.entry(root(&mut above, *site)).or_default().push(*site);
    }
    parts.into_values().collect()
}

/// The site that stands for all sites joined with this one. Halves the way for the next who asks.
fn root(above: &mut [usize], mut site: usize) -> usize {
    while above[site] != site {
        above[site] = above[above[site]];
        site = above[site];
    }
    site
}

/// Two sites of a part that share no link.
fn strangers(part: &[usize], links: &[[usize; 2]]) -> Option<[usize; 2]> {
    let mut near: BTreeMap<usize, BTreeSet<usize>> = part.iter().map(|site| (*site, BTreeSet::from([*site]))).collect();
    for [a, b] in links {
        for (one, other) in [(a, b), (b, a)] {
            if near.contains_key(other)
                && let Some(near) = near.get_mut(one)
            {
                near.insert(*other);
            }
        }
    }
    let (lonely, near) = near.iter().find(|(_, near)| near.len() < part.len())?;
    let stranger = part.iter().find(|site| !near.contains(site))?;
    Some([*lonely, *stranger])
}

fn in_parts(spec: &Spec, parts: &[Vec<usize>]) -> Finding {
    let sites = |part: &Vec<usize>| {
        let names = part.iter().map(|site| format!("\"{}\"", spec.sites[*site].name));
        listed(names.collect(), "site", ", ")
    };
    let count = match parts.len() {
        2 => "two".to_owned(),
        3 => "three".to_owned(),
        count => count.to_string(),
    };
    let listed = listed(parts.iter().map(sites).collect(), "part", "; ");
    let message = format!("the network is in {count} parts whose applications can share no key: {listed}");
    // Where the second part begins; a check of parts has two at least.
    let second = parts.get(1).and_then(|part| part.first()).copied().unwrap_or_default();
    Finding::warning(format!("spec.sites[{second}].saes"), message, "links that join the parts")
}

/// A few of many, and how many more there are.
fn listed(mut all: Vec<String>, noun: &str, separator: &str) -> String {
    let more = all.len().saturating_sub(LISTED_MAX);
    if more > 0 {
        all.truncate(LISTED_MAX);
        all.push(format!("{more} more {noun}{}", if more == 1 { "" } else { "s" }));
    }
    all.join(separator)
}
