//! The JSON Schema: golden, described and bounded everywhere.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use topology::schema;

/// Calls `visit` with every subschema and its path.
fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, part) in [("items", schema.get("items")), ("additionalProperties", schema.get("additionalProperties"))] {
        if let Some(part @ Value::Object(_)) = part {
            walk(part, &format!("{path}.{name}"), visit);
        }
    }
    for group in ["properties", "$defs"] {
        for (name, part) in schema[group].as_object().into_iter().flatten() {
            walk(part, &format!("{path}.{name}"), visit);
        }
    }
    for group in ["oneOf", "anyOf"] {
        for (index, part) in schema[group].as_array().into_iter().flatten().enumerate() {
            walk(part, &format!("{path}.{group}[{index}]"), visit);
        }
    }
}

#[test]
fn the_schema_is_as_published() {
    insta::assert_json_snapshot!(schema());
}

#[test]
fn every_text_list_and_map_is_bounded() {
    walk(&schema(), "", &mut |path, schema| {
        let bounded = |keyword: &str| schema.get(keyword).is_some();
        match schema["type"].as_str() {
            Some("string") => {
                let within = path.contains("anyOf");
                assert!(within || bounded("maxLength") || bounded("enum") || bounded("const"), "{path}");
            }
            Some("array") => assert!(bounded("maxItems"), "{path}"),
            Some("object") => {
                let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
                assert!(closed || bounded("maxProperties"), "{path}");
            }
            _ => {}
        }
    });
}

#[test]
fn every_field_is_described() {
    walk(&schema(), "", &mut |path, schema| {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let tag = name == "type" && field.get("const").is_some();
            assert!(tag || field.get("description").is_some(), "{path}.{name}");
        }
    });
}

#[test]
fn no_field_may_be_null() {
    walk(&schema(), "", &mut |path, schema| {
        assert_ne!(schema["type"], "null", "{path}");
        assert!(!schema["type"].is_array(), "{path}");
    });
}

#[test]
fn defaults_fit_their_own_schema() {
    // A document that says nothing optional is read with the defaults that the schema shows.
    let text = include_str!("minimal.yaml");
    let topology = topology::parse("minimal.yaml", text.as_bytes()).unwrap().topology;
    let written = serde_json::to_value(&topology).unwrap();
    let link = &schema()["$defs"]["Link"]["properties"];
    for (name, field) in link.as_object().unwrap() {
        if let Some(default) = field.get("default") {
            assert_eq!(&written["spec"]["links"][0][name], default, "{name}");
        }
    }
}
