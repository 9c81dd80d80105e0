//! One link of the document to the plain numbers that `photonics` and `distill` take: a module for each kind of link,
//! and here what all kinds have.

mod entangled;

use distill::config as protocol;

use super::{PlannedLink, PlannedReference, RunPlan, Service, round_epochs};
use crate::document::{Bound, Link};
use crate::resolve::{LinkKind, resolve};

/// A link and its services, or nothing where [`crate::parse`] would have refused it.
pub(super) fn plan(link: &Link, run: RunPlan) -> Option<(PlannedLink, Vec<Service>)> {
    match resolve(link).ok()? {
        LinkKind::Entangled(kind) => Some(entangled::plan(kind, run)),
    }
}

/// Warnings for those who start a link of its kind.
pub(super) fn warnings(link: &Link) -> Vec<String> {
    match resolve(link) {
        Ok(LinkKind::Entangled(kind)) => entangled::warnings(&kind),
        Err(_) => Vec::new(),
    }
}

fn references(link: &Link) -> Vec<PlannedReference> {
    let planned = link.reference.iter().map(|reference| PlannedReference {
        quantity: reference.quantity,
        published: reference.value.value(),
        tolerance: reference.tolerance,
        source: reference.source.clone(),
    });
    planned.collect()
}

fn post_processing(link: &Link, run: RunPlan) -> protocol::PostProcessing {
    protocol::PostProcessing {
        framing: protocol::Framing { frame_ps: run.epoch_ps, round_frames: round_epochs(link, run.epoch_ps) },
        reconciliation: protocol::Reconciliation {
            frame_bits: link.reconciliation.frame_bits,
            initial_qber: link.reconciliation.initial_qber.value(),
        },
        security: protocol::Security {
            bound: match link.security.bound {
                Bound::Asymptotic => protocol::Bound::Asymptotic,
                Bound::Finite => protocol::Bound::Finite,
            },
            epsilon_secrecy: link.security.epsilon_secrecy,
            epsilon_correctness: link.security.epsilon_correctness,
            tolerated_qber: link.security.tolerated_qber.value(),
            emission: protocol::Emission::Pairs,
        },
        authentication: protocol::Authentication { tags_per_hash_key: link.authentication.tags_per_hash_key },
    }
}
