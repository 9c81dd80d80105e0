//! What endpoints, modules and relays say to each other, as those who hear it understand it.

use bytes::Bytes;
use distill::auth::frame::Kind;
use distill::auth::{Action, Endpoint, EndpointConfig, Frame, Layout, MaskKey, MemoryReserve, Reserve, Side, TagField};
use distill::bits::Bits;
use distill::cascade::{Answer, Corrector, Parameters, Query, Reference};
use distill::pipeline::{FrameInput, Hello, Module, Offer, PeerInput, SessionStart, Setpoints};
use module::Counting;
use module::light::Frames as _;
use prost::Message as _;
use proto::kms::v1::RelayAnswer;
use proto::relay::v1::RelayMessage;
use proto::source::v1::PhotonEpoch;
use topology::plan::ModuleConfig;

use crate::engine::{Target, verdict};
use crate::light::counted;
use crate::people::{plan, plan_at_counts};

#[test]
fn frames_of_the_channel_come_out_as_they_went_in() {
    let tag = Some(TagField { number: 3, tag: [9; 16] });
    let frame = |kind, payload: &'static [u8], tag| {
        Frame { kind, session: 7, step: 8, payload: Bytes::from_static(payload), tag, repeated: false }
            .encode()
            .to_vec()
    };
    let good = vec![
        frame(Kind::Hello, b"hello", None),
        frame(Kind::Challenge, b"", None),
        frame(Kind::Bundle, b"what a module says", tag),
        frame(Kind::Close, b"", None),
        frame(Kind::Hello, b"hello", Some(TagField { number: 0, tag: [7; 16] })),
        frame(Kind::Proof, b"check, 16 bytes.", tag),
    ];
    Target::new("frames", good).fuzz(|input| {
        let bytes = Bytes::copy_from_slice(input);
        let frame = Frame::decode(&bytes);
        if let Ok(frame) = &frame {
            assert_eq!(frame.encode(), bytes);
        }
        verdict(&frame)
    });
}

/// The frames among what an endpoint does.
fn sent(actions: Vec<Action>) -> Vec<Bytes> {
    let frame = |action| if let Action::Send(frame) = action { Some(frame) } else { None };
    actions.into_iter().filter_map(frame).collect()
}

#[test]
fn an_endpoint_takes_any_frame_or_refuses_it_and_spends_nothing_on_it() {
    let key = MaskKey::new([3; 32]);
    let end = |side| {
        let reserve = MemoryReserve::new(side, Layout::new(4), &bits(5, 0)).unwrap().with_mask_key(key.clone());
        Endpoint::new(EndpointConfig { side }, reserve)
    };
    // An initiator that is greeting, and what its peer says to that, from its hello to a tag.
    let greeting = || {
        let mut initiator = end(Side::Initiator);
        let hello = sent(initiator.open(7, &Bytes::from_static(b"module")).unwrap());
        (initiator, hello)
    };
    let mut responder = end(Side::Responder);
    let mut good = sent(responder.open(9, &Bytes::from_static(b"other")).unwrap());
    let (mut initiator, hello) = greeting();
    let mut said = hello;
    for _ in 0..3 {
        let answers: Vec<Bytes> = said.drain(..).flat_map(|frame| sent(responder.receive(&frame))).collect();
        said = answers.iter().flat_map(|frame| sent(initiator.receive(frame))).collect();
        good.extend(answers);
    }
    good.extend(sent(responder.send(0, Bytes::from_static(b"a round"), true).unwrap()));
    assert!(initiator.session().is_some() && good.len() > 3);
    let good = good.iter().map(|frame| frame.to_vec()).collect();
    Target::new("endpoints", good).fuzz(|input| {
        let (mut greets, _) = greeting();
        let answers = greets.receive(&Bytes::copy_from_slice(input));
        assert_eq!((greets.reserve().next_send(), greets.reserve().is_rolled_back()), (0, false));
        answers.iter().map(|action| format!("{action:?}").chars().take(12).collect::<String>()).collect()
    });
}

const BITS: usize = 4096;

fn bits(seed: u64, errors: u64) -> Bits {
    let mut word = seed;
    let mut words = Vec::new();
    for _ in 0..BITS / 64 {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        words.push(word ^ ((1 << (word % 64)) * errors));
    }
    Bits::from_words(words, BITS)
}

