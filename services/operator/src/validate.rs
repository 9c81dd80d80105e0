//! From an object to a topology, judged by the reader of files.

use serde_json::{Value, json};
use topology::{Diagnostic, Severity, Topology};

use crate::resource::TopologyObject;

/// Most problems that a message lists; the rest are counted.
const LISTED_MAX: usize = 8;
/// Longest message of a condition; the API takes 32,768 bytes.
const MESSAGE_CHARS_MAX: usize = 4000;

/// A topology that can be built.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub topology: Topology,
    /// What is allowed and still looks like a mistake.
    pub warnings: Vec<String>,
}

/// The specification is wrong; the message says where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What `qkdnet validate` says of the object's document.
pub fn validate(object: &TopologyObject) -> Result<Accepted, Refused> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let mut metadata = json!({"name": name});
    if let Some(namespace) = &object.metadata.namespace {
        metadata["namespace"] = Value::from(namespace.as_str());
    }
    let document = json!({
        "apiVersion": format!("{}/{}", crate::resource::GROUP, crate::resource::VERSION),
        "kind": crate::resource::KIND,
        "metadata": metadata,
        "spec": object.spec,
    });
    // JSON is YAML: the same reader, the same words.
    match topology::parse(name, document.to_string().as_bytes()) {
        Ok(document) => {
            let warnings = document.warnings.diagnostics.iter().map(sentence).collect();
            Ok(Accepted { topology: document.topology, warnings })
        }
        Err(problems) => {
            let errors: Vec<&Diagnostic> =
                problems.diagnostics.iter().filter(|one| one.severity == Severity::Error).collect();
            let mut lines: Vec<String> = errors.iter().take(LISTED_MAX).map(|one| sentence(one)).collect();
            if errors.len() > LISTED_MAX {
                lines.push(format!("and {} more", errors.len() - LISTED_MAX));
            }
            Err(Refused(lines.join("; ").chars().take(MESSAGE_CHARS_MAX).collect()))
        }
    }
}

/// A diagnostic without the place in a file that nobody has: the path of the field says where.
fn sentence(diagnostic: &Diagnostic) -> String {
    let mut text = match &*diagnostic.path {
        "" => diagnostic.message.clone(),
        path => format!("{path}: {}", diagnostic.message),
    };
    if let Some(expected) = &diagnostic.expected {
        text.push_str(&format!(" (expected: {expected})"));
    }
    if let Some(hint) = &diagnostic.hint
        // Lines are those of the text that this operator wrote.
        && !hint.contains(" in line ")
    {
        text.push_str(&format!(" (hint: {hint})"));
    }
    text
}
