//! An application of the cluster for the time of one command: its certificate, and a way to its key store.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use kube::api::ListParams;
use operator::build::labels;
use operator::material::keys;
use shell::files;

use super::scratch::Scratch;
use super::{Cluster, Forward, content};

/// What an application needs to ask its key store.
pub struct Door {
    pub files: Scratch,
    pub forward: Forward,
}

impl Cluster {
    /// The Secret of the application, and a forwarded port of the key store of its site.
    pub async fn application(&self, sae: &str) -> Result<Door> {
        let found = self.api::<Secret>().list(&self.labelled(&[(labels::SAE, sae)])).await;
        let secret = found.context("look for the application's Secret")?.items.into_iter().next();
        let secret = secret.with_context(|| format!("there is no application `{sae}` in `{}`", self.topology))?;
        let site = secret.labels().get(labels::SITE).cloned().context("the application's Secret names no site")?;
        let fronts = self.labelled(&[(labels::SITE, &site), (labels::COMPONENT, "etsi014")]);
        let fronts = self.api::<Service>().list(&fronts).await.context("look for the key store's Service")?;
        let front = fronts.items.first().with_context(|| format!("there is no key store at {site}"))?;
        let (pod, port) = self.behind(front).await?;
        Ok(Door { files: credentials(&secret)?, forward: self.forward(&pod, port).await? })
    }

    /// A pod and a port that a Service stands for.
    async fn behind(&self, service: &Service) -> Result<(String, u16)> {
        let spec = service.spec.as_ref().context("a Service without specification")?;
        let selector: Vec<String> =
            spec.selector.iter().flatten().map(|(label, value)| format!("{label}={value}")).collect();
        let pods = self.api::<Pod>().list(&ListParams::default().labels(&selector.join(","))).await;
        let pods = pods.context("look for the key store's pod")?;
        let pod = pods.items.first().with_context(|| format!("no pod is behind {}", service.name_any()))?;
        let port = spec.ports.iter().flatten().find_map(|port| match port.target_port {
            Some(IntOrString::Int(number)) => u16::try_from(number).ok(),
            _ => u16::try_from(port.port).ok(),
        });
        Ok((pod.name_any(), port.context("a Service without ports")?))
    }
}

/// A private folder with `ca.crt`, `tls.crt` and `tls.key`.
fn credentials(secret: &Secret) -> Result<Scratch> {
    let folder = Scratch::new()?;
    for key in [keys::AUTHORITY, keys::CERTIFICATE, keys::KEY] {
        let path = folder.path().join(key);
        files::write_durably(&path, &content(secret, key)?).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(folder)
}
