//! Sifting of light that is drawn as counts: both ends from their own halves alone.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use distill::bits::Bits;
use distill::bounds::{Detections, Evidence};
use distill::config::{Emission, Framing, INTENSITIES, Intensity, Loops, Side, SinglePhotons};
use distill::ledger::{Book, Item, Line};
use distill::loops::Setpoints;
use distill::sifting::counts::{CHECK_BITS_MAX, Counts, Disclosure, FRAME_BITS_MAX, Frame, Half, Labelled, Said};
use distill::sifting::{Context, FrameInput, Light, Reconciled, SiftedRound, Sifting, SiftingError, SiftingStart};
use photonics::expect::prepared::Inputs;
use photonics::expect::pulses::{PulseClass, PulsesInputs};
use photonics::expect::response::{BasisChoice, Counted, Receiver};
use photonics::expect::single_photon::SinglePhotonInputs;
use photonics::expect::{Bbm92Inputs, DetectorModel, Matching, predict};
use photonics::nature::counts::{Emitter, Half as Drawn, Law, Slice, Statistics};
use photonics::random::Subseed;
use proptest::prelude::*;
use prost::Message;
use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::{ChaCha8Rng, ChaCha20Rng};

#[path = "common/mutated.rs"]
mod mutated;
use mutated::mutated;

const ROUND_FRAMES: u64 = 4;
const FRAMES: u64 = 10;

fn receiver() -> Receiver {
    Receiver {
        transmission: 0.05,
        basis_choice: BasisChoice::Passive,
        key_basis_probability: [0.8; 2],
        intrinsic_error: [0.02, 0.03],
        noise_probability: [1e-3; 2],
        afterpulse_probability: 0.0,
        hold_off_pulses: 0.0,
        counted: [Counted::ALL; 2],
    }
}

/// Each kind of link: what is taken for granted of its light, and the law of its counts.
fn links() -> Vec<(Emission, Law)> {
    let intensities = [(0.5, 0.6), (0.1, 0.3), (0.001, 0.1)];
    let decoys = |count: usize| {
        let classes =
            intensities[..count].iter().map(|&(mean_photons, probability)| PulseClass { mean_photons, probability });
        let inputs = PulsesInputs { pulse_rate_hz: 1e6, classes: classes.collect(), receiver: receiver() };
        Law::prepared(&Inputs::Pulses(inputs)).unwrap()
    };
    let of = |place: usize| Intensity { mean_photons: intensities[place].0, probability: intensities[place].1 };
    let dot = SinglePhotons { mean_photons: 0.3, g2: 0.01, key_basis_probability: [0.8; 2] };
    let single = SinglePhotonInputs { pulse_rate_hz: 1e6, mean_photons: 0.3, g2: 0.01, receiver: receiver() };
    let pairs = Bbm92Inputs {
        pair_rate_hz: 1e6,
        transmission: [0.1; 2],
        z_probability: [0.7; 2],
        crosstalk: [0.01; 2],
        analyser_delay_ps: [400.0; 2],
        visibility: 0.95,
        mean_cos_phase: 1.0,
        detectors: [DetectorModel::default(), DetectorModel::default()],
        window_ps: 120.0,
        peak_fwhm_ps: 80.0,
        matching: Matching::default(),
    };
    vec![
        (Emission::Pairs, Law::pairs(&predict(&pairs)).unwrap()),
        (Emission::OneDecoy([of(0), of(1)]), decoys(2)),
        (Emission::TwoDecoys([of(0), of(1), of(2)]), decoys(3)),
        (Emission::SinglePhotons(dot), Law::prepared(&Inputs::SinglePhotons(single)).unwrap()),
    ]
}

/// A second of each.
fn slices(law: Law) -> Vec<Slice> {
    let emitter = Emitter::new(law, 1_000_000_000_000, &Subseed::new([6; 32]));
    (0..FRAMES).map(|epoch| emitter.slice(epoch, 0, 1)).collect()
}

/// What a service makes of a half that the source sends.
fn light(number: u64, drawn: &Drawn) -> FrameInput {
    let labelled = |of: &photonics::nature::counts::Labelled| Labelled {
        bits: Bits::from_words(of.bits.clone(), of.len),
        kinds: of.kinds.iter().map(|plane| Bits::from_words(plane.clone(), of.len)).collect(),
    };
    let drawn = Drawn::decode(&drawn.encode()).unwrap();
    let frame = Frame {
        key: labelled(&drawn.key),
        check: labelled(&drawn.check),
        pulses: drawn.pulses,
        clicks: drawn.clicks,
        mismatched: drawn.mismatched,
        crossed: 2 * drawn.crossed,
        merged: drawn.doubles,
    };
    FrameInput { number, light: Light::Counts(Box::new(frame)), traceparent: String::new() }
}

