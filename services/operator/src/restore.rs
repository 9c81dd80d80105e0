//! What `qkdnet restore --topology` asks for, which is no more than an annotation: the stores of a topology start over,
//! because their volumes may be older than what was done with them.
//!
//! The pods stop, the volumes go, fresh authentication secrets are drawn, the pods start. Which of these is next is read
//! from the cluster in each round, so that an operator that restarts goes on where it was. That a request was carried out is
//! recorded on the Secret that is kept longest, and said in the status: either is enough for it not to be done again.
//!
//! Ceilings of the volumes that go stay: should one of these volumes come back once more, it is noticed.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::apply::{ApplyError, Cluster, Live};
use crate::build::{claim_name, labels};
use crate::layout::Layout;
use crate::material::{Material, MaterialError, secret_names};
use crate::placement;
use crate::resource::TopologyObject;

/// On a Topology: asks for a restore. Another value asks for another one.
pub const REQUEST: &str = "qkdnet.dev/restore";
/// On the Secret with the authority: the request that was carried out last.
const DONE: &str = "qkdnet.dev/restored";
/// Characters of a request that count.
const REQUEST_CHARS_MAX: usize = 253;
/// Pods, or volumes, that a message names.
const NAMED_MAX: usize = 4;

/// What was asked for and what was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Not carried out yet.
    pub wanted: Option<String>,
    pub done: Option<String>,
}

impl Restore {
    pub fn of(object: &TopologyObject, secrets: &[Secret]) -> Self {
        let asked = object.annotations().get(REQUEST).and_then(|text| request(text));
        let authority = secret_names::authority(&object.name_any());
        let record = secrets.iter().find(|secret| secret.name_any() == authority);
        let recorded = record.and_then(|secret| secret.annotations().get(DONE)).and_then(|text| request(text));
        let said = object.status.as_ref().and_then(|status| request(&status.restored));
        match asked {
            Some(asked) if [&recorded, &said].contains(&&Some(asked.clone())) => {
                Self { wanted: None, done: Some(asked) }
            }
            wanted => Self { wanted, done: recorded.or(said) },
        }
    }

    /// Once the stores can start over.
    pub fn carried_out(&mut self) {
        self.done = self.wanted.take().or(self.done.take());
    }

    /// Records what was carried out. The record comes last: a round that fails before it is repeated as a whole.
    pub fn record(&self, topology: &str, secrets: &mut [Secret]) {
        let authority = secret_names::authority(topology);
        secrets.sort_by_key(|secret| secret.name_any() == authority);
        if let (Some(secret), Some(done)) = (secrets.last_mut().filter(|last| last.name_any() == authority), &self.done)
        {
            secret.metadata.annotations.get_or_insert_default().insert(DONE.to_owned(), done.clone());
        }
    }
}

/// A request by the characters that count; none is empty.
fn request(text: &str) -> Option<String> {
    let text: String = text.trim().chars().take(REQUEST_CHARS_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody may write to a volume that goes: these pods end.
    Stop { pods: Vec<String> },
    /// These volumes go; true for those that do already.
    GiveUp { claims: BTreeMap<String, bool> },
    /// Nothing is left of before.
    Start,
}

impl Step {
    /// The next step of what is wanted, by what the cluster has.
    pub async fn next(
        restore: &Restore,
        cluster: &Cluster<'_>,
        layout: &Layout,
        live: &Live,
    ) -> Result<Option<Self>, ApplyError> {
        if restore.wanted.is_none() {
            return Ok(None);
        }
        let (pods, settled) = running(&live.stateful_sets, &live.pods);
        if !pods.is_empty() || !settled {
            return Ok(Some(Self::Stop { pods }));
        }
        let goes = |metadata: &ObjectMeta| metadata.deletion_timestamp.is_some();
        let labelled = live.claims.iter().map(|claim| (claim.name_any(), goes(&claim.metadata)));
        let mut claims: BTreeMap<String, bool> = labelled.collect();
        // A volume may be put back without its labels: it is found by its name.
        for unit in layout.units.iter().filter(|unit| unit.volume.is_some()) {
            let name = claim_name(&unit.name);
            if !claims.contains_key(&name)
                && let Some(found) = cluster.claim(&name).await?
            {
                claims.insert(name, goes(&found));
            }
        }
        Ok(Some(if claims.is_empty() { Self::Start } else { Self::GiveUp { claims } }))
    }

    /// Whether pods stay away.
    pub fn stops(&self) -> bool {
        *self != Self::Start
    }

    /// What people are told while it lasts.
    pub fn message(&self, request: &str) -> Option<String> {
        let waits = match self {
            Self::Stop { pods } if pods.is_empty() => "the pods stop".to_owned(),
            Self::Stop { pods } => format!("waiting until its pods have ended: {}", named(pods.iter())),
            Self::GiveUp { claims } => format!("waiting until its volumes are gone: {}", named(claims.keys())),
            Self::Start => return None,
        };
        Some(format!("restore `{request}`: the stores of this topology start over; {waits}"))
    }
}

/// Pods of the topology that are there, and whether no more of them can come.
fn running(sets: &[StatefulSet], pods: &[Pod]) -> (Vec<String>, bool) {
    let pods = pods.iter().filter(|pod| pod.labels().contains_key(labels::UNIT));
    let settled = |set: &StatefulSet| {
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = set.status.as_ref();
        let seen = status.and_then(|status| status.observed_generation).unwrap_or_default();
        wanted == 0
            && status.is_some_and(|status| status.replicas == 0)
            && seen >= set.metadata.generation.unwrap_or_default()
    };
    (pods.map(ResourceExt::name_any).collect(), sets.iter().all(settled))
}

fn named<'a>(all: impl ExactSizeIterator<Item = &'a String> + Clone) -> String {
    let mut text = all.clone().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED_MAX {
        text += &format!(" and {} more", all.len() - NAMED_MAX);
    }
    text
}

