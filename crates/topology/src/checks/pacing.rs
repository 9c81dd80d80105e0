//! How far links may be apart.

use super::{Finding, Report};
use crate::document::Spec;
use crate::quantity::Duration;

/// Further apart than this nothing would be one time any more.
const SKEW_MAX: &str = "24 h";

pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    let Some(skew) = spec.run.skew else { return };
    let epoch = spec.run.epoch;
    // Whoever may not be ahead by an epoch could never take the next one.
    if !(epoch.rounded()..=Duration::preset(SKEW_MAX).rounded()).contains(&skew.rounded()) {
        let message = format!("links that may be {skew} apart");
        let expected = format!("at least an epoch ({epoch}), at most {SKEW_MAX}");
        report.add(Finding::error("spec.run.skew", message, expected), &["spec.run.epoch"]);
    }
}
