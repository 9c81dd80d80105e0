//! Installs logging and the tracer and meter providers of a process.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::collector;
use crate::export::FileExporter;
use crate::losses::{Counted, Losses};
use crate::metrics::SnapshotExporter;
use crate::names::resource;
use crate::settings::{Exporter, Settings};

/// What a process says about itself, and where to.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// Name of the service, or of the process where it holds several.
    pub service_name: String,
    /// Tells two processes of one service apart.
    pub instance: String,
    /// Name of the topology, for `service.namespace`.
    pub topology: Option<String>,
    /// Where spans and metrics are kept if no collector is named. `None`: they are not kept.
    pub span_dir: Option<PathBuf>,
    /// Spans that may wait for the file; what comes beyond is lost.
    pub spans_waiting: usize,
    /// Size at which a span file is rotated.
    pub span_file_limit_bytes: u64,
    /// How often the metrics' snapshot is written or exported.
    pub metrics_interval: Duration,
    /// Filter of log lines, such as `info` or `warn,module=debug`; the variable `QKDNET_LOG` overrides it.
    pub log_filter: String,
    /// `None`: no logs, for a process that draws on the terminal.
    pub log_format: Option<LogFormat>,
    /// Whether spans of the `tracing` crate, also those of libraries, are recorded beside qkdnet's own.
    pub record_tracing_spans: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl TelemetryConfig {
    pub fn new(service_name: impl Into<String>) -> Self {
        let service_name = service_name.into();
        Self {
            instance: format!("{service_name}-{}", std::process::id()),
            service_name,
            topology: None,
            span_dir: None,
            spans_waiting: SPANS_WAITING,
            span_file_limit_bytes: 64 << 20,
            metrics_interval: Duration::from_secs(5),
            log_filter: "info".to_owned(),
            log_format: Some(LogFormat::Text),
            record_tracing_spans: false,
        }
    }
}

/// Spans that may wait for the file of one service. The queue is allocated and touched at once, 350 bytes a span, in
/// every process; a block makes a dozen spans, and the file is written five times a second.
const SPANS_WAITING: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("`{filter}` is not a log filter: {source}")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("cannot write spans into {}: {source}", folder.display())]
    SpanDir { folder: PathBuf, source: std::io::Error },
    /// A variable that cannot be honoured.
    #[error("{variable}: {why}")]
    Setting { variable: String, why: String },
    #[error("cannot export to the OpenTelemetry collector that the OTEL_EXPORTER_OTLP_* variables name: {0}")]
    Collector(String),
}

/// Keeps the providers; dropping it writes what is left.
#[must_use = "telemetry ends when the guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    tracer: Option<SdkTracerProvider>,
    meter: Option<SdkMeterProvider>,
    losses: Losses,
    /// How long the end may take.
    patience: Duration,
}

/// Time that a collector gets for what is left. A run waits no longer for one that is dead or mute.
const COLLECTOR_PATIENCE: Duration = Duration::from_millis(1500);
/// Files are written as fast as the disk takes them.
const FILES_PATIENCE: Duration = Duration::from_secs(10);

impl Guard {
    /// Writes everything recorded so far. Blocks; from async code use [`shutdown`](Self::shutdown) at the end.
    pub fn flush(&self) {
        if let Some(Err(error)) = self.tracer.as_ref().map(SdkTracerProvider::force_flush) {
            tracing::warn!(%error, "spans were not written");
        }
        if let Some(Err(error)) = self.meter.as_ref().map(SdkMeterProvider::force_flush) {
            tracing::warn!(%error, "metrics were not written");
        }
    }

    /// Writes what is left without blocking the runtime, then ends telemetry. Tells what did not reach its place, from
    /// the beginning on.
    pub async fn shutdown(mut self) -> Vec<String> {
        let (tracer, meter, losses) = (self.tracer.take(), self.meter.take(), self.losses.clone());
        let patience = self.patience;
        let (tx, told) = tokio::sync::oneshot::channel();
        // Not a thread of the runtime: its end would wait for it.
        std::thread::spawn(move || tx.send(end(tracer, meter, &losses, patience)));
        told.await.unwrap_or_default()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        end(self.tracer.take(), self.meter.take(), &self.losses, self.patience);
    }
}

/// Ends both at once, so that neither waits for the other's time to run out.
fn end(
    tracer: Option<SdkTracerProvider>,
    meter: Option<SdkMeterProvider>,
    losses: &Losses,
    patience: Duration,
) -> Vec<String> {
    let until = Instant::now() + patience;
    let (tx, ended) = mpsc::channel();
    let mut left = 0;
    if let Some(tracer) = tracer {
        let tx = tx.clone();
        std::thread::spawn(move || tx.send(tracer.shutdown_with_timeout(patience)));
        left += 1;
    }
    if let Some(meter) = meter {
        std::thread::spawn(move || tx.send(meter.shutdown_with_timeout(patience)));
        left += 1;
    }
    let mut late = false;
    while left > 0 && !late {
        match ended.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Ok(()) | Err(OTelSdkError::AlreadyShutdown)) => {}
            Ok(Err(OTelSdkError::Timeout(_))) | Err(_) => late = true,
            // Counted with what was lost.
            Ok(Err(error)) => tracing::debug!(%error, "telemetry did not end in order"),
        }
        left -= 1;
    }
    let mut told = losses.told();
    if late {
        told.push(format!("the last spans and metrics were not taken within {:.1} s", patience.as_secs_f64()));
    }
    told
}

