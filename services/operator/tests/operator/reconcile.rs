//! Rounds against an API server in memory.

use std::sync::Arc;

use operator::events::Events;
use operator::metrics::Metrics;
use operator::monitor::Monitors;
use operator::reconcile::{Context, ReconcileError, reconcile};
use operator::resource::TopologyObject;
use serde_json::{Value, json};

use crate::api::Api;
use crate::support::{NAMESPACE, chain, network, settings};

/// One topology in an API server, and the operator's context beside it.
pub struct World {
    pub api: Api,
    pub context: Arc<Context>,
    pub name: String,
}

impl World {
    pub fn new(text: &str) -> Self {
        let api = Api::default();
        let context = context(&api);
        let world = Self { api, context, name: parse(text)["metadata"]["name"].as_str().unwrap().to_owned() };
        world.edit(text);
        world
    }

    pub fn path(&self) -> String {
        format!("/apis/qkdnet.dev/v1alpha1/namespaces/{NAMESPACE}/topologies/{}", self.name)
    }

    /// As a person applies a file.
    fn edit(&self, text: &str) {
        let old = self.api.get(&self.path());
        let generation = old.as_ref().map_or(1, |old| old["metadata"]["generation"].as_i64().unwrap() + 1);
        let mut object = parse(text);
        object["metadata"]["namespace"] = json!(NAMESPACE);
        object["metadata"]["uid"] = json!("the-uid");
        object["metadata"]["generation"] = json!(generation);
        if let Some(status) = old.and_then(|old| old.get("status").cloned()) {
            object["status"] = status;
        }
        self.api.put(&self.path(), object);
    }

    pub async fn round(&self) -> Result<(), ReconcileError> {
        let object: TopologyObject = serde_json::from_value(self.api.get(&self.path()).unwrap()).unwrap();
        reconcile(Arc::new(object), self.context.clone()).await.map(drop)
    }

    /// Status and message of a condition.
    pub fn condition(&self, kind: &str) -> (String, String, String) {
        let object = self.api.get(&self.path()).unwrap();
        let conditions = object["status"]["conditions"].as_array().unwrap().clone();
        let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    pub fn secret(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
    }
}

pub fn context(api: &Api) -> Arc<Context> {
    let client = api.client();
    let (tell, _) = tokio::sync::mpsc::channel(8);
    Arc::new(Context {
        client: client.clone(),
        settings: settings(),
        events: Events::new(client),
        metrics: Arc::new(Metrics::default()),
        monitors: Monitors::new(tell),
        keepers: Default::default(),
        memory: Default::default(),
    })
}

fn parse(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[tokio::test]
async fn an_unchanged_topology_is_not_written_to() {
    let world = World::new(&chain());
    world.round().await.unwrap();
    assert!(!world.api.take_writes().is_empty());
    assert_eq!(world.api.paths("statefulsets").len(), 2 + 1 + 4 + 3);
    world.round().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());

    // An operator that restarts finds everything as it should be, and makes no other secrets.
    let world = World { context: context(&world.api), ..world };
    world.round().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn what_somebody_deletes_or_edits_comes_back_as_it_was() {
    let world = World::new(&chain());
    world.round().await.unwrap();
    for name in [
        "alps-ca",
        "alps-link-wm",
        "alps-store-west",
        "alps-sae-app-east",
        "alps-end-wm-west-config",
        "alps-end-wm-west-pki",
    ] {
        let path = world.secret(name);
        let before = world.api.remove(&path).unwrap();
        world.round().await.unwrap();
        let after = world.api.get(&path).unwrap();
        assert_eq!(before["data"], after["data"], "{name}");
    }
    let set = format!("/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/alps-site-west");
    world.api.change(&set, "/spec/template/spec/containers/0/image", json!("evil:1"));
    world.api.take_writes();
    world.round().await.unwrap();
    assert_eq!(world.api.take_writes()[0], format!("PATCH {set}"));
    let image = world.api.get(&set).unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, json!(settings().image));
}

#[tokio::test]
async fn a_wrong_topology_starts_nothing_and_says_why() {
    let world = World::new(&chain().replace("length: 10 km", "length: 10 dB"));
    world.round().await.unwrap();
    let (status, reason, message) = world.condition("Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Invalid"));
    assert!(message.contains("spec.links[0].arms[0].fibre.length: \"10 dB\" has the unit \"dB\""), "{message}");
    assert_eq!(world.condition("KeyFlowing").1, "NotAccepted");
    assert_eq!(world.api.paths("secrets").len() + world.api.paths("statefulsets").len(), 0);
    world.api.take_writes();
    world.round().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());

    world.edit(&chain());
    world.round().await.unwrap();
    assert_eq!(world.condition("Accepted").0, "True");
}

