//! Whole networks of relays on a bus that misbehaves.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use transfer::{RelayEvent, SiteName, TransferId, exposed};
use world::{Faults, World, settings, site};

type Links = Vec<(String, String, u64)>;

fn link(a: &str, b: &str, rate_bps: u64) -> (String, String, u64) {
    (a.into(), b.into(), rate_bps)
}

fn nice() -> Links {
    vec![link("sophia", "valrose", 7000), link("sophia", "calern", 5000)]
}

fn numbered(count: usize, rate_bps: u64, next: impl Fn(usize) -> Option<usize>) -> Links {
    let joined = (0..count).filter_map(|at| Some((at, next(at)?)));
    joined.map(|(a, b)| link(&format!("s{a:02}"), &format!("s{b:02}"), rate_bps)).collect()
}

fn line(count: usize, rate_bps: u64) -> Links {
    numbered(count - 1, rate_bps, |at| Some(at + 1))
}

fn ring(count: usize, rate_bps: u64) -> Links {
    numbered(count, rate_bps, |at| Some((at + 1) % count))
}

fn star(count: usize, rate_bps: u64) -> Links {
    (1..count).map(|at| link("s00", &format!("s{at:02}"), rate_bps)).collect()
}

fn mesh(seed: u64, sites: usize, links: usize) -> Links {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut pairs: BTreeSet<(usize, usize)> = (1..sites).map(|at| (rng.random_range(0..at), at)).collect();
    while pairs.len() < links {
        let (a, b) = (rng.random_range(0..sites), rng.random_range(0..sites));
        if a != b {
            pairs.insert((a.min(b), a.max(b)));
        }
    }
    pairs
        .into_iter()
        .map(|(a, b)| link(&format!("s{a:02}"), &format!("s{b:02}"), rng.random_range(4000..40_000)))
        .collect()
}

const NOISY: Faults = Faults { drop: 80, double: 80, crash: 2, late: 10 };

#[test]
fn two_sites_of_nice_without_a_link_share_key() {
    let mut world = World::new(1, &nice(), 8192, settings());
    world.want("calern", "valrose", (2048, 4096), 1, 0);
    world.run(20_000);
    let level = world.level("calern", "valrose");
    assert!((2048..=4096 + 256).contains(&level), "{level}");
    let ends = (world.completed("calern"), world.completed("valrose"));
    assert_eq!(ends.0.iter().map(|it| u64::from(it.bytes)).sum::<u64>(), level);
    assert_eq!(BTreeSet::from_iter(ends.0.iter().map(|it| it.transfer)), ends.1.iter().map(|it| it.transfer).collect());
    assert_eq!(exposed(&ends.0, &site("sophia")).len(), ends.0.len());
    assert!(exposed(&ends.0, &site("valrose")).is_empty());
    world.heal();
    world.check();
}

#[test]
fn a_line_of_ten_survives_loss_doubling_reordering_and_crashes() {
    for seed in 0..4 {
        let mut world = World::new(seed, &line(10, 20_000), 4096, settings());
        world.want("s00", "s09", (2048, 4096), 1, 50);
        world.want("s02", "s07", (2048, 4096), 1, 50);
        world.want("s01", "s03", (2048, 4096), 1, 50);
        world.faults = NOISY;
        world.run(90_000);
        world.faults = Faults::default();
        world.run(30_000);
        assert!(world.crashes > 5, "{} crashes", world.crashes);
        for (from, to) in [("s00", "s09"), ("s02", "s07"), ("s01", "s03")] {
            assert!(world.level(from, to) >= 2048 - 256, "{from} {to}: {}", world.level(from, to));
        }
        world.heal();
        world.check();
    }
}

#[test]
fn a_cut_reroutes_at_once_and_a_repair_brings_the_route_back() {
    let mut world = World::new(3, &ring(8, 40_000), 16_384, settings());
    world.want("s00", "s03", (8000, 8192), 1, 400);
    world.run(15_000);
    let short = |world: &World, from: usize| {
        let all = world.completed("s00");
        let new: Vec<usize> = all[from..].iter().map(|it| it.path.hops()).collect();
        (all.len(), new)
    };
    let (seen, hops) = short(&world, 0);
    assert!(hops.len() > 16 && hops.iter().all(|hops| *hops == 3), "{hops:?}");
    world.set_link("s01", "s02", false);
    let cut_ms = world.now_ms;
    while world.completed("s00").len() == seen || world.completed("s00").last().unwrap().path.hops() == 3 {
        world.run(50);
        assert!(world.now_ms < cut_ms + 3000, "no way around within 3 s");
    }
    world.run(10_000);
    let (seen, _) = short(&world, seen);
    world.run(10_000);
    let (seen, hops) = short(&world, seen);
    assert!(hops.len() > 5 && hops.iter().all(|hops| *hops == 5), "{hops:?}");
    world.set_link("s01", "s02", true);
    world.run(10_000);
    let (seen, _) = short(&world, seen);
    world.run(10_000);
    let (_, hops) = short(&world, seen);
    assert!(hops.len() > 5 && hops.iter().all(|hops| *hops == 3), "{hops:?}");
    let rerouted = |event: &&RelayEvent| matches!(event, RelayEvent::Rerouted { .. });
    assert_eq!(world.nodes[&site("s00")].events.iter().filter(rerouted).count(), 2, "routes flap");
    world.heal();
    world.check();
}

