//! Both halves through the pipeline: key at both ends, or none.

use distill::bounds;
use distill::config::{
    Authentication, Bound, Framing, LinkProtocol, PostProcessing, Reconciliation, Security, Side, Sifting,
};
use distill::ledger::{BlockLedger, Line};
use distill::pipeline::messages::{Amplify, BlockStep, Bundle, KeyErrors};
use distill::pipeline::{Action, FinishedBlock, Module, ModuleError, PeerInput, SessionStart, Setpoints};
use distill::sifting::SiftingError;
use distill::sifting::prepared::config::{Part, Prepared};
use distill::sifting::prepared::recovery::RecoveryError;
use prost::Message;

use crate::halves::{self, Sent, frames, with_part};
use crate::light::{FRAME_PS, Light, decoy, single_photons};

const FRAMES: u64 = 25;
const ROUND_FRAMES: u64 = 10;

fn post_processing(light: &Light) -> PostProcessing {
    PostProcessing {
        framing: Framing { frame_ps: FRAME_PS, round_frames: ROUND_FRAMES },
        reconciliation: Reconciliation { frame_bits: 10_000, initial_qber: 0.03 },
        security: Security {
            bound: Bound::Asymptotic,
            epsilon_secrecy: 1e-10,
            epsilon_correctness: 1e-15,
            tolerated_qber: 0.11,
            emission: light.emission,
        },
        authentication: Authentication::new(64),
    }
}

/// What each end did; the tag of a closed round is taken as verified.
fn run(light: &Light, sent: &Sent) -> Result<[Vec<Action>; 2], ModuleError> {
    let Session { actions, ended, .. } = session(light, sent, 0, FRAMES, &mut |_, _| false);
    match ended {
        None => Ok(actions),
        Some(End::Refused(error)) => Err(error),
        Some(End::Tag) => panic!("nothing was forged"),
    }
}

/// Why a session broke.
#[derive(Debug)]
enum End {
    Refused(ModuleError),
    /// The tag over something that was forged does not verify.
    Tag,
}

/// One meeting of the two ends.
struct Session {
    actions: [Vec<Action>; 2],
    /// Frames that the receiver took.
    frames: u64,
    ended: Option<End>,
    /// Of a session that broke: the rounds that were given up, at each end.
    voided: [Vec<(u64, BlockLedger)>; 2],
}

/// Runs a session of `count` frames from a block on. `forge` may change what an end (0 is the transmitter) says on its
/// way, and says whether it did.
fn session(
    light: &Light,
    sent: &Sent,
    first_block: u64,
    count: u64,
    forge: &mut dyn FnMut(usize, &mut Bundle) -> bool,
) -> Session {
    let start = SessionStart {
        first_block,
        in_doubt: None,
        peer_committed_end: 0,
        own_committed_end: 0,
        latency_steps: 1,
        setpoints: Setpoints::default(),
    };
    let mut modules = [Part::Transmitter, Part::Receiver].map(|part| {
        let sifting = Sifting::Prepared(with_part(&light.config, part));
        let protocol = LinkProtocol { post_processing: post_processing(light), sifting };
        Module::new(&protocol, &start, [if part == Part::Receiver { 1 } else { 2 }; 32])
    });
    let mut frames = frames(light, sent, count).into_iter();
    let (mut said, mut finished, mut actions) = ([None, None], [false; 2], [Vec::new(), Vec::new()]);
    let (mut forged, mut ended, mut taken) = ([false; 2], None, 0);
    for _ in 0..count + 1000 {
        let light = frames.next().map_or([None, None], |pair| pair.map(Some));
        taken += u64::from(light[1].is_some());
        let mut outputs = [None, None];
        for (i, frame) in light.into_iter().enumerate() {
            if finished[i] || ended.is_some() {
                continue;
            }
            let output = match modules[i].step(frame, said[1 - i].take()) {
                Ok(output) => output,
                Err(error) => {
                    ended = Some(End::Refused(error));
                    continue;
                }
            };
            actions[i].extend(output.actions);
            finished[i] = output.finished;
            let mut bundle = Bundle::decode_bytes(output.payload.into()).unwrap();
            forged[i] |= forge(i, &mut bundle);
            if forged[i] && output.close_round {
                ended = Some(End::Tag);
            }
            outputs[i] = Some(PeerInput { payload: bundle.encode_to_vec().into(), authenticated: output.close_round });
        }
        said = outputs;
        if ended.is_some() {
            let voided = modules.each_mut().map(Module::void);
            return Session { actions, frames: taken, ended, voided };
        }
        if finished == [true; 2] {
            return Session { actions, frames: taken, ended, voided: Default::default() };
        }
    }
    panic!("the run does not end");
}

