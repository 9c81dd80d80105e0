//! What cannot change as long as stored key is there: volumes may outlive the object that said it.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use topology::Topology;

use crate::material::secret_names;

const EPOCH: &str = "qkdnet.dev/epoch";
const PACKING: &str = "qkdnet.dev/packing";

/// The fields by their annotation, with their present values.
fn fixed(topology: &Topology) -> [(&'static str, &'static str, String); 2] {
    let packing = serde_json::to_value(topology.spec.packing).ok();
    let packing = packing.as_ref().and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    [(EPOCH, "run.epoch", topology.spec.run.epoch.to_string()), (PACKING, "packing", packing)]
}

/// Compares with what was recorded when the first pods were made.
pub fn check(topology: &Topology, secrets: &[Secret]) -> Result<(), String> {
    let name = secret_names::authority(topology.metadata.name.as_str());
    let Some(record) = secrets.iter().find(|secret| secret.name_any() == name) else { return Ok(()) };
    for (annotation, field, value) in fixed(topology) {
        if let Some(before) = record.annotations().get(annotation).filter(|before| **before != value) {
            return Err(format!(
                "spec.{field}: stored key was made with {before}, it cannot become {value} \
                 (hint: make a topology with another name, or remove the Secret {name} and the volumes)"
            ));
        }
    }
    Ok(())
}

/// Records the fields on the Secret that is kept longest.
pub fn record(topology: &Topology, secrets: &mut [Secret]) {
    let name = secret_names::authority(topology.metadata.name.as_str());
    for secret in secrets.iter_mut().filter(|secret| secret.name_any() == name) {
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.extend(fixed(topology).map(|(annotation, _, value)| (annotation.to_owned(), value)));
    }
}
