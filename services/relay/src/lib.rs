//! The trusted-node relay of a site as a service: crate `transfer` does the thinking, this one has its clock, its
//! disk, its streams to the relays of neighbouring sites and to the site's key store.
//!
//! One task owns the state machine and waits for nobody: who does not take what is sent to it is dropped. What the
//! state machine wants remembered is on the disk before anything else that it wants is done; all that comes while one
//! commit is under way shares the next.

mod grpc;
mod key_store;
pub mod messages;
mod records;
mod run;
mod spans;
mod status;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;

use anchor::Anchor;
use proto::kms::v1::{RelayAnswer, RelayRequest};
use proto::relay::v1::RelayMessage;
use shell::dial::Dial;
use shell::duplex::Duplex;
use shell::fault::Desk;
use tokio::sync::{mpsc, oneshot};

pub use grpc::{RelayService, place, serve};
pub use records::{COMPLETED_MAX, RecordError, completed, folder, void_restored};
pub use run::{run, run_with};
pub use status::Status;
pub use transfer::Settings;

/// The stream between two relays; both ends are alike.
pub type NeighbourStream = Duplex<RelayMessage, RelayMessage>;
pub type NeighbourDial = Arc<dyn Dial<RelayMessage, RelayMessage>>;
/// The stream to the key store of the site.
pub type KmsStream = Duplex<RelayRequest, RelayAnswer>;
pub type KmsDial = Arc<dyn Dial<RelayRequest, RelayAnswer>>;

/// Messages that may wait in the stream between two relays, in each direction.
pub const MESSAGES_IN_FLIGHT: usize = 64;

/// What others bring to this relay.
pub struct Incoming {
    /// Streams that relays of sites with smaller names opened, with their sites.
    pub neighbours: mpsc::Receiver<(String, NeighbourStream)>,
    /// Sites for which this end fills a pool, when they are others than before.
    pub targets: mpsc::Receiver<Targets>,
}

/// The sites for which a relay fills a pool from now on.
pub struct Targets {
    pub sites: Vec<String>,
    /// Whether they are others than before; or why they cannot be.
    pub done: oneshot::Sender<Result<bool, String>>,
}

/// What a relay uses of those who run it.
pub struct Lent {
    pub status: Arc<Status>,
    /// Keeps the ceiling of its records, outside of the data.
    pub anchor: Arc<dyn Anchor>,
    /// Only where the topology allows faults.
    pub faults: Option<Desk>,
}

/// Ways to those that this relay opens streams to.
pub struct Dials {
    pub kms: KmsDial,
    /// By site: neighbours whose names are greater than this site's.
    pub neighbours: BTreeMap<String, NeighbourDial>,
}
