//! The `OTEL_*` variables: read once at the start, and either honoured or refused. None is passed over in silence.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::KeyValue;

use crate::init::TelemetryError;

const OTLP: &str = "OTEL_EXPORTER_OTLP_";
const SIGNALS: [(Signal, &str); 2] = [(Signal::Traces, "TRACES_"), (Signal::Metrics, "METRICS_")];
/// What is honoured for all signals and for each of them.
const OF_EXPORTERS: [&str; 9] = [
    "ENDPOINT",
    "PROTOCOL",
    "HEADERS",
    "TIMEOUT",
    "COMPRESSION",
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
    "INSECURE",
];
/// What the exporter of metrics reads by itself.
const OF_METRICS: &str = "METRICS_TEMPORALITY_PREFERENCE";
/// Longest wait for a collector that a variable can ask for.
const TIMEOUT_MAX_MS: u64 = 3_600_000;
const ENDPOINT_GRPC: &str = "http://localhost:4317";
const ENDPOINT_HTTP: &str = "http://localhost:4318";

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// Where one signal goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Exporter {
    /// The signal is not wanted.
    Nowhere,
    /// Into the files of the run.
    Files,
    Collector(Target),
}

/// A collector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub endpoint: String,
    pub tls: bool,
    pub protocol: Protocol,
    pub timeout: Duration,
    /// Variable and path of a file in PEM.
    pub certificate: Option<(String, String)>,
    pub client_certificate: Option<(String, String)>,
    pub client_key: Option<(String, String)>,
}

/// All variables together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub traces: Exporter,
    pub metrics: Exporter,
    /// `OTEL_SERVICE_NAME`, or `service.name` of `OTEL_RESOURCE_ATTRIBUTES`.
    pub service_name: Option<String>,
    pub attributes: Vec<KeyValue>,
    /// What is set and has no effect, to be told once.
    pub notes: Vec<String>,
}

impl Settings {
    pub fn of_environment() -> Result<Self, TelemetryError> {
        // A name or value that is no text cannot be one of ours.
        let all = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with("OTEL_").then(|| (name, value.to_string_lossy().into_owned()))
        });
        Self::of(&all.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// Of variables that are set and not empty.
    pub fn of(variables: &BTreeMap<String, String>) -> Result<Self, TelemetryError> {
        let notes = unknown(variables)?;
        let mut attributes = attributes(variables.get("OTEL_RESOURCE_ATTRIBUTES").map_or("", String::as_str))?;
        let named = attributes.iter().position(|(key, _)| key == "service.name").map(|at| attributes.remove(at).1);
        let service_name = variables.get("OTEL_SERVICE_NAME").cloned().or(named);
        let [traces, metrics] = SIGNALS.map(|(signal, _)| exporter(variables, signal));
        Ok(Self {
            traces: traces?,
            metrics: metrics?,
            service_name,
            attributes: attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
            notes,
        })
    }
}

fn refuse(variable: &str, why: impl Into<String>) -> TelemetryError {
    TelemetryError::Setting { variable: variable.to_owned(), why: why.into() }
}

/// A slip of the pen in a name would send spans where nobody looks for them.
fn unknown(variables: &BTreeMap<String, String>) -> Result<Vec<String>, TelemetryError> {
    let mut notes = Vec::new();
    for name in variables.keys() {
        let Some(rest) = name.strip_prefix(OTLP) else { continue };
        if rest.starts_with("LOGS_") {
            notes.push(format!("{name} has no effect: logs are not exported"));
            continue;
        }
        let general = SIGNALS.iter().find_map(|(_, prefix)| rest.strip_prefix(prefix)).unwrap_or(rest);
        if !OF_EXPORTERS.contains(&general) && rest != OF_METRICS {
            return Err(refuse(name, format!("not known; known are {OTLP}[TRACES_|METRICS_]{}", list())));
        }
    }
    Ok(notes)
}

fn list() -> String {
    OF_EXPORTERS.join(", ")
}

/// The variable of this signal, or of all signals, with its name.
fn of_signal(variables: &BTreeMap<String, String>, signal: Signal, name: &str) -> Option<(String, String)> {
    let own = SIGNALS.iter().find(|(known, _)| *known == signal).map_or("", |(_, prefix)| prefix);
    [own, ""].iter().find_map(|prefix| {
        let variable = format!("{OTLP}{prefix}{name}");
        variables.get(&variable).map(|value| (variable, value.clone()))
    })
}

fn exporter(variables: &BTreeMap<String, String>, signal: Signal) -> Result<Exporter, TelemetryError> {
    let chosen = match signal {
        Signal::Traces => "OTEL_TRACES_EXPORTER",
        Signal::Metrics => "OTEL_METRICS_EXPORTER",
    };
    // Everything is checked, also where it is switched off: what is wrong today is wrong when it is switched on.
    let target = target(variables, signal)?;
    let asked = variables.get(chosen).map(String::as_str);
    if !matches!(asked, None | Some("none" | "otlp")) {
        return Err(refuse(chosen, "expected `otlp` or `none`"));
    }
    // By the specification every word but `true` is false.
    let disabled = variables.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let named = of_signal(variables, signal, "ENDPOINT").is_some();
    Ok(match asked {
        _ if disabled => Exporter::Nowhere,
        Some("none") => Exporter::Nowhere,
        Some(_) => Exporter::Collector(target),
        None if named => Exporter::Collector(target),
        None => Exporter::Files,
    })
}

