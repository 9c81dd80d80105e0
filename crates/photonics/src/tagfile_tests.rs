#![allow(clippy::unwrap_used)]

use super::*;
use crate::tag::tag;

fn frame(number: u64, tags: &[(u64, u32)]) -> Frame {
    Frame { number, tags: tags.iter().map(|&(units, port)| tag(units, port)).collect() }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn reader(bytes: &[u8]) -> TagReader<&[u8]> {
    TagReader::new(bytes, Limits::NONE, HalfOrder::LowFirst)
}

fn read_all(bytes: &[u8], limits: Limits) -> (Vec<(u64, u128)>, Option<TagFileError>) {
    let mut reader = TagReader::new(bytes, limits, HalfOrder::LowFirst);
    let mut tags = Vec::new();
    loop {
        match reader.read(&mut tags) {
            Ok(0) => return (tags, None),
            Ok(_) => {}
            Err(error) => return (tags, Some(error)),
        }
    }
}

#[test]
fn frames_round_trip() {
    let frames = [frame(3, &[(3001, 0), (3500, 3)]), frame(4, &[]), frame(5, &[(5000, 1), (5999, 2)])];
    let mut writer = TagWriter::new(Vec::new(), Limits::NONE);
    for frame in &frames {
        assert!(writer.write(frame).unwrap());
    }
    assert_eq!(writer.bytes(), 32);
    let file = writer.finish().unwrap();
    let mut reader = FrameReader::new(reader(&file), 4000);
    for frame in frames {
        assert_eq!(reader.next_frame().unwrap(), Some(frame));
    }
    assert_eq!(reader.next_frame().unwrap(), None);
    assert_eq!(reader.next_frame().unwrap(), None);
}

#[test]
fn time_runs_on_over_the_wrap() {
    let file = bytes(&[tag(UNITS_MASK - 1, 0), tag(UNITS_MASK, 1), tag(2, 2)]);
    let (tags, error) = read_all(&file, Limits::NONE);
    assert!(error.is_none());
    let wrap = u128::from(UNITS_MASK) + 1;
    assert_eq!(tags.iter().map(|t| t.1).collect::<Vec<_>>(), [wrap - 2, wrap - 1, wrap + 2]);
}

#[test]
fn several_detectors_in_a_word_are_several_tags_and_rollovers_none() {
    let file = bytes(&[100 << 10 | 0b1010, 150 << 10 | ROLLOVER, 200 << 10 | 0b0100]);
    let (tags, error) = read_all(&file, Limits::NONE);
    assert!(error.is_none());
    assert_eq!(tags, [(tag(100, 1), 100), (tag(100, 3), 100), (tag(200, 2), 200)]);
}

#[test]
fn a_file_cut_short_keeps_its_good_part() {
    let file = bytes(&[tag(1, 0), tag(2, 0), tag(3, 0)]);
    let (tags, error) = read_all(&file[..19], Limits::NONE);
    assert_eq!(tags.len(), 2);
    assert!(matches!(error, Some(TagFileError::CutShort { offset: 16, bytes: 3 })), "{error:?}");

    let mut frames = FrameReader::new(reader(&file[..19]), 4000);
    assert_eq!(frames.next_frame().unwrap().unwrap().tags.len(), 2);
    assert!(frames.next_frame().is_err());
    assert_eq!(frames.next_frame().unwrap(), None);
}

#[test]
fn time_that_goes_back_is_named() {
    let mut words: Vec<u64> = (0..20_000).map(|i| tag(i * 7, 0)).collect();
    words[15_000] = tag(14_999 * 7 - 2, 1);
    let (tags, error) = read_all(&bytes(&words), Limits::NONE);
    assert_eq!(tags.len(), 15_000);
    let error = error.unwrap();
    assert!(matches!(error, TagFileError::TimeGoesBack { offset: 120_000, back_ps: 8, swapped: false }), "{error}");
}

#[test]
fn swapped_halves_are_recognised_and_can_be_read() {
    let words: Vec<u64> = (1..500u64).map(|i| tag(i * 70_000_000, 0).rotate_left(32)).collect();
    let file = bytes(&words);
    let (_, error) = read_all(&file, Limits::NONE);
    let error = error.unwrap();
    assert!(
        matches!(error, TagFileError::TimeGoesBack { swapped: true, .. } | TagFileError::NoDetector { .. }),
        "{error}"
    );
    let mut tags = Vec::new();
    assert_eq!(TagReader::new(&file[..], Limits::NONE, HalfOrder::HighFirst).read(&mut tags).unwrap(), 499);
}

#[test]
fn other_files_are_refused() {
    let (tags, error) = read_all(b"time,channel\n12345,1\n12399,0\n", Limits::NONE);
    assert!(tags.len() < 3 && error.is_some());
    let (tags, error) = read_all(&[0; 64], Limits::NONE);
    assert!(tags.is_empty());
    assert!(matches!(error, Some(TagFileError::NoDetector { offset: 0 })));
    assert!(read_all(&[], Limits::NONE).1.is_none());
}

#[test]
fn limits_end_a_file() {
    let tags: Vec<_> = (0..100).map(|i| (i * 1000, 0)).collect();
    let file = bytes(&frame(0, &tags).tags);
    let by_size = Limits { bytes: 85, ..Limits::NONE };
    let by_time = Limits { duration_ps: 10 * 4000, ..Limits::NONE };
    for limits in [by_size, by_time] {
        assert_eq!(read_all(&file, limits).0.len(), 10);
        let mut writer = TagWriter::new(Vec::new(), limits);
        assert!(!writer.write(&frame(0, &tags)).unwrap());
        assert!(!writer.write(&frame(1, &[(200_000, 0)])).unwrap());
        assert_eq!(writer.finish().unwrap().len(), 80);
    }
}
