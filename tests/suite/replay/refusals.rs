//! Recordings that cannot be: each is refused with the file, the place and the way out.

use super::words::PER_SECOND;
use super::*;

#[test]
fn files_that_are_no_recordings_are_refused_with_file_byte_and_reason() {
    let recorded = Recorded::new("1s");
    let good = recorded.file("sophia");
    let words = recorded.words("valrose");
    let table: String = words.0.iter().take(1000).map(|word| format!("{},{}\n", word >> 10, word & 15)).collect();
    let mut shuffled = words.clone();
    shuffled.0.chunks_mut(4).for_each(<[u64]>::reverse);
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("empty.a1", Vec::new(), &["is empty"]),
        ("big.a1", words.map(u64::swap_bytes).bytes(), &["byte 0", "big-endian"]),
        ("columns.csv", format!("when,what\n{table}").into_bytes(), &["byte 0", "header", "time_ps,channel"]),
        ("lab.ttbin", [b"SITT".to_vec(), vec![1; 4000]].concat(), &["byte 0", "Swabian", "FileReader"]),
        ("renamed.ttbin", words.bytes(), &["Swabian"]),
        ("t3.ptu", b"PQTTTR\0\0".repeat(3), &["byte 16", "header"]),
        ("zeros.a1", vec![0; 8000], &["byte 0", "detector"]),
        ("shuffled.a1", shuffled.bytes(), &["byte", "not in order"]),
        ("short.a1", vec![1; 5], &["byte 0", "5 bytes into a word of 8"]),
    ];
    for (name, bytes, said) in cases {
        let bad = recorded.write(name, bytes);
        let said = [&[name], said].concat();
        assert_refused(&mut recorded.replay([&bad, &good], "data-of-bad", &[]), &said);
    }
    assert!(!recorded.path("data-of-bad").exists(), "nothing was touched");
}

#[test]
fn one_recording_for_both_ends_is_refused() {
    let recorded = Recorded::new("1s");
    let file = recorded.file("valrose");
    assert_refused(&mut recorded.replay([&file, &file], "replay", &[]), &["are one recording"]);
    // Copied, written otherwise and shifted, it is still the same.
    let copy = recorded.write("copy.a2", recorded.words("valrose").later(PER_SECOND / 1000 * 5).text());
    assert_refused(&mut recorded.replay([&file, &copy], "replay", &[]), &["hold the same clicks"]);
    assert!(!recorded.path("replay").exists());
}

#[test]
fn recordings_joined_to_themselves_are_refused() {
    let recorded = Recorded::new("1s");
    let words = recorded.words("valrose");
    let again = words.later(3 * PER_SECOND);
    let joined = recorded.write("joined.a1", Words([words.0, again.0].concat()).bytes());
    let command = &mut recorded.replay([&joined, &recorded.file("sophia")], "replay", &[]);
    assert_refused(command, &["joined.a1", "the same clicks more than once"]);
}

#[test]
fn recordings_that_do_not_overlap_are_refused_and_can_be_shifted() {
    let recorded = Recorded::new("2s");
    let late = recorded.write("late.a1", recorded.words("valrose").later(5 * PER_SECOND).bytes());
    let sophia = recorded.file("sophia");
    let words = ["in common", "valrose from 6.0", "sophia from 1.0", "acquisition.search", "--shift"];
    assert_refused(&mut recorded.replay([&late, &sophia], "replay", &[]), &words);
    let summary = replayed(recorded.replay([&late, &sophia], "replay", &["--shift", "valrose=-5s"]));
    assert!(key_bits(&summary) > 0);
}

#[test]
fn the_counters_of_the_two_files_may_stand_on_either_side_of_a_wrap() {
    let recorded = Recorded::new("2s");
    let files = SITES.map(|site| {
        // Valrose's clock is some milliseconds ahead: it has wrapped when the recordings begin, Sophia's has not.
        let first = recorded.words("valrose").0[0] >> 10;
        recorded.write(&format!("{site}.a1"), recorded.words(site).later((1 << 54) - first).bytes())
    });
    let summary = replayed(recorded.replay([&files[0], &files[1]], "replay", &[]));
    assert!(key_bits(&summary) > 0);
}
