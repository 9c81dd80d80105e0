//! Measured beside published: what a run gave for each figure that the topology has a reference of.

use serde::Serialize;
use topology::document::Measure;
use topology::figure::Figure;
use topology::plan::{Plan, PlannedLink, PlannedReference};

use super::rows::mean;
use super::watch::LinkReport;
use crate::failure::Failure;

pub mod precision;

/// One published figure and what the run gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub link: String,
    pub quantity: &'static str,
    pub unit: &'static str,
    pub published: f64,
    /// Multiplied by `duty`, where there is one.
    pub measured: Option<f64>,
    /// Share of the time in which the published system made key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duty: Option<f64>,
    /// One standard deviation of the measurement; none of what is about the run as a whole.
    pub uncertainty: Option<f64>,
    pub tolerance: String,
    pub verdict: Agreement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    Agrees,
    Disagrees,
    NotMeasured,
    /// The light of the link is simulated without what this is a figure of.
    NotSimulated,
    /// A parameter was chosen to meet the value: no verdict.
    Fitted,
}

impl Agreement {
    pub fn is_against(self) -> bool {
        matches!(self, Agreement::Disagrees | Agreement::NotMeasured)
    }

    pub fn is_verdict(self) -> bool {
        self == Agreement::Agrees || self.is_against()
    }
}

/// A verdict on nothing would be worth nothing.
pub fn needs_references(plan: &Plan) -> Result<(), Failure> {
    if plan.links.iter().any(|link| link.references.iter().any(|reference| is_comparable(link, reference))) {
        return Ok(());
    }
    Err(Failure::bad_input("no link has a published figure to compare with")
        .hint("say under `reference` of a link what was published, and how far a measurement may be from it"))
}

/// Leaves the links that are named, or all.
pub fn choose(plan: &mut Plan, links: &[String]) -> Result<(), Failure> {
    for name in links {
        if plan.link(name).is_none() {
            let known: Vec<&str> = plan.links.iter().map(|link| link.name.as_str()).collect();
            return Err(
                Failure::bad_input(format!("there is no link `{name}`")).hint(format!("links: {}", known.join(", ")))
            );
        }
    }
    if !links.is_empty() {
        plan.links.retain(|link| links.contains(&link.name));
        plan.retain(|service| service.link.as_ref().is_some_and(|link| links.contains(link)));
    }
    Ok(())
}

/// Every reference of the plan beside what was measured.
pub fn comparisons(plan: &Plan, links: &[LinkReport]) -> Vec<Comparison> {
    let mut rows = Vec::new();
    for link in &plan.links {
        let Some(measured) = links.iter().find(|report| report.name == link.name) else { continue };
        rows.extend(link.references.iter().map(|reference| one(link, reference, measured)));
    }
    rows
}

/// Whether a link has this figure at its fidelity.
fn is_simulated(link: &PlannedLink, reference: &PlannedReference) -> bool {
    link.listing().all().any(|figure| figure == reference.quantity.figure())
}

/// Whether there will be a verdict on it.
fn is_comparable(link: &PlannedLink, reference: &PlannedReference) -> bool {
    is_simulated(link, reference) && !reference.is_fitted()
}

fn one(link: &PlannedLink, reference: &PlannedReference, report: &LinkReport) -> Comparison {
    let scale = reference.quantity.scale();
    let measured = measure(reference.quantity, report)
        .map(|(value, sigma)| (reference.compared(value), reference.compared(sigma)));
    let verdict = match measured {
        _ if reference.is_fitted() => Agreement::Fitted,
        None if !is_simulated(link, reference) => Agreement::NotSimulated,
        None => Agreement::NotMeasured,
        Some((value, _)) if reference.tolerance.accepts(reference.published, value) => Agreement::Agrees,
        Some(_) => Agreement::Disagrees,
    };
    Comparison {
        link: link.name.clone(),
        quantity: reference.quantity.name(),
        unit: reference.quantity.unit(),
        published: reference.published * scale,
        measured: measured.map(|(value, _)| value * scale),
        duty: reference.duty,
        uncertainty: measured.filter(|_| !reference.quantity.is_of_a_run()).map(|(_, sigma)| sigma * scale),
        tolerance: reference.tolerance.to_string(),
        verdict,
    }
}