/// Installs logging and providers for the whole process. Call once, from within the runtime where a collector is used.
pub fn init(config: &TelemetryConfig) -> Result<Guard, TelemetryError> {
    let settings = Settings::of_environment()?;
    let filter = filter(config)?;
    let losses = Losses::default();
    let tracer = tracer_provider(config, &settings, &losses)?;
    let meter = meter_provider(config, &settings, &losses)?;
    install_logs(config, filter, tracer.as_ref());
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    if let Some(provider) = &tracer {
        global::set_tracer_provider(provider.clone());
    }
    if let Some(provider) = &meter {
        global::set_meter_provider(provider.clone());
    }
    let collected = [&settings.traces, &settings.metrics].iter().any(|to| matches!(to, Exporter::Collector(_)));
    let patience = if collected { COLLECTOR_PATIENCE } else { FILES_PATIENCE };
    Ok(Guard { tracer, meter, losses, patience })
}

fn filter(config: &TelemetryConfig) -> Result<EnvFilter, TelemetryError> {
    let text = variable("QKDNET_LOG").unwrap_or_else(|| config.log_filter.clone());
    // The SDK tells of itself at `info`; whoever wants to know says so in the filter.
    EnvFilter::try_new(format!("opentelemetry=warn,{text}"))
        .map_err(|source| TelemetryError::Filter { filter: text, source })
}

fn install_logs(config: &TelemetryConfig, filter: EnvFilter, tracer: Option<&SdkTracerProvider>) {
    let lines = config.log_format.map(|format| match format {
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(true);
            // It would say on standard error that standard error is closed, and panic over that.
            let lines = lines.log_internal_errors(false);
            // A file, or a cluster that passes last words on, has no use for colours.
            if std::io::stderr().is_terminal() { lines.boxed() } else { lines.with_ansi(false).boxed() }
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr);
            lines.log_internal_errors(false).boxed()
        }
    });
    let spans = tracer
        .filter(|_| config.record_tracing_spans)
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(config.service_name.clone())));
    // A program that brought its own subscriber (a test) keeps it.
    let _ = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init();
}

/// What the environment says of the process counts more than what is built in.
fn described(config: &TelemetryConfig, settings: &Settings) -> Resource {
    let mut attributes = vec![
        KeyValue::new(resource::SERVICE_INSTANCE_ID, config.instance.clone()),
        KeyValue::new(resource::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
    ];
    if let Some(topology) = &config.topology {
        attributes.push(KeyValue::new(resource::SERVICE_NAMESPACE, "qkdnet"));
        attributes.push(KeyValue::new(resource::TOPOLOGY, topology.clone()));
    }
    let name = settings.service_name.clone().unwrap_or_else(|| config.service_name.clone());
    Resource::builder()
        .with_service_name(name)
        .with_attributes(attributes)
        .with_attributes(settings.attributes.clone())
        .build()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn tracer_provider(
    config: &TelemetryConfig,
    settings: &Settings,
    losses: &Losses,
) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let builder = SdkTracerProvider::builder().with_resource(described(config, settings));
    let folder = match (&settings.traces, &config.span_dir) {
        (Exporter::Nowhere, _) | (Exporter::Files, None) => return Ok(None),
        (Exporter::Collector(target), _) => {
            let exporter = Counted::new(collector::span_exporter(target)?, losses);
            return Ok(Some(builder.with_batch_exporter(exporter).build()));
        }
        (Exporter::Files, Some(folder)) => folder,
    };
    let exporter = FileExporter::create(folder, &config.service_name, config.span_file_limit_bytes)
        .map_err(|source| TelemetryError::SpanDir { folder: folder.clone(), source })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(config.spans_waiting)
        .with_scheduled_delay(Duration::from_millis(200));
    let processor = BatchSpanProcessor::builder(Counted::new(exporter, losses)).with_batch_config(batches.build());
    Ok(Some(builder.with_span_processor(processor.build()).build()))
}

fn meter_provider(
    config: &TelemetryConfig,
    settings: &Settings,
    losses: &Losses,
) -> Result<Option<SdkMeterProvider>, TelemetryError> {
    let builder = SdkMeterProvider::builder().with_resource(described(config, settings));
    let folder = match (&settings.metrics, &config.span_dir) {
        (Exporter::Nowhere, _) | (Exporter::Files, None) => return Ok(None),
        (Exporter::Collector(target), _) => {
            let exporter = Counted::new(collector::metric_exporter(target)?, losses);
            let reader = PeriodicReader::builder(exporter).with_interval(config.metrics_interval).build();
            return Ok(Some(builder.with_reader(reader).build()));
        }
        (Exporter::Files, Some(folder)) => folder,
    };
    let exporter = SnapshotExporter::create(folder, &config.service_name)
        .map_err(|source| TelemetryError::SpanDir { folder: folder.clone(), source })?;
    let reader = PeriodicReader::builder(Counted::new(exporter, losses)).with_interval(config.metrics_interval);
    Ok(Some(builder.with_reader(reader.build()).build()))
}
