//! The detector node: an instrument that turns photons into tags of its own clock, and the module that distils
//! key from them with its peer. Only the instrument knows simulated time; the module sees frames of tags.

mod delivery;
mod departures;
mod dial;
mod grpc;
mod instrument;
mod lasting;
mod link;
mod metrics;
mod playback;
mod record;
mod report;
mod serve;
mod session;
mod status;
pub mod store;
pub mod vault;
pub mod waiting;

pub use delivery::{Delivery, KmsDial, next_undelivered};
pub use grpc::MonitorService;
pub use playback::{Beginning, Bytes, Playback};
pub use record::{FAILED as RECORDING_FAILED, Recorder, refuse_to_overwrite};
pub use serve::{disk, initial_status, place, serve};
pub use session::{Light, Links, Node, Seeds, run};
pub use status::Monitor;
