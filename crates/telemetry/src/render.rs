//! A trace as text.

use std::fmt::Write as _;

use crate::names::attribute;
use crate::store::{SpanRecord, StatusRecord, Trace};

/// What of a trace is written.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions {
    /// Column at which attributes are wrapped.
    pub width: usize,
    /// Whether attributes are written at all.
    pub attributes: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { width: 120, attributes: true }
    }
}

/// Deeper levels are not indented further, so that a damaged file cannot make lines without end.
const INDENT_LIMIT: usize = 64;

/// Draws the tree: for each span its name, service, start after the trace's, duration and attributes.
pub fn render(trace: &Trace, options: RenderOptions) -> String {
    let mut out = String::new();
    header(&mut out, trace);
    let (name_width, start_ns) = (name_column(trace), trace.start_ns());
    for &root in trace.roots() {
        // An explicit stack: a damaged file may nest deeper than the call stack allows.
        let mut stack = vec![(root, 0, String::new(), String::new())];
        while let Some((at, depth, branch, below)) = stack.pop() {
            let span = &trace.spans()[at];
            line(&mut out, start_ns, span, &branch, name_width);
            let children = trace.children(at);
            if options.attributes {
                let rail = format!("{below}{}", if children.is_empty() { "    " } else { "│   " });
                details(&mut out, span, &rail, options.width);
            }
            for (number, &child) in children.iter().enumerate().rev() {
                let last = number + 1 == children.len();
                let (elbow, rail) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let next = if depth < INDENT_LIMIT { format!("{below}{rail}") } else { below.clone() };
                stack.push((child, depth + 1, format!("{below}{elbow}"), next));
            }
        }
    }
    out
}

fn header(out: &mut String, trace: &Trace) {
    let _ = write!(out, "trace {}", trace.id());
    let find = |key| trace.spans().iter().find_map(|span| span.attributes.get(key));
    if let Some(link) = find(attribute::LINK_ID) {
        let _ = write!(out, "  link {}", value(link));
    }
    if let Some(block) = find(attribute::BLOCK_ID) {
        let _ = write!(out, "  block {}", value(block));
    }
    let spans = trace.spans().len();
    let lasted = duration(trace.end_ns().saturating_sub(trace.start_ns()));
    let _ = writeln!(out, "  {spans} span{}  {lasted}", if spans == 1 { "" } else { "s" });
    if !trace.is_connected() {
        let parts = trace.roots().len();
        let _ = writeln!(out, "incomplete: {parts} part{} without their parent", if parts == 1 { "" } else { "s" });
    }
}

/// Deep trees push names to the right; what follows stays in line up to a limit.
fn name_column(trace: &Trace) -> usize {
    let mut width = 0;
    let mut stack: Vec<(usize, usize)> = trace.roots().iter().map(|&root| (root, 0)).collect();
    while let Some((at, depth)) = stack.pop() {
        width = width.max(3 * depth + trace.spans()[at].name.chars().count());
        stack.extend(trace.children(at).iter().map(|&child| (child, depth + 1)));
    }
    width.min(48)
}

fn line(out: &mut String, start_ns: u64, span: &SpanRecord, branch: &str, name_width: usize) {
    let name = format!("{branch}{}", clean(&span.name));
    let after = duration(span.start_ns.saturating_sub(start_ns));
    let lasted = duration(span.end_ns.saturating_sub(span.start_ns));
    let _ = write!(out, "{name:<name_width$}  {lasted:>9}  +{after:<9}  {}", clean(&span.service));
    if let StatusRecord::Error(why) = &span.status {
        let _ = write!(out, "  FAILED: {}", clean(why));
    }
    out.push('\n');
}

fn details(out: &mut String, span: &SpanRecord, rail: &str, width: usize) {
    let attributes = span.attributes.iter().map(|(key, of_key)| format!("{}={}", clean(key), value(of_key)));
    let events = span
        .events
        .iter()
        .map(|(at_ns, name)| format!("at +{}: {}", duration(at_ns.saturating_sub(span.start_ns)), clean(name)));
    let links = span.links.iter().map(|link| format!("-> {}/{}", clean(&link.trace), clean(&link.span)));
    let mut row = String::new();
    for item in attributes.chain(events).chain(links) {
        if !row.is_empty() && rail.chars().count() + row.chars().count() + 2 + item.chars().count() > width {
            let _ = writeln!(out, "{rail}{row}");
            row.clear();
        }
        if !row.is_empty() {
            row.push_str("  ");
        }
        row.push_str(&item);
    }
    if !row.is_empty() {
        let _ = writeln!(out, "{rail}{row}");
    }
}

fn value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => clean(text),
        // Six significant digits are what an eye wants.
        serde_json::Value::Number(number) if number.is_f64() => number.as_f64().map_or(String::new(), real),
        other => other.to_string(),
    }
}

fn real(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e6).contains(&magnitude) {
        let text = format!("{value:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{value:.5e}")
    }
}

/// Files may hold anything; a terminal gets no control characters.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn duration(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", seconds * 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}
