//! Every bit accounted for, to the end: ledgers of links and of key stores, and the figures of every span beside them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use telemetry::names::{attribute, span as name};
use telemetry::store::{SpanRecord, Store};

use crate::keys::{Key, Network, eventually, keys};
use crate::support::{
    Place, assert_equal_keys, bright_network_with_small_transfers, bright_with, qkdnet, success, summary,
};

/// What a relay puts around a key under one-time pad, in bytes.
const SEAL_OVERHEAD_BYTES: u64 = 32;
/// A transfer takes tens of milliseconds, and links make key for the next one several times a second.
const REST: Duration = Duration::from_secs(3);

fn ledger(place: &Place, format: &str) -> String {
    let mut command = qkdnet();
    command.arg("ledger").arg("--data").arg(place.path("data")).args(["--blocks", "--output", format]);
    String::from_utf8(success(command).stdout).expect("text")
}

fn json(place: &Place) -> Value {
    serde_json::from_str(&ledger(place, "json")).expect("JSON")
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("no list `{field}`"))
}

fn bits(value: &Value, path: &[&str]) -> u64 {
    let found = path.iter().fold(value, |value, field| &value[*field]);
    found.as_u64().unwrap_or_else(|| panic!("{path:?} is no number: {found}"))
}

/// The sums that `qkdnet ledger` says are exact, computed again from its figures.
fn assert_exact(ledger: &Value) {
    let mut somewhere = 0;
    for pool in list(ledger, "pools") {
        let uses = ["supply_out", "supply_in", "relay_out", "relay_in"];
        let mut placed = 0;
        for field in [
            "pending_bits",
            "confirmation_bits",
            "quarantined_bits",
            "abandoned_bits",
            "unassigned_bits",
            "voided_bits",
        ] {
            placed += bits(pool, &[field]);
        }
        for use_ in uses {
            let spent: u64 = ["handed_out_bits", "wasted_bits", "expired_bits", "left_bits"]
                .iter()
                .map(|field| bits(pool, &[use_, field]))
                .sum();
            assert_eq!(bits(pool, &[use_, "assigned_bits"]), spent, "{use_} of {pool}");
            placed += spent;
        }
        assert_eq!(bits(pool, &["offered_bits"]), placed, "{pool}");
        if !list(pool, "links").is_empty() {
            let came = placed + bits(pool, &["waiting_bits"]) + bits(pool, &["remainder_bits"]);
            assert_eq!(bits(pool, &["delivered_bits"]), came, "{pool}");
        }
        somewhere += placed + bits(pool, &["waiting_bits"]) + bits(pool, &["remainder_bits"]);
    }
    let modules: u64 = list(ledger, "links").iter().map(|end| bits(end, &["total", "delivered"])).sum();
    let relayed = bits(ledger, &["total", "relayed_bits"]);
    assert_eq!(modules, bits(ledger, &["total", "modules_bits"]));
    assert_eq!(modules + relayed, somewhere, "all sites");
    assert!(modules > 0 && relayed > 0);
}

fn pool<'v>(ledger: &'v Value, site: &str, peer: &str) -> &'v Value {
    let found = list(ledger, "pools").iter().find(|pool| pool["site"] == site && pool["peer"] == peer);
    found.unwrap_or_else(|| panic!("no pool of {site} and {peer}"))
}

/// Gets keys at one end and fetches them at the other.
fn deliver(network: &Network<'_>, master: &str, slave: &str, number: &str) -> Vec<Key> {
    let got = network.get(master, slave, number);
    let ids: Vec<&str> = got.iter().map(|(id, _)| id.as_str()).collect();
    let fetched = network.fetch(slave, master, &ids);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(keys(&fetched.stdout) == got, "the two ends got different keys");
    got
}

/// Waits until the pool of the two sites without a link is as full as it gets.
fn until_relaying_rests(place: &Place) {
    let (mut known, mut since) = ([0; 2], Instant::now());
    let rests = eventually("relaying that rests", || {
        let ledger = json(place);
        let offered = [("calern", "sophia"), ("sophia", "calern")]
            .map(|(site, peer)| bits(pool(&ledger, site, peer), &["offered_bits"]));
        if offered != known {
            (known, since) = (offered, Instant::now());
        }
        (offered[0] == offered[1] && since.elapsed() > REST).then_some(())
    });
    rests.expect("a full pool");
}

