//! One relay at a time, message by message.

mod routes;

use super::*;
use crate::message::{LinkReport, LinkState, Payload, Refusal, RefusalReason};
use crate::name::Path;
use crate::record::{OutgoingStage, VoidReason};

fn site(name: &str) -> SiteName {
    SiteName::parse(name).unwrap()
}

fn path(names: &[&str]) -> Path {
    Path::new(names.iter().map(|name| site(name)).collect()).unwrap()
}

/// A relay and what the service around it would remember.
struct Bench {
    relay: Relay,
    settings: Settings,
    now_ms: u64,
    next_id: u8,
    disk: BTreeMap<RecordKey, Record>,
}

impl Bench {
    fn new(name: &str, settings: Settings) -> Self {
        let relay = Relay::new(site(name), settings.clone());
        Self { relay, settings, now_ms: 1000, next_id: 0, disk: BTreeMap::new() }
    }

    fn give(&mut self, input: Input) -> Vec<Action> {
        let next_id = &mut self.next_id;
        let mut ids = || {
            *next_id += 1;
            [*next_id; 16]
        };
        let actions = self.relay.handle(self.now_ms, input, &mut ids);
        for action in &actions {
            match action {
                Action::Persist(record) | Action::Note(record) => {
                    drop(self.disk.insert(record.key(), record.clone()));
                }
                Action::Forget(key) | Action::Drop(key) => drop(self.disk.remove(key)),
                _ => {}
            }
        }
        actions
    }

    fn restart(&mut self) {
        let records = std::mem::take(&mut self.disk).into_values().collect::<Vec<_>>();
        self.disk = records.iter().map(|record| (record.key(), record.clone())).collect();
        self.relay = Relay::restore(self.relay.site.clone(), self.settings.clone(), records, self.now_ms);
    }

    fn neighbour(&mut self, name: &str, stored_bytes: u64, rate_bps: u64) -> Vec<Action> {
        let state =
            NeighbourState { connected: true, stored_bytes_out: stored_bytes, stored_bytes_in: stored_bytes, rate_bps };
        self.give(Input::Neighbour { site: site(name), state })
    }

    fn peer(&mut self, from: &str, message: Message) -> Vec<Action> {
        self.give(Input::Peer { from: site(from), message })
    }

    /// The link state of another site, with rich links to those named.
    fn hear(&mut self, from: &str, of: &str, links: &[&str]) -> Vec<Action> {
        let link =
            |name: &&str| LinkReport { neighbour: site(name), stored_bytes: 1 << 20, rate_bps: 1_000_000, up: true };
        let links = links.iter().map(link).collect();
        let seq = self.now_ms;
        self.peer(from, Message::LinkState(LinkState { site: site(of), incarnation: 1, seq, links }))
    }

    fn want(&mut self, target: &str) -> Vec<Action> {
        let (low_water_bytes, high_water_bytes) = (8192, 16_384);
        self.give(Input::Want { target: site(target), level_bytes: 0, low_water_bytes, high_water_bytes, shares: 1 })
    }

    /// The origin `a` of `a-b-c`, which has just begun its first key.
    fn origin() -> (Self, TransferId) {
        let mut bench = Self::new("a", Settings { window: 1, ..Settings::default() });
        bench.neighbour("b", 1 << 20, 1_000_000);
        bench.hear("b", "b", &["a", "c"]);
        bench.hear("b", "c", &["b"]);
        let actions = bench.want("c");
        let group = kms(&actions).find_map(|request| match request {
            KmsRequest::Originate { header, .. } => Some(header.transfer),
            _ => None,
        });
        (bench, group.expect("a key is begun"))
    }

    fn answer(&mut self, answer: KmsAnswer) -> Vec<Action> {
        self.give(Input::Kms(answer))
    }
}

fn kms(actions: &[Action]) -> impl Iterator<Item = &KmsRequest> {
    actions.iter().filter_map(|action| match action {
        Action::Kms(request) => Some(request),
        _ => None,
    })
}

fn sent(actions: &[Action]) -> Vec<(&str, &Message)> {
    let sends = actions.iter().filter_map(|action| match action {
        Action::Send { to, message } => Some((to.as_str(), message)),
        _ => None,
    });
    sends.filter(|(_, message)| !matches!(message, Message::LinkState(_))).collect()
}

fn rejections(actions: &[Action]) -> Vec<&Rejection> {
    let why = actions.iter().filter_map(|action| match action {
        Action::Event(RelayEvent::Rejected { why, .. }) => Some(why),
        _ => None,
    });
    why.collect()
}

fn header(id: u8, names: &[&str], hop: u8) -> Header {
    let transfer = TransferId([id; 16]);
    Header { transfer, group: transfer, share: 0, of: 1, bytes: 4096, path: path(names), hop }
}

