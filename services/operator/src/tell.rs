//! Tells running services what changed in their plan and takes no start: the loss of a source's arms, whom a key store
//! serves and with which sites it shares key over relays, for which sites a relay fills pools, which links a pacer
//! keeps at one time.
//!
//! Every life of a pod is told once, also when nothing changed: the file that it started with can be a minute old.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{RelayedSite, SetNetworkRequest};
use proto::pace::v1::pacer_client::PacerClient;
use proto::pace::v1::{LinkSource, SetLinksRequest};
use proto::relay::v1::SetTargetsRequest;
use proto::relay::v1::relay_client::RelayClient;
use proto::source::v1::SetLossRequest;
use proto::source::v1::source_client::SourceClient;
use shell::{Connector, Credentials, Endpoint};
use tonic::{Code, Status};
use topology::plan::{Directory, PacedSource, ServiceConfig};

use crate::build::{CONFIG_HASH, config_hash, labels};
use crate::layout::{Layout, Placed, Unit};
use crate::settings::Settings;
use crate::{names, observe, pods};

/// Time that one service gets to take what it is told.
const ANSWER: Duration = Duration::from_secs(3);
/// Services that are told at a time.
const TOLD_AT_ONCE: usize = 16;

#[derive(Debug, thiserror::Error)]
#[error("{service} does not take its changed settings: {why}")]
pub struct TellError {
    pub service: String,
    why: String,
}

/// What each service has taken.
pub type Told = BTreeMap<String, Heard>;

/// What one life of a service has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    life: String,
    digest: String,
}

/// What can be told.
#[derive(Clone, Debug, PartialEq)]
enum Message {
    Loss(SetLossRequest),
    Network(SetNetworkRequest),
    Targets(SetTargetsRequest),
    Links(SetLinksRequest),
}

impl Message {
    /// What a service is told, and a digest of it.
    fn of(config: &ServiceConfig, network: &Directory) -> Option<(Self, String)> {
        match config {
            ServiceConfig::Source(config) => {
                let loss_db = config.losses_db();
                let digest = names::digest(&format!("{loss_db:?}"));
                Some((Self::Loss(SetLossRequest { loss_db }), digest))
            }
            ServiceConfig::Kms(config) => {
                let relayed = network.relayed(config);
                let relayed_sites: Vec<RelayedSite> = relayed
                    .map(|peer| RelayedSite { address: network.address(&peer.site).to_owned(), site: peer.site })
                    .collect();
                let applications = network.applications().map(|(sae, site)| (sae.to_owned(), site.to_owned()));
                let (saes, directory) = (config.saes.clone(), applications.collect::<BTreeMap<_, _>>());
                let digest = names::digest(&format!("{saes:?} {directory:?} {relayed_sites:?}"));
                let directory = directory.into_iter().collect();
                Some((Self::Network(SetNetworkRequest { saes, directory, relayed_sites }), digest))
            }
            ServiceConfig::Relay(config) => {
                let sites = network.complete_relay((**config).clone()).targets;
                let digest = names::digest(&format!("{sites:?}"));
                Some((Self::Targets(SetTargetsRequest { sites }), digest))
            }
            ServiceConfig::Pacer(config) => {
                let link = |paced: &PacedSource| LinkSource { link: paced.link.clone(), source: paced.service.clone() };
                let links =
                    SetLinksRequest { links: config.sources.iter().map(link).collect(), skew_ps: config.skew_ps };
                let digest = names::digest(&format!("{links:?}"));
                Some((Self::Links(links), digest))
            }
            ServiceConfig::Detector(_) | ServiceConfig::Transmitter(_) | ServiceConfig::Channel(_) => None,
        }
    }
}

/// A service that has not heard yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    pub service: String,
    address: String,
    message: Message,
    heard: Heard,
}

impl Due {
    /// What is to be remembered once it was told.
    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

/// Who is to be told, of the pods that run as these sets say.
pub fn due(layout: &Layout, sets: &[StatefulSet], running: &[Pod], settings: &Settings, told: &Told) -> Vec<Due> {
    let of_unit = |unit: &Unit| -> Option<&Pod> {
        let wanted = sets.iter().find(|set| set.name_any() == unit.name).and_then(config_hash)?;
        let mut pods = running.iter().filter(|pod| pod.labels().get(labels::UNIT) == Some(&unit.name));
        pods.find(|pod| pods::runs(pod) && pod.annotations().get(CONFIG_HASH) == Some(wanted))
    };
    let one = |(unit, placed): (&Unit, &Placed)| {
        let (message, digest) = Message::of(&placed.service.config, &layout.directory)?;
        let heard = Heard { life: life(of_unit(unit)?), digest };
        let service = placed.service.name.clone();
        let address = observe::address(layout, unit, placed, settings);
        (told.get(&service) != Some(&heard)).then_some(Due { service, address, message, heard })
    };
    layout.services().filter_map(one).collect()
}

/// Another text for every start of a pod's containers.
fn life(pod: &Pod) -> String {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let starts: Vec<String> =
        containers.into_iter().flatten().map(|one| format!("{} {}", one.name, one.restart_count)).collect();
    format!("{} {}", pod.uid().unwrap_or_default(), starts.join(" "))
}

/// What came of telling.
#[derive(Default)]
pub struct Outcome {
    /// Who has heard now.
    pub heard: Told,
    /// Those to whom it was news.
    pub changed: Vec<String>,
    /// Somebody did not answer, and is to be told again.
    pub silent: bool,
    /// The first that did not take it.
    pub failure: Option<TellError>,
}

pub async fn tell(due: Vec<Due>, credentials: &Credentials) -> Outcome {
    let told = due.into_iter().map(|due| async move {
        let answer = tokio::time::timeout(ANSWER, call(&due, credentials)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        (due, answer)
    });
    let mut outcome = Outcome::default();
    let mut told = futures::stream::iter(told).buffer_unordered(TOLD_AT_ONCE);
    while let Some((due, answer)) = told.next().await {
        match answer {
            Ok(changed) => {
                outcome.changed.extend(changed.then(|| due.service.clone()));
                outcome.heard.insert(due.service, due.heard);
            }
            Err(status) if is_refusal(&status) => {
                let why = status.message().to_owned();
                outcome.failure.get_or_insert(TellError { service: due.service, why });
            }
            Err(status) => {
                tracing::debug!(service = due.service, %status, "cannot be told");
                outcome.silent = true;
            }
        }
    }
    outcome.changed.sort();
    outcome
}

/// The service has understood and says no; anything else may pass.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied)
}

/// True if it was news to the service.
async fn call(due: &Due, credentials: &Credentials) -> Result<bool, Status> {
    let endpoint: Result<Endpoint, _> = due.address.parse();
    let endpoint = endpoint.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let channel = Connector::new(&endpoint, &due.service, credentials).deadline(ANSWER).connect().await;
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    match &due.message {
        Message::Loss(message) => {
            let mut client = shell::limited!(SourceClient::new(channel));
            client.set_loss(message.clone()).await.map(|answer| answer.into_inner().changed)
        }
        Message::Network(message) => {
            let mut client = shell::limited!(KmsClient::new(channel));
            client.set_network(message.clone()).await.map(|answer| answer.into_inner().changed)
        }
        Message::Targets(message) => {
            let mut client = shell::limited!(RelayClient::new(channel));
            client.set_targets(message.clone()).await.map(|answer| answer.into_inner().changed)
        }
        Message::Links(message) => {
            let mut client = shell::limited!(PacerClient::new(channel));
            client.set_links(message.clone()).await.map(|answer| answer.into_inner().changed)
        }
    }
}
