//! Asks the services of one topology how they are, over their own mutual TLS, as whoever controls the network.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use proto::anchor::v1::RolledBack;
use proto::channel::v1::ReserveReplaced;
use proto::detector::v1::detector_client::DetectorClient;
use proto::detector::v1::{GetStatusRequest, ModuleStatus};
use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{GetStatusRequest as StoreRequest, GetStatusResponse, PoolStatus};
use proto::pace::v1::GetStatusRequest as PacerRequest;
use proto::pace::v1::pacer_client::PacerClient;
use proto::relay::v1::relay_client::RelayClient;
use proto::relay::v1::{GetStatusRequest as RelayRequest, GetStatusResponse as RelayStatus};
use shell::{Connector, Credentials, Endpoint};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use topology::plan::ServiceConfig;

use crate::layout::{Layout, Placed, Unit};
use crate::settings::Settings;

/// Time between rounds while something is still to come, and once all is well.
const PULSE_SHORT: Duration = Duration::from_secs(1);
const PULSE_LONG: Duration = Duration::from_secs(5);
/// Time that one service gets to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// A service that is too busy to answer is believed to be as it was for this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// Services that are asked at a time.
const ASKED_AT_ONCE: usize = 16;

/// A service that can be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub name: String,
    pub kind: TargetKind,
    /// `host:port`.
    pub address: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TargetKind {
    Module { link: String, site: String },
    Store { site: String },
    Relay { site: String },
    Pacer,
}

/// What the services of a topology said last.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By link and site; `None` for one that does not answer.
    pub modules: BTreeMap<(String, String), Option<ModuleStatus>>,
    pub stores: BTreeMap<String, Option<GetStatusResponse>>,
    pub relays: BTreeMap<String, Option<RelayStatus>>,
    /// The network has a pacer, and it does not answer.
    pub pacer_is_silent: bool,
}

impl Observed {
    /// Sites whose key store does not answer.
    pub fn silent_stores(&self) -> Vec<String> {
        self.stores.iter().filter(|(_, answer)| answer.is_none()).map(|(site, _)| site.clone()).collect()
    }

    /// Ends whose authentication reserve was replaced at another time than events have said so far.
    pub fn reserves_replaced<'s>(
        &'s self,
        said: &BTreeMap<(String, String), u64>,
    ) -> Vec<(&'s (String, String), &'s ReserveReplaced)> {
        let replaced = |(end, status): (&'s (String, String), &'s Option<ModuleStatus>)| {
            let replaced = status.as_ref()?.reserve_replaced.as_ref()?;
            (said.get(end) != Some(&replaced.unix_ms)).then_some((end, replaced))
        };
        self.modules.iter().filter_map(replaced).collect()
    }

    /// Pairs of key stores that share no key because they are of different versions, as sentences.
    pub fn other_versions(&self) -> Vec<String> {
        let of_store = |(site, status): (&String, &Option<GetStatusResponse>)| -> Vec<String> {
            let pools = status.iter().flat_map(|status| &status.pools).filter(|pool| !pool.peer_version.is_empty());
            let sentence =
                |pool: &PoolStatus| format!("{site} shares no key with {}: {}", pool.site, pool.peer_version);
            pools.map(sentence).collect()
        };
        self.stores.iter().flat_map(of_store).collect()
    }

    /// Every store that was put back, once, even where several say so.
    pub fn rolled_back(&self) -> Vec<RolledBack> {
        let modules = self.modules.values().flatten().filter_map(|status| status.rolled_back.clone());
        let pools = self.stores.values().flatten().flat_map(|status| &status.pools);
        let pools = pools.filter_map(|pool| pool.rolled_back.clone());
        let relays = self.relays.values().flatten().filter_map(|status| status.rolled_back.clone());
        let mut all: Vec<RolledBack> = modules.chain(pools).chain(relays).collect();
        let store = |row: &RolledBack| (row.site.clone(), row.store.clone());
        all.sort_by_key(|row| (store(row), row.since_ms));
        all.dedup_by_key(|row| store(row));
        all
    }
}

/// Where the operator finds a service.
pub fn address(layout: &Layout, unit: &Unit, placed: &Placed, settings: &Settings) -> String {
    format!("{}.{}.svc.{}:{}", unit.name, layout.namespace, settings.cluster_domain, placed.port)
}

/// The services of a layout that the operator asks.
pub fn targets(layout: &Layout, settings: &Settings) -> Vec<Target> {
    let target = |(unit, placed): (&Unit, &Placed)| {
        let kind = match &placed.service.config {
            ServiceConfig::Kms(config) => TargetKind::Store { site: config.site.clone() },
            ServiceConfig::Relay(config) => TargetKind::Relay { site: config.site.clone() },
            ServiceConfig::Pacer(_) => TargetKind::Pacer,
            other => {
                let module = other.module()?;
                TargetKind::Module { link: module.link.clone(), site: module.site.clone() }
            }
        };
        Some(Target { name: placed.service.name.clone(), kind, address: address(layout, unit, placed, settings) })
    };
    layout.services().filter_map(target).collect()
}

