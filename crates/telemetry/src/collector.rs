//! The collector that the `OTEL_EXPORTER_OTLP_*` variables name. `https` is TLS with the certificate authorities of
//! the variable `..._CERTIFICATE`, or of the system where it is not set; `http` is plain.

use std::path::Path;

use opentelemetry_otlp::{MetricExporter, SpanExporter, WithTonicConfig as _};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::init::TelemetryError;

/// Largest file of certificates or of a key that is read.
const PEM_LIMIT_BYTES: u64 = 4 << 20;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// The value of a variable of this signal, or of the one for all signals, with its name.
    fn variable(self, name: &str) -> Option<(String, String)> {
        let own = match self {
            Self::Traces => "TRACES_",
            Self::Metrics => "METRICS_",
        };
        [own, ""].iter().find_map(|signal| {
            let variable = format!("OTEL_EXPORTER_OTLP_{signal}{name}");
            let value = std::env::var(&variable).ok().filter(|value| !value.is_empty())?;
            Some((variable, value))
        })
    }

    /// Whether a collector is named.
    pub(crate) fn is_collected(self) -> bool {
        self.variable("ENDPOINT").is_some()
    }
}

pub(crate) fn span_exporter() -> Result<SpanExporter, TelemetryError> {
    let builder = SpanExporter::builder().with_tonic();
    let built = match tls(Signal::Traces)? {
        Some(tls) => builder.with_tls_config(tls).build(),
        None => builder.build(),
    };
    built.map_err(|error| TelemetryError::Collector(error.to_string()))
}

pub(crate) fn metric_exporter() -> Result<MetricExporter, TelemetryError> {
    let builder = MetricExporter::builder().with_tonic();
    let built = match tls(Signal::Metrics)? {
        Some(tls) => builder.with_tls_config(tls).build(),
        None => builder.build(),
    };
    built.map_err(|error| TelemetryError::Collector(error.to_string()))
}

/// TLS towards the collector; none where its address is plain.
fn tls(signal: Signal) -> Result<Option<ClientTlsConfig>, TelemetryError> {
    needs_runtime()?;
    let Some((variable, endpoint)) = signal.variable("ENDPOINT") else { return Ok(None) };
    match endpoint.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
        Some("http") => return Ok(None),
        Some("https") => {}
        _ => {
            let message = format!("{variable} is `{endpoint:.200}`: expected http://HOST:PORT or https://HOST:PORT");
            return Err(TelemetryError::Collector(message));
        }
    }
    let mut tls = match signal.variable("CERTIFICATE") {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem(&file)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match (signal.variable("CLIENT_CERTIFICATE"), signal.variable("CLIENT_KEY")) {
        (None, None) => {}
        (Some(certificate), Some(key)) => tls = tls.identity(Identity::from_pem(pem(&certificate)?, pem(&key)?)),
        (Some((variable, _)), None) | (None, Some((variable, _))) => {
            let message = format!("{variable} is set, but a client needs both a certificate and a key");
            return Err(TelemetryError::Collector(message));
        }
    }
    Ok(Some(tls))
}

/// The file that a variable names.
fn pem((variable, path): &(String, String)) -> Result<Vec<u8>, TelemetryError> {
    let fail = |why: String| TelemetryError::Collector(format!("{variable}: {path}: {why}"));
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
