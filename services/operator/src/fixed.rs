//! What cannot change as long as stored key is there: volumes may outlive the object that said it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use topology::Topology;
use topology::document::Link;

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
    let of_topology = topology.metadata.name.as_str();
    let name = secret_names::authority(of_topology);
    let by_name: BTreeMap<String, &Secret> = secrets.iter().map(|secret| (secret.name_any(), secret)).collect();
    let Some(record) = by_name.get(&name) else { return Ok(()) };
    for (annotation, field, value) in fixed(topology) {
        if let Some(before) = record.annotations().get(annotation).filter(|before| **before != value) {
            return Err(format!(
                "spec.{field}: stored key was made with {before}, it cannot become {value} \
                 (hint: make a topology with another name, or remove the Secret {name} and the volumes)"
            ));
        }
    }
    let common = record.annotations().get(EPOCH);
    for (index, link) in topology.spec.links.iter().enumerate() {
        let name = secret_names::link(of_topology, link.name.as_str());
        let Some(record) = by_name.get(&name) else { continue };
        // Earlier releases had one epoch for all links.
        let before = record.annotations().get(EPOCH).or(common);
        let value = topology.spec.epoch(link).to_string();
        if let Some(before) = before.filter(|before| **before != value) {
            return Err(format!(
                "spec.links[{index}].epoch: stored key of link {} was made with {before}, it cannot become {value} \
                 (hint: give the link another name, or remove the Secret {name} and the volumes)",
                link.name
            ));
        }
    }
    Ok(())
}

/// Records the fields on the Secrets that are kept longest: the authority's, and of each link its own.
pub fn record(topology: &Topology, secrets: &mut [Secret]) {
    let of_topology = topology.metadata.name.as_str();
    let authority = secret_names::authority(of_topology);
    let of_link = |link: &Link| {
        let epoch = (EPOCH.to_owned(), topology.spec.epoch(link).to_string());
        (secret_names::link(of_topology, link.name.as_str()), vec![epoch])
    };
    let mut records: BTreeMap<String, Vec<(String, String)>> = topology.spec.links.iter().map(of_link).collect();
    records.insert(authority, fixed(topology).map(|(annotation, _, value)| (annotation.to_owned(), value)).to_vec());
    for secret in secrets {
        if let Some(record) = records.remove(&secret.name_any()) {
            secret.metadata.annotations.get_or_insert_default().extend(record);
        }
    }
}
