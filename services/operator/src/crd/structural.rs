//! JSON Schema to the structural schemas of Kubernetes: no references, no alternatives, every type said.

use serde_json::{Map, Value, json};

/// The whole schema, with the fields of an object that the API server itself knows left to it.
pub fn convert(schema: &Value) -> Value {
    let mut converted = visit(schema, &schema["$defs"]);
    let name = &schema["$defs"]["Metadata"]["properties"]["name"];
    if let Some(properties) = converted["properties"].as_object_mut() {
        // The API server checks both itself, and wants their schemas plain.
        for (field, description) in [("apiVersion", "Version of this format."), ("kind", "Kind of this document.")] {
            properties.insert(field.to_owned(), json!({"type": "string", "description": description, "maxLength": 63}));
        }
        // Names of services are made of it, and it is the value of a label.
        let name = json!({"type": "string", "pattern": name["pattern"], "maxLength": name["maxLength"]});
        properties.insert("metadata".to_owned(), json!({"type": "object", "properties": {"name": name}}));
    }
    converted["required"] = json!(["spec"]);
    converted
}

fn visit(schema: &Value, definitions: &Value) -> Value {
    let resolved = resolve(schema, definitions);
    let mut converted = match variants(&resolved) {
        Some(variants) if variants.iter().all(|variant| variant.get("const").is_some()) => choice(variants),
        Some(variants) => tagged(variants, definitions),
        None => plain(&resolved, definitions),
    };
    for kept in ["description", "default"] {
        if let Some(value) = resolved.get(kept) {
            converted[kept] = value.clone();
        }
    }
    converted
}

fn variants(schema: &Value) -> Option<&Vec<Value>> {
    schema["oneOf"].as_array()
}

/// A reference replaced by what it names; what stands beside it wins.
fn resolve(schema: &Value, definitions: &Value) -> Value {
    let name = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    let Some(target) = name.and_then(|name| definitions.get(name)) else { return schema.clone() };
    let mut merged = resolve(target, definitions);
    for (key, value) in schema.as_object().into_iter().flatten().filter(|(key, _)| *key != "$ref") {
        merged[key] = value.clone();
    }
    merged
}

/// Named values. What each means goes into the description of the field that takes them.
fn choice(variants: &[Value]) -> Value {
    let names: Vec<&Value> = variants.iter().map(|variant| &variant["const"]).collect();
    json!({"type": "string", "enum": names})
}

/// Objects whose `type` says which fields they have: all fields of all variants, and rules that sort them out. A variant
/// without a type has it from the definition that it names.
fn tagged(variants: &[Value], definitions: &Value) -> Value {
    let variants: Vec<Value> = variants.iter().map(|variant| resolve(variant, definitions)).collect();
    let (mut properties, mut names, mut rules) = (Map::new(), Vec::new(), Vec::new());
    let required_by = |variant: &Value| -> Vec<String> {
        let fields = variant["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        fields.map(str::to_owned).collect()
    };
    let mut required: Vec<String> = variants.first().map(required_by).unwrap_or_default();
    for variant in &variants {
        let own = required_by(variant);
        required.retain(|field| own.contains(field));
    }
    let untyped = variants.iter().any(|variant| variant["properties"]["type"]["const"].is_null());
    let of_no_type = if untyped { "!has(self.type) || " } else { "" };
    for variant in &variants {
        let Some(tag) = variant["properties"]["type"]["const"].as_str() else {
            for (field, schema) in variant["properties"].as_object().into_iter().flatten() {
                properties.entry(field.clone()).or_insert_with(|| visit(schema, definitions));
            }
            if let [named] = required_by(variant).as_slice() {
                rules.push(json!({
                    "rule": format!("has(self.type) || has(self.{named})"),
                    "message": format!("a type is missing, or `{named}` and the name of a definition"),
                }));
            }
            continue;
        };
        names.push(json!(tag));
        for (field, schema) in variant["properties"].as_object().into_iter().flatten().filter(|(f, _)| *f != "type") {
            properties.insert(field.clone(), visit(schema, definitions));
        }
        let own = required_by(variant).into_iter().filter(|field| field != "type");
        let missing: Vec<String> = own.filter(|field| !required.contains(field)).collect();
        if !missing.is_empty() {
            let has: Vec<String> = missing.iter().map(|field| format!("has(self.{field})")).collect();
            rules.push(json!({
                "rule": format!("{of_no_type}self.type != '{tag}' || ({})", has.join(" && ")),
                "message": format!("the type {tag} needs {}", missing.join(" and ")),
            }));
        }
    }
    properties.insert("type".to_owned(), json!({"type": "string", "enum": names, "description": "Which kind it is."}));
    let mut object = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    if !rules.is_empty() {
        object["x-kubernetes-validations"] = Value::Array(rules);
    }
    object
}

/// What structural schemas know of an ordinary schema.
fn plain(schema: &Value, definitions: &Value) -> Value {
    const KEPT: [&str; 12] = [
        "type",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "maxProperties",
        "enum",
        "required",
        "x-kubernetes-int-or-string",
    ];
    let mut converted = Map::new();
    for keyword in KEPT {
        if let Some(value) = schema.get(keyword) {
            converted.insert(keyword.to_owned(), value.clone());
        }
    }
    if let Some(only) = schema.get("const") {
        converted.insert("type".to_owned(), json!("string"));
        converted.insert("enum".to_owned(), json!([only]));
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        // A number is as long as it is; the two say the same to the API server.
        converted.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    let alternatives: Vec<Vec<&str>> = schema["anyOf"].as_array().into_iter().flatten().map(needed).collect();
    if !alternatives.is_empty() && alternatives.iter().all(|fields| !fields.is_empty()) {
        let all = |fields: &Vec<&str>| fields.iter().map(|field| format!("has(self.{field})")).collect::<Vec<_>>();
        let rule: Vec<String> = alternatives.iter().map(|fields| format!("({})", all(fields).join(" && "))).collect();
        let said: Vec<String> = alternatives.iter().map(|fields| fields.join(" and ")).collect();
        let message = format!("missing: {}", said.join(", or "));
        converted
            .insert("x-kubernetes-validations".to_owned(), json!([{"rule": rule.join(" || "), "message": message}]));
    }
    if let Some(properties) = schema["properties"].as_object() {
        let visited = properties.iter().map(|(field, schema)| (field.clone(), visit(schema, definitions)));
        converted.insert("properties".to_owned(), Value::Object(visited.collect()));
    }
    if let Some(items) = schema.get("items") {
        converted.insert("items".to_owned(), visit(items, definitions));
    }
    if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
        converted.insert("additionalProperties".to_owned(), visit(values, definitions));
    }
    Value::Object(converted)
}

/// The fields that an alternative needs.
fn needed(alternative: &Value) -> Vec<&str> {
    alternative["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
