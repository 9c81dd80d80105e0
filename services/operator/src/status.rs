//! From what is known of a topology to its status. Pure; equal knowledge gives an equal status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use proto::anchor::v1::RolledBack;
use topology::plan::{PACER, kms_name};

use crate::figures::{LinkFigures, State, rounded};
use crate::pods::{PodReport, TroubleKind};
use crate::resource::TopologyStatus;

pub const ACCEPTED: &str = "Accepted";
pub const PROVISIONED: &str = "Provisioned";
pub const KEY_FLOWING: &str = "KeyFlowing";
/// Reason while a restore is carried out.
pub const RESTORING: &str = "Restoring";

/// Warnings that a status lists, and how long each is.
const WARNINGS_MAX: usize = 32;
const WARNING_CHARS_MAX: usize = 500;
/// Links, or sites, that a message names.
const NAMED_MAX: usize = 5;

/// What is known of an accepted topology.
pub struct Known<'a> {
    pub sites: usize,
    pub services: usize,
    /// The topology as commands name it.
    pub topology: &'a str,
    pub namespace: &'a str,
    /// A sentence about why objects could not be applied.
    pub apply_failure: Option<String>,
    /// A sentence about stores that are to start over, and do not run until then.
    pub restoring: Option<String>,
    /// The restore that was carried out last.
    pub restored: &'a str,
    pub pods: &'a PodReport,
    /// Services that wait to be told their ceilings and are not reached, with why.
    pub waiting: &'a BTreeMap<String, String>,
    pub links_planned: usize,
    /// `None` until the services were asked for the first time.
    pub links: Option<&'a [LinkFigures]>,
    /// Simulated time over wall time, where it is said.
    pub pace: Option<f64>,
    /// Sites whose key store does not answer.
    pub silent_stores: &'a [String],
    /// The network has a pacer, and it does not answer.
    pub pacer_is_silent: bool,
    /// Pairs of key stores of different versions, as sentences.
    pub other_versions: &'a [String],
    /// Stores that were put back.
    pub rolled_back: &'a [RolledBack],
    pub warnings: &'a [String],
}

/// The status of a topology that was refused. What runs goes on running as it did.
pub fn refused(
    reason: &str,
    message: &str,
    generation: i64,
    old: Option<&TopologyStatus>,
    now: Timestamp,
) -> TopologyStatus {
    let mut status = old.cloned().unwrap_or_default();
    status.observed_generation = Some(generation);
    set(&mut status, ACCEPTED, Verdict::new("False", reason, message), generation, now);
    for kind in [PROVISIONED, KEY_FLOWING] {
        if !status.conditions.iter().any(|condition| condition.type_ == kind) {
            let verdict = Verdict::new("False", "NotAccepted", "the topology is not accepted, nothing was started");
            set(&mut status, kind, verdict, generation, now);
        }
    }
    status
}

/// The status of an accepted topology.
pub fn accepted(known: &Known<'_>, generation: i64, old: Option<&TopologyStatus>, now: Timestamp) -> TopologyStatus {
    let mut status = old.cloned().unwrap_or_default();
    status.observed_generation = Some(generation);
    status.sites = known.sites as i64;
    status.links = known.links_planned as i64;
    known.restored.clone_into(&mut status.restored);
    let warning = |text: &String| text.chars().take(WARNING_CHARS_MAX).collect();
    status.warnings = known.warnings.iter().take(WARNINGS_MAX).map(warning).collect();
    let message = format!("{} sites, {} links, {} services", known.sites, known.links_planned, known.services);
    set(&mut status, ACCEPTED, Verdict::new("True", "Valid", message), generation, now);
    set(&mut status, PROVISIONED, provisioned(known), generation, now);
    match known.links {
        Some(links) => {
            let flowing = links.iter().filter(|link| link.flowing).count();
            status.links_flowing = format!("{flowing}/{}", known.links_planned);
            status.key_rate = rounded(links.iter().map(|link| link.key_rate_bps).sum(), "bit/s");
            status.link_status = links.iter().map(|link| link.row.clone()).collect();
            set(&mut status, KEY_FLOWING, key_flowing(links, known), generation, now);
        }
        None if known.restoring.is_some() => set(&mut status, KEY_FLOWING, key_flowing(&[], known), generation, now),
        // An operator that has just started has asked nobody yet: what was known stands.
        None if status.conditions.iter().any(|condition| condition.type_ == KEY_FLOWING) => {}
        None => {
            status.links_flowing = format!("0/{}", known.links_planned);
            let verdict = Verdict::new("Unknown", "NotAsked", "the services have not been asked yet");
            set(&mut status, KEY_FLOWING, verdict, generation, now);
        }
    }
    status
}

fn provisioned(known: &Known<'_>) -> Verdict {
    if let Some(failure) = &known.apply_failure {
        return Verdict::new("False", "ApplyFailed", failure);
    }
    if let Some(restoring) = &known.restoring {
        return Verdict::new("False", RESTORING, restoring);
    }
    match known.pods.troubles.first() {
        None => Verdict::new("True", "PodsRun", format!("all {} pods run", known.pods.wanted)),
        Some(worst) => {
            // What fails otherwise says so itself.
            let waiting = known.waiting.iter().filter(|_| worst.kind == TroubleKind::Starting);
            let waiting: Vec<(&String, &String)> = waiting.collect();
            let named = listed(&waiting, |(service, why)| format!("{service} ({why})"));
            let waits = match waiting.is_empty() {
                true => String::new(),
                false => format!("; the operator does not reach, and these wait to be told their ceilings: {named}"),
            };
            Verdict::new("False", worst.kind.reason(), format!("{}{waits}", known.pods.message()))
        }
    }
}