#[test]
fn shares_over_disjoint_paths_show_the_key_to_no_site_between() {
    for seed in 0..3 {
        let mut world = World::new(seed, &ring(8, 40_000), 16_384, settings());
        world.want("s00", "s03", (2048, 4096), 2, 100);
        world.want("s01", "s06", (2048, 4096), 2, 100);
        world.faults = NOISY;
        world.run(60_000);
        world.faults = Faults::default();
        world.run(20_000);
        assert!(world.level("s00", "s03") >= 2048 - 256 && world.level("s01", "s06") >= 2048 - 256);
        world.heal();
        world.check();
        let completed = world.completed("s00");
        assert!(completed.len() >= 16);
        for name in world.names() {
            assert!(exposed(&completed, &name).is_empty(), "{name} carried a key in full");
        }
        assert!(completed.iter().all(|it| it.of == 2));
    }
}

#[test]
fn too_few_disjoint_paths_make_no_key_and_say_so() {
    let mut world = World::new(5, &line(4, 40_000), 16_384, settings());
    world.want("s00", "s03", (2048, 4096), 2, 0);
    world.run(10_000);
    assert_eq!(world.level("s00", "s03"), 0);
    let too_few = |event: &&RelayEvent| matches!(event, RelayEvent::TooFewPaths { wanted: 2, found: 0 | 1, .. });
    assert_eq!(world.nodes[&site("s00")].events.iter().filter(too_few).count(), 1, "said once");
    assert_eq!(world.pools.draws(), 0);
}

#[test]
fn every_pair_of_a_star_gets_its_share() {
    let mut world = World::new(7, &star(12, 40_000), 4096, settings());
    for a in 1..12 {
        for b in a + 1..12 {
            world.want(&format!("s{a:02}"), &format!("s{b:02}"), (1024, 2048), 1, 0);
        }
    }
    world.run(120_000);
    for a in 1..12 {
        for b in a + 1..12 {
            let level = world.level(&format!("s{a:02}"), &format!("s{b:02}"));
            assert!(level >= 1024, "s{a:02} s{b:02}: {level}");
        }
    }
    world.heal();
    world.check();
}

#[test]
fn nearly_empty_pools_everywhere_do_not_deadlock() {
    let mut world = World::new(11, &ring(8, 0), 700, settings());
    for (a, b) in [(0, 4), (1, 5), (2, 6), (3, 7), (0, 3), (2, 5), (4, 7), (1, 6)] {
        world.want(&format!("s{a:02}"), &format!("s{b:02}"), (1024, 2048), 1, 0);
    }
    world.run(30_000);
    let before: usize = world.names().iter().map(|name| world.completed(name.as_str()).len()).sum();
    world.links.values_mut().for_each(|link| link.rate_bps = 20_000);
    world.run(90_000);
    let after: usize = world.names().iter().map(|name| world.completed(name.as_str()).len()).sum();
    assert!(after > before + 32, "{before} before, {after} after");
    for (a, b) in [(0, 4), (1, 5), (2, 6), (3, 7), (0, 3), (2, 5), (4, 7), (1, 6)] {
        assert!(world.level(&format!("s{a:02}"), &format!("s{b:02}")) >= 1024, "s{a:02} s{b:02}");
    }
    world.heal();
    world.check();
}

#[test]
fn a_mesh_of_fifty_with_failing_links_and_crashing_relays_comes_to_rest() {
    let links = mesh(50, 50, 110);
    let mut world = World::new(13, &links, 8192, settings());
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    for _ in 0..60 {
        let (a, b) = (rng.random_range(0..50), rng.random_range(0..50));
        let joined = |it: &&(String, String, u64)| it.0 == format!("s{a:02}") && it.1 == format!("s{b:02}");
        if a < b && links.iter().find(joined).is_none() {
            world.want(&format!("s{a:02}"), &format!("s{b:02}"), (1024, 2048), 1 + (b % 2) as u8, 20);
        }
    }
    world.faults = Faults { crash: 1, ..NOISY };
    for _ in 0..30 {
        let (a, b, _) = &links[rng.random_range(0..links.len())];
        let up = rng.random_bool(0.4);
        world.set_link(a, b, up);
        world.run(2000);
    }
    assert!(world.crashes > 20, "{} crashes", world.crashes);
    world.heal();
    world.check();
    let made: usize = world.names().iter().map(|name| world.completed(name.as_str()).len()).sum();
    assert!(made > 100, "{made}");
}

