//! Ceilings of services' stores, from the services into the operator's namespace and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anchor::{Anchor, Ceilings, Instance};
use operator::anchors::{Keeper, object_name};
use shell::anchoring::{AnchorService, ControlAnchor};
use shell::pki::Authority;
use shell::{AllowList, Credentials, Role, Server};
use tokio_util::sync::CancellationToken;
use topology::plan::CONTROL_IDENTITY;

use crate::api::Api;

const OBJECTS: &str = "/api/v1/namespaces/qkdnet-system/configmaps";

/// Longer than a machine that has much to do takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    api: Api,
    pki: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let pki = tempfile::tempdir().unwrap();
        let authority = Authority::new("alps").unwrap();
        for name in ["kms-west", CONTROL_IDENTITY] {
            authority.issue(name).unwrap().save(pki.path()).unwrap();
        }
        std::fs::write(shell::pki::authority_path(pki.path()), authority.certificate_pem()).unwrap();
        Self { api: Api::default(), pki }
    }

    /// A life of the service, and its address.
    async fn service(&self, stop: &CancellationToken) -> (Arc<ControlAnchor>, String) {
        let anchor = Arc::new(ControlAnchor::default());
        let credentials = Credentials::from_folder(self.pki.path(), "kms-west").unwrap();
        let allow = AllowList::new([CONTROL_IDENTITY]).unwrap().with(Role::Control, [CONTROL_IDENTITY]).unwrap();
        let server = Server::builder("kms-west", &credentials, &allow);
        let server = server.add_service(AnchorService::of(&anchor, stop));
        let running = server.start(stop.clone()).await.unwrap();
        (anchor, running.address().to_string())
    }

    /// A life of the operator.
    fn operator(&self, address: &str) -> Keeper {
        let mut keeper = Keeper::start(&self.api.client(), "qkdnet-system", "quantum", "alps");
        let credentials = Credentials::from_folder(self.pki.path(), CONTROL_IDENTITY).unwrap();
        keeper.call([("kms-west".to_owned(), address.to_owned())].into(), &credentials);
        keeper
    }

    fn object(&self) -> Option<serde_json::Value> {
        self.api.get(&format!("{OBJECTS}/{}", object_name("quantum", "alps", 0)))
    }
}

fn ceilings(pairs: &[(&str, u64)]) -> Ceilings {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<BTreeMap<_, _>>()
}

/// Calls of an anchor block.
async fn blocking<T: Send + 'static>(
    anchor: &Arc<ControlAnchor>,
    call: impl FnOnce(&ControlAnchor) -> T + Send + 'static,
) -> T {
    let anchor = anchor.clone();
    let call = tokio::task::spawn_blocking(move || call(&anchor));
    tokio::time::timeout(PATIENCE, call).await.expect("an answer in time").unwrap()
}

#[tokio::test]
async fn what_a_store_counts_outlives_the_service_and_the_operator_outside_the_topologys_namespace() {
    let (world, store, stop) = (World::new(), Instance::draw().unwrap(), CancellationToken::new());
    let (anchor, address) = world.service(&stop).await;
    let operator = world.operator(&address);
    blocking(&anchor, move |anchor| {
        assert_eq!(anchor.read(store).unwrap(), None);
        anchor.raise(store, &ceilings(&[("send", 8), ("receive", 3)])).unwrap();
    })
    .await;
    let object = world.object().unwrap();
    assert!(object["data"]["ceilings.json"].as_str().unwrap().contains(&store.to_string()), "{object}");
    assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/component"], "anchor");
    // Both go, one after the other.
    stop.cancel();
    drop(operator);
    let stop = CancellationToken::new();
    let (anchor, address) = world.service(&stop).await;
    let _operator = world.operator(&address);
    let kept = blocking(&anchor, move |anchor| anchor.read(store).unwrap()).await;
    assert_eq!(kept, Some(ceilings(&[("send", 8), ("receive", 3)])));
    stop.cancel();
}

#[tokio::test]
async fn nothing_is_told_to_be_kept_before_the_cluster_has_it() {
    let (world, store, stop) = (World::new(), Instance::draw().unwrap(), CancellationToken::new());
    let (anchor, address) = world.service(&stop).await;
    let _operator = world.operator(&address);
    blocking(&anchor, move |anchor| anchor.read(store).unwrap()).await;
    world.api.break_requests(Some("configmaps"));
    let raising = anchor.clone();
    let raised = tokio::task::spawn_blocking(move || raising.raise(store, &ceilings(&[("send", 8)])));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!raised.is_finished() && world.object().is_none());
    world.api.break_requests(None);
    tokio::time::timeout(PATIENCE, raised).await.expect("an answer in time").unwrap().unwrap();
    assert!(world.object().is_some());
    stop.cancel();
}

#[tokio::test]
async fn a_service_that_is_not_reached_is_named_until_it_is() {
    let (world, stop) = (World::new(), CancellationToken::new());
    // Nobody listens there.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut operator = world.operator(&unused.to_string());
    let named = async |operator: &Keeper, is_so: &dyn Fn(Option<&String>) -> bool| {
        let look = async {
            while !is_so(operator.waiting(Duration::ZERO).get("kms-west")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("news in time");
    };
    named(&operator, &|why| why.is_some_and(|why| why.contains("kms-west"))).await;
    assert!(operator.waiting(PATIENCE).is_empty(), "one that has just started is not told of");
    let (_, address) = world.service(&stop).await;
    let credentials = Credentials::from_folder(world.pki.path(), CONTROL_IDENTITY).unwrap();
    operator.call([("kms-west".to_owned(), address)].into(), &credentials);
    named(&operator, &|why| why.is_some()).await;
    named(&operator, &|why| why.is_none()).await;
    stop.cancel();
}
