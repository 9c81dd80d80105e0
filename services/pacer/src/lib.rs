//! The pacer: keeps the sources of a network at one simulated time.
//!
//! Each source keeps one stream here. It says where it is, and is told how far it may go: `run.skew` beyond the slowest
//! source that emits. What is decided is in [`time`], a state machine without clock or stream. Nothing is on a disk: what
//! is lost with the process comes back with the sources' first reports.

mod grpc;
mod run;
pub mod time;

use proto::pace::v1::{Grant, Report};
use shell::duplex::Duplex;

pub use grpc::{place, serve};
pub use run::{Order, Status, run};

/// The pacer's side of a source's stream.
pub type SourceStream = Duplex<Grant, Report>;

/// Messages that may wait in a source's stream, in each direction.
pub const MESSAGES_IN_FLIGHT: usize = 2;