struct End {
    half: Half,
    rounds: Vec<SiftedRound>,
    said: Vec<Vec<u8>>,
}

impl End {
    fn new(side: Side, emission: &Emission) -> Self {
        let framing = Framing { frame_ps: 1_000_000_000_000, round_frames: ROUND_FRAMES };
        let start = SiftingStart { latency_steps: 1, setpoints: Setpoints::default() };
        let config = Counts { side, loops: Loops::default() };
        Self { half: Half::new(framing, &config, emission, &start), rounds: vec![], said: vec![] }
    }

    fn hear(&mut self, message: &[u8]) -> Result<(), SiftingError> {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        self.half.hear(message, &mut Context { step: 0, rng: &mut rng, events: &mut vec![] })
    }

    fn step(&mut self, step: u64, frame: Option<FrameInput>, heard: &[u8]) -> Result<(), SiftingError> {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut events = vec![];
        let mut context = Context { step, rng: &mut rng, events: &mut events };
        if !heard.is_empty() {
            self.half.hear(heard, &mut context)?;
        }
        match frame {
            Some(frame) => self.half.take(frame, &mut context)?,
            None => self.half.light_over(),
        }
        self.said.push(self.half.say(&mut context)?);
        while let Some(round) = self.half.next_round() {
            self.rounds.push(round);
        }
        Ok(())
    }
}

/// Runs both ends, of which each hears in a step what the other said in the one before.
fn run(emission: &Emission, slices: &[Slice]) -> [End; 2] {
    let mut ends = [End::new(Side::Reference, emission), End::new(Side::Corrector, emission)];
    for step in 0..FRAMES + 4 {
        let last = |end: &End| end.said.last().cloned().unwrap_or_default();
        let heard = [last(&ends[1]), last(&ends[0])];
        for (place, (end, heard)) in ends.iter_mut().zip(&heard).enumerate() {
            let frame = slices.get(step as usize).map(|slice| light(100 + step, &slice.halves[place]));
            end.step(step, frame, heard).unwrap();
        }
    }
    assert!(ends.iter().all(|end| end.half.is_over()));
    ends
}

fn expected(emission: &Emission, statistics: &[Statistics]) -> Evidence {
    let mut rows = [Detections::default(); INTENSITIES];
    for of in statistics {
        for (kind, row) in rows.iter_mut().enumerate() {
            row.key += of.key[kind].bits;
            row.check.bits += of.check[kind].bits;
            row.check.errors += of.check[kind].errors;
        }
    }
    match emission {
        Emission::Pairs => Evidence::CheckBits { bits: rows[0].check.bits, errors: rows[0].check.errors },
        Emission::SinglePhotons(_) => {
            let pulses = statistics.iter().map(|of| of.pulses).sum();
            Evidence::SinglePhoton { pulses, key: rows[0].key, check: rows[0].check }
        }
        _ => Evidence::Decoy(rows),
    }
}

/// The receiver's gain is that of all events, sifted or in another basis; of pairs there is none.
fn assert_gain(emission: &Emission, statistics: &[Statistics], receiver: &SiftedRound) {
    let gains = receiver.detected.gains(emission);
    assert_eq!(gains.len(), emission.probabilities().len());
    if emission.is_pairs() {
        return;
    }
    let sum = |of: fn(&Statistics) -> u64| statistics.iter().map(of).sum::<u64>() as f64;
    let sifted = |of: &Statistics| of.key.iter().chain(&of.check).map(|tally| tally.bits).sum::<u64>();
    let all = (sum(sifted) + sum(|of| of.mismatched)) / sum(|of| of.pulses);
    let [events, pulses] = gains.into_iter().fold([0, 0], |[a, b], [events, pulses]| [a + events, b + pulses]);
    let (gain, shares) = (events as f64 / pulses as f64, emission.probabilities().iter().sum::<f64>());
    assert!((gain * shares / all - 1.0).abs() < 1e-4, "{gain} {all}");
}

