//! Conditions, rows and what is worth an event.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use operator::figures::{self, LinkFigures, State};
use operator::observe::Observed;
use operator::pods::{PodReport, Trouble, TroubleKind};
use operator::resource::TopologyStatus;
use operator::status::{self, Known};
use proto::anchor::v1::RolledBack;
use proto::detector::v1::{LinkState, ModuleStatus};
use proto::kms::v1::{GetStatusResponse, PoolStatus};
use serde_json::{Value, json};
use shell::figures::tell;
use topology::figure::{Figure, Figures, Measured};
use topology::plan::Plan;

use crate::support::{chain, layout, parse};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn module(state: LinkState, blocks: u64) -> ModuleStatus {
    let mut figures = Figures::of([(Figure::QberX, 0.0486), (Figure::Pump, 1.02)]);
    figures.set(Figure::QberZ, Measured::ratio(427, 10_000));
    figures.hear("gainSignal", "1", Measured::Value(0.0048));
    let counted = Figures::of([(Figure::SecretKeyRate, 7184.0), (Figure::QberZ, 0.05)]);
    let (figures, counted) = (tell(&figures), tell(&counted));
    let mut module = ModuleStatus { blocks, figures, counted, ..ModuleStatus::default() };
    module.set_state(state);
    module
}

/// Both modules of every link of the chain as told.
fn observed(plan: &Plan, module: &dyn Fn(&str) -> Option<ModuleStatus>) -> Observed {
    let mut observed = Observed::default();
    for link in &plan.links {
        for end in &link.ends {
            observed.modules.insert((link.name.clone(), end.site.clone()), module(&link.name));
        }
    }
    observed
}

struct Fixture {
    plan: Plan,
    pods: PodReport,
    waiting: BTreeMap<String, String>,
    silent_stores: Vec<String>,
    pacer_is_silent: bool,
    other_versions: Vec<String>,
    rolled_back: Vec<RolledBack>,
    warnings: Vec<String>,
    restoring: Option<String>,
}

impl Fixture {
    fn new() -> Self {
        let (plan, _) = layout(&parse(&chain()));
        Self {
            plan,
            pods: PodReport { ready: 10, wanted: 10, ..PodReport::default() },
            waiting: BTreeMap::new(),
            silent_stores: Vec::new(),
            pacer_is_silent: false,
            other_versions: Vec::new(),
            rolled_back: Vec::new(),
            warnings: Vec::new(),
            restoring: None,
        }
    }

    fn status(&self, links: Option<&[LinkFigures]>, old: Option<&TopologyStatus>, now: i64) -> TopologyStatus {
        let known = Known {
            sites: 3,
            services: self.plan.services.len(),
            topology: "alps",
            namespace: "quantum",
            apply_failure: None,
            restoring: self.restoring.clone(),
            restored: "",
            pods: &self.pods,
            waiting: &self.waiting,
            links_planned: self.plan.links.len(),
            links,
            pace: Some(2.0),
            silent_stores: &self.silent_stores,
            pacer_is_silent: self.pacer_is_silent,
            other_versions: &self.other_versions,
            rolled_back: &self.rolled_back,
            warnings: &self.warnings,
        };
        status::accepted(&known, 4, old, at(now))
    }

    fn links(&self, module: &dyn Fn(&str) -> Option<ModuleStatus>) -> Vec<LinkFigures> {
        figures::links(&self.plan.links, &observed(&self.plan, module))
    }
}

fn condition<'a>(status: &'a TopologyStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&found.status, &found.reason, &found.message)
}

