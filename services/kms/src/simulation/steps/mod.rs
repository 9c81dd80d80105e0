//! Every step at which a key store puts something on its disk: its process is aborted there, and separately stopped in
//! good order there, while applications fetch 2,000 keys a second; then it is started on what it left, with its anchor,
//! and meets the other site, which has gone on. Nothing of it looks like a store that was put back, and no key and no
//! pad comes twice.
//!
//! The steps are those that `shell::failpoint` lists for a key store: one that is added there is covered here.

mod driver;
mod frame;
mod process;

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shell::failpoint;

use self::driver::World;

const KEY_BITS: u32 = 256;
/// What a fetch was answered with, before the key.
const FETCHED: u8 = 0;
const GONE: u8 = 1;
const OTHERWISE: u8 = 2;

/// Fetches that are asked for in a second, of both sites together. A slow machine reaches fewer.
const FETCHES_PER_SECOND: u64 = 2_000;
/// Steps of the end that decides, which is the first site, and of the one that follows. All others are both ends'.
const COORDINATORS: [&str; 2] = ["pair.confirmed", "pair.granted"];
const FOLLOWERS: [&str; 3] = ["pair.followed", "pair.grant-followed", "pair.activated"];

/// Each step with each end that comes to it.
fn steps() -> Vec<(&'static str, usize)> {
    let places = failpoint::PLACES.iter().find(|(kind, _)| *kind == "kms").expect("places of key stores").1;
    let ends = |place: &str| match place {
        _ if COORDINATORS.contains(&place) => vec![0],
        _ if FOLLOWERS.contains(&place) => vec![1],
        _ => vec![0, 1],
    };
    places.iter().flat_map(|place| ends(place).into_iter().map(|end| (*place, end))).collect()
}

/// Ends a site at each of these steps, once in each way.
async fn end_at_each(steps: Vec<(&'static str, usize)>, seed: u64) -> (u64, Duration) {
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let world = World::new().await;
    for (place, end) in steps {
        for how in ["", ":stop"] {
            let hit = rng.random_range(1..if place == "store.checkpointed" { 3 } else { 8 });
            let at = format!("{place}={hit}{how} of {end}");
            world.end_at(end, &format!("{place}={hit}{how}"), how.is_empty()).await;
            // In half of all cases nothing is drawn before the greeting, which might hide what it says too much.
            if rng.random_bool(0.5) {
                world.rest();
            }
            world.start(end).await;
            world.flows(&at).await;
            world.fetch_again(&at).await;
        }
    }
    world.finish().await
}

#[test]
fn a_store_that_ends_at_any_step_in_any_way_under_load_never_looks_as_if_it_had_been_put_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let began = Instant::now();
    let (even, odd): (Vec<_>, Vec<_>) = steps().into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let rounds = [even, odd].map(|steps| steps.into_iter().map(|(_, step)| step).collect::<Vec<_>>());
    let count = rounds.iter().map(Vec::len).sum::<usize>();
    let rounds = rounds.into_iter().zip(0..).map(|(steps, seed)| runtime.spawn(end_at_each(steps, seed)));
    let rounds: Vec<_> = rounds.collect();
    for round in rounds {
        let (fetched, during) = runtime.block_on(round).unwrap();
        let rate = fetched as f64 / during.as_secs_f64();
        println!("{fetched} keys fetched in {during:.1?} of load: {rate:.0} of {FETCHES_PER_SECOND} a second");
    }
    println!("{count} steps, each ended in two ways, in {:.1?}", began.elapsed());
}
