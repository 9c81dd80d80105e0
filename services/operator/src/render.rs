//! The objects of a topology as text, for clusters without the operator.

use kube::Resource;
use serde::Serialize;
use serde_json::json;
use topology::Topology;
use topology::plan::Plan;

use crate::build::{self, BuildError, Objects, Prepared, labels};
use crate::layout::Layout;
use crate::material::{Existing, Material, MaterialError};
use crate::settings::Settings;

#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("write YAML: {0}")]
    Write(#[from] serde_yaml::Error),
}

/// What a user who applies it has to know.
const UNANCHORED: &str = "\
# Made by `qkdnet render`, for a cluster without the operator. So nobody keeps ceilings of what these stores count: that a
# volume was put back from a copy is noticed by its peers alone, and by nobody where the volumes of both sites are put back.
# Then remove all of this with its volumes and its Secrets, and render it again (docs/backup.md).
";

/// What is rendered, and where it will be.
#[derive(Clone, Debug)]
pub struct Rendering {
    pub namespace: String,
    /// Begins with the namespace itself, with the strictest pod security.
    pub with_namespace: bool,
    /// Leaves out what is drawn at random: authority, certificates, authentication secrets, keys of stores. They must
    /// be there already.
    pub without_secrets: bool,
}

/// All objects, ready for `kubectl apply -f -`.
pub fn render(topology: &Topology, rendering: &Rendering, settings: &Settings) -> Result<String, RenderError> {
    let plan: Plan = crate::layout::plan(topology);
    let layout = Layout::of(topology, &plan, &rendering.namespace);
    let material = Material::complete(&layout, settings, &Existing::new(), None)?;
    let objects: Objects<Prepared> = build::build(&layout, &material, settings, None)?;
    let mut text = UNANCHORED.to_owned();
    if rendering.with_namespace {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": rendering.namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        });
        document(&mut text, &namespace)?;
    }
    // No `..`: a kind that is built and not printed does not compile.
    let Objects { secrets, services, network_policies, disruption_budgets, stateful_sets, stage: _ } = objects;
    let drawn = |secret: &&k8s_openapi::api::core::v1::Secret| {
        let name = secret.meta().name.as_deref().unwrap_or_default();
        let unit = secret.meta().labels.as_ref().and_then(|all| all.get(labels::UNIT));
        unit.is_none_or(|unit| !name.starts_with(&format!("{unit}-config")))
    };
    documents(&mut text, secrets.iter().filter(|secret| !rendering.without_secrets || !drawn(secret)))?;
    documents(&mut text, &services)?;
    documents(&mut text, &network_policies)?;
    documents(&mut text, &disruption_budgets)?;
    documents(&mut text, &stateful_sets)?;
    Ok(text)
}

fn documents<'a, K: Serialize + 'a>(
    text: &mut String,
    objects: impl IntoIterator<Item = &'a K>,
) -> Result<(), serde_yaml::Error> {
    objects.into_iter().try_for_each(|object| document(text, object))
}

fn document(text: &mut String, object: &impl Serialize) -> Result<(), serde_yaml::Error> {
    text.push_str("---\n");
    text.push_str(&serde_yaml::to_string(object)?);
    Ok(())
}