fn carry(id: u8, names: &[&str], hop: u8) -> Message {
    Message::Carry { header: header(id, names, hop), payload: Payload(vec![id; 4120]) }
}

fn sealed(transfer: TransferId) -> KmsAnswer {
    KmsAnswer::Sealed { transfer, payload: Payload(vec![9; 4120]) }
}

/// `b` between `a` and `c`, with so much pad.
fn between(stored_bytes: u64, settings: Settings) -> Bench {
    let mut bench = Bench::new("b", settings);
    bench.neighbour("a", stored_bytes, 8000);
    bench.neighbour("c", stored_bytes, 8000);
    bench
}

#[test]
fn the_intent_is_written_before_the_first_pad_is_drawn_and_what_is_acknowledged_before_it_is() {
    let mut bench = Bench::new("a", Settings { window: 1, ..Settings::default() });
    bench.neighbour("b", 1 << 20, 1_000_000);
    bench.hear("b", "b", &["a", "c"]);
    bench.hear("b", "c", &["b"]);
    let begun = bench.want("c");
    let at = |wanted: fn(&Action) -> bool| begun.iter().position(wanted).expect("it is begun");
    let written = at(|action| matches!(action, Action::Persist(Record::Outgoing(_))));
    assert!(written < at(|action| matches!(action, Action::Kms(KmsRequest::Originate { .. }))), "{begun:?}");
    let mut bench = Bench::new("c", Settings::default());
    bench.neighbour("b", 1 << 20, 8000);
    bench.peer("b", carry(1, &["a", "b", "c"], 2));
    let delivered = bench.answer(KmsAnswer::Delivered { transfer: TransferId([1; 16]) });
    assert!(matches!(delivered[..], [Action::Persist(Record::Incoming(_)), Action::Send { .. }]), "{delivered:?}");
}

#[test]
fn a_site_between_waits_for_its_kms_alone_before_it_passes_a_key_on() {
    let mut bench = between(1 << 20, Settings::default());
    let asked = bench.peer("a", carry(1, &["a", "b", "c"], 1));
    assert!(matches!(asked[..], [Action::Kms(KmsRequest::Reseal { .. })]), "{asked:?}");
    let passed = bench.answer(sealed(TransferId([1; 16])));
    assert!(matches!(passed[..], [Action::Note(Record::Incoming(_)), Action::Send { .. }]), "{passed:?}");
}

#[test]
fn a_void_reaches_whoever_may_have_what_a_crash_made_forget() {
    let mut bench = between(1 << 20, Settings::default());
    bench.peer("a", carry(1, &["a", "b", "c"], 1));
    bench.answer(sealed(TransferId([1; 16])));
    bench.disk.clear();
    bench.restart();
    bench.neighbour("a", 1 << 20, 8000);
    bench.neighbour("c", 1 << 20, 8000);
    let passed = bench.peer("a", Message::Void { header: header(1, &["a", "b", "c"], 1) });
    assert!(matches!(sent(&passed)[..], [("c", Message::Void { .. })]), "{passed:?}");
    assert!(kms(&passed).any(|request| matches!(request, KmsRequest::Settle { .. })), "{passed:?}");
    let mut bench = Bench::new("c", Settings::default());
    bench.neighbour("b", 1 << 20, 8000);
    bench.peer("b", carry(1, &["a", "b", "c"], 2));
    bench.disk.clear();
    bench.restart();
    bench.neighbour("b", 1 << 20, 8000);
    let asked = bench.peer("b", Message::Void { header: header(1, &["a", "b", "c"], 2) });
    assert!(sent(&asked).is_empty() && kms(&asked).any(|request| matches!(request, KmsRequest::Void { .. })));
    let voided = bench.answer(KmsAnswer::Voided { transfer: TransferId([1; 16]) });
    assert!(matches!(sent(&voided)[..], [("b", Message::Ack { status: AckStatus::Voided, .. })]), "{voided:?}");
}

#[test]
fn a_payload_is_neither_kept_nor_printed() {
    let mut bench = between(1 << 20, Settings::default());
    let mut actions = bench.peer("a", carry(0xab, &["a", "b", "c"], 1));
    actions.extend(
        bench.answer(KmsAnswer::Sealed { transfer: TransferId([0xab; 16]), payload: Payload(vec![171; 4120]) }),
    );
    let json = serde_json::to_string(&bench.disk.values().collect::<Vec<_>>()).unwrap();
    assert!(json.len() < 1000, "{json}");
    assert!(format!("{actions:?}").contains("Payload(4120 bytes)") && !format!("{actions:?}").contains("171, 171"));
}

