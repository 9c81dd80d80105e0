//! `qkdnet restore`: makes a network that was put back from a copy safe to run, by voiding what may have been used.

use std::path::{Path, PathBuf};

use anchor::Anchor;
use anyhow::{Context, Result};
use runner::anchors::Anchors;
use runner::lock::Lock;
use runner::{Failure, Folders};
use serde::Serialize;
use shell::files;

use super::data::directories;
use super::{print, print_json};
use crate::cli::{Output, RestoreArgs};
use crate::cluster;
use crate::style::tell;

/// A reserve that is remade is as large as the one before, within these bits per direction.
const RESERVE_BITS: std::ops::RangeInclusive<u64> = 65_536..=1_048_576;

/// One thing that is, or would be, void.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Voided {
    pub site: String,
    /// `key store`, `relay`, `authentication reserve of LINK`, `blocks of LINK`.
    pub store: String,
    /// What is lost, and what takes its place.
    pub what: String,
}

pub fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let (voided, after) = match &args.data {
        Some(data) => (on_this_machine(args, data)?, AFTER),
        None => {
            (cluster::run(&args.cluster, async |cluster| cluster::restore(cluster, args.dry_run).await)?, AFTER_CLUSTER)
        }
    };
    match args.output.output {
        Output::Json => print_json(&voided),
        Output::Text => print(&text(&voided, if args.dry_run { DRY_RUN } else { after })),
    }
}

fn on_this_machine(args: &RestoreArgs, data: &Path) -> Result<Vec<Voided>, Failure> {
    let network = Stored::find(data)?;
    Ok(if args.dry_run {
        network.would_void()
    } else {
        let folders = Folders::of(data);
        folders.create()?;
        // Nobody starts a network on what is being voided.
        let _lock = Lock::take(&folders).map_err(|error| {
            Failure::failed(shell::chain(&error).to_string()).hint("stop the network, restore, and start it again")
        })?;
        let anchors = args.state.anchors();
        if let Some(why) = anchors.missing() {
            tell(&format!("warning: what keeps the ceilings is not there, and is not told: {why}"));
        }
        network.void(&anchors)?
    })
}

fn text(voided: &[Voided], after: &str) -> String {
    let place = |site: &str| if site.is_empty() { String::new() } else { format!(" of {site}") };
    let line = |one: &Voided| format!("{}{}: {}\n", one.store, place(&one.site), one.what);
    let lines: String = voided.iter().map(line).collect();
    format!("{lines}{after}\n")
}

const DRY_RUN: &str = "nothing was changed: this is what `qkdnet restore` would do";
const AFTER: &str = "start the network again; key that applications hold stays good, key that was not fetched is lost";
const AFTER_CLUSTER: &str = "the volumes are given up, ledgers with them, and the pods start on fresh ones; key that \
                             applications hold stays good, key that was not fetched is lost";

/// What a data directory holds of a network.
struct Stored {
    data: PathBuf,
    key_stores: Vec<String>,
    relays: Vec<String>,
    /// Link and site.
    ends: Vec<(String, String)>,
}

impl Stored {
    fn find(data: &Path) -> Result<Self, Failure> {
        let mut stored = Self { data: data.to_owned(), key_stores: vec![], relays: vec![], ends: vec![] };
        for (site, folder) in directories(data)? {
            if site.starts_with(['.', '_']) {
                continue;
            }
            for (name, _) in directories(&folder)? {
                match name.as_str() {
                    "kms" => stored.key_stores.push(site.clone()),
                    "relay" => stored.relays.push(site.clone()),
                    link if places(data, &site, link).iter().any(|path| path.exists()) => {
                        stored.ends.push((name.clone(), site.clone()));
                    }
                    _ => {}
                }
            }
        }
        stored.ends.sort();
        if stored.key_stores.is_empty() && stored.ends.is_empty() {
            return Err(Failure::bad_input(format!("{} holds no network", data.display()))
                .hint("give the directory that `qkdnet up --data` wrote to"));
        }
        Ok(stored)
    }

    fn would_void(&self) -> Vec<Voided> {
        let one =
            |site: &str, store: String, what: &str| Voided { site: site.to_owned(), store, what: what.to_owned() };
        let ends = self.ends.iter().flat_map(|(link, site)| {
            let whole = self.ends.iter().filter(|(other, _)| other == link).count() == 2;
            let reserve = if whole { RESERVE } else { RESERVE_ALONE };
            [
                one(site, format!("blocks of {link}"), BLOCKS),
                one(site, format!("authentication reserve of {link}"), reserve),
            ]
        });
        let stores = self.key_stores.iter().map(|site| one(site, "key store".to_owned(), KEY_STORE));
        let relays = self.relays.iter().map(|site| one(site, "relay".to_owned(), RELAY));
        ends.chain(stores).chain(relays).collect()
    }

    /// Each step may be repeated: what was voided is voided again.
    fn void(&self, anchors: &Anchors) -> Result<Vec<Voided>> {
        for (link, site) in &self.ends {
            module::vault::void_restored(&self.data, None, site, link, anchors.open()?)
                .with_context(|| format!("void the blocks of {link} at {site}"))?;
        }
        for link in self.ends.chunk_by(|(a, _), (b, _)| a == b) {
            self.void_reserves(link, &*anchors.open()?)?;
        }
        for site in &self.key_stores {
            kms::void_restored(&self.data, site, None, anchors.open()?)
                .with_context(|| format!("void the key store of {site}"))?;
        }
        for site in &self.relays {
            relay::void_restored(&self.data, site, &*anchors.open()?)
                .with_context(|| format!("void the relay of {site}"))?;
        }
        Ok(self.would_void())
    }

    /// Both ends get the same fresh secret, of which the next start makes a reserve; the one before goes. Of one that is
    /// here alone nothing is left to authenticate with, until somebody places a secret at both ends.
    fn void_reserves(&self, ends: &[(String, String)], anchor: &dyn Anchor) -> Result<()> {
        let both: Vec<[PathBuf; 3]> = ends.iter().map(|(link, site)| places(&self.data, site, link)).collect();
        let bytes = both.iter().filter_map(|[reserve, ..]| Some(reserve.metadata().ok()?.len())).max().unwrap_or(0);
        let secret = channel::new_secret((bytes * 4).clamp(*RESERVE_BITS.start(), *RESERVE_BITS.end()));
        let secret = secret.context("draw a secret")?;
        for (link, site) in ends {
            channel::give_up_reserve(&self.data, site, link, anchor)
                .with_context(|| format!("give up the authentication reserve of {link} at {site}"))?;
        }
        // First both go: a crash here leaves no end with a reserve that the other has not.
        for path in both.iter().flat_map(|[reserve, secret, _]| [reserve, secret]) {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        if both.len() == 2 {
            for [_, path, _] in &both {
                files::write_durably(path, &secret).with_context(|| format!("write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// What an end of a link keeps: its reserve, its placed secret, its blocks.
fn places(data: &Path, site: &str, link: &str) -> [PathBuf; 3] {
    let secret = channel::secret_path(data, site, link);
    [secret.with_extension("reserve"), secret, module::store::path(data, site, link)]
}

pub const KEY_STORE: &str = "what it held is void; each of its pools starts over with fresh key";
pub const RELAY: &str = "transfers under way are void";
pub const BLOCKS: &str = "blocks that were not delivered are void";
pub const RESERVE: &str = "remade from a fresh secret at both ends";
const RESERVE_ALONE: &str = "void until the same fresh `authentication.secret` is placed at both ends";
