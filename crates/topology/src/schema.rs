//! The JSON Schema of a topology, from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::document::Topology;

/// JSON Schema (draft 2020-12) of a topology document.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Topology>().to_value();
    without_null(&mut schema);
    with_fields_of_the_cluster(&mut schema);
    schema
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
