//! From a layout and its secrets to Kubernetes objects. Pure: the same input gives the same objects.

mod network;
mod pods;
mod secrets;
mod services;

pub(crate) use self::pods::claim_name;

use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use topology::document::DeletionPolicy;

use crate::layout::{Layout, Unit};
use crate::material::Material;
use crate::settings::Settings;

/// Labels that tell what an object belongs to.
pub mod labels {
    pub const TOPOLOGY: &str = "qkdnet.dev/topology";
    pub const SITE: &str = "qkdnet.dev/site";
    pub const LINK: &str = "qkdnet.dev/link";
    /// Name of the pod's StatefulSet.
    pub const UNIT: &str = "qkdnet.dev/unit";
    /// On a pod of an application: lets it reach the key store of the site that it belongs to.
    pub const SAE: &str = "qkdnet.dev/sae";
    /// On a Secret without which stored key cannot be read: it outlives the topology unless that says otherwise.
    pub const KEPT: &str = "qkdnet.dev/kept";
    pub const NAME: &str = "app.kubernetes.io/name";
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    pub const PART_OF: &str = "app.kubernetes.io/part-of";
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
}

/// What a pod was started with; another value starts it again.
pub const CONFIG_HASH: &str = "qkdnet.dev/config-hash";

/// What the pods of a set are to be started with.
pub(crate) fn config_hash(set: &StatefulSet) -> Option<&String> {
    set.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(CONFIG_HASH)
}

/// Objects that were built and are not yet in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Prepared;
/// Objects that the cluster has.
#[derive(Clone, Copy, Debug)]
pub struct Applied;

/// The objects of one topology, in the order in which they are applied: what pods need comes before pods. They hold
/// secrets, and print nothing.
#[derive(Clone)]
pub struct Objects<Stage> {
    pub secrets: Vec<Secret>,
    pub services: Vec<Service>,
    pub network_policies: Vec<NetworkPolicy>,
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    pub stateful_sets: Vec<StatefulSet>,
    pub stage: PhantomData<Stage>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("write the configuration of {service}: {source}")]
    Config { service: String, source: serde_yaml::Error },
    #[error("the {what} of {name} has {bytes} bytes, a Secret holds {most}")]
    TooLarge { what: &'static str, name: String, bytes: usize, most: usize },
    #[error("the plan gives {service} no certificate")]
    NoCertificate { service: String },
}

/// Builds every object. `owner` is the topology's object, where there is one.
pub fn build(
    layout: &Layout,
    material: &Material,
    settings: &Settings,
    owner: Option<OwnerReference>,
) -> Result<Objects<Prepared>, BuildError> {
    let context = Context { layout, material, settings, owner };
    let places = layout.places();
    let mut secrets = context.own_secrets()?;
    let directory = serde_yaml::to_string(&layout.directory);
    let directory = directory.map_err(|source| BuildError::Config { service: layout.topology.clone(), source })?;
    secrets.push(context.directory_secret(&directory)?);
    let mut stateful_sets = Vec::with_capacity(layout.units.len());
    for unit in &layout.units {
        let (config, started_with) = context.config_secrets(unit, &places, &directory)?;
        let pki = context.pki_secrets(unit)?;
        stateful_sets.push(context.stateful_set(unit, started_with, (&config, &pki)));
        secrets.extend(config.secrets);
        secrets.extend(pki.secrets);
    }
    Ok(Objects {
        secrets,
        services: context.services(),
        network_policies: context.network_policies(&places),
        disruption_budgets: vec![context.disruption_budget()],
        stateful_sets,
        stage: PhantomData,
    })
}

/// What every builder needs.
struct Context<'a> {
    layout: &'a Layout,
    material: &'a Material,
    settings: &'a Settings,
    owner: Option<OwnerReference>,
}

impl Context<'_> {
    fn metadata(&self, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.layout.namespace.clone()),
            labels: Some(labels),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    /// Of what must outlive the topology, unless that says otherwise.
    fn kept_metadata(&self, name: String, mut labels: BTreeMap<String, String>) -> ObjectMeta {
        labels.insert(labels::KEPT.to_owned(), "true".to_owned());
        let mut metadata = self.metadata(name, labels);
        if self.layout.deletion_policy == DeletionPolicy::Retain {
            metadata.owner_references = None;
        }
        metadata
    }

    /// Labels of everything of the topology.
    fn labels(&self) -> BTreeMap<String, String> {
        let topology = self.layout.topology.as_str();
        let pairs = [
            (labels::NAME, "qkdnet"),
            (labels::INSTANCE, topology),
            (labels::PART_OF, "qkdnet"),
            (labels::MANAGED_BY, self.settings.manager),
            (labels::TOPOLOGY, topology),
        ];
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn unit_labels(&self, unit: &Unit) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(labels::COMPONENT.to_owned(), unit.component.name().to_owned());
        labels.insert(labels::UNIT.to_owned(), unit.name.clone());
        labels.extend(unit.site.clone().map(|site| (labels::SITE.to_owned(), site)));
        labels.extend(unit.link.clone().map(|link| (labels::LINK.to_owned(), link)));
        labels
    }
}

/// The labels by which a Service or a policy finds one pod.
fn unit_selector(unit: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(labels::UNIT.to_owned(), unit.to_owned())])
}
