//! The services of a topology on a cluster as whoever controls the network reaches them: a forwarded port for each, and
//! the certificate with which the operator asks them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Secret;
use operator::layout::Layout;
use operator::material::{keys, secret_names};
use operator::resource::TopologyObject;
use proto::pace::v1::GetStatusRequest;
use proto::pace::v1::pacer_client::PacerClient;
use runner::Folders;
use runner::roster::Roster;
use runner::snapshot::NetworkTimeRow;
use shell::{Connector, Credentials, Endpoint, files, pki, server};
use topology::Topology;
use topology::plan::{CONTROL_IDENTITY, Plan};

use super::scratch::Scratch;
use super::{Cluster, Forward, content};

/// Time that a pacer gets for a connection, and to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Services that can be reached as long as this lives.
pub struct Control {
    pub topology: Topology,
    pub plan: Plan,
    pub roster: Roster,
    _files: Scratch,
    _forwards: Vec<Forward>,
}

impl Cluster {
    /// For a topology that an operator keeps: what was rendered has no object that says its plan.
    pub async fn control(&self) -> Result<Control> {
        let object = self.api::<TopologyObject>().get_opt(&self.topology).await.context("read the topology")?;
        let object = object.with_context(|| {
            format!(
                "no topology `{}` is in namespace `{}`; `kubectl get topo -A` lists them",
                self.topology, self.namespace
            )
        })?;
        let topology = operator::validate::validate(&object)?.topology;
        let plan = operator::layout::plan(&topology);
        let layout = Layout::of(&topology, &plan, &self.namespace);

        let scratch = Scratch::new()?;
        let folders = Folders::of(scratch.path());
        folders.create()?;
        self.place_credentials(&folders).await?;
        let mut forwards = Vec::new();
        for (unit, placed) in layout.services() {
            let forward = self.forward(&format!("{}-0", unit.name), placed.port).await?;
            let path = server::address_file(&folders.run, &placed.service.name);
            files::write_durably(&path, forward.address.to_string().as_bytes())
                .with_context(|| format!("write {}", path.display()))?;
            forwards.push(forward);
        }
        let roster = Roster::of(&plan, &folders, |service| service);
        Ok(Control { topology, plan, roster, _files: scratch, _forwards: forwards })
    }

    /// The one time of the links, as the pacer says it now; nothing where no operator keeps the topology.
    pub async fn network_time(&self) -> Result<Option<NetworkTimeRow>> {
        // A cluster without an operator does not know the kind.
        let Ok(Some(object)) = self.api::<TopologyObject>().get_opt(&self.topology).await else { return Ok(None) };
        // The operator says itself what is wrong with a document.
        let Ok(accepted) = operator::validate::validate(&object) else { return Ok(None) };
        let plan = operator::layout::plan(&accepted.topology);
        let layout = Layout::of(&accepted.topology, &plan, &self.namespace);
        let Some(pacer) = plan.pacer() else { return Ok(None) };
        let places = layout.places();
        let Some((unit, port)) = places.get(pacer.name.as_str()) else { return Ok(None) };
        let scratch = Scratch::new()?;
        let folders = Folders::of(scratch.path());
        folders.create()?;
        self.place_credentials(&folders).await?;
        let credentials =
            Credentials::from_folder(&folders.pki, CONTROL_IDENTITY).context("load the control certificate")?;
        let forward = self.forward(&format!("{}-0", unit.name), *port).await?;
        let endpoint: Endpoint = forward.address.to_string().parse()?;
        let ask = async {
            let connector = Connector::new(&endpoint, &pacer.name, &credentials).deadline(ANSWER);
            let channel =
                connector.connect().await.map_err(|error| tracing::debug!(%error, "no way to the pacer")).ok()?;
            let answer = shell::limited!(PacerClient::new(channel)).get_status(GetStatusRequest {}).await;
            answer.map_err(|status| tracing::debug!(%status, "the pacer does not say the time")).ok()
        };
        let said = tokio::time::timeout(2 * ANSWER, ask).await.ok().flatten().map(tonic::Response::into_inner);
        Ok(Some(NetworkTimeRow::of(pacer.skew_ps, said.as_ref())))
    }

    async fn place_credentials(&self, folders: &Folders) -> Result<()> {
        let name = secret_names::control(&self.topology);
        let secret = self.api::<Secret>().get(&name).await.with_context(|| format!("read Secret {name}"))?;
        for (path, key) in [
            (pki::authority_path(&folders.pki), keys::AUTHORITY),
            (pki::certificate_path(&folders.pki, CONTROL_IDENTITY), keys::CERTIFICATE),
            (pki::key_path(&folders.pki, CONTROL_IDENTITY), keys::KEY),
        ] {
            files::write_durably(&path, &content(&secret, key)?)
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}