/// Sums of a figure of spans, by what they are of.
fn sums<'s>(
    spans: impl Iterator<Item = &'s SpanRecord>,
    of: impl Fn(&SpanRecord) -> Option<(String, u64)>,
) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (what, figure) in spans.filter_map(of) {
        *sums.entry(what).or_insert(0) += figure;
    }
    sums
}

fn figure(span: &SpanRecord, attribute: &str) -> u64 {
    let found = span.integer(attribute).unwrap_or_else(|| panic!("{} has no {attribute}", span.name));
    u64::try_from(found).expect("no negative figure")
}

fn between(span: &SpanRecord, peer: &str) -> Option<String> {
    let site = span.service.trim_start_matches("kms-").trim_start_matches("relay-");
    Some(format!("{site} {}", span.text(peer)?))
}

#[test]
fn every_bit_of_a_network_is_somewhere_and_every_span_says_what_the_ledger_says() {
    let place = Place::new(&bright_network_with_small_transfers());
    let network = Network::start(&place, "tasks");
    let neighbours = deliver(&network, "university", "inria", "5");
    deliver(&network, "inria", "university", "3");
    let relayed = deliver(&network, "inria", "observatory", "4");
    // What is under way when a network stops, the key store may have released and the relay not heard of it.
    until_relaying_rests(&place);
    // While it runs, and with it stopped.
    let running = json(&place);
    assert_exact(&running);
    network.stop();
    let stopped = json(&place);
    assert_exact(&stopped);
    let text = ledger(&place, "text");
    assert!(!text.contains("WRONG") && text.contains("all sites"), "{text}");

    let key_bits = 256;
    let handed_out = |site, peer, use_| bits(pool(&stopped, site, peer), &[use_, "handed_out_bits"]);
    assert_eq!(handed_out("valrose", "sophia", "supply_out"), 5 * key_bits);
    assert_eq!(handed_out("sophia", "valrose", "supply_in"), 5 * key_bits);
    assert_eq!(handed_out("sophia", "valrose", "supply_out"), 3 * key_bits);
    assert_eq!(handed_out("sophia", "calern", "supply_out"), 4 * key_bits);
    assert_eq!(handed_out("calern", "sophia", "supply_in"), 4 * key_bits);

    let mut spans = Vec::new();
    let store = Store::open([place.path("data").join("_spans")]).expect("open the spans");
    store.spans(|span| spans.push(span)).expect("read the spans");
    spans_say_what_the_ledger_says(&spans, &stopped);

    for (id, what) in [(&neighbours[0].0, "link valrose-sophia block "), (&relayed[0].0, "relayed ")] {
        let mut command = qkdnet();
        command.arg("trace").arg(id).arg("--data").arg(place.path("data"));
        let text = String::from_utf8(success(command).stdout).expect("text");
        let made_of = text.lines().filter(|line| line.starts_with("  bits 0..") && line.contains(what));
        assert_eq!(made_of.count(), 2, "{what} is not said at both ends:\n{text}");
        for word in ["supplied to", "fetched by", "light of epochs"] {
            assert!(text.contains(word), "`{word}` is not in\n{text}");
        }
    }
    let mut command = qkdnet();
    command.arg("trace").arg(&relayed[0].0).arg("--data").arg(place.path("data"));
    let text = String::from_utf8(success(command).stdout).expect("text");
    for words in ["kms-valrose: transfer ", "  sealed for ", "  opened from ", "    bits 0.."] {
        assert!(text.lines().any(|line| line.starts_with(words)), "`{words}` is not in\n{text}");
    }
}