#[test]
fn key_flows_when_every_link_is_locked_and_has_stored_a_block() {
    let fixture = Fixture::new();
    let links = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    let status = fixture.status(Some(&links), None, 1);
    assert_eq!(condition(&status, "KeyFlowing"), ("True", "KeyFlows", "key flows over all 2 links"));
    assert_eq!((status.links_flowing.as_str(), status.key_rate.as_str()), ("2/2", "14 kbit/s"));
    let row = &status.link_status[0];
    let figures: Vec<(&str, &str)> = row.figures.iter().map(|row| (row.name.as_str(), row.value.as_str())).collect();
    assert_eq!(figures, [("qberZ", "4.27 %"), ("qberX", "4.86 %")]);
    // The columns of `kubectl get` read these.
    assert_eq!((row.qber_z.as_str(), row.qber_x.as_str()), ("4.27 %", "4.86 %"));

    let links = fixture.links(&|link| Some(module(LinkState::Locked, u64::from(link == "wm"))));
    let status = fixture.status(Some(&links), None, 1);
    let (truth, reason, message) = condition(&status, "KeyFlowing");
    assert_eq!((truth, reason), ("False", "FirstBlockPending"));
    assert_eq!(message, "key flows over 1 of 2 links: me is locked and has not stored a block yet");
}

#[test]
fn a_link_whose_blocks_take_hours_says_when_its_first_one_is_expected() {
    let fixture = Fixture::new();
    let expected = Figures::of([(Figure::FirstBlock, 21_600.0)]);
    let waiting = |link: &str| {
        let status = module(LinkState::Locked, u64::from(link == "wm"));
        let figures = if link == "wm" { status.figures.clone() } else { tell(&expected) };
        Some(ModuleStatus { figures, simulated_s: 7200.0, ..status })
    };
    let status = fixture.status(Some(&fixture.links(&waiting)), None, 1);
    let (_, reason, message) = condition(&status, "KeyFlowing");
    let first = "its first is expected at 6.0 h of simulated time, 2.0 h from now";
    assert_eq!(reason, "FirstBlockPending");
    assert!(message.ends_with(&format!("me is locked and has not stored a block yet ({first})")), "{message}");
}

#[test]
fn why_key_does_not_flow_is_said_for_every_state() {
    let fixture = Fixture::new();
    let cases = [
        (None, State::Unreachable, "LinkUnreachable"),
        (Some(module(LinkState::Connecting, 0)), State::Connecting, "LinkConnecting"),
        (Some(module(LinkState::Acquiring, 3)), State::Acquiring, "LinkAcquiring"),
        (
            Some(module(LinkState::AuthenticationExhausted, 3)),
            State::AuthenticationExhausted,
            "AuthenticationExhausted",
        ),
        (Some(module(LinkState::RolledBack, 3)), State::RolledBack, "RolledBack"),
        (Some(module(LinkState::PeerVersion, 3)), State::PeerVersion, "PeerVersion"),
        (Some(module(LinkState::ReservesDiffer, 3)), State::ReservesDiffer, "ReservesDiffer"),
        (Some(module(LinkState::Ended, 0)), State::Ended, "RunEnded"),
    ];
    for (module, state, reason) in cases {
        let links = fixture.links(&|_| module.clone());
        assert!(links.iter().all(|link| link.state == state && !link.flowing), "{reason}");
        assert_eq!(condition(&fixture.status(Some(&links), None, 1), "KeyFlowing").1, reason);
    }
    let ended = fixture.links(&|_| Some(module(LinkState::Ended, 6)));
    assert_eq!(condition(&fixture.status(Some(&ended), None, 1), "KeyFlowing").0, "True", "what a run came to stays");
}

#[test]
fn a_pacer_that_does_not_answer_is_why_light_waits() {
    let mut fixture = Fixture::new();
    let links = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    assert_eq!(condition(&fixture.status(Some(&links), None, 1), "KeyFlowing").1, "KeyFlows");
    fixture.pacer_is_silent = true;
    fixture.pods.failures.insert("pacer".to_owned(), "pacer ended with 1: error: no port".to_owned());
    let status = fixture.status(Some(&links), None, 1);
    let (truth, reason, message) = condition(&status, "KeyFlowing");
    assert_eq!((truth, reason), ("False", "PacerUnreachable"));
    assert!(message.starts_with("the pacer does not answer (pacer ended with 1: error: no port): light"), "{message}");
}

