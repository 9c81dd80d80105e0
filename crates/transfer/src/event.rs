//! What the service reports, and which sites could have read what.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::Rejection;
use crate::name::{Path, SiteName, TransferId};
use crate::record::VoidReason;

/// One share of a key that both ends have. Told at both ends, each at least once: after a crash it may be told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedTransfer {
    pub transfer: TransferId,
    pub group: TransferId,
    pub share: u8,
    pub of: u8,
    pub origin: SiteName,
    pub target: SiteName,
    pub path: Path,
    pub bytes: u32,
}

/// Something worth a log line, a metric or a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEvent {
    /// Origin: a key was begun over these paths, one per share.
    Started {
        group: TransferId,
        target: SiteName,
        bytes: u32,
        paths: Vec<Path>,
    },
    Completed(CompletedTransfer),
    /// Origin: a key was given up.
    Voided {
        group: TransferId,
        target: SiteName,
        reason: VoidReason,
    },
    /// Origin: keys with the target go another way than before.
    Rerouted {
        target: SiteName,
        paths: Vec<Path>,
    },
    /// Origin: fewer node-disjoint paths than shares are wanted; nothing is made meanwhile.
    TooFewPaths {
        target: SiteName,
        wanted: u8,
        found: u8,
    },
    /// Origin: there is a way again.
    PathsFound {
        target: SiteName,
    },
    /// A void was not confirmed and is no longer repeated, or an origin never said what became of its key.
    Abandoned {
        transfer: TransferId,
        path: Path,
    },
    /// The target had been told that the key is good. It is not: the origin has dropped it.
    FailedToVoid {
        transfer: TransferId,
        path: Path,
    },
    /// An input was dropped.
    Rejected {
        from: Option<SiteName>,
        why: Rejection,
    },
}

/// The keys, by group, that a site between carried in full: every share of them, so that whoever controls the site
/// may know them. Summaries of both ends, and repeated ones, may be given together; the order is that of identities.
pub fn exposed(completed: &[CompletedTransfer], site: &SiteName) -> Vec<TransferId> {
    let mut carried: BTreeMap<TransferId, (u8, BTreeSet<u8>)> = BTreeMap::new();
    for transfer in completed.iter().filter(|transfer| transfer.path.between().contains(site)) {
        let (_, shares) = carried.entry(transfer.group).or_insert_with(|| (transfer.of, BTreeSet::new()));
        shares.insert(transfer.share);
    }
    let full = |(of, shares): &(u8, BTreeSet<u8>)| shares.len() == usize::from(*of);
    carried.into_iter().filter(|(_, shares)| full(shares)).map(|(group, _)| group).collect()
}