#[tokio::test]
async fn a_link_that_is_plan_only_starts_nothing_and_says_so() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../topologies/twin-field-518.yaml");
    let world = World::new(&std::fs::read_to_string(path).unwrap().replace("name: twin-field-518", "name: alps"));
    world.round().await.unwrap();
    let (status, reason, message) = world.condition("Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "PlanOnly"));
    assert!(message.contains("the link alice-bob is plan only"), "{message}");
    assert_eq!(world.api.paths("secrets").len() + world.api.paths("statefulsets").len(), 0);
}

#[tokio::test]
async fn a_link_that_goes_takes_its_pods_and_leaves_its_secrets_unless_told_otherwise() {
    let two_sites = network("alps", &["west", "middle"], &[("wm", "west", "middle")]);
    let world = World::new(&chain());
    world.round().await.unwrap();
    let kept = [world.secret("alps-link-me"), world.secret("alps-store-east")];
    let before: Vec<_> = kept.iter().map(|path| world.api.get(path).unwrap()["data"].clone()).collect();
    world.edit(&two_sites);
    world.round().await.unwrap();
    // A source, two ends, two key stores, and the pacer.
    assert_eq!(world.api.paths("statefulsets").len(), 1 + 2 + 2 + 1);
    assert!(world.api.paths("services").iter().all(|path| !path.contains("east") && !path.contains("-me")));
    assert!(world.api.get(&world.secret("alps-sae-app-east")).is_none());

    // It comes back to its volumes with the same secrets.
    world.edit(&chain());
    world.round().await.unwrap();
    let after: Vec<_> = kept.iter().map(|path| world.api.get(path).unwrap()["data"].clone()).collect();
    assert_eq!(before, after);

    world.edit(&two_sites.replace("spec:\n", "spec:\n  deletionPolicy: Delete\n"));
    world.round().await.unwrap();
    assert!(kept.iter().all(|path| world.api.get(path).is_none()));
}

#[tokio::test]
async fn what_stored_key_counts_in_cannot_change() {
    let world = World::new(&chain());
    world.round().await.unwrap();
    world.edit(&chain().replace("spec:\n", "spec:\n  run: {epoch: 10 ms}\n"));
    world.api.take_writes();
    world.round().await.unwrap();
    let (status, reason, message) = world.condition("Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Immutable"));
    assert!(message.starts_with("spec.run.epoch: stored key was made with 20 ms, it cannot become 10 ms"), "{message}");
    assert!(world.api.take_writes().iter().all(|write| write.contains("/topologies/") || write.contains("/events")));
}

