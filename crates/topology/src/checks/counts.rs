//! Links at the fidelity of counts.

use super::{Finding, Report};
use crate::diagnostic::Severity;
use crate::document::{Fidelity, Spec};
use crate::plan::{RunOptions, counts, run_plan};

/// After everything else: what a law says of a link that is wrong elsewhere is worth nothing.
pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    let run = run_plan(spec, &RunOptions::default());
    if report.diagnostics.iter().any(|found| found.severity == Severity::Error) || report.places.is_replaced("") {
        return;
    }
    for (index, link) in spec.links.iter().enumerate() {
        if run.fidelity(link) != Fidelity::Counts {
            continue;
        }
        let path = match link.fidelity {
            Some(_) => format!("spec.links[{index}].fidelity"),
            None => "spec.run.fidelity".to_owned(),
        };
        if let Some(counts::Problem { message, expected }) = counts::problem(link, run) {
            report.add(Finding::error(path, format!("link {}: {message}", link.name), expected), &[]);
        }
    }
}
