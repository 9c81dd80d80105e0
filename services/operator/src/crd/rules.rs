//! What the API server itself refuses: lists by name, what fits together, what can never change.
//!
//! Rules that compare every link with every site would cost the server more than it allows; the operator says those
//! in the condition `Accepted`, with the words of `qkdnet validate`.

use serde_json::{Value, json};

/// Leaves the defaults of each link to the operator, which reads them from the types: written into a thousand links
/// by the API server, they would be more than it stores. In a definition or beside a `use` nobody would have set them.
pub fn without_link_defaults(schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"]["properties"];
    remove_defaults(&mut spec["links"]["items"]);
    remove_defaults(&mut spec["instruments"]);
}

fn remove_defaults(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else { return };
    keywords.remove("default");
    for (keyword, inner) in keywords {
        match keyword.as_str() {
            "properties" => inner.as_object_mut().into_iter().flatten().for_each(|(_, field)| remove_defaults(field)),
            "items" | "additionalProperties" => remove_defaults(inner),
            _ => {}
        }
    }
}

/// Adds list keys and rules to the schema.
pub fn add(schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"];
    let instruments = &mut spec["properties"]["instruments"]["properties"];
    without_rules_of_disturbances(&mut instruments["link"]["additionalProperties"]);
    named_list(&mut spec["properties"]["sites"], "name");
    named_list(&mut spec["properties"]["links"], "name");
    let saes = &mut spec["properties"]["sites"]["items"]["properties"]["saes"];
    saes["x-kubernetes-list-type"] = json!("set");
    let run = &mut spec["properties"]["run"]["properties"];
    rule(
        &mut run["epoch"],
        "self == oldSelf",
        "run.epoch cannot change: stored key and clocks count in it; make a new topology",
    );
    let packing = &mut spec["properties"]["packing"];
    rule(packing, "self == oldSelf", "packing cannot change: stored key would be left behind; make a new topology");
    let link = &mut spec["properties"]["links"]["items"];
    named_list(&mut link["properties"]["arms"], "site");
    rule(
        &mut link["properties"]["source"],
        "!has(self.pumpInitial) || !has(self.pumpMax) || double(self.pumpInitial) <= double(self.pumpMax)",
        "pumpInitial is above the maximum: at most pumpMax",
    );
    without_rules_of_disturbances(link);
    let loops = &mut link["properties"]["loops"]["properties"];
    rule(
        &mut loops["pump"],
        "!has(self.targetQber) || !has(self.enabled) || self.enabled",
        "a target for a loop that is off",
    );
    rule(
        &mut loops["phase"],
        "!has(self.dither) || !has(self.enabled) || self.enabled",
        "a dither for a loop that is off",
    );
}

/// A rule on each of a thousand disturbances of thousands of links is more than the server allows.
fn without_rules_of_disturbances(link: &mut Value) {
    if let Some(disturbance) = link["properties"]["disturbances"]["items"].as_object_mut() {
        disturbance.remove("x-kubernetes-validations");
    }
}

/// Entries are known by a field: each value once, and each entry can be owned by somebody else.
fn named_list(list: &mut Value, key: &str) {
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!([key]);
}

fn rule(schema: &mut Value, rule: &str, message: &str) {
    let rule = json!({"rule": rule, "message": message});
    match schema["x-kubernetes-validations"].as_array_mut() {
        Some(rules) => rules.push(rule),
        None => schema["x-kubernetes-validations"] = json!([rule]),
    }
}
