//! Key management: sizes that fit each other, names that fit into a certificate.

use std::collections::BTreeSet;

use super::links::SERVICE_NAME_LENGTH_MAX;
use super::{Finding, Report};
use crate::document::{Link, Name, Spec};
use crate::plan::{kms_name, relay_name, ways};
use crate::quantity::{DataSize, Decimal};

/// Longest key that a key ID can name.
const KEY_BITS_MAX: u64 = 65_528;
/// Shortest transfer of which something is left to deliver once the key stores have confirmed it with 256 bit.
const TRANSFER_BITS_MIN: u64 = 264;
/// Longest transfer that a relay carries.
const TRANSFER_BITS_MAX: u64 = 16_384;

pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    sizes(spec, report);
    relay(spec, report);
    names(spec, report);
}

fn sizes(spec: &Spec, report: &mut Report<'_>) {
    let keys = &spec.key_management;
    let path = |field: &str| format!("spec.keyManagement.{field}");
    let all = [("keySize", keys.key_size), ("keySizeMin", keys.key_size_min), ("keySizeMax", keys.key_size_max)];
    for (field, size) in all {
        if !in_bytes(size) || size.rounded() > KEY_BITS_MAX {
            let expected = format!("a multiple of 8 bit, from 8 bit to {KEY_BITS_MAX} bit");
            report.add(Finding::error(path(field), format!("keys of {size}"), expected), &[]);
        }
    }
    let [(_, size), (_, min), (_, max)] = all.map(|(field, size)| (field, size.rounded()));
    if min > max {
        let message = format!("the smallest key has {min} bit, the largest {max} bit");
        let finding = Finding::error(path("keySizeMin"), message, "at most `keySizeMax`");
        report.add(finding, &[&path("keySizeMax")]);
    } else if !(min..=max).contains(&size) {
        let message = format!("keys have {size} bit where a request names no size");
        let finding = Finding::error(path("keySize"), message, format!("from {min} bit to {max} bit"));
        report.add(finding, &[&path("keySizeMin"), &path("keySizeMax")]);
    }
    if keys.retention.exact() <= Some(Decimal::from(0)) {
        report.add(Finding::error(path("retention"), "keys that expire at once", "a duration above 0"), &[]);
    }
}

fn relay(spec: &Spec, report: &mut Report<'_>) {
    let relay = &spec.key_management.relay;
    let path = |field: &str| format!("spec.keyManagement.relay.{field}");
    let carried = TRANSFER_BITS_MIN..=TRANSFER_BITS_MAX;
    if !in_bytes(relay.transfer) || !carried.contains(&relay.transfer.rounded()) {
        let expected = format!("a multiple of 8 bit, from {TRANSFER_BITS_MIN} bit to {TRANSFER_BITS_MAX} bit");
        report.add(Finding::error(path("transfer"), format!("transfers of {}", relay.transfer), expected), &[]);
    }
    if relay.low_water > relay.high_water {
        let message = format!("filling would start below {} and stop at {}", relay.low_water, relay.high_water);
        let finding = Finding::error(path("lowWater"), message, "at most `highWater`");
        report.add(finding, &[&path("highWater")]);
    }
    if relay.reroute && !relay.enabled {
        let finding =
            Finding::error(path("reroute"), "key is rerouted by relays, which are off", "`enabled: true` beside it");
        report.add(finding, &[&path("enabled")]);
    } else if relay.reroute && ways::around(&ways::neighbours(spec)).is_empty() {
        let expected = "links that lead around another one: a third site with links to two that share one, for example";
        let finding = Finding::warning(path("reroute"), "there is no way around any link", expected);
        report.add(finding, &["spec.links"]);
    }
}

/// Every site that ends a link has a key store and may have a relay, whose names are names of hosts.
fn names(spec: &Spec, report: &mut Report<'_>) {
    let ends: BTreeSet<&Name> = spec.links.iter().flat_map(Link::ends).collect();
    for (index, site) in spec.sites.iter().enumerate() {
        let ends_a_link = ends.contains(&site.name);
        let longest =
            [kms_name(site.name.as_str()), relay_name(site.name.as_str())].into_iter().max_by_key(String::len);
        let Some(longest) = longest.filter(|name| ends_a_link && name.len() > SERVICE_NAME_LENGTH_MAX) else {
            continue;
        };
        let message = format!("the service name \"{longest}\" has {} characters", longest.len());
        let expected = format!("a name that gives at most {SERVICE_NAME_LENGTH_MAX}");
        report.add(Finding::error(format!("spec.sites[{index}].name"), message, expected), &["spec.links"]);
    }
}

fn in_bytes(size: DataSize) -> bool {
    size.whole().is_some_and(|bits| bits > 0 && bits % 8 == 0)
}
