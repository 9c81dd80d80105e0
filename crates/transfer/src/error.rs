//! What is wrong with what came from outside, and how often.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::name::SiteName;

/// A value that cannot be what it claims to be, whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("a site name is 1 to 63 lower-case letters, digits and inner hyphens")]
    SiteName,
    #[error("a path has at least two sites")]
    PathTooShort,
    #[error("a path has at most 16 hops")]
    PathTooLong,
    #[error("a path visits a site twice")]
    Loop,
    #[error("a transfer is 1 to 16384 bytes")]
    TransferSize,
    #[error("a share is numbered below the number of shares, of which there are 1 to 8")]
    Share,
    #[error("a payload is 1 to 20480 bytes")]
    PayloadSize,
    #[error("a link state names at most 128 neighbours, none twice and never its own site")]
    Links,
}

/// Why an input was dropped. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{from} is no neighbour")]
    UnknownNeighbour { from: SiteName },
    #[error("the path does not have this site at the position that the message names")]
    NotOnPath,
    #[error("the message did not come from the site before or after this one on its path")]
    WrongSender,
    #[error("another transfer of this identity is known here")]
    OtherTransfer,
    #[error("the message does not fit what is known of the transfer")]
    OutOfOrder,
    #[error("more link states than one neighbour may send")]
    TooManyLinkStates,
    #[error("more sites than the database holds")]
    TooManySites,
    #[error("no more neighbours or targets are kept than the settings allow")]
    TooMany,
    #[error("key with {target} is made by its own site, or over a link of its own")]
    NotOurs { target: SiteName },
}

/// How often what happened, since the state machine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub malformed: u64,
    pub unknown_neighbour: u64,
    pub not_on_path: u64,
    pub wrong_sender: u64,
    pub other_transfer: u64,
    pub out_of_order: u64,
    pub link_states_dropped: u64,
    pub limits_reached: u64,
    pub transfers_started: u64,
    pub transfers_completed: u64,
    pub transfers_voided: u64,
    pub carried: u64,
    pub refused: u64,
    pub link_states_flooded: u64,
    /// Messages that were to be sent to a neighbour that is not connected; every one of them is repeated later.
    pub unsent: u64,
}

impl Counters {
    pub(crate) fn count(&mut self, rejection: &Rejection) {
        let counter = match rejection {
            Rejection::Malformed(_) => &mut self.malformed,
            Rejection::UnknownNeighbour { .. } => &mut self.unknown_neighbour,
            Rejection::NotOnPath => &mut self.not_on_path,
            Rejection::WrongSender => &mut self.wrong_sender,
            Rejection::OtherTransfer => &mut self.other_transfer,
            Rejection::OutOfOrder => &mut self.out_of_order,
            Rejection::TooManyLinkStates => &mut self.link_states_dropped,
            Rejection::TooManySites | Rejection::TooMany | Rejection::NotOurs { .. } => &mut self.limits_reached,
        };
        *counter += 1;
    }
}
