//! Bytes to a checked document: two YAML readers, the schema, the types, and the checks across fields.

use std::sync::LazyLock;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Diagnostics, Position, Severity, quoted};
use crate::document::Topology;
use crate::structure;
use crate::tree::{self, Kind, Node};
use crate::{checks, schema, suggest};

const API_VERSION: &str = "qkdnet.dev/v1alpha1";
const KIND: &str = "Topology";

static SCHEMA: LazyLock<Value> = LazyLock::new(schema);

/// A topology that was read from a file and found good.
#[derive(Clone, Debug)]
pub struct Document {
    pub topology: Topology,
    /// What is allowed and still looks like a mistake.
    pub warnings: Diagnostics,
}

/// Reads one topology document; `name` is how the file is called in what is reported.
///
/// Every problem is reported at once, each with its line and column. Never panics, whatever the bytes.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Document, Diagnostics> {
    let report = |diagnostics| Diagnostics::new(name, diagnostics);
    let (root, mut diagnostics) = tree::read(bytes).map_err(report)?;
    // The tree was read, so the bytes are text.
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    check_kind(&root).map_err(report)?;
    // The second reader refuses what the first has only noted, and has nothing to add.
    if diagnostics.is_empty() {
        diagnostics.extend(second_reading(&root, text).err());
    }
    let structure = structure::check(&root, &SCHEMA);
    diagnostics.extend(structure.diagnostics);
    let topology = match diagnostics.is_empty() {
        true => serde_yaml::from_str(text).map_err(|error| (error.location().map(position), error.to_string())),
        false => serde_json::from_value(structure.value).map_err(|error| (None, error.to_string())),
    };
    let topology: Topology = match topology {
        Ok(topology) => topology,
        Err((place, message)) => {
            // With other errors at hand, a document that cannot be repaired is no news.
            if diagnostics.is_empty() {
                let place = place.unwrap_or(Position::START);
                diagnostics.push(Diagnostic::error(place, "", message).expected("a topology"));
            }
            return Err(report(diagnostics));
        }
    };
    diagnostics.extend(checks::check(&topology, &structure.places));
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(report(diagnostics));
    }
    Ok(Document { topology, warnings: report(diagnostics) })
}

fn position(location: serde_yaml::Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

/// A document of another kind is not worth a list of its fields.
fn check_kind(root: &Node) -> Result<(), Vec<Diagnostic>> {
    if !matches!(root.kind, Kind::Mapping(_)) {
        let message = "the document is not a block of fields";
        let expected = "apiVersion, kind, metadata and spec";
        return Err(vec![Diagnostic::error(root.at, "", message).expected(expected)]);
    }
    let mut diagnostics = Vec::new();
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let Some(node) = root.get(field) else { continue };
        let Some(Value::String(text)) = node.scalar() else { continue };
        if text != wanted {
            let near = suggest::nearest(&text, [wanted]).map(|near| format!("did you mean \"{near}\"?"));
            let message = format!("the {field} is {}", quoted(&text));
            diagnostics
                .push(Diagnostic::error(node.at, field, message).expected(format!("\"{wanted}\"")).hint_if(near));
        }
    }
    if diagnostics.is_empty() { Ok(()) } else { Err(diagnostics) }
}

/// Places come from one YAML reader and values from another; where the two disagree nothing can be trusted.
fn second_reading(root: &Node, text: &str) -> Result<(), Diagnostic> {
    let value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| {
        let place = error.location().map_or(Position::START, position);
        Diagnostic::error(place, "", format!("not valid YAML: {error}"))
    })?;
    let value = serde_json::to_value(&value)
        .map_err(|_| Diagnostic::error(root.at, "", "a field name that is not a text").expected("names as fields"))?;
    match difference(root, &value) {
        None => Ok(()),
        Some(node) => {
            let found = match &node.kind {
                Kind::Scalar { text, .. } => format!("the value {}", quoted(text)),
                _ => "this block".to_owned(),
            };
            Err(Diagnostic::error(node.at, "", format!("{found} means different things to different YAML readers"))
                .expected("a value that can be read in one way only")
                .hint("put a text in quotes; write a number in decimal digits"))
        }
    }
}

fn difference<'a>(node: &'a Node, value: &Value) -> Option<&'a Node> {
    match (&node.kind, value) {
        (Kind::Sequence(items), Value::Array(values)) if items.len() == values.len() => {
            items.iter().zip(values).find_map(|(item, value)| difference(item, value))
        }
        (Kind::Mapping(entries), Value::Object(values)) if entries.len() == values.len() => {
            entries.iter().find_map(|entry| {
                values.get(&entry.key).map_or(Some(&entry.value), |value| difference(&entry.value, value))
            })
        }
        (Kind::Scalar { .. }, value) => {
            let same = match (node.scalar(), value) {
                (Some(Value::Number(a)), Value::Number(b)) => a == *b || a.as_f64() == b.as_f64(),
                (scalar, value) => scalar.as_ref() == Some(value),
            };
            (!same).then_some(node)
        }
        _ => Some(node),
    }
}
