//! Exporters to the collector that the `OTEL_EXPORTER_OTLP_*` variables name, over gRPC or over HTTP. `https` is TLS
//! with the certificate authorities of the variable `..._CERTIFICATE`, or of the system where it is not set.

use std::path::Path;

use opentelemetry_otlp::{
    MetricExporter, Protocol as Spoken, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::http::HttpClient;
use crate::init::TelemetryError;
use crate::settings::{Protocol, Target};

/// Largest file of certificates or of a key that is read.
const PEM_LIMIT_BYTES: u64 = 4 << 20;

pub(crate) fn span_exporter(target: &Target) -> Result<SpanExporter, TelemetryError> {
    needs_runtime()?;
    let built = match target.protocol {
        Protocol::Grpc => {
            let builder = SpanExporter::builder().with_tonic();
            match tls(target)? {
                Some(tls) => builder.with_tls_config(tls).build(),
                None => builder.build(),
            }
        }
        Protocol::HttpProtobuf => {
            let builder = SpanExporter::builder().with_http().with_protocol(Spoken::HttpBinary);
            builder.with_http_client(HttpClient::new(target)?).build()
        }
    };
    built.map_err(|error| TelemetryError::Collector(error.to_string()))
}

pub(crate) fn metric_exporter(target: &Target) -> Result<MetricExporter, TelemetryError> {
    needs_runtime()?;
    let built = match target.protocol {
        Protocol::Grpc => {
            let builder = MetricExporter::builder().with_tonic();
            match tls(target)? {
                Some(tls) => builder.with_tls_config(tls).build(),
                None => builder.build(),
            }
        }
        Protocol::HttpProtobuf => {
            let builder = MetricExporter::builder().with_http().with_protocol(Spoken::HttpBinary);
            builder.with_http_client(HttpClient::new(target)?).build()
        }
    };
    built.map_err(|error| TelemetryError::Collector(error.to_string()))
}

/// TLS towards the collector; none where its address is plain.
fn tls(target: &Target) -> Result<Option<ClientTlsConfig>, TelemetryError> {
    if !target.tls {
        return Ok(None);
    }
    let mut tls = match &target.certificate {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem(file)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&target.client_certificate, &target.client_key) {
        tls = tls.identity(Identity::from_pem(pem(certificate)?, pem(key)?));
    }
    Ok(Some(tls))
}

/// The file that a variable names.
pub(crate) fn pem((variable, path): &(String, String)) -> Result<Vec<u8>, TelemetryError> {
    let fail = |why: String| TelemetryError::Setting { variable: variable.clone(), why: format!("{path}: {why}") };
    let path = Path::new(path);
    let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > PEM_LIMIT_BYTES {
        return Err(fail(format!("{size} bytes are too much for certificates")));
    }
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    // Certificates that are not there would only show as connections that fail.
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(fail("no PEM in it".to_owned()));
    }
    Ok(bytes)
}

/// The exporter's connection lives on the runtime that it is made in.
fn needs_runtime() -> Result<(), TelemetryError> {
    tokio::runtime::Handle::try_current()
        .map(|_| ())
        .map_err(|_| TelemetryError::Collector("telemetry was started outside of the runtime".to_owned()))
}
