//! Objects into the cluster: what differs is applied, what is not wanted any more goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceRequirements, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::build::{Applied, Objects, Prepared, config_hash, labels};
use crate::compare::{covers, quantity};

/// Objects of one request to list.
const PAGE: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("list {kind}s: {source}")]
    List { kind: String, source: Box<kube::Error> },
    #[error("apply {kind} {name}: {source}")]
    Apply { kind: String, name: String, source: Box<kube::Error> },
    #[error("delete {kind} {name}: {source}")]
    Delete { kind: String, name: String, source: Box<kube::Error> },
    #[error("{kind} {name} exists and does not belong to this topology; rename the topology or remove that object")]
    Foreign { kind: String, name: String },
}

/// What the cluster has of one topology. Some of it is secret, and prints nothing.
#[derive(Default)]
pub struct Live {
    pub secrets: Vec<Secret>,
    pub services: Vec<Service>,
    pub network_policies: Vec<NetworkPolicy>,
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    pub stateful_sets: Vec<StatefulSet>,
    pub pods: Vec<Pod>,
    pub claims: Vec<PersistentVolumeClaim>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub created: usize,
    pub updated: usize,
    pub deleted: usize,
}

impl Changes {
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// The namespace of one topology.
pub struct Cluster<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
    pub topology: &'a str,
    /// Whether what stored key needs outlives what it belongs to.
    pub retain: bool,
}

impl Cluster<'_> {
    pub async fn list(&self) -> Result<Live, ApplyError> {
        Ok(Live {
            secrets: self.list_kind().await?,
            services: self.list_kind().await?,
            network_policies: self.list_kind().await?,
            disruption_budgets: self.list_kind().await?,
            stateful_sets: self.list_kind().await?,
            pods: self.list_kind().await?,
            claims: self.list_kind().await?,
        })
    }

    async fn list_kind<K>(&self) -> Result<Vec<K>, ApplyError>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let selector = format!("{}={}", labels::TOPOLOGY, self.topology);
        let mut parameters = ListParams::default().labels(&selector).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self.api::<K>().list(&parameters).await;
            let page = page.map_err(|source| ApplyError::List { kind: kind::<K>(), source: source.into() })?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// The claim of this name, whatever its labels.
    pub async fn claim(&self, name: &str) -> Result<Option<ObjectMeta>, ApplyError> {
        match self.api::<PersistentVolumeClaim>().get_metadata_opt(name).await {
            Ok(found) => Ok(found.map(|found| found.metadata)),
            Err(source) => Err(ApplyError::List { kind: kind::<PersistentVolumeClaim>(), source: source.into() }),
        }
    }

    /// Has those of these volumes go that do not yet, with what is on them.
    pub async fn give_up(&self, claims: &BTreeMap<String, bool>, changes: &mut Changes) -> Result<(), ApplyError> {
        for (name, _) in claims.iter().filter(|(_, goes)| !**goes) {
            self.delete::<PersistentVolumeClaim>(name, &DeleteParams::default(), changes).await?;
        }
        Ok(())
    }

    async fn delete<K>(&self, name: &str, how: &DeleteParams, changes: &mut Changes) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        match self.api::<K>().delete(name, how).await {
            Ok(_) => changes.deleted += 1,
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                let (kind, name) = (kind::<K>(), name.to_owned());
                return Err(ApplyError::Delete { kind, name, source: Box::new(source) });
            }
        }
        Ok(())
    }

    /// Makes the cluster have exactly these objects.
    pub async fn apply(
        &self,
        objects: Objects<Prepared>,
        live: &Live,
    ) -> Result<(Objects<Applied>, Changes), ApplyError> {
        // No `..`: a kind that is built and not applied does not compile.
        let Objects { secrets, services, network_policies, disruption_budgets, mut stateful_sets, stage: _ } = objects;
        keep_claim_templates(&mut stateful_sets, &live.stateful_sets);
        keep_resources(&mut stateful_sets, &live.stateful_sets);
        let mut changes = Changes::default();
        self.apply_kind(&secrets, &live.secrets, &mut changes).await?;
        self.apply_kind(&services, &live.services, &mut changes).await?;
        // A pod that starts finds its policies in force.
        self.apply_kind(&network_policies, &live.network_policies, &mut changes).await?;
        self.apply_kind(&disruption_budgets, &live.disruption_budgets, &mut changes).await?;
        self.apply_kind(&stateful_sets, &live.stateful_sets, &mut changes).await?;
        // In the opposite order, so that no pod runs without what it needs.
        self.prune(&stateful_sets, &live.stateful_sets, &mut changes).await?;
        self.prune(&disruption_budgets, &live.disruption_budgets, &mut changes).await?;
        self.prune(&network_policies, &live.network_policies, &mut changes).await?;
        self.prune(&services, &live.services, &mut changes).await?;
        self.prune(&secrets, &live.secrets, &mut changes).await?;
        let stage = PhantomData;
        let applied = Objects { secrets, services, network_policies, disruption_budgets, stateful_sets, stage };
        Ok((applied, changes))
    }

    async fn apply_kind<K>(&self, wanted: &[K], live: &[K], changes: &mut Changes) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + Debug,
    {
        let api = self.api::<K>();
        for object in wanted {
            let name = object.name_any();
            let failed = |source| ApplyError::Apply { kind: kind::<K>(), name: name.clone(), source: Box::new(source) };
            match live.iter().find(|found| found.name_any() == name) {
                Some(found) if same(found, object) => continue,
                Some(_) => changes.updated += 1,
                None => {
                    let found = api.get_metadata_opt(&name).await.map_err(failed)?;
                    // Secrets that outlived their topology were listed; whatever else has this name is another's.
                    if found.is_some() {
                        return Err(ApplyError::Foreign { kind: kind::<K>(), name });
                    }
                    changes.created += 1;
                }
            }
            let parameters = PatchParams::apply(crate::settings::OPERATOR).force();
            api.patch(&name, &parameters, &Patch::Apply(object)).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn prune<K>(&self, wanted: &[K], live: &[K], changes: &mut Changes) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let names: BTreeSet<String> = wanted.iter().map(ResourceExt::name_any).collect();
        let kept = |object: &K| self.retain && object.labels().contains_key(labels::KEPT);
        for object in live.iter().filter(|object| !names.contains(&object.name_any()) && !kept(object)) {
            self.delete::<K>(&object.name_any(), &DeleteParams::background(), changes).await?;
        }
        Ok(())
    }
}