#[test]
fn a_partition_that_outlasts_every_doubt_leaves_nothing_undecided() {
    for seed in 0..4 {
        let mut world = World::new(seed, &line(5, 40_000), 8192, settings());
        world.want("s00", "s04", (4096, 8192), 1, 400);
        world.faults = Faults { drop: 200, double: 100, crash: 0, late: 20 };
        for _ in 0..6 {
            world.run(3000);
            world.set_link("s02", "s03", false);
            world.run(15_000);
            world.set_link("s02", "s03", true);
        }
        world.heal();
        world.check();
        assert!(!world.completed("s00").is_empty());
    }
}

/// What must hold in a network without faults and with enough of everything: each bit of key cost one bit of pad on each
/// hop of its way and nothing else, both ends have it, and no key came twice.
fn check_exact(world: &World) -> usize {
    let mut spent: BTreeMap<(SiteName, SiteName), u64> = BTreeMap::new();
    let (mut keys, mut made) = (BTreeSet::new(), 0);
    for name in world.names() {
        for share in world.completed(name.as_str()).iter().filter(|it| it.origin == name) {
            let key = &world.nodes[&name].kms.originated[&share.transfer].key;
            assert!(world.nodes[&share.target].kms.delivered[&share.transfer].key == *key, "the ends differ");
            assert!(keys.insert(key.clone()), "a key came twice");
            made += 1;
            for (from, to) in share.path.links() {
                *spent.entry((from.clone(), to.clone())).or_default() += u64::from(share.bytes);
            }
        }
    }
    for (from, to) in world.pools.0.keys() {
        let due = spent.get(&(from.clone(), to.clone())).copied().unwrap_or(0);
        assert_eq!(world.pools.drawn_bytes(from, to), due, "{from} to {to}: one bit of pad a bit and hop, no more");
    }
    world.check();
    made
}

/// Fills pairs of a network that has enough, and counts what it cost.
fn costs_one_bit_a_hop(links: &Links, pairs: &[(usize, usize)]) {
    let mut world = World::new(21, links, 60_000, settings());
    for (a, b) in pairs {
        world.want(&format!("s{a:02}"), &format!("s{b:02}"), (1024, 2048), 1, 0);
    }
    world.run(30_000);
    for (a, b) in pairs {
        assert!(world.level(&format!("s{a:02}"), &format!("s{b:02}")) >= 1024, "s{a:02} s{b:02}");
    }
    world.heal();
    assert!(check_exact(&world) >= 4 * pairs.len());
}

#[test]
fn over_a_ring_each_bit_costs_one_bit_a_hop_and_no_key_comes_twice() {
    costs_one_bit_a_hop(&ring(6, 40_000), &[(0, 2), (0, 3), (1, 4), (2, 5)]);
}

#[test]
fn over_a_line_of_ten_each_bit_costs_one_bit_a_hop_and_no_key_comes_twice() {
    costs_one_bit_a_hop(&line(10, 40_000), &[(0, 9), (1, 8), (3, 5)]);
}

#[test]
fn over_a_star_each_bit_costs_one_bit_a_hop_and_no_key_comes_twice() {
    costs_one_bit_a_hop(&star(8, 40_000), &[(1, 2), (3, 7), (4, 6), (1, 5)]);
}

#[test]
fn over_a_mesh_of_fifty_each_bit_costs_one_bit_a_hop_and_no_key_comes_twice() {
    let links = mesh(23, 50, 110);
    let linked = |a: usize, b: usize| links.iter().any(|it| it.0 == format!("s{a:02}") && it.1 == format!("s{b:02}"));
    let pairs: Vec<(usize, usize)> = (0..25).map(|at| (at, 49 - at)).filter(|(a, b)| !linked(*a, *b)).collect();
    costs_one_bit_a_hop(&links, &pairs);
}

#[test]
fn c4_the_weakest_hop_sets_the_rate() {
    let rates = [40_000, 8_000, 20_000];
    let links: Links = (0..3).map(|at| link(&format!("s{at:02}"), &format!("s{:02}", at + 1), rates[at])).collect();
    let mut world = World::new(22, &links, 2048, settings());
    world.want("s00", "s03", (60_000, 65_000), 1, 60_000);
    let bytes = |world: &World| world.completed("s00").iter().map(|it| u64::from(it.bytes)).sum::<u64>();
    // Until what lay there at the start is used up.
    world.run(30_000);
    let before = bytes(&world);
    world.run(120_000);
    let rate_bps = (bytes(&world) - before) as f64 * 8.0 / 120.0;
    // Of a link's key each direction gets half.
    let weakest_bps = 8_000.0 / 2.0;
    assert!((0.95..=1.01).contains(&(rate_bps / weakest_bps)), "{rate_bps} bit/s of {weakest_bps}");
    world.heal();
    world.check();
}

