//! A topology on a Kubernetes cluster, reached as `kubectl` reaches it: through the API server, by exec and by forwarded
//! ports, with nothing to set up by hand.

mod application;
mod control;
mod forward;
mod gather;
mod measured;
mod restore;
mod scratch;
mod status;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::ListParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config, ResourceExt as _};
use operator::build::labels;
use operator::layout::paths;
use runner::{Failure, runtime};
use telemetry::TelemetryConfig;
use zeroize::Zeroizing;

pub use self::forward::Forward;
pub use self::gather::{exposure, link_ends, spans, stores};
pub use self::measured::measured;
pub use self::restore::restore;
pub use self::status::status;
use crate::cli::ClusterArgs;

/// A topology of a namespace.
pub struct Cluster {
    client: Client,
    pub namespace: String,
    pub topology: String,
}

/// Runs what needs a cluster to its end.
pub fn run<T>(args: &ClusterArgs, work: impl AsyncFnOnce(&Cluster) -> Result<T>) -> Result<T, Failure> {
    let result = runtime::block_on(&TelemetryConfig::new("qkdnet"), async {
        let cluster = Cluster::connect(args).await?;
        work(&cluster).await
    });
    Ok(result?)
}

impl Cluster {
    pub async fn connect(args: &ClusterArgs) -> Result<Self> {
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let config = match args.context {
            Some(_) => Config::from_kubeconfig(&options).await.context("read the kubeconfig")?,
            None => Config::infer().await.context("find a cluster: neither a kubeconfig nor a pod's account")?,
        };
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("make a client of the cluster")?;
        let topology = args.topology.clone().unwrap_or_default();
        Ok(Self { client, namespace, topology })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of the topology with further labels.
    pub fn labelled(&self, more: &[(&str, &str)]) -> ListParams {
        let mut selector = format!("{}={}", labels::TOPOLOGY, self.topology);
        for (label, value) in more {
            selector += &format!(",{label}={value}");
        }
        ListParams::default().labels(&selector)
    }

    /// The pods of the topology; none is an error, as a name was mistyped then.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let pods = self.api::<Pod>().list(&self.labelled(&[])).await.context("list the pods of the topology")?;
        if pods.items.is_empty() {
            bail!(
                "no pod of a topology `{}` runs in namespace `{}`; `kubectl get topo -A` lists topologies",
                self.topology,
                self.namespace
            );
        }
        Ok(pods.items)
    }
}

/// A file of a Secret.
pub fn content(secret: &Secret, key: &str) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = bytes.with_context(|| format!("Secret {} has no {key}", secret.name_any()))?;
    Ok(Zeroizing::new(bytes.0.clone()))
}

/// The containers of a pod.
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
}

/// The first container of one of these names that keeps data.
fn with_data<'a>(pod: &'a Pod, names: &[&str]) -> Option<&'a str> {
    let keeps = |container: &&Container| {
        let mounts = container.volume_mounts.iter().flatten();
        names.contains(&container.name.as_str()) && mounts.into_iter().any(|mount| mount.mount_path == paths::DATA)
    };
    containers(pod).iter().find(keeps).map(|container| container.name.as_str())
}
