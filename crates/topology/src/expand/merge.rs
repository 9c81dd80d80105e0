//! The fields beside a `use` over those of the definition.

use super::is_null;
use crate::diagnostic::Position;
use crate::tree::{Entry, Kind, Node};

const PROVENANCE: &str = "provenance";

/// A copy of a definition with a place's own fields over it, at that place.
pub(super) fn over(definition: &Node, own: Node, name: &str, used_at: Position, defined_at: Position) -> Node {
    let mut base = definition.clone();
    say_used(&mut base, used_at);
    let own_at = own.at;
    let mut merged = match own.kind {
        Kind::Mapping(entries) => block(base, entries, name),
        // What is no block has no `use`.
        _ => base,
    };
    merged.at = own_at;
    merged.origin_mut().defined_at = Some(defined_at);
    merged
}

/// Every field of a block is the definition's.
fn say_used(block: &mut Node, used_at: Position) {
    for entry in block.entries_mut() {
        entry.value.origin_mut().used_at = Some(used_at);
    }
}

/// Block by block; what is not a block, or stands for a whole part, replaces. Null says nothing, as everywhere.
fn block(mut base: Node, own: Vec<Entry>, name: &str) -> Node {
    withdraw_provenance(&mut base, &own, name);
    for entry in own {
        let Some(below) = base.entries_mut().iter_mut().find(|below| below.key == entry.key) else {
            base.push(entry);
            continue;
        };
        if is_null(&entry.value) {
            continue;
        }
        let Entry { key, key_at, value } = entry;
        let merges = is_merged(&below.value, &value);
        let (own_at, definition) = (value.at, std::mem::replace(&mut below.value, Node::empty(value.at)));
        let value = match value.kind {
            Kind::Mapping(fields) if merges => {
                let (defined_at, mut definition) = (definition.at, definition);
                // From here on its fields have places of their own.
                if let Some(used_at) = definition.origin_mut().used_at.take() {
                    say_used(&mut definition, used_at);
                }
                let mut merged = block(definition, fields, name);
                merged.at = own_at;
                merged.origin_mut().defined_at.get_or_insert(defined_at);
                merged
            }
            _ => value,
        };
        *below = Entry { key, key_at, value };
    }
    base
}

fn is_merged(below: &Node, own: &Node) -> bool {
    let replaces = own.origin().is_some_and(|origin| origin.replaces || origin.broken);
    !replaces && matches!((&below.kind, &own.kind), (Kind::Mapping(_), Kind::Mapping(_)))
}

/// The definition's word on where a value is from does not hold for another value.
fn withdraw_provenance(base: &mut Node, own: &[Entry], name: &str) {
    if base.get(PROVENANCE).is_none() {
        return;
    }
    let mut overridden = Vec::new();
    leaves(base, own, "", &mut overridden);
    let own_origins: Vec<String> = own
        .iter()
        .filter(|entry| entry.key == PROVENANCE)
        .flat_map(|entry| entry.value.entries().iter().map(|origin| origin.key.clone()))
        .collect();
    let Some(origins) = base.get_mut(PROVENANCE) else { return };
    for (path, at) in overridden {
        origins.retain(|origin| !covers(&path, &origin.key));
        let covered = origins.entries().iter().any(|origin| covers(&origin.key, &path));
        if covered && !own_origins.iter().any(|origin| covers(origin, &path)) {
            let text = format!("assumed: in place of the value of \"{name}\"");
            origins.push(Entry { key: path, key_at: at, value: Node::text(at, text) });
        }
    }
}

/// Paths of the values of a definition that the place overrides.
fn leaves(base: &Node, own: &[Entry], path: &str, found: &mut Vec<(String, Position)>) {
    for entry in own.iter().filter(|entry| entry.key != PROVENANCE && !is_null(&entry.value)) {
        let Some(below) = base.get(&entry.key) else { continue };
        let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
        match is_merged(below, &entry.value) {
            true => leaves(below, entry.value.entries(), &path, found),
            false => found.push((path, entry.value.at)),
        }
    }
}

/// Whether a path is another one or leads to it.
fn covers(path: &str, other: &str) -> bool {
    other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
