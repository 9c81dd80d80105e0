use super::*;

fn surveyed(file: &[u8], format: Format) -> Survey {
    survey(TagReader::new(file, format).unwrap())
}

#[test]
fn a_survey_tells_what_a_recording_holds() {
    let words = recording(1 << 40, 20_000);
    let survey = surveyed(&bytes(&words), Format::A1);
    assert!(survey.failure.is_none());
    assert_eq!(survey.clicks, 20_000);
    assert_eq!(survey.channels.into_iter().collect::<Vec<_>>(), [(1, 5000), (2, 5000), (3, 5000), (4, 5000)]);
    assert_eq!(survey.first, Unit::A1.ticks(u128::from(words[0] >> 10)));
    assert_eq!(survey.last, Unit::A1.ticks(u128::from(words[19_999] >> 10)));
}

#[test]
fn clicks_are_known_again_whatever_the_file_around_them() {
    let words = recording(1 << 40, 60_000);
    let known = surveyed(&bytes(&words), Format::A1).prints;
    assert!(known.count() > 50, "{}", known.count());
    let part = surveyed(&bytes(&words[10_000..20_000]), Format::A1).prints;
    assert!(part.count() >= SHARED_MIN && part.shared(&known) + 1 >= part.count());
    let text: String = words.iter().map(|word| format!("{word:016x}\n")).collect();
    assert_eq!(surveyed(text.as_bytes(), Format::A2).prints.shared(&known), known.count());
    // Started again at another time of the counter; a whole number of ticks later.
    let later: Vec<u64> = words.iter().map(|word| word.wrapping_add(128_000_000 << 10)).collect();
    assert_eq!(surveyed(&bytes(&later), Format::A1).prints.shared(&known), known.count());
    // Other detectors do not make other clicks.
    let renamed: Vec<u64> = words.iter().map(|word| word & !0b1111 | 1).collect();
    assert_eq!(surveyed(&bytes(&renamed), Format::A1).prints.shared(&known), known.count());
    let others = light(2, 1 << 40, 60_000);
    assert_eq!(surveyed(&bytes(&others), Format::A1).prints.shared(&known), 0);
}

#[test]
fn a_stretch_that_is_there_twice_is_seen() {
    let words = recording(0, 60_000);
    let again: Vec<u64> = words.iter().map(|word| word + (256_000_000_000 << 10)).collect();
    let survey = surveyed(&bytes(&[&words[..], &again[..]].concat()), Format::A1);
    assert_eq!(survey.clicks, 120_000);
    assert!(survey.prints.repeated() >= SHARED_MIN);
    assert_eq!(surveyed(&bytes(&words), Format::A1).prints.repeated(), 0);
}

#[test]
fn the_sample_of_a_long_recording_stays_small_and_comparable() {
    let (mut long, mut short) = (Prints::new(), Prints::new());
    for seed in 0..100 {
        for word in light(seed, seed << 40, 100_000) {
            let time = u128::from(word >> 10);
            long.take(time);
            if seed == 20 {
                short.take(time);
            }
        }
    }
    assert!(long.count() <= 1 << 14 && long.count() > 1 << 12, "{}", long.count());
    assert!(long.shared(&short) >= SHARED_MIN, "{}", long.shared(&short));
}

#[test]
fn clicks_of_a_clock_are_no_sign_of_a_copy() {
    // Regular clicks among those of light, as of a detector that oscillates.
    let regular = (0..60_000).map(|click| word(click * 250_000, 0));
    let mut words: Vec<u64> = recording(0, 2000).into_iter().chain(regular).collect();
    words.sort_unstable();
    let oscillating = surveyed(&bytes(&words), Format::A1).prints;
    assert!(oscillating.repeated() < SHARED_MIN, "{}", oscillating.repeated());
    let mut others: Vec<u64> =
        light(2, 0, 2000).into_iter().chain((0..60_000).map(|click| word(click * 250_000, 1))).collect();
    others.sort_unstable();
    assert!(surveyed(&bytes(&others), Format::A1).prints.shared(&oscillating) < SHARED_MIN);
}
