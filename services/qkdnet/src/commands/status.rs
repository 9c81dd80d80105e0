//! `qkdnet status`: where a running network's key stores are, and who may ask them.

use std::fmt::Write as _;

use runner::Failure;
use runner::network::Network;

use super::{print, print_json};
use crate::cli::{Output, Place, StatusArgs};
use crate::cluster;

pub fn run(args: &StatusArgs) -> Result<(), Failure> {
    match args.place.place() {
        Place::Data(data) => {
            let network = running(data)?;
            match args.output.output {
                Output::Json => print_json(&network),
                Output::Text => print(&text(&network)),
            }
        }
        Place::Cluster(place) => {
            let network = cluster::run(place, async |there| cluster::status(there).await)?;
            match args.output.output {
                Output::Json => print_json(&network),
                Output::Text => print(&network.text()),
            }
        }
    }
}

/// The network that runs on this data.
pub fn running(data: &std::path::Path) -> Result<Network, Failure> {
    Network::read(data)?.ok_or_else(|| {
        Failure::failed(format!("no network runs on {}", data.display()))
            .hint("start one with `qkdnet up FILE --data DIR`, and give the same directory here")
    })
}

fn text(network: &Network) -> String {
    let flows = if network.ready { "key flows on every link" } else { "not every link has key yet" };
    let mut text = format!("{}: {flows}\n", network.topology);
    if network.seeded {
        text.push_str("a seed makes this run repeatable: its keys are worthless\n");
    }
    if let Some(time) = &network.network_time {
        let _ = writeln!(text, "{time}");
    }
    for row in &network.rolled_back {
        let _ = writeln!(text, "{row}");
    }
    for link in &network.waiting {
        let _ = writeln!(text, "{} {}: {}", link.link, link.state, link.way_out);
    }
    for lasting in &network.no_path {
        let _ = writeln!(text, "no path: {lasting}");
    }
    for fault in &network.faults {
        let state = if fault.active { "fault" } else { "fault to come" };
        let _ = writeln!(text, "{state} {}: {}", fault.id, fault.what);
    }
    for site in &network.sites {
        let _ = writeln!(text, "\n{}  {}  {}", site.site, site.kme_id, site.url);
        for sae in &site.saes {
            let _ = writeln!(text, "  {}  {}", sae.id, sae.cert.display());
        }
    }
    text
}
