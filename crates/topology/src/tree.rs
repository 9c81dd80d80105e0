//! YAML text to a tree whose every node knows its line and column, with a limit on everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Number, Value};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag};

use crate::diagnostic::{COLLECTED_MAX, Diagnostic, Position, quoted};
use crate::{encoding, syntax};

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
/// Name of the field whose value is fields of other blocks.
const MERGE_KEY: &str = "<<";

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub at: Position,
    pub kind: Kind,
    /// Nodes of this subtree, itself included, as they stand in the file.
    size: usize,
    /// Only of what definitions have to do with.
    origin: Option<Box<Origin>>,
}

/// What a value has to do with definitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// It stands in a definition, and is used from here.
    pub used_at: Option<Position>,
    /// A block over the fields of a definition that is here.
    pub defined_at: Option<Position>,
    /// It stands for a whole part of a definition and is not put over its fields.
    pub replaces: bool,
    /// It uses what cannot be used, which was said: nothing is to be read here.
    pub broken: bool,
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

    pub fn empty(at: Position) -> Self {
        Node { at, kind: Kind::Mapping(Vec::new()), size: 1, origin: None }
    }

    pub fn text(at: Position, text: String) -> Self {
        Node { at, kind: Kind::Scalar { text, plain: false }, size: 1, origin: None }
    }

    /// Nodes of this subtree, itself included, as it is now.
    pub fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::Sequence(items) => items.iter().map(Node::count).sum(),
            Kind::Mapping(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        }
    }

    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    pub fn origin_mut(&mut self) -> &mut Origin {
        self.origin.get_or_insert_default()
    }

    /// Fields of a block; nothing else has any.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    pub fn entries_mut(&mut self) -> &mut [Entry] {
        match &mut self.kind {
            Kind::Mapping(entries) => entries,
            _ => &mut [],
        }
    }

    /// Items of a list; nothing else has any.
    pub fn items_mut(&mut self) -> &mut [Node] {
        match &mut self.kind {
            Kind::Sequence(items) => items,
            _ => &mut [],
        }
    }

    /// Adds a field to a block.
    pub fn push(&mut self, entry: Entry) {
        if let Kind::Mapping(entries) = &mut self.kind {
            entries.push(entry);
        }
    }

    /// Keeps some of the fields of a block.
    pub fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        if let Kind::Mapping(entries) = &mut self.kind {
            entries.retain(keep);
        }
    }

    /// Takes a field out of a block.
    pub fn take(&mut self, key: &str) -> Option<Entry> {
        let Kind::Mapping(entries) = &mut self.kind else { return None };
        let index = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(index))
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries_mut().iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
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

