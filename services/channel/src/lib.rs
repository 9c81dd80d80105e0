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
use std::sync::Arc;
use std::time::Duration;

use anchor::{Anchor, Unanchored};
use anyhow::{Context, Result};
use distill::auth::{Endpoint, EndpointConfig, Layout, Side};
use proto::channel::v1::{ChannelMessage, ModuleMessage, PeerFrame};
use shell::disk::Disk;
use shell::duplex::Duplex;
use shell::fault::Desk;
use topology::plan::ChannelConfig;

pub use fault::Faults;
pub use grpc::{ChannelService, place, serve};
pub use reserve::{FileReserve, OpenError, Places, RekeyError, new_secret};
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

/// Where the reserve of a link end is.
pub fn reserve_path(data: &Path, site: &str, link: &str) -> PathBuf {
    folder(data, site, link).join("authentication.reserve")
}

fn folder(data: &Path, site: &str, link: &str) -> PathBuf {
    data.join(site).join(link)
}

/// Whether a link end has a secret, or ever had one: then none is placed there by itself.
pub fn has_secret(data: &Path, site: &str, link: &str) -> bool {
    let secret = secret_path(data, site, link);
    secret.exists() || secret.with_extension("used").exists() || reserve_path(data, site, link).exists()
}

fn own_places(config: &ChannelConfig, data: &Path) -> Places {
    let (site, link) = (&config.site, &config.link);
    Places::own(reserve_path(data, site, link), secret_path(data, site, link))
}

/// Gives the reserve of a link end up for good, if it has one: a copy of it that is put back later is one that was rolled
/// back. While the endpoint does not run. Blocks while `anchor` is told.
pub fn give_up_reserve(data: &Path, site: &str, link: &str, anchor: &dyn Anchor) -> Result<()> {
    let path = reserve_path(data, site, link);
    if !path.exists() {
        return Ok(());
    }
    match FileReserve::give_up(&path, anchor) {
        // What cannot be read cannot be used, either.
        Ok(()) | Err(OpenError::Damaged { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the reserves of the two ends of a link agree; while neither endpoint runs.
pub fn reserves_agree(ends: [&ChannelConfig; 2], data: &Path) -> Result<bool> {
    let [one, other] =
        ends.map(|config| open_reserve(config, &own_places(config, data), Disk::default(), Arc::new(Unanchored)));
    Ok(one?.agrees_with(&other?))
}

/// Opens the reserve of one end, or makes it from the secret that was placed there, which is then erased. An end that lost
/// its reserve does not start over with the same secret: its pads were used. `anchor` keeps its ceilings; asking it blocks.
/// `desk` only where the topology allows faults.
pub fn open(config: &ChannelConfig, data: &Path, desk: Option<Desk>, anchor: Arc<dyn Anchor>) -> Result<ChannelEnd> {
    open_at(config, &own_places(config, data), desk, anchor)
}

/// As [`open`], with the secret from a folder that outlives the data and belongs to who starts the endpoint, as do the
/// marks that say that it was taken.
pub fn open_placed(
    config: &ChannelConfig,
    data: &Path,
    secrets: &Path,
    desk: Option<Desk>,
    anchor: Arc<dyn Anchor>,
) -> Result<ChannelEnd> {
    let places = Places {
        reserve: reserve_path(data, &config.site, &config.link),
        secret: placed_secret_path(secrets, &config.link),
        generation: Some(placed_generation(&placed_generation_path(secrets, &config.link))?),
        used: placed_mark_path(secrets, &config.link, &config.site).exists(),
        owned: false,
    };
    open_at(config, &places, desk, anchor)
}

/// The number of a placed secret; of one without a number it is that of a first secret.
fn placed_generation(path: &Path) -> Result<u64> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} is not a number", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn open_at(config: &ChannelConfig, places: &Places, desk: Option<Desk>, anchor: Arc<dyn Anchor>) -> Result<ChannelEnd> {
    let disk = desk.as_ref().map(Desk::disk).unwrap_or_default();
    let reserve = open_reserve(config, places, disk, anchor)?;
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

fn open_reserve(config: &ChannelConfig, places: &Places, disk: Disk, anchor: Arc<dyn Anchor>) -> Result<FileReserve> {
    let layout = Layout::new(config.tags_per_hash_key);
    FileReserve::open(places, side(config), layout, disk, anchor)
        .with_context(|| format!("open the authentication reserve of {} at {}", config.link, config.site))
}
