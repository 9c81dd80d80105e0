//! What comes from sources and instruments: photons, recorded tags.

use photonics::instrument::{Frame, Instrument};
use photonics::photons;
use photonics::random::Subseed;
use photonics::tagfile::{FrameReader, HalfOrder, Limits, TagReader};
use topology::plan::DetectorConfig;

use crate::engine::{Target, verdict};
use crate::people::plan;

/// Words of an epoch: a lapse, photons, and a lapse to the end.
fn epoch(photons: &[u32], end: u32) -> Vec<u8> {
    const LAPSE: u32 = !0b11;
    let words = [LAPSE, 49_000_000].into_iter().chain(photons.iter().copied()).chain([LAPSE, end]);
    words.flat_map(u32::to_le_bytes).collect()
}

fn detector() -> DetectorConfig {
    plan("nice-50km.yaml").detectors().next().unwrap().clone()
}

#[test]
fn photons_are_words_or_an_error() {
    let good = vec![epoch(&[], 20_000), epoch(&[4_000, 8_001, 12_003, 400_002], 19_000), vec![]];
    Target::new("photons", good).fuzz(|input| verdict(&photons::unpack(input)));
}

#[test]
fn an_instrument_takes_photons_of_any_source() {
    let config = detector();
    let good = vec![epoch(&[4_000, 8_001, 12_003, 400_002], u32::MAX), epoch(&[40; 200], 19_000)];
    Target { share: 3, ..Target::new("instrument", good) }.fuzz(|input| {
        let seed = Subseed::new([7; 32]);
        let mut instrument = Instrument::new(
            &config.detector,
            &config.clock,
            &config.analyser,
            config.epoch_ps,
            config.protocol.frame_ps,
            &seed,
        );
        instrument.start(0);
        let mut frames = Vec::<Frame>::new();
        let first = instrument.detect(0, input, &mut frames);
        // After an error nothing is asked of it; after good photons the next epoch's follow.
        match first {
            Ok(_) => verdict(&instrument.detect(1, input, &mut frames).map(|_| ())),
            Err(error) => error.to_string(),
        }
    });
}

#[test]
fn recorded_tags_are_read_or_an_error_says_where_they_are_wrong() {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let good = vec![
        words(&[1 << 10 | 1, 2 << 10 | 2, 3 << 10 | 4, 4 << 10 | 8]),
        words(&[(((1 << 54) - 1) << 10) | 1, (5 << 10) | 1]),
        vec![],
    ];
    Target::new("tag files", good).fuzz(|input| {
        let mut said = String::new();
        for order in [HalfOrder::LowFirst, HalfOrder::HighFirst] {
            let limits = Limits { bytes: 1 << 20, duration_ps: 1 << 60 };
            let mut reader = FrameReader::new(TagReader::new(input, limits, order), 20_000_000_000);
            // Frames without a click between two words are many: so many are enough.
            for _ in 0..1000 {
                match reader.next_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        said = error.to_string();
                        break;
                    }
                }
            }
        }
        said
    });
}