/// Value and standard deviation, in the base unit of the measure.
fn measure(quantity: Measure, report: &LinkReport) -> Option<(f64, f64)> {
    let counted = report.counted();
    match quantity.figure() {
        Figure::SecretKeyRate => {
            let relative = spread(whole_blocks(&report.block_bits))?;
            let rate = counted.value(Figure::SecretKeyRate).filter(|_| report.status.blocks > 0)?;
            Some((rate, rate * relative))
        }
        figure if quantity.is_of_a_run() => Some((counted.value(figure)?, 0.0)),
        figure => match counted.get(figure) {
            Some(measured) => Some((measured.value(), measured.deviation()?)),
            None => {
                let seconds = report.seconds.get(&figure)?;
                let mean = mean(seconds)?;
                Some((mean, mean * spread(seconds)?))
            }
        },
    }
}

/// A run ends within a round: its last block is a short one, and says nothing about how blocks scatter.
fn whole_blocks(block_bits: &[f64]) -> &[f64] {
    match block_bits {
        [whole @ .., _] if !whole.is_empty() => whole,
        _ => block_bits,
    }
}

/// Standard error of the mean, relative to the mean.
fn spread(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let n = values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean > 0.0).then(|| (variance / n).sqrt() / mean)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use topology::figure::{Figures, Measured};
    use topology::plan::{RunOptions, plan};

    use super::*;

    #[test]
    fn gains_are_compared_by_their_counts_and_shown_in_ppm() {
        let path = format!("{}/../../topologies/t12-50km.yaml", env!("CARGO_MANIFEST_DIR"));
        let topology = topology::parse("t12-50km.yaml", &std::fs::read(path).unwrap()).unwrap().topology;
        let plan = plan(&topology, &RunOptions::default());
        let mut report = LinkReport::of(&plan.links[0]);
        let mut counted = Figures::default();
        for (figure, count, total) in [
            (Figure::GainSignal, 48_120_000, 10_000_000_000),
            (Figure::GainDecoy, 75_370, 100_000_000),
            (Figure::GainVacuum, 318_000, 1_000_000_000),
        ] {
            counted.set(figure, Measured::ratio(count, total));
        }
        report.status.counted = shell::figures::tell(&counted);
        let rows = comparisons(&plan, std::slice::from_ref(&report));
        let gains: Vec<&Comparison> = rows.iter().filter(|row| row.quantity.starts_with("gain")).collect();
        let verdicts: Vec<Agreement> = gains.iter().map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Agreement::Agrees, Agreement::Agrees, Agreement::Disagrees]);
        assert!((gains[0].measured.unwrap() - 4812.0).abs() < 1e-6 && gains[0].unit == "ppm", "{:?}", gains[0]);
        assert!((gains[0].uncertainty.unwrap() - 0.692).abs() < 1e-3, "{:?}", gains[0]);
        let known = |quantity| {
            let reference = plan.links[0].references.iter().find(|reference| reference.quantity == quantity).unwrap();
            precision::is_known(reference, &report)
        };
        assert!(known(Measure::GainSignal) && known(Measure::GainDecoy) && known(Measure::GainVacuum));
    }

    #[test]
    fn a_fitted_figure_is_shown_after_its_duty_and_gets_no_verdict() {
        let path = format!("{}/../../topologies/cambridge.yaml", env!("CARGO_MANIFEST_DIR"));
        let topology = topology::parse("cambridge.yaml", &std::fs::read(path).unwrap()).unwrap().topology;
        let mut plan = plan(&topology, &RunOptions::default());
        let mut report = LinkReport::of(&plan.links[0]);
        report.status.blocks = 2;
        report.status.counted = shell::figures::tell(&Figures::of([(Figure::SecretKeyRate, Some(4.8e6))]));
        report.block_bits = vec![9.6e6, 9.6e6];
        let rows = comparisons(&plan, std::slice::from_ref(&report));
        let shown: Vec<_> =
            rows.iter().map(|row| (row.published, row.measured.unwrap().round(), row.verdict)).collect();
        assert_eq!(shown, [(4.84e6, 4.8e6, Agreement::Agrees), (2.58e6, 2_558_400.0, Agreement::Fitted)]);
        assert!(rows.iter().all(|row| !row.verdict.is_against()));
        // Far off, or not measured at all, it has none either; and alone it is nothing to compare with.
        plan.links[0].references[1].published = 1e3;
        for report in [report, LinkReport::of(&plan.links[0])] {
            assert_eq!(comparisons(&plan, &[report])[1].verdict, Agreement::Fitted);
        }
        needs_references(&plan).unwrap();
        plan.links.iter_mut().for_each(|link| link.references.retain(PlannedReference::is_fitted));
        assert!(needs_references(&plan).is_err());
        assert_eq!(precision::forecast(&plan), None);
        assert_eq!(precision::progress(&plan, &[]), (0, 0));
    }
}
