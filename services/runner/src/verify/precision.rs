//! How long a link must be watched until each of its figures says something about the published one.

use distill::bounds::binary_entropy;
use photonics::expect::response::{CHECK, KEY};
use topology::document::{Measure, Tolerance};
use topology::figure::Figure;
use topology::plan::estimate::RECONCILIATION_EFFICIENCY;
use topology::plan::expected::PreparedParts;
use topology::plan::key::KeyInputs;
use topology::plan::{Plan, PlannedLink, PlannedReference};

use super::super::watch::LinkReport;
use super::{measure, whole_blocks};

/// A figure is known well enough where its standard deviation is this part of its tolerance.
pub const PART_OF_TOLERANCE: f64 = 0.2;
/// Blocks, or widths of the peak, below which their scatter is not known itself.
const SAMPLES_MIN: usize = 5;
/// A link that is worse than its model gets several times the predicted time, and never less than this.
const CAP_FACTOR: f64 = 5.0;
const CAP_MIN_S: f64 = 600.0;

/// What the model says of a verification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Simulated time until every figure is known well enough.
    pub expected_s: f64,
    /// Simulated time after which the verification ends all the same.
    pub cap_s: f64,
}

/// Over all references of the plan; `None` where there are none.
pub fn forecast(plan: &Plan) -> Option<Forecast> {
    let times = plan.links.iter().flat_map(|link| {
        let expected = Expected::of(plan, link);
        comparable(link).filter_map(move |reference| expected.as_ref()?.time_s(reference))
    });
    // What the model knows nothing of takes the least time that a verification gets.
    let has_references = plan.links.iter().any(|link| comparable(link).next().is_some());
    let known_s = times.filter(|time_s| time_s.is_finite()).fold(0.0, f64::max);
    let counted = plan.links.iter().filter(|link| comparable(link).any(counts_outages));
    let outages_s = counted.map(|link| outages_s(plan, link)).fold(0.0, f64::max);
    let cap_s = (CAP_FACTOR * known_s).max(CAP_MIN_S).max(outages_s + CAP_MIN_S);
    has_references.then(|| Forecast { expected_s: known_s.max(outages_s), cap_s })
}

/// Figures of the references that are known well enough, and all of them.
pub fn progress(plan: &Plan, reports: &[LinkReport]) -> (usize, usize) {
    let (mut known, mut all) = (0, 0);
    for link in &plan.links {
        let report = reports.iter().find(|report| report.name == link.name);
        let outages_s = outages_s(plan, link);
        for reference in comparable(link) {
            all += 1;
            let is_known = |report| is_known(reference, report) && has_happened(reference, report, outages_s);
            known += usize::from(report.is_some_and(is_known));
        }
    }
    (known, all)
}

/// Simulated time at which all outages of a link that the document says are over: of those that come again and again,
/// the first.
fn outages_s(plan: &Plan, link: &PlannedLink) -> f64 {
    let source = plan.sources().find(|source| source.link == link.name);
    let ends = source.into_iter().flat_map(|source| {
        source.outages.iter().map(|outage| {
            let end = outage.epochs.first_epoch.saturating_add(outage.epochs.epochs);
            end as f64 * (source.epoch_ps as f64 * 1e-12)
        })
    });
    ends.fold(0.0, f64::max)
}

/// Whether a figure counts the outages of a link.
fn counts_outages(reference: &PlannedReference) -> bool {
    matches!(reference.quantity.figure(), Figure::Restarts | Figure::Availability)
}

/// What a figure of a run counts has happened.
fn has_happened(reference: &PlannedReference, report: &LinkReport, outages_s: f64) -> bool {
    !counts_outages(reference) || outages_s == 0.0 || report.status.simulated_s > outages_s
}

/// References that get a verdict.
fn comparable(link: &PlannedLink) -> impl Iterator<Item = &PlannedReference> {
    link.references.iter().filter(|reference| super::is_comparable(link, reference))
}

/// Whether the figure's uncertainty is small beside its tolerance.
pub fn is_known(reference: &PlannedReference, report: &LinkReport) -> bool {
    let figure = reference.quantity.figure();
    let samples = match figure {
        Figure::SecretKeyRate => whole_blocks(&report.block_bits).len(),
        _ if report.listing.averaged.contains(&figure) => report.seconds.get(&figure).map_or(0, Vec::len),
        _ => SAMPLES_MIN,
    };
    let wanted = PART_OF_TOLERANCE * width(reference);
    let is_close = |(_, sigma): (f64, f64)| reference.compared(sigma) <= wanted;
    samples >= SAMPLES_MIN && measure(reference.quantity, report).is_some_and(is_close)
}

