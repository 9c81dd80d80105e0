#![allow(clippy::unwrap_used)]

use photonics::nature::counts::compare;
use topology::document::Fidelity;
use topology::plan::{Nature as Planned, RunOptions, plan};

use super::*;

fn config(text: &str) -> SourceConfig {
    let document = topology::parse("net.yaml", text.as_bytes()).unwrap();
    let options = RunOptions { fidelity: Some(Fidelity::Counts), seed: Some(3), ..RunOptions::default() };
    plan(&document.topology, &options).sources().next().unwrap().clone()
}

fn pairs() -> SourceConfig {
    config(include_str!("../../../crates/topology/tests/minimal.yaml"))
}

fn decoys() -> SourceConfig {
    config(include_str!("../../../crates/topology/tests/decoys.yaml"))
}

fn begin(config: &SourceConfig, subseed: u8, key: Option<u8>) -> Result<Counted> {
    let Planned::Counts(counts) = &config.nature else { panic!("no counts") };
    Counted::begin(counts, config, &Subseed::new([subseed; 32]), key.map(|byte| [byte; 32]).as_ref())
}

fn emit(counted: &mut Counted, epoch: u64) -> [Half; 2] {
    let state = AnalyserState::default();
    let lights = counted.emit(epoch, 1.0, [&state, &state]).unwrap();
    lights.map(|light| {
        assert!(light.photons.words.is_empty() && light.counts.len() == 1);
        Half::decode(&light.counts[0]).unwrap()
    })
}

#[test]
fn each_output_gets_its_own_bits_of_an_epoch() {
    for (config, key) in [(pairs(), None), (decoys(), Some(9))] {
        let [first, second] = emit(&mut begin(&config, 1, key).unwrap(), 5);
        assert_eq!((first.epoch, first.key.len), (5, second.key.len));
        assert!(first.key.len > 1000, "{}", first.key.len);
        let tallies = compare(&first.key, &second.key);
        let (bits, errors) = tallies.iter().fold((0, 0), |sum, tally| (sum.0 + tally.bits, sum.1 + tally.errors));
        assert!(bits == first.key.len as u64 && errors > 0 && errors < bits / 5, "{errors} of {bits}");
        assert!(second.key.kinds.is_empty(), "a receiver knows no intensity");
    }
}

#[test]
fn the_bits_of_a_session_follow_from_the_key_of_its_transmitter_and_from_the_sources_secret() {
    let decoys = decoys();
    let of = |subseed, key| emit(&mut begin(&decoys, subseed, Some(key)).unwrap(), 5);
    assert_eq!(of(1, 9), of(1, 9));
    for (subseed, key) in [(2, 9), (1, 8)] {
        let agree = |end: usize| {
            let (one, other) = (&of(1, 9)[end].key.bits[..10], &of(subseed, key)[end].key.bits[..10]);
            one.iter().zip(other).map(|(a, b)| (a ^ b).count_zeros()).sum::<u32>()
        };
        assert!((250..390).contains(&agree(0)) && (250..390).contains(&agree(1)), "of 640 bits");
    }
    let error = begin(&decoys, 1, None).err().unwrap().to_string();
    assert!(error.contains("without a key of its choices"), "{error}");
}

#[test]
fn a_cut_arm_gives_hardly_a_bit_and_light_comes_back_as_it_was() {
    for (config, key) in [(pairs(), None), (decoys(), Some(9))] {
        let mut counted = begin(&config, 1, key).unwrap();
        let lit = emit(&mut counted, 5)[0].key.len;
        counted.suffer([f64::INFINITY; 2], false);
        let dark = emit(&mut counted, 6)[0].key.len;
        assert!(dark < lit / 20, "{dark} of {lit}");
        counted.suffer([0.0; 2], false);
        assert_eq!(emit(&mut counted, 5), emit(&mut begin(&config, 1, key).unwrap(), 5));
        let losses_db: Vec<f64> = config.losses_db().iter().map(|loss_db| loss_db + 10.0).collect();
        counted.set_losses_db(&losses_db);
        let less = emit(&mut counted, 5)[0].key.len;
        assert!(less < lit / 5, "{less} of {lit}");
    }
}

#[test]
fn of_light_that_no_detector_sees_there_is_no_bit_and_no_click_but_its_pulses_were_sent() {
    for (config, key) in [(pairs(), None), (decoys(), Some(9))] {
        let mut counted = begin(&config, 1, key).unwrap();
        let before = emit(&mut counted, 5);
        counted.suffer([f64::INFINITY, 0.0], true);
        for (unseen, lit) in emit(&mut counted, 6).iter().zip(&before) {
            assert_eq!((unseen.epoch, unseen.slice, unseen.slices), (6, 0, 1));
            assert_eq!((unseen.key.len, unseen.check.len, unseen.clicks), (0, 0, 0));
            assert_eq!((unseen.pulses, unseen.key.kinds.len()), (lit.pulses, lit.key.kinds.len()));
        }
        counted.suffer([0.0; 2], false);
        assert_eq!(emit(&mut counted, 7), emit(&mut begin(&config, 1, key).unwrap(), 7));
    }
}