fn spans_say_what_the_ledger_says(spans: &[SpanRecord], ledger: &Value) {
    let named = |wanted: &'static str| spans.iter().filter(move |span| span.name == wanted);
    let mut expected: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    let mut expect = |name: &'static str, what: String, figure: u64| {
        if figure > 0 {
            expected.entry(name).or_default().insert(what, figure);
        }
    };
    for pool in list(ledger, "pools") {
        let way = format!("{} {}", pool["site"].as_str().expect("a site"), pool["peer"].as_str().expect("a peer"));
        expect(name::SUPPLY, way.clone(), bits(pool, &["supply_out", "handed_out_bits"]));
        expect(name::FETCH, way.clone(), bits(pool, &["supply_in", "handed_out_bits"]));
        expect("sealed", way.clone(), bits(pool, &["relay_out", "handed_out_bits"]));
        expect("opened", way.clone(), bits(pool, &["relay_in", "handed_out_bits"]));
        if !list(pool, "links").is_empty() {
            expect(name::INGEST, way, bits(pool, &["offered_bits"]));
        }
    }
    let mut said: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for request in [name::SUPPLY, name::FETCH] {
        let of = |span: &SpanRecord| Some((between(span, attribute::PEER_SITE)?, figure(span, attribute::KEY_BITS)));
        said.insert(request, sums(named(request), of));
        // Below each request there is a span for each of its keys, whose bits make up those of the request.
        for span in named(request) {
            let keys = named(name::KEY).filter(|key| key.parent.as_ref() == Some(&span.span));
            let sizes: Vec<u64> = keys.map(|key| figure(key, attribute::KEY_BITS)).collect();
            assert_eq!(sizes.len() as u64, figure(span, attribute::KEY_COUNT));
            assert_eq!(sizes.iter().sum::<u64>(), figure(span, attribute::KEY_BITS));
        }
    }
    let ingest = |span: &SpanRecord| Some((between(span, attribute::PEER_SITE)?, figure(span, attribute::KEY_BITS)));
    said.insert(name::INGEST, sums(named(name::INGEST), ingest));
    // A request that is repeated, or refused before, takes no pad; where one was taken it is told.
    let pads = |peer: &'static str, pad: &'static str| {
        move |span: &SpanRecord| {
            let taken = !span.texts(pad).is_empty();
            let bytes = || figure(span, attribute::TRANSFER_BYTES) + SEAL_OVERHEAD_BYTES;
            Some((between(span, peer)?, 8 * taken.then(bytes)?))
        }
    };
    said.insert("sealed", sums(named(name::RELAY), pads(attribute::NEXT_SITE, attribute::PAD_OUT_PIECE)));
    said.insert("opened", sums(named(name::RELAY), pads(attribute::PEER_SITE, attribute::PAD_IN_PIECE)));
    assert_eq!(said, expected, "spans say other figures than the ledger");

    blocks_say_what_the_ledger_says(spans, ledger);
    transfers_become_blocks(spans, ledger);
}

/// Every block at every end: each line of its ledger.
fn blocks_say_what_the_ledger_says(spans: &[SpanRecord], ledger: &Value) {
    let mut compared = 0;
    for end in list(ledger, "links") {
        let (site, link) = (end["site"].as_str().expect("a site"), end["link"].as_str().expect("a link"));
        for block in list(end, "blocks").iter().filter(|block| block["state"] == "stored") {
            let of_block = spans.iter().find(|span| {
                span.name == name::BLOCK
                    && span.text(attribute::LINK_ID) == Some(link)
                    && span.text(attribute::SITE_ID) == Some(site)
                    && span.integer(attribute::BLOCK_ID) == block["block"].as_i64()
            });
            let span = of_block.unwrap_or_else(|| panic!("no span of block {} of {link} at {site}", block["block"]));
            let lines = span.ledger();
            for (line, value) in block["ledger"].as_object().expect("a ledger") {
                let of_end = value.as_object().into_iter().flatten();
                let parts = of_end.map(|(part, value)| (format!("{line}.{part}"), value));
                for (line, value) in parts.chain([(line.clone(), value)]).filter(|(_, value)| value.is_u64()) {
                    assert_eq!(
                        lines.get(line.as_str()).or(Some(&0)).copied(),
                        value.as_i64(),
                        "{line} of block {}",
                        block["block"]
                    );
                }
            }
            assert_eq!(span.text(attribute::BLOCK_OUTCOME), Some("stored"));
            compared += 1;
        }
    }
    assert!(compared >= 4, "{compared} blocks were compared");
}

