//! YAML text to a tree whose every node knows its line and column, with a limit on everything.

use std::collections::BTreeMap;

use serde_json::{Number, Value};
use serde_saphyr::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::diagnostic::{COLLECTED_MAX, Diagnostic, Position, quoted};

/// Largest file that is read at all; a network of 700 links takes about 4 MB.
pub const FILE_BYTES_MAX: usize = 16 << 20;
/// Nodes of the tree, those that aliases repeat included.
const NODES_MAX: usize = 1_000_000;
/// Nodes that aliases may repeat: a few hundred small blocks, no "billion laughs".
const ALIAS_NODES_MAX: usize = 100_000;
/// Fields of one mapping; keeps the search for duplicates short.
const FIELDS_MAX: usize = 512;
/// Nesting of a topology is below 10; beyond this nothing is meant.
const DEPTH_MAX: usize = 24;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub at: Position,
    pub kind: Kind,
    /// Nodes of this subtree, itself included.
    size: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar { text: String, plain: bool },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_at: Position,
    pub value: Node,
}

impl Node {
    /// The scalar as YAML 1.2's core schema reads it.
    pub fn scalar(&self) -> Option<Value> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => Some(resolve_plain(text)),
            Kind::Scalar { text, plain: false } => Some(Value::String(text.clone())),
            _ => None,
        }
    }

    #[cfg(test)]
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar { .. } => self.scalar().unwrap_or_default(),
            Kind::Sequence(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Kind::Mapping(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_value()))
                    .collect::<serde_json::Map<_, _>>(),
            ),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }
}

/// A tree, and what is wrong with it that does not keep it from being read.
pub(crate) type Tree = (Node, Vec<Diagnostic>);

/// Reads one document. Syntax errors end the reading; duplicate keys, tags and the like are all collected.
pub(crate) fn read(bytes: &[u8]) -> Result<Tree, Vec<Diagnostic>> {
    let text = check_bytes(bytes).map_err(|diagnostic| vec![diagnostic])?;
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.accept(event, &span),
            Err(error) => Err(syntax_error(&error)),
        };
        if let Err(diagnostic) = step {
            builder.diagnostics.push(diagnostic);
            return Err(builder.diagnostics);
        }
    }
    match builder.root {
        Some(root) => Ok((root, builder.diagnostics)),
        None => Err(vec![
            Diagnostic::error(Position::START, "", "the file is empty")
                .expected("one YAML document with apiVersion, kind, metadata and spec"),
        ]),
    }
}

fn check_bytes(bytes: &[u8]) -> Result<&str, Diagnostic> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes", bytes.len());
        return Err(Diagnostic::error(Position::START, "", message).expected(format!("at most {FILE_BYTES_MAX} bytes")));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let line_start = good.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let column = String::from_utf8_lossy(&good[line_start..]).chars().count() + 1;
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let found = bytes[error.valid_up_to()];
        let message = format!("byte {} (0x{found:02x}) is not UTF-8", error.valid_up_to());
        Diagnostic::error(Position { line, column }, "", message).expected("text in UTF-8")
    })
}

fn syntax_error(error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let position = Position { line: marker.line().max(1), column: marker.col() + 1 };
    let diagnostic = Diagnostic::error(position, "", format!("not valid YAML: {}", error.info()));
    match error.kind() {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => {
            diagnostic.expected("indentation by blanks").hint("replace the tab by blanks")
        }
        ErrorKind::UnknownAnchor => diagnostic.expected("an anchor (&name) above the alias (*name)"),
        ErrorKind::RecursionLimitExceeded => diagnostic.expected("the nesting of a topology"),
        _ => diagnostic,
    }
}