#[test]
fn both_ends_have_the_evidence_that_nature_drew_and_keys_with_its_errors() {
    for (emission, law) in links() {
        let slices = slices(law);
        let [reference, corrector] = run(&emission, &slices);
        assert_eq!((reference.rounds.len(), corrector.rounds.len()), (3, 3));
        for (number, (own, peer)) in reference.rounds.iter().zip(&corrector.rounds).enumerate() {
            let statistics: Vec<Statistics> = slices
                .iter()
                .skip(number * ROUND_FRAMES as usize)
                .take(ROUND_FRAMES as usize)
                .map(|s| s.statistics)
                .collect();
            assert_eq!((own.number, own.frames), (number as u64, statistics.len() as u64));
            assert_eq!((own.number, own.frames), (peer.number, peer.frames));
            assert_eq!((own.evidence, peer.evidence), (expected(&emission, &statistics), own.evidence));
            assert_gain(&emission, &statistics, peer);
            let errors: u64 = statistics.iter().flat_map(|of| of.key).map(|tally| tally.errors).sum();
            assert!(errors > 10 && own.key.len() > 1000, "{emission:?}");
            assert_eq!(own.key.distance(&peer.key) as u64, errors);
            let book = if emission.is_pairs() { Book::Matcher } else { Book::Receiver };
            let clicks: u64 = statistics.iter().map(|of| of.clicks[1]).sum();
            assert_eq!(peer.account.get(Line(book, Item::Clicks)), clicks);
            assert_eq!(peer.account.get(Line::SIFTED_KEY), own.account.get(Line::SIFTED_KEY));
            let spent = |item: Item| peer.account.get(Line(book, item));
            let rest = if emission.is_pairs() { spent(Item::Unmatched) } else { spent(Item::BasisMismatch) };
            let doubles = spent(Item::CrossDouble) + spent(Item::Merged);
            assert_eq!(clicks, rest + doubles + spent(Item::SiftedCheck) + spent(Item::SiftedKey), "clicks add up");
        }
    }
}

#[test]
fn nothing_that_is_said_depends_on_a_bit_of_the_key() {
    for (emission, law) in links() {
        let slices = slices(law);
        let mut turned = slices_with(&slices, |half| half.key.bits.iter_mut().for_each(|word| *word = !*word));
        let said = |slices: &[Slice]| run(&emission, slices).map(|end| end.said);
        assert_eq!(said(&slices), said(&turned));
        // Nor on which bit of the key is of which intensity: two of them change places.
        for slice in &mut turned {
            let key = &mut slice.halves[0].key;
            let first = (0..key.len).find(|place| key.kind(*place) == 0);
            let last = (0..key.len).rev().find(|place| key.kind(*place) != 0);
            let (Some(first), Some(last)) = (first, last) else { continue };
            for plane in &mut key.kinds {
                let bit = |place: usize| plane[place / 64] >> (place % 64) & 1;
                let change = bit(first) ^ bit(last);
                plane[first / 64] ^= change << (first % 64);
                plane[last / 64] ^= change << (last % 64);
            }
        }
        assert_eq!(said(&slices), said(&turned));
    }
}

/// The same slices with halves that were changed, tails left at 0.
fn slices_with(slices: &[Slice], change: impl Fn(&mut Drawn)) -> Vec<Slice> {
    let changed = |half: &Drawn| {
        let mut half = half.clone();
        change(&mut half);
        let len = half.key.len;
        half.key.bits = Bits::from_words(half.key.bits.clone(), len).words().to_vec();
        half
    };
    slices
        .iter()
        .map(|slice| Slice { statistics: slice.statistics, halves: slice.halves.each_ref().map(changed) })
        .collect()
}

#[test]
fn what_does_not_fit_this_ends_own_light_is_refused() {
    let (emission, law) = links().remove(2);
    let slices = slices(law);
    let [reference, _] = run(&emission, &slices);
    let said = Said::decode(reference.said[0].as_slice()).unwrap();
    let refused = |change: fn(&mut Said)| {
        let mut said = said.clone();
        change(&mut said);
        let mut end = End::new(Side::Corrector, &emission);
        let light = light(100, &slices[0].halves[1]);
        end.step(0, Some(light), &said.encode_to_vec()).expect_err("a forged message")
    };
    for change in [
        (|said| said.disclosures[0].frame += 1) as fn(&mut Said),
        |said| said.disclosures[0].key_bits += 1,
        |said| said.disclosures[0].check_count -= 8,
        |said| said.disclosures[0].check_count = u64::MAX,
        |said| said.disclosures[0].check_count = 2 * CHECK_BITS_MAX as u64,
        |said| {
            said.disclosures[0].check_bits.pop().unwrap();
        },
        |said| {
            said.disclosures[0].check_kinds.pop().unwrap();
        },
        |said| said.disclosures[0].check_kinds.push(0),
        |said| said.disclosures[0].check_kinds.fill(0xff),
        // A fourth intensity.
        |said| {
            let kinds = &mut said.disclosures[0].check_kinds;
            let second = kinds.len() / 2;
            (kinds[0], kinds[second]) = (0xff, 0xff);
        },
        |said| said.disclosures[0].key_first += 1,
        |said| said.disclosures[0].key_third = 0,
        |said| (said.disclosures[0].key_first, said.disclosures[0].key_third) = (u64::MAX, u64::MAX),
    ] {
        println!("{}", refused(change));
    }
    let mut end = End::new(Side::Corrector, &emission);
    assert!(matches!(end.step(0, Some(FrameInput::tags(0, vec![], String::new())), &[]), Err(SiftingError::Light(_))));
    // A corrector that claims to know intensities.
    let mut end = End::new(Side::Reference, &emission);
    let own = light(100, &slices[0].halves[0]);
    assert!(end.step(0, Some(own), &said.encode_to_vec()).is_err());
}

