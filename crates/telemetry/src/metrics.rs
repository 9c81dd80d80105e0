//! Metrics of a service, and the snapshot file that holds them where no collector is named.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use serde_json::{Value, json};

use crate::export::attribute;
use crate::trace::Figure;

/// The metrics of one service, with the attributes that all of them carry.
#[derive(Clone, Debug)]
pub struct Meter {
    inner: opentelemetry::metrics::Meter,
    attributes: Vec<KeyValue>,
}

impl Meter {
    /// Make it after [`init`](crate::init()); one made before records nothing.
    pub fn new(service: &str) -> Self {
        let scope = opentelemetry::InstrumentationScope::builder(service.to_owned()).build();
        Self { inner: global::meter_with_scope(scope), attributes: vec![] }
    }

    /// Adds an attribute to everything that is recorded from here on, such as the link.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Figure>) -> Self {
        self.attributes.push(KeyValue::new(key.to_owned(), value.into()));
        self
    }

    /// A figure that goes up and down. `unit` as UCUM writes it, such as `bit/s` or `ps`.
    pub fn gauge(&self, name: impl Into<Cow<'static, str>>, unit: &'static str) -> Gauge {
        Gauge { inner: self.inner.f64_gauge(name).with_unit(unit).build(), attributes: self.attributes.clone() }
    }

    /// A count that only grows.
    pub fn counter(&self, name: &'static str, unit: &'static str) -> Counter {
        Counter { inner: self.inner.u64_counter(name).with_unit(unit).build(), attributes: self.attributes.clone() }
    }
}

#[derive(Clone, Debug)]
pub struct Gauge {
    inner: opentelemetry::metrics::Gauge<f64>,
    attributes: Vec<KeyValue>,
}

impl Gauge {
    pub fn record(&self, value: f64) {
        self.inner.record(value, &self.attributes);
    }
}

#[derive(Clone, Debug)]
pub struct Counter {
    inner: opentelemetry::metrics::Counter<u64>,
    attributes: Vec<KeyValue>,
}

impl Counter {
    pub fn add(&self, count: u64) {
        self.inner.add(count, &self.attributes);
    }
}

/// The file that a service's metrics are written to.
pub fn snapshot_file(folder: &Path, service: &str) -> PathBuf {
    folder.join(format!("{service}.metrics.json"))
}

/// Replaces `<folder>/<service>.metrics.json` with the present values at every collection.
#[derive(Debug)]
pub(crate) struct SnapshotExporter {
    path: PathBuf,
}

impl SnapshotExporter {
    pub(crate) fn create(folder: &Path, service: &str) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { path: snapshot_file(folder, service) })
    }

    fn write(&self, metrics: &ResourceMetrics) -> io::Result<()> {
        let mut rows = vec![];
        for scope in metrics.scope_metrics() {
            for metric in scope.metrics() {
                collect(scope.scope().name(), metric, &mut rows);
            }
        }
        let mut text = serde_json::to_string_pretty(&rows)?;
        text.push('\n');
        // A reader sees the old snapshot or the new one, never half of one.
        let beside = self.path.with_extension("json.new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &self.path)
    }
}

impl PushMetricExporter for SnapshotExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.write(metrics).map_err(|error| OTelSdkError::InternalFailure(format!("metrics file: {error}")))
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn collect(service: &str, metric: &Metric, rows: &mut Vec<Value>) {
    match metric.data() {
        AggregatedMetrics::F64(data) => points(service, metric, data, rows),
        AggregatedMetrics::U64(data) => points(service, metric, data, rows),
        AggregatedMetrics::I64(data) => points(service, metric, data, rows),
    }
}

fn points<T: Copy + Into<Value>>(service: &str, metric: &Metric, data: &MetricData<T>, rows: &mut Vec<Value>) {
    let mut row = |attributes: Vec<&KeyValue>, value: Value| {
        let attributes: std::collections::BTreeMap<_, _> = attributes.into_iter().map(attribute).collect();
        let (name, unit) = (metric.name(), metric.unit());
        rows.push(json!({"service": service, "name": name, "unit": unit, "attributes": attributes, "value": value}));
    };
    match data {
        MetricData::Gauge(gauge) => {
            gauge.data_points().for_each(|point| row(point.attributes().collect(), point.value().into()));
        }
        MetricData::Sum(sum) => {
            sum.data_points().for_each(|point| row(point.attributes().collect(), point.value().into()));
        }
        MetricData::Histogram(histogram) => histogram.data_points().for_each(|point| {
            row(point.attributes().collect(), json!({"count": point.count(), "sum": point.sum().into()}));
        }),
        MetricData::ExponentialHistogram(_) => {}
    }
}
