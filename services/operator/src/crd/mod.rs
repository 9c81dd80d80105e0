//! The CustomResourceDefinition: the very schema of topology files, as the API server wants it.

mod rules;
mod status;
mod structural;

use serde_json::{Value, json};

use crate::resource::{GROUP, KIND, PLURAL, VERSION};

/// Name of the definition.
pub const NAME: &str = "topologies.qkdnet.dev";

/// The definition as an object.
pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": format!("{KIND}List"),
                "plural": PLURAL,
                "singular": "topology",
                "shortNames": ["topo"],
                "categories": ["qkdnet"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns(),
                "schema": {"openAPIV3Schema": schema()},
            }],
        },
    })
}

/// What `kubectl get topo` says; with `-o wide` also why.
fn columns() -> Value {
    let condition = |kind: &str, field: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
    json!([
        {"name": "Key flowing", "type": "string", "jsonPath": condition("KeyFlowing", "status"),
         "description": "Whether every link is locked and has stored its first block"},
        {"name": "Sites", "type": "integer", "jsonPath": ".status.sites", "description": "Sites of the network"},
        {"name": "Links", "type": "string", "jsonPath": ".status.linksFlowing",
         "description": "Links over which key flows, of all"},
        {"name": "Key rate", "type": "string", "jsonPath": ".status.keyRate",
         "description": "Secret key rate of all links together"},
        {"name": "Provisioned", "type": "string", "priority": 1, "jsonPath": condition("Provisioned", "status"),
         "description": "Whether every pod runs"},
        {"name": "Reason", "type": "string", "priority": 1, "jsonPath": condition("KeyFlowing", "reason"),
         "description": "Why key flows or does not"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
         "description": "Time since the topology was made"},
    ])
}

/// The structural schema of a Topology object.
pub fn schema() -> Value {
    let mut schema = structural::convert(&topology::schema());
    rules::without_link_defaults(&mut schema);
    rules::add(&mut schema);
    schema["properties"]["status"] = status::schema();
    schema
}

/// The definition as it is checked in and printed.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    let text = serde_yaml::to_string(&definition())?;
    Ok(format!("# Made by `qkdnet operator crd`; do not edit.\n{text}"))
}
