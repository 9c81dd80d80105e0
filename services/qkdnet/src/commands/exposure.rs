//! `qkdnet exposure`: which delivered keys a compromised relay would have seen.

use std::fmt::Write as _;
use std::path::Path;

use kms::deliveries;
use runner::Failure;
use serde::{Deserialize, Serialize};

use super::{print, print_json};
use crate::cli::{ExposureArgs, Output, Place};
use crate::cluster;

/// A delivered key that has passed through the site.
#[derive(Serialize, Deserialize)]
struct Exposed {
    key_id: String,
    master: String,
    slave: String,
    sites: [String; 2],
    /// Bits of the key that the relay has seen.
    bits: u64,
}

pub fn run(args: &ExposureArgs) -> Result<(), Failure> {
    let exposed = match args.place.place() {
        Place::Data(data) => exposed(data, &args.site, args.elsewhere)?,
        Place::Cluster(place) => cluster::run(place, async |there| {
            let known = cluster::status(there).await?.sites;
            let known: Vec<&str> = known.iter().map(|site| site.site.as_str()).collect();
            anyhow::ensure!(known.contains(&args.site.as_str()), "there is no key store at `{}`", args.site);
            cluster::exposure(there, &args.site).await
        })?,
    };
    match args.output.output {
        Output::Json => print_json(&exposed),
        Output::Text => print(&text(&exposed, &args.site)),
    }
}

/// Delivered keys in the records of the key stores on this data.
fn exposed(data: &Path, relay: &str, elsewhere: bool) -> Result<Vec<Exposed>, Failure> {
    let sites = key_stores(data)?;
    if !elsewhere && !sites.iter().any(|site| site == relay) {
        let known = format!("sites with a key store: {}", sites.join(", "));
        return Err(Failure::bad_input(format!("there is no key store at `{relay}`")).hint(known));
    }
    let mut exposed = Vec::new();
    for site in &sites {
        for key in deliveries::read(data, site)? {
            let bits = key.exposed_bits(relay);
            if bits > 0 {
                let deliveries::RelayedKey { key_id, master, slave, sites, .. } = key;
                exposed.push(Exposed { key_id, master, slave, sites, bits });
            }
        }
    }
    Ok(exposed)
}

/// Sites with a key store, by name.
fn key_stores(data: &Path) -> Result<Vec<String>, Failure> {
    let entries = std::fs::read_dir(data)
        .map_err(|error| Failure::bad_input(format!("cannot read {}: {error}", data.display())))?;
    let mut sites = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if keystore::folder(data, &name).is_dir() {
            sites.push(name);
        }
    }
    sites.sort();
    Ok(sites)
}

fn text(exposed: &[Exposed], site: &str) -> String {
    let mut text = format!("{} delivered keys have passed through the relay at {site}\n", exposed.len());
    for key in exposed {
        let [master, slave] = &key.sites;
        let _ = writeln!(text, "{}  {} ({master}) - {} ({slave})  {} bit", key.key_id, key.master, key.slave, key.bits);
    }
    text
}