#[test]
fn a_key_store_that_does_not_answer_is_said_with_its_last_words() {
    let mut fixture = Fixture::new();
    let links = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    fixture.silent_stores = vec!["east".to_owned(), "west".to_owned()];
    fixture.pods.failures.insert("kms-west".to_owned(), "kms ended with 1: error: no space left".to_owned());
    let status = fixture.status(Some(&links), None, 1);
    let (truth, reason, message) = condition(&status, "KeyFlowing");
    assert_eq!((truth, reason), ("False", "KeyStoreUnreachable"));
    let expected = "the key store of east does not answer, the key store of west does not answer \
                    (kms ended with 1: error: no space left)";
    assert_eq!(message, expected);
}

#[test]
fn a_store_that_was_put_back_is_said_once_with_its_site_and_what_to_do() {
    let mut fixture = Fixture::new();
    let said = |since_ms| RolledBack {
        site: "west".to_owned(),
        store: "key store".to_owned(),
        since_ms,
        message: "it is 3 chunks behind its anchor; run `qkdnet restore`".to_owned(),
    };
    let mut observed = observed(&fixture.plan, &|_| Some(module(LinkState::Locked, 1)));
    let pool = |since_ms| PoolStatus { rolled_back: Some(said(since_ms)), ..PoolStatus::default() };
    let store = GetStatusResponse { pools: vec![pool(2000), pool(1000)], ..GetStatusResponse::default() };
    observed.stores.insert("west".to_owned(), Some(store.clone()));
    observed.stores.insert("east".to_owned(), Some(store));
    fixture.rolled_back = observed.rolled_back();
    assert_eq!(fixture.rolled_back, [said(1000)]);
    let links = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    let status = fixture.status(Some(&links), None, 1);
    let expected = "key store of west was rolled back (since 1970-01-01T00:00:01Z): it is 3 chunks behind its anchor; \
                    run `qkdnet restore`; here that is `qkdnet restore --topology alps --namespace quantum`";
    assert_eq!(condition(&status, "KeyFlowing"), ("False", "RolledBack", expected));
}

#[test]
fn a_pod_that_waits_for_its_ceilings_is_told_from_one_that_starts() {
    let mut fixture = Fixture::new();
    let trouble = |kind| Trouble { pod: "alps-site-west-0".to_owned(), kind, message: "is starting".to_owned() };
    fixture.pods =
        PodReport { ready: 8, wanted: 9, troubles: vec![trouble(TroubleKind::Starting)], ..Default::default() };
    let starts = "8 of 9 pods run: alps-site-west-0 is starting";
    assert_eq!(condition(&fixture.status(None, None, 1), "Provisioned"), ("False", "PodsStarting", starts));
    fixture.waiting = [("kms-west".to_owned(), "no answer in time".to_owned())].into();
    let status = fixture.status(None, None, 1);
    let waits = "the operator does not reach, and these wait to be told their ceilings: kms-west (no answer in time)";
    assert_eq!(condition(&status, "Provisioned").2, format!("{starts}; {waits}"));
    fixture.pods.troubles = vec![trouble(TroubleKind::Crashing)];
    assert!(!condition(&fixture.status(None, None, 1), "Provisioned").2.contains("ceilings"));
}

#[test]
fn key_stores_of_different_versions_are_said_though_their_link_makes_key() {
    let mut fixture = Fixture::new();
    let peer_version = "the peer's key store speaks version 7".to_owned();
    let pools = vec![PoolStatus { site: "east".to_owned(), peer_version, ..PoolStatus::default() }, Default::default()];
    let mut observed = observed(&fixture.plan, &|_| None);
    observed.stores.insert("west".to_owned(), Some(GetStatusResponse { pools, ..GetStatusResponse::default() }));
    fixture.other_versions = observed.other_versions();
    let links = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    let status = fixture.status(Some(&links), None, 1);
    let expected = "west shares no key with east: the peer's key store speaks version 7";
    assert_eq!(condition(&status, "KeyFlowing"), ("False", "PeerVersion", expected));
}