fn target(variables: &BTreeMap<String, String>, signal: Signal) -> Result<Target, TelemetryError> {
    let get = |name| of_signal(variables, signal, name);
    let protocol = match get("PROTOCOL") {
        None => Protocol::Grpc,
        Some((variable, value)) => match value.as_str() {
            "grpc" => Protocol::Grpc,
            "http/protobuf" => Protocol::HttpProtobuf,
            "http/json" => return Err(refuse(&variable, "`http/json` is not spoken: take `grpc` or `http/protobuf`")),
            _ => return Err(refuse(&variable, format!("`{value:.60}`: expected `grpc` or `http/protobuf`"))),
        },
    };
    let (endpoint, tls) = endpoint(get("ENDPOINT"), protocol)?;
    if let Some((variable, value)) = get("COMPRESSION")
        && !matches!(value.as_str(), "none" | "gzip")
    {
        return Err(refuse(&variable, format!("`{value:.60}`: expected `gzip` or `none`")));
    }
    if let Some((variable, value)) = get("HEADERS") {
        headers(&variable, &value)?;
    }
    if let Some((variable, value)) = get("INSECURE")
        && !["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word))
    {
        return Err(refuse(&variable, format!("`{value:.60}`: expected `true` or `false`")));
    }
    let timeout = match get("TIMEOUT") {
        None => Duration::from_secs(10),
        Some((variable, value)) => match value.parse::<u64>() {
            Ok(ms) if (1..=TIMEOUT_MAX_MS).contains(&ms) => Duration::from_millis(ms),
            _ => {
                let why = format!("`{value:.60}`: expected whole milliseconds, 1 to {TIMEOUT_MAX_MS}");
                return Err(refuse(&variable, why));
            }
        },
    };
    let (client_certificate, client_key) = (get("CLIENT_CERTIFICATE"), get("CLIENT_KEY"));
    if let (Some((variable, _)), None) | (None, Some((variable, _))) = (&client_certificate, &client_key) {
        return Err(refuse(variable, "set alone: a client needs both a certificate and a key"));
    }
    Ok(Target { endpoint, tls, protocol, timeout, certificate: get("CERTIFICATE"), client_certificate, client_key })
}

/// The address, and whether TLS is spoken there.
fn endpoint(given: Option<(String, String)>, protocol: Protocol) -> Result<(String, bool), TelemetryError> {
    let Some((variable, value)) = given else {
        let usual = if protocol == Protocol::Grpc { ENDPOINT_GRPC } else { ENDPOINT_HTTP };
        return Ok((usual.to_owned(), false));
    };
    let expected = || refuse(&variable, format!("`{value:.200}`: expected http://HOST:PORT or https://HOST:PORT"));
    let uri: http::Uri = value.parse().map_err(|_| expected())?;
    uri.host().filter(|host| !host.is_empty()).ok_or_else(expected)?;
    match uri.scheme_str() {
        Some("http") => Ok((value, false)),
        Some("https") => Ok((value, true)),
        _ => Err(expected()),
    }
}

/// Headers may carry passwords: what is wrong is told by its place alone.
fn headers(variable: &str, value: &str) -> Result<(), TelemetryError> {
    for (at, item) in items(value) {
        let bad = |why: &str| refuse(variable, format!("entry {at}: {why}; expected NAME=VALUE,NAME=VALUE"));
        let (name, value) = item.split_once('=').ok_or_else(|| bad("no `=` in it"))?;
        http::HeaderName::try_from(name.trim()).map_err(|_| bad("not the name of a header"))?;
        let value = decode(value.trim()).ok_or_else(|| bad("`%` without two hexadecimal digits"))?;
        http::HeaderValue::try_from(value).map_err(|_| bad("not the value of a header"))?;
    }
    Ok(())
}

fn attributes(value: &str) -> Result<Vec<(String, String)>, TelemetryError> {
    let variable = "OTEL_RESOURCE_ATTRIBUTES";
    let mut attributes = Vec::new();
    for (at, item) in items(value) {
        let bad = |why: &str| refuse(variable, format!("entry {at}: {why}; expected KEY=VALUE,KEY=VALUE"));
        let (key, value) = item.split_once('=').ok_or_else(|| bad("no `=` in it"))?;
        if key.trim().is_empty() {
            return Err(bad("no key before the `=`"));
        }
        let value = decode(value.trim()).ok_or_else(|| bad("`%` without two hexadecimal digits"))?;
        attributes.push((key.trim().to_owned(), value));
    }
    Ok(attributes)
}

/// Entries between commas, counted from 1.
fn items(value: &str) -> impl Iterator<Item = (usize, &str)> {
    value.split(',').map(str::trim).enumerate().map(|(at, item)| (at + 1, item)).filter(|(_, item)| !item.is_empty())
}

/// `%2C` is a comma.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "settings_tests.rs"]
mod tests;
