//! `qkdnet status` of a topology on a cluster: where its key stores are, and which Secrets its applications have.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt as _;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use operator::build::labels;
use operator::layout::ETSI014_PORT;
use runner::snapshot::NetworkTimeRow;
use serde::Serialize;

use super::Cluster;

/// A network on a cluster.
#[derive(Debug, Serialize)]
pub struct ClusterNetwork {
    /// What the operator says of `KeyFlowing`; absent where no operator watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Why key does not flow, where the operator says that it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub topology: String,
    pub namespace: String,
    /// The one time of its links, as its pacer says it; absent where no operator watches.
    #[serde(rename = "networkTime", skip_serializing_if = "Option::is_none")]
    pub network_time: Option<NetworkTimeRow>,
    pub warnings: Vec<String>,
    pub sites: Vec<ClusterSite>,
}

/// The key store of a site, as pods of the namespace reach it.
#[derive(Debug, Serialize)]
pub struct ClusterSite {
    pub site: String,
    pub url: String,
    pub saes: Vec<ClusterSae>,
}

/// An application and the Secret with `ca.crt`, `tls.crt` and `tls.key`.
#[derive(Debug, Serialize)]
pub struct ClusterSae {
    pub id: String,
    pub secret: String,
}

pub async fn status(cluster: &Cluster) -> Result<ClusterNetwork> {
    let fronts = cluster.labelled(&[(labels::COMPONENT, "etsi014")]);
    let fronts = cluster.api::<Service>().list(&fronts).await.context("list the key stores' Services")?;
    let secrets = cluster.api::<Secret>().list(&cluster.labelled(&[])).await.context("list the Secrets")?;
    anyhow::ensure!(
        !fronts.items.is_empty(),
        "no topology `{}` with key stores is in namespace `{}`",
        cluster.topology,
        cluster.namespace
    );
    let mut sites: Vec<ClusterSite> = fronts.iter().map(|front| site(cluster, front, &secrets.items)).collect();
    sites.sort_by(|a, b| a.site.cmp(&b.site));
    let object = cluster.object().await?;
    let Said { ready, why, warnings } = object.as_ref().map(said).unwrap_or_default();
    Ok(ClusterNetwork {
        ready,
        why,
        topology: cluster.topology.clone(),
        namespace: cluster.namespace.clone(),
        network_time: cluster.network_time().await?,
        warnings,
        sites,
    })
}

impl Cluster {
    /// The topology's object; nothing where its objects were rendered.
    pub async fn object(&self) -> Result<Option<DynamicObject>> {
        let kind = GroupVersionKind::gvk("qkdnet.dev", "v1alpha1", "Topology");
        let resource = ApiResource::from_gvk_with_plural(&kind, "topologies");
        let api = kube::Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        match api.get_opt(&self.topology).await {
            Ok(object) => Ok(object),
            // A cluster without an operator does not know the kind.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).context("read the topology"),
        }
    }
}

fn site(cluster: &Cluster, front: &Service, secrets: &[Secret]) -> ClusterSite {
    let site = front.labels().get(labels::SITE).cloned().unwrap_or_default();
    let here = |secret: &&Secret| secret.labels().get(labels::SITE) == Some(&site);
    let sae = |secret: &Secret| {
        let id = secret.labels().get(labels::SAE)?.clone();
        Some(ClusterSae { id, secret: secret.name_any() })
    };
    ClusterSite {
        url: format!("https://{}.{}.svc:{ETSI014_PORT}", front.name_any(), cluster.namespace),
        saes: secrets.iter().filter(here).filter_map(sae).collect(),
        site,
    }
}

/// What the operator says of a network.
#[derive(Default)]
struct Said {
    ready: Option<bool>,
    why: Option<String>,
    warnings: Vec<String>,
}

fn said(object: &DynamicObject) -> Said {
    let status = &object.data["status"];
    let flowing = status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "KeyFlowing");
    let warnings = status["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect();
    let ready = flowing.is_some_and(|condition| condition["status"] == "True");
    let why = flowing.filter(|_| !ready).map(|condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", text("reason"), text("message"))
    });
    Said { ready: Some(ready), why, warnings }
}

impl ClusterNetwork {
    pub fn text(&self) -> String {
        let flows = match self.ready {
            Some(true) => "key flows on every link",
            Some(false) => "not every link has key yet",
            None => "no operator watches it",
        };
        let mut text = format!("{} in {}: {flows}\n", self.topology, self.namespace);
        if let Some(why) = &self.why {
            let _ = writeln!(text, "{why}");
        }
        if let Some(time) = &self.network_time {
            let _ = writeln!(text, "{time}");
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "{warning}");
        }
        for site in &self.sites {
            let _ = writeln!(text, "\n{}  {}", site.site, site.url);
            for sae in &site.saes {
                let _ = writeln!(text, "  {}  secret/{}", sae.id, sae.secret);
            }
        }
        text
    }
}
