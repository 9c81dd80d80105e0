//! `qkdnet verify`: run a network, then print measured beside published.

use std::path::Path;

use serde::Serialize;
use topology::document::Measure;
use topology::plan::{Plan, PlannedReference};

use super::up::{Prepared, prepare};
use super::watch::{LinkReport, mean, ratio};
use super::{Place, Start, start, tags_end, watch};
use crate::cli::{Output, VerifyArgs};
use crate::cluster;
use crate::commands::{print, print_json};
use crate::failure::Failure;
use crate::view::View;
use crate::wire;

/// One published figure and what the run gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub link: String,
    pub quantity: &'static str,
    pub unit: &'static str,
    pub published: f64,
    pub measured: Option<f64>,
    /// One standard deviation of the measurement.
    pub uncertainty: Option<f64>,
    pub tolerance: String,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Agrees,
    Disagrees,
    NotMeasured,
}

pub fn run(args: &VerifyArgs, log: Option<&str>) -> Result<(), Failure> {
    let comparisons = match &args.file {
        Some(file) => here(file, args, log)?,
        None => there(args)?,
    };
    match args.run.output.output {
        Output::Json => print_json(&comparisons)?,
        Output::Text => print(&table(&comparisons))?,
    }
    let failed = comparisons.iter().filter(|c| c.verdict != Verdict::Agrees).count();
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::failed(format!("{failed} of {} figures do not agree", comparisons.len())))
    }
}

/// A network on this machine, for the time of the comparison.
fn here(file: &Path, args: &VerifyArgs, log: Option<&str>) -> Result<Vec<Comparison>, Failure> {
    let scratch = match &args.run.data {
        Some(_) => None,
        None => Some(std::env::temp_dir().join(format!("qkdnet-verify-{}", std::process::id()))),
    };
    let result = compare(prepare(file, &args.run, scratch.clone())?, args, log);
    if let Some(scratch) = scratch {
        // The keys of a comparison are of no use to anybody.
        let _ = std::fs::remove_dir_all(scratch);
    }
    result
}

/// A network that runs on a cluster, watched for a while.
fn there(args: &VerifyArgs) -> Result<Vec<Comparison>, Failure> {
    if args.run.seed.is_some() || args.run.speed.is_some() {
        return Err(Failure::bad_input("`--seed` and `--speed` are for a network that is started here")
            .hint("on a cluster they are the topology's `run.seed` and `run.speed`"));
    }
    let Some(duration) = args.run.duration else {
        return Err(Failure::bad_input("how long to watch is not said").hint("add `--for 60s`"));
    };
    let (plan, links) = cluster::run(&args.cluster, async |there| {
        cluster::measured(there, &args.links, duration.rounded() as f64 * 1e-12).await
    })?;
    Ok(comparisons(&plan, &links))
}

fn compare(prepared: Prepared, args: &VerifyArgs, log: Option<&str>) -> Result<Vec<Comparison>, Failure> {
    let Prepared { mut plan, folders, asked, beyond_tags } = prepared;
    // What was published is about links.
    plan.without_key_management();
    for name in &args.links {
        if plan.link(name).is_none() {
            let known: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
            return Err(
                Failure::bad_input(format!("there is no link `{name}`")).hint(format!("links: {}", known.join(", ")))
            );
        }
    }
    if !args.links.is_empty() {
        plan.links.retain(|link| args.links.contains(&link.name));
        plan.services.retain(|service| service.link.as_ref().is_some_and(|link| args.links.contains(link)));
    }
    if plan.epochs_limit.is_none() {
        return Err(
            Failure::bad_input("how long to run is not said").hint("add `--for 600s`, or `for: 600 s` under `run`")
        );
    }
    let place = Place::of(&args.run)?;
    let telemetry = wire::telemetry("qkdnet", &plan.topology, None, log.or(Some("warn")));
    let report = wire::block_on(&telemetry, async {
        let started = Start { plan: &plan, folders: &folders, place, recording: None, replay: Default::default() };
        let running = start(&started).await?;
        watch(running, &plan, &folders, &asked, View::progress()).await
    })?;
    if beyond_tags {
        tags_end(&plan, &folders.data)?;
    }
    Ok(comparisons(&plan, &report.links))
}

/// Every reference of the plan beside what was measured.
fn comparisons(plan: &Plan, links: &[LinkReport]) -> Vec<Comparison> {
    let mut rows = Vec::new();
    for link in &plan.links {
        let Some(measured) = links.iter().find(|report| report.name == link.name) else { continue };
        rows.extend(link.references.iter().map(|reference| one(&link.name, reference, measured)));
    }
    rows
}

fn one(link: &str, reference: &PlannedReference, report: &LinkReport) -> Comparison {
    // Error rates are shown in per cent; inside they are fractions.
    let scale = if reference.quantity.unit() == "%" { 100.0 } else { 1.0 };
    let measured = measure(reference.quantity, report);
    let verdict = match measured {
        None => Verdict::NotMeasured,
        Some((value, _)) if reference.tolerance.accepts(reference.published, value) => Verdict::Agrees,
        Some(_) => Verdict::Disagrees,
    };
    Comparison {
        link: link.to_owned(),
        quantity: reference.quantity.name(),
        unit: reference.quantity.unit(),
        published: reference.published * scale,
        measured: measured.map(|(value, _)| value * scale),
        uncertainty: measured.map(|(_, sigma)| sigma * scale),
        tolerance: reference.tolerance.to_string(),
        verdict,
    }
}

/// Value and standard deviation, in the base unit of the measure.
fn measure(quantity: Measure, report: &LinkReport) -> Option<(f64, f64)> {
    let status = &report.status;
    match quantity {
        Measure::SecretKeyRate => {
            let relative = spread(&report.block_bits)?;
            (status.blocks > 0).then_some((status.skr_bps, status.skr_bps * relative))
        }
        Measure::QberZ => binomial(status.errors_z, status.sifted_z_bits),
        Measure::QberX => binomial(status.errors_x, status.sifted_x_bits),
        Measure::PeakWidth => {
            let width = mean(&report.peak_fwhm_ps)?;
            Some((width, width * spread(&report.peak_fwhm_ps)?))
        }
    }
}

fn binomial(errors: u64, bits: u64) -> Option<(f64, f64)> {
    let p = ratio(errors, bits);
    (bits > 0).then(|| (p, (p * (1.0 - p) / bits as f64).sqrt()))
}

/// Standard error of the mean, relative to the mean.
fn spread(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let n = values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean > 0.0).then(|| (variance / n).sqrt() / mean)
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
        let verdict = match row.verdict {
            Verdict::Agrees => "agrees",
            Verdict::Disagrees => "DISAGREES",
            Verdict::NotMeasured => "NOT MEASURED",
        };
        text.push_str(&format!(
            "{:<18} {:<14} {:>12} {:>22} {:>12}  {verdict}\n",
            row.link,
            row.quantity,
            format!("{:.3}", row.published),
            measured,
            row.tolerance
        ));
    }
    text
}