/// Asks until `stop`, and says after every round what it knows; `changed` is called with it.
pub async fn watch(
    targets: Vec<Target>,
    credentials: Credentials,
    observed: watch::Sender<Option<Arc<Observed>>>,
    settled: impl Fn(&Observed) -> bool,
    changed: impl Fn(),
    stop: CancellationToken,
) {
    let mut round = Round { targets, credentials, channels: HashMap::new(), answers: HashMap::new() };
    loop {
        let seen = tokio::select! {
            seen = round.ask() => seen,
            () = stop.cancelled() => return,
        };
        let pulse = if settled(&seen) { PULSE_LONG } else { PULSE_SHORT };
        observed.send_replace(Some(Arc::new(seen)));
        changed();
        tokio::select! {
            () = tokio::time::sleep(pulse) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[derive(Clone)]
enum Answer {
    Module(Box<ModuleStatus>),
    Store(Box<GetStatusResponse>),
    Relay(Box<RelayStatus>),
    Pacer,
}

struct Round {
    targets: Vec<Target>,
    credentials: Credentials,
    /// Connections of earlier rounds.
    channels: HashMap<String, Channel>,
    answers: HashMap<String, (Instant, Answer)>,
}

impl Round {
    async fn ask(&mut self) -> Observed {
        let mut asked = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            let (target, channel) = (target.clone(), self.channels.get(&target.name).cloned());
            let credentials = self.credentials.clone();
            asked.push(async move {
                let answer = ask(&target, channel, &credentials).await;
                (target.name, answer)
            });
        }
        let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await;
        let now = Instant::now();
        for (name, answer) in answers {
            match answer {
                Some((channel, answer)) => {
                    self.channels.insert(name.clone(), channel);
                    self.answers.insert(name, (now, answer));
                }
                None => drop(self.channels.remove(&name)),
            }
        }
        let mut observed = Observed::default();
        for target in &self.targets {
            let recent = self.answers.get(&target.name).filter(|(at, _)| now.duration_since(*at) < PATIENCE);
            match (&target.kind, recent.map(|(_, answer)| answer.clone())) {
                (TargetKind::Module { link, site }, answer) => {
                    let status = match answer {
                        Some(Answer::Module(status)) => Some(*status),
                        _ => None,
                    };
                    observed.modules.insert((link.clone(), site.clone()), status);
                }
                (TargetKind::Store { site }, answer) => {
                    let status = match answer {
                        Some(Answer::Store(status)) => Some(*status),
                        _ => None,
                    };
                    observed.stores.insert(site.clone(), status);
                }
                (TargetKind::Relay { site }, answer) => {
                    let status = match answer {
                        Some(Answer::Relay(status)) => Some(*status),
                        _ => None,
                    };
                    observed.relays.insert(site.clone(), status);
                }
                (TargetKind::Pacer, answer) => observed.pacer_is_silent = !matches!(answer, Some(Answer::Pacer)),
            }
        }
        observed
    }
}

/// One answer; over an older connection, if that still works.
async fn ask(target: &Target, channel: Option<Channel>, credentials: &Credentials) -> Option<(Channel, Answer)> {
    let channel = match channel {
        Some(channel) => channel,
        None => {
            let endpoint: Endpoint = target.address.parse().ok()?;
            let connect = Connector::new(&endpoint, &target.name, credentials).deadline(ANSWER).connect();
            match connect.await {
                Ok(channel) => channel,
                Err(error) => {
                    tracing::debug!(service = target.name, %error, "no answer");
                    return None;
                }
            }
        }
    };
    let call = async {
        match &target.kind {
            TargetKind::Module { .. } => {
                let mut client = shell::limited!(DetectorClient::new(channel.clone()));
                let status = client.get_status(GetStatusRequest {}).await?.into_inner();
                Ok::<_, tonic::Status>(Answer::Module(Box::new(status)))
            }
            TargetKind::Store { .. } => {
                let mut client = shell::limited!(KmsClient::new(channel.clone()));
                let status = client.get_status(StoreRequest {}).await?.into_inner();
                Ok(Answer::Store(Box::new(status)))
            }
            TargetKind::Relay { .. } => {
                let mut client = shell::limited!(RelayClient::new(channel.clone()));
                let status = client.get_status(RelayRequest {}).await?.into_inner();
                Ok(Answer::Relay(Box::new(status)))
            }
            TargetKind::Pacer => {
                let mut client = shell::limited!(PacerClient::new(channel.clone()));
                client.get_status(PacerRequest {}).await.map(|_| Answer::Pacer)
            }
        }
    };
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(answer)) => Some((channel, answer)),
        Ok(Err(error)) => {
            tracing::debug!(service = target.name, %error, "no answer");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_that_is_replaced_is_said_once_each_time() {
        let end = ("valrose-sophia".to_owned(), "sophia".to_owned());
        let replaced = |unix_ms| Observed {
            modules: [(
                end.clone(),
                Some(ModuleStatus {
                    reserve_replaced: Some(ReserveReplaced { by: "control".to_owned(), unix_ms, reserve_tags: 3 }),
                    ..ModuleStatus::default()
                }),
            )]
            .into(),
            ..Observed::default()
        };
        let mut said = BTreeMap::new();
        let before = Observed { modules: [(end.clone(), Some(ModuleStatus::default()))].into(), ..Observed::default() };
        assert!(before.reserves_replaced(&said).is_empty());
        let first = replaced(7);
        let rows = first.reserves_replaced(&said);
        assert_eq!((rows.len(), rows[0].0, rows[0].1.by.as_str()), (1, &end, "control"));
        said.insert(end.clone(), 7);
        assert!(first.reserves_replaced(&said).is_empty());
        assert_eq!(replaced(8).reserves_replaced(&said).len(), 1);
        // A module that does not answer has said nothing new.
        let silent = Observed { modules: [(end, None)].into(), ..Observed::default() };
        assert!(silent.reserves_replaced(&said).is_empty());
    }
}
