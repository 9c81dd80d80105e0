//! Reading span files and drawing a block's trace.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use serde_json::json;
use telemetry::names::{attribute, ledger, span};
use telemetry::render::{RenderOptions, render};
use telemetry::store::{LinkRecord, SpanRecord, StatusRecord, Store, Trace};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const START_NS: u64 = 1_790_000_000_000_000_000;

fn record(id: u64, parent: Option<u64>, name: &str, service: &str, start_us: u64, lasts_us: u64) -> SpanRecord {
    SpanRecord {
        trace: TRACE.to_owned(),
        span: format!("{id:016x}"),
        parent: parent.map(|parent| format!("{parent:016x}")),
        name: name.to_owned(),
        service: service.to_owned(),
        kind: "internal".to_owned(),
        start_ns: START_NS + start_us * 1_000,
        end_ns: START_NS + (start_us + lasts_us) * 1_000,
        attributes: BTreeMap::new(),
        events: vec![],
        links: vec![],
        status: StatusRecord::Unset,
    }
}

fn with(mut span: SpanRecord, attributes: &[(&str, serde_json::Value)]) -> SpanRecord {
    span.attributes.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    span
}

/// One block of one link, from emission to storage at both ends.
fn block() -> Vec<SpanRecord> {
    let of_block = |span, site: &str| {
        with(
            span,
            &[
                (attribute::LINK_ID, json!("nice-50")),
                (attribute::BLOCK_ID, json!(7)),
                (attribute::SITE_ID, json!(site)),
            ],
        )
    };
    let mut failed = record(9, Some(8), span::AUTHENTICATE, "detector-sophia", 9_000, 40);
    failed.status = StatusRecord::Error("the tag did not verify".to_owned());
    failed
        .links
        .push(LinkRecord { trace: "0af7651916cd43dd8448eb211c80319c".to_owned(), span: "b7ad6b7169203331".to_owned() });
    failed.events.push((failed.start_ns + 12_000, "void".to_owned()));
    vec![
        with(
            record(1, None, span::EMIT, "source-nice-50", 0, 2_000),
            &[
                (attribute::EPOCH_FIRST, json!(100)),
                (attribute::EPOCH_LAST, json!(149)),
                (attribute::PAIRS, json!(81_000)),
            ],
        ),
        record(2, Some(1), span::DETECT, "detector-valrose", 2_100, 800),
        of_block(record(3, Some(2), span::BLOCK, "detector-valrose", 3_000, 9_000), "valrose"),
        with(
            record(4, Some(3), span::SIFT, "detector-valrose", 3_000, 1_500),
            &[(attribute::QBER_Z, json!(0.0424)), (attribute::QBER_X, json!(0.047123456789))],
        ),
        with(
            record(5, Some(3), span::RECONCILE, "detector-valrose", 4_500, 1_250_000),
            &[(attribute::RECONCILE_EFFICIENCY, json!(1.0543))],
        ),
        with(
            record(6, Some(3), span::STORE, "detector-valrose", 11_500, 450),
            &[
                (&ledger("sifted"), json!(40_000)),
                (&ledger("leaked"), json!(11_000)),
                (&ledger("delivered"), json!(7_069)),
            ],
        ),
        record(7, Some(1), span::DETECT, "detector-sophia", 2_100, 700),
        of_block(record(8, Some(7), span::BLOCK, "detector-sophia", 2_900, 9_000), "sophia"),
        failed,
    ]
}

#[test]
fn a_block_is_drawn_as_one_tree() {
    let trace = Trace::new(block());
    assert!(trace.is_connected());
    let drawn = render(&trace, RenderOptions::default());
    assert_eq!(drawn, include_str!("tree.golden.txt"), "\n{drawn}");
    assert!(drawn.lines().all(|line| line.chars().count() <= 120));
}

#[test]
fn the_order_in_which_spans_were_written_does_not_matter() {
    let forwards = Trace::new(block());
    let mut backwards: Vec<SpanRecord> = block().into_iter().rev().collect();
    // A file that was read twice.
    backwards.extend(block());
    assert_eq!(Trace::new(backwards), forwards);
}

#[test]
fn a_missing_span_shows() {
    let mut spans = block();
    spans.remove(1);
    let trace = Trace::new(spans);
    assert!(!trace.is_connected());
    assert_eq!(trace.roots().len(), 2);
    assert!(render(&trace, RenderOptions::default()).contains("incomplete: 2 parts"));
    let mut headless = block();
    headless.remove(0);
    assert!(!Trace::new(headless[..2].to_vec()).is_connected(), "the only root names a parent that is not there");
}

