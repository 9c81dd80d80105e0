//! Cheapest paths, and cheapest sets of paths that share no site, in a directed graph with positive costs.
//!
//! Sites are numbered in the order of their names and links kept in that order, so that equal costs are decided the
//! same way whatever order the links came in.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use crate::name::{Path, SiteName};

/// Links that may be used, each in one direction.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    names: Vec<SiteName>,
    links: Vec<Vec<(usize, u64)>>,
}

/// A path and the sum of the costs of its hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostedPath {
    pub path: Path,
    pub cost: u64,
}

impl Graph {
    /// Links as (from, to, cost). Of several links between two sites the cheapest counts; a cost of 0 counts as 1.
    pub fn new(links: impl IntoIterator<Item = (SiteName, SiteName, u64)>) -> Self {
        let links: Vec<(SiteName, SiteName, u64)> = links.into_iter().collect();
        let names: BTreeSet<&SiteName> = links.iter().flat_map(|(from, to, _)| [from, to]).collect();
        let names: Vec<SiteName> = names.into_iter().cloned().collect();
        let number = |name: &SiteName| names.binary_search(name).ok();
        let numbered = links.iter().filter_map(|(from, to, cost)| Some((number(from)?, number(to)?, *cost)));
        let numbered: Vec<(usize, usize, u64)> = numbered.collect();
        Self::numbered(names, numbered)
    }

    /// The same, of sites that are numbered already: names in ascending order, links between existing numbers.
    pub(crate) fn numbered(names: Vec<SiteName>, links: impl IntoIterator<Item = (usize, usize, u64)>) -> Self {
        let mut out = vec![Vec::new(); names.len()];
        for (from, to, cost) in links.into_iter().filter(|(from, to, _)| from != to) {
            out[from].push((to, cost.clamp(1, u64::from(u32::MAX))));
        }
        for links in &mut out {
            links.sort_unstable();
            links.dedup_by_key(|(to, _)| *to);
        }
        Self { names, links: out }
    }

    fn ends(&self, from: &SiteName, to: &SiteName) -> Option<(usize, usize)> {
        let from = self.names.binary_search(from).ok()?;
        let to = self.names.binary_search(to).ok()?;
        (from != to).then_some((from, to))
    }

    fn named(&self, sites: &[usize]) -> Option<CostedPath> {
        let cost = sites.iter().zip(sites.iter().skip(1)).try_fold(0, |sum, (from, to)| {
            let (_, cost) = self.links[*from].iter().find(|(next, _)| next == to)?;
            Some(sum + cost)
        })?;
        let path = Path::new(sites.iter().map(|site| self.names[*site].clone()).collect()).ok()?;
        Some(CostedPath { path, cost })
    }

    /// What a path costs, if all of its links may be used.
    pub fn cost(&self, path: &Path) -> Option<u64> {
        let numbers = path.sites().iter().map(|site| self.names.binary_search(site).ok());
        self.named(&numbers.collect::<Option<Vec<usize>>>()?).map(|costed| costed.cost)
    }

    /// The cheapest path of at most this many hops; of equally cheap ones one with fewer hops.
    ///
    /// Dijkstra over labels (cost, hops): a site is looked at again only when it is reached in fewer hops than every
    /// cheaper way needed, so that the limit on hops does not hide a path that costs more and is shorter.
    pub fn cheapest(&self, from: &SiteName, to: &SiteName, hops_max: usize) -> Option<CostedPath> {
        let (from, to) = self.ends(from, to)?;
        // Labels that were taken: the site and the label before.
        let mut taken: Vec<(usize, Option<usize>)> = Vec::new();
        let mut fewest_hops = vec![usize::MAX; self.names.len()];
        let mut open = BinaryHeap::from([Reverse((0_u64, 0_usize, from, None))]);
        while let Some(Reverse((cost, hops, site, before))) = open.pop() {
            if hops >= fewest_hops[site] {
                continue;
            }
            fewest_hops[site] = hops;
            taken.push((site, before));
            let label = taken.len() - 1;
            if site == to {
                return self.named(&walk_back(&taken, label));
            }
            if hops < hops_max {
                for (next, step) in &self.links[site] {
                    if hops + 1 < fewest_hops[*next] {
                        open.push(Reverse((cost + step, hops + 1, *next, Some(label))));
                    }
                }
            }
        }
        None
    }

