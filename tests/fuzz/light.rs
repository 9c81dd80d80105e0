//! What comes from sources and instruments: photons, recorded tags.

use module::Counting;
use module::light::Frames as _;
use photonics::config::epoch_start_s;
use photonics::nature::counts::{Emitter, Half};
use photonics::photons;
use photonics::random::Subseed;
use photonics::receiver::{Frame, Instrument};
use photonics::tagfile::sessions::{self, Head, Kind, Session};
use photonics::tagfile::{Format, FrameReader, TagReader, recognise, survey};
use prost::Message as _;
use proto::source::v1::PhotonEpoch;
use topology::plan::counts::Told;
use topology::plan::{DetectorConfig, Nature, Receiver};

use crate::engine::{Target, verdict};
use crate::people::{plan, plan_at_counts};

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

/// What a source of counts gives each end in its first epoch.
pub fn counted(topology: &str) -> [Vec<u8>; 2] {
    let config = plan_at_counts(topology).sources().next().unwrap().clone();
    let Nature::Counts(counts) = &config.nature else { panic!("counts") };
    let losses_db = config.losses_db();
    let conditions = counts.conditions(&Told {
        t_s: epoch_start_s(0, config.epoch_ps),
        losses_db: &losses_db,
        added_db: [20.0; 2],
        pump: 1.0,
        phases_rad: [0.0; 2],
        polarisations_rad: [[0.0; 2]; 2],
    });
    let emitter = Emitter::new(counts.law(&conditions).unwrap(), config.epoch_ps, &Subseed::new([7; 32]));
    emitter.slice(0, 0, 1).halves.each_ref().map(Half::encode)
}

#[test]
fn counts_are_halves_of_slices_or_an_error() {
    let good = counted("t12-50km.yaml").into_iter().chain(counted("nice-50km.yaml")).collect();
    Target::new("counts", good).fuzz(|input| verdict(&Half::decode(input)));
}

#[test]
fn epochs_of_counts_are_frames_or_an_error() {
    let epoch = |counts: Vec<Vec<u8>>| {
        let counts = counts.into_iter().map(Into::into).collect();
        PhotonEpoch { counts, traceparent: "00-1".to_owned(), ..PhotonEpoch::default() }.encode_to_vec()
    };
    let [transmitter, receiver] = counted("t12-50km.yaml");
    let [one, other] = counted("nice-50km.yaml");
    let good = vec![
        epoch(vec![transmitter.clone()]),
        epoch(vec![receiver, transmitter]),
        epoch(vec![one]),
        epoch(vec![other]),
    ];
    Target::new("epochs of counts", good).fuzz(|input| {
        let Ok(epoch) = PhotonEpoch::decode(input) else { return "no message".to_owned() };
        let number = epoch.epoch;
        match Counting::new(None).take(epoch) {
            Ok(frames) => {
                assert!(frames.len() == 1 && frames[0].number == number, "{} frames", frames.len());
                "good".to_owned()
            }
            Err(error) => format!("{error:#}"),
        }
    });
}

#[test]
fn an_instrument_takes_photons_of_any_source() {
    let config = detector();
    let Receiver::Entangled(receiver) = &config.receiver else { panic!("a receiver of pairs") };
    let good = vec![epoch(&[4_000, 8_001, 12_003, 400_002], u32::MAX), epoch(&[40; 200], 19_000)];
    Target { share: 3, ..Target::new("instrument", good) }.fuzz(|input| {
        let seed = Subseed::new([7; 32]);
        let mut instrument = Instrument::new(
            &receiver.detector,
            &receiver.clock,
            &receiver.analyser,
            config.module.epoch_ps,
            config.module.protocol.post_processing.framing.frame_ps,
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
        b"0000000000000401\n0000000000000802\n".to_vec(),
        b"time_ps,channel\n1000,1\n2000.5,2\n".to_vec(),
        b"1 1000\n2 1000000\n".to_vec(),
        ptu(&[1 << 25 | 100, 0xFE00_0002, 200]),
    ];
    let formats = Format::NAMES.split(", ").map(|name| name.parse::<Format>().unwrap());
    let formats: Vec<Format> = formats.collect();
    let target = Target {
        words: &["time_ps", "channel", "ns", "e9", ",", ";", "\n", "PQTTTR"],
        ..Target::new("tag files", good)
    };
    target.fuzz(|input| {
        let recognised = recognise(input);
        let mut said = verdict(&recognised);
        for format in formats.iter().copied().chain(recognised.ok()) {
            let reader = match TagReader::new(input, format) {
                Ok(reader) => reader,
                Err(error) => {
                    said = error.to_string();
                    continue;
                }
            };
            let surveyed = survey(reader);
            assert!(surveyed.first <= surveyed.last, "time goes back");
            assert_eq!(surveyed.channels.values().sum::<u64>(), surveyed.clicks);
            let reader = TagReader::new(input, format).expect("the same file");
            let mut reader = FrameReader::new(reader, 20_000_000_000, vec![1, 2, 3, 4]);
            let (mut before, mut clicks) = (None, 0);
            // Frames without a click between two words are many: this many are enough.
            for _ in 0..1000 {
                match reader.next_frame() {
                    Ok(Some(frame)) => {
                        assert!(before.is_none_or(|before| frame.number == before + 1), "a frame is missing or twice");
                        assert!(frame.tags.is_sorted_by_key(|tag| tag >> 10), "a frame is not in order");
                        before = Some(frame.number);
                        clicks += frame.tags.len() as u64;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        said = format!("{error} {}", error.advice());
                        break;
                    }
                }
            }
            assert!(clicks <= surveyed.clicks, "clicks come twice");
        }
        said
    });
}

#[test]
fn sessions_of_pulses_are_read_or_an_error_says_where_they_are_wrong() {
    let head = Head { kind: Kind::Choices, frame_ps: 20_000_000_000, transmitter: 7 };
    let one = |number| {
        let session = Session { number, first: 3, frames: Some(200), key: Default::default() };
        sessions::session(&session).to_vec()
    };
    let file = |count: u64| [sessions::head(&head).to_vec(), (0..count).flat_map(one).collect()].concat();
    Target::new("sessions", vec![file(0), file(1), file(3)]).fuzz(|input| {
        let read = sessions::read(input, &head);
        if let Ok(sessions) = &read {
            assert!(sessions.iter().all(|session| session.first.checked_add(session.frames.unwrap_or(0)).is_some()));
        }
        verdict(&read)
    });
}

/// A .ptu file of T2 records.
fn ptu(records: &[u32]) -> Vec<u8> {
    let mut file = b"PQTTTR\x00\x001.0.00\0\0".to_vec();
    let tags = [
        ("TTResultFormat_TTTRRecType", 0x1000_0008u32, 0x0001_0207),
        ("MeasDesc_GlobalResolution", 0x2000_0008, 5e-12f64.to_bits()),
        ("Header_End", 0xFFFF_0008, 0),
    ];
    for (name, kind, value) in tags {
        file.extend(format!("{name:\0<32}").bytes().chain([0xFF; 4]));
        file.extend(kind.to_le_bytes().into_iter().chain(value.to_le_bytes()));
    }
    file.extend(records.iter().flat_map(|record| record.to_le_bytes()));
    file
}