/// Blocks that count, with their key.
fn stored(actions: &[Action]) -> Vec<&FinishedBlock> {
    let commits = |number| actions.iter().any(|a| matches!(a, Action::Commit { block } if *block == number));
    let blocks = actions.iter().filter_map(|action| match action {
        Action::Store(block) => Some(block),
        Action::Prepare(block) if commits(block.number) => Some(block),
        _ => None,
    });
    blocks.collect()
}

/// Reasons for which blocks gave no key; both ends say the same.
fn aborted(actions: &[Vec<Action>; 2]) -> Vec<String> {
    let [one, other] = actions.each_ref().map(|actions| {
        let reason = |action: &Action| match action {
            Action::Abort { reason, ledger, .. } => {
                ledger.check().unwrap();
                Some(reason.clone())
            }
            _ => None,
        };
        actions.iter().filter_map(reason).collect::<Vec<_>>()
    });
    assert_eq!(one, other);
    assert!(actions.iter().all(|actions| stored(actions).is_empty()));
    one
}

#[test]
fn both_ends_make_equal_key_with_decoys_and_with_single_photons() {
    let short = Prepared { preamble_pulses: 1 << 19, ..single_photons() };
    for (light, transmittance) in
        [(Light::new(decoy(Part::Receiver), 31), 0.02), (Light::single_photons(short, 32), 0.5)]
    {
        let light = Light { transmittance, ..light };
        let runs = [0, 1].map(|_| run(&light, &Sent::new(&light.chosen)).unwrap());
        let [sent, seen] = runs[0].each_ref().map(|actions| stored(actions));
        assert!(sent.len() >= 2, "{:?}", runs[0][1]);
        for (own, peer) in sent.iter().zip(&seen) {
            assert_eq!((own.number, own.frames), (peer.number, peer.frames));
            assert!(own.key.len() > 100 && own.key.ct_eq(&peer.key), "block {}", own.number);
            assert_eq!(own.length, peer.length);
            own.ledger.check().unwrap();
            peer.ledger.check().unwrap();
        }
        let again = stored(&runs[1][0]);
        assert!(sent.len() == again.len() && sent.iter().zip(again).all(|(a, b)| a.key.ct_eq(&b.key)));
    }
}

/// With one decoy the vacuum is bounded by errors of the key: which intensity they are of is said once they are
/// corrected.
#[test]
fn errors_of_the_key_are_counted_by_intensity_and_make_the_key_longer() {
    let light = Light::one_decoy(decoy(Part::Receiver), 38);
    let actions = run(&light, &Sent::new(&light.chosen)).unwrap();
    let [sent, seen] = actions.each_ref().map(|actions| stored(actions));
    let halves = halves::run(&light, &Sent::new(&light.chosen), FRAMES, ROUND_FRAMES).unwrap();
    assert_eq!(sent.len(), 3, "{:?}", actions[1]);
    for (own, peer) in sent.iter().zip(&seen) {
        assert!(own.key.ct_eq(&peer.key) && own.length == peer.length && own.ledger.get(Line::FAILED_FRAMES) == 0);
        // What the halves alone say of the same light; random bits of double clicks are others.
        let [sent, seen] = halves.each_ref().map(|end| &end.rounds[own.number as usize]);
        let decoys = sent.decoys.as_ref().unwrap();
        let mut errors = [0, 0];
        let wrong = (0..sent.key.len()).filter(|index| sent.key.get(*index) != seen.key.get(*index));
        wrong.for_each(|index| errors[usize::from(decoys.get(index))] += 1);
        assert!(errors[0] > 3 * errors[1] && errors[1] > 100, "{errors:?}");
        assert!(seen.decoys.is_none());
        let reconciled = bounds::Reconciled {
            key_bits: own.ledger.get(Line::SIFTED_KEY),
            key_errors: own.ledger.get(Line::KEY_ERRORS),
            leaked_bits: own.ledger.get(Line::LEAKED),
            verification_bits: own.ledger.get(Line::VERIFICATION),
        };
        let security = post_processing(&light).security;
        let length = |evidence| bounds::key_length(&security, &evidence, &reconciled).asymptotic as f64;
        let (known, unknown) = (length(sent.evidence.with_key_errors(errors)), length(sent.evidence));
        let found = own.length.asymptotic as f64;
        assert!((found / known - 1.0).abs() < 0.01 && unknown < 0.95 * known, "{found} {known} {unknown}");
    }
}

