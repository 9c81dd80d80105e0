//! What did not reach its place: counted where it is exported, told at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// Shared by the exporters of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(Arc<Mutex<Lost>>);

#[derive(Debug, Default)]
struct Lost {
    spans: usize,
    why_spans: String,
    /// Of the latest export: values that come later stand for those that were lost.
    why_metrics: Option<String>,
}

impl Losses {
    fn change(&self, change: impl FnOnce(&mut Lost)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// In words, one for each signal.
    pub fn told(&self) -> Vec<String> {
        let lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spans = (lost.spans > 0).then(|| format!("{} spans were not written: {}", lost.spans, lost.why_spans));
        let metrics = lost.why_metrics.as_ref().map(|why| format!("the latest metrics were not written: {why}"));
        spans.into_iter().chain(metrics).collect()
    }
}

/// An exporter, and what it lost.
#[derive(Debug)]
pub(crate) struct Counted<E> {
    inner: E,
    losses: Losses,
}

impl<E> Counted<E> {
    pub fn new(inner: E, losses: &Losses) -> Self {
        Self { inner, losses: losses.clone() }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        if let Err(error) = &result {
            self.losses.change(|lost| {
                lost.spans += spans;
                lost.why_spans = error.to_string();
            });
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        self.losses.change(|lost| lost.why_metrics = result.as_ref().err().map(ToString::to_string));
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
