//! Links that would spend more key on tags than they make.

use super::{Finding, Report};
use crate::diagnostic::Severity;
use crate::document::Spec;
use crate::plan::checkpoints;
use crate::quantity::Duration;

/// After everything else: what the formulae say of a link that is wrong elsewhere is worth nothing.
pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    if report.diagnostics.iter().any(|found| found.severity == Severity::Error) || report.places.is_replaced("") {
        return;
    }
    for (index, link) in spec.links.iter().enumerate() {
        let Some(budget) = checkpoints::budget(spec, link).filter(checkpoints::Budget::is_overdrawn) else { continue };
        let (tags, key) = (budget.tag_bits_per_hour(), budget.key_bits_per_hour());
        let message = format!("tags take {tags:.0} bit an hour, and the link makes {key:.0}");
        let often = budget.interval_s < budget.block_s;
        let (field, expected, hint) = if often {
            let field = "authentication.checkpoint";
            (field, "checkpoints that cost less than the key", "say nothing, and `qkdnet plan` shows what is chosen")
        } else {
            let hint = "tags cost the same whatever the length of a round: a longer one has more key for them";
            ("round", "a round that makes more key than its tags take", hint)
        };
        let finding = Finding::error(format!("spec.links[{index}].{field}"), message, expected);
        report.add(finding.hint(Some(hint.into())), &[]);
    }
}

/// Checkpoints divide a round, into few enough stretches.
pub(super) fn interval(round: Duration, interval: Duration, path: &str, report: &mut Report<'_>) {
    let parts = match (round.whole(), interval.whole()) {
        (Some(round_ps), Some(interval_ps)) if interval_ps > 0 && round_ps % interval_ps == 0 => round_ps / interval_ps,
        _ => 0,
    };
    let most = checkpoints::STRETCHES_MAX;
    if interval < round && !(1..=most.into()).contains(&parts) {
        let message = format!("a checkpoint each {interval} in rounds of {round}");
        let expected = format!("a part of the round without a rest, at most {most} of them in one");
        let finding = Finding::error(format!("{path}.authentication.checkpoint"), message, expected);
        report.add(finding, &[&format!("{path}.round")]);
    }
}
