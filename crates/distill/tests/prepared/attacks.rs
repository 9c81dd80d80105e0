//! What hostile messages do to either half: an error, and nothing else.

use std::collections::BTreeMap;

use distill::sifting::prepared::announce::Announcement;
use distill::sifting::prepared::config::{Part, Prepared, Sync};
use distill::sifting::prepared::{MessageError, Said};
use distill::sifting::{Context, SiftingError};
use prost::Message;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::halves::{End, Sent, frames, run};
use crate::light::{Light, decoy};
use crate::mutated::mutated;

const FRAMES: u64 = 6;
const ROUND_FRAMES: u64 = 3;

/// Little light, whose numbers are known at once.
fn light() -> Light {
    let sync = Sync::Distributed { delay_ps: 0.0 };
    let config = Prepared { preamble_pulses: 0, sync, ..decoy(Part::Receiver) };
    let quiet = Light::new(config, 41);
    Light { transmittance: 1e-4, offset_ps: 0.0, frequency: 0.0, drift_per_s: 0.0, dark_rate_hz: 100.0, ..quiet }
}

/// An end after `steps` steps of an honest session, and all that its peer said in the session.
fn after(light: &Light, part: Part, steps: usize, peer_said: &[Vec<u8>]) -> End {
    let mut end = End::new(light, part, ROUND_FRAMES);
    let place = usize::from(part == Part::Receiver);
    let frames = frames(light, &Sent::new(&light.chosen), FRAMES);
    for (step, pair) in frames.into_iter().take(steps).enumerate() {
        let heard = step.checked_sub(1).map(|before| peer_said[before].clone());
        end.step(step as u64, heard, pair.into_iter().nth(place)).unwrap();
    }
    end
}

/// 1e5 messages that were damaged, cut, repeated or said twice.
#[test]
fn damaged_cut_and_replayed_messages_are_errors_or_harmless_and_never_a_panic() {
    let light = light();
    let [transmitter, receiver] = run(&light, &Sent::new(&light.chosen), FRAMES, ROUND_FRAMES).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    eprintln!("seed 42");
    for (part, peer_said) in [(Part::Transmitter, &receiver.said), (Part::Receiver, &transmitter.said)] {
        let (mut refused, mut tried) = (BTreeMap::new(), 0);
        while tried < 50_000 {
            let steps = 1 + rng.next_u32() as usize % (FRAMES as usize - 1);
            let mut end = after(&light, part, steps, peer_said);
            for _ in 0..250 {
                let message = mutated(peer_said, steps, &mut rng);
                tried += 1;
                if message.is_empty() {
                    continue;
                }
                if let Err(error) = end.hear(steps as u64, &message) {
                    let kind: String = error.to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
                    *refused.entry(kind).or_insert(0) += 1;
                }
            }
            let mut voided = end.half.void();
            voided.iter_mut().for_each(|(_, account)| account.check().unwrap());
        }
        let all: i32 = refused.values().sum();
        assert!(all > 25_000 && refused.len() > 5, "{part:?}: {refused:#?}");
    }
}

/// What the transmitter says to the receiver after two frames, changed.
fn forged(change: impl Fn(&mut Said)) -> Result<(), SiftingError> {
    let light = Light { transmittance: 0.02, ..light() };
    let [transmitter, _] = run(&light, &Sent::new(&light.chosen), FRAMES, ROUND_FRAMES).unwrap();
    let mut end = after(&light, Part::Receiver, 3, &transmitter.said);
    let mut said = Said::decode(transmitter.said[2].as_slice()).unwrap();
    change(&mut said);
    end.hear(3, &said.encode_to_vec())
}

