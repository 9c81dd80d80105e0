//! What a relay keeps on disk: enough to go on after a crash at any point, and no key.

use serde::{Deserialize, Serialize};

use crate::message::{Header, Refusal};
use crate::name::{Path, SiteName, TransferId};

/// One durable record. Writing one replaces the record of the same [`RecordKey`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The life of this site's relay, counted.
    Incarnation(u64),
    Outgoing(OutgoingRecord),
    Incoming(IncomingRecord),
}

/// What a record is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecordKey {
    Incarnation,
    /// By group: the shares of one key are decided together, hence written together.
    Outgoing(TransferId),
    /// By transfer.
    Incoming(TransferId),
}

impl Record {
    /// What it is found by.
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Incarnation(_) => RecordKey::Incarnation,
            Self::Outgoing(record) => RecordKey::Outgoing(record.group),
            Self::Incoming(record) => RecordKey::Incoming(record.header.transfer),
        }
    }
}

/// Why the origin gave a key up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoidReason {
    /// A site refused a share, the origin's own KMS included (hop 0).
    Refused(Refusal),
    /// No answer within the time allowed.
    InDoubt,
    /// The target says that it was told to drop it.
    DroppedAtTarget,
}

/// How far a key is, at its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutgoingStage {
    /// Shares are on their way; nothing is decided.
    Carrying,
    /// Decided: it is key. The KMS is being told.
    Releasing,
    /// The KMS knows; the sites on the path are being told.
    Settling,
    /// Decided: it will never be key. KMS and path are being told.
    Voiding(VoidReason),
}

/// One key that this site makes with a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutgoingRecord {
    pub group: TransferId,
    pub target: SiteName,
    /// Of each share, and of the key.
    pub bytes: u32,
    pub started_ms: u64,
    pub stage: OutgoingStage,
    pub shares: Vec<ShareRecord>,
}

/// One share of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRecord {
    pub transfer: TransferId,
    pub path: Path,
    /// Some message with it may have left this site. Not written when it does, but with what is decided later: of a
    /// key that is read back while nothing is decided, every share counts as sent.
    pub sent: bool,
    /// The target has said that it has it.
    pub relayed: bool,
}

/// How far a transfer of another origin is, here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IncomingStage {
    /// Between: the KMS was asked; nothing has left this site.
    Resealing,
    /// Between: it may have left this site.
    Forwarded,
    /// Target: the KMS was asked.
    Delivering,
    /// Target: the KMS has it; only the origin can say what becomes of it.
    Delivered,
    /// Refused here, for good.
    Refused(Refusal),
    /// Target: the KMS is being told to drop it.
    Voiding,
    /// Dropped, or never seen and from now on not welcome. `beyond`: sites further on may have it.
    Voided { beyond: bool },
}

/// One transfer of another origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncomingRecord {
    /// As it reached this site.
    pub header: Header,
    pub stage: IncomingStage,
    /// When it came to this stage.
    pub since_ms: u64,
}