/// Transfers that were released at their origin are what the pools of sites without a link have taken.
fn transfers_become_blocks(spans: &[SpanRecord], ledger: &Value) {
    // A message that comes again begins a span of its own: each transfer counts once.
    let bits_of = |outcome: &str| {
        let transfers = spans
            .iter()
            .filter(|span| span.name == name::TRANSFER && span.text(attribute::TRANSFER_OUTCOME) == Some(outcome));
        let once: BTreeMap<&str, u64> = transfers
            .map(|span| {
                (span.text(attribute::TRANSFER_ID).expect("an ID"), 8 * figure(span, attribute::TRANSFER_BYTES))
            })
            .collect();
        once.values().sum::<u64>()
    };
    let (released, delivered) = (bits_of("released"), bits_of("delivered"));
    let offered = |site, peer| bits(pool(ledger, site, peer), &["offered_bits"]);
    let ends = [offered("calern", "sophia"), offered("sophia", "calern")];
    assert!(released > 0 && delivered > 0);
    // Calern has the smaller name: its relay fills the pool.
    assert_eq!(ends[0], released, "at the origin");
    assert_eq!(ends[1], delivered, "at the target");
}

/// Nobody takes key, and several times more is made than the pool holds.
#[test]
fn a_full_pool_gives_up_its_oldest_key_at_both_sites_and_its_link_goes_on() {
    const POOL_BITS: u64 = 200_000;
    let place = Place::new(&bright_with("pool: 200000 bit, whenFull: expire", ""));
    place.up("data", &["--for", "20s", "--seed", "7", "--fidelity", "counts"]);
    let made = assert_equal_keys(&place.digest("data")).bits;
    assert!(made > 2 * POOL_BITS, "{made} bits");
    let ledger = json(&place);
    let of_site = |site: &str, peer: &str| {
        let pool = pool(&ledger, site, peer);
        let uses = ["supply_out", "supply_in", "relay_out", "relay_in"];
        let sum = |field: &str| uses.iter().map(|use_| bits(pool, &[*use_, field])).sum::<u64>();
        let placed = bits(pool, &["pending_bits"]) + bits(pool, &["unassigned_bits"]) + sum("left_bits");
        // In whole bytes, and what confirms a block.
        let (given_up, confirmation) = (sum("expired_bits"), bits(pool, &["confirmation_bits"]));
        assert!(placed <= POOL_BITS && given_up > 0, "{pool}");
        assert_eq!(placed + given_up + confirmation + sum("wasted_bits"), bits(pool, &["offered_bits"]), "{pool}");
        assert_eq!((bits(pool, &["waiting_bits"]), pool.get("wrong")), (0, None), "{pool}");
        given_up
    };
    // The end of the run may come while one of the two has done it and the other one not yet.
    let apart = of_site("sophia", "valrose").abs_diff(of_site("valrose", "sophia"));
    assert!(apart <= POOL_BITS / 4, "{apart} bits");
}

/// Nobody takes key: the link goes dark, the run comes to its end, and what found no room is kept.
#[test]
fn a_full_pool_darkens_its_link_where_that_is_asked_for_and_time_goes_on() {
    let place = Place::new(&bright_with("pool: 200000 bit, whenFull: dark", ""));
    let events = place.up("data", &["--for", "60s", "--fidelity", "counts"]);
    let out = events.iter().find(|event| event["name"] == "light-out").expect("a link that goes dark");
    assert!(out["message"].as_str().expect("a message").contains("no room for key of detector-"), "{out}");
    let summary = summary(&events);
    assert!(summary["simulated_s"].as_f64().expect("a time") >= 59.0, "{summary}");
    let availability = summary["links"][0]["figures"]["availability"].as_f64().expect("a share");
    assert!((0.05..0.95).contains(&availability), "{summary}");
    assert_equal_keys(&place.digest("data"));
    let mut seeded = qkdnet();
    seeded.arg("up").arg(place.topology()).arg("--data").arg(place.path("other")).args(["--for", "1s", "--seed", "7"]);
    let output = seeded.output().expect("start qkdnet");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("`--seed 7`") && said.contains("whenFull: dark"), "{said}");
}