fn parameters() -> Parameters {
    Parameters { qber: 0.04, seed: 11 }
}

#[test]
fn questions_about_parities_are_answered_or_refused() {
    let mut corrector = Corrector::new(vec![bits(1, 1), bits(2, 1)], &parameters());
    let mut reference = Reference::new(vec![bits(1, 0), bits(2, 0)], &parameters());
    let mut good = vec![corrector.start().into_bytes()];
    for _ in 0..4 {
        let answer = reference.answer(&Query::from_bytes(good[good.len() - 1].clone()).unwrap()).unwrap();
        match corrector.next(&answer).unwrap() {
            Some(query) => good.push(query.into_bytes()),
            None => break,
        }
    }
    let first = good[0].clone();
    Target::new("questions", good).fuzz(|input| {
        let mut reference = Reference::new(vec![bits(1, 0), bits(2, 0)], &parameters());
        let asked = reference.answer(&Query::from_bytes(first.clone()).unwrap());
        assert!(asked.is_ok());
        let answer = Query::from_bytes(input.to_vec()).and_then(|query| reference.answer(&query));
        let told: u64 = reference.leaked_bits().iter().sum();
        assert!(told <= 2 * BITS as u64, "{told} parities told");
        verdict(&answer)
    });
}

#[test]
fn answers_about_parities_are_taken_or_refused() {
    let mut reference = Reference::new(vec![bits(1, 0), bits(2, 0)], &parameters());
    let first = Corrector::new(vec![bits(1, 1), bits(2, 1)], &parameters()).start();
    let good = vec![reference.answer(&first).unwrap().into_bytes()];
    Target::new("answers", good).fuzz(|input| {
        let mut corrector = Corrector::new(vec![bits(1, 1), bits(2, 1)], &parameters());
        corrector.start();
        verdict(&Answer::from_bytes(input.to_vec()).and_then(|answer| corrector.next(&answer)))
    });
}

fn modules() -> Vec<ModuleConfig> {
    plan("nice-50km.yaml").modules().cloned().collect()
}

/// The frame of an end of such a link at the fidelity of counts.
fn counted_frame(half: &[u8]) -> FrameInput {
    let epoch = PhotonEpoch { counts: vec![half.to_vec().into()], ..PhotonEpoch::default() };
    Counting::new(None).take(epoch).unwrap().remove(0)
}

#[test]
fn a_module_at_counts_takes_any_bundle_of_its_peer_or_refuses_it() {
    let ends = ["nice-50km.yaml", "t12-50km.yaml", "quantum-dot-18.yaml"].map(|topology| {
        let modules: Vec<ModuleConfig> = plan_at_counts(topology).modules().cloned().collect();
        modules.into_iter().zip(counted(topology)).collect::<Vec<_>>()
    });
    let ends: Vec<(ModuleConfig, Vec<u8>)> = ends.into_iter().flatten().collect();
    let begun = |(config, half): &(ModuleConfig, Vec<u8>)| {
        let mut module = Module::new(&config.protocol, &start(), [1; 32]);
        let said = module.step(Some(counted_frame(half)), None).unwrap().payload;
        (module, said)
    };
    let good = ends.iter().map(|end| begun(end).1).collect();
    Target { share: 3, ..Target::new("bundles at counts", good) }.fuzz(|input| {
        let said = ends.iter().map(|end| {
            let (mut module, _) = begun(end);
            let peer = PeerInput { payload: input.to_vec().into(), authenticated: true };
            let said = verdict(&module.step(None, Some(peer)).map(|_| ()));
            module.void();
            said
        });
        said.collect::<Vec<_>>().join(", ")
    });
}

fn start() -> SessionStart {
    SessionStart {
        first_block: 0,
        in_doubt: None,
        peer_committed_end: 0,
        own_committed_end: 0,
        latency_steps: 8,
        setpoints: Setpoints::default(),
    }
}

