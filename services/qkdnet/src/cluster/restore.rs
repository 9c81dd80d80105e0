//! `qkdnet restore` of a topology on a cluster: asks its operator, and waits until it has done it.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use operator::build::labels;
use operator::layout::{Layout, Unit};
use operator::resource::{TopologyObject, TopologyStatus};
use operator::restore::REQUEST;
use operator::status::{ACCEPTED, KEY_FLOWING, RESTORING};
use serde_json::json;
use topology::plan::ServiceConfig;

use super::Cluster;
use crate::commands::restore::{BLOCKS, KEY_STORE, RELAY, RESERVE, Voided};
use crate::style::tell;

/// An operator that runs says within this time that it has begun.
const TAKEN_UP: Duration = Duration::from_secs(60);
/// Time for all of it; a pod on a node that does not answer can take longer.
const CARRIED_OUT: Duration = Duration::from_secs(900);

const VOLUME: &str = "given up, of a link or a site that the topology does not have at present";

/// What is, or with `dry_run` would be, void.
pub async fn restore(cluster: &Cluster, dry_run: bool) -> Result<Vec<Voided>> {
    let object = cluster.api::<TopologyObject>().get_opt(&cluster.topology).await;
    let object = match object {
        Ok(Some(object)) => object,
        // A cluster without an operator does not know the kind.
        Err(kube::Error::Api(status)) if status.code != 404 => {
            return Err(anyhow!(status)).context("read the topology");
        }
        Ok(None) | Err(kube::Error::Api(_)) => bail!("{}", rendered(cluster)),
        Err(error) => return Err(error).context("read the topology"),
    };
    let voided = would_void(cluster, &object).await?;
    if !dry_run {
        carry_out(cluster).await?;
    }
    Ok(voided)
}

/// Where there is no object, nobody carries it out. The first secrets of rendered links go with all others: pads of them
/// were used.
fn rendered(cluster: &Cluster) -> String {
    let Cluster { namespace, topology, .. } = cluster;
    format!(
        "no Topology `{topology}` is in namespace `{namespace}` (`kubectl get topo -A` lists them). What `qkdnet render` made has \
         no operator that could restore it: remove it with its volumes and its Secrets, and render it again: `kubectl \
         --namespace {namespace} delete statefulset,pvc,secret --selector qkdnet.dev/topology={topology}`, then `qkdnet \
         render FILE --namespace {namespace} | kubectl apply --filename -`"
    )
}

async fn would_void(cluster: &Cluster, object: &TopologyObject) -> Result<Vec<Voided>> {
    let topology = operator::validate::validate(object)?.topology;
    let plan = operator::layout::plan(&topology);
    let layout = Layout::of(&topology, &plan, &cluster.namespace);
    let claims =
        cluster.api::<PersistentVolumeClaim>().list(&cluster.labelled(&[])).await.context("list the volumes")?;
    Ok(rows(&layout, &claims.items))
}

fn rows(layout: &Layout, claims: &[PersistentVolumeClaim]) -> Vec<Voided> {
    let unit_of = |claim: &PersistentVolumeClaim| -> Option<&Unit> {
        let name = claim.labels().get(labels::UNIT)?;
        layout.units.iter().find(|unit| unit.name == *name)
    };
    let mut rows = Vec::new();
    for claim in claims {
        match unit_of(claim) {
            Some(unit) => rows.extend(unit.services().filter_map(|placed| stored(&placed.service.config))),
            None => rows.push(row("", format!("volume {}", claim.name_any()), VOLUME)),
        }
    }
    rows.sort();
    rows
}

/// What a service keeps.
fn stored(config: &ServiceConfig) -> Option<Voided> {
    match config {
        ServiceConfig::Kms(store) => Some(row(&store.site, "key store".to_owned(), KEY_STORE)),
        ServiceConfig::Relay(relay) => Some(row(&relay.site, "relay".to_owned(), RELAY)),
        ServiceConfig::Channel(end) => Some(row(&end.site, format!("authentication reserve of {}", end.link), RESERVE)),
        other => other.module().map(|end| row(&end.site, format!("blocks of {}", end.link), BLOCKS)),
    }
}

fn row(site: &str, store: String, what: &str) -> Voided {
    Voided { site: site.to_owned(), store, what: what.to_owned() }
}

