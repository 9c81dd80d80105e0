//! What a request leaves in traces.

use std::fmt::Debug;
use std::sync::{Mutex, Once};
use std::thread::ThreadId;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::delivery::{container, ids_of};
use super::support::site;

/// Writes down every span and event of one thread, with all that they carry.
#[derive(Clone, Copy)]
struct Recorder;

/// The thread whose lines are wanted, and its lines.
static LINES: Mutex<(Option<ThreadId>, Vec<String>)> = Mutex::new((None, Vec::new()));

/// Lets the recorder see the whole process. Every site calls this before it serves: a place in the code that some
/// other thread reached first, while nobody listened there, would be taken for one that never matters to anybody.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Recorder).unwrap());
}

fn with_lines<T>(act: impl FnOnce(&mut Vec<String>) -> T) -> Option<T> {
    let mut lines = LINES.lock().unwrap();
    (lines.0 == Some(std::thread::current().id())).then(|| act(&mut lines.1))
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let index = with_lines(|lines| {
            let mut line = span.metadata().name().to_owned();
            span.record(&mut Line(&mut line));
            lines.push(line);
            lines.len() as u64
        });
        Id::from_u64(index.unwrap_or(u64::MAX))
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let index = usize::try_from(span.into_u64()).unwrap() - 1;
        with_lines(|lines| lines.get_mut(index).map(|line| values.record(&mut Line(line))));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        with_lines(|lines| {
            let mut line = event.metadata().target().to_owned();
            event.record(&mut Line(&mut line));
            lines.push(line);
        });
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[tokio::test]
async fn spans_say_who_asked_for_how_much_and_never_which_key() {
    // The test's runtime has one thread, so that this covers the server's tasks as well.
    LINES.lock().unwrap().0 = Some(std::thread::current().id());
    let site = site().await;
    let keys = container(&site.ask("GET", "/api/v1/keys/sae-b/enc_keys?number=2", "").await.json());
    let mut b = site.connect("sae-b").await;
    let target = format!("/api/v1/keys/sae-a/dec_keys?key_ID={}", keys[0].0);
    assert_eq!(b.ask("GET", &target, "").await.status, 200);
    assert_eq!(b.ask("POST", "/api/v1/keys/sae-a/dec_keys", &ids_of(&keys[1..])).await.status, 200);
    assert_eq!(b.ask("GET", &format!("/{}", keys[1].0), "").await.status, 404);
    let mut lines = with_lines(std::mem::take).unwrap();
    let texts: Vec<String> = keys
        .iter()
        .flat_map(|(id, key)| {
            use base64::Engine as _;
            let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            [id.clone(), base64::engine::general_purpose::STANDARD.encode(key), hex, format!("{key:?}")]
        })
        .collect();
    for line in lines.iter().filter(|line| !line.starts_with("rustls") && !line.starts_with("mio")) {
        assert!(!texts.iter().any(|text| line.contains(text)), "tells of a key: {line}");
    }
    lines.retain(|line| line.contains("otel.kind"));
    let starts = [
        "GET /api/v1/keys/{slave_SAE_ID}/enc_keys ",
        "GET /api/v1/keys/{master_SAE_ID}/dec_keys ",
        "POST /api/v1/keys/{master_SAE_ID}/dec_keys ",
        "HTTP ",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    for part in [
        "http.request.method=\"GET\"",
        "http.route=\"/api/v1/keys/{slave_SAE_ID}/enc_keys\"",
        "url.path=\"/api/v1/keys/sae-b/enc_keys\"",
        "http.response.status_code=200",
        "tls.protocol.version=\"1.3\"",
        "qkd.sae.master=\"sae-a\"",
        "qkd.sae.slave=\"sae-b\"",
        "qkd.key.count=2",
        "qkd.key.size_bits=256",
    ] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
    assert!(lines[3].contains("http.response.status_code=404") && !lines[3].contains("url.path"));
}
