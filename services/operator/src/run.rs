//! The operator as a process: watches, a queue of topologies, and a port for probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use shell::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::build::labels;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::monitor::Monitors;
use crate::reconcile::{Context, after_failure, reconcile};
use crate::resource::TopologyObject;
use crate::settings::Settings;

/// Many pods change at once when a network starts; one round sees them all.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// Topologies that are worked on at a time.
const CONCURRENCY: u16 = 4;
/// Time between looks for topologies that are gone.
const SWEEP: Duration = Duration::from_secs(30);
/// Where a pod finds the namespace of its service account.
const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Reports of watchers that may wait.
const REPORTS_WAITING: usize = 1024;

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub settings: Settings,
    /// Only topologies of these namespaces; those of all where there is none.
    pub namespaces: Vec<String>,
    /// Where `/healthz` and `/metrics` are.
    pub listen: SocketAddr,
}

/// Runs until the process is asked to stop.
pub async fn run(options: Options, shutdown: &Shutdown) -> Result<()> {
    let client = Client::try_default().await.context("find the cluster: neither a service account nor a kubeconfig")?;
    let stop = shutdown.token();
    let metrics = Arc::new(Metrics::default());
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("listen on {}", options.listen))?;
    let health = etsi014::health::start(listener, metrics.clone(), stop.clone()).context("serve health")?;
    tracing::info!(address = %health.address(), namespaces = ?options.namespaces, "operator started");
    let mut loops: Vec<_> = options.namespaces.iter().map(|namespace| Some(namespace.as_str())).collect();
    if loops.is_empty() {
        loops.push(None);
    }
    let settings = &options.settings;
    let loops = loops.into_iter().map(|namespace| control(&client, settings, &metrics, namespace, stop.clone()));
    futures::future::join_all(loops).await;
    health.finished().await;
    Ok(())
}

/// The namespace of the pod that this process runs in; nothing outside of a cluster.
pub fn own_namespace() -> Option<String> {
    let text = std::fs::read_to_string(SERVICE_ACCOUNT_NAMESPACE).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Serves the topologies of one namespace, or of all.
async fn control(
    client: &Client,
    settings: &Settings,
    metrics: &Arc<Metrics>,
    namespace: Option<&str>,
    stop: CancellationToken,
) {
    let (tell, told) = mpsc::channel(REPORTS_WAITING);
    let context = Arc::new(Context {
        client: client.clone(),
        settings: settings.clone(),
        events: Events::new(client.clone()),
        metrics: metrics.clone(),
        monitors: Monitors::new(tell),
        keepers: Default::default(),
        memory: Default::default(),
    });
    let mut controller = Controller::new(api::<TopologyObject>(client, namespace), watcher::Config::default());
    let store = controller.store();
    controller = watched::<StatefulSet>(controller, client, namespace);
    controller = watched::<Service>(controller, client, namespace);
    controller = watched::<Secret>(controller, client, namespace);
    controller = watched::<NetworkPolicy>(controller, client, namespace);
    controller = watched::<PodDisruptionBudget>(controller, client, namespace);
    controller = watched::<Pod>(controller, client, namespace);
    let reports = futures::stream::unfold(told, |mut told| async move { Some((told.recv().await?, told)) });
    let settings = controller::Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    let rounds = controller
        .with_config(settings)
        .reconcile_on(reports)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, after_failure, context.clone())
        .for_each(|round| async move {
            match round {
                // What failed was told and counted where it happened; a topology may go while it waits in the queue.
                Ok(_) | Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!("watch: {error}"),
            }
        });
    let sweep = async {
        let mut pulse = tokio::time::interval(SWEEP);
        // A list that is not complete yet says nothing about what is gone.
        let _ = store.wait_until_ready().await;
        loop {
            pulse.tick().await;
            context.keep_only(&|key| store.get(key).is_some());
        }
    };
    tokio::select! {
        () = rounds => {}
        () = sweep => {}
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Whatever happens to an object of a topology brings a round for that topology. Names and labels are enough for
/// that: the contents of Secrets are not watched.
fn watched<K>(
    controller: Controller<TopologyObject>,
    client: &Client,
    namespace: Option<&str>,
) -> Controller<TopologyObject>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let settings = watcher::Config::default().labels(labels::TOPOLOGY);
    controller.watches(api::<PartialObjectMeta<K>>(client, namespace), settings, |object: PartialObjectMeta<K>| {
        let topology = object.labels().get(labels::TOPOLOGY)?;
        Some(ObjectRef::new(topology).within(&object.namespace()?))
    })
}
