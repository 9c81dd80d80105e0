//! The receiving end of OTLP: spans of many processes into the files of one store, and the latest value of each of
//! their metrics. Small on purpose: for a cluster without a collector of its own.
//!
//! What comes in is foreign: bounded in size and number, and only numbers and text are kept.

mod values;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Request, Response, Status};

use crate::export::SpanFiles;
use crate::names::resource;
use crate::store::{LinkRecord, SpanRecord, StatusRecord};
use values::Values;

/// Largest message that is taken, also once it is decompressed.
const MESSAGE_LIMIT_BYTES: usize = 8 << 20;
/// Under this name the span files stand.
const SERVICE: &str = "collector";
/// Elements of a list in an attribute that are kept; no list is kept in a list.
const LIST_LIMIT: usize = 1000;

/// Takes what exporters send. Clones share everything.
#[derive(Clone, Debug)]
pub struct Collector {
    files: Arc<SpanFiles>,
    values: Arc<Values>,
}

impl Collector {
    /// Keeps spans in `folder`, in files of this size.
    pub fn create(folder: &Path, file_limit_bytes: u64) -> io::Result<Self> {
        let files = Arc::new(SpanFiles::create(folder, SERVICE, file_limit_bytes)?);
        Ok(Self { files, values: Arc::default() })
    }

    pub fn traces(&self) -> TraceServiceServer<impl TraceService> {
        TraceServiceServer::new(self.clone()).accept_compressed(Gzip).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
    }

    pub fn metrics(&self) -> MetricsServiceServer<impl MetricsService> {
        MetricsServiceServer::new(self.clone()).accept_compressed(Gzip).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
    }

    /// The latest values in the text format of Prometheus.
    pub fn exposition(&self) -> String {
        self.values.exposition()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let files = self.files.clone();
        let written = tokio::task::spawn_blocking(move || files.append(records(request.into_inner()))).await;
        match written {
            Ok(Ok(())) => Ok(Response::new(ExportTraceServiceResponse::default())),
            Ok(Err(error)) => {
                tracing::warn!(%error, "spans were not written");
                // Exporters try again.
                Err(Status::unavailable("the spans could not be written"))
            }
            Err(_) => Err(Status::internal("writing ended abnormally")),
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_metrics {
            let origin = Origin::of(of_resource.resource.as_ref());
            for of_scope in of_resource.scope_metrics {
                let service = of_scope.scope.map(|scope| scope.name).unwrap_or_default();
                of_scope.metrics.iter().for_each(|metric| self.values.take(&origin, &service, metric));
            }
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// The process that something comes from.
#[derive(Debug, Default)]
struct Origin {
    topology: Option<String>,
    instance: Option<String>,
}

impl Origin {
    fn of(described: Option<&Resource>) -> Self {
        let text = |key: &str| {
            let found = described?.attributes.iter().find(|attribute| attribute.key == key)?;
            match found.value.as_ref()?.value.as_ref()? {
                Value::StringValue(text) => Some(text.clone()),
                _ => None,
            }
        };
        Self { topology: text(resource::TOPOLOGY), instance: text(resource::SERVICE_INSTANCE_ID) }
    }
}

fn records(request: ExportTraceServiceRequest) -> Vec<SpanRecord> {
    let mut records = Vec::new();
    for of_resource in request.resource_spans {
        let origin = Origin::of(of_resource.resource.as_ref());
        for of_scope in of_resource.scope_spans {
            let service = of_scope.scope.map(|scope| scope.name).unwrap_or_default();
            records.extend(of_scope.spans.into_iter().map(|span| record(&origin, &service, span)));
        }
    }
    records
}

fn record(origin: &Origin, service: &str, span: Span) -> SpanRecord {
    let mut attributes: BTreeMap<_, _> = span.attributes.iter().map(attribute).collect();
    if let Some(topology) = &origin.topology {
        attributes.entry(resource::TOPOLOGY.to_owned()).or_insert_with(|| topology.as_str().into());
    }
    SpanRecord {
        trace: hex(&span.trace_id),
        span: hex(&span.span_id),
        parent: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        name: span.name,
        service: service.to_owned(),
        kind: match span.kind {
            2 => "server",
            3 => "client",
            4 => "producer",
            5 => "consumer",
            _ => "internal",
        }
        .to_owned(),
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        attributes,
        events: span.events.into_iter().map(|event| (event.time_unix_nano, event.name)).collect(),
        links: span
            .links
            .iter()
            .map(|link| LinkRecord { trace: hex(&link.trace_id), span: hex(&link.span_id) })
            .collect(),
        status: match span.status {
            Some(status) if status.code == 1 => StatusRecord::Ok,
            Some(status) if status.code == 2 => StatusRecord::Error(status.message),
            _ => StatusRecord::Unset,
        },
    }
}

fn attribute(pair: &KeyValue) -> (String, serde_json::Value) {
    let one = |value: &AnyValue| match &value.value {
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => (*value).into(),
        _ => serde_json::Value::Null,
    };
    let value = match pair.value.as_ref() {
        Some(AnyValue { value: Some(Value::ArrayValue(list)) }) => {
            list.values.iter().take(LIST_LIMIT).map(one).collect()
        }
        Some(value) => one(value),
        None => serde_json::Value::Null,
    };
    (pair.key.clone(), value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
