//! The QKD module at one end of a link: sessions, blocks, delivery.
//!
//! It meets the module at the other end, agrees with it and the source on an epoch, and distils key from the light that
//! its instrument gives. What instrument that is it does not know: a session takes frames epoch by epoch from a
//! [`Light`], and tells it set-points.

mod counting;
mod delivery;
mod departures;
mod dial;
mod grpc;
mod lasting;
pub mod light;
mod link;
mod metrics;
pub mod recording;
mod report;
pub mod sealed;
mod seed;
mod serve;
mod session;
mod status;
pub mod store;
mod uptime;
pub mod vault;
pub mod waiting;

pub use counting::Counting;
pub use delivery::{Delivery, KmsDial, next_undelivered};
pub use light::{EpochLight, Light, Remark};
pub use seed::subseed;
pub use serve::{disk, initial_status, serve};
pub use session::{CLOCK_STANDS_STILL, Node, run};
pub use status::Monitor;
