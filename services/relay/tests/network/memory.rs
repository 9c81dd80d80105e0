//! Networks in memory: filling, crashes, cuts, reroutes, shares.

use crate::world::{HIGH_BYTES, LOW_BYTES, TRANSFER_BYTES, World, eventually};

const LINE: [(&str, &str); 2] = [("ada", "bell"), ("bell", "curie")];
const RING: [(&str, &str); 5] =
    [("ada", "bell"), ("bell", "curie"), ("curie", "dirac"), ("dirac", "euler"), ("ada", "euler")];
const BLOCK_BYTES: usize = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_without_a_link_come_to_hold_the_same_bits() {
    let mut world = World::start(&LINE, 1, 1).await;
    world.feed_all(BLOCK_BYTES).await;
    world.filled("ada", "curie").await;
    world.exchange("ada", "curie", 20).await;
    world.exchange("curie", "ada", 20).await;
    eventually("a count of what was relayed", async || world.status("ada").transfers_relayed > 0).await;
    let status = world.status("ada");
    assert_eq!(status.routes[0].path, ["ada", "bell", "curie"]);
    assert!(status.kms_connected && status.neighbours[0].connected);
    let listed = world.shared_status("ada").transfers(0, 2).unwrap();
    assert_eq!(listed.iter().map(|transfer| transfer.number).collect::<Vec<_>>(), [0, 1]);
    let folder = world.close().await;
    for site in ["ada", "curie"] {
        let completed = World::completed(folder.path(), site).await;
        assert!(completed.len() >= 6, "{site} knows of {}", completed.len());
        assert!(!transfer::exposed(&completed, &transfer::SiteName::parse("bell").unwrap()).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_pair_stops_between_its_marks_and_drawing_starts_it_again() {
    let mut world = World::start(&LINE, 1, 2).await;
    world.feed_all(BLOCK_BYTES).await;
    world.filled("ada", "curie").await;
    // Nothing has moved for ten reports of the levels.
    let (mut before, mut since) = (u64::MAX, std::time::Instant::now());
    let settled = async || {
        let status = world.status("ada");
        let moves = status.transfers_in_flight > 0 || status.transfers_relayed != before;
        if moves {
            (before, since) = (status.transfers_relayed, std::time::Instant::now());
        }
        status.routes[0].level_bytes >= LOW_BYTES && since.elapsed().as_secs() >= 2
    };
    eventually("an end of filling", settled).await;
    let level = world.stored_bytes("ada", "curie");
    // A chunk is begun only below the mark; what is granted to the other end is beyond what counts as level.
    assert!(level <= HIGH_BYTES + u64::from(TRANSFER_BYTES) + (8 << 10), "{level} bytes are stored");
    for _ in 0..16 {
        world.exchange("ada", "curie", 32).await;
    }
    eventually("more key", async || world.status("ada").transfers_relayed > before).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sites_in_a_ring_fill_every_pair() {
    let mut world = World::start(&RING, 1, 3).await;
    world.feed_all(2 * BLOCK_BYTES).await;
    for (a, b) in [("ada", "curie"), ("ada", "dirac"), ("bell", "dirac"), ("bell", "euler"), ("curie", "euler")] {
        world.filled(a, b).await;
        world.exchange(a, b, 8).await;
        world.exchange(b, a, 8).await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_flows_on_when_a_relay_is_killed_again_and_again() {
    let mut world = World::start(&LINE, 1, 4).await;
    world.feed_all(2 * BLOCK_BYTES).await;
    for site in ["bell", "ada", "curie", "bell"] {
        world.in_the_middle("ada", "curie").await;
        world.kill_relay(site).await;
        world.start_relay(site);
        world.filled("ada", "curie").await;
    }
    for _ in 0..8 {
        world.exchange("ada", "curie", 32).await;
        world.exchange("curie", "ada", 32).await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_flows_on_when_the_records_of_relays_are_put_back_alone() {
    let mut world = World::start(&LINE, 1, 9).await;
    world.feed_all(4 * BLOCK_BYTES).await;
    for sites in [&["bell"][..], &["ada"], &["curie"], &["ada", "bell", "curie"]] {
        world.in_the_middle("ada", "curie").await;
        let mut copies = Vec::new();
        for site in sites {
            world.kill_relay(site).await;
            copies.push(world.copy_records(site).await);
            world.start_relay(site);
        }
        // Transfers that the copies know are over by then, and some that they do not know.
        for _ in 0..3 {
            world.in_the_middle("ada", "curie").await;
        }
        for (site, copy) in sites.iter().zip(&copies) {
            world.kill_relay(site).await;
            world.put_records_back(site, copy).await;
            world.start_relay(site);
        }
        let again = async || {
            let ways = ["ada", "curie"].map(|site| world.status(site));
            ways.iter().all(|status| status.kms_connected && status.routes.iter().all(|route| !route.no_path))
        };
        eventually("a way in both directions", again).await;
        for _ in 0..3 {
            world.in_the_middle("ada", "curie").await;
        }
        world.exchange("ada", "curie", 8).await;
        world.exchange("curie", "ada", 8).await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_flows_on_when_a_key_store_is_killed() {
    let mut world = World::start(&LINE, 1, 5).await;
    world.feed_all(2 * BLOCK_BYTES).await;
    for site in ["bell", "curie", "ada"] {
        world.in_the_middle("ada", "curie").await;
        world.kill_kms(site).await;
        world.start_kms(site).await;
        eventually("the key store again", async || world.status(site).kms_connected).await;
        // More than was there.
        for _ in 0..14 {
            world.exchange("ada", "curie", 32).await;
        }
        world.exchange("curie", "ada", 4).await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_cut_is_used_again_once_it_heals() {
    let mut world = World::start(&LINE, 1, 6).await;
    world.feed_all(2 * BLOCK_BYTES).await;
    world.filled("ada", "curie").await;
    world.cut("bell", "curie");
    eventually("the loss", async || !world.status("bell").neighbours[1].connected).await;
    // What is left is used up; nothing more can come.
    while world.exchange_if_any("ada", "curie").await {}
    eventually("no way", async || world.status("ada").routes[0].no_path).await;
    let before = world.status("ada").transfers_relayed;
    world.heal("bell", "curie");
    eventually("key again", async || world.status("ada").transfers_relayed > before).await;
    world.exchange("ada", "curie", 16).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_go_round_the_other_way_when_a_link_is_cut() {
    let mut world = World::start(&RING, 1, 7).await;
    world.feed_all(2 * BLOCK_BYTES).await;
    world.filled("ada", "curie").await;
    let route = |world: &World| {
        let routes = world.status("ada").routes;
        routes.into_iter().find(|route| route.target == "curie").unwrap().path
    };
    // The first keys may have gone the long way: the word of one link may have come before that of another.
    eventually("the short way", async || {
        world.exchange_if_any("ada", "curie").await;
        route(&world) == ["ada", "bell", "curie"]
    })
    .await;
    world.cut("bell", "curie");
    while world.exchange_if_any("ada", "curie").await {}
    eventually("another way", async || route(&world) == ["ada", "euler", "dirac", "curie"]).await;
    world.exchange("ada", "curie", 32).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_two_shares_is_known_to_no_site_between() {
    let square = [("ada", "bell"), ("bell", "dirac"), ("ada", "curie"), ("curie", "dirac")];
    let mut world = World::start(&square, 2, 8).await;
    world.feed_all(2 * BLOCK_BYTES).await;
    world.filled("ada", "dirac").await;
    world.exchange("ada", "dirac", 16).await;
    world.kill_kms("dirac").await;
    world.start_kms("dirac").await;
    world.exchange("dirac", "ada", 16).await;
    let folder = world.close().await;
    let completed = World::completed(folder.path(), "ada").await;
    let with_dirac: Vec<_> = completed.into_iter().filter(|done| done.target.as_str() == "dirac").collect();
    assert!(with_dirac.len() >= 2 && with_dirac.iter().all(|done| done.of == 2));
    for site in ["bell", "curie"] {
        let site = transfer::SiteName::parse(site).unwrap();
        assert!(with_dirac.iter().any(|done| done.path.between().contains(&site)), "{site} carried a share");
        assert_eq!(transfer::exposed(&with_dirac, &site), [], "{site} could know a key");
    }
}