/// Reads one document; documents with nothing in them are none. Syntax errors end the reading; duplicate keys, tags and
/// the like are all collected.
pub(crate) fn read(bytes: &[u8]) -> Result<Tree, Vec<Diagnostic>> {
    let text = encoding::decode(bytes).map_err(|diagnostic| vec![diagnostic])?;
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(&text, options) {
        let step = match event {
            Ok((event, span)) => builder.accept(event, &span),
            Err(error) => Err(syntax::error(&text, &error)),
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

/// A collection that is still open.
struct Open {
    at: Position,
    anchor: usize,
    size: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<Key>, merged: Option<Node> },
}

struct Key {
    text: String,
    at: Position,
    /// Written without quotes: `<<` is a merge key then.
    plain: bool,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    /// Where the document that is read begins.
    document_at: Position,
    nodes: usize,
    alias_nodes: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Builder {
    fn accept(&mut self, event: Event<'_>, span: &Span) -> Result<(), Diagnostic> {
        let at = Position { line: span.start.line().max(1), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(..) => self.document_at = at,
            Event::Scalar(text, style, anchor, tag) => {
                let mut plain = style == ScalarStyle::Plain;
                // The parser's word for a document with nothing in it.
                if self.open.is_empty() && plain && tag.is_none() && span.start.index() == span.end.index() {
                    return Ok(());
                }
                self.check_second_document()?;
                if let Some(tag) = tag.as_deref() {
                    plain = self.scalar_tag(tag, &text, plain, at);
                }
                if plain && may_be_octal(&text) {
                    self.note(
                        Diagnostic::error(at, "", format!("the number {} begins with a zero", quoted(&text)))
                            .expected("a number in decimal digits, or a text in quotes")
                            .hint("some YAML readers take it for an octal number"),
                    );
                }
                self.complete(
                    Node { at, kind: Kind::Scalar { text: text.into_owned(), plain }, size: 1, origin: None },
                    anchor,
                )?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_second_document()?;
                self.collection_tag(tag.as_deref(), "seq", at);
                self.enter(at, anchor, Content::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_second_document()?;
                self.collection_tag(tag.as_deref(), "map", at);
                self.enter(at, anchor, Content::Mapping { entries: Vec::new(), key: None, merged: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave()?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
            _ => {}
        }
        Ok(())
    }

    /// Something stands in the document that begins; there may be something in one document alone.
    fn check_second_document(&self) -> Result<(), Diagnostic> {
        if self.root.is_none() || !self.open.is_empty() {
            return Ok(());
        }
        Err(Diagnostic::error(self.document_at, "", "a second YAML document starts here")
            .expected("one document per file")
            .hint("put each topology into a file of its own"))
    }

    /// Whether a scalar with a tag is to be read as one without quotes. Tags of YAML's own types are taken.
    fn scalar_tag(&mut self, tag: &Tag, text: &str, plain: bool, at: Position) -> bool {
        match (tag.core_suffix(), resolve_plain(text)) {
            (Some("str"), _) => false,
            (Some("null"), Value::Null) | (Some("bool"), Value::Bool(_)) | (Some("float"), Value::Number(_)) => true,
            (Some("int"), Value::Number(number)) => number.is_i64() || number.is_u64(),
            (Some(_), _) => {
                let message = format!("{} is not what the YAML tag {} says", quoted(text), quoted(&tag.original()));
                self.note(Diagnostic::error(at, "", message).expected("a value of that type, or no tag"));
                true
            }
            (None, _) => {
                self.refuse_tag(tag, at);
                plain
            }
        }
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, own: &str, at: Position) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(own)) {
            self.refuse_tag(tag, at);
        }
    }

    fn refuse_tag(&mut self, tag: &Tag, at: Position) {
        let message = format!("the YAML tag {} is not understood", quoted(&tag.original()));
        self.note(Diagnostic::error(at, "", message).expected("values without tags"));
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
            Content::Mapping { entries, merged: None, .. } => Kind::Mapping(entries),
            Content::Mapping { entries, merged: Some(merged), .. } => Kind::Mapping(self.merge(entries, merged)?),
        };
        self.complete(Node { at: open.at, kind, size: open.size, origin: None }, open.anchor)
    }

    /// The fields of a block, and those that the blocks behind its merge key have beside them; the first one wins.
    fn merge(&mut self, mut entries: Vec<Entry>, merged: Node) -> Result<Vec<Entry>, Diagnostic> {
        let blocks = match merged.kind {
            Kind::Sequence(items) => items,
            _ => vec![merged],
        };
        let mut known: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        for block in blocks {
            let Kind::Mapping(fields) = block.kind else {
                self.note(
                    Diagnostic::error(block.at, "", "a merge key (<<) that merges no block of fields")
                        .expected("an alias of a block such as `<<: *name`, or a list of them"),
                );
                continue;
            };
            entries.extend(fields.into_iter().filter(|field| known.insert(field.key.clone())));
            if entries.len() > FIELDS_MAX {
                return Err(too_many_fields(block.at));
            }
        }
        Ok(entries)
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
            Content::Mapping { entries, key, merged } => match key.take() {
                Some(key) => {
                    let merges = key.plain && key.text == MERGE_KEY;
                    let second = match merges {
                        true => merged.as_ref().map(|merged| merged.at.line),
                        false => entries.iter().find(|e| e.key == key.text).map(|first| first.key_at.line),
                    };
                    if let Some(first) = second {
                        let message = format!("the field {} stands here a second time", quoted(&key.text));
                        let hint = format!("the first is in line {first}");
                        duplicate = Some(Diagnostic::error(key.at, "", message).expected("each field once").hint(hint));
                    } else if merges {
                        *merged = Some(node);
                    } else if entries.len() == FIELDS_MAX {
                        return Err(too_many_fields(key.at));
                    } else {
                        entries.push(Entry { key: key.text, key_at: key.at, value: node });
                    }
                }
                None => match node.kind {
                    Kind::Scalar { text, plain } => *key = Some(Key { text, at: node.at, plain }),
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

fn too_many_fields(at: Position) -> Diagnostic {
    Diagnostic::error(at, "", format!("more than {FIELDS_MAX} fields in one block"))
        .expected("the fields of a topology")
}

/// YAML 1.2 core schema for a scalar without quotes.
fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number_in(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// The number that a text is without quotes.
pub(crate) fn number_in(text: &str) -> Option<Number> {
    resolve_integer(text).or_else(|| resolve_float(text))
}

/// YAML 1.1 reads 012 as 10, YAML 1.2 as 12.
fn may_be_octal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
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
