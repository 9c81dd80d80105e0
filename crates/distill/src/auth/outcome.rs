//! What an endpoint has to say: to its caller, of a session that ends, of a frame that it refuses.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::FrameError;
use super::misfit::Misfit;

/// Which of the two ends, seen from one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    Own,
    Peer,
}

/// Why a session ended, or does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    #[error("the peer's module left")]
    PeerLeft,
    #[error("a tag did not verify")]
    TagMismatch,
    #[error("the authentication reserve is exhausted")]
    ReserveExhausted,
    #[error("the peer opened a new session")]
    PeerRestarted,
    #[error("the authentication reserve cannot be used")]
    ReserveFailed,
    #[error("the authentication reserve was replaced")]
    Rekeyed,
    #[error("the authentication reserve of {} end is older than what was done with it", match .0 {
        Whose::Own => "this",
        Whose::Peer => "the peer's",
    })]
    RolledBack(Whose),
    #[error("the peer speaks another version of the protocol")]
    PeerVersion,
}

/// Why a frame was not accepted. The session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Malformed(#[from] FrameError),
    #[error("frame of another session")]
    WrongSession,
    #[error("frame of session {0:x}, which this end knows nothing of")]
    UnknownSession(u64),
    #[error("frame was received before")]
    Duplicate,
    #[error("frame is ahead of its turn")]
    OutOfOrder,
    #[error("hello is of generation {0} of the authentication reserve, this end is not")]
    OtherGeneration(u64),
    #[error("hello has other tags per hash key than this end")]
    OtherLayout,
    #[error("one of the two authentication reserves has a key for masks, the other, of an older release, has none")]
    OtherForm,
    #[error("not made under the key of this end's authentication reserve")]
    Forged,
    #[error("proof of other greetings, or one that was not asked for")]
    UnaskedProof,
    #[error("hello with nonce {0:x} does not know of the session it would end")]
    UnprovenRestart(u64),
}

/// What the caller must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A frame for the peer endpoint.
    Send(Bytes),
    /// For the own module.
    Opened {
        session: u64,
        peer_hello: Bytes,
    },
    Delivered {
        step: u64,
        payload: Bytes,
        authenticated: bool,
    },
    Closed(CloseReason),
    /// The refill with this block is durable.
    Refilled {
        block: u64,
    },
    /// The two ends' reserves seem not to fit together. This end goes on greeting, and the session that opens shows
    /// that they do.
    Unfit(Misfit),
    /// For the log.
    Refused(Refusal),
    Failed(String),
}

/// A module that does not keep to the lockstep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("no session is open")]
    NotOpen,
    #[error("bundle of step {step}, expected {expected}")]
    Step { step: u64, expected: u64 },
    #[error("bundle of step {0} comes before the peer's previous one")]
    AheadOfPeer(u64),
    #[error("{0} bytes are too much for one message")]
    TooLong(usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub frames_accepted: u64,
    pub malformed: u64,
    pub wrong_session: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub hellos_refused: u64,
    pub tags_sent: u64,
    /// Tags that showed the peer how this end counts.
    pub proofs_sent: u64,
    pub tags_verified: u64,
    pub tags_mismatched: u64,
    /// In-order frames with a tag that was not the next one; ends the session.
    pub tag_numbers_wrong: u64,
}

impl Counters {
    pub fn refused(&self) -> u64 {
        self.malformed + self.wrong_session + self.duplicates + self.out_of_order + self.hellos_refused
    }
}

impl CloseReason {
    pub(super) fn code(self) -> u64 {
        match self {
            Self::PeerLeft => 1,
            Self::TagMismatch => 2,
            Self::ReserveExhausted => 3,
            Self::PeerRestarted => 4,
            Self::ReserveFailed => 5,
            Self::Rekeyed => 6,
            Self::RolledBack(_) => 7,
            Self::PeerVersion => 8,
        }
    }

    /// Nothing authenticates this; whatever lasts is found out by the own end.
    pub(super) fn from_code(code: u64) -> Self {
        match code {
            2 => Self::TagMismatch,
            3 => Self::ReserveExhausted,
            4 => Self::PeerRestarted,
            5 => Self::ReserveFailed,
            6 => Self::Rekeyed,
            _ => Self::PeerLeft,
        }
    }
}
