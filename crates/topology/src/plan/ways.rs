//! Which sites links join, and which links others lead around.

use std::collections::{BTreeMap, BTreeSet, btree_set};

use crate::document::{Name, Spec};

/// Sites that end a link, each with the sites that it shares a link with.
pub(crate) type Neighbours<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

pub(crate) fn neighbours(spec: &Spec) -> Neighbours<'_> {
    let mut neighbours = Neighbours::new();
    for [a, b] in spec.links.iter().filter_map(|link| link.pair()).map(|ends| ends.map(Name::as_str)) {
        neighbours.entry(a).or_default().insert(b);
        neighbours.entry(b).or_default().insert(a);
    }
    neighbours
}

/// Numbers the parts of a network that no link joins; and whether there are two sites of a part that share no link.
pub(super) fn parts<'a>(neighbours: &Neighbours<'a>) -> (BTreeMap<&'a str, u32>, bool) {
    let (mut parts, mut far_pairs, mut number) = (BTreeMap::new(), false, 0);
    for &first in neighbours.keys() {
        if parts.contains_key(first) {
            continue;
        }
        let mut part = vec![first];
        parts.insert(first, number);
        let mut next = 0;
        while let Some(&at) = part.get(next) {
            for &near in neighbours.get(at).into_iter().flatten() {
                if parts.insert(near, number).is_none() {
                    part.push(near);
                }
            }
            next += 1;
        }
        far_pairs |= part.iter().any(|site| neighbours.get(site).is_some_and(|near| near.len() + 1 < part.len()));
        number += 1;
    }
    (parts, far_pairs)
}

/// A site on the way of the search.
struct Step<'n, 'a> {
    site: &'a str,
    from: Option<&'a str>,
    rest: btree_set::Iter<'n, &'a str>,
    /// When the search came here, and the earliest site that it can go back to from here or from what lies behind.
    entered: usize,
    earliest: usize,
}

/// Pairs of sites that share a link and that other links join, too, the smaller name first. One search from end to end
/// (Tarjan): a link has no way around it where nothing behind it leads back before it.
pub(crate) fn around<'a>(neighbours: &Neighbours<'a>) -> BTreeSet<[&'a str; 2]> {
    let mut entered: BTreeMap<&str, usize> = BTreeMap::new();
    let mut around = BTreeSet::new();
    for (&first, near) in neighbours {
        if entered.contains_key(first) {
            continue;
        }
        let number = entered.len();
        entered.insert(first, number);
        let mut way = vec![Step { site: first, from: None, rest: near.iter(), entered: number, earliest: number }];
        while let Some(step) = way.last_mut() {
            match step.rest.next() {
                Some(&next) if Some(next) == step.from => {}
                Some(&next) => match entered.get(next) {
                    Some(&known) => {
                        around.insert(sorted(step.site, next));
                        step.earliest = step.earliest.min(known);
                    }
                    None => {
                        let (number, from) = (entered.len(), Some(step.site));
                        entered.insert(next, number);
                        let Some(near) = neighbours.get(next) else { continue };
                        way.push(Step { site: next, from, rest: near.iter(), entered: number, earliest: number });
                    }
                },
                None => {
                    let Step { site, from, entered, earliest, .. } = *step;
                    way.pop();
                    if let (Some(before), Some(from)) = (way.last_mut(), from) {
                        before.earliest = before.earliest.min(earliest);
                        if earliest < entered {
                            around.insert(sorted(site, from));
                        }
                    }
                }
            }
        }
    }
    around
}

fn sorted<'a>(a: &'a str, b: &'a str) -> [&'a str; 2] {
    if a < b { [a, b] } else { [b, a] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network<'a>(links: &[[&'a str; 2]]) -> Neighbours<'a> {
        let mut neighbours = Neighbours::new();
        for [a, b] in links {
            neighbours.entry(a).or_default().insert(b);
            neighbours.entry(b).or_default().insert(a);
        }
        neighbours
    }

    #[test]
    fn a_link_of_a_ring_has_a_way_around_it_and_one_that_alone_leads_somewhere_has_none() {
        let ring = [["a", "b"], ["b", "c"], ["c", "d"], ["a", "d"]];
        assert_eq!(around(&network(&ring)), BTreeSet::from(ring));
        assert_eq!(around(&network(&[["a", "b"], ["b", "c"]])), BTreeSet::new());
        // Two triangles, and the one link between them.
        let triangles = [["a", "b"], ["b", "c"], ["a", "c"], ["x", "y"], ["y", "z"], ["x", "z"]];
        let joined = [&triangles[..], &[["c", "x"]]].concat();
        assert_eq!(around(&network(&joined)), BTreeSet::from(triangles));
    }
}