fn key_flowing(links: &[LinkFigures], known: &Known<'_>) -> Verdict {
    if let Some(restoring) = &known.restoring {
        return Verdict::new("False", RESTORING, restoring);
    }
    let missing: Vec<&LinkFigures> = links.iter().filter(|link| !link.flowing).collect();
    // A seed makes keys worthless, which nobody should have to look for.
    let seed = known.warnings.iter().find(|warning| warning.starts_with("seed "));
    let warning = seed.map(|warning| format!("; {warning}")).unwrap_or_default();
    if !known.rolled_back.is_empty() {
        let named = listed(known.rolled_back, |row| {
            let since = i64::try_from(row.since_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
            let since = since.unwrap_or_default();
            format!("{} of {} was rolled back (since {since}): {}", row.store, row.site, row.message)
        });
        let Known { topology, namespace, .. } = known;
        let way_out = format!("here that is `qkdnet restore --topology {topology} --namespace {namespace}`");
        return Verdict::new("False", State::RolledBack.reason(), format!("{named}; {way_out}{warning}"));
    }
    if !known.other_versions.is_empty() {
        let named = listed(known.other_versions, String::clone);
        return Verdict::new("False", State::PeerVersion.reason(), format!("{named}{warning}"));
    }
    if known.pacer_is_silent {
        let words = known.pods.failures.get(PACER).map(|words| format!(" ({words})")).unwrap_or_default();
        let message = format!("the pacer does not answer{words}: light waits until it is back{warning}");
        return Verdict::new("False", "PacerUnreachable", message);
    }
    if let Some(first) = missing.first() {
        let (flowing, all) = (links.len() - missing.len(), links.len());
        let named = listed(&missing, |link| {
            let first = link.first_block.map(|first| first.sentence(known.pace)).unwrap_or_default();
            format!("{} {}{first}", link.row.name, link.state.sentence())
        });
        let message = format!("key flows over {flowing} of {all} links: {named}{warning}");
        return Verdict::new("False", first.state.reason(), message);
    }
    if !known.silent_stores.is_empty() {
        let silent = listed(known.silent_stores, |site| {
            let failure = known.pods.failures.get(&kms_name(site));
            let words = failure.map(|words| format!(" ({words})")).unwrap_or_default();
            format!("the key store of {site} does not answer{words}")
        });
        return Verdict::new("False", "KeyStoreUnreachable", format!("{silent}{warning}"));
    }
    if links.iter().any(|link| link.state == State::Ended) {
        return Verdict::new("True", "RunEnded", format!("the run has ended; every link has stored key{warning}"));
    }
    Verdict::new("True", "KeyFlows", format!("key flows over all {} links{warning}", links.len()))
}

/// As many as a message names, and how many more there are.
fn listed<T>(all: &[T], sentence: impl Fn(&T) -> String) -> String {
    let named: Vec<String> = all.iter().take(NAMED_MAX).map(sentence).collect();
    let rest = match all.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{rest}", named.join(", "))
}

/// What a condition is to say.
struct Verdict {
    status: &'static str,
    reason: String,
    message: String,
}

impl Verdict {
    fn new(status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }
}

/// Sets a condition; its time is that of the last change of its status.
fn set(status: &mut TopologyStatus, kind: &str, verdict: Verdict, generation: i64, now: Timestamp) {
    let position = status.conditions.iter().position(|condition| condition.type_ == kind);
    let since = position
        .map(|index| &status.conditions[index])
        .filter(|condition| condition.status == verdict.status)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: verdict.status.to_owned(),
        reason: verdict.reason,
        message: verdict.message,
        observed_generation: Some(generation),
        last_transition_time: since,
    };
    match position {
        Some(index) => status.conditions[index] = condition,
        None => status.conditions.push(condition),
    }
}

/// Whether two statuses differ in more than figures, so that the new one is worth writing at once.
pub fn differs_in_kind(old: &TopologyStatus, new: &TopologyStatus) -> bool {
    let states = |status: &TopologyStatus| -> Vec<(String, String)> {
        status.link_status.iter().map(|row| (row.name.clone(), row.state.clone())).collect()
    };
    let without_rows =
        |status: &TopologyStatus| TopologyStatus { link_status: Vec::new(), key_rate: String::new(), ..status.clone() };
    without_rows(old) != without_rows(new) || states(old) != states(new)
}

/// A condition that changed its status or its reason.
pub struct Transition<'a> {
    pub condition: &'a Condition,
    pub good: bool,
}

/// What is worth an event.
pub fn transitions<'a>(old: Option<&TopologyStatus>, new: &'a TopologyStatus) -> Vec<Transition<'a>> {
    let changed = |condition: &&Condition| {
        let before = old.and_then(|old| old.conditions.iter().find(|other| other.type_ == condition.type_));
        before.is_none_or(|before| (&before.status, &before.reason) != (&condition.status, &condition.reason))
    };
    let transition = |condition: &'a Condition| {
        let harmless = [RESTORING, "PodsStarting", "LinkConnecting", "LinkAcquiring", "FirstBlockPending", "NotAsked"];
        // Before key has flowed for the first time nothing is lost.
        let before = old.and_then(|old| old.conditions.iter().find(|other| other.type_ == condition.type_));
        let starting = condition.type_ == KEY_FLOWING && before.is_none_or(|before| before.status != "True");
        let harmless = starting || harmless.contains(&condition.reason.as_str());
        Transition { condition, good: condition.status == "True" || harmless }
    };
    new.conditions.iter().filter(changed).map(transition).collect()
}
