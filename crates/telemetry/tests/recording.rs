//! What services record comes back as it was. One process, as the providers are global.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use telemetry::names::{attribute, ledger, metric, span};
use telemetry::store::{StatusRecord, Store};
use telemetry::trace::{Figure, Tracer, parse_traceparent, traceparent};
use telemetry::{TelemetryConfig, metrics::Meter};

fn config(folder: &std::path::Path) -> TelemetryConfig {
    let mut config = TelemetryConfig::new("qkdnet");
    config.span_dir = Some(folder.to_owned());
    config.metrics_interval = Duration::from_millis(50);
    config
}

#[test]
fn a_block_that_several_services_work_on_is_one_tree() {
    let folder = tempfile::tempdir().unwrap();
    let guard = telemetry::init(&config(folder.path())).unwrap();
    let (source, detector) = (Tracer::new("source-nice-50"), Tracer::new("detector-nice-50-a"));

    let emit = source.span(span::EMIT).attribute(attribute::EPOCH_FIRST, 0_u64).start();
    let on_the_wire = emit.traceparent();
    emit.end();
    let mut block = detector.span(span::BLOCK).parent_from(&on_the_wire).attribute(attribute::BLOCK_ID, 3_u64).start();
    let mut sift = detector.span(span::SIFT).parent(&block.context()).start();
    sift.fail("too many errors");
    drop(sift);
    block.set(attribute::QBER_Z, 0.0424);
    block.set(&ledger("sifted"), 1_000_u64);
    block.succeed();
    let trace_id = block.trace_id();
    block.end();
    // Nonsense for a parent begins a trace of its own.
    detector.span(span::ACQUIRE).parent_from("00-nonsense").start().end();

    let meter = Meter::new("detector-nice-50-a").with(attribute::LINK_ID, "nice-50");
    meter.gauge(metric::LINK_SKR, "bit/s").record(7_069.0);
    meter.counter(metric::LINK_BLOCKS, "{block}").add(2);

    guard.flush();
    let store = Store::open([folder.path()]).unwrap();
    let traces = store.block(3, None).unwrap();
    assert_eq!(traces.len(), 1);
    let trace = &traces[0];
    assert!(trace.is_connected());
    assert_eq!(trace.id(), trace_id);
    assert_eq!(trace.services().into_iter().collect::<Vec<_>>(), ["detector-nice-50-a", "source-nice-50"]);
    let find = |name| trace.spans().iter().find(|span| span.name == name).unwrap();
    assert_eq!(find(span::BLOCK).real(attribute::QBER_Z), Some(0.0424));
    assert_eq!(find(span::BLOCK).ledger()["sifted"], 1_000);
    assert_eq!(find(span::BLOCK).status, StatusRecord::Ok);
    assert_eq!(find(span::SIFT).status, StatusRecord::Error("too many errors".to_owned()));

    detector.span(span::STORE).start().end();
    drop(guard);
    let mut names = vec![];
    Store::open([folder.path()]).unwrap().spans(|span| names.push(span.name)).unwrap();
    assert!(names.contains(&span::STORE.to_owned()), "what was recorded last is written at the end: {names:?}");
    let snapshot = std::fs::read_to_string(folder.path().join("qkdnet.metrics.json")).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&snapshot).unwrap();
    let value = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!(value(metric::LINK_SKR)["value"], 7_069.0);
    assert_eq!(value(metric::LINK_SKR)["attributes"][attribute::LINK_ID], "nice-50");
    assert_eq!(value(metric::LINK_BLOCKS)["value"], 2);
}

#[test]
fn span_files_stay_bounded() {
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use telemetry::export::{FileExporter, KEPT_FILES};

    let folder = tempfile::tempdir().unwrap();
    let limit = 4_096;
    // A crash has cut the last line of the run before.
    std::fs::write(folder.path().join("d.spans.jsonl"), "{\"trace\":").unwrap();
    let exporter = FileExporter::create(folder.path(), "d", limit).unwrap();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
    let tracer = provider.tracer("d");
    for _ in 0..200 {
        tracer.start("qkd.block").end();
    }
    provider.shutdown().unwrap();
    let sizes: Vec<u64> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes.len() as u32, KEPT_FILES + 1);
    assert!(sizes.iter().all(|&size| size <= limit), "{sizes:?}");
    let mut spans = 0;
    Store::open([folder.path()]).unwrap().spans(|_| spans += 1).unwrap();
    assert!(spans > 20);
}

#[test]
fn only_proper_trace_contexts_are_taken_from_a_peer() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let context = parse_traceparent(good).unwrap();
    assert!(context.is_sampled() && context.is_remote());
    assert_eq!(traceparent(&context), good);
    // A later version may carry more; flags that are not known are dropped.
    let later = parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more").unwrap();
    assert_eq!(traceparent(&later), good);
    let long = format!("{good}{}", "-x".repeat(100_000));
    for bad in [
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473+-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b-01",
        &long,
    ] {
        assert_eq!(parse_traceparent(bad), None, "{bad:.60}");
    }
}

#[test]
fn attributes_are_figures_and_short_texts() {
    let long = "é".repeat(10_000);
    let Figure::Text(text) = Figure::from(long.as_str()) else { panic!("a text") };
    assert_eq!(text.chars().count(), telemetry::trace::STRING_LIMIT_CHARS);
    assert_eq!(Figure::from(u64::MAX), Figure::Integer(i64::MAX));
    assert_eq!(Figure::from(-1_i64), Figure::Integer(-1));
}

#[test]
fn a_wrong_log_filter_is_an_error_and_says_which() {
    let mut config = TelemetryConfig::new("x");
    config.log_filter = "detector=loud".to_owned();
    let error = telemetry::init(&config).unwrap_err().to_string();
    assert!(error.contains("detector=loud"), "{error}");
}
