use super::*;

/// Ticks of a file's counter that has wrapped once: 2^54 of 1/256 ns.
const WRAP_TICKS: u128 = 125 << 47;

#[test]
fn a_count_of_256ths_of_a_nanosecond_is_converted_as_stated() {
    let edges = [0, 1, 124, 125, 126, 249, 250, 251, (1 << 54) - 1, 1 << 54, 976_562 << 34, WRAP_TICKS - 1, WRAP_TICKS];
    for t in edges.into_iter().chain((0..1000).map(|i| i * 18_014_398_509_481 + i)) {
        let u = (256 * t + 125) / 250;
        assert_eq!(Unit::A1.of_ticks(t), u, "{t}");
        assert_eq!(Unit::A1.ticks(u), (250 * u + 128) / 256, "{u}");
        assert_eq!(Unit::A1.ticks(u), t, "what was written is read as it was");
    }
    // A laboratory's count is at most 2 ps off: half a tick.
    for u in 0..1000u128 {
        let off = (Unit::A1.ticks(u) as f64 * 4.0 - u as f64 * 3.90625).abs();
        assert!(off <= 2.0, "{u}: {off}");
    }
}

#[test]
fn a_wrap_of_the_file_is_a_whole_number_of_ticks() {
    assert_eq!(Unit::A1.ticks(u128::from(WRAP)), WRAP_TICKS);
    assert_eq!(Unit::A1.of_ticks(WRAP_TICKS), u128::from(WRAP));
    assert_eq!(Format::A1.wrap_ticks(), Some(WRAP_TICKS));
    assert_eq!(Format::Raw125ps.wrap_ticks(), Some(WRAP_TICKS), "49 bits of 1/8 ns wrap at the same time");
    let hours = WRAP_TICKS as f64 * 4e-12 / 3600.0;
    assert!((19.54..19.56).contains(&hours), "{hours}");
}

#[test]
fn what_is_recorded_around_the_wrap_of_a_file_is_read_back_exactly() {
    // 0.9765625 * 2^54 ticks are where the counter of a file wraps.
    let wrap = WRAP_TICKS as u64;
    assert_eq!(wrap, (0.976_562_5 * WRAP as f64) as u64);
    for around in [wrap, WRAP - 1, 1 << 53] {
        let ticks: Vec<u64> = (0..200).map(|i| around - 100 + i).filter(|ticks| *ticks < WRAP).collect();
        let tags: Vec<(u64, u32)> = ticks.iter().enumerate().map(|(i, &ticks)| (ticks, i as u32 % 4)).collect();
        let file = written(&[frame(0, &tags)], Format::A1);
        let (clicks, damage, error) = read_all(&file, Format::A1);
        assert!(error.is_none() && damage.skipped() == 0, "{error:?}, {damage:?}");
        // A file that begins after a wrap does not know of it.
        let lost = if around == WRAP - 1 { WRAP_TICKS } else { 0 };
        let expected: Vec<u128> = ticks.iter().map(|&ticks| u128::from(ticks) - lost).collect();
        assert_eq!(times(&clicks), expected);
    }
}

#[test]
fn the_last_count_of_a_word_is_read() {
    let file = bytes(&[word(WRAP - 2, 0), word(WRAP - 1, 1), word(0, 2), word(255, 3)]);
    let (clicks, _, error) = read_all(&file, Format::A1);
    assert!(error.is_none());
    assert_eq!(times(&clicks), [WRAP_TICKS - 2, WRAP_TICKS - 1, WRAP_TICKS, WRAP_TICKS + 249]);
}

#[test]
fn recordings_in_units_of_4_ps_are_read_as_they_are() {
    let file = bytes(&[word(1000, 0), word(2000, 1)]);
    assert_eq!(times(&read_all(&file, Format::A14ps).0), [1000, 2000]);
    assert_eq!(times(&read_all(&file, Format::A1).0), [977, 1953]);
}

#[test]
fn a_frame_of_125_ps_words_has_the_high_half_first() {
    let file = written(&[frame(0, &[(1_000_000, 2)])], Format::Raw125ps);
    // 4 us are 32,000 eighths of a nanosecond.
    let word: u64 = 32_000 << 15 | 0b0100;
    assert_eq!(file, [((word >> 32) as u32).to_le_bytes(), (word as u32).to_le_bytes()].concat());
    // Bits between time and detectors are the instrument's own, bit 4 among them.
    let marked = [((word >> 32) as u32).to_le_bytes(), (word as u32 | 0x7FF0).to_le_bytes()].concat();
    for file in [file, marked] {
        let (clicks, _, error) = read_all(&file, Format::Raw125ps);
        assert!(error.is_none());
        assert_eq!(clicks, [Click { time: 1_000_000, channel: 3 }]);
    }
}
