//! What keeps pods from running, said by the cluster and told to people.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::build::labels;
use crate::layout::{Layout, Unit};

/// Longest text of a cluster's message that is passed on.
const MESSAGE_CHARS: usize = 300;
/// A pod that is still there so long after its end was due has nobody who ends it.
const END_LATE: SignedDuration = SignedDuration::from_secs(10);
/// Troubles that a message lists.
const LISTED_MAX: usize = 4;

/// How the pods of a topology stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodReport {
    pub ready: usize,
    pub wanted: usize,
    /// The worst first.
    pub troubles: Vec<Trouble>,
    /// By service: how it failed the last time. It may run again.
    pub failures: BTreeMap<String, String>,
}

/// Why one pod does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub pod: String,
    pub kind: TroubleKind,
    pub message: String,
}

/// In the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    ImagePullFailed,
    Unschedulable,
    ConfigurationFailed,
    OutOfMemory,
    Crashing,
    NodeLost,
    Starting,
}

impl TroubleKind {
    /// The reason of a condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ImagePullFailed => "ImagePullFailed",
            Self::Unschedulable => "Unschedulable",
            Self::ConfigurationFailed => "ConfigurationFailed",
            Self::OutOfMemory => "OutOfMemory",
            Self::Crashing => "Crashing",
            Self::NodeLost => "NodeLost",
            Self::Starting => "PodsStarting",
        }
    }
}

impl PodReport {
    pub fn of(layout: &Layout, pods: &[Pod], now: Timestamp) -> Self {
        let mut report = Self { wanted: layout.units.len(), ..Self::default() };
        for unit in &layout.units {
            let pod = pods.iter().find(|pod| pod.labels().get(labels::UNIT) == Some(&unit.name));
            report.failures.extend(pod.into_iter().flat_map(|pod| failures(unit, pod)));
            match pod.map(|pod| judge(pod, now)) {
                Some(None) => report.ready += 1,
                Some(Some((kind, message))) => {
                    let pod = pod.map(ResourceExt::name_any).unwrap_or_default();
                    report.troubles.push(Trouble { pod, kind, message });
                }
                None => {
                    let (pod, message) = (format!("{}-0", unit.name), "is not there yet".to_owned());
                    report.troubles.push(Trouble { pod, kind: TroubleKind::Starting, message });
                }
            }
        }
        report.troubles.sort_by(|a, b| (a.kind, &a.pod).cmp(&(b.kind, &b.pod)));
        report
    }

    /// One sentence about all troubles.
    pub fn message(&self) -> String {
        let mut parts: Vec<String> =
            self.troubles.iter().take(LISTED_MAX).map(|one| format!("{} {}", one.pod, one.message)).collect();
        if self.troubles.len() > LISTED_MAX {
            parts.push(format!("and {} more", self.troubles.len() - LISTED_MAX));
        }
        format!("{} of {} pods run: {}", self.ready, self.wanted, parts.join("; "))
    }
}

/// The services of a pod that have failed, with their last words.
fn failures(unit: &Unit, pod: &Pod) -> Vec<(String, String)> {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let failure = |status: &ContainerStatus| {
        let failed = status.last_state.as_ref()?.terminated.as_ref().filter(|last| last.exit_code != 0);
        let planned = unit.containers.iter().find(|planned| failed.is_some() && planned.name == status.name)?;
        Some((planned.services.first()?.service.name.clone(), ended(status, &status.name).1))
    };
    containers.into_iter().flatten().filter_map(failure).collect()
}

/// Whether all of a pod runs. One that is leaving does not, whatever the time.
pub fn runs(pod: &Pod) -> bool {
    judge(pod, Timestamp::MIN).is_none()
}

/// `None` for a pod that runs.
fn judge(pod: &Pod, now: Timestamp) -> Option<(TroubleKind, String)> {
    let status = pod.status.as_ref();
    let condition = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        conditions.into_iter().find(|condition| condition.type_ == kind)
    };
    if let Some(due) = &pod.metadata.deletion_timestamp {
        // By then its node has ended it, if there is one.
        return Some(match now.duration_since(due.0) > END_LATE {
            true => lost(),
            false => (TroubleKind::Starting, "is being replaced".to_owned()),
        });
    }
    if let Some(scheduled) = condition("PodScheduled").filter(|condition| condition.status == "False") {
        let why = shortened(scheduled.message.as_deref().unwrap_or("no node takes it"));
        return Some((TroubleKind::Unschedulable, format!("cannot be placed: {why}")));
    }
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let worst = containers.into_iter().flatten().filter_map(container).min_by_key(|(kind, _)| *kind);
    if let Some(trouble) = worst {
        return Some(trouble);
    }
    if condition("Ready").is_some_and(|condition| condition.status == "True") {
        return None;
    }
    // The node's agent says nothing any more: the cluster marks the pod, whose containers stay as they were last seen.
    let containers_ready = containers.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one.ready));
    let evicted = condition("DisruptionTarget").is_some_and(|condition| condition.status == "True");
    match containers_ready || evicted {
        true => Some(lost()),
        false => Some((TroubleKind::Starting, "is starting".to_owned())),
    }
}

fn lost() -> (TroubleKind, String) {
    (TroubleKind::NodeLost, "is on a node that does not answer".to_owned())
}

fn container(status: &ContainerStatus) -> Option<(TroubleKind, String)> {
    let state = status.state.as_ref();
    let name = &status.name;
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = shortened(waiting.message.as_deref().unwrap_or(reason));
        return match reason {
            "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError" => {
                Some((TroubleKind::ImagePullFailed, format!("cannot get its image: {message}")))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some((TroubleKind::ConfigurationFailed, format!("cannot start {name}: {message}")))
            }
            "CrashLoopBackOff" => Some(ended(status, name)),
            _ => None,
        };
    }
    let terminated = state.and_then(|state| state.terminated.as_ref())?;
    (terminated.exit_code != 0).then(|| ended(status, name))
}

/// How a container ended, in its own last words.
fn ended(status: &ContainerStatus, name: &str) -> (TroubleKind, String) {
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    let terminated = states.into_iter().flatten().find_map(|state| state.terminated.as_ref());
    let Some(terminated) = terminated else {
        return (TroubleKind::Crashing, format!("starts {name} again and again"));
    };
    if terminated.reason.as_deref() == Some("OOMKilled") {
        return (TroubleKind::OutOfMemory, format!("needs more memory for {name} than its limit"));
    }
    let last_words = terminated.message.as_deref().and_then(|log| log.trim().lines().last()).unwrap_or_default();
    (TroubleKind::Crashing, format!("{name} ended with {}: {}", terminated.exit_code, shortened(last_words)))
}

fn shortened(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