/// No set has a pod.
pub fn stop(sets: &mut [StatefulSet]) {
    for spec in sets.iter_mut().filter_map(|set| set.spec.as_mut()) {
        spec.replicas = Some(0);
    }
}

/// No end has a reserve any more: each link starts from a secret that nobody has seen.
pub fn renew(material: &mut Material, layout: &Layout) -> Result<(), MaterialError> {
    for (link, secret) in &mut material.links {
        *secret = placement::renewed(layout.links.get(link).copied().unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::resource::TopologyStatus;

    fn object(asked: Option<&str>, said: &str) -> TopologyObject {
        let mut object = TopologyObject::default();
        object.metadata.name = Some("alps".to_owned());
        object.metadata.annotations = asked.map(|asked| BTreeMap::from([(REQUEST.to_owned(), asked.to_owned())]));
        object.status = Some(TopologyStatus { restored: said.to_owned(), ..TopologyStatus::default() });
        object
    }

    fn authority(recorded: Option<&str>) -> Vec<Secret> {
        let named = |name: &str| {
            let mut secret = Secret::default();
            secret.metadata.name = Some(name.to_owned());
            secret
        };
        let mut secrets = vec![named("alps-ca"), named("alps-link-wm")];
        let done = recorded.map(|done| BTreeMap::from([(DONE.to_owned(), done.to_owned())]));
        secrets[0].metadata.annotations = done;
        secrets
    }

    fn of(asked: Option<&str>, recorded: Option<&str>, said: &str) -> (Option<String>, Option<String>) {
        let Restore { wanted, done } = Restore::of(&object(asked, said), &authority(recorded));
        (wanted, done)
    }

    #[test]
    fn a_request_is_carried_out_once_and_another_one_again() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(None, None, ""), (None, None));
        assert_eq!(of(Some("  "), None, ""), (None, None), "an empty request asks for nothing");
        assert_eq!(of(Some("a"), None, ""), (text("a"), None));
        // The record is enough, and so is the status where somebody deleted the Secret.
        assert_eq!(of(Some("a"), Some("a"), ""), (None, text("a")));
        assert_eq!(of(Some("a"), None, "a"), (None, text("a")));
        assert_eq!(of(Some("b"), Some("a"), "a"), (text("b"), text("a")));
        assert_eq!(of(None, Some("a"), ""), (None, text("a")), "a request that is taken away leaves its record");
        let long = "x".repeat(300);
        assert_eq!(of(Some(&long), None, &"x".repeat(253)).0, None, "what a status holds of it");
    }

    #[test]
    fn the_record_is_written_after_all_other_secrets() {
        let mut restore = Restore { wanted: Some("b".to_owned()), done: Some("a".to_owned()) };
        restore.carried_out();
        assert_eq!(restore, Restore { wanted: None, done: Some("b".to_owned()) });
        let mut secrets = authority(None);
        restore.record("alps", &mut secrets);
        assert_eq!(secrets.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["alps-link-wm", "alps-ca"]);
        assert_eq!(secrets[1].annotations()[DONE], "b");
        assert!(secrets[0].annotations().is_empty());
    }

    #[test]
    fn pods_are_gone_only_when_their_sets_say_so_too() {
        let mut set = StatefulSet::default();
        set.metadata.generation = Some(3);
        set.spec.get_or_insert_default().replicas = Some(0);
        let settled = |set: &StatefulSet| running(std::slice::from_ref(set), &[]).1;
        assert!(!settled(&set), "nobody has seen it yet");
        let status = set.status.get_or_insert_default();
        (status.observed_generation, status.replicas) = (Some(3), 1);
        assert!(!settled(&set), "its pod ends");
        set.status.get_or_insert_default().replicas = 0;
        assert!(settled(&set));
        set.metadata.generation = Some(4);
        assert!(!settled(&set), "somebody has changed it since");
        assert!(!settled(&StatefulSet::default()));
        let mut pod = Pod::default();
        pod.metadata.name = Some("sae-0".to_owned());
        assert!(running(&[], &[pod]).0.is_empty(), "an application's pod is none of its own");
    }
}