#[test]
fn circles_and_self_parents_are_drawn_and_do_not_hang() {
    let mut spans = block();
    spans[0].parent = Some(format!("{:016x}", 4));
    spans.push(record(20, Some(20), span::STORE, "x", 0, 1));
    let trace = Trace::new(spans.clone());
    assert!(!trace.is_connected());
    let drawn = render(&trace, RenderOptions::default());
    assert_eq!(drawn.lines().filter(|line| line.contains("qkd.")).filter(|line| line.contains('+')).count(), 10);
}

#[test]
fn a_very_deep_trace_is_drawn_without_exhausting_the_stack() {
    let chain = (1..=50_000).map(|id| record(id, (id > 1).then(|| id - 1), "s", "x", id, 1)).collect();
    let trace = Trace::new(chain);
    assert!(trace.is_connected());
    assert_eq!(render(&trace, RenderOptions { attributes: false, ..Default::default() }).lines().count(), 50_001);
}

#[test]
fn control_characters_in_a_file_do_not_reach_the_terminal() {
    let mut span = record(1, None, "a\u{1b}[2J", "b\nc", 0, 1);
    span.attributes.insert("k\r".to_owned(), json!("\u{7}v"));
    let drawn = render(&Trace::new(vec![span]), RenderOptions::default());
    assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()), "{drawn:?}");
}

fn write(folder: &std::path::Path, name: &str, spans: &[SpanRecord]) {
    let mut file = fs::File::create(folder.join(name)).unwrap();
    for span in spans {
        writeln!(file, "{}", serde_json::to_string(span).unwrap()).unwrap();
    }
}

#[test]
fn a_block_is_found_across_files_by_number_and_link() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spans = block();
    write(one.path(), "source-nice-50.spans.jsonl", &spans[..1]);
    write(one.path(), "detector-valrose.spans.1.jsonl", &spans[1..3]);
    write(one.path(), "detector-valrose.spans.jsonl", &spans[3..6]);
    write(other.path(), "detector-sophia.spans.jsonl", &spans[6..]);
    let mut of_another_link = spans[2].clone();
    of_another_link.trace = "0af7651916cd43dd8448eb211c80319c".to_owned();
    of_another_link.attributes.insert(attribute::LINK_ID.to_owned(), json!("nice-100"));
    of_another_link.start_ns += 1;
    write(other.path(), "detector-calern.spans.jsonl", std::slice::from_ref(&of_another_link));
    fs::write(one.path().join("notes.txt"), "not a span file").unwrap();

    let store = Store::open([one.path(), other.path()]).unwrap();
    assert_eq!(store.block(7, Some("nice-50")).unwrap(), [Trace::new(spans.clone())]);
    assert_eq!(store.block(7, None).unwrap().len(), 2);
    assert_eq!(store.block(8, None).unwrap(), []);
    assert_eq!(store.block(7, Some("elsewhere")).unwrap(), []);
    assert_eq!(store.trace(&TRACE.to_uppercase()).unwrap(), Some(Trace::new(spans)));
    assert_eq!(store.trace("none").unwrap(), None);
    assert!(Store::open([one.path().join("absent")]).is_err());
}

#[test]
fn lines_that_are_cut_foreign_or_endless_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let spans = block();
    let line = |span: &SpanRecord| serde_json::to_string(span).unwrap();
    let mut file = fs::File::create(folder.path().join("a.spans.jsonl")).unwrap();
    writeln!(file, "{}", line(&spans[0])).unwrap();
    file.write_all(b"\xff\xfe\n{\"trace\":1}\n\n[]\n").unwrap();
    file.write_all(&vec![b'x'; 3 << 20]).unwrap();
    writeln!(file, "\n{}", line(&spans[1])).unwrap();
    let last = line(&spans[2]);
    file.write_all(&last.as_bytes()[..last.len() / 2]).unwrap();
    drop(file);
    let trace = Store::open([folder.path()]).unwrap().trace(TRACE).unwrap().unwrap();
    assert_eq!(trace, Trace::new(spans[..2].to_vec()));
}

#[test]
fn the_ledger_can_be_read_back() {
    let store = &block()[5];
    assert_eq!(store.ledger(), BTreeMap::from([("sifted", 40_000), ("leaked", 11_000), ("delivered", 7_069)]));
}