fn message_error(result: Result<(), SiftingError>) -> MessageError {
    match result {
        Err(SiftingError::Prepared(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transmitter_cannot_claim_what_does_not_fit() {
    forged(|_| {}).unwrap();
    let intensities = |said: &mut Said| said.replies[0].check_intensities[0] |= 0b11;
    assert!(matches!(message_error(forged(intensities)), MessageError::Intensities { .. }));
    let more = |said: &mut Said| said.replies[0].matches.push(1);
    assert!(matches!(message_error(forged(more)), MessageError::Matches { .. }));
    let bits = |said: &mut Said| said.replies[0].check_bits.push(0);
    assert!(matches!(message_error(forged(bits)), MessageError::CheckBits { .. }));
    let frame = |said: &mut Said| said.replies[0].frame += 1;
    assert!(matches!(message_error(forged(frame)), MessageError::OutOfOrder { .. }));
    let twice = |said: &mut Said| said.replies.push(said.replies[0].clone());
    assert!(forged(twice).is_err());
    let early = |said: &mut Said| said.replies[0].end = Some(Default::default());
    assert!(matches!(forged(early), Err(SiftingError::Protocol(_))));
    let end = |said: &mut Said| said.end_round = Some(Default::default());
    assert!(matches!(forged(end), Err(SiftingError::Protocol(_))));
}

#[test]
fn counts_by_intensity_must_be_those_of_the_key() {
    let light = Light { transmittance: 0.02, ..light() };
    let [transmitter, _] = run(&light, &Sent::new(&light.chosen), FRAMES, ROUND_FRAMES).unwrap();
    let ends = transmitter.said.iter().position(|said| {
        !said.is_empty() && Said::decode(said.as_slice()).unwrap().replies.iter().any(|reply| reply.end.is_some())
    });
    let step = ends.unwrap();
    let forged = |change: &dyn Fn(&mut distill::sifting::prepared::reply::RoundEnd)| {
        let mut end = after(&light, Part::Receiver, step + 1, &transmitter.said);
        let mut said = Said::decode(transmitter.said[step].as_slice()).unwrap();
        said.replies.iter_mut().filter_map(|reply| reply.end.as_mut()).for_each(change);
        end.hear(step as u64 + 1, &said.encode_to_vec())
    };
    forged(&|_| {}).unwrap();
    assert!(matches!(message_error(forged(&|end| end.second += 1)), MessageError::Counts { .. }));
    assert!(matches!(message_error(forged(&|end| end.first = u64::MAX)), MessageError::Counts { .. }));
    assert!(matches!(message_error(forged(&|end| end.frames += 1)), MessageError::RoundEnd { .. }));
    for mismatched in [1, u64::MAX] {
        let change = |end: &mut distill::sifting::prepared::reply::RoundEnd| end.mismatched_second = mismatched;
        assert!(matches!(message_error(forged(&change)), MessageError::Mismatched { .. }));
    }
    // Who says nothing of them is understood.
    forged(&|end| (end.mismatched_first, end.mismatched_second, end.mismatched_third) = (0, 0, 0)).unwrap();
}

#[test]
fn bases_are_not_told_before_the_pulse_was_sent() {
    let light = Light { transmittance: 0.02, ..light() };
    let [_, receiver] = run(&light, &Sent::new(&light.chosen), FRAMES, ROUND_FRAMES).unwrap();
    let mut end = after(&light, Part::Transmitter, 2, &receiver.said);
    // The frames that come after what was sent.
    for announced in &receiver.said[1..4] {
        let mut said = Said::decode(announced.as_slice()).unwrap();
        said.disclosures.clear();
        end.hear(2, &said.encode_to_vec()).unwrap();
    }
    let frame = frames(&light, &Sent::new(&light.chosen), FRAMES).swap_remove(2).into_iter().next();
    let answered = Said::decode(end.step(2, None, frame).unwrap().as_slice()).unwrap();
    assert_eq!(answered.replies.iter().map(|reply| reply.frame).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_receiver_that_announces_and_never_discloses_is_refused() {
    let light = light();
    let frame = frames(&light, &Sent::new(&light.chosen), FRAMES).swap_remove(0).into_iter().next();
    let mut end = End::new(&light, Part::Transmitter, ROUND_FRAMES);
    end.step(0, None, frame).unwrap();
    let announced = |frame: u64| Said {
        announcements: vec![Announcement::new(frame, frame..frame, std::iter::empty())],
        ..Said::default()
    };
    let mut answered = |frame: u64| {
        end.hear(frame + 1, &announced(frame).encode_to_vec())?;
        let mut context = Context { step: frame + 1, rng: &mut end.rng, events: &mut Vec::new() };
        end.half.say(&mut context)
    };
    let refused = (0..10_000).find_map(|frame| answered(frame).err().map(|error| (frame, error)));
    let (frame, error) = refused.unwrap();
    assert!(error.to_string().contains("not disclosed"), "{error}");
    assert_eq!(frame, 4096);
}

#[test]
fn a_message_of_many_empty_parts_takes_no_memory() {
    let mut end = End::new(&light(), Part::Transmitter, ROUND_FRAMES);
    let parts = [0x0a, 0].repeat(10_000_000);
    let refused = end.hear(1, &parts).unwrap_err();
    assert!(refused.to_string().contains("more frames in one message than may wait"), "{refused}");
}
