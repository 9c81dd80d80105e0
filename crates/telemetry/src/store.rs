//! The embedded span store's reading end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::names::{attribute, span as name};

/// Lines longer than this are skipped.
pub const LINE_LIMIT_BYTES: u64 = 1 << 20;
/// Spans of one trace beyond this are left out, so that a foreign file cannot fill the memory.
pub const SPANS_LIMIT: usize = 100_000;

/// One span, as a line of a span file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanRecord {
    pub trace: String,
    pub span: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    pub name: String,
    pub service: String,
    #[serde(default)]
    pub kind: String,
    pub start_ns: u64,
    pub end_ns: u64,
    #[serde(default)]
    pub attributes: BTreeMap<String, serde_json::Value>,
    /// Time and name of what happened at one moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<(u64, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkRecord>,
    #[serde(default)]
    pub status: StatusRecord,
}

impl SpanRecord {
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.attributes.get(key)?.as_i64()
    }

    pub fn real(&self, key: &str) -> Option<f64> {
        self.attributes.get(key)?.as_f64()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.get(key)?.as_str()
    }

    /// The values of an attribute of which there are several, in order.
    pub fn texts(&self, attribute: &str) -> Vec<&str> {
        let prefix = format!("{attribute}.");
        let numbered = self.attributes.iter().filter(|(key, _)| key.starts_with(&prefix));
        numbered.filter_map(|(_, value)| value.as_str()).collect()
    }

    /// The entries of the ledger that this span carries, without their prefix.
    pub fn ledger(&self) -> BTreeMap<&str, i64> {
        self.attributes
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(attribute::LEDGER_PREFIX)?, value.as_i64()?)))
            .collect()
    }

    fn is_of(&self, block: u64, link: Option<&str>) -> bool {
        let of_block = self.integer(attribute::BLOCK_ID).and_then(|id| u64::try_from(id).ok()) == Some(block);
        of_block && link.is_none_or(|link| self.text(attribute::LINK_ID) == Some(link))
    }
}

/// A span of another trace that a span refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    pub trace: String,
    pub span: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusRecord {
    #[default]
    Unset,
    Ok,
    Error(String),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// The span files of one or several folders.
#[derive(Clone, Debug)]
pub struct Store {
    files: Vec<PathBuf>,
}

impl Store {
    /// Finds `*.spans.jsonl` and the rotated files beside them.
    pub fn open<P: AsRef<Path>>(folders: impl IntoIterator<Item = P>) -> Result<Self, StoreError> {
        let mut files = BTreeSet::new();
        for folder in folders {
            let failed = |source| StoreError::Read { path: folder.as_ref().to_owned(), source };
            for entry in std::fs::read_dir(folder.as_ref()).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if name.ends_with(".jsonl") && name.contains(".spans.") {
                    files.insert(path);
                }
            }
        }
        Ok(Self { files: files.into_iter().collect() })
    }

    /// The trace with this id (32 hexadecimal digits), or `None` if no span of it is stored.
    pub fn trace(&self, id: &str) -> Result<Option<Trace>, StoreError> {
        let id = id.to_ascii_lowercase();
        Ok(self.load(&BTreeSet::from([id]))?.pop())
    }

    /// The traces that a block left, earliest first: one as a rule, more where a voided round used the number before
    /// or where several links are stored and none is named.
    pub fn block(&self, block: u64, link: Option<&str>) -> Result<Vec<Trace>, StoreError> {
        let mut ids = BTreeSet::new();
        self.scan(attribute::BLOCK_ID, |span| {
            if span.is_of(block, link) {
                ids.insert(span.trace);
            }
        })?;
        self.load(&ids)
    }

    /// The traces of a key's deliveries, those of the blocks that it is made of, and where it was relayed those of the
    /// blocks that its pads are made of, earliest first.
    pub fn key(&self, fingerprint: &str) -> Result<Vec<Trace>, StoreError> {
        let mut ids = BTreeSet::new();
        self.scan(fingerprint, |span| {
            if span.text(attribute::KEY_FINGERPRINT) == Some(fingerprint) {
                ids.extend(span.links.into_iter().map(|link| link.trace));
                ids.insert(span.trace);
            }
        })?;
        let traces = self.load(&ids)?;
        let relayed = traces.iter().flat_map(Trace::spans).filter(|span| span.name == name::RELAY);
        let pads: Vec<String> = relayed.flat_map(|span| &span.links).map(|link| link.trace.clone()).collect();
        let known = ids.len();
        ids.extend(pads);
        if ids.len() == known { Ok(traces) } else { self.load(&ids) }
    }

    /// Every span of every file, in the order of the files.
    pub fn spans(&self, mut visit: impl FnMut(SpanRecord)) -> Result<(), StoreError> {
        self.scan("", &mut visit)
    }

    /// When the last span of each file that is being written ended, in nanoseconds since 1970, for the services that
    /// are asked for. Only the end of a file is read, and rotated files are not.
    pub fn latest_of_each_file(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<u64>, StoreError> {
        let service = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str())?;
            Some(name.strip_suffix(".spans.jsonl")?.to_owned())
        };
        let written = self.files.iter().filter(|path| service(path).is_some_and(|name| wanted(&name)));
        let latest = written.map(|path| {
            let failed = |source| StoreError::Read { path: path.clone(), source };
            latest_end(path).map_err(failed)
        });
        latest.filter_map(Result::transpose).collect()
    }

    fn load(&self, ids: &BTreeSet<String>) -> Result<Vec<Trace>, StoreError> {
        let mut spans: BTreeMap<String, Vec<SpanRecord>> = BTreeMap::new();
        let wanted = if ids.len() == 1 { ids.first().map_or("", String::as_str) } else { "" };
        self.scan(wanted, |span| {
            if ids.contains(&span.trace) {
                let of_trace = spans.entry(span.trace.clone()).or_default();
                if of_trace.len() < SPANS_LIMIT {
                    of_trace.push(span);
                }
            }
        })?;
        let mut traces: Vec<Trace> = spans.into_values().map(Trace::new).collect();
        traces.sort_by_key(|trace| trace.start_ns());
        Ok(traces)
    }

    /// Visits the spans of lines that contain `needle`; parsing is what costs.
    fn scan(&self, needle: &str, mut visit: impl FnMut(SpanRecord)) -> Result<(), StoreError> {
        for path in &self.files {
            match scan_file(path, needle, &mut visit) {
                // A file may be rotated away between listing and reading.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::Read { path: path.clone(), source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Lines that are no span (cut short by a crash, or foreign) are passed over.
fn scan_file(path: &Path, needle: &str, visit: &mut impl FnMut(SpanRecord)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_LIMIT_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 >= LINE_LIMIT_BYTES {
            skip_line(&mut reader)?;
            continue;
        }
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        if !text.contains(needle) {
            continue;
        }
        if let Ok(span) = serde_json::from_str(text) {
            visit(span);
        }
    }
}

/// The latest end among the last spans of a file; nothing where it has none yet.
fn latest_end(path: &Path) -> io::Result<Option<u64>> {
    const TAIL_BYTES: u64 = 256 << 10;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let spans = tail.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<SpanRecord>(line).ok());
    Ok(spans.map(|span| span.end_ns).max())
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let used = newline.map_or(buffer.len(), |at| at + 1);
        reader.consume(used);
        if newline.is_some() {
            return Ok(());
        }
    }
}

