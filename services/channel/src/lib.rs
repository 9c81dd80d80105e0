//! The channel service: one end of a link's classical authenticated channel.
//!
//! The protocol is [`distill::auth`]; this crate gives it a durable reserve, streams to the module and to the peer
//! endpoint, a clock that notices lost frames, and whoever may sit between two endpoints (`fault`).

mod fault;
mod grpc;
pub mod reserve;
mod run;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use distill::auth::{Endpoint, EndpointConfig, Layout, Side};
use proto::channel::v1::{ChannelMessage, ModuleMessage, PeerFrame};
use shell::disk::Disk;
use shell::duplex::Duplex;
use shell::fault::Desk;
use topology::plan::ChannelConfig;

pub use fault::Faults;
pub use grpc::{ChannelService, place, serve};
pub use reserve::{FileReserve, OpenError, RekeyError, new_secret};
pub use run::{Handle, run};
pub use status::Status;

/// The channel's end of a module's stream.
pub type ModuleStream = Duplex<ChannelMessage, ModuleMessage>;
/// Either end of the stream between two endpoints.
pub type PeerStream = Duplex<PeerFrame, PeerFrame>;

/// Messages that may wait in a stream beside what the transport holds; the lockstep never needs more.
pub const BUNDLES_IN_FLIGHT: usize = 4;

/// An endpoint that is ready to run.
pub struct ChannelEnd {
    config: ChannelConfig,
    endpoint: Endpoint<FileReserve>,
    handle: Handle,
    desk: Option<Desk>,
    requests: tokio::sync::mpsc::Receiver<run::Request>,
}

impl ChannelEnd {
    /// For what is asked of the endpoint while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// Where a site keeps the secret that was placed there for a link before the first run.
pub fn secret_path(data: &Path, site: &str, link: &str) -> PathBuf {
    folder(data, site, link).join("authentication.secret")
}

/// Where whoever starts an endpoint may have placed the secret of its link.
pub fn placed_secret_path(secrets: &Path, link: &str) -> PathBuf {
    secrets.join("links").join(format!("{link}.secret"))
}

/// Which one of the secrets of its link that is, where it is not the first: both ends must count alike.
pub fn placed_generation_path(secrets: &Path, link: &str) -> PathBuf {
    secrets.join("links").join(format!("{link}.generation"))
}

/// A file of any content here says that the placed secret was taken at this end before.
pub fn placed_mark_path(secrets: &Path, link: &str, site: &str) -> PathBuf {
    secrets.join("links").join(format!("{link}.{site}.used"))
}

fn reserve_path(data: &Path, site: &str, link: &str) -> PathBuf {
    folder(data, site, link).join("authentication.reserve")
}

fn folder(data: &Path, site: &str, link: &str) -> PathBuf {
    data.join(site).join(link)
}

/// Whether the reserves of the two ends of a link agree; while neither endpoint runs.
pub fn reserves_agree(ends: [&ChannelConfig; 2], data: &Path) -> Result<bool> {
    let [one, other] = ends
        .map(|config| open_reserve(config, data, &secret_path(data, &config.site, &config.link), 0, Disk::default()));
    Ok(one?.agrees_with(&other?))
}

/// Opens the reserve of one end, or makes it from the secret that was placed there. `desk` only where the topology
/// allows faults.
pub fn open(config: &ChannelConfig, data: &Path, desk: Option<Desk>) -> Result<ChannelEnd> {
    open_at(config, data, &secret_path(data, &config.site, &config.link), 0, desk)
}

/// As [`open`], with the secret from a folder that outlives the data. An end that lost its reserve must not begin the
/// same secret anew: its pads were used.
pub fn open_placed(config: &ChannelConfig, data: &Path, secrets: &Path, desk: Option<Desk>) -> Result<ChannelEnd> {
    let used = placed_mark_path(secrets, &config.link, &config.site).exists();
    anyhow::ensure!(
        !used || reserve_path(data, &config.site, &config.link).exists(),
        "the authentication reserve of {} at {} is lost, and the secret that it was made of was used: \
         place a fresh one at both ends",
        config.link,
        config.site
    );
    let generation = placed_generation(&placed_generation_path(secrets, &config.link))?;
    open_at(config, data, &placed_secret_path(secrets, &config.link), generation, desk)
}

/// The number of a placed secret; of one without a number it is that of a first secret.
fn placed_generation(path: &Path) -> Result<u64> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is not a number", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn open_at(
    config: &ChannelConfig,
    data: &Path,
    secret: &Path,
    generation: u64,
    desk: Option<Desk>,
) -> Result<ChannelEnd> {
    let disk = desk.as_ref().map(Desk::disk).unwrap_or_default();
    let reserve = open_reserve(config, data, secret, generation, disk)?;
    let endpoint = Endpoint::new(EndpointConfig { side: side(config) }, reserve);
    let (handle, requests) = Handle::new(config);
    if let (Some(desk), Some(faults)) = (&desk, handle.shared_faults()) {
        desk.on_attack(move |attack| {
            faults.order(attack.kind(), attack.frames, Duration::from_millis(attack.delay_ms.into()));
        });
    }
    handle.status().update(&endpoint);
    Ok(ChannelEnd { config: config.clone(), endpoint, handle, desk, requests })
}

fn side(config: &ChannelConfig) -> Side {
    if config.initiates { Side::Initiator } else { Side::Responder }
}

fn open_reserve(
    config: &ChannelConfig,
    data: &Path,
    secret: &Path,
    generation: u64,
    disk: Disk,
) -> Result<FileReserve> {
    let layout = Layout::new(config.tags_per_hash_key);
    let path = reserve_path(data, &config.site, &config.link);
    FileReserve::open_as(&path, secret, generation, side(config), layout, disk)
        .with_context(|| format!("open the authentication reserve of {} at {}", config.link, config.site))
}
