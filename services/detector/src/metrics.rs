//! A module's figures as OpenTelemetry metrics.

use proto::detector::v1::ModuleStatus;
use telemetry::metrics::{Gauge, Meter};
use telemetry::names::{attribute, metric};
use topology::plan::DetectorConfig;

/// How a figure is read from a status.
type Read = fn(&ModuleStatus) -> f64;

/// Records a status, figure by figure.
pub struct Metrics {
    gauges: Vec<(Gauge, Read)>,
}

impl Metrics {
    pub fn new(config: &DetectorConfig) -> Self {
        let meter = Meter::new(&config.name)
            .with(attribute::LINK_ID, config.link.as_str())
            .with(attribute::SITE_ID, config.site.as_str());
        let gauge = |name, unit, read: Read| (meter.gauge(name, unit), read);
        Self {
            gauges: vec![
                gauge(metric::LINK_SKR, "bit/s", |s| s.skr_bps),
                gauge(metric::LINK_QBER_Z, "1", |s| s.qber_z),
                gauge(metric::LINK_QBER_X, "1", |s| s.qber_x),
                gauge(metric::DETECTOR_CLICK_RATE, "Hz", |s| s.click_rate_hz),
                gauge(metric::CLOCK_OFFSET, "ps", |s| s.clock_offset_ps),
                gauge(metric::CLOCK_RESIDUAL, "ps", |s| s.clock_residual_ps),
                gauge(metric::LINK_BLOCKS, "{block}", |s| s.blocks as f64),
                gauge(metric::LINK_BLOCKS_VOIDED, "{block}", |s| s.blocks_voided as f64),
                gauge(metric::LINK_BLOCKS_ABORTED, "{block}", |s| s.blocks_aborted as f64),
                gauge(metric::LINK_KEY_BITS, "bit", |s| s.key_bits as f64),
                gauge(metric::CHANNEL_RESERVE_TAGS, "{tag}", |s| s.reserve_tags as f64),
                gauge(metric::SIMULATED_TIME, "s", |s| s.simulated_s),
            ],
        }
    }

    pub fn record(&self, status: &ModuleStatus) {
        for (gauge, read) in &self.gauges {
            gauge.record(read(status));
        }
    }
}
