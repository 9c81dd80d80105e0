//! One end of an authenticated classical channel, without sockets or clocks.
//!
//! The two modules of a link talk in lockstep: each sends one bundle per step, and step `s` needs the peer's bundle of
//! step `s - 1`. Where a module asks for it, the [`Endpoint`] attaches a Wegman-Carter tag: a polynomial hash over
//! GF(2^128) of everything both sides have said since that direction's last tag, masked by 128 bits that are used once
//! (Wegman and Carter, J. Comput. Syst. Sci. 22, 265 (1981), section 3). Until such a tag verifies, all that was
//! received is hostile input; if it does not, the session is over and everything since the last good tag is void.
//!
//! Before a session both ends compare how many tags each has sent and verified ([`counts`]); where they differ, one of
//! them proves its counts by a tag, or it turns out that a volume was put back. Cells that a tag is made of are masked
//! once more per session ([`mask`]). Reserves that do not fit together, with nothing to prove whose is right, are told
//! as such ([`Misfit`]).

pub mod counts;
pub mod endpoint;
pub mod frame;
mod hello;
pub mod mask;
mod meeting;
mod memory;
mod misfit;
mod outcome;
pub mod reserve;
mod session;
mod transcript;

#[cfg(test)]
mod attacks;

pub use endpoint::{Endpoint, EndpointConfig};
pub use frame::{Frame, FrameError, MAX_FRAME, MAX_PAYLOAD, TagField};
pub use hello::MAX_MODULE_HELLO;
pub use mask::MaskKey;
pub use memory::MemoryReserve;
pub use misfit::Misfit;
pub use outcome::{Action, CloseReason, Counters, Refusal, SendError, Whose};
pub use reserve::{Cell, Layout, Mark, Reserve, ReserveError, refill_bits};

use serde::{Deserialize, Serialize};

/// Which of the two ends of a channel: the one that dials or the one that is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Initiator,
    Responder,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    /// What this side says, goes this way.
    pub fn direction(self) -> Direction {
        match self {
            Self::Initiator => Direction::Forward,
            Self::Responder => Direction::Backward,
        }
    }
}

/// From the initiator to the responder, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Forward,
    Backward,
}

impl Direction {
    fn code(self) -> u8 {
        match self {
            Self::Forward => 0,
            Self::Backward => 1,
        }
    }
}