#[tokio::test]
async fn what_a_link_counts_in_cannot_change_either_and_a_new_link_may_choose() {
    let own = |text: &str, link: &str, epoch: &str| {
        let name = format!("- name: {link}\n");
        assert!(text.contains(&name), "{text}");
        text.replace(&name, &format!("{name}      fidelity: counts\n      epoch: {epoch}\n"))
    };
    let world = World::new(&chain());
    world.round().await.unwrap();
    // As a release left it that had one epoch for all links.
    let path = world.secret("alps-link-me");
    let mut secret = world.api.get(&path).unwrap();
    assert_eq!(secret["metadata"]["annotations"]["qkdnet.dev/epoch"], "20 ms");
    secret["metadata"]["annotations"] = json!({});
    world.api.put(&path, secret);
    let refused = async |text: &str, words: &str| {
        world.edit(text);
        world.round().await.unwrap();
        let (status, reason, message) = world.condition("Accepted");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Immutable"), "{message}");
        assert!(message.contains(words), "{message}");
    };
    refused(&own(&chain(), "me", "1 s"), "epoch: stored key of link me was made with 20 ms, it cannot become 1 s")
        .await;
    world.edit(&own(&chain(), "me", "20 ms"));
    world.round().await.unwrap();
    assert_eq!(world.condition("Accepted").0, "True");
    // One that has no volumes yet.
    let renamed = chain().replace("- name: me\n", "- name: fresh\n");
    world.edit(&own(&renamed, "fresh", "1 s"));
    world.round().await.unwrap();
    assert_eq!(world.condition("Accepted").0, "True", "{:?}", world.condition("Accepted"));
    refused(&own(&renamed, "fresh", "2 s"), "link fresh was made with 1 s, it cannot become 2 s").await;
}

#[tokio::test]
async fn what_cannot_be_applied_is_said_and_tried_again() {
    let world = World::new(&chain());
    world.api.break_requests(Some("/statefulsets/"));
    let error = world.round().await.unwrap_err();
    assert_eq!(error.step(), "apply");
    let (status, reason, message) = world.condition("Provisioned");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ApplyFailed"));
    assert!(message.contains("alps-") && message.contains("timed out"), "{message}");
    world.api.break_requests(None);
    world.round().await.unwrap();
    assert_eq!(world.condition("Provisioned").1, "PodsStarting");
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_left_alone() {
    let world = World::new(&chain());
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services/alps-site-west");
    let foreign = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alps-site-west"}, "spec": {}});
    world.api.put(&path, foreign.clone());
    world.round().await.unwrap_err();
    assert_eq!(world.api.get(&path).unwrap(), foreign);
    let (_, _, message) = world.condition("Provisioned");
    assert!(message.contains("Service alps-site-west exists and does not belong to this topology"), "{message}");
}

#[tokio::test]
async fn a_topology_that_is_being_deleted_is_left_to_the_cluster() {
    let world = World::new(&chain());
    world.round().await.unwrap();
    world.api.take_writes();
    let mut object = world.api.get(&world.path()).unwrap();
    object["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    world.api.put(&world.path(), object);
    world.round().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn everything_is_owned_by_the_topology_but_what_must_outlive_it() {
    let world = World::new(&chain());
    world.round().await.unwrap();
    for plural in ["secrets", "services", "statefulsets", "networkpolicies", "poddisruptionbudgets"] {
        for path in world.api.paths(plural) {
            let object = world.api.get(&path).unwrap();
            let kept = object["metadata"]["labels"].get("qkdnet.dev/kept").is_some();
            let owner = &object["metadata"]["ownerReferences"][0];
            assert_eq!(owner["uid"] == "the-uid", !kept, "{path}");
        }
    }
}

#[tokio::test]
async fn loss_starts_nothing_anew_and_the_source_finds_it_in_its_file() {
    let dim = chain().replace("pairRate: 1e8 /s", "pairRate: 1e6 /s");
    let world = World::new(&dim);
    world.round().await.unwrap();
    world.api.take_writes();
    let end = "{site: middle, fibre: {length: 10 km";
    world.edit(&dim.replacen(end, &format!("{end}, deviceLoss: 1 dB"), 1));
    world.round().await.unwrap();
    let writes = world.api.take_writes();
    assert!(!writes.iter().any(|write| write.contains("/statefulsets/")), "{writes:?}");
    assert!(writes.iter().any(|write| write.ends_with("/secrets/alps-source-wm-config")), "{writes:?}");

    // A hundred times the light is more than the modules' memory was made for.
    world.edit(&chain());
    world.round().await.unwrap();
    let writes = world.api.take_writes();
    assert!(writes.iter().any(|write| write.ends_with("/statefulsets/alps-end-wm-west")), "{writes:?}");
}