/// What is said of the key once it is corrected, forged on its way: by whom, and how.
type Forgery = (&'static str, usize, fn(&mut BlockStep) -> bool);

fn of_verify(change: fn(&mut Vec<u8>), step: &mut BlockStep) -> bool {
    let BlockStep::Verify(verify) = step else { return false };
    change(&mut verify.right_before);
    true
}

fn of_amplify(change: fn(&mut KeyErrors), step: &mut BlockStep) -> bool {
    let BlockStep::Amplify(Amplify { key_errors: Some(key_errors), .. }) = step else { return false };
    change(key_errors);
    true
}

#[test]
fn forged_errors_by_intensity_are_refused_or_void_the_round_and_the_next_session_makes_key() {
    let forgeries: [Forgery; 9] = [
        ("no places", 1, |step| of_verify(Vec::clear, step)),
        ("a place less", 1, |step| of_verify(|places| places.truncate(places.len() - 1), step)),
        ("a place more", 1, |step| of_verify(|places| places.push(0), step)),
        ("no number", 1, |step| of_verify(|places| places.push(0xff), step)),
        // As many, one of them elsewhere.
        ("other places", 1, |step| of_verify(|places| places[0] ^= 1, step)),
        ("nothing said", 0, |step| {
            let BlockStep::Amplify(amplify) = step else { return false };
            amplify.key_errors.take().is_some()
        }),
        ("an error more", 0, |step| of_amplify(|errors| errors.signal += 1, step)),
        ("a sum beyond numbers", 0, |step| of_amplify(|errors| errors.signal = u64::MAX, step)),
        // As many in sum.
        ("fewer of decoys", 0, |step| {
            of_amplify(
                |errors| {
                    errors.signal += errors.decoy;
                    errors.decoy = 0;
                },
                step,
            )
        }),
    ];
    let light = Light::one_decoy(decoy(Part::Receiver), 39);
    let sent = Sent::new(&light.chosen);
    for (what, by, change) in forgeries {
        let mut forged = 0;
        let broken = session(&light, &sent, 0, FRAMES, &mut |end, bundle| {
            let steps = bundle.blocks.iter_mut().filter_map(|block| block.step.as_mut());
            let changed = steps.map(|step| end == by && change(step)).filter(|changed| *changed).count();
            forged += changed;
            changed > 0
        });
        let ended = broken.ended.unwrap();
        println!("{what}: {ended:?}");
        assert!(forged > 0);
        match ended {
            End::Refused(error) => assert!(matches!(error, ModuleError::Protocol(_)), "{what}: {error}"),
            End::Tag => assert_eq!(what, "other places"),
        }
        assert!(broken.actions.iter().all(|actions| stored(actions).is_empty()), "{what}");
        for voided in broken.voided {
            let (block, account) = &voided[0];
            account.check().unwrap();
            assert_eq!((*block, account.get(Line::BLOCKS_VOIDED)), (0, 1), "{what}");
            assert!(account.get(Line::VOIDED) > 1000, "{what}");
        }
    }
    let goes_on = session(&light, &sent, 3, FRAMES, &mut |_, _| false);
    let [own, peer] = goes_on.actions.each_ref().map(|actions| stored(actions));
    assert!(own.len() == 3 && own.iter().zip(peer).all(|(own, peer)| own.key.ct_eq(&peer.key)));
}

#[test]
fn errors_by_intensity_that_nobody_asked_for_are_refused() {
    let light = Light::new(decoy(Part::Receiver), 40);
    let broken = session(&light, &Sent::new(&light.chosen), 0, FRAMES, &mut |_, bundle| {
        let steps = bundle.blocks.iter_mut().filter_map(|block| block.step.as_mut());
        let forged = steps.map(|step| match step {
            BlockStep::Amplify(amplify) => amplify.key_errors.replace(KeyErrors::default()).is_none(),
            _ => false,
        });
        forged.filter(|forged| *forged).count() > 0
    });
    assert!(matches!(broken.ended, Some(End::Refused(ModuleError::Protocol(_)))), "{:?}", broken.ended);
}

#[test]
fn a_wrong_preamble_gives_no_key() {
    let mut light = Light::new(decoy(Part::Receiver), 33);
    light.chosen.preamble_key = [7; 32];
    let refused = run(&light, &Sent::new(&light.chosen)).unwrap_err();
    assert!(matches!(refused, ModuleError::Sifting(SiftingError::Pulses(RecoveryError::NoPreamble))), "{refused}");
}

#[test]
fn a_darkness_at_the_start_costs_one_session_however_long_it_is() {
    let (dark, all) = (200, 230);
    let (mut sessions, mut start, mut first_block, mut keys) = (0, 0, 0, 0);
    while start < all {
        let here = Light::new(decoy(Part::Receiver), 41);
        let light = Light { first_frame: start, dark_frames: 0..dark.max(start) - start, transmittance: 5e-3, ..here };
        let session = session(&light, &Sent::new(&light.chosen), first_block, all - start, &mut |_, _| false);
        sessions += 1;
        let [sent, seen] = session.actions.each_ref().map(|actions| stored(actions));
        assert!(sent.len() == seen.len() && sent.iter().zip(&seen).all(|(own, peer)| own.key.ct_eq(&peer.key)));
        keys += sent.len();
        let noted = |action: &&Action, what: &str| matches!(action, Action::Note { name, .. } if *name == what);
        let names = |what: &str| session.actions[1].iter().filter(|action| noted(action, what)).count();
        match session.ended {
            None => assert_eq!((names("locked"), names("no-light")), (1, 0)),
            Some(End::Refused(ModuleError::Sifting(SiftingError::Pulses(RecoveryError::LateLight)))) => {
                assert_eq!((names("locked"), names("no-light")), (0, 1));
                // Rounds without light end without key at both ends; the last one may be under way.
                let without =
                    |actions: &Vec<Action>| actions.iter().filter(|a| matches!(a, Action::Abort { .. })).count();
                assert!(session.actions.iter().all(|actions| without(actions) as u64 >= dark / ROUND_FRAMES - 1));
                assert!(sent.is_empty());
                assert!((dark..dark + 10).contains(&session.frames), "{} frames", session.frames);
            }
            Some(other) => panic!("{other:?}"),
        }
        start += session.frames;
        first_block += session.frames.div_ceil(ROUND_FRAMES);
    }
    assert_eq!(sessions, 2);
    assert!(keys >= 1, "{keys} blocks");
}

#[test]
fn pulses_under_wrong_numbers_give_no_key() {
    let light = Light::new(decoy(Part::Receiver), 34);
    let mut chosen = light.chosen.clone();
    chosen.key = [35; 32];
    let [_, receiver] = halves::run(&light, &Sent::new(&chosen), FRAMES, ROUND_FRAMES).unwrap();
    assert_eq!(receiver.rounds.len(), 3);
    for round in receiver.rounds {
        assert!((round.evidence.qber() - 0.5).abs() < 0.1, "{:?}", round.evidence);
        // Even if nothing had been disclosed to correct the key.
        let key_bits = round.key.len() as u64;
        let reconciled =
            bounds::Reconciled { key_bits, key_errors: key_bits / 2, leaked_bits: 0, verification_bits: 64 };
        let length = bounds::key_length(&post_processing(&light).security, &round.evidence, &reconciled);
        assert!(key_bits > 10_000 && length.chosen == 0 && length.abort.is_some(), "{length:?}");
    }
}

#[test]
fn nothing_in_a_basis_or_of_an_intensity_is_no_crash_and_no_key() {
    let good = Light::new(decoy(Part::Receiver), 36);
    let no_check = Light { z_probability: 1.0, dark_rate_hz: 1.0, ..good.clone() };
    let no_key = Light { z_probability: 0.0, dark_rate_hz: 1.0, ..good.clone() };
    let mut no_decoy = good.clone();
    no_decoy.chosen.probabilities = vec![1.0, 0.0];
    for (what, light) in [("check", no_check), ("key", no_key), ("decoy", no_decoy)] {
        let reasons = aborted(&run(&light, &Sent::new(&light.chosen)).unwrap());
        assert_eq!(reasons.len(), 3, "no {what}: {reasons:?}");
        eprintln!("no {what}: {reasons:?}");
    }
}

#[test]
fn a_protocol_of_pulses_is_written_and_read_again_and_equal_at_both_ends_but_for_the_part() {
    let light = Light::new(decoy(Part::Receiver), 37);
    let [transmitter, receiver] = [Part::Transmitter, Part::Receiver].map(|part| {
        let sifting = Sifting::Prepared(with_part(&light.config, part));
        LinkProtocol { post_processing: post_processing(&light), sifting }
    });
    assert_eq!((transmitter.side(), receiver.side()), (Side::Reference, Side::Corrector));
    assert_eq!((transmitter.part(), receiver.part()), ("transmitter", "receiver"));
    assert_eq!(transmitter.in_common(), receiver.in_common());
    assert_ne!(transmitter, receiver);
    let written = serde_json::to_value(&receiver).unwrap();
    assert_eq!(written["sifting"]["protocol"], "prepared");
    assert_eq!(serde_json::from_value::<LinkProtocol>(written).unwrap(), receiver);
}