/// The spans of one trace as a forest; one tree where nothing is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// By start, then by id.
    spans: Vec<SpanRecord>,
    roots: Vec<usize>,
    children: Vec<Vec<usize>>,
}

impl Trace {
    /// Spans with the same id are taken once. Parents that are not there make their children roots; so does a
    /// circle, which a damaged file may hold.
    pub fn new(spans: Vec<SpanRecord>) -> Self {
        let mut by_id: BTreeMap<String, SpanRecord> = BTreeMap::new();
        for span in spans {
            by_id.entry(span.span.clone()).or_insert(span);
        }
        let mut spans: Vec<SpanRecord> = by_id.into_values().collect();
        spans.sort_by(|a, b| (a.start_ns, &a.span).cmp(&(b.start_ns, &b.span)));

        let index: BTreeMap<&str, usize> =
            spans.iter().enumerate().map(|(at, span)| (span.span.as_str(), at)).collect();
        let parent_of = |at: usize| -> Option<usize> {
            index.get(spans[at].parent.as_deref()?).copied().filter(|&parent| parent != at)
        };
        let parents: Vec<Option<usize>> = (0..spans.len()).map(parent_of).collect();
        let mut roots = vec![];
        let mut children = vec![vec![]; spans.len()];
        for (at, parent) in parents.iter().enumerate() {
            match parent {
                Some(parent) => children[*parent].push(at),
                None => roots.push(at),
            }
        }
        cut_circles(&parents, &mut roots, &mut children);
        Self { spans, roots, children }
    }

    pub fn id(&self) -> &str {
        self.spans.first().map_or("", |span| &span.trace)
    }

    pub fn spans(&self) -> &[SpanRecord] {
        &self.spans
    }

    /// Indices into [`spans`](Self::spans) of the spans without a stored parent, earliest first.
    pub fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// Indices of the children of a span, earliest first.
    pub fn children(&self, at: usize) -> &[usize] {
        self.children.get(at).map_or(&[], Vec::as_slice)
    }

    /// Whether every span descends from one root that names no parent.
    pub fn is_connected(&self) -> bool {
        matches!(self.roots.as_slice(), &[root] if self.spans[root].parent.is_none())
    }

    pub fn start_ns(&self) -> u64 {
        self.spans.iter().map(|span| span.start_ns).min().unwrap_or(0)
    }

    pub fn end_ns(&self) -> u64 {
        self.spans.iter().map(|span| span.end_ns).max().unwrap_or(0)
    }

    /// The services that took part, by name.
    pub fn services(&self) -> BTreeSet<&str> {
        self.spans.iter().map(|span| span.service.as_str()).collect()
    }
}

/// Makes a root of the earliest span of every circle and takes it from its parent.
fn cut_circles(parents: &[Option<usize>], roots: &mut Vec<usize>, children: &mut [Vec<usize>]) {
    let mut reached = vec![false; children.len()];
    let mut from = roots.clone();
    let mut next = 0;
    loop {
        while let Some(at) = from.pop() {
            reached[at] = true;
            from.extend(children[at].iter().copied().filter(|&child| !reached[child]));
        }
        let Some(unreached) = (next..reached.len()).find(|&at| !reached[at]) else { break };
        next = unreached;
        if let Some(parent) = parents[unreached] {
            children[parent].retain(|&child| child != unreached);
        }
        roots.push(unreached);
        from.push(unreached);
    }
    roots.sort_unstable();
}