#[test]
fn a_module_takes_any_bundle_of_its_peer_or_refuses_it() {
    let modules = modules();
    let start = start();
    let step = |config: &ModuleConfig, peer: Option<Vec<u8>>| {
        let mut module = Module::new(&config.protocol, &start, [1; 32]);
        let first = module.step(None, None).unwrap().payload;
        let Some(payload) = peer else { return (first, "good".to_owned()) };
        // What is not authenticated yet and what is: both may be anything.
        let mut said = String::new();
        for authenticated in [false, true] {
            let peer = PeerInput { payload: payload.clone().into(), authenticated };
            said = verdict(&module.step(None, Some(peer)).map(|_| ()));
            if said != "good" {
                break;
            }
        }
        module.void();
        (first, said)
    };
    let mut good: Vec<Vec<u8>> = modules.iter().map(|config| step(config, None).0).collect();
    // Step 0 with two empty replies, or with an empty X reply and a trace; step 1 of a peer that is done.
    good.push(b"\x52\x08\x08\x01\x12\x04\x12\x00\x12\x00".to_vec());
    good.push(b"\x52\x06\x08\x01\x12\x02\x1a\x00\x4a\x0300-".to_vec());
    good.push(b"\x08\x01\x30\x01\x38\x04\x40\x01".to_vec());
    // The end of a round that is not full, and a block with each of its steps.
    good.push(b"\x52\x06\x08\x01\x12\x02\x20\x05".to_vec());
    for step in [&b"\x22\x01\x00"[..], b"\x2a\x01\x00", b"\x32\x03\x1a\x01\x02", b"\x40\x01", b"\x48\x01"] {
        good.push([&[0x2a, step.len() as u8 + 2, 0x08, 0x00], step].concat());
    }
    Target { share: 3, ..Target::new("bundles", good) }.fuzz(|input| {
        let said: Vec<String> = modules.iter().map(|config| step(config, Some(input.to_vec())).1).collect();
        said.join(", ")
    });
}

#[test]
fn greetings_are_decoded_and_encoded_alike() {
    let stretches = vec![Offer::new(7, &[8; 32]), Offer::new(6, &[9; 32])];
    let hello = Hello { next_block: 1, next_epoch: 2, committed_end: 3, protocol: 4, dialogue: 5, stretches };
    Target::new("greetings", vec![hello.encode_bytes()]).fuzz(|input| {
        let greeting = Hello::decode_bytes(input);
        if let Ok(greeting) = &greeting {
            // Whatever the peer names, a session begins with what this end has, or with nothing.
            assert!([0, 6, 7].contains(&hello.carries(greeting).unwrap_or_default()));
            assert_eq!(Hello::decode_bytes(&greeting.encode_bytes()).ok().as_ref(), Some(greeting));
        }
        verdict(&greeting)
    });
}

#[test]
fn messages_of_relays_are_understood_or_dropped() {
    use proto::relay::v1 as wire;
    let header = wire::Header {
        transfer: vec![3; 16].into(),
        group: vec![3; 16].into(),
        share: 0,
        of: 1,
        bytes: 1024,
        path: ["a", "b", "c"].map(str::to_owned).to_vec(),
        hop: 1,
    };
    let message = |what| RelayMessage { message: Some(what) }.encode_to_vec();
    use wire::relay_message::Message as What;
    let link = wire::LinkLevel { site: "b".to_owned(), stored_bytes: 9, rate_bps: 10, up: true };
    let good = vec![
        message(What::Carry(wire::Carry {
            header: Some(header.clone()),
            payload: vec![1; 1100].into(),
            traceparent: String::new(),
        })),
        message(What::Acknowledge(wire::Acknowledge { header: Some(header.clone()), status: 1, refusal: None })),
        message(What::Void(wire::VoidTransfer { header: Some(header.clone()) })),
        message(What::Settle(wire::Settle { header: Some(header) })),
        message(What::LinkState(wire::LinkState { site: "a".to_owned(), incarnation: 1, seq: 2, links: vec![link] })),
    ];
    Target::new("messages of relays", good).fuzz(|input| {
        let Ok(heard) = RelayMessage::decode(input) else { return "no message".to_owned() };
        let understood = relay::messages::message_of(heard);
        if let Ok((message, trace)) = &understood {
            let again = relay::messages::message_of(relay::messages::message(message.clone(), trace.clone()));
            assert_eq!(again.as_ref().ok(), Some(&(message.clone(), trace.clone())));
        }
        verdict(&understood.map(|_| ()))
    });
}

