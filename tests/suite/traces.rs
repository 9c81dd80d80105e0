//! The trace of a block: one connected tree whose figures are the ledger's.

use telemetry::store::Store;

use crate::support::{Place, bright, qkdnet, success};

#[test]
fn a_block_is_one_connected_tree_from_emission_to_both_stores_and_agrees_with_the_ledger() {
    let place = Place::new(&bright(&[]));
    let lines = place.up("data", &["--for", "4s", "--seed", "3"]);
    let spans = place.path("data").join("_spans");
    let store = Store::open([&spans]).expect("open the spans");
    let traces = store.block(1, Some("valrose-sophia")).expect("read the spans");
    let [trace] = &traces[..] else { panic!("{} traces of block 1", traces.len()) };
    assert!(trace.is_connected());
    let services = trace.services();
    for service in ["source-valrose-sophia", "detector-valrose-sophia-valrose", "detector-valrose-sophia-sophia"] {
        assert!(services.iter().any(|s| *s == service), "{service} is not among {services:?}");
    }
    let blocks: Vec<_> =
        trace.spans().iter().filter(|s| s.name == "qkd.block" && s.integer("qkd.block.id") == Some(1)).collect();
    assert_eq!(blocks.len(), 2, "one at each end");
    let mut command = qkdnet();
    command.arg("ledger").arg("--data").arg(place.path("data")).args(["--blocks", "--output", "json"]);
    let text = String::from_utf8(success(command).stdout).expect("text");
    for block in blocks {
        let delivered = block.ledger()["delivered"];
        assert!(delivered > 0);
        assert!(text.contains(&format!("\"delivered\":{delivered}")), "{delivered} is not in {text}");
    }
    assert!(lines.iter().any(|line| line["name"] == "block-stored"));
    let mut command = qkdnet();
    command.args(["trace", "1", "--data"]).arg(place.path("data"));
    let tree = String::from_utf8(success(command).stdout).expect("text");
    for name in
        ["qkd.source.emit", "qkd.block", "qkd.sift", "qkd.reconcile", "qkd.amplify", "qkd.authenticate", "qkd.store"]
    {
        assert!(tree.contains(name), "{name} is not in\n{tree}");
    }
}
