//! A neighbour that says anything.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use transfer::{
    AckStatus, Action, Header, Input, KmsAnswer, KmsRequest, LinkReport, LinkState, Message, NeighbourState, Path,
    Payload, Refusal, RefusalReason, Relay, Settings, SiteName, TransferId,
};

const SITES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn name(at: usize) -> SiteName {
    SiteName::parse(SITES[at]).unwrap()
}

fn id() -> impl Strategy<Value = TransferId> {
    (0_u8..6).prop_map(|id| TransferId([id; 16]))
}

fn path() -> impl Strategy<Value = Path> {
    let sites = Just((0..SITES.len()).collect::<Vec<_>>()).prop_shuffle();
    (sites, 2..=SITES.len())
        .prop_map(|(sites, length)| Path::new(sites[..length].iter().map(|at| name(*at)).collect()).unwrap())
}

fn header() -> impl Strategy<Value = Header> {
    let numbers = (0_u8..4, 0_u8..4, prop_oneof![Just(256_u32), 0..20_000_u32], 0_u8..8);
    (id(), id(), any::<bool>(), path(), numbers).prop_map(|(transfer, group, alone, path, (share, of, bytes, hop))| {
        let (group, share, of) = if alone { (transfer, 0, 1) } else { (group, share, of) };
        Header { transfer, group, share, of, bytes, path, hop }
    })
}

fn status() -> impl Strategy<Value = AckStatus> {
    use AckStatus::{Failed, FailedToVoid, KeyNotPresent, Relayed, Voided};
    prop::sample::select(vec![Relayed, Failed, Voided, FailedToVoid, KeyNotPresent])
}

fn link_state() -> impl Strategy<Value = LinkState> {
    let number = || prop_oneof![0..4_u64, any::<u64>()];
    let link = (0..SITES.len(), number(), number(), any::<bool>());
    let links = proptest::collection::vec(link, 0..8);
    (0..SITES.len(), number(), number(), links).prop_map(|(site, incarnation, seq, links)| LinkState {
        site: name(site),
        incarnation,
        seq,
        links: links
            .into_iter()
            .map(|(at, stored_bytes, rate_bps, up)| LinkReport { neighbour: name(at), stored_bytes, rate_bps, up })
            .collect(),
    })
}

fn message() -> impl Strategy<Value = Message> {
    let payload = prop_oneof![Just(300_usize), Just(0), Just(30_000)];
    let refusal = proptest::option::of(any::<u8>().prop_map(|hop| Refusal { hop, reason: RefusalReason::Unknown }));
    prop_oneof![
        4 => (header(), payload).prop_map(|(header, length)| Message::Carry { header, payload: Payload(vec![1; length]) }),
        4 => (header(), status(), refusal).prop_map(|(header, status, refusal)| Message::Ack { header, status, refusal }),
        2 => header().prop_map(|header| Message::Void { header }),
        2 => header().prop_map(|header| Message::Settle { header }),
        2 => header().prop_map(|header| Message::Settled { header }),
        2 => link_state().prop_map(Message::LinkState),
    ]
}

fn answer() -> impl Strategy<Value = KmsAnswer> {
    (id(), 0..6).prop_map(|(transfer, which)| match which {
        0 => KmsAnswer::Sealed { transfer, payload: Payload(vec![2; 300]) },
        1 => KmsAnswer::Delivered { transfer },
        2 => KmsAnswer::Refused { transfer, reason: RefusalReason::BadTag },
        3 => KmsAnswer::Released { group: transfer },
        4 => KmsAnswer::Voided { transfer },
        _ => KmsAnswer::NotVoided { transfer },
    })
}

fn input() -> impl Strategy<Value = Input> {
    let state = (any::<bool>(), prop_oneof![Just(0), Just(100_000), any::<u64>()], any::<u64>());
    prop_oneof![
        12 => (0..SITES.len(), message()).prop_map(|(from, message)| Input::Peer { from: name(from), message }),
        4 => answer().prop_map(Input::Kms),
        1 => (0..SITES.len(), state).prop_map(|(site, (connected, stored_bytes_out, rate_bps))| Input::Neighbour {
            site: name(site),
            state: NeighbourState { connected, stored_bytes_out, stored_bytes_in: 0, rate_bps },
        }),
        1 => (0..SITES.len(), any::<u64>(), 0..4_u8).prop_map(|(target, high_water_bytes, shares)| Input::Want {
            target: name(target),
            level_bytes: 0,
            low_water_bytes: high_water_bytes / 2,
            high_water_bytes,
            shares,
        }),
        1 => Just(Input::Tick),
    ]
}

fn relay(settings: Settings) -> (Relay, impl FnMut() -> [u8; 16]) {
    let mut relay = Relay::new(name(1), settings);
    let mut next = 0_u8;
    let mut ids = move || {
        next = (next + 1) % 6;
        [next; 16]
    };
    for site in [0, 2, 3] {
        let state =
            NeighbourState { connected: true, stored_bytes_out: 1 << 30, stored_bytes_in: 0, rate_bps: 1_000_000 };
        relay.handle(0, Input::Neighbour { site: name(site), state }, &mut ids);
    }
    (relay, ids)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_said_breaks_a_relay_or_its_limits(
        inputs in proptest::collection::vec((0..5000_u64, input()), 1..200),
    ) {
        let settings = Settings { incoming_max: 4, incoming_per_neighbour_max: 3, sites_max: 5, ..Settings::default() };
        let (mut relay, mut ids) = relay(settings);
        let mut now_ms = 0;
        let mut records = std::collections::BTreeMap::new();
        for (wait_ms, input) in inputs {
            now_ms += wait_ms;
            for action in relay.handle(now_ms, input, &mut ids) {
                match action {
                    Action::Persist(record) | Action::Note(record) => drop(records.insert(record.key(), record)),
                    Action::Forget(key) | Action::Drop(key) => drop(records.remove(&key)),
                    Action::Send { to, .. } => prop_assert!(to != name(1)),
                    Action::Kms(KmsRequest::Reseal { header, from, to, payload }) => {
                        prop_assert!(header.check().is_ok() && from != to && payload.0.len() == 300);
                        prop_assert_eq!(header.path.get(usize::from(header.hop)), Some(&name(1)));
                    }
                    _ => {}
                }
            }
            prop_assert!(relay.known_transfers().1 <= 4);
            prop_assert!(relay.next_deadline_ms(now_ms) > now_ms);
        }
        let restored = Relay::restore(name(1), Settings::default(), records.into_values(), now_ms);
        prop_assert!(restored.known_transfers().1 <= relay.known_transfers().1);
        prop_assert_eq!(restored.known_transfers().0, relay.known_transfers().0);
    }

    #[test]
    fn text_is_a_site_name_or_an_error(text in ".{0,70}") {
        let sound = !text.is_empty() && text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-')
            && text.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-');
        prop_assert_eq!(SiteName::parse(&text).is_ok(), sound);
        let json = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(serde_json::from_str::<SiteName>(&json).is_ok(), sound);
    }
}
