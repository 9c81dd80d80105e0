//! The two halves alone, without what the pipeline makes of their rounds.

use std::collections::HashMap;
use std::sync::Arc;

use distill::bits::Bits;
use distill::bounds::Evidence;
use distill::config::{Emission, Framing, INTENSITIES, Intensity};
use distill::ledger::{Book, Item, Line};
use distill::loops::Setpoints;
use distill::sifting::prepared::config::{Part, Prepared};
use distill::sifting::prepared::{self, Said};
use distill::sifting::{
    Choice, Choices, Context, FrameInput, Light as Seen, SiftedRound, Sifting, SiftingError, SiftingStart,
};
use prost::Message;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::light::{Chosen, FRAME_PS, Light, decoy, single_photons};

/// A transmitter's choices, with the bits of the key turned and intensities changed as a test wants it.
#[derive(Clone)]
pub struct Sent {
    pub chosen: Chosen,
    pub turned: bool,
    pub intensities: HashMap<u64, u8>,
}

impl Sent {
    pub fn new(chosen: &Chosen) -> Self {
        Self { chosen: chosen.clone(), turned: false, intensities: HashMap::new() }
    }
}

impl Choices for Sent {
    fn fill(&self, pulses: &[u64], choices: &mut [Choice]) {
        for (pulse, choice) in pulses.iter().zip(choices) {
            let (basis, bit, intensity) = self.chosen.at(*pulse);
            let turned = self.turned && basis == 0;
            let intensity = self.intensities.get(pulse).copied().unwrap_or(intensity as u8);
            *choice = Choice { x: basis == 1, bit: (bit == 1) != turned, intensity };
        }
    }
}

/// Both ends' light of a run, frame by frame.
pub fn frames(light: &Light, sent: &Sent, count: u64) -> Vec<[FrameInput; 2]> {
    let choices: Arc<dyn Choices> = Arc::new(sent.clone());
    let swapped = |tag: u64| if tag & 0b11 != 0 { tag ^ 0b11 } else { tag };
    let frame = |(index, tags): (usize, Vec<(u64, Option<u64>)>)| {
        let keyed = |pulse: Option<u64>| pulse.is_some_and(|pulse| pulse >= light.config.preamble_pulses);
        let tags = tags.into_iter().map(|(tag, pulse)| if sent.turned && keyed(pulse) { swapped(tag) } else { tag });
        let number = light.first_frame + index as u64;
        // The light is 10 us old when it comes.
        let sent = ((index as u64 + 1) * FRAME_PS + 10_000_000) as f64 / light.config.period_ps;
        let pulses = Seen::Pulses { choices: Arc::clone(&choices), sent: sent as u64 };
        let traceparent = format!("00-{index}");
        [
            FrameInput { number, light: pulses, traceparent: traceparent.clone() },
            FrameInput::tags(number, tags.collect(), traceparent),
        ]
    };
    light.tags(count).into_iter().enumerate().map(frame).collect()
}

/// One half and what it was last told.
pub struct End {
    pub half: Box<dyn Sifting>,
    pub rng: ChaCha20Rng,
    pub rounds: Vec<SiftedRound>,
    pub said: Vec<Vec<u8>>,
}

impl End {
    pub fn new(light: &Light, part: Part, round_frames: u64) -> Self {
        let framing = Framing { frame_ps: FRAME_PS, round_frames };
        let start = SiftingStart { latency_steps: 1, setpoints: Setpoints::default() };
        let half = prepared::half(framing, &with_part(&light.config, part), &light.emission, &start);
        Self { half, rng: ChaCha20Rng::from_seed([9; 32]), rounds: Vec::new(), said: Vec::new() }
    }

    pub fn hear(&mut self, step: u64, message: &[u8]) -> Result<(), SiftingError> {
        let mut events = Vec::new();
        self.half.hear(message, &mut Context { step, rng: &mut self.rng, events: &mut events })
    }

