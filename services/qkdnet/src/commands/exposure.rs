//! `qkdnet exposure`: which delivered keys a compromised relay would have seen.

use std::fmt::Write as _;

use kms::deliveries;
use serde::Serialize;

use super::{print, print_json};
use crate::cli::{ExposureArgs, Output};
use crate::failure::Failure;

/// A delivered key that has passed through the site.
#[derive(Serialize)]
struct Exposed {
    key_id: String,
    master: String,
    slave: String,
    sites: [String; 2],
    /// Bits of the key that the relay has seen.
    bits: u64,
}

pub fn run(args: &ExposureArgs) -> Result<(), Failure> {
    let sites = key_stores(args)?;
    if !sites.contains(&args.site) {
        let known = format!("sites with a key store: {}", sites.join(", "));
        return Err(Failure::bad_input(format!("there is no key store at `{}`", args.site)).hint(known));
    }
    let mut exposed = Vec::new();
    for site in &sites {
        for key in deliveries::read(&args.data, site)? {
            let bits = key.exposed_bits(&args.site);
            if bits > 0 {
                let deliveries::RelayedKey { key_id, master, slave, sites, .. } = key;
                exposed.push(Exposed { key_id, master, slave, sites, bits });
            }
        }
    }
    match args.output.output {
        Output::Json => print_json(&exposed),
        Output::Text => print(&text(&exposed, &args.site)),
    }
}

/// Sites with a key store, by name.
fn key_stores(args: &ExposureArgs) -> Result<Vec<String>, Failure> {
    let entries = std::fs::read_dir(&args.data)
        .map_err(|error| Failure::bad_input(format!("cannot read {}: {error}", args.data.display())))?;
    let mut sites = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if keystore::folder(&args.data, &name).is_dir() {
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
