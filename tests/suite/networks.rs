//! Networks that come with the project: key over several links, and around one that is out.

use crate::keys::{Network, eventually, keys};
use crate::support::{Place, qkdnet, shipped_network_but, success};

/// Longer epochs, so that less is waited for, and no more light than the machine has room for beside.
const RUN: &str = "run: {speed: 8, fidelity: counts, epoch: 50 ms, latency: 8}\n  faults: {allowed: true}";
const POOL_KEYS: usize = 1_000_000 / 256;
/// Applications that ask all the time, one master at each site: as the line cards of the Cambridge network.
const APPLICATIONS: [(&str, &str); 2] =
    [("line-card-1-cape", "line-card-1-trel"), ("line-card-2-trel", "line-card-2-cape")];
const KEYS_PER_REQUEST: usize = 32;
/// The levels of the paper, in keys.
const REFILLED_BELOW: u64 = 800;

/// The Cambridge network with fewer pulses, short rounds and small pools, so that a pool is soon full and soon empty.
fn cambridge() -> String {
    let relay = "relay: {lowWater: 204800 bit, highWater: 256000 bit, reroute: true}";
    let changes = [
        ("run: {speed: max, fidelity: counts, epoch: 20 ms, latency: 8}", RUN),
        (relay, &format!("pool: 1000000 bit\n    whenFull: expire\n    {relay}")),
        ("repetitionRate: 1 GHz\n", "repetitionRate: 20 MHz\n"),
        // Decoys of the check basis are few.
        ("zProbability: 93.75 %", "zProbability: 50 %"),
        ("round: 5 s", "round: 1 s"),
        ("round: 3.8 s", "round: 1 s"),
    ];
    shipped_network_but("cambridge.yaml", &changes)
}

/// The UK backbone with fewer pulses over less fibre, and short rounds.
fn backbone() -> String {
    let changes = [
        ("run: {speed: max, fidelity: counts, epoch: 20 ms, latency: 8}", RUN),
        ("repetitionRate: 1 GHz\n", "repetitionRate: 20 MHz\n"),
        ("zProbability: 94 %", "zProbability: 50 %"),
        ("length: 118.2 km", "length: 10 km"),
        ("length: 128.3 km", "length: 10 km"),
        ("length: 81.75 km", "length: 10 km"),
        ("round: 10 min", "round: 1 s"),
        ("        # A day takes minutes then.\n        epoch: 1 s\n", ""),
        ("round: 20 min", "round: 1 s"),
        ("round: 1 min", "round: 1 s"),
    ];
    shipped_network_but("ukqn-backbone.yaml", &changes)
}

fn fault(place: &Place, words: &[&str]) {
    let mut command = qkdnet();
    command.arg("fault").args(words).arg("--data").arg(place.path("data"));
    success(command);
}

/// IDs of new keys of one request. It must not fail, and both ends must get the same.
fn request(network: &Network<'_>, (master, slave): (&str, &str)) -> Vec<String> {
    let number = KEYS_PER_REQUEST.to_string();
    let got = success(network.key(&["get", "--sae", master, "--to", slave, "--number", &number]));
    let got = keys(&got.stdout);
    assert_eq!(got.len(), KEYS_PER_REQUEST);
    let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
    let fetched = network.fetch(slave, master, &ids);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(keys(&fetched.stdout) == got, "the two ends got different keys");
    got.into_iter().map(|(id, _)| id).collect()
}

/// All applications ask, one request after the other, until they have so many keys; those of each in order.
fn keep_asking(network: &Network<'_>, keys: usize) -> Vec<Vec<String>> {
    let requests = keys.div_ceil(APPLICATIONS.len() * KEYS_PER_REQUEST);
    std::thread::scope(|scope| {
        let asking =
            APPLICATIONS.map(|pair| scope.spawn(move || (0..requests).flat_map(|_| request(network, pair)).collect()));
        asking.map(|asking| asking.join().expect("no request fails")).into()
    })
}

/// How many of these keys the relay of the third site has seen.
fn came_over_engi(network: &Network<'_>, ids: &[String]) -> usize {
    let exposed = network.exposed("engi");
    ids.iter().filter(|id| exposed.contains(id)).count()
}

#[test]
fn no_request_fails_while_a_link_is_out_as_key_goes_around_it_and_then_it_is_the_direct_way_again() {
    let place = Place::new(&cambridge());
    let network = Network::start(&place, "tasks");
    // The two ways around have more than is wanted of this one.
    let ways = [("line-card-1-cape", "engineering"), ("line-card-1-trel", "engineering"), APPLICATIONS[0]];
    for ((master, slave), keys) in ways.into_iter().zip([2 * REFILLED_BELOW, 2 * REFILLED_BELOW, REFILLED_BELOW]) {
        let filled = || (network.stored(master, slave) > keys).then_some(());
        eventually("a pool with some key", filled).unwrap_or_else(|| panic!("{master} and {slave}"));
    }
    keep_asking(&network, 2 * KEYS_PER_REQUEST);
    fault(&place, &["cut", "cape-trel", "--arm", "trel"]);
    let mut asked = 0;
    let around =
        |keys: &Vec<String>| came_over_engi(&network, &keys[keys.len() - KEYS_PER_REQUEST..]) == KEYS_PER_REQUEST;
    while !keep_asking(&network, 8 * KEYS_PER_REQUEST).iter().all(around) {
        asked += 8 * KEYS_PER_REQUEST;
        assert!(asked < 2 * POOL_KEYS, "{asked} keys in the outage, and they are still the link's own");
    }
    keep_asking(&network, 8 * KEYS_PER_REQUEST);
    let level = || (network.stored(APPLICATIONS[0].0, APPLICATIONS[0].1) >= REFILLED_BELOW).then_some(());
    eventually("the pool is refilled", level).expect("a pool at its level");
    fault(&place, &["clear", "--all"]);
    let mut asked = 0;
    while came_over_engi(&network, &keep_asking(&network, 4 * KEYS_PER_REQUEST).concat()) > 0 {
        asked += 4 * KEYS_PER_REQUEST;
        assert!(asked < 2 * POOL_KEYS, "{asked} keys behind the outage, and some still come around");
    }
    network.stop();
    let mut ledger = qkdnet();
    ledger.arg("ledger").arg("--data").arg(place.path("data"));
    let text = String::from_utf8(success(ledger).stdout).expect("text");
    assert!(text.contains("of it relayed") && !text.contains("WRONG"), "{text}");
}

#[test]
fn key_goes_from_end_to_end_of_the_uk_backbone_and_every_relay_between_has_seen_it() {
    let place = Place::new(&backbone());
    let network = Network::start(&place, "tasks");
    let (bristol, cambridge) = ("university-of-bristol", "university-of-cambridge");
    let got = network.get(bristol, cambridge, "3");
    let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
    let fetched = network.fetch(cambridge, bristol, &ids);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(keys(&fetched.stdout) == got, "the two ends got different keys");
    for relay in ["froxfield", "powergate", "relay-3"] {
        assert_eq!(network.exposed(relay), ids, "{relay}");
    }
    network.stop();
}