#[test]
fn a_restore_is_said_instead_of_what_stores_said_before_and_is_no_trouble() {
    let mut fixture = Fixture::new();
    let links = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    let before = fixture.status(Some(&links), None, 1);
    let site = "west".to_owned();
    fixture.rolled_back = vec![RolledBack { site, store: "key store".to_owned(), ..RolledBack::default() }];
    fixture.restoring = Some("restore `a`: waiting until its pods have ended: alps-site-west-0".to_owned());
    for links in [Some(links.as_slice()), None] {
        let status = fixture.status(links, Some(&before), 2);
        for kind in ["Provisioned", "KeyFlowing"] {
            let (truth, reason, message) = condition(&status, kind);
            assert_eq!((truth, reason, Some(message)), ("False", "Restoring", fixture.restoring.as_deref()));
        }
        assert!(status::transitions(Some(&before), &status).iter().all(|transition| transition.good));
    }
}

#[test]
fn a_seed_is_warned_of_where_nobody_can_miss_it() {
    let mut fixture = Fixture::new();
    fixture.warnings.push("seed 1 makes this run repeatable and its keys worthless".to_owned());
    let links = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    let status = fixture.status(Some(&links), None, 1);
    assert!(condition(&status, "KeyFlowing").2.ends_with("seed 1 makes this run repeatable and its keys worthless"));
    assert_eq!(status.warnings, fixture.warnings);
}

#[test]
fn a_condition_keeps_its_time_as_long_as_its_status() {
    let fixture = Fixture::new();
    let acquiring = fixture.links(&|_| Some(module(LinkState::Acquiring, 0)));
    let locked = fixture.links(&|_| Some(module(LinkState::Locked, 0)));
    let flowing = fixture.links(&|_| Some(module(LinkState::Locked, 1)));
    let first = fixture.status(Some(&acquiring), None, 1);
    let second = fixture.status(Some(&locked), Some(&first), 2);
    let third = fixture.status(Some(&flowing), Some(&second), 3);
    let since = |status: &TopologyStatus| {
        let found = status.conditions.iter().find(|condition| condition.type_ == "KeyFlowing").unwrap();
        found.last_transition_time.0.as_second()
    };
    assert_eq!((since(&first), since(&second), since(&third)), (1, 1, 3));
    assert_eq!(fixture.status(Some(&flowing), Some(&third), 9), third, "nothing new, nothing to write");
}

#[test]
fn an_operator_that_has_just_started_contradicts_nobody() {
    let fixture = Fixture::new();
    let fresh = fixture.status(None, None, 1);
    assert_eq!(condition(&fresh, "KeyFlowing").0, "Unknown");
    let flowing = fixture.status(Some(&fixture.links(&|_| Some(module(LinkState::Locked, 1)))), None, 1);
    assert_eq!(condition(&fixture.status(None, Some(&flowing), 2), "KeyFlowing").0, "True");
}

#[test]
fn figures_that_moved_are_no_news_and_states_are() {
    let fixture = Fixture::new();
    let with =
        |blocks: u64| fixture.status(Some(&fixture.links(&|_| Some(module(LinkState::Locked, blocks)))), None, 1);
    assert!(!status::differs_in_kind(&with(1), &with(2)));
    assert!(status::differs_in_kind(&with(0), &with(1)));
    assert_eq!(status::transitions(Some(&with(1)), &with(2)).len(), 0);
    let transition = with(1);
    let transitions = status::transitions(Some(&with(0)), &transition);
    assert_eq!(transitions.iter().map(|one| one.condition.reason.as_str()).collect::<Vec<_>>(), ["KeyFlows"]);
}