async fn carry_out(cluster: &Cluster) -> Result<()> {
    let api = cluster.api::<TopologyObject>();
    let request = jiff::Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {REQUEST: request}}});
    let asked = api.patch(&cluster.topology, &PatchParams::default(), &Patch::Merge(patch)).await;
    asked.with_context(|| format!("ask for the restore of topology {}", cluster.topology))?;
    tell(&format!("asked the operator for restore `{request}`; it goes on if this command is stopped"));
    let mut followed = Followed { request, ..Followed::default() };
    let mut stream = pin!(watcher::watch_object(api, &cluster.topology));
    let begun = tokio::time::Instant::now();
    loop {
        let (patience, late) = match followed.taken_up {
            true => (CARRIED_OUT, "it is not over yet, and goes on"),
            false => {
                (TAKEN_UP, "no operator has taken it up; it stays on the object, and is carried out once one runs")
            }
        };
        let next = tokio::time::timeout_at(begun + patience, stream.try_next()).await;
        let late = || anyhow!("{late} (`kubectl describe topo {} -n {}`)", cluster.topology, cluster.namespace);
        let Some(object) = next.map_err(|_| late())?.context("watch the topology")? else { return Err(late()) };
        let object = object.with_context(|| format!("topology {} was deleted meanwhile", cluster.topology))?;
        match followed.look(&object.status.unwrap_or_default())? {
            Look::Done => return Ok(()),
            Look::Waits(Some(news)) => tell(&news),
            Look::Waits(None) => {}
        }
    }
}

/// What the operator has said of a request.
#[derive(Default)]
struct Followed {
    request: String,
    taken_up: bool,
    said: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Done,
    /// What is new, if anything is.
    Waits(Option<String>),
}

impl Followed {
    fn look(&mut self, status: &TopologyStatus) -> Result<Look> {
        if status.restored == self.request {
            return Ok(Look::Done);
        }
        let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
        if let Some(refused) = condition(ACCEPTED).filter(|accepted| accepted.status == "False") {
            bail!("the operator does not accept the topology, and restores nothing: {}", refused.message);
        }
        let Some(restoring) = condition(KEY_FLOWING).filter(|flowing| flowing.reason == RESTORING) else {
            return Ok(Look::Waits(None));
        };
        self.taken_up = true;
        let is_new = restoring.message != self.said;
        self.said.clone_from(&restoring.message);
        Ok(Look::Waits(is_new.then(|| restoring.message.clone())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;

    fn status(restored: &str, condition: (&str, &str, &str, &str)) -> TopologyStatus {
        let (type_, status, reason, message) = condition;
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            observed_generation: None,
        };
        TopologyStatus { restored: restored.to_owned(), conditions: vec![condition], ..TopologyStatus::default() }
    }

    #[test]
    fn a_request_is_followed_until_the_operator_says_that_it_is_carried_out() {
        let mut followed = Followed { request: "b".to_owned(), ..Followed::default() };
        let flows = ("KeyFlowing", "True", "KeyFlows", "key flows");
        assert_eq!(followed.look(&status("a", flows)).unwrap(), Look::Waits(None));
        assert!(!followed.taken_up, "that was another request");
        let stops = status("a", ("KeyFlowing", "False", "Restoring", "waiting"));
        assert_eq!(followed.look(&stops).unwrap(), Look::Waits(Some("waiting".to_owned())));
        assert_eq!(followed.look(&stops).unwrap(), Look::Waits(None), "it is said once");
        assert!(followed.taken_up);
        assert_eq!(followed.look(&status("b", flows)).unwrap(), Look::Done);
        let refused = status("a", ("Accepted", "False", "Invalid", "spec.links: no such site"));
        assert!(followed.look(&refused).unwrap_err().to_string().contains("no such site"));
    }

    #[test]
    fn what_would_be_void_is_what_the_volumes_hold_those_of_gone_links_too() {
        let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../topologies/nice-50km.yaml")).unwrap();
        let topology = topology::parse("nice", &text).unwrap().topology;
        let plan = operator::layout::plan(&topology);
        let layout = Layout::of(&topology, &plan, "quantum");
        let claim = |unit: &str| {
            let mut claim = PersistentVolumeClaim::default();
            claim.metadata.name = Some(format!("data-{unit}-0"));
            claim.metadata.labels = Some(BTreeMap::from([(labels::UNIT.to_owned(), unit.to_owned())]));
            claim
        };
        let claims: Vec<_> =
            ["nice-50km-end-valrose-sophia-sophia", "nice-50km-site-sophia", "nice-50km-site-gone"].map(claim).into();
        let said: Vec<String> =
            rows(&layout, &claims).into_iter().map(|row| format!("{} of {}", row.store, row.site)).collect();
        assert_eq!(
            said,
            [
                "volume data-nice-50km-site-gone-0 of ",
                "authentication reserve of valrose-sophia of sophia",
                "blocks of valrose-sophia of sophia",
                "key store of sophia",
            ]
        );
    }
}
