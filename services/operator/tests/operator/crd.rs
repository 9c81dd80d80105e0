//! The definition: golden, structural, bounded, described.

use operator::crd;
use serde_json::{Value, json};

use crate::support::repository;

fn walk(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for part in ["items", "additionalProperties"] {
        if let Some(inner @ Value::Object(_)) = schema.get(part) {
            walk(inner, &format!("{path}.{part}"), visit);
        }
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(inner, &format!("{path}.{name}"), visit);
    }
}

#[test]
fn the_checked_in_definition_is_the_one_of_the_types() {
    let path = repository().join("charts/qkdnet/crd/topologies.yaml");
    let made = crd::yaml().unwrap();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(checked_in == made, "run `qkdnet operator crd > charts/qkdnet/crd/topologies.yaml`");
}

#[test]
fn every_schema_is_structural() {
    walk(&crd::schema(), "", &mut |path, schema| {
        for foreign in ["$ref", "oneOf", "$defs", "const", "examples", "prefixItems", "exclusiveMinimum"] {
            assert!(schema.get(foreign).is_none(), "{path}: {foreign}");
        }
        let int_or_string = schema.get("x-kubernetes-int-or-string").is_some();
        assert_eq!(schema.get("type").is_some(), !int_or_string, "{path}: a type");
        if let Some(fields) = schema.get("properties") {
            assert!(schema.get("additionalProperties").is_none(), "{path}");
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.get(required.as_str().unwrap()).is_some(), "{path}: {required}");
            }
        }
    });
}

#[test]
fn everything_is_bounded_and_described() {
    walk(&crd::schema(), "", &mut |path, schema| {
        let has = |keyword: &str| schema.get(keyword).is_some();
        match schema["type"].as_str() {
            Some("string") => assert!(has("maxLength") || has("enum") || has("format"), "{path}"),
            Some("array") => assert!(has("maxItems"), "{path}"),
            Some("object") => assert!(has("properties") || has("maxProperties"), "{path}"),
            _ => {}
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let known = path.is_empty() && name == "metadata" || path == ".metadata";
            assert!(known || field.get("description").is_some(), "{path}.{name}");
        }
    });
}

#[test]
fn defaults_are_where_they_are_few() {
    let schema = crd::schema();
    assert_eq!(schema["properties"]["spec"]["properties"]["packing"]["default"], json!("service"));
    walk(&schema["properties"]["spec"]["properties"]["links"]["items"], "links", &mut |path, schema| {
        assert!(schema.get("default").is_none(), "{path}");
    });
    walk(&schema["properties"]["spec"]["properties"]["instruments"], "instruments", &mut |path, schema| {
        assert!(schema.get("default").is_none(), "{path}: what a definition leaves open is no value of it");
    });
}

#[test]
fn definitions_and_what_uses_them_are_fields_that_the_server_keeps() {
    let schema = crd::schema();
    let spec = &schema["properties"]["spec"]["properties"];
    let link = &spec["links"]["items"];
    let arm = &link["properties"]["arms"]["items"];
    for (kind, place) in [
        ("link", link),
        ("source", &link["properties"]["source"]),
        ("loops", &link["properties"]["loops"]),
        ("arm", arm),
        ("fibre", &arm["properties"]["fibre"]),
        ("detector", &arm["properties"]["detector"]),
    ] {
        assert_eq!(place["properties"]["use"]["type"], "string", "{kind}");
        let definition = &spec["instruments"]["properties"][kind]["additionalProperties"];
        assert_eq!(definition["properties"]["use"]["type"], "string", "{kind}");
        for field in place["properties"].as_object().unwrap().keys() {
            assert!(definition["properties"].get(field).is_some(), "{kind}.{field}");
        }
        assert!(definition["required"].as_array().is_none_or(|required| required.is_empty()), "{kind}");
    }
    // A place that names no definition says everything itself.
    let rules = |place: &Value| place["x-kubernetes-validations"].to_string();
    assert!(rules(arm).contains("(has(self.use)) || (has(self.fibre) && has(self.detector))"), "{}", rules(arm));
    assert!(rules(link).contains("has(self.source)"), "{}", rules(link));
}

#[test]
fn people_get_columns_short_names_and_lists_by_name() {
    let definition = crd::definition();
    let columns: Vec<&str> = definition["spec"]["versions"][0]["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|column| column.get("priority").is_none())
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Key flowing", "Sites", "Links", "Key rate", "Age"]);
    assert_eq!(definition["spec"]["names"]["shortNames"], json!(["topo"]));
    let spec = &crd::schema()["properties"]["spec"]["properties"];
    for (list, key) in [("sites", "name"), ("links", "name")] {
        assert_eq!(spec[list]["x-kubernetes-list-map-keys"], json!([key]));
    }
    assert_eq!(spec["links"]["items"]["properties"]["arms"]["x-kubernetes-list-map-keys"], json!(["site"]));
}
