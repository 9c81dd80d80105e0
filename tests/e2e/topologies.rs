//! The topologies of Nice, changed so that a test sees in seconds what takes the real ones minutes.

use crate::cluster::repository;

/// A shipped topology.
pub fn shipped(file: &str) -> String {
    let path = repository().join("topologies").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// All of Nice with little loss, few pairs and short rounds, under another name; faults are allowed.
pub fn bright(name: &str, run: &str) -> String {
    let changes = [
        ("name: nice\n".to_owned(), format!("name: {name}\n")),
        ("spec:\n".to_owned(), "spec:\n  faults: {allowed: true}\n".to_owned()),
        ("run: {speed: max, epoch: 20 ms, latency: 8}".to_owned(), format!("run: {{epoch: 50 ms, latency: 8, {run}}}")),
        ("deviceLoss: 9.84214 dB".to_owned(), "deviceLoss: 1 dB".to_owned()),
        ("deviceLoss: 9.82234 dB".to_owned(), "deviceLoss: 1 dB".to_owned()),
        ("attenuation: 0.239 dB/km".to_owned(), "attenuation: 0.05 dB/km".to_owned()),
        ("pairRate: 3.21e8 /s".to_owned(), "pairRate: 5e5 /s".to_owned()),
        ("pairRate: 1.86e8 /s".to_owned(), "pairRate: 5e5 /s".to_owned()),
        ("round: 10 s".to_owned(), "round: 1 s".to_owned()),
        ("round: 300 s".to_owned(), "round: 1 s".to_owned()),
    ];
    changes.iter().fold(shipped("nice.yaml"), |text, (from, to)| changed(&text, from, to))
}

/// Replaces what must be there.
pub fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the topology has no `{from}`");
    text.replace(from, to)
}

/// With one more site, Antibes, behind Sophia.
pub fn with_antibes(text: &str) -> String {
    let second = text.find("    # The 100 km link").expect("the second link");
    let link = [
        ("name: valrose-calern", "name: sophia-antibes"),
        ("site: valrose", "site: sophia"),
        ("site: calern", "site: antibes"),
    ]
    .iter()
    .fold(text[second..].to_owned(), |link, (from, to)| changed(&link, from, to));
    changed(text, "  links:\n", "    - name: antibes\n      saes: [harbour]\n  links:\n") + &link
}

/// Without the last link and without the site that only it joins.
pub fn without_calern(text: &str) -> String {
    let site = text.find("    # Observatoire").expect("the site of the observatory");
    let links = text.find("  links:").expect("links");
    let second = text.find("    # The 100 km link").expect("the second link");
    let mut kept = text[..site].to_owned();
    kept += &text[links..second];
    kept
}