    /// Up to `count` paths that share no site but their ends, as many as there are, together as cheap as possible.
    ///
    /// Successive shortest paths on the graph with every site split in two (Suurballe, Bhandari): finds this many
    /// paths whenever they exist. The limit on hops is not part of that problem (with it the problem is NP-hard): if
    /// a path is too long, the set with the fewest hops in all is tried, and what is still too long left out.
    pub fn disjoint(&self, from: &SiteName, to: &SiteName, count: usize, hops_max: usize) -> Vec<CostedPath> {
        if count <= 1 {
            return if count == 1 { self.cheapest(from, to, hops_max).into_iter().collect() } else { Vec::new() };
        }
        let Some((from, to)) = self.ends(from, to) else { return Vec::new() };
        let short = |paths: &Vec<usize>| paths.len() <= hops_max + 1;
        let mut paths = Split::new(self, from, to, false).paths(count);
        if !paths.iter().all(short) {
            let fewest_hops = Split::new(self, from, to, true).paths(count);
            let kept = |set: &[Vec<usize>]| set.iter().filter(|path| short(path)).count();
            if kept(&fewest_hops) > kept(&paths) {
                paths = fewest_hops;
            }
            paths.retain(short);
        }
        let mut found: Vec<CostedPath> = paths.iter().filter_map(|sites| self.named(sites)).collect();
        found.sort_by(|a, b| (a.cost, &a.path).cmp(&(b.cost, &b.path)));
        found
    }
}

fn walk_back(taken: &[(usize, Option<usize>)], label: usize) -> Vec<usize> {
    let mut sites = Vec::new();
    let mut at = Some(label);
    while let Some(label) = at {
        sites.push(taken[label].0);
        at = taken[label].1;
    }
    sites.reverse();
    sites
}

/// An arc with room for one path. The arc at the number with the lowest bit flipped undoes it.
#[derive(Clone, Copy)]
struct Arc {
    to: usize,
    cost: i64,
    free: bool,
}

/// The graph with every site `v` split into an entry `2v` and an exit `2v + 1`, joined by one arc.
struct Split {
    arcs: Vec<Arc>,
    leaving: Vec<Vec<usize>>,
    source: usize,
    sink: usize,
}

impl Split {
    fn new(graph: &Graph, from: usize, to: usize, count_hops: bool) -> Self {
        let mut split = Self {
            arcs: Vec::new(),
            leaving: vec![Vec::new(); 2 * graph.names.len()],
            source: 2 * from + 1,
            sink: 2 * to,
        };
        for (site, links) in graph.links.iter().enumerate() {
            if site != from && site != to {
                split.join(2 * site, 2 * site + 1, 0);
            }
            for (next, cost) in links.iter().filter(|(next, _)| site != to && *next != from) {
                let cost = if count_hops { 1 } else { i64::try_from(*cost).unwrap_or(i64::MAX) };
                split.join(2 * site + 1, 2 * next, cost);
            }
        }
        split
    }

    fn join(&mut self, from: usize, to: usize, cost: i64) {
        self.leaving[from].push(self.arcs.len());
        self.arcs.push(Arc { to, cost, free: true });
        self.leaving[to].push(self.arcs.len());
        self.arcs.push(Arc { to: from, cost: -cost, free: false });
    }

    /// One more path, rearranging those there are. Costs of undone arcs are negative, hence Bellman-Ford.
    fn augment(&mut self) -> bool {
        let mut best = vec![i64::MAX; self.leaving.len()];
        let mut by: Vec<Option<usize>> = vec![None; self.leaving.len()];
        let mut queued = vec![false; self.leaving.len()];
        let mut queue = VecDeque::from([self.source]);
        best[self.source] = 0;
        while let Some(node) = queue.pop_front() {
            queued[node] = false;
            for arc in &self.leaving[node] {
                let Arc { to, cost, free } = self.arcs[*arc];
                let reached = best[node].saturating_add(cost);
                if free && reached < best[to] {
                    best[to] = reached;
                    by[to] = Some(*arc);
                    if !queued[to] {
                        queued[to] = true;
                        queue.push_back(to);
                    }
                }
            }
        }
        let mut node = self.sink;
        while let Some(arc) = by[node] {
            self.arcs[arc].free = false;
            self.arcs[arc ^ 1].free = true;
            node = self.arcs[arc ^ 1].to;
        }
        best[self.sink] != i64::MAX
    }

    /// The paths as numbers of sites.
    fn paths(mut self, count: usize) -> Vec<Vec<usize>> {
        let found = (0..count).take_while(|_| self.augment()).count();
        (0..found).map(|_| self.follow()).collect()
    }

    fn follow(&mut self) -> Vec<usize> {
        let mut sites = vec![self.source / 2];
        let mut node = self.source;
        while node != self.sink {
            let used = self.leaving[node].iter().copied().find(|arc| arc.is_multiple_of(2) && !self.arcs[*arc].free);
            let Some(arc) = used else { break };
            self.arcs[arc].free = true;
            node = self.arcs[arc].to;
            if node.is_multiple_of(2) {
                sites.push(node / 2);
            }
        }
        sites
    }
}
