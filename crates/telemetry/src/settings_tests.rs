use super::*;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");

fn read(variables: &[(&str, &str)]) -> Result<Settings, TelemetryError> {
    Settings::of(&variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
}

fn target(variables: &[(&str, &str)]) -> Target {
    match read(variables).unwrap().traces {
        Exporter::Collector(target) => target,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_variables_everything_goes_into_files() {
    let settings = read(&[]).unwrap();
    assert_eq!((settings.traces, settings.metrics), (Exporter::Files, Exporter::Files));
    assert_eq!((settings.service_name, settings.attributes.len(), settings.notes.len()), (None, 0, 0));
}

#[test]
fn a_collector_is_spoken_to_over_grpc_unless_another_protocol_is_asked_for() {
    assert_eq!(target(&[ENDPOINT]).protocol, Protocol::Grpc);
    assert_eq!(target(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).protocol, Protocol::Grpc);
    let http = target(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]);
    assert_eq!((http.protocol, http.tls, http.timeout), (Protocol::HttpProtobuf, false, Duration::from_secs(10)));
}

#[test]
fn what_is_asked_of_one_signal_counts_more_than_what_is_asked_of_all() {
    let settings = read(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://metrics:4318/in"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
    ])
    .unwrap();
    let (Exporter::Collector(traces), Exporter::Collector(metrics)) = (settings.traces, settings.metrics) else {
        panic!("both are collected")
    };
    assert_eq!((traces.protocol, traces.tls, traces.timeout), (Protocol::Grpc, false, Duration::from_millis(250)));
    assert_eq!((metrics.protocol, metrics.tls), (Protocol::HttpProtobuf, true));
    assert_eq!((metrics.endpoint.as_str(), metrics.timeout), ("https://metrics:4318/in", Duration::from_secs(3)));
}

#[test]
fn a_signal_is_switched_off_by_its_exporter_and_all_of_them_by_the_sdk() {
    let off = read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap();
    assert_eq!(off.traces, Exporter::Nowhere);
    assert!(matches!(off.metrics, Exporter::Collector(_)));
    for word in ["true", "TRUE"] {
        let off = read(&[ENDPOINT, ("OTEL_SDK_DISABLED", word)]).unwrap();
        assert_eq!((off.traces, off.metrics), (Exporter::Nowhere, Exporter::Nowhere));
    }
    assert_eq!(read(&[("OTEL_SDK_DISABLED", "yes")]).unwrap().traces, Exporter::Files);
    // By the specification a collector on this machine is meant.
    assert_eq!(target(&[("OTEL_TRACES_EXPORTER", "otlp")]).endpoint, "http://localhost:4317");
}

#[test]
fn names_and_attributes_of_the_resource_are_read() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "lab=Nice%2C Valrose, service.name=left,rack=7");
    let settings = read(&[attributes]).unwrap();
    assert_eq!(settings.service_name.as_deref(), Some("left"));
    assert_eq!(settings.attributes, [KeyValue::new("lab", "Nice, Valrose"), KeyValue::new("rack", "7")]);
    let named = read(&[attributes, ("OTEL_SERVICE_NAME", "right")]).unwrap();
    assert_eq!(named.service_name.as_deref(), Some("right"));
}

#[test]
fn what_cannot_be_honoured_is_refused_with_its_name_and_what_is_expected() {
    let cases = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "not spoken"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "smoke", "expected `grpc` or `http/protobuf`"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "expected `gzip` or `none`"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2s", "whole milliseconds"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "whole milliseconds"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317", "expected http://HOST:PORT"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "ftp://there", "expected http://HOST:PORT"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "entry 1: no `=`"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,two words=c", "entry 2: not the name"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "maybe", "expected `true` or `false`"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem", "both a certificate and a key"),
        ("OTEL_EXPORTER_OTLP_PROTOCOLL", "grpc", "not known"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b", "entry 2: no `=`"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%2", "hexadecimal"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "expected `otlp` or `none`"),
    ];
    for (variable, value, why) in cases {
        let error = read(&[(variable, value)]).unwrap_err().to_string();
        assert!(error.starts_with(variable) && error.contains(why), "{error}");
    }
}

#[test]
fn a_header_that_is_refused_is_not_shown() {
    let error = read(&[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret%zz")]).unwrap_err().to_string();
    assert!(error.contains("entry 1") && !error.contains("secret"), "{error}");
}

#[test]
fn gzip_is_spoken_over_both_protocols() {
    for (protocol, spoken) in [("http/protobuf", Protocol::HttpProtobuf), ("grpc", Protocol::Grpc)] {
        let variables = [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,,a=b"),
        ];
        assert_eq!(target(&variables).protocol, spoken);
    }
}

#[test]
fn variables_of_logs_are_told_to_have_no_effect() {
    let settings = read(&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4317")]).unwrap();
    assert_eq!(settings.traces, Exporter::Files);
    assert!(settings.notes[0].contains("LOGS_ENDPOINT") && settings.notes[0].contains("not exported"));
}
