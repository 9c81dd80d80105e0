//! The source service: nature's joint outcomes are drawn here, and what survives both arms leaves here.
//!
//! Of a prepared link output 0 is the transmitter, which says what its pulses are, and output 1 the receiver.
//!
//! Epoch `k` is emitted only when the states of both outputs and the pump set-point for `k` are in
//! hand, so what a run produces depends on the seed and on simulated time alone. Another loss of the arms is input, too:
//! the log says with which epoch it begins.

mod counted;
mod grpc;
mod losses;
mod nature;
mod pacing;
mod run;
mod status;

pub use grpc::{place, serve};
pub use losses::Losses;
pub use pacing::PacerDial;
pub use run::run;
use shell::duplex::Duplex;
pub use status::Status;

use proto::source::v1::{AnalyserUpdate, PhotonEpoch};

/// The source's side of one output's stream.
pub type Output = Duplex<PhotonEpoch, AnalyserUpdate>;

/// Epochs that may wait in a stream; together with the transport's own buffers this bounds memory.
pub const EPOCHS_IN_FLIGHT: usize = 3;