#[test]
fn an_intensity_that_the_link_lacks_is_refused() {
    let (emission, law) = links().remove(1);
    let slices = slices(law);
    let [reference, _] = run(&emission, &slices);
    let mut said = Said::decode(reference.said[0].as_slice()).unwrap();
    said.disclosures[0].key_first -= 1;
    said.disclosures[0].key_third += 1;
    let mut end = End::new(Side::Corrector, &emission);
    let refused = end.step(0, Some(light(100, &slices[0].halves[1])), &said.encode_to_vec()).unwrap_err();
    assert!(refused.to_string().contains("other intensities"), "{refused}");
}

#[test]
fn the_reference_alone_knows_which_bits_are_of_decoys_and_only_where_the_proof_asks() {
    for (emission, law) in links() {
        let slices = slices(law);
        let [reference, corrector] = run(&emission, &slices);
        assert!(corrector.rounds.iter().all(|round| round.decoys.is_none()));
        for (number, round) in reference.rounds.iter().enumerate() {
            let Emission::OneDecoy(_) = emission else {
                assert!(round.decoys.is_none(), "{emission:?}");
                continue;
            };
            let mut expected = Bits::default();
            for slice in slices.iter().skip(number * ROUND_FRAMES as usize).take(round.frames as usize) {
                let key = &slice.halves[0].key;
                expected.extend(&Bits::from_words(key.kinds[0].clone(), key.len));
            }
            let decoys = round.decoys.as_ref().unwrap();
            assert!(decoys.ct_eq(&expected) && decoys.len() == round.key.len());
            let count = decoys.words().iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            assert!(matches!(round.evidence, Evidence::Decoy(rows) if rows[1].key == count && count > 100));
        }
    }
}

#[test]
fn what_waits_for_the_other_end_is_limited_in_bytes_and_in_number() {
    let (emission, _) = links().remove(0);
    let refused = |hears: &mut dyn FnMut(&mut End, u64) -> Result<(), SiftingError>, most: u64| {
        let mut end = End::new(Side::Corrector, &emission);
        let found = (0..=most).find_map(|number| hears(&mut end, number).err().map(|error| (number, error)));
        let (number, error) = found.unwrap();
        assert!(matches!(error, SiftingError::Protocol(_)), "{error}");
        number
    };
    let disclosure = |frame: u64, bytes: usize| Said {
        disclosures: vec![Disclosure { frame, check_bits: vec![0; bytes], ..Disclosure::default() }],
        last: false,
    };
    assert_eq!(refused(&mut |end, frame| end.hear(&disclosure(frame, 0).encode_to_vec()), 5000), 4096);
    let large = disclosure(0, 1 << 26).encode_to_vec();
    assert_eq!(refused(&mut |end, _| end.hear(&large), 10), 4);
    let take = |end: &mut End, number: u64, bits: usize| {
        let key = Labelled { bits: Bits::zeros(bits), kinds: vec![] };
        let light = Light::Counts(Box::new(Frame { key, clicks: bits as u64, ..Frame::default() }));
        end.step(number, Some(FrameInput { number, light, traceparent: String::new() }), &[])
    };
    assert_eq!(refused(&mut |end, number| take(end, number, 8), 5000), 4096);
    assert_eq!(refused(&mut |end, number| take(end, number, FRAME_BITS_MAX), 20), 8);
}