    pub fn step(
        &mut self,
        step: u64,
        heard: Option<Vec<u8>>,
        frame: Option<FrameInput>,
    ) -> Result<Vec<u8>, SiftingError> {
        if let Some(heard) = heard.filter(|heard| !heard.is_empty()) {
            self.hear(step, &heard)?;
        }
        self.rounds.extend(std::iter::from_fn(|| self.half.next_round()));
        let mut events = Vec::new();
        let mut context = Context { step, rng: &mut self.rng, events: &mut events };
        match frame {
            Some(frame) => self.half.take(frame, &mut context)?,
            None => self.half.light_over(),
        }
        let said = self.half.say(&mut context)?;
        self.rounds.extend(std::iter::from_fn(|| self.half.next_round()));
        self.said.push(said.clone());
        Ok(said)
    }
}

pub fn with_part(config: &Prepared, part: Part) -> Prepared {
    Prepared { part, ..config.clone() }
}

/// Runs both halves to their end.
pub fn run(light: &Light, sent: &Sent, count: u64, round_frames: u64) -> Result<[End; 2], SiftingError> {
    let mut ends = [Part::Transmitter, Part::Receiver].map(|part| End::new(light, part, round_frames));
    let mut frames = frames(light, sent, count).into_iter();
    let (mut heard, mut step) = ([None, None], 0);
    while !ends.iter().all(|end| end.half.is_over()) || step < count {
        let [of_transmitter, of_receiver] = frames.next().map_or([None, None], |pair| pair.map(Some));
        let [to_transmitter, to_receiver] = heard;
        let from_transmitter = ends[0].step(step, to_transmitter, of_transmitter)?;
        let from_receiver = ends[1].step(step, to_receiver, of_receiver)?;
        heard = [Some(from_receiver), Some(from_transmitter)];
        step += 1;
        assert!(step < count + 20, "the run does not end");
    }
    Ok(ends)
}

fn errors(one: &Bits, other: &Bits) -> f64 {
    one.distance(other) as f64 / one.len() as f64
}