#[test]
fn a_carry_after_its_void_is_answered_and_never_forwarded() {
    let mut bench = between(1 << 20, Settings::default());
    bench.peer("a", Message::Void { header: header(1, &["a", "b", "c"], 1) });
    let status = AckStatus::Voided;
    let voided = bench.peer("c", Message::Ack { header: header(1, &["a", "b", "c"], 1), status, refusal: None });
    assert!(matches!(sent(&voided)[..], [("a", Message::Ack { status: AckStatus::Voided, .. })]));
    bench.restart();
    bench.neighbour("a", 1 << 20, 8000);
    bench.neighbour("c", 1 << 20, 8000);
    let late = bench.peer("a", carry(1, &["a", "b", "c"], 1));
    assert!(matches!(sent(&late)[..], [("a", Message::Ack { status: AckStatus::Voided, .. })]), "{late:?}");
    assert_eq!(kms(&late).count(), 0);
}

#[test]
fn a_void_follows_the_key_as_far_as_it_went() {
    let mut bench = between(1 << 20, Settings::default());
    bench.peer("a", carry(1, &["a", "b", "c"], 1));
    bench.answer(sealed(TransferId([1; 16])));
    for _ in 0..2 {
        let passed = bench.peer("a", Message::Void { header: header(1, &["a", "b", "c"], 1) });
        assert!(matches!(sent(&passed)[..], [("c", Message::Void { header })] if header.hop == 2), "{passed:?}");
    }
    let status = AckStatus::Voided;
    let back = bench.peer("c", Message::Ack { header: header(1, &["a", "b", "c"], 1), status, refusal: None });
    assert!(
        matches!(sent(&back)[..], [("a", Message::Ack { status: AckStatus::Voided, header, .. })] if header.hop == 0)
    );
}

#[test]
fn an_origin_that_does_not_know_a_transfer_has_it_dropped() {
    let mut bench = Bench::new("a", Settings::default());
    bench.neighbour("b", 1 << 20, 8000);
    let message = Message::Ack { header: header(7, &["a", "b", "c"], 0), status: AckStatus::Relayed, refusal: None };
    assert!(matches!(sent(&bench.peer("b", message))[..], [("b", Message::Void { .. })]));
}

#[test]
fn a_released_key_stays_key_and_a_void_one_void_whatever_comes_later() {
    for relayed_first in [true, false] {
        let (mut bench, group) = Bench::origin();
        bench.answer(sealed(group));
        let Some(Record::Outgoing(record)) = bench.disk.get(&RecordKey::Outgoing(group)).cloned() else { panic!() };
        let header = Header { path: record.shares[0].path.clone(), ..header(group.0[0], &["a", "b", "c"], 0) };
        let ack = |status| Message::Ack { header: header.clone(), status, refusal: None };
        let mut order = [AckStatus::Relayed, AckStatus::Failed];
        if !relayed_first {
            order.reverse();
        }
        let mut actions = bench.peer("b", ack(order[0]));
        bench.restart();
        bench.neighbour("b", 1 << 20, 1_000_000);
        actions.extend(bench.peer("b", ack(order[1])));
        bench.now_ms += 60_000;
        actions.extend(bench.give(Input::Tick));
        let released = kms(&actions).any(|request| matches!(request, KmsRequest::Release { .. }));
        let voided = kms(&actions).any(|request| matches!(request, KmsRequest::Void { .. }));
        assert_eq!((released, voided), (relayed_first, !relayed_first));
    }
}

#[test]
fn a_key_without_an_answer_is_void_after_the_time_allowed() {
    let (mut bench, group) = Bench::origin();
    bench.answer(sealed(group));
    while bench.now_ms < 1000 + bench.settings.doubt_ms {
        bench.now_ms = bench.relay.next_deadline_ms(bench.now_ms);
        bench.give(Input::Tick);
    }
    let Some(Record::Outgoing(record)) = bench.disk.get(&RecordKey::Outgoing(group)) else { panic!() };
    assert_eq!(record.stage, OutgoingStage::Voiding(VoidReason::InDoubt));
}

#[test]
fn a_site_leaves_a_reserve_and_takes_no_more_than_its_share_of_a_pool_that_starves() {
    let settings = Settings { incoming_max: 4096, incoming_per_neighbour_max: 4096, ..Settings::default() };
    let taken = |bench: &mut Bench, first: u8, count: u8| {
        let ids = first..first + count;
        ids.filter(|id| kms(&bench.peer("a", carry(*id, &["a", "b", "c"], 1))).count() == 1).count()
    };
    let mut bench = between(settings.reserve_bytes + 4095, settings.clone());
    assert_eq!(taken(&mut bench, 1, 10), 0, "the reserve is for others");
    let mut bench = between(settings.scarce_bytes + 2 * 4096, settings.clone());
    assert_eq!(taken(&mut bench, 1, 10), 3, "down to where it starves");
    bench.now_ms += 16_384;
    // 8000 bit/s for 16.384 s are 16384 bytes, half of them for the relay.
    assert_eq!(taken(&mut bench, 20, 10), 2);
    let refused = bench.peer("a", carry(99, &["a", "b", "c"], 1));
    let reason = RefusalReason::Insufficient;
    assert!(matches!(
        sent(&refused)[..],
        [("a", Message::Ack { status: AckStatus::Failed, refusal: Some(refusal), .. })] if *refusal == Refusal { hop: 1, reason }
    ));
}

