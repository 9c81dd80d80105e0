//! Stores that start over on request, against an API server in memory.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::reconcile::{World, context};
use crate::support::{NAMESPACE, chain};

const CLAIMS: &str = "/api/v1/namespaces/quantum/persistentvolumeclaims";
const LINKS: [&str; 2] = ["alps-link-wm", "alps-link-me"];

/// A network that has run, with a volume for every unit that has one, and a pod.
async fn world() -> World {
    let world = World::new(&chain());
    world.round().await.unwrap();
    for path in world.api.paths("statefulsets") {
        let unit = path.rsplit('/').next().unwrap();
        let labels = json!({"qkdnet.dev/topology": "alps", "qkdnet.dev/unit": unit});
        let name = format!("{unit}-0");
        let pod = json!({"metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}});
        world.api.put(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}"), pod);
        if !unit.contains("source") && !unit.contains("pacer") {
            put_claim(&world, unit, labels);
        }
    }
    world
}

fn put_claim(world: &World, unit: &str, labels: Value) {
    let name = format!("data-{unit}-0");
    let claim =
        json!({"metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("old-{unit}"), "labels": labels}});
    world.api.put(&format!("{CLAIMS}/{name}"), claim);
}

fn ask(world: &World, request: &str) {
    let mut object = world.api.get(&world.path()).unwrap();
    object["metadata"]["annotations"] = json!({"qkdnet.dev/restore": request});
    world.api.put(&world.path(), object);
}

/// What the cluster does by itself once no pod is wanted.
fn pods_end(world: &World) {
    for path in world.api.paths("statefulsets") {
        let mut set = world.api.get(&path).unwrap();
        assert_eq!(set["spec"]["replicas"], 0, "{path}");
        set["status"] = json!({"replicas": 0, "observedGeneration": 0});
        world.api.put(&path, set);
    }
    for path in world.api.paths("pods") {
        world.api.remove(&path);
    }
}

fn replicas(world: &World) -> Vec<i64> {
    let sets = world.api.paths("statefulsets");
    sets.iter().map(|path| world.api.get(path).unwrap()["spec"]["replicas"].as_i64().unwrap()).collect()
}

/// What each end is to start from.
fn secrets(world: &World) -> BTreeMap<&'static str, Value> {
    LINKS.iter().map(|name| (*name, world.api.get(&world.secret(name)).unwrap()["data"].clone())).collect()
}

fn restored(world: &World) -> Value {
    world.api.get(&world.path()).unwrap()["status"]["restored"].clone()
}

#[tokio::test]
async fn stores_start_over_once_their_pods_and_volumes_are_gone_whenever_the_operator_restarts() {
    let mut world = world().await;
    let before = secrets(&world);
    ask(&world, "one");
    let restart = |world: World| World { context: context(&world.api), ..world };

    // No volume goes as long as a pod may write to it.
    for _ in 0..2 {
        world = restart(world);
        world.round().await.unwrap();
        assert_eq!(replicas(&world), [0; 10]);
        assert_eq!(world.api.paths("persistentvolumeclaims").len(), 7);
    }
    let (status, reason, message) = world.condition("KeyFlowing");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Restoring"));
    assert!(message.contains("restore `one`") && message.contains("alps-end-me-east-0"), "{message}");
    pods_end(&world);
    // One that somebody put back by hand, without labels.
    put_claim(&world, "alps-site-west", json!({}));

    world = restart(world);
    world.round().await.unwrap();
    assert!(world.api.paths("persistentvolumeclaims").is_empty(), "{:?}", world.api.paths("persistentvolumeclaims"));
    assert_eq!(secrets(&world), before, "they are not taken by anybody yet");
    assert_eq!(replicas(&world), [0; 10]);
    assert!(
        world.condition("Provisioned").2.contains("data-alps-site-west-0")
            || world.condition("Provisioned").2.contains("and 3 more")
    );

    world = restart(world);
    world.round().await.unwrap();
    assert_eq!(replicas(&world), [1; 10]);
    assert_eq!(restored(&world), "one");
    let after = secrets(&world);
    for (name, data) in &after {
        assert_ne!(data["authentication.secret"], before[name]["authentication.secret"], "{name}");
        assert_ne!(data["generation"], before[name]["generation"], "{name}");
    }

    // That is all: the request stays on the object and asks for nothing more.
    world = restart(world);
    world.api.take_writes();
    world.round().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
    // Not even when the record is gone with the Secret.
    world.api.remove(&world.secret("alps-ca"));
    world.round().await.unwrap();
    assert_eq!((replicas(&world), secrets(&world)), (vec![1; 10], after));
    let record = world.api.get(&world.secret("alps-ca")).unwrap();
    assert_eq!(record["metadata"]["annotations"]["qkdnet.dev/restored"], "one");

    ask(&world, "two");
    world.round().await.unwrap();
    assert_eq!(replicas(&world), [0; 10]);
}

#[tokio::test]
async fn a_step_that_fails_is_said_and_done_again() {
    let world = world().await;
    ask(&world, "one");
    world.round().await.unwrap();
    pods_end(&world);
    // As where the operator's role does not let it.
    world.api.break_requests(Some("/persistentvolumeclaims/data-alps-end-wm-west-0"));
    let error = world.round().await.unwrap_err();
    assert_eq!(error.step(), "apply");
    let (_, reason, message) = world.condition("Provisioned");
    assert!(reason == "ApplyFailed" && message.contains("data-alps-end-wm-west-0"), "{reason}: {message}");
    assert_eq!(restored(&world), Value::Null);
    world.api.break_requests(None);
    world.round().await.unwrap();
    // The first of the Secrets that are written at the end.
    world.api.break_requests(Some("/secrets/alps-ca"));
    world.round().await.unwrap_err();
    assert_eq!((replicas(&world), restored(&world)), (vec![0; 10], Value::Null));
    world.api.break_requests(None);
    world.round().await.unwrap();
    assert_eq!((replicas(&world), restored(&world)), (vec![1; 10], json!("one")));
}

#[tokio::test]
async fn a_request_that_is_taken_back_lets_the_pods_start_on_what_is_left() {
    let world = world().await;
    ask(&world, "one");
    world.round().await.unwrap();
    assert_eq!(replicas(&world), [0; 10]);
    ask(&world, "");
    world.round().await.unwrap();
    assert_eq!((replicas(&world), world.api.paths("persistentvolumeclaims").len()), (vec![1; 10], 7));
    assert_eq!(restored(&world), Value::Null);
}