/// How far a measurement may be from the published value, in the base unit of the measure, to the nearer side.
fn width(reference: &PlannedReference) -> f64 {
    let published = reference.published.abs();
    match reference.tolerance {
        Tolerance::Relative(part) => part * published,
        Tolerance::Points(points) => points,
        Tolerance::Factor(factor) => published * (1.0 - 1.0 / factor),
        // What is exact does not scatter, and how far a bound may be is not said.
        Tolerance::Exact | Tolerance::AtLeast => f64::INFINITY,
    }
}

/// What the formulae say of a link: of pairs where the pump loop settles.
struct Expected {
    block_s: f64,
    /// Of Z and X.
    sifted_hz: [f64; 2],
    qber: [f64; 2],
    /// Of each kind of pulse: detections per pulse, and pulses per second. Pairs have none.
    gains: Vec<[f64; 2]>,
}

impl Expected {
    fn of(plan: &Plan, link: &PlannedLink) -> Option<Self> {
        if let Some(parts) = plan.prepared(link) {
            return Some(Self::of_pulses(&parts));
        }
        let parts = plan.entangled(link)?;
        let point = parts.operating_point(&parts.inputs()).prediction;
        let (z, x) = (point.z, point.x);
        let block_s = KeyInputs::of(parts.post_processing).block_s;
        Some(Self { block_s, sifted_hz: [z.sifted_hz, x.sifted_hz], qber: [z.qber, x.qber], gains: Vec::new() })
    }

    fn of_pulses(parts: &PreparedParts<'_>) -> Self {
        let prediction = parts.predict(RECONCILIATION_EFFICIENCY);
        let bases = if parts.key_is_z() { [KEY, CHECK] } else { [CHECK, KEY] };
        let pulses_hz = prediction.inputs.pulse_rate_hz();
        let shares = prediction.inputs.probabilities().into_iter().enumerate();
        Self {
            block_s: prediction.block_s,
            sifted_hz: bases.map(|basis| prediction.sifted_hz(basis)),
            qber: bases.map(|basis| prediction.qber(basis)),
            gains: shares.map(|(kind, share)| [prediction.gain(kind), share * pulses_hz]).collect(),
        }
    }

    /// Simulated time until a figure is known well enough; whole blocks, as figures come with them.
    fn time_s(&self, reference: &PlannedReference) -> Option<f64> {
        let sigma = PART_OF_TOLERANCE * width(reference);
        let relative = sigma / reference.published.abs();
        let seconds = match reference.quantity {
            Measure::SecretKeyRate => {
                let blocks = (self.block_variance() / relative.powi(2)).max(SAMPLES_MIN as f64);
                // One more than those that count, as the last one may be a short one.
                (blocks.ceil() + 1.0) * self.block_s
            }
            Measure::QberZ => self.error_rate_s(0, sigma),
            Measure::QberX => self.error_rate_s(1, sigma),
            Measure::GainSignal => self.gain_s(0, sigma)?,
            Measure::GainDecoy => self.gain_s(1, sigma)?,
            Measure::GainVacuum => self.gain_s(2, sigma)?,
            // As long as the run lasts.
            Measure::Restarts | Measure::Interventions | Measure::Availability => return None,
            // The width of a peak of n coincidences is known to 1 / sqrt(2 n); one is told a second.
            Measure::PeakWidth => {
                let pairs_hz = self.sifted_hz[0] + self.sifted_hz[1];
                (1.0 / (2.0 * pairs_hz * relative.powi(2))).max(SAMPLES_MIN as f64 + 1.0)
            }
        };
        Some((seconds / self.block_s).ceil() * self.block_s)
    }

    fn error_rate_s(&self, basis: usize, sigma: f64) -> f64 {
        ratio_s(self.qber[basis], self.sifted_hz[basis], sigma)
    }

    fn gain_s(&self, kind: usize, sigma: f64) -> Option<f64> {
        self.gains.get(kind).map(|[gain, pulses_hz]| ratio_s(*gain, *pulses_hz, sigma))
    }

    /// Relative variance of the key of one block: of the number of its bits, and of what its errors cost. Nothing is
    /// known of that of pulses, which the scatter of the decoys makes.
    fn block_variance(&self) -> f64 {
        if !self.gains.is_empty() {
            return 0.0;
        }
        let [qz, qx] = self.qber;
        let [nz, nx] = self.sifted_hz.map(|rate_hz| rate_hz * self.block_s);
        let kept = 1.0 - RECONCILIATION_EFFICIENCY * binary_entropy(qz) - binary_entropy(qx);
        if kept <= 0.0 {
            return 0.0;
        }
        let slope = |p: f64| ((1.0 - p) / p.max(1e-6)).log2();
        let cost = |p: f64, n: f64| slope(p).powi(2) * p * (1.0 - p) / n;
        1.0 / nz + (RECONCILIATION_EFFICIENCY.powi(2) * cost(qz, nz) + cost(qx, nx)) / kept.powi(2)
    }
}