#[test]
fn both_ends_come_to_equal_rounds_and_the_sums_of_every_account_are_exact() {
    let short = Prepared { preamble_pulses: 1 << 19, ..single_photons() };
    for (light, transmittance) in
        [(Light::new(decoy(Part::Receiver), 21), 0.02), (Light::single_photons(short, 22), 0.05)]
    {
        let light = Light { transmittance, ..light };
        let [transmitter, receiver] = run(&light, &Sent::new(&light.chosen), 25, 10).unwrap();
        assert_eq!(
            receiver.rounds.iter().map(|round| (round.number, round.frames)).collect::<Vec<_>>(),
            [(0, 10), (1, 10), (2, 5)]
        );
        assert_eq!(transmitter.rounds.len(), 3);
        let mut keys = 0;
        for (sent, seen) in transmitter.rounds.iter().zip(&receiver.rounds) {
            assert_eq!((sent.number, sent.frames), (seen.number, seen.frames));
            assert_eq!((sent.evidence, sent.first_step), (seen.evidence, seen.first_step), "round {}", sent.number);
            assert_eq!(sent.key.len(), seen.key.len());
            keys += sent.key.len();
            let qber = errors(&sent.key, &seen.key);
            assert!((qber - 0.02).abs() < 0.025, "round {}: {qber}", sent.number);
            for round in [sent, seen] {
                let mut account = round.account.clone();
                account.abort();
                account.check().unwrap();
            }
            let clicks = |item| seen.account.get(Line(Book::Receiver, item));
            assert!(clicks(Item::Clicks) > 0 && clicks(Item::BasisMismatch) > 0);
            assert_eq!(clicks(Item::Unlocked), 0);
            assert_eq!(clicks(Item::Preamble) > 0, seen.number == 0);
            match seen.evidence {
                Evidence::Decoy(rows) => {
                    assert!(rows[0].key > rows[1].key && rows[1].key > rows[2].key && rows[0].check.bits > 100);
                    assert_eq!(rows.iter().map(|row| row.key).sum::<u64>(), seen.key.len() as u64);
                }
                Evidence::SinglePhoton { pulses, key, .. } => {
                    let most = seen.frames as f64 * FRAME_PS as f64 / light.config.period_ps;
                    assert!(pulses as f64 <= most + 2.0 && key == seen.key.len() as u64);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(keys > 300, "{keys}");
    }
}

/// Pulses of each intensity that the tags say were detected in one basis, preamble and dark counts left out.
fn detected(light: &Light, count: u64) -> [u64; INTENSITIES] {
    let mut bases: HashMap<u64, u64> = HashMap::new();
    for (tag, pulse) in light.tags(count).into_iter().flatten() {
        if let Some(pulse) = pulse.filter(|pulse| *pulse >= light.config.preamble_pulses) {
            *bases.entry(pulse).or_default() |= if tag & 0b11 != 0 { 1 } else { 2 };
        }
    }
    let mut counts = [0; INTENSITIES];
    bases.iter().filter(|(_, bases)| **bases != 3).for_each(|(pulse, _)| counts[light.chosen.at(*pulse).2] += 1);
    counts
}

/// They follow from the light that the tags were made of, a few dark counts within the gate aside.
#[test]
fn gains_are_those_of_the_light_at_both_ends() {
    let short = Prepared { preamble_pulses: 1 << 19, ..single_photons() };
    for (light, transmittance) in [
        (Light::new(decoy(Part::Receiver), 27), 0.02),
        (Light::one_decoy(decoy(Part::Receiver), 28), 0.02),
        (Light::single_photons(short, 29), 0.05),
    ] {
        let light = Light { transmittance, ..light };
        let [transmitter, receiver] = run(&light, &Sent::new(&light.chosen), 25, 10).unwrap();
        let (means, mut sums) = (light.emission.mean_photons(), vec![[0; 2]; light.emission.mean_photons().len()]);
        for (sent, seen) in transmitter.rounds.iter().zip(&receiver.rounds) {
            assert_eq!(sent.detected, seen.detected);
            let gains = seen.detected.gains(&light.emission);
            assert_eq!(gains.len(), means.len());
            for (sum, gain) in sums.iter_mut().zip(gains) {
                sum.iter_mut().zip(gain).for_each(|(sum, count)| *sum += count);
            }
            // Every event counts once, whatever basis it was seen in.
            let clicks = |item| seen.account.get(Line(Book::Receiver, item));
            let events = clicks(Item::SiftedKey) + clicks(Item::SiftedCheck) + clicks(Item::BasisMismatch);
            assert_eq!(seen.detected.events.iter().sum::<u64>(), events);
            assert!(clicks(Item::BasisMismatch) > 0);
        }
        let crossed = 2.0 * light.z_probability * (1.0 - light.z_probability);
        for ((mean, [events, pulses]), in_tags) in means.iter().zip(sums).zip(detected(&light, 25)) {
            let (photons, dark) = (mean * transmittance, light.dark_rate_hz * light.config.gate_ps * 1e-12);
            // Some pulses have a second click, and it may be in the other basis.
            let gain = 1.0 - (1.0 - dark) * (-photons * (1.0 - 0.5 * photons * crossed)).exp();
            let (expected, dark) = (gain * pulses as f64, dark * pulses as f64);
            eprintln!("{mean} photons: {events} of {pulses}, in tags {in_tags} and {dark:.1}, expected {expected:.0}");
            assert!((events as f64 - expected).abs() < 3.0 * expected.sqrt(), "{mean} photons: {events}");
            let beside_tags = events as f64 - in_tags as f64 - dark;
            assert!(beside_tags.abs() < 3.0 * dark.sqrt() + 1e-4 * expected, "{mean} photons: {beside_tags}");
        }
    }
}

#[test]
fn what_is_said_is_the_same_whatever_the_bits_of_the_key_are() {
    let light = Light { dark_rate_hz: 0.0, ..Light::new(decoy(Part::Receiver), 23) };
    let sent = Sent::new(&light.chosen);
    let turned = Sent { turned: true, ..sent.clone() };
    let [one, other] = [sent, turned].map(|sent| run(&light, &sent, 8, 4).unwrap());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.said, other.said);
        let different: usize = one.rounds.iter().zip(&other.rounds).map(|(a, b)| a.key.distance(&b.key)).sum();
        let all: usize = one.rounds.iter().map(|round| round.key.len()).sum();
        assert!(all > 20_000 && different as f64 > 0.99 * all as f64, "{different} of {all}");
    }
}

/// Pulses that gave key in each frame, as anybody knows who heard everything.
fn key_pulses(ends: &[End; 2]) -> Vec<Vec<u64>> {
    let said = |end: &End| {
        end.said
            .iter()
            .filter(|said| !said.is_empty())
            .map(|said| Said::decode(said.as_slice()).unwrap())
            .collect::<Vec<_>>()
    };
    let announcements = said(&ends[1]).into_iter().flat_map(|said| said.announcements);
    let replies = said(&ends[0]).into_iter().flat_map(|said| said.replies);
    let mut frames = Vec::new();
    for (announcement, reply) in announcements.zip(replies) {
        let due = distill::sifting::prepared::announce::Due { frame: None, pulse: 0, pulses_max: u64::MAX };
        let announced = announcement.read(&due).unwrap();
        let kept = |index: &usize| reply.matches[index / 8] >> (index % 8) & 1 == 1 && !announced.bases.get(*index);
        frames.push((0..announced.pulses.len()).filter(kept).map(|index| announced.pulses[index]).collect());
    }
    frames
}

#[test]
fn the_order_in_which_intensities_gave_key_is_not_said() {
    let light = Light::new(decoy(Part::Receiver), 24);
    let sent = Sent::new(&light.chosen);
    let one = run(&light, &sent, 8, 4).unwrap();
    let mut intensities = HashMap::new();
    for pulses in key_pulses(&one) {
        let labels = pulses.iter().rev().map(|pulse| light.chosen.at(*pulse).2 as u8);
        intensities.extend(pulses.iter().copied().zip(labels));
    }
    let changed =
        intensities.iter().filter(|(pulse, label)| light.chosen.at(**pulse).2 != usize::from(**label)).count();
    assert!(changed > 1000, "{changed}");
    let other = run(&light, &Sent { intensities, ..sent }, 8, 4).unwrap();
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.said, other.said);
    }
}

