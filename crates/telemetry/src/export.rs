//! The embedded span store's writing end: one line of JSON for each span, in files of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use crate::store::{LinkRecord, SpanRecord, StatusRecord};

/// How many full files are kept beside the one being written.
pub const KEPT_FILES: u32 = 3;

/// The file that a service's spans are written to.
pub fn span_file(folder: &Path, service: &str) -> PathBuf {
    folder.join(format!("{service}.spans.jsonl"))
}

/// Appends spans to `<folder>/<service>.spans.jsonl`; a full file becomes `<service>.spans.1.jsonl` and so on.
#[derive(Debug)]
pub struct SpanFiles {
    folder: PathBuf,
    service: String,
    limit_bytes: u64,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: BufWriter<File>,
    written_bytes: u64,
}

impl SpanFiles {
    pub fn create(folder: &Path, service: &str, limit_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = open_for_append(&span_file(folder, service))?;
        Ok(Self { folder: folder.to_owned(), service: service.to_owned(), limit_bytes, open: Mutex::new(Some(open)) })
    }

    /// Once this returns the operating system has the spans.
    pub fn append(&self, spans: impl IntoIterator<Item = SpanRecord>) -> io::Result<()> {
        let mut guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = guard.as_mut().ok_or_else(|| io::Error::other("the span file is closed"))?;
        for span in spans {
            let mut line = serde_json::to_vec(&span)?;
            line.push(b'\n');
            if open.written_bytes > 0 && open.written_bytes + line.len() as u64 > self.limit_bytes {
                open.file.flush()?;
                *open = self.rotate()?;
            }
            open.file.write_all(&line)?;
            open.written_bytes += line.len() as u64;
        }
        open.file.flush()
    }

    fn rotate(&self) -> io::Result<Open> {
        let numbered = |number: u32| self.folder.join(format!("{}.spans.{number}.jsonl", self.service));
        for number in (1..KEPT_FILES).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let current = span_file(&self.folder, &self.service);
        fs::rename(&current, numbered(1))?;
        open_for_append(&current)
    }
}

/// Spans of this process, into files.
#[derive(Debug)]
pub struct FileExporter {
    files: SpanFiles,
}

impl FileExporter {
    pub fn create(folder: &Path, service: &str, limit_bytes: u64) -> io::Result<Self> {
        Ok(Self { files: SpanFiles::create(folder, service, limit_bytes)? })
    }
}

fn open_for_append(path: &Path) -> io::Result<Open> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let mut written_bytes = file.metadata()?.len();
    // A line that a crash cut short must not swallow the next one.
    if written_bytes > 0 && !ends_with_newline(&mut file, written_bytes)? {
        file.write_all(b"\n")?;
        written_bytes += 1;
    }
    Ok(Open { file: BufWriter::new(file), written_bytes })
}

fn ends_with_newline(file: &mut File, length: u64) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(length - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last[0] == b'\n')
}

impl SpanExporter for FileExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.files
            .append(batch.iter().map(record))
            .map_err(|error| OTelSdkError::InternalFailure(format!("span file: {error}")))
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        let taken = self.files.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        match taken {
            Some(mut open) => open.file.flush().map_err(|error| OTelSdkError::InternalFailure(error.to_string())),
            None => Ok(()),
        }
    }
}

fn record(span: &SpanData) -> SpanRecord {
    let parent = (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string());
    SpanRecord {
        trace: span.span_context.trace_id().to_string(),
        span: span.span_context.span_id().to_string(),
        parent,
        name: span.name.to_string(),
        service: span.instrumentation_scope.name().to_owned(),
        kind: match span.span_kind {
            SpanKind::Client => "client",
            SpanKind::Server => "server",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
            SpanKind::Internal => "internal",
        }
        .to_owned(),
        start_ns: unix_ns(span.start_time),
        end_ns: unix_ns(span.end_time),
        attributes: span.attributes.iter().map(attribute).collect(),
        events: span.events.iter().map(|event| (unix_ns(event.timestamp), event.name.to_string())).collect(),
        links: span.links.iter().map(|link| link_record(&link.span_context)).collect(),
        status: match &span.status {
            Status::Unset => StatusRecord::Unset,
            Status::Ok => StatusRecord::Ok,
            Status::Error { description } => StatusRecord::Error(description.to_string()),
        },
    }
}

fn link_record(context: &opentelemetry::trace::SpanContext) -> LinkRecord {
    LinkRecord { trace: context.trace_id().to_string(), span: context.span_id().to_string() }
}

fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn attribute(pair: &KeyValue) -> (String, serde_json::Value) {
    let value = match &pair.value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Array(Array::I64(values)) => values.clone().into(),
        Value::Array(Array::F64(values)) => values.clone().into(),
        Value::Array(Array::Bool(values)) => values.clone().into(),
        Value::Array(Array::String(values)) => values.iter().map(|value| value.as_str()).collect(),
        _ => serde_json::Value::Null,
    };
    (pair.key.to_string(), value)
}