/// Time until a share of this many cases per second is known to `sigma`.
fn ratio_s(share: f64, cases_hz: f64, sigma: f64) -> f64 {
    share * (1.0 - share) / sigma.powi(2) / cases_hz
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use topology::figure::{Figures, Measured};
    use topology::plan::{RunOptions, plan};

    use super::*;

    fn shipped(name: &str) -> Plan {
        let path = format!("{}/../../topologies/{name}", env!("CARGO_MANIFEST_DIR"));
        let document = topology::parse(name, &std::fs::read(path).unwrap()).unwrap();
        plan(&document.topology, &RunOptions::default())
    }

    #[test]
    fn the_forecast_of_the_shipped_networks_is_minutes_of_simulated_time_in_whole_blocks() {
        let short = forecast(&shipped("nice-50km.yaml")).unwrap();
        assert!((50.0..200.0).contains(&short.expected_s), "{short:?}");
        assert!((short.expected_s / 10.0).fract().abs() < 1e-9, "{short:?}");
        assert_eq!(short.cap_s, (5.0 * short.expected_s).max(600.0));
        let whole = forecast(&shipped("nice.yaml")).unwrap();
        // Six blocks of the 100 km link.
        assert!((1500.0..4000.0).contains(&whole.expected_s), "{whole:?}");
        // 250,000 detections of the vacuum, which is sent in a pulse of 256.
        let pulses = forecast(&shipped("t12-50km.yaml")).unwrap();
        assert!((200.0..240.0).contains(&pulses.expected_s), "{pulses:?}");
    }

    #[test]
    fn what_counts_outages_is_not_known_before_they_have_happened() {
        let plan = shipped("nice-325h.yaml");
        let outages_s = outages_s(&plan, &plan.links[0]);
        assert!((100.0 * 3600.0..325.0 * 3600.0).contains(&outages_s), "{outages_s}");
        let forecast = forecast(&plan).unwrap();
        assert!(forecast.expected_s >= outages_s && forecast.cap_s > outages_s, "{forecast:?}");
        let mut report = LinkReport::of(&plan.links[0]);
        let counted = [(Figure::Restarts, Some(9.0)), (Figure::Availability, Some(0.99))];
        report.status.counted = shell::figures::tell(&Figures::of(counted));
        let mut known = |simulated_s| {
            report.status.simulated_s = simulated_s;
            progress(&plan, std::slice::from_ref(&report)).0
        };
        let (before, after) = (known(outages_s), known(outages_s + 60.0));
        let of_outages = comparable(&plan.links[0]).filter(|reference| counts_outages(reference)).count();
        assert!(of_outages > 0);
        assert_eq!(after, before + of_outages);
    }

    #[test]
    fn what_publishes_nothing_has_no_forecast() {
        let mut plan = shipped("nice-50km.yaml");
        plan.links[0].references.clear();
        assert_eq!(forecast(&plan), None);
        assert_eq!(progress(&plan, &[]), (0, 0));
    }

    #[test]
    fn a_figure_is_known_once_its_uncertainty_is_a_fifth_of_its_tolerance_and_not_by_few_samples() {
        let plan = shipped("nice-50km.yaml");
        let mut report = LinkReport::of(&plan.links[0]);
        let told = |errors, bits, skr_bps: Option<f64>| {
            let mut counted = Figures::of([(Figure::SecretKeyRate, skr_bps)]);
            counted.set(Figure::QberZ, Measured::ratio(errors, bits));
            shell::figures::tell(&counted)
        };
        assert_eq!(progress(&plan, std::slice::from_ref(&report)), (0, 4));
        // 4.24 % to 0.04 points: some 250,000 bits.
        report.status.counted = told(8_480, 200_000, None);
        assert_eq!(progress(&plan, std::slice::from_ref(&report)), (0, 4));
        report.status.counted = told(12_720, 300_000, None);
        assert_eq!(progress(&plan, std::slice::from_ref(&report)), (1, 4));
        // Two blocks that happen to be equal prove nothing.
        report.status.blocks = 2;
        report.status.counted = told(12_720, 300_000, Some(7000.0));
        report.block_bits = vec![70_000.0; 2];
        assert_eq!(progress(&plan, std::slice::from_ref(&report)), (1, 4));
        report.block_bits = vec![70_000.0, 70_500.0, 69_500.0, 70_200.0, 69_800.0, 31_000.0];
        assert_eq!(progress(&plan, &[report]), (2, 4));
    }
}
