//! Export to an OpenTelemetry collector that the standard variables name, in a process of its own.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use telemetry::names::{attribute, span};
use telemetry::trace::Tracer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tonic::codec::CompressionEncoding;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

const SPAN_DIR: &str = "QKDNET_TEST_SPAN_DIR";

#[derive(Clone, Default)]
struct Collector {
    /// Encoding of each message that came.
    encodings: Arc<Mutex<Vec<Option<String>>>>,
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let encoding = request.metadata().get("grpc-encoding").map(|value| value.to_str().unwrap().to_owned());
        self.encodings.lock().unwrap().push(encoding);
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
    let guard = telemetry::init(&config).unwrap_or_else(|error| panic!("{error}"));
    let tracer = Tracer::new("detector-nice-50-a");
    tracer.span(span::BLOCK).attribute(attribute::BLOCK_ID, 7_u64).start().end();
    let began = Instant::now();
    let lost = guard.shutdown().await;
    // However the collector is, nobody waits longer for it.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    println!("lost: {lost:?}");
}

fn child(folder: &Path, variables: &[(&str, &str)]) {
    let output = outcome(folder, variables);
    assert!(output.status.success(), "{output:?}");
}

fn outcome(folder: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_process_under_test", "--include-ignored"]).env(SPAN_DIR, folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

/// The child, beside a collector that goes on answering.
async fn run(folder: &Path, variables: &[(&str, &str)]) {
    let folder = folder.to_owned();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let run = tokio::task::spawn_blocking(move || {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        child(&folder, &variables);
    });
    tokio::time::timeout(Duration::from_secs(30), run).await.unwrap().unwrap();
}

/// A collector on a free port, behind TLS where it has a certificate.
async fn collect(identity: Option<Identity>) -> (Collector, SocketAddr) {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let mut server = Server::builder();
    if let Some(identity) = identity {
        server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    }
    let service = TraceServiceServer::new(collector.clone()).accept_compressed(CompressionEncoding::Gzip);
    tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
    (collector, address)
}

/// A certificate authority's certificate, and what it certified for the loopback address.
fn certified_pem() -> (String, (String, String)) {
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (authority_pem, (leaf.pem(), key.serialize_pem()))
}

fn certified() -> (String, Identity) {
    let (authority, (certificate, key)) = certified_pem();
    (authority, Identity::from_pem(certificate, key))
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_a_collector_behind_tls_whose_authority_is_named_and_to_no_other() {
    let (authority, identity) = certified();
    let (collector, address) = collect(Some(identity)).await;
    let endpoint = format!("https://{address}");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right.pem", &authority), file("wrong.pem", &certified().0));
    for (certificate, spans) in [(wrong, 0), (right, 1)] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", certificate.as_str()),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ];
        run(folder.path(), &variables).await;
        assert_eq!(collector.received.lock().unwrap().len(), spans, "with {certificate}");
    }
}

#[test]
fn a_collector_that_cannot_be_meant_is_refused_and_the_variable_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let empty = empty.to_str().unwrap();
    let https = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1");
    for (variables, said) in [
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x")], "expected http://HOST:PORT or https://HOST:PORT"),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317")], "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (vec![https, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")], "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere"),
        (vec![https, ("OTEL_EXPORTER_OTLP_CERTIFICATE", empty)], "no PEM in it"),
        (vec![https, ("OTEL_EXPORTER_OTLP_CLIENT_KEY", empty)], "both a certificate and a key"),
    ] {
        let output = outcome(folder.path(), &variables);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success() && text.contains(said), "{variables:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_the_collector_and_not_into_files() {
    let (collector, address) = collect(None).await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{address}");
    run(folder.path(), &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint)]).await;

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

/// What a receiver of OTLP over HTTP got.
struct Posted {
    head: String,
    body: Vec<u8>,
}

