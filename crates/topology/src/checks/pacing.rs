//! How far links may be apart.

use super::{Epoch, Finding, Report};
use crate::document::Spec;
use crate::quantity::Duration;

/// Further apart than this nothing would be one time any more.
const SKEW_MAX: &str = "24 h";

pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    let epochs = (0..spec.links.len()).map(|index| Epoch::of(spec, index));
    let (Some(skew), Some(longest)) = (spec.run.skew, epochs.max_by_key(|epoch| epoch.length.rounded())) else {
        return;
    };
    let Epoch { length, path, .. } = &longest;
    // Whoever may not be ahead by an epoch could never take the next one.
    if !(length.rounded()..=Duration::preset(SKEW_MAX).rounded()).contains(&skew.rounded()) {
        let message = format!("links that may be {skew} apart");
        let expected = format!("at least an epoch of every link (here {length}), at most {SKEW_MAX}");
        report.add(Finding::error("spec.run.skew", message, expected), &[path]);
    }
}
