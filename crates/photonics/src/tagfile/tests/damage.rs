use super::*;

#[test]
fn time_runs_on_over_the_wrap_of_any_word() {
    let first = WRAP - 500 * 250_000;
    let (plain, _, _) = read_all(&bytes(&recording(0, 2000)), Format::A1);
    let (wrapped, damage, error) = read_all(&bytes(&recording(first, 2000)), Format::A1);
    assert!(error.is_none() && damage.skipped() == 0, "{error:?}, {damage:?}");
    let gaps = |clicks: &[Click]| clicks.windows(2).map(|pair| pair[1].time - pair[0].time).sum::<u128>();
    assert_eq!(plain.len(), wrapped.len());
    assert!(gaps(&plain).abs_diff(gaps(&wrapped)) <= 1, "rounded once");
}

#[test]
fn several_detectors_in_a_word_are_several_clicks_and_rollovers_none() {
    let file = bytes(&[256 << 10 | 0b1010, 512 << 10 | ROLLOVER, 768 << 10 | 0b0100]);
    let (clicks, damage, error) = read_all(&file, Format::A1);
    assert!(error.is_none() && damage.skipped() == 0);
    let click = |time, channel| Click { time, channel };
    assert_eq!(clicks, [click(250, 2), click(250, 4), click(750, 3)]);
}

#[test]
fn one_flipped_bit_costs_one_click() {
    let words = recording(1 << 46, 3000);
    let (whole, _, _) = read_all(&bytes(&words), Format::A1);
    for at in [0, 1, 2, 1500, 2990, 2997] {
        for bit in 10..64 {
            let mut damaged = words.clone();
            damaged[at] ^= 1 << bit;
            let (clicks, damage, error) = read_all(&bytes(&damaged), Format::A1);
            assert!(error.is_none(), "bit {bit} of word {at}: {error:?}");
            // Moved by a few clicks it cannot be told from those that it passes.
            let lost = if bit < 32 { 4 } else { 1 };
            assert!(clicks.len() + lost >= whole.len(), "bit {bit} of word {at}: {} clicks, {damage:?}", clicks.len());
            assert!(clicks.is_sorted_by_key(|click| click.time));
            let strange = clicks.iter().filter(|click| !whole.contains(click)).count();
            assert!(strange <= 1, "bit {bit} of word {at}: {strange}");
            // A first click some seconds before the others may be one.
            if bit >= 32 && (at > 0 || clicks.len() < whole.len()) {
                assert_eq!((damage.skipped(), damage.first_at.map(|at| at / 8)), (1, Some(at as u64)), "{bit}");
            }
        }
    }
}

#[test]
fn words_out_of_order_are_skipped_and_counted() {
    let mut words = recording(0, 1000);
    words.swap(300, 301);
    words.swap(700, 704);
    let (clicks, damage, error) = read_all(&bytes(&words), Format::A1);
    assert!(error.is_none());
    assert!(clicks.is_sorted_by_key(|click| click.time));
    assert_eq!(clicks.len() as u64 + damage.skipped(), 1000);
    assert!((2..=6).contains(&damage.skipped()), "{damage:?}");
}

#[test]
fn a_click_that_is_there_twice_counts_once() {
    let mut words = recording(0, 100);
    words.insert(50, words[50]);
    let (clicks, damage, _) = read_all(&bytes(&words), Format::A1);
    assert_eq!((clicks.len(), damage.repeated, damage.first_at), (100, 1, Some(51 * 8)));
}

#[test]
fn a_word_of_no_detector_is_skipped_and_counted() {
    let mut words = recording(0, 100);
    words[7] &= !0b1111;
    let (clicks, damage, error) = read_all(&bytes(&words), Format::A1);
    assert!(error.is_none());
    assert_eq!((clicks.len(), damage.nothing, damage.first_at), (99, 1, Some(56)));
}

#[test]
fn where_time_goes_back_for_good_the_recording_ends() {
    let words = recording(1 << 40, 2000);
    let joined = [&words[..], &words[..]].concat();
    let (clicks, _, error) = read_all(&bytes(&joined), Format::A1);
    assert!((1990..=2000).contains(&clicks.len()), "{}", clicks.len());
    let Some(TagFileError::TimeGoesBack { offset, back_ps }) = error else { panic!("{error:?}") };
    assert_eq!(offset, 16_000);
    assert!((1_500_000_000..2_500_000_000).contains(&back_ps), "{back_ps}");
}

#[test]
fn where_time_jumps_ahead_the_recording_ends() {
    let later = recording((1 << 40) + 5 * 3600 * 256_000_000_000, 2000);
    let words = [recording(1 << 40, 2000), later].concat();
    let (clicks, damage, error) = read_all(&bytes(&words), Format::A1);
    assert_eq!((clicks.len(), damage.skipped()), (2000, 0));
    let Some(TagFileError::TimeJumps { offset, ahead_ps }) = error else { panic!("{error:?}") };
    assert_eq!((offset, ahead_ps / 1_000_000_000_000), (16_000, 5 * 3600 - 1));
    // Two words are a recording, too.
    let (clicks, _, error) = read_all(&bytes(&[words[0], words[2000]]), Format::A1);
    assert_eq!(clicks.len(), 1);
    assert!(matches!(error, Some(TagFileError::TimeJumps { offset: 8, .. })), "{error:?}");
}

#[test]
fn pauses_of_up_to_a_minute_are_part_of_a_recording() {
    let words = [recording(0, 100), recording(59 * 256_000_000_000, 100)].concat();
    let (clicks, _, error) = read_all(&bytes(&words), Format::A1);
    assert!(error.is_none());
    assert_eq!(clicks.len(), 200);
}

#[test]
fn a_file_that_is_mostly_damage_is_refused() {
    let mut words = recording(0, 4000);
    for chunk in words.chunks_mut(4) {
        chunk.reverse();
    }
    let (_, _, error) = read_all(&bytes(&words), Format::A1);
    assert!(matches!(error, Some(TagFileError::Disorder { .. })), "{error:?}");
}

#[test]
fn what_can_be_read_comes_before_an_error_of_the_disk() {
    struct Breaks<'a>(&'a [u8]);
    impl std::io::Read for Breaks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() { Err(std::io::Error::other("the disk is gone")) } else { self.0.read(buffer) }
        }
    }
    let words = bytes(&recording(0, 100));
    let mut reader = TagReader::new(Breaks(&words), Format::A1).unwrap();
    let mut clicks = Vec::new();
    let error = loop {
        match reader.read(&mut clicks) {
            Ok(0) => panic!("the error is swallowed"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(clicks.len(), 100);
    assert_eq!(error.to_string(), "byte 800: the disk is gone");
}