/// Takes one request over HTTP, and answers well.
async fn take(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Posted {
    let (mut got, mut chunk) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(at) = got.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the request ended early");
        got.extend_from_slice(&chunk[..read]);
    };
    let head = String::from_utf8(got[..end].to_vec()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().trim().parse().unwrap();
    let mut body = got.split_off(end);
    while body.len() < length {
        let read = stream.read(&mut chunk).await.unwrap();
        body.extend_from_slice(&chunk[..read]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    Posted { head, body }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_over_http_with_the_headers_that_were_asked_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let posted = tokio::spawn(async move { take(listener.accept().await.unwrap().0).await });
    let folder = tempfile::tempdir().unwrap();
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-lab=Nice%20Valrose"),
        ("OTEL_SERVICE_NAME", "left"),
        ("OTEL_RESOURCE_ATTRIBUTES", "rack=7"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    run(folder.path(), &variables).await;
    let Posted { head, body } = posted.await.unwrap();
    for wanted in ["post /v1/traces http/1.1", "content-type: application/x-protobuf", "x-lab: nice valrose"] {
        assert!(head.contains(wanted), "{head}");
    }
    let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
    let spans = &request.resource_spans[0];
    assert_eq!(spans.scope_spans[0].spans[0].name, span::BLOCK);
    let described = format!("{:?}", spans.resource);
    for wanted in ["left", "rack", "qkd.topology"] {
        assert!(described.contains(wanted), "{described}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_over_https_compressed_to_the_authority_that_is_named() {
    let (authority, key) = certified_pem();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let right = folder.path().join("right.pem");
    std::fs::write(&right, authority).unwrap();
    let certificates = CertificateDer::pem_slice_iter(key.0.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let private = PrivateKeyDer::from_pem_slice(key.1.as_bytes()).unwrap();
    let server = server.with_no_client_auth().with_single_cert(certificates, private).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let posted = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        take(acceptor.accept(stream).await.unwrap()).await
    });
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", right.to_str().unwrap()),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    run(folder.path(), &variables).await;
    let Posted { head, body } = posted.await.unwrap();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert_eq!(body[..2], [0x1f, 0x8b]);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_over_grpc_compressed_where_that_is_asked_for() {
    let (collector, address) = collect(None).await;
    let (endpoint, folder) = (format!("http://{address}"), tempfile::tempdir().unwrap());
    for compression in ["gzip", "none"] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
            ("OTEL_METRICS_EXPORTER", "none"),
        ];
        run(folder.path(), &variables).await;
    }
    assert_eq!(collector.encodings.lock().unwrap()[..], [Some("gzip".to_owned()), None]);
    let received = collector.received.lock().unwrap();
    assert!(received.iter().all(|request| request.resource_spans[0].scope_spans[0].spans[0].name == span::BLOCK));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_collector_takes_compressed_spans_and_none_that_grow_beyond_its_limit() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let collector = telemetry::receive::Collector::create(kept.path(), 1 << 20).unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(Server::builder().add_service(collector.traces()).serve_with_incoming(incoming));
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    run(folder.path(), &variables).await;
    let files = || std::fs::read_dir(kept.path()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    assert!(files().any(|text| String::from_utf8_lossy(&text).contains(span::BLOCK)), "nothing was kept");
    let channel = tonic::transport::Endpoint::new(endpoint).unwrap().connect().await.unwrap();
    let mut client = TraceServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip);
    let spans = |bytes: usize| {
        let span = Span { name: " ".repeat(bytes), ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }
    };
    client.export(spans(1 << 10)).await.unwrap();
    let refused = client.export(spans(64 << 20)).await.unwrap_err();
    assert!(!refused.message().is_empty(), "{refused:?}");
    client.export(spans(1 << 10)).await.unwrap();
}

/// A port at which nobody listens, and one at which nobody answers.
fn dead_and_mute() -> (String, std::net::TcpListener) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (format!("http://{closed}"), std::net::TcpListener::bind("127.0.0.1:0").unwrap())
}

#[test]
fn a_collector_that_is_dead_or_mute_holds_nobody_up_and_what_is_lost_is_told() {
    let (dead, listener) = dead_and_mute();
    // Connections wait in the listener's queue: they are open, and nobody ever answers.
    let mute = format!("http://{}", listener.local_addr().unwrap());
    for endpoint in [&dead, &mute] {
        for protocol in ["grpc", "http/protobuf"] {
            let folder = tempfile::tempdir().unwrap();
            let variables =
                [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
            let output = outcome(folder.path(), &[&variables[..], &[("RUST_TEST_NOCAPTURE", "1")]].concat());
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{variables:?}: {text}");
            let lost = text.lines().find(|line| line.contains("lost: ")).unwrap_or_else(|| panic!("{text}"));
            assert!(lost.contains("not written") || lost.contains("not taken within"), "{variables:?}: {lost}");
        }
    }
}
