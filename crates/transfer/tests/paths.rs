//! Paths against exhaustive search on small graphs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use transfer::{CostedPath, Graph, SiteName};

type Links = Vec<(u8, u8, u64)>;

fn site(number: u8) -> SiteName {
    SiteName::parse(&format!("s{number}")).unwrap()
}

fn graph(links: &Links) -> Graph {
    Graph::new(links.iter().map(|(from, to, cost)| (site(*from), site(*to), *cost)))
}

fn links() -> impl Strategy<Value = Links> {
    let link = (0..7_u8, 0..7_u8, 1..30_u64);
    proptest::collection::vec(link, 0..26)
}

/// Every loop-free path from 0 to 6 with its cost.
fn every_path(links: &Links, hops_max: usize) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    let mut open = vec![(vec![0_u8], 0)];
    while let Some((path, cost)) = open.pop() {
        let last = *path.last().unwrap();
        if last == 6 {
            found.push((path, cost));
        } else if path.len() <= hops_max {
            for next in (0..7).filter(|next| !path.contains(next)) {
                let steps = links.iter().filter(|(from, to, _)| (*from, *to) == (last, next));
                if let Some(step) = steps.map(|(_, _, step)| *step).min() {
                    open.push(([&path[..], &[next]].concat(), cost + step));
                }
            }
        }
    }
    found
}

/// The cheapest set of this many paths without a common site between.
fn cheapest_set(paths: &[(Vec<u8>, u64)], count: usize, used: u8) -> Option<u64> {
    if count == 0 {
        return Some(0);
    }
    let between = |path: &[u8]| path[1..path.len() - 1].iter().fold(0_u8, |sites, site| sites | 1 << site);
    let rest = |at: usize| cheapest_set(&paths[at + 1..], count - 1, used | between(&paths[at].0));
    let fits = |at: &usize| between(&paths[*at].0) & used == 0;
    (0..paths.len()).filter(fits).filter_map(|at| Some(paths[at].1 + rest(at)?)).min()
}

fn sum(paths: &[CostedPath]) -> u64 {
    paths.iter().map(|path| path.cost).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_cheapest_path_within_the_limit_of_hops_is_found(links in links(), hops_max in 1_usize..7) {
        let found = graph(&links).cheapest(&site(0), &site(6), hops_max);
        let best = every_path(&links, hops_max).into_iter().map(|(_, cost)| cost).min();
        prop_assert_eq!(found.as_ref().map(|path| path.cost), best);
        if let Some(found) = found {
            prop_assert!(found.path.hops() <= hops_max);
            prop_assert_eq!(graph(&links).cost(&found.path), Some(found.cost));
        }
    }

    #[test]
    fn so_many_disjoint_paths_are_found_whenever_there_are(links in links(), count in 2_usize..4) {
        let every = every_path(&links, 7);
        let most = (0..=count).rev().find(|count| cheapest_set(&every, *count, 0).is_some()).unwrap_or(0);
        let found = graph(&links).disjoint(&site(0), &site(6), count, 16);
        prop_assert_eq!(found.len(), most);
        prop_assert_eq!(Some(sum(&found)), cheapest_set(&every, most, 0));
        let between: Vec<&SiteName> = found.iter().flat_map(|path| path.path.between()).collect();
        prop_assert_eq!(between.iter().collect::<BTreeSet<_>>().len(), between.len());
    }

    #[test]
    fn the_order_in_which_links_are_told_decides_nothing(links in links().prop_shuffle(), count in 1_usize..4) {
        let mut sorted = links.clone();
        sorted.sort_unstable();
        let found = |links: &Links| graph(links).disjoint(&site(0), &site(6), count, 16);
        prop_assert_eq!(found(&links), found(&sorted));
    }
}

#[test]
fn disjoint_paths_are_found_where_the_cheapest_path_stands_in_the_way() {
    // The cheapest path 0-1-2-6 uses a site of each of the only two disjoint ones.
    let links = vec![(0, 1, 1), (1, 2, 1), (2, 6, 1), (0, 2, 9), (1, 6, 9)];
    assert_eq!(graph(&links).cheapest(&site(0), &site(6), 16).unwrap().path.hops(), 3);
    let found = graph(&links).disjoint(&site(0), &site(6), 2, 16);
    assert_eq!(found.iter().map(|path| path.path.hops()).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_path_that_is_too_long_is_not_given() {
    let links: Vec<_> = (0..20_u8).map(|at| (site(at), site(at + 1), 1)).collect();
    assert!(Graph::new(links.clone()).cheapest(&site(0), &site(16), 16).is_some());
    assert!(Graph::new(links).cheapest(&site(0), &site(17), 16).is_none());
}