fn kind<K: Resource<DynamicType = ()>>() -> String {
    K::kind(&()).into_owned()
}

fn same<K: Serialize>(live: &K, wanted: &K) -> bool {
    match (serde_json::to_value(live), serde_json::to_value(wanted)) {
        (Ok(live), Ok(wanted)) => covers(&live, &wanted) && same_owners(&live, &wanted) && same_keys(&live, &wanted),
        _ => false,
    }
}

/// Owners may also have to go.
fn same_owners(live: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    let owned =
        |object: &serde_json::Value| object["metadata"]["ownerReferences"].as_array().is_some_and(|o| !o.is_empty());
    owned(live) == owned(wanted)
}

/// A key of a Secret that is not wanted any more has to go.
fn same_keys(live: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    let keys = |object: &serde_json::Value| object["data"].as_object().map(|data| data.len());
    keys(live) == keys(wanted)
}

/// More CPU or memory than this, relative to what a pod has, is worth a restart.
const RESOURCES_GROWTH: i128 = 2;

/// A pod is not restarted for an estimate alone, which moves when something else of its link changes.
fn keep_resources(wanted: &mut [StatefulSet], live: &[StatefulSet]) {
    for set in wanted {
        let Some(found) = live.iter().find(|found| found.name_any() == set.name_any()) else { continue };
        if config_hash(found) != config_hash(set) {
            continue;
        }
        let pod = |set: &StatefulSet| set.spec.as_ref().and_then(|spec| spec.template.spec.clone());
        let there = pod(found).map(|pod| pod.containers).unwrap_or_default();
        let pod = set.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        for container in pod.into_iter().flat_map(|pod| &mut pod.containers) {
            let has = there.iter().find(|one| one.name == container.name).and_then(|one| one.resources.clone());
            if let (Some(has), Some(wants)) = (has, &container.resources)
                && suffices(&has, wants)
            {
                container.resources = Some(has);
            }
        }
    }
}

fn suffices(has: &ResourceRequirements, wants: &ResourceRequirements) -> bool {
    let of = |all: &ResourceRequirements, kind: &str| quantity(&all.requests.as_ref()?.get(kind)?.0);
    ["cpu", "memory"].iter().all(|kind| match (of(has, kind), of(wants, kind)) {
        (Some(has), Some(wants)) => Some(wants) <= has.scaled(RESOURCES_GROWTH, 0),
        _ => false,
    })
}

/// What a volume was asked for with can never change; a new size is for new volumes.
fn keep_claim_templates(wanted: &mut [StatefulSet], live: &[StatefulSet]) {
    for set in wanted {
        let found = live.iter().find(|found| found.name_any() == set.name_any());
        let templates =
            found.and_then(|found| found.spec.as_ref()).and_then(|spec| spec.volume_claim_templates.clone());
        if let (Some(spec), Some(templates)) = (&mut set.spec, templates) {
            spec.volume_claim_templates = Some(templates);
        }
    }
}
