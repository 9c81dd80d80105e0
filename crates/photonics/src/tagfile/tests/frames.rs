use super::*;

fn reader(bytes: &[u8]) -> FrameReader<&[u8]> {
    FrameReader::new(TagReader::new(bytes, Format::A1).unwrap(), 4000, vec![1, 2, 3, 4])
}

#[test]
fn frames_round_trip_in_every_format_that_is_written() {
    let frames = [frame(3, &[(3001, 0), (3500, 3)]), frame(4, &[]), frame(5, &[(5000, 1), (5999, 2)])];
    for format in [Format::A1, Format::A1HighFirst, Format::A14ps, Format::A2] {
        let file = written(&frames, format);
        let reader = TagReader::new(&file[..], format).unwrap();
        let mut reader = FrameReader::new(reader, 4000, vec![1, 2, 3, 4]);
        for frame in &frames {
            assert_eq!(reader.next_frame().unwrap().as_ref(), Some(frame), "{format}");
        }
        assert_eq!(reader.next_frame().unwrap(), None);
        assert_eq!(reader.next_frame().unwrap(), None);
    }
}

#[test]
fn a_file_cut_short_keeps_its_good_part() {
    let file = bytes(&[word(1, 0), word(2, 0), word(3, 0)]);
    let mut frames = reader(&file[..19]);
    assert_eq!(frames.next_frame().unwrap().unwrap().tags.len(), 2);
    let error = frames.next_frame().unwrap_err();
    assert!(matches!(error, TagFileError::CutShort { offset: 16, bytes: 3, word: 8 }), "{error}");
    assert_eq!(frames.next_frame().unwrap(), None);
}

#[test]
fn frames_count_from_where_they_are_told_to() {
    let frames = [frame(3, &[(3001, 0)]), frame(4, &[]), frame(5, &[(5000, 1)]), frame(6, &[(6001, 2)])];
    let file = written(&frames, Format::A1);
    let mut later = reader(&file).starting_at(5000);
    assert_eq!(later.next_frame().unwrap(), Some(frame(0, &[(0, 1)])));
    assert_eq!(later.next_frame().unwrap(), Some(frame(1, &[(1001, 2)])));
    assert_eq!(later.next_frame().unwrap(), None);
    let mut earlier = reader(&file).starting_at(-2000);
    assert_eq!(earlier.next_frame().unwrap(), Some(frame(5, &[(5001, 0)])));
}

#[test]
fn channels_become_detectors_as_told_and_others_are_left_out() {
    let csv = b"time_ps,channel\n4000,7\n8000,-2\n12000,5\n16000,7\n";
    let reader = TagReader::new(&csv[..], Format::Csv(None)).unwrap();
    let mut reader = FrameReader::new(reader, 1_000_000, vec![5, 6, 7, 8]);
    assert_eq!(reader.next_frame().unwrap(), Some(frame(0, &[(1000, 2), (3000, 0), (4000, 2)])));
}

#[test]
fn what_no_tag_can_hold_ends_the_frames_and_counts_from_a_later_origin() {
    // A counter of 4 ps that wraps: what follows is beyond the last tag.
    let words = [(WRAP - 5) << 10 | 1, 3 << 10 | 2];
    let file = bytes(&words);
    let reader = || FrameReader::new(TagReader::new(&file[..], Format::A14ps).unwrap(), 4000, vec![1, 2, 3, 4]);
    let mut short = reader();
    assert_eq!(short.next_frame().unwrap().unwrap().tags, [tag(WRAP - 5, 0)]);
    assert_eq!(short.next_frame().unwrap(), None);
    let mut whole = reader().starting_at(i128::from(WRAP - 10));
    assert_eq!(whole.next_frame().unwrap(), Some(frame(0, &[(5, 0), (13, 1)])));
}