#[test]
fn a_crowded_site_refuses_and_one_neighbour_cannot_crowd_out_another() {
    let settings = Settings { incoming_max: 6, incoming_per_neighbour_max: 4, ..Settings::default() };
    let mut bench = between(1 << 20, settings);
    for id in 1..=4 {
        assert_eq!(kms(&bench.peer("a", carry(id, &["a", "b", "c"], 1))).count(), 1);
    }
    let refused = bench.peer("a", carry(5, &["a", "b", "c"], 1));
    assert!(matches!(
        sent(&refused)[..],
        [("a", Message::Ack { refusal: Some(Refusal { reason: RefusalReason::Busy, .. }), .. })]
    ));
    assert_eq!(kms(&bench.peer("c", carry(6, &["c", "b", "a"], 1))).count(), 1);
    // What is void makes room.
    bench.peer("a", Message::Void { header: header(1, &["a", "b", "c"], 1) });
    assert_eq!(kms(&bench.peer("a", carry(7, &["a", "b", "c"], 1))).count(), 1);
    assert_eq!(bench.relay.known_transfers(), (0, 5));
}

#[test]
fn messages_that_do_not_fit_their_path_are_dropped_and_counted() {
    let mut bench = between(1 << 20, Settings::default());
    let cases: [(&str, Message, Rejection); 6] = [
        ("z", carry(1, &["z", "b", "c"], 1), Rejection::UnknownNeighbour { from: site("z") }),
        ("a", carry(1, &["a", "c", "b"], 1), Rejection::NotOnPath),
        ("a", carry(1, &["a", "b", "c"], 200), Rejection::NotOnPath),
        ("c", carry(1, &["a", "b", "c"], 1), Rejection::WrongSender),
        ("a", Message::Settled { header: header(1, &["a", "b", "c"], 1) }, Rejection::WrongSender),
        ("a", carry(1, &["b", "a"], 0), Rejection::WrongSender),
    ];
    for (from, message, why) in cases {
        let actions = bench.peer(from, message.clone());
        assert_eq!(rejections(&actions), [&why], "{message:?}");
        assert_eq!(actions.len(), 1);
    }
    bench.peer("a", carry(1, &["a", "b", "c"], 1));
    bench.neighbour("d", 1 << 20, 8000);
    let other = bench.peer("d", carry(1, &["d", "b", "c"], 1));
    assert_eq!(rejections(&other), [&Rejection::OtherTransfer]);
    assert_eq!(bench.relay.counters().wrong_sender, 3);
}

#[test]
fn a_repeated_carry_is_resealed_and_passed_on_again() {
    let mut bench = between(1 << 20, Settings::default());
    let transfer = TransferId([1; 16]);
    for again in [false, true, true] {
        bench.now_ms += 2000;
        let asked = bench.peer("a", carry(1, &["a", "b", "c"], 1));
        assert!(matches!(kms(&asked).collect::<Vec<_>>()[..], [KmsRequest::Reseal { .. }]));
        let doubled = bench.peer("a", carry(1, &["a", "b", "c"], 1));
        assert_eq!(doubled, [], "the KMS is at it");
        if again {
            bench.restart();
            bench.neighbour("a", 1 << 20, 8000);
            bench.neighbour("c", 1 << 20, 8000);
        }
        let passed = bench.answer(sealed(transfer));
        assert!(matches!(sent(&passed)[..], [("c", Message::Carry { header, .. })] if header.hop == 2), "{passed:?}");
    }
}

#[test]
fn what_waited_for_a_neighbour_is_repeated_when_it_comes_back() {
    let (mut bench, group) = Bench::origin();
    bench.answer(sealed(group));
    bench.now_ms += 10;
    bench.give(Input::Neighbour { site: site("b"), state: NeighbourState::default() });
    bench.now_ms += 10;
    bench.neighbour("b", 1 << 20, 1_000_000);
    bench.now_ms = bench.relay.next_deadline_ms(bench.now_ms);
    assert!(bench.now_ms < 1000 + 100, "{}", bench.now_ms);
    let again = bench.give(Input::Tick);
    assert!(kms(&again).any(|request| matches!(request, KmsRequest::Originate { .. })));
}
