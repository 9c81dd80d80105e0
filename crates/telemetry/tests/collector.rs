//! Export to an OpenTelemetry collector that the standard variables name, in a process of its own.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use telemetry::names::{attribute, span};
use telemetry::trace::Tracer;
use tonic::{Request, Response, Status};

const SPAN_DIR: &str = "QKDNET_TEST_SPAN_DIR";

#[derive(Clone, Default)]
struct Collector {
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.received.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Records one block. Runs only as the child of the tests below.
#[tokio::test]
#[ignore = "run by the other tests"]
async fn the_process_under_test() {
    let Ok(folder) = std::env::var(SPAN_DIR) else { return };
    let mut config = telemetry::TelemetryConfig::new("detector-nice-50-a");
    config.span_dir = Some(folder.into());
    config.topology = Some("nice".to_owned());
    let guard = telemetry::init(&config).unwrap();
    let tracer = Tracer::new("detector-nice-50-a");
    tracer.span(span::BLOCK).attribute(attribute::BLOCK_ID, 7_u64).start().end();
    guard.shutdown().await;
}

fn child(folder: &std::path::Path, variables: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_under_test", "--include-ignored"])
        .env(SPAN_DIR, folder)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_the_collector_and_not_into_files() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = TraceServiceServer::new(collector.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let run = tokio::task::spawn_blocking(move || child(&path, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint)]));
    tokio::time::timeout(Duration::from_secs(30), run).await.unwrap().unwrap();

    let received = collector.received.lock().unwrap().clone();
    let resource_spans = &received[0].resource_spans[0];
    let names = resource_spans.resource.as_ref().unwrap().attributes.iter().map(|pair| pair.key.as_str());
    assert!(names.clone().any(|name| name == "service.name") && names.clone().any(|name| name == "qkd.topology"));
    let scope = &resource_spans.scope_spans[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "detector-nice-50-a");
    assert_eq!(scope.spans[0].name, span::BLOCK);
    assert_eq!(scope.spans[0].attributes[0].key, attribute::BLOCK_ID);
    assert!(!telemetry::export::span_file(folder.path(), "detector-nice-50-a").exists());
}

#[test]
fn without_a_collector_spans_go_into_files() {
    let folder = tempfile::tempdir().unwrap();
    child(folder.path(), &[]);
    let store = telemetry::store::Store::open([folder.path()]).unwrap();
    assert_eq!(store.block(7, None).unwrap().len(), 1);
}

#[test]
fn nothing_is_recorded_where_the_sdk_is_disabled() {
    let folder = tempfile::tempdir().unwrap();
    child(folder.path(), &[("OTEL_SDK_DISABLED", "true")]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_collector_that_is_not_there_does_not_stop_the_service() {
    let folder = tempfile::tempdir().unwrap();
    child(
        folder.path(),
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "500")],
    );
}