#[test]
fn answers_of_a_key_store_fit_what_its_relay_asked_or_are_nothing() {
    use proto::kms::v1::relay_answer::What;
    use transfer::{Header, KmsRequest, Path, Payload, SiteName, TransferId};
    let site = |name: &str| SiteName::parse(name).unwrap();
    let sites = ["a", "b", "c"].map(site).to_vec();
    let id = TransferId([3; 16]);
    let header =
        Header { transfer: id, group: id, share: 0, of: 1, bytes: 99, path: Path::new(sites).unwrap(), hop: 1 };
    let payload = || Payload(vec![1; 140]);
    let asked = [
        KmsRequest::Reseal { header: header.clone(), payload: payload(), from: site("a"), to: site("c") },
        KmsRequest::Deliver { header, payload: payload(), from: site("a") },
        KmsRequest::Void { group: id, transfers: vec![id] },
        KmsRequest::Release { group: id, transfers: vec![id] },
        KmsRequest::Settle { group: id, transfer: id },
    ];
    let answer = |what| RelayAnswer { request: 1, what: Some(what) }.encode_to_vec();
    let voided = proto::kms::v1::VoidResult { voided: vec![vec![3; 16].into()], not_voided: vec![vec![4; 16].into()] };
    let good = vec![
        answer(What::Sealed(vec![1; 200].into())),
        answer(What::Done(proto::kms::v1::Done {})),
        answer(What::Refused(2)),
        answer(What::Voided(voided)),
    ];
    Target::new("answers of key stores", good).fuzz(|input| {
        let Ok(heard) = RelayAnswer::decode(input) else { return "no message".to_owned() };
        asked
            .iter()
            .map(|request| if relay::messages::answers(request, &heard).is_some() { 'y' } else { 'n' })
            .collect()
    });
}

/// Between reports; the byte before each says which source speaks.
const BETWEEN: &[u8] = b"\xfe\xed\xfa\xce";

#[test]
fn a_pacer_takes_any_report_or_sends_its_source_away() {
    use pacer::time::{NetworkTime, Place};
    use proto::pace::v1::report::Report as What;
    use proto::pace::v1::{Emitting, Idle, Join, Report};
    const SOURCES: usize = 3;
    const SKEW_PS: u64 = 1_000_000;
    let report = |source: u8, what| [&[source][..], &Report { report: Some(what) }.encode_to_vec(), BETWEEN].concat();
    let join = |source, at_ps| report(source, What::Join(Join { number: 1, at_ps }));
    let emits =
        |source, reached_ps, wants_ps| report(source, What::Emitting(Emitting { number: 1, reached_ps, wants_ps }));
    let idle = |source, reached_ps| report(source, What::Idle(Idle { reached_ps }));
    let good = vec![
        [join(0, 0), join(1, 0), join(2, 500_000), emits(0, 900_000, 1_200_000), emits(1, 400_000, 0)].concat(),
        [emits(0, 1 << 50, 0), join(1, 7), idle(2, 0), emits(0, (1 << 50) + 9, 0), join(2, 0)].concat(),
        [join(0, 0), idle(1, 0), idle(2, 9), emits(0, 20, 0), idle(0, 40), join(0, 40)].concat(),
    ];
    Target { share: 2, ..Target::new("reports to the pacer", good) }.fuzz(|input| {
        let (mut time, mut said) = (NetworkTime::new(SOURCES, SKEW_PS), String::new());
        let mut rest = input;
        while let Some((source, after)) = rest.split_first() {
            let end = after.windows(BETWEEN.len()).position(|part| part == BETWEEN).unwrap_or(after.len());
            let (message, source) = (&after[..end], usize::from(*source) % SOURCES);
            rest = after.get(end + BETWEEN.len()..).unwrap_or_default();
            let (before_ps, mut grants) = (time.network_ps(), Vec::new());
            match Report::decode(message).ok().and_then(|report| report.report) {
                Some(report) => {
                    if let Err(refusal) = time.report(source, report.into(), &mut grants) {
                        said = refusal.to_string();
                        time.lost(source, &mut grants);
                    }
                }
                None => time.lost(source, &mut grants),
            }
            assert!(time.network_ps() >= before_ps, "the network's time goes back");
            for (told, grant) in grants {
                assert!(told < SOURCES && grant.network_ps <= time.network_ps());
                assert!(grant.limit_ps <= time.network_ps().saturating_add(SKEW_PS), "a source may go too far");
            }
        }
        let emitting = time.places().iter().filter(|place| matches!(place, Place::Emitting(_))).count();
        format!("{said} {emitting}")
    });
}
