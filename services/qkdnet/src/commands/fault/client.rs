//! Telling the services of a running network.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use proto::fault::v1::faults_client::FaultsClient;
use proto::fault::v1::{ClearRequest, FaultState, InjectRequest, ListRequest};
use runner::roster::Roster;
use tonic::transport::Channel;

use super::orders::Orders;

/// Longest wait for a service. One that has crashed comes back, at least to say that it is stopped.
const DEADLINE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(10);

/// How long a fault lasts, and from when on.
#[derive(Clone, Debug)]
pub struct Times {
    pub id: String,
    pub at_ps: u64,
    pub duration_ps: u64,
}

/// Connections to the servers of a network, made as they are needed.
pub struct Clients<'r> {
    roster: &'r Roster,
    known: BTreeMap<String, FaultsClient<Channel>>,
}

impl<'r> Clients<'r> {
    pub fn new(roster: &'r Roster) -> Self {
        Self { roster, known: BTreeMap::new() }
    }

    async fn of(&mut self, server: &str) -> Result<FaultsClient<Channel>> {
        if let Some(client) = self.known.get(server) {
            return Ok(client.clone());
        }
        let channel = self.roster.connector(server)?.deadline(DEADLINE).connect().await?;
        let client = FaultsClient::new(channel);
        self.known.insert(server.to_owned(), client.clone());
        Ok(client)
    }

    /// Brings a fault into all services that it is told to, or into none.
    pub async fn inject(&mut self, orders: &Orders, times: &Times) -> Result<Vec<FaultState>> {
        let mut states = Vec::new();
        for told in &orders.told {
            let request = InjectRequest {
                service: told.service.clone(),
                id: times.id.clone(),
                fault: Some(told.fault.clone()),
                description: orders.description.clone(),
                at_ps: times.at_ps,
                duration_ps: times.duration_ps,
            };
            match self.order(&told.server, request).await {
                Ok(state) => states.push(state),
                Err(error) => {
                    for state in &states {
                        let _ = self.clear_at(&state.service, &state.id).await;
                    }
                    return Err(error.context(format!("tell {}", told.service)));
                }
            }
        }
        Ok(states)
    }

    async fn order(&mut self, server: &str, request: InjectRequest) -> Result<FaultState> {
        let mut client = self.of(server).await?;
        let answer = tokio::time::timeout(ANSWER, client.inject(request)).await.context("no answer")?;
        let state = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner().state;
        state.context("an answer without a fault")
    }

    async fn clear_at(&mut self, service: &str, id: &str) -> Result<u32> {
        let known = self.roster.service(service).with_context(|| format!("there is no service `{service}`"))?;
        let mut client = self.of(&known.server.clone()).await?;
        let request = ClearRequest { service: service.to_owned(), id: id.to_owned() };
        let answer = tokio::time::timeout(ANSWER, client.clear(request)).await.context("no answer")?;
        Ok(answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner().cleared)
    }

    /// Every fault of the network, and the servers that did not answer, with why.
    pub async fn list(&mut self) -> (Vec<FaultState>, Vec<(String, String)>) {
        let mut servers: Vec<String> = self.roster.services.iter().map(|service| service.server.clone()).collect();
        servers.sort();
        servers.dedup();
        let (mut faults, mut silent) = (Vec::new(), Vec::new());
        for server in servers {
            let listed = async {
                let mut client = self.of(&server).await?;
                let listed = tokio::time::timeout(ANSWER, client.list(ListRequest::default())).await?;
                Ok::<_, anyhow::Error>(listed?.into_inner().faults)
            };
            match listed.await {
                Ok(listed) => faults.extend(listed),
                Err(error) => silent.push((server, shell::chain(&error).to_string())),
            }
        }
        (faults, silent)
    }

    /// Ends faults; the ones that were ended.
    pub async fn clear(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Vec<FaultState>> {
        let (faults, silent) = self.list().await;
        if let Some((server, why)) = silent.first() {
            anyhow::bail!("{server} does not answer: {why}");
        }
        let mut cleared = Vec::new();
        for fault in faults.into_iter().filter(|fault| wanted(&fault.id)) {
            if self.clear_at(&fault.service, &fault.id).await? > 0 {
                cleared.push(fault);
            }
        }
        Ok(cleared)
    }
}
