//! The JSON Schema of a topology, from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::document::{NAME_LENGTH_MAX, NAME_PATTERN, Topology};
use crate::expand::{DEFINITIONS_MAX, INSTRUMENTS, InstrumentKind, KINDS, USE};

/// Marks a field of which nothing is left when the types are read.
pub(crate) const EXPANDED: &str = "x-expanded";

/// JSON Schema (draft 2020-12) of a topology document.
pub fn schema() -> Value {
    let mut schema = of_types();
    let strict: Vec<(&InstrumentKind, Value)> =
        KINDS.iter().map(|kind| (kind, schema["$defs"][kind.schema].clone())).collect();
    let mut groups = Map::new();
    for (kind, strict) in &strict {
        schema["$defs"][kind.schema] = form(kind, strict, Form::Place);
        schema["$defs"][definition_of(kind)] = form(kind, strict, Form::Definition);
        groups.insert(kind.name.to_owned(), group(kind));
    }
    schema["$defs"]["Spec"]["properties"][INSTRUMENTS] = json!({
        "type": "object",
        "description": INSTRUMENTS_DESCRIPTION,
        "additionalProperties": false,
        "properties": groups,
    });
    schema
}

const INSTRUMENTS_DESCRIPTION: &str =
    "Definitions by kind and name. A place says `{use: NAME}` and, beside it, what is different there.";

/// The schema of a document in which definitions have taken their places; it still names the fields that are gone by
/// then.
pub(crate) fn of_types() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Topology>().to_value();
    without_null(&mut schema);
    with_fields_of_the_cluster(&mut schema);
    let expanded = json!({EXPANDED: true});
    for kind in &KINDS {
        let definition = &mut schema["$defs"][kind.schema];
        match definition.get_mut("oneOf").and_then(Value::as_array_mut) {
            Some(variants) => variants.iter_mut().for_each(|one| one["properties"][USE] = expanded.clone()),
            None => definition["properties"][USE] = expanded.clone(),
        }
    }
    schema["$defs"]["Spec"]["properties"][INSTRUMENTS] = expanded;
    schema
}

/// A block that may name a definition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// In a link: everything that is needed stands there or in the definition that it names.
    Place,
    /// A definition, or a part beside a `use` around it: anything may be missing.
    Definition,
}

fn definition_of(kind: &InstrumentKind) -> String {
    format!("{}Definition", kind.schema)
}

fn group(kind: &InstrumentKind) -> Value {
    json!({
        "type": "object",
        "description": format!("Definitions that a `{}` can use.", kind.name),
        "maxProperties": DEFINITIONS_MAX,
        "propertyNames": {"pattern": NAME_PATTERN, "maxLength": NAME_LENGTH_MAX},
        "additionalProperties": {"$ref": format!("#/$defs/{}", definition_of(kind))},
    })
}

/// The field that names a definition.
fn use_field(kind: &InstrumentKind) -> Value {
    json!({
        "type": "string",
        "description": format!(
            "Name of a definition in `spec.{INSTRUMENTS}.{}`, whose values hold where none stands beside this.",
            kind.name
        ),
        "pattern": NAME_PATTERN,
        "minLength": 1,
        "maxLength": NAME_LENGTH_MAX,
    })
}

fn form(kind: &InstrumentKind, strict: &Value, form: Form) -> Value {
    match strict["oneOf"].as_array() {
        Some(variants) => tagged(kind, strict, variants, form),
        None => plain(kind, strict, form),
    }
}

/// Variants by `type`, and one without a type, which it has from its definition.
fn tagged(kind: &InstrumentKind, strict: &Value, variants: &[Value], form: Form) -> Value {
    let mut untyped = Map::new();
    let mut typed: Vec<Value> = variants.to_vec();
    for variant in &mut typed {
        let Some(properties) = variant["properties"].as_object_mut() else { continue };
        properties.remove(USE);
        for (name, field) in properties.iter().filter(|(name, _)| *name != "type") {
            untyped.insert(name.clone(), without_default(field));
        }
        if form == Form::Definition {
            variant["required"] = json!(["type"]);
        }
    }
    untyped.insert(USE.to_owned(), use_field(kind));
    let mut untyped = json!({
        "type": "object",
        "description": "A definition, and what is different here.",
        "additionalProperties": false,
        "properties": untyped,
    });
    if form == Form::Place {
        untyped["required"] = json!([USE]);
    }
    typed.push(untyped);
    let mut schema = strict.clone();
    schema["oneOf"] = Value::Array(typed);
    schema
}

fn plain(kind: &InstrumentKind, strict: &Value, form: Form) -> Value {
    let mut schema = strict.clone();
    schema["properties"][USE] = use_field(kind);
    let Some(keywords) = schema.as_object_mut() else { return schema };
    let required = keywords.remove("required").unwrap_or_else(|| json!([]));
    // What an entry of a list is known by stands in the entry.
    let key = match kind.name {
        "arm" => "site",
        _ => "name",
    };
    let (known_by, required): (Vec<Value>, Vec<Value>) = match required {
        Value::Array(required) => required.into_iter().partition(|field| field == key),
        _ => Default::default(),
    };
    let mut needed = json!({"required": required});
    for part in kind.parts.iter().filter_map(|part| KINDS.iter().find(|kind| kind.name == *part)) {
        let field = &mut schema["properties"][part.name];
        needed["properties"][part.name] = without_default(field);
        field["$ref"] = json!(format!("#/$defs/{}", definition_of(part)));
    }
    if form == Form::Place {
        if !known_by.is_empty() {
            schema["required"] = Value::Array(known_by);
        }
        if !required.is_empty() {
            schema["anyOf"] = json!([{"required": [USE]}, needed]);
        }
    }
    schema
}

/// A value that is not given is the definition's, whatever it is elsewhere.
fn without_default(field: &Value) -> Value {
    let mut field = field.clone();
    if let Some(keywords) = field.as_object_mut() {
        keywords.remove("default");
    }
    field
}

/// What `kubectl get --output yaml` prints beside what was applied. A file may have it, and nobody reads it.
fn with_fields_of_the_cluster(schema: &mut Value) {
    const METADATA: [&str; 11] = [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let field = json!({"readOnly": true, "description": "Written by a cluster; not read."});
    schema["properties"]["status"] = field.clone();
    for name in METADATA {
        schema["$defs"]["Metadata"]["properties"][name] = field.clone();
    }
}

/// An optional field is one that may be missing; `null` is not a value of it.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}
