//! What relays say to each other, and what a relay and the KMS of its site say to each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Malformed;
use crate::name::{Path, SiteName, TransferId};

/// The most key bytes of one transfer.
pub const TRANSFER_BYTES_MAX: u32 = 16_384;
/// The largest sealed payload.
pub const PAYLOAD_BYTES_MAX: usize = 20 * 1024;
/// The most shares of one key.
pub const SHARES_MAX: u8 = 8;
/// The most neighbours of one site.
pub const LINKS_MAX: usize = 128;

/// What every message about a transfer carries. It names the whole path, so that a site that has forgotten a transfer
/// still passes on what others say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub transfer: TransferId,
    /// The transfers of one key: the identity of the first share. With one share it is the transfer's own.
    pub group: TransferId,
    /// This share, from 0, of this many.
    pub share: u8,
    pub of: u8,
    /// Key bytes, without position and tag.
    pub bytes: u32,
    pub path: Path,
    /// Position on the path of the site that receives the message.
    pub hop: u8,
}

impl Header {
    /// Checks sizes; the parts of it have checked themselves.
    pub fn check(&self) -> Result<(), Malformed> {
        if self.bytes == 0 || self.bytes > TRANSFER_BYTES_MAX {
            return Err(Malformed::TransferSize);
        }
        if self.of == 0 || self.of > SHARES_MAX || self.share >= self.of {
            return Err(Malformed::Share);
        }
        if (self.of == 1 || self.share == 0) != (self.group == self.transfer) { Err(Malformed::Share) } else { Ok(()) }
    }

    pub(crate) fn position(&self) -> usize {
        usize::from(self.hop)
    }

    /// The site that sends to this one on the way to the target.
    pub(crate) fn previous(&self) -> Option<&SiteName> {
        self.position().checked_sub(1).and_then(|at| self.path.get(at))
    }

    /// The site after this one, unless this is the target.
    pub(crate) fn next(&self) -> Option<&SiteName> {
        self.path.get(self.position() + 1)
    }

    pub(crate) fn at(&self, hop: u8) -> Self {
        Self { hop, ..self.clone() }
    }
}

/// A sealed payload: pad position, ciphertext and tag, opaque to the relay. It is not secret, yet prints only its length.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(pub Vec<u8>);

impl Payload {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        if self.0.is_empty() || self.0.len() > PAYLOAD_BYTES_MAX { Err(Malformed::PayloadSize) } else { Ok(()) }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// What became of a transfer, in the words of ETSI GS QKD 020.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AckStatus {
    /// The target has it.
    Relayed,
    /// A site on the way has refused it and will never carry it.
    Failed,
    /// Every site that had it has dropped it.
    Voided,
    /// The target had been told before that the key is good.
    FailedToVoid,
    /// The target was told to drop what it never had, and will refuse it from now on.
    KeyNotPresent,
}

/// Why a site does not carry a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// Too little pad for the next hop.
    Insufficient,
    /// The payload was not sealed by the neighbour, or was changed on the way.
    BadTag,
    /// The pad that it names is not known, or was used before.
    Unknown,
    /// Too many transfers at once.
    Busy,
    /// The next site is not connected.
    Unreachable,
}

/// Who refused, by position on the path, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub hop: u8,
    pub reason: RefusalReason,
}

/// One link as the site at one end of it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    pub neighbour: SiteName,
    /// Pad for sending to the neighbour, bytes.
    pub stored_bytes: u64,
    /// Key that the link makes, bit/s.
    pub rate_bps: u64,
    pub up: bool,
}

/// Everything that a site says about its links, flooded through the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    pub site: SiteName,
    /// Grows with every start of the site: what it said in an earlier life is older than anything it says now.
    pub incarnation: u64,
    pub seq: u64,
    pub links: Vec<LinkReport>,
}

impl LinkState {
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let twice = |at: usize, link: &LinkReport| {
            link.neighbour == self.site || self.links.iter().skip(at + 1).any(|later| later.neighbour == link.neighbour)
        };
        let bad = self.links.len() > LINKS_MAX || self.links.iter().enumerate().any(|(at, link)| twice(at, link));
        if bad { Err(Malformed::Links) } else { Ok(()) }
    }
}

/// From relay to neighbouring relay. Any of them may be lost, doubled, delayed or reordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Down the path: the key, sealed for the receiver.
    Carry { header: Header, payload: Payload },
    /// Up the path: what became of it.
    Ack { header: Header, status: AckStatus, refusal: Option<Refusal> },
    /// Down the path: the origin will never use it.
    Void { header: Header },
    /// Down the path: the origin has released it; nobody need remember it.
    Settle { header: Header },
    /// Up the path: the target knows that it was released.
    Settled { header: Header },
    /// To every neighbour.
    LinkState(LinkState),
}

/// What the KMS of the site is asked. It answers every one, does each at most once by transfer (asked again it gives
/// the same answer), and runs those of one transfer in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KmsRequest {
    /// Origin: make random key, keep it as a pending share for the target, seal it for the next hop.
    /// Answered `Sealed` or `Refused`.
    Originate { header: Header, next: SiteName },
    /// Between: open what `from` sealed and seal it for `to`, consuming both pads in one transaction.
    /// Answered `Sealed` or `Refused`.
    Reseal { header: Header, from: SiteName, to: SiteName, payload: Payload },
    /// Target: open what `from` sealed, keep it as a pending share from the origin. Answered `Delivered` or `Refused`.
    Deliver { header: Header, from: SiteName, payload: Payload },
    /// Origin: every share has arrived; the key may be confirmed with the target's KMS. Answered `Released`.
    Release { group: TransferId, transfers: Vec<TransferId> },
    /// Origin or target: the shares are never to become key. Answered `Voided` for each, also where it was never
    /// known; `NotVoided` where the key was settled or confirmed before.
    Void { group: TransferId, transfers: Vec<TransferId> },
    /// Between or target: nothing will be asked about it again. Between: what is kept for repeats may go, and a later
    /// `Reseal` of it is refused. Target: it was released, so a later `Void` of it is `NotVoided`. Not answered.
    Settle { group: TransferId, transfer: TransferId },
}

/// What the KMS answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KmsAnswer {
    Sealed { transfer: TransferId, payload: Payload },
    Delivered { transfer: TransferId },
    Refused { transfer: TransferId, reason: RefusalReason },
    Released { group: TransferId },
    Voided { transfer: TransferId },
    NotVoided { transfer: TransferId },
}