#[test]
fn a_round_that_breaks_is_accounted_for() {
    let light = Light::new(decoy(Part::Receiver), 25);
    let mut ends = [Part::Transmitter, Part::Receiver].map(|part| End::new(&light, part, 10));
    let mut heard = [None, None];
    for (step, [of_transmitter, of_receiver]) in frames(&light, &Sent::new(&light.chosen), 6).into_iter().enumerate() {
        let [to_transmitter, to_receiver] = heard;
        let from_transmitter = ends[0].step(step as u64, to_transmitter, Some(of_transmitter)).unwrap();
        let from_receiver = ends[1].step(step as u64, to_receiver, Some(of_receiver)).unwrap();
        heard = [Some(from_receiver), Some(from_transmitter)];
    }
    for end in &mut ends {
        let voided = end.half.void();
        assert_eq!(voided.len(), 1);
        voided[0].1.check().unwrap();
        assert!(voided[0].1.get(Line::VOIDED) > 1000);
    }
}

#[test]
fn an_end_refuses_light_of_the_other_part_and_a_configuration_that_makes_no_sense() {
    let light = Light::new(decoy(Part::Receiver), 26);
    let frame = || frames(&light, &Sent::new(&light.chosen), 1).remove(0);
    let [of_transmitter, of_receiver] = frame();
    let mut ends = [Part::Transmitter, Part::Receiver].map(|part| End::new(&light, part, 10));
    let refused = ends[0].step(0, None, Some(of_receiver)).unwrap_err();
    assert!(refused.to_string().contains("time tags"), "{refused}");
    let refused = ends[1].step(0, None, Some(of_transmitter)).unwrap_err();
    assert!(refused.to_string().contains("a transmitter's pulses"), "{refused}");
    let of = |mean_photons| Intensity { mean_photons, probability: 0.5 };
    for (emission, what) in [
        (Emission::OneDecoy([of(0.1), of(0.4)]), "intensities must be numbers in falling order, the first above 0"),
        (
            Emission::Pairs,
            "the proof takes the light for entangled pairs, and a transmitter prepares pulses: decoys or single \
             photons",
        ),
    ] {
        let bad = Light { emission, ..light.clone() };
        let mut end = End::new(&bad, Part::Receiver, 10);
        let refused = end.step(0, None, frame().into_iter().nth(1)).unwrap_err();
        let refused = refused.to_string();
        assert_eq!(refused, format!("the configuration of the link: {what}"));
    }
}