#[test]
fn an_instrument_that_accounts_for_more_clicks_than_it_had_is_refused() {
    let (emission, law) = links().remove(0);
    let half = &slices(law)[0].halves[1];
    let Light::Counts(mut frame) = light(0, half).light else { panic!("no counts") };
    frame.clicks = half.key.len as u64;
    let short = FrameInput { number: 0, light: Light::Counts(frame), traceparent: String::new() };
    let refused = End::new(Side::Corrector, &emission).step(0, Some(short), &[]).unwrap_err();
    assert!(matches!(refused, SiftingError::Clicks { .. }), "{refused}");
}

/// 1e5 messages that were damaged, cut, repeated or said twice.
#[test]
fn damaged_cut_and_replayed_counts_are_errors_or_harmless_and_never_a_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(43);
    eprintln!("seed 43");
    for (emission, law) in links() {
        let emitter = Emitter::new(law, 10_000_000_000, &Subseed::new([9; 32]));
        let slices: Vec<Slice> = (0..FRAMES).map(|epoch| emitter.slice(epoch, 0, 1)).collect();
        let ends = run(&emission, &slices);
        for (place, side) in [Side::Reference, Side::Corrector].into_iter().enumerate() {
            let peer_said = &ends[1 - place].said;
            let (mut refused, mut tried) = (BTreeMap::new(), 0);
            while tried < 12_500 {
                let steps = 2 + rng.next_u32() as usize % (FRAMES as usize - 2);
                let mut end = End::new(side, &emission);
                for (step, slice) in slices.iter().take(steps).enumerate() {
                    let heard = step.checked_sub(1).map_or(&[][..], |before| peer_said[before].as_slice());
                    let frame = light(100 + step as u64, &slice.halves[place]);
                    end.step(step as u64, Some(frame), heard).unwrap();
                }
                // An end that refused something refuses all after it, for the same reason: it is heard no more.
                for _ in 0..20 {
                    let message = mutated(peer_said, steps - 1, &mut rng);
                    tried += 1;
                    if let Some(error) = end.hear(&message).err().filter(|_| !message.is_empty()) {
                        *refused.entry(error.to_string()).or_insert(0) += 1;
                        break;
                    }
                }
                let mut voided = end.half.void();
                voided.iter_mut().for_each(|(_, account)| account.check().unwrap());
            }
            let all: i32 = refused.values().sum();
            assert!(all > 6000 && refused.len() >= 4, "{side:?} of {emission:?}: {refused:#?}");
        }
    }
}

proptest! {
    #[test]
    fn bytes_from_a_hostile_peer_do_no_harm(place in 0usize..2000, byte in any::<u8>(), cut in 0usize..2000) {
        let (emission, law) = links().remove(2);
        let slice = Emitter::new(law, 10_000_000_000, &Subseed::new([8; 32])).slice(0, 0, 1);
        let mut reference = End::new(Side::Reference, &emission);
        reference.step(0, Some(light(0, &slice.halves[0])), &[]).unwrap();
        let mut said = reference.said.remove(0);
        let place = place % said.len();
        said[place] ^= byte;
        said.truncate(said.len().min(cut));
        let mut end = End::new(Side::Corrector, &emission);
        let _ = end.step(0, Some(light(0, &slice.halves[1])), &said);
    }
}

#[test]
fn the_pump_follows_the_error_rate_of_blocks_at_the_corrector_of_pairs_alone() {
    let setpoint = |emission: &Emission, side: Side, qber: f64| {
        let framing = Framing { frame_ps: 1_000_000_000_000, round_frames: ROUND_FRAMES };
        let loops = Loops { pump: true, target_qber_z: 0.04, pump_max: 2.0, ..Loops::default() };
        let start = SiftingStart { latency_steps: 1, setpoints: Setpoints::default() };
        let mut half = Half::new(framing, &Counts { side, loops }, emission, &start);
        assert_eq!(half.setpoints(0).pump, 1.0);
        half.reconciled(&Reconciled { first_step: 0, frames: ROUND_FRAMES, bits: 100_000, qber });
        half.setpoints(10).pump
    };
    assert!(setpoint(&Emission::Pairs, Side::Corrector, 0.08) < 0.9);
    assert!(setpoint(&Emission::Pairs, Side::Corrector, 0.02) > 1.1);
    let decoys = links().into_iter().find(|(emission, _)| !emission.is_pairs()).unwrap().0;
    for (emission, side) in [(&Emission::Pairs, Side::Reference), (&decoys, Side::Corrector)] {
        assert_eq!(setpoint(emission, side, 0.08), 1.0);
    }
}
