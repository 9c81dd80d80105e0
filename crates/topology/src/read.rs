//! Bytes to a checked document: the tree, the schema, the types, and the checks across fields.

use std::sync::LazyLock;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Diagnostics, Position, Severity, quoted};
use crate::document::Topology;
use crate::structure;
use crate::tree::{self, Kind, Node};
use crate::{checks, expand, schema, suggest};

const API_VERSION: &str = "qkdnet.dev/v1alpha1";
const KIND: &str = "Topology";

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::of_types);

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
    let (mut root, mut diagnostics) = tree::read(bytes).map_err(report)?;
    check_kind(&root).map_err(report)?;
    let expanded = expand::expand(&mut root).map_err(report)?;
    let structure = structure::check(&root, &expanded.definitions, &SCHEMA);
    diagnostics.extend(expanded.diagnostics);
    diagnostics.extend(structure.diagnostics);
    // One reader decides: the types get what the tree says, problems mended.
    let topology: Topology = match serde_json::from_value(structure.value) {
        Ok(topology) => topology,
        Err(error) => {
            // With other errors at hand, a document that cannot be repaired is no news.
            if diagnostics.is_empty() {
                diagnostics.push(Diagnostic::error(Position::START, "", error.to_string()).expected("a topology"));
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
            let near = match text.as_str() {
                "List" => Some("`kubectl get topology NAME --output yaml` prints one object without a list".to_owned()),
                _ => suggest::nearest(&text, [wanted]).map(|near| format!("did you mean \"{near}\"?")),
            };
            let message = format!("the {field} is {}", quoted(&text));
            diagnostics
                .push(Diagnostic::error(node.at, field, message).expected(format!("\"{wanted}\"")).hint_if(near));
        }
    }
    if diagnostics.is_empty() { Ok(()) } else { Err(diagnostics) }
}
