//! A module's status as OpenTelemetry metrics.

use proto::detector::v1::ModuleStatus;
use telemetry::metrics::{Gauge, Meter};
use telemetry::names::{self, attribute, metric};
use topology::figure::{Figure, Figures};
use topology::plan::ModuleConfig;

/// How a count is read from a status.
type Read = fn(&ModuleStatus) -> f64;

/// Records a status: the counts that every module has, and each figure that is measured.
pub struct Metrics {
    counts: Vec<(Gauge, Read)>,
    figures: Vec<(Gauge, Figure)>,
}

impl Metrics {
    pub fn new(config: &ModuleConfig) -> Self {
        let meter = Meter::new(&config.name)
            .with(attribute::LINK_ID, config.link.as_str())
            .with(attribute::SITE_ID, config.site.as_str());
        let count = |name, unit, read: Read| (meter.gauge(name, unit), read);
        let figure = |figure: Figure| (meter.gauge(names::figure(figure.name()), figure.unit()), figure);
        Self {
            counts: vec![
                count(metric::LINK_BLOCKS, "{block}", |s| s.blocks as f64),
                count(metric::LINK_BLOCKS_VOIDED, "{block}", |s| s.blocks_voided as f64),
                count(metric::LINK_BLOCKS_ABORTED, "{block}", |s| s.blocks_aborted as f64),
                count(metric::LINK_KEY_BITS, "bit", |s| s.key_bits as f64),
                count(metric::CHANNEL_RESERVE_TAGS, "{tag}", |s| s.reserve_tags as f64),
                count(metric::SIMULATED_TIME, "s", |s| s.simulated_s),
            ],
            figures: Figure::ALL.map(figure).into(),
        }
    }

    /// `figures` are those of the status.
    pub fn record(&self, status: &ModuleStatus, figures: &Figures) {
        for (gauge, read) in &self.counts {
            gauge.record(read(status));
        }
        for (gauge, figure) in &self.figures {
            if let Some(value) = figures.value(*figure) {
                gauge.record(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_one_metric_which_is_no_other_and_old_names_stay() {
        let counts = [
            metric::LINK_BLOCKS,
            metric::LINK_BLOCKS_VOIDED,
            metric::LINK_BLOCKS_ABORTED,
            metric::LINK_KEY_BITS,
            metric::CHANNEL_RESERVE_TAGS,
            metric::SIMULATED_TIME,
        ];
        let mut metrics: Vec<String> = counts.map(str::to_owned).into();
        metrics.extend(Figure::ALL.map(|figure| names::figure(figure.name()).into_owned()));
        for old in [metric::LINK_SKR, metric::LINK_QBER_Z, metric::LINK_QBER_X, metric::DETECTOR_CLICK_RATE] {
            assert!(metrics.iter().any(|metric| metric == old), "{old}");
        }
        assert!(metrics.iter().any(|metric| metric == "qkd.link.secret_key_rate_finite"), "{metrics:?}");
        let all = metrics.len();
        metrics.sort_unstable();
        metrics.dedup();
        assert_eq!(metrics.len(), all, "{metrics:?}");
    }
}
