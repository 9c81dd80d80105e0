//! Links at the fidelity of counts.

use super::{Finding, Report};
use crate::diagnostic::Severity;
use crate::document::{Fidelity, Spec};
use crate::plan::counts;

/// After everything else: what a law says of a link that is wrong elsewhere is worth nothing.
pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    if report.diagnostics.iter().any(|found| found.severity == Severity::Error) || report.places.is_replaced("") {
        return;
    }
    for (index, link) in spec.links.iter().enumerate() {
        if spec.fidelity(link) != Fidelity::Counts {
            continue;
        }
        if let Some(counts::Problem { message, expected }) = counts::problem(spec, link) {
            let finding = match link.fidelity {
                Some(_) => Finding::error(format!("spec.links[{index}].fidelity"), message, expected),
                None => Finding::error("spec.run.fidelity", format!("link {}: {message}", link.name), expected),
            };
            report.add(finding, &[]);
        }
    }
}
