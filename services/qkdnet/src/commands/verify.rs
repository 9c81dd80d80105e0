//! `qkdnet verify`: run a network, then print measured beside published.

use std::path::Path;

use runner::anchors::Anchors;
use runner::verdict::{Kind, Reason, Verdict};
use runner::verify::{Agreement, Comparison, choose, comparisons, needs_references, precision};
use runner::{Failure, Start, runtime, start, watch};
use serde::Serialize;

use super::up::{Prepared, place, prepare_until};
use super::{print, print_json};
use crate::cli::{Output, VerifyArgs};
use crate::cluster;
use crate::style::tell;
use crate::view::View;

/// What a verification came to.
#[derive(Debug, Default, Serialize)]
struct Verification {
    figures: Vec<Comparison>,
    verdict: Verdict,
}

pub fn run(args: &VerifyArgs, log: Option<&str>) -> Result<(), Failure> {
    let mut found = match &args.file {
        Some(file) => here(file, args, log)?,
        None => there(args)?,
    };
    let failed = found.figures.iter().filter(|c| c.verdict.is_against()).count();
    if failed > 0 {
        let judged = found.figures.iter().filter(|c| c.verdict.is_verdict()).count();
        let message = format!("{failed} of {judged} figures do not agree");
        found.verdict.add(Reason::new(Kind::Disagrees, message));
    }
    match args.run.output.output {
        Output::Json => print_json(&found)?,
        Output::Text => print(&table(&found.figures))?,
    }
    found.verdict.into_result(false)
}

/// A network on this machine, for the time of the comparison.
fn here(file: &Path, args: &VerifyArgs, log: Option<&str>) -> Result<Verification, Failure> {
    let scratch = match &args.run.data {
        Some(_) => None,
        None => Some(std::env::temp_dir().join(format!("qkdnet-verify-{}", std::process::id()))),
    };
    let mut expected = None;
    let prepared = prepare_until(file, &args.run, scratch.clone(), |plan| {
        choose(plan, &args.links)?;
        needs_references(plan)?;
        // What was published is about links.
        plan.without_key_management();
        if plan.limit_ps.is_none() {
            expected = precision::forecast(plan);
        }
        Ok(expected.map(|forecast| forecast.cap_s))
    });
    let result = prepared.and_then(|prepared| compare(prepared, expected, args, log));
    if let Some(scratch) = scratch {
        // The keys of a comparison are of no use to anybody.
        let _ = std::fs::remove_dir_all(scratch);
    }
    result
}

/// A network that runs on a cluster, watched for a while.
fn there(args: &VerifyArgs) -> Result<Verification, Failure> {
    if args.run.seed.is_some() || args.run.speed.is_some() || args.run.fidelity.is_some() {
        return Err(Failure::bad_input("`--seed`, `--speed` and `--fidelity` are for a network that is started here")
            .hint("on a cluster they are the topology's `run.seed`, `run.speed` and `run.fidelity`"));
    }
    let Some(duration) = args.run.duration else {
        return Err(Failure::bad_input("how long to watch is not said").hint("add `--for 60s`"));
    };
    let (plan, links) = cluster::run(&args.cluster, async |there| {
        cluster::measured(there, &args.links, duration.rounded() as f64 * 1e-12).await
    })?;
    needs_references(&plan)?;
    Ok(Verification { figures: comparisons(&plan, &links), verdict: Verdict::default() })
}

fn compare(
    prepared: Prepared,
    expected: Option<precision::Forecast>,
    args: &VerifyArgs,
    log: Option<&str>,
) -> Result<Verification, Failure> {
    let Prepared { plan, folders, asked } = prepared;
    if let Some(precision::Forecast { expected_s, cap_s }) = expected {
        tell(&format!(
            "running until the uncertainty of every figure is a fifth of its tolerance: about {expected_s:.0} s of \
             simulated time, at most {cap_s:.0} s"
        ));
    }
    let place = place(&args.run)?;
    let telemetry = runtime::telemetry("qkdnet", &plan.topology, None, log.or(Some("warn")));
    // What is measured in a folder that goes at the end cannot be put back.
    let anchors = if args.run.data.is_some() { args.run.state.anchors() } else { Anchors::NotNeeded };
    let (mut report, lost) = runtime::block_on_told(&telemetry, async {
        let started = Start { plan: &plan, folders: &folders, place, recording: None, replay: None, anchors };
        let running = start(&started).await?;
        let mut known = 0;
        watch(running, &plan, &folders, &asked, &mut View::progress(), |links| {
            let (now, all) = precision::progress(&plan, links);
            if expected.is_some() && now > known {
                tell(&format!("{now} of {all} figures are known to a fifth of their tolerance"));
                known = now;
            }
            expected.is_some() && now == all
        })
        .await
    })?;
    report.summary.verdict.extend(lost);
    if expected.is_some() {
        let (known, all) = precision::progress(&plan, &report.links);
        if known < all {
            tell(&format!(
                "warning: {} of {all} figures are less certain than a fifth of their tolerance",
                all - known
            ));
        }
    }
    Ok(Verification { figures: comparisons(&plan, &report.links), verdict: report.summary.verdict })
}

fn table(rows: &[Comparison]) -> String {
    let mut text = format!(
        "{:<18} {:<14} {:>12} {:>22} {:>12}  {}\n",
        "link", "quantity", "published", "measured", "tolerance", "verdict"
    );
    for row in rows {
        let measured = match (row.measured, row.uncertainty) {
            (Some(value), Some(sigma)) => format!("{value:.3} +- {sigma:.3} {}", row.unit),
            _ => "-".to_owned(),
        };
        let duty = row.duty.map_or_else(String::new, |duty| format!(", with a duty of {:.1} %", duty * 100.0));
        let verdict = match row.verdict {
            Agreement::Agrees => "agrees",
            Agreement::Disagrees => "DISAGREES",
            Agreement::NotMeasured => "NOT MEASURED",
            Agreement::NotSimulated => "not at counts",
            Agreement::Fitted => "fitted",
        };
        text.push_str(&format!(
            "{:<18} {:<14} {:>12} {:>22} {:>12}  {verdict}{duty}\n",
            row.link,
            row.quantity,
            format!("{:.3}", row.published),
            measured,
            row.tolerance
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fitted_figure_is_shown_with_its_duty_after_the_word() {
        let row = Comparison {
            link: "a-b".to_owned(),
            quantity: "skr",
            unit: "bit/s",
            published: 2.58e6,
            measured: Some(2_558_400.0),
            duty: Some(0.533),
            uncertainty: Some(0.0),
            tolerance: "5 %".to_owned(),
            verdict: Agreement::Fitted,
        };
        let text = table(&[row]);
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with("  fitted, with a duty of 53.3 %")), "{text}");
    }
}