#[test]
fn c4_a_compromised_relay_knows_the_keys_that_it_carried_alone() {
    let mut world = World::new(24, &line(4, 40_000), 30_000, settings());
    world.want("s00", "s03", (4096, 8192), 1, 0);
    world.run(20_000);
    world.heal();
    let completed = world.completed("s00");
    assert!(completed.len() >= 16);
    for share in &completed {
        let key = &world.nodes[&site("s00")].kms.originated[&share.transfer].key;
        for between in ["s01", "s02"] {
            assert!(world.nodes[&site(between)].kms.seen[&share.transfer] == *key, "{between} has had it in the clear");
            assert!(exposed(&completed, &site(between)).contains(&share.group), "and is known to have had it");
        }
    }
    check_exact(&world);
}

#[test]
fn c4_with_shares_over_disjoint_paths_a_single_relay_knows_nothing_and_all_together_do() {
    // Three ways from s00 to s04, each over one site; and of shares in two over two of them.
    let links: Links = (1..4)
        .flat_map(|at| [link("s00", &format!("s{at:02}"), 40_000), link(&format!("s{at:02}"), "s04", 40_000)])
        .collect();
    for shares in [2u8, 3] {
        let mut world = World::new(25, &links, 30_000, settings());
        world.want("s00", "s04", (2048, 4096), shares, 0);
        world.run(20_000);
        world.heal();
        let completed = world.completed("s00");
        let mut groups: BTreeMap<TransferId, Vec<TransferId>> = BTreeMap::new();
        completed.iter().for_each(|share| groups.entry(share.group).or_default().push(share.transfer));
        assert!(groups.len() >= 8);
        let origin = &world.nodes[&site("s00")].kms.originated;
        for transfers in groups.values() {
            assert_eq!(transfers.len(), usize::from(shares));
            let key = sum(transfers.iter().map(|transfer| &origin[transfer].key));
            let seen_at = |name: &str| -> Vec<&Vec<u8>> {
                let seen = &world.nodes[&site(name)].kms.seen;
                transfers.iter().filter_map(|transfer| seen.get(transfer)).collect()
            };
            let relays = ["s01", "s02", "s03"];
            for relay in relays {
                let seen = seen_at(relay);
                assert!(seen.len() <= 1, "{relay} carried {} shares of one key", seen.len());
                assert!(seen.iter().all(|share| **share != key), "{relay} knows the key");
            }
            assert!(sum(relays.iter().flat_map(|relay| seen_at(relay))) == key, "together they know it");
        }
        for relay in ["s01", "s02", "s03"] {
            assert!(exposed(&completed, &site(relay)).is_empty());
        }
        check_exact(&world);
    }
}

/// The exclusive or of all.
fn sum<'a>(shares: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    shares.fold(Vec::new(), |sum, share| {
        let sum = if sum.is_empty() { vec![0; share.len()] } else { sum };
        sum.iter().zip(share).map(|(a, b)| a ^ b).collect()
    })
}

/// Run by hand and by the long tests: `cargo test -p transfer --test network --release -- --ignored soak`.
#[test]
#[ignore = "takes minutes"]
fn soak_of_small_networks_with_every_fault() {
    let seeds = std::env::var("SOAK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200);
    for seed in 0..seeds {
        let links = if seed % 2 == 0 { ring(6, 20_000) } else { mesh(seed, 9, 14) };
        let sites = if seed % 2 == 0 { 6 } else { 9 };
        let mut world = World::new(seed, &links, 2048, settings());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for a in 0..sites {
            for b in a + 1..sites {
                if rng.random_bool(0.3) {
                    let shares = rng.random_range(1..=3);
                    world.want(&format!("s{a:02}"), &format!("s{b:02}"), (1024, 2048), shares, 100);
                }
            }
        }
        world.faults = Faults {
            drop: rng.random_range(0..300),
            double: rng.random_range(0..300),
            crash: rng.random_range(0..10),
            late: rng.random_range(0..60),
        };
        for _ in 0..20 {
            let (a, b, _) = &links[rng.random_range(0..links.len())];
            let up = rng.random_bool(0.5);
            world.set_link(a, b, up);
            world.run(rng.random_range(200..4000));
        }
        world.heal();
        world.check();
    }
}