/// A collection that is still open.
struct Open {
    at: Position,
    anchor: usize,
    size: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<(String, Position)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    alias_nodes: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Builder {
    fn accept(&mut self, event: Event<'_>, span: &Span) -> Result<(), Diagnostic> {
        let at = Position { line: span.start.line().max(1), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Diagnostic::error(at, "", "a second YAML document starts here")
                        .expected("one document per file")
                        .hint("put each topology into a file of its own"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                let kind = Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.complete(Node { at, kind, size: 1 }, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.enter(at, anchor, Content::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.enter(at, anchor, Content::Mapping { entries: Vec::new(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave()?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
            _ => {}
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Position) {
        if let Some(tag) = tag {
            let message = format!("the YAML tag {} is not understood", quoted(&tag.original()));
            self.note(Diagnostic::error(at, "", message).expected("values without tags"));
        }
    }

    fn note(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < COLLECTED_MAX {
            self.diagnostics.push(diagnostic);
        }
    }

    fn enter(&mut self, at: Position, anchor: usize, content: Content) -> Result<(), Diagnostic> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} levels deep");
            return Err(Diagnostic::error(at, "", message).expected("the nesting of a topology"));
        }
        self.open.push(Open { at, anchor, size: 1, content });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Diagnostic> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let kind = match open.content {
            Content::Sequence(items) => Kind::Sequence(items),
            Content::Mapping { entries, .. } => Kind::Mapping(entries),
        };
        self.complete(Node { at: open.at, kind, size: open.size }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Diagnostic> {
        // An anchor that is still open would contain itself.
        let Some(size) = self.anchors.get(&anchor).map(|node| node.size) else {
            return Err(Diagnostic::error(at, "", "an alias inside the block that it repeats")
                .expected("an alias of a block that has ended"));
        };
        self.count_alias_nodes(size, at)?;
        let mut node = self.anchors[&anchor].clone();
        node.at = at;
        self.complete(node, 0)
    }

    fn count_alias_nodes(&mut self, size: usize, at: Position) -> Result<(), Diagnostic> {
        self.alias_nodes += size;
        if self.alias_nodes > ALIAS_NODES_MAX {
            let message = format!("anchors and aliases repeat more than {ALIAS_NODES_MAX} values");
            return Err(Diagnostic::error(at, "", message)
                .expected("aliases that repeat small blocks")
                .hint("aliases of aliases multiply; write the values out"));
        }
        Ok(())
    }

    /// Adds a complete node to the collection around it.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if self.nodes + self.alias_nodes > NODES_MAX {
            let message = format!("the file holds more than {NODES_MAX} values");
            return Err(Diagnostic::error(node.at, "", message).expected("a topology of at most 16 MB"));
        }
        if anchor != 0 {
            // The copy that aliases take; anchors inside anchors multiply like aliases do.
            self.count_alias_nodes(node.size, node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let mut duplicate = None;
        parent.size += node.size;
        match &mut parent.content {
            Content::Sequence(items) => items.push(node),
            Content::Mapping { entries, key } => match key.take() {
                Some((key, key_at)) => match entries.iter().find(|entry| entry.key == key) {
                    Some(first) => {
                        let message = format!("the field {} stands here a second time", quoted(&key));
                        let hint = format!("the first is in line {}", first.key_at.line);
                        duplicate = Some(Diagnostic::error(key_at, "", message).expected("each field once").hint(hint));
                    }
                    None if entries.len() == FIELDS_MAX => {
                        return Err(Diagnostic::error(
                            key_at,
                            "",
                            format!("more than {FIELDS_MAX} fields in one block"),
                        )
                        .expected("the fields of a topology"));
                    }
                    None => entries.push(Entry { key, key_at, value: node }),
                },
                None => match node.kind {
                    Kind::Scalar { text, .. } => *key = Some((text, node.at)),
                    _ => {
                        return Err(Diagnostic::error(node.at, "", "a list or a mapping as a field name")
                            .expected("a name before the colon"));
                    }
                },
            },
        }
        if let Some(diagnostic) = duplicate {
            self.note(diagnostic);
        }
        Ok(())
    }
}

/// YAML 1.2 core schema for a scalar without quotes.
fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(number) = resolve_integer(text).or_else(|| resolve_float(text)) {
        return Value::Number(number);
    }
    Value::String(text.to_owned())
}

fn resolve_integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if decimal {
        return if negative {
            text.parse::<i64>().ok().map(Number::from)
        } else {
            digits.parse::<u64>().ok().map(Number::from)
        };
    }
    let radix = |prefix, radix| text.strip_prefix(prefix).and_then(|rest| u64::from_str_radix(rest, radix).ok());
    radix("0x", 16).or_else(|| radix("0o", 8)).map(Number::from)
}

fn resolve_float(text: &str) -> Option<Number> {
    let allowed = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    if !text.bytes().all(allowed) || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_place() {
        let (root, _) = read(b"a: 1\nb:\n  - {c: x}\n  - 2.5 km\n").unwrap();
        let list = root.get("b").unwrap();
        let Kind::Sequence(items) = &list.kind else { panic!("not a list") };
        assert_eq!(items[0].get("c").unwrap().at, Position { line: 3, column: 9 });
        assert_eq!(items[1].at, Position { line: 4, column: 5 });
        assert_eq!(root.to_value(), serde_json::json!({"a": 1, "b": [{"c": "x"}, "2.5 km"]}));
    }

    #[test]
    fn scalars_are_read_by_the_core_schema() {
        for (text, value) in [
            ("1e-10", serde_json::json!(1e-10)),
            ("12", serde_json::json!(12)),
            ("0x1f", serde_json::json!(31)),
            ("no", serde_json::json!("no")),
            ("'12'", serde_json::json!("12")),
            ("~", Value::Null),
        ] {
            assert_eq!(read(format!("a: {text}").as_bytes()).unwrap().0.get("a").unwrap().to_value(), value, "{text}");
        }
    }

    #[test]
    fn aliases_repeat_small_blocks_only() {
        let (root, _) = read(b"a: &x {p: 1}\nb: *x\n").unwrap();
        assert_eq!(root.to_value(), serde_json::json!({"a": {"p": 1}, "b": {"p": 1}}));
        assert!(read(b"a: &x [*x]\n").is_err());
    }
}