// === pods ===

fn pod(unit: &str, status: Value) -> Pod {
    let metadata = json!({"name": format!("{unit}-0"), "labels": {"qkdnet.dev/unit": unit}});
    serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
}

fn ready() -> Value {
    json!({"conditions": [{"type": "Ready", "status": "True"}]})
}

fn waiting(reason: &str, message: &str) -> Value {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    let container =
        json!({"name": "kms", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state});
    json!({"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [container]})
}

#[test]
fn what_keeps_a_pod_from_running_is_said_the_worst_first() {
    let (_, layout) = layout(&parse(&chain()));
    let mut pods: Vec<Pod> = layout.units.iter().map(|unit| pod(&unit.name, ready())).collect();
    assert_eq!(PodReport::of(&layout, &pods, at(0)), PodReport { ready: 10, wanted: 10, ..PodReport::default() });
    pods[0] = pod("alps-end-me-east", waiting("ContainerCreating", ""));
    pods[5] = pod("alps-site-east", waiting("ImagePullBackOff", "Back-off pulling image \"qkdnet:x\""));
    let unplaced = json!({"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"});
    pods[8] = pod("alps-source-me", json!({"conditions": [unplaced]}));
    pods.remove(9);
    let report = PodReport::of(&layout, &pods, at(0));
    let kinds: Vec<TroubleKind> = report.troubles.iter().map(|trouble| trouble.kind).collect();
    let (image, placed, start) = (TroubleKind::ImagePullFailed, TroubleKind::Unschedulable, TroubleKind::Starting);
    assert_eq!(kinds, [image, placed, start, start]);
    let message = report.message();
    assert!(message.starts_with("6 of 10 pods run: alps-site-east-0 cannot get its image: Back-off"), "{message}");
    assert!(message.contains("alps-source-me-0 cannot be placed: 0/2 nodes"), "{message}");

    let mut fixture = Fixture::new();
    fixture.pods = report;
    assert_eq!(condition(&fixture.status(None, None, 1), "Provisioned").1, "ImagePullFailed");
}

#[test]
fn a_container_that_ends_tells_its_last_words() {
    let (_, layout) = layout(&parse(&chain()));
    let terminated =
        json!({"terminated": {"exitCode": 1, "message": "a\nerror: the disk is full\n", "reason": "Error"}});
    let mut status = waiting("CrashLoopBackOff", "back-off 10s");
    status["containerStatuses"][0]["lastState"] = terminated;
    let report = PodReport::of(&layout, &[pod("alps-site-west", status)], at(0));
    assert_eq!(report.troubles[0].kind, TroubleKind::Crashing);
    assert_eq!(report.troubles[0].message, "kms ended with 1: error: the disk is full");
}

#[test]
fn a_node_that_does_not_answer_is_told_from_a_pod_that_starts() {
    let (_, layout) = layout(&parse(&chain()));
    let kind = |pod: Pod| PodReport::of(&layout, &[pod], at(1000)).troubles[0].kind;
    // Its containers are ready as far as anybody has heard, and the cluster takes the pod for lost.
    let mut silent = waiting("", "");
    silent["containerStatuses"][0]["ready"] = json!(true);
    silent["containerStatuses"][0]["state"] = json!({"running": {}});
    let of = |status: &Value| pod("alps-end-me-east", status.clone());
    assert_eq!(kind(of(&silent)), TroubleKind::NodeLost);
    silent["containerStatuses"][0]["ready"] = json!(false);
    assert_eq!(kind(of(&silent)), TroubleKind::Starting);
    // It was to be gone at a time that is over.
    for (due, expected) in [(995, TroubleKind::Starting), (980, TroubleKind::NodeLost)] {
        let mut leaving = of(&ready());
        leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(due)));
        assert_eq!(kind(leaving), expected);
    }
}
