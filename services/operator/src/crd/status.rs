//! Schema of the status that the operator writes.

use serde_json::{Value, json};
use topology::document::LINKS_MAX;
use topology::figure::{FIGURES_MAX, NAME_CHARS_MAX};

pub fn schema() -> Value {
    let text = |description: &str, most: u32| json!({"type": "string", "description": description, "maxLength": most});
    let count = |description: &str| json!({"type": "integer", "description": description, "minimum": 0});
    json!({
        "type": "object",
        "description": "How the network stands, as the operator sees it.",
        "properties": {
            "observedGeneration": {
                "type": "integer", "format": "int64",
                "description": "Generation of the specification that this is about.",
            },
            "conditions": conditions(),
            "sites": count("Sites of the network."),
            "links": count("Links of the network."),
            "linksFlowing": text("Links over which key flows, of all.", 32),
            "keyRate": text("Secret key rate of all links together.", 32),
            "restored": text("The request of `qkdnet.dev/restore` that was carried out last.", 253),
            "warnings": {
                "type": "array", "maxItems": 32,
                "description": "What whoever uses the keys must know.",
                "items": {"type": "string", "maxLength": 500},
            },
            "linkStatus": {
                "type": "array", "maxItems": LINKS_MAX,
                "description": "One row for each link.",
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object", "required": ["name", "state"],
                    "properties": {
                        "name": text("Name of the link.", 63),
                        "state": text("State of its modules, such as acquiring or locked.", 32),
                        "figures": {
                            "type": "array", "maxItems": FIGURES_MAX,
                            "description": "What says most of this kind of link, such as error rates of its last block.",
                            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {
                                "type": "object", "required": ["name", "value"],
                                "properties": {
                                    "name": text("Name of the figure, such as qberZ.", NAME_CHARS_MAX as u32),
                                    "value": text("Its value with its unit.", 32),
                                },
                            },
                        },
                        "qberZ": text("Error rate of the last block in basis Z; also among the figures.", 16),
                        "qberX": text("Error rate of the last block in basis X; also among the figures.", 16),
                        "keyRate": text("Secret key rate.", 32),
                        "pool": text("Key that both sites share and nobody took yet.", 32),
                        "blocks": count("Blocks stored since its modules started."),
                    },
                },
            },
        },
    })
}

fn conditions() -> Value {
    let text = |description: &str, most: u32| json!({"type": "string", "description": description, "maxLength": most});
    json!({
        "type": "array", "maxItems": 8,
        "description": "Accepted, Provisioned and KeyFlowing.",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": text("Which condition this is.", 316),
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "Generation of the specification that this condition is about.",
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time", "description": "When the status changed last.",
                },
                "reason": text("One word for programs.", 1024),
                "message": text("A sentence for people.", 32768),
            },
        },
    })
}
