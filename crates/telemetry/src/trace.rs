//! Spans with an explicit parent, and the W3C trace context that carries them from service to service.
//!
//! A block passes through several tasks and processes, so nothing here depends on a "current" span: the parent is
//! always said.

use std::time::SystemTime;

use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId};
use opentelemetry::trace::{TraceContextExt as _, TraceState, Tracer as _};
use opentelemetry::{Context, KeyValue, global};

/// Longest string that an attribute may hold; longer ones are cut.
pub const STRING_LIMIT_CHARS: usize = 512;

/// What an attribute may hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    Integer(i64),
    Real(f64),
    Flag(bool),
    Text(String),
}

macro_rules! figure_from_integer {
    ($($from:ty),*) => {$(
        impl From<$from> for Figure {
            fn from(value: $from) -> Self {
                Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
            }
        }
    )*};
}
figure_from_integer!(u16, u32, u64, usize, i32, i64);

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Figure {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<&str> for Figure {
    fn from(value: &str) -> Self {
        match value.char_indices().nth(STRING_LIMIT_CHARS) {
            Some((end, _)) => Self::Text(value[..end].to_owned()),
            None => Self::Text(value.to_owned()),
        }
    }
}

impl From<String> for Figure {
    fn from(value: String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<Figure> for opentelemetry::Value {
    fn from(figure: Figure) -> Self {
        match figure {
            Figure::Integer(value) => value.into(),
            Figure::Real(value) => value.into(),
            Figure::Flag(value) => value.into(),
            Figure::Text(value) => value.into(),
        }
    }
}

/// Starts the spans of one service. Cheap to clone; valid before and after [`init`](crate::init()), recording after.
#[derive(Clone, Debug)]
pub struct Tracer {
    service: String,
}

impl Tracer {
    /// `service` is the name of the service instance in the plan; every span says it.
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into() }
    }

    /// Prepares a span; nothing is recorded before [`Builder::start`].
    pub fn span(&self, name: &'static str) -> Builder<'_> {
        Builder { tracer: self, parent: None, inner: SpanBuilder::from_name(name), attributes: vec![], links: vec![] }
    }
}

/// A span that is about to start.
#[must_use]
#[derive(Debug)]
pub struct Builder<'t> {
    tracer: &'t Tracer,
    parent: Option<SpanContext>,
    inner: SpanBuilder,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
}

impl Builder<'_> {
    /// The span that this one is part of; without one, or with an invalid one, a new trace begins.
    pub fn parent(mut self, parent: &SpanContext) -> Self {
        self.parent = parent.is_valid().then(|| parent.clone());
        self
    }

    /// As [`parent`](Self::parent), from the text that came with a message. Text that is no trace context is ignored.
    pub fn parent_from(self, traceparent: &str) -> Self {
        match parse_traceparent(traceparent) {
            Some(parent) => self.parent(&parent),
            None => self,
        }
    }

    pub fn attribute(mut self, key: &str, value: impl Into<Figure>) -> Self {
        self.attributes.push(KeyValue::new(key.to_owned(), value.into()));
        self
    }

    /// Names a span of another trace that this one is made of.
    pub fn link(mut self, to: &SpanContext) -> Self {
        if to.is_valid() {
            self.links.push(Link::new(to.clone(), vec![], 0));
        }
        self
    }

    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.inner = self.inner.with_kind(kind);
        self
    }

    /// For a stage whose start was noted before it was known to belong to a block.
    pub fn started_at(mut self, time: SystemTime) -> Self {
        self.inner = self.inner.with_start_time(time);
        self
    }

    pub fn start(self) -> Span {
        let parent = match self.parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let builder = self.inner.with_attributes(self.attributes).with_links(self.links);
        let inner = global::tracer(self.tracer.service.clone()).build_with_context(builder, &parent);
        Span { inner }
    }
}

/// A span that is under way. Dropping it ends it.
#[derive(Debug)]
pub struct Span {
    inner: global::BoxedSpan,
}

impl Span {
    pub fn set(&mut self, key: &str, value: impl Into<Figure>) {
        self.inner.set_attribute(KeyValue::new(key.to_owned(), value.into()));
    }

    /// As [`Builder::link`], for what is known only later.
    pub fn link(&mut self, to: &SpanContext) {
        if to.is_valid() {
            self.inner.add_link(to.clone(), vec![]);
        }
    }

    /// Something that happened at one moment of the span.
    pub fn event(&mut self, name: &'static str) {
        self.inner.add_event(name, vec![]);
    }

    /// Marks the span as failed.
    pub fn fail(&mut self, why: &str) {
        if let Figure::Text(why) = Figure::from(why) {
            self.inner.set_status(Status::error(why));
        }
    }

    pub fn succeed(&mut self) {
        self.inner.set_status(Status::Ok);
    }

    /// What children of this span name as their parent.
    pub fn context(&self) -> SpanContext {
        self.inner.span_context().clone()
    }

    /// [`context`](Self::context) as text for a message; empty where nothing is recorded.
    pub fn traceparent(&self) -> String {
        traceparent(self.inner.span_context())
    }

    /// The trace's id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.inner.span_context().trace_id().to_string()
    }

    pub fn is_recording(&self) -> bool {
        self.inner.is_recording()
    }

    pub fn end(mut self) {
        self.inner.end();
    }

    pub fn end_at(mut self, time: SystemTime) {
        self.inner.end_with_timestamp(time);
    }
}

/// A span's identity as a W3C `traceparent`, or an empty string where it has none.
pub fn traceparent(context: &SpanContext) -> String {
    if !context.is_valid() {
        return String::new();
    }
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), flags)
}

/// Reads a W3C `traceparent` (Trace Context level 1, section 3.2). `None` for anything that is not one.
pub fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let fields: Vec<&str> = text.split('-').take(6).collect();
    let &[version, trace, span, flags, ..] = fields.as_slice() else { return None };
    let well_formed = is_lower_hex(version, 2) && is_lower_hex(trace, 32) && is_lower_hex(span, 16);
    if !well_formed || !is_lower_hex(flags, 2) || version == "ff" {
        return None;
    }
    // Version 0 has four fields; later versions may append more, which are skipped.
    if version == "00" && fields.len() != 4 {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Hands a span's identity to whatever carries a message: `set(key, value)` is called once per header.
pub fn inject(context: &SpanContext, mut set: impl FnMut(&'static str, String)) {
    if context.is_valid() {
        set("traceparent", traceparent(context));
    }
}

/// Takes a span's identity from whatever carried a message: `get(key)` looks one header up.
pub fn extract<'m>(get: impl Fn(&'static str) -> Option<&'m str>) -> Option<SpanContext> {
    parse_traceparent(get("traceparent")?)
}
