//! Where every physical value of a topology comes from.

use serde::Serialize;
use serde_json::Value;

use crate::document::Topology;

/// How well founded a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Published,
    Inferred,
    Assumed,
}

/// One physical value, its path and its origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sourced {
    /// Path with names instead of numbers where there are names, such as `links[valrose-sophia].window`.
    pub path: String,
    pub value: String,
    /// What a document does not name counts as assumed.
    pub origin: Origin,
    /// The document's words; none if it says nothing.
    pub source: Option<String>,
}

/// Every physical value of a document, defaults included, in document order.
pub fn physical_values(topology: &Topology) -> Vec<Sourced> {
    let mut values = Vec::new();
    // A topology is plain data: it always becomes JSON.
    let spec = serde_json::to_value(&topology.spec).unwrap_or_default();
    for site in spec["sites"].as_array().into_iter().flatten() {
        let path = format!("sites[{}]", name_of(site));
        let mut walk = Walk { owners: vec![(site, Vec::new())], values: &mut values };
        for field in ["location", "orbit"] {
            if let Some(value) = site.get(field) {
                walk.field(field, value, &path);
            }
        }
    }
    for link in spec["links"].as_array().into_iter().flatten() {
        let path = format!("links[{}]", name_of(link));
        let mut walk = Walk { owners: vec![(link, Vec::new())], values: &mut values };
        for field in ["source", "arms", "window", "gate", "sync"] {
            if let Some(value) = link.get(field) {
                walk.field(field, value, &path);
            }
        }
    }
    values
}

fn name_of(value: &Value) -> &str {
    value["name"].as_str().or(value["site"].as_str()).unwrap_or("?")
}

struct Walk<'a, 'b> {
    /// Blocks around the value, outermost first, each with the field names that lead from it to the value.
    owners: Vec<(&'a Value, Vec<String>)>,
    values: &'b mut Vec<Sourced>,
}

impl<'a> Walk<'a, '_> {
    fn field(&mut self, name: &str, value: &'a Value, path: &str) {
        // What names things is not physics.
        if matches!(name, "provenance" | "site" | "type" | "name") {
            return;
        }
        for (_, steps) in &mut self.owners {
            steps.push(name.to_owned());
        }
        let path = format!("{path}.{name}");
        match value {
            Value::Array(items) if items.iter().all(Value::is_object) => {
                for item in items {
                    self.block(item, &format!("{path}[{}]", name_of(item)));
                }
            }
            Value::Object(_) => self.block(value, &path),
            leaf => self.leaf(leaf, path),
        }
        for (_, steps) in &mut self.owners {
            steps.pop();
        }
    }

    fn block(&mut self, block: &'a Value, path: &str) {
        self.owners.push((block, Vec::new()));
        for (name, value) in block.as_object().into_iter().flatten() {
            self.field(name, value, path);
        }
        self.owners.pop();
    }

    fn leaf(&mut self, leaf: &Value, path: String) {
        let source = self.source();
        let origin = match source.as_deref().and_then(|source| source.split(':').next()) {
            Some("published") => Origin::Published,
            Some("inferred") => Origin::Inferred,
            _ => Origin::Assumed,
        };
        let value = match leaf {
            Value::String(text) => text.clone(),
            other => other.to_string().replace('"', ""),
        };
        self.values.push(Sourced { path, value, origin, source });
    }

    /// The nearest block that speaks of the value decides, there the longest path.
    fn source(&self) -> Option<String> {
        self.owners.iter().rev().find_map(|(block, steps)| {
            (1..=steps.len()).rev().find_map(|length| {
                let key = steps[..length].join(".");
                block["provenance"][&key].as_str().map(str::to_owned)
            })
        })
    }
}
