//! Damaged recordings: what is good of them is used, what is not is told.

use super::words::PER_SECOND;
use super::*;
use crate::support::{assert_equal_keys, digest};

#[test]
fn counters_that_wrap_in_the_middle_make_the_key_of_the_whole_recording() {
    let recorded = Recorded::new("3s");
    let key = assert_equal_keys(&recorded.place.digest("data"));
    let files = SITES.map(|site| {
        let words = recorded.words(site);
        let middle = words.0[words.0.len() / 2] >> 10;
        recorded.write(&format!("{site}.a1"), words.later((1 << 54) - middle).bytes())
    });
    let output = ends(&mut recorded.replay([&files[0], &files[1]], "replay", &[]));
    assert_eq!(output.status.code(), Some(0), "{}", error(&output));
    let printed = lines(&output);
    assert_eq!(printed.iter().filter(|line| line["name"] == "block-stored").count(), 3);
    // Shifted by less than a tick of 4 ps, some times are rounded otherwise.
    let got = assert_equal_keys(&digest(&recorded.path("replay"))).bits;
    assert!(got.abs_diff(key.bits) < key.bits / 20, "{got} of {}", key.bits);
}

#[test]
fn small_damage_is_skipped_and_counted() {
    let recorded = Recorded::new("2s");
    let mut words = recorded.words("valrose");
    let length = words.0.len();
    words.0[length * 11 / 12] ^= 1 << 59;
    words.0.swap(length / 2, length / 2 + 1);
    words.0[length / 3] &= !0xF;
    words.0.insert(length / 4, words.0[length / 4]);
    let damaged = recorded.write("damaged.a1", words.bytes());
    let summary = replayed(recorded.replay([&damaged, &recorded.file("sophia")], "replay", &[]));
    assert!(key_bits(&summary) > 0);
    assert_equal_keys(&digest(&recorded.path("replay")));
    let row = &summary["recordings"][0];
    assert_eq!(
        (row["skipped"].as_u64(), row["skipped_first_byte"].as_u64()),
        (Some(4), Some((length / 4 + 1) as u64 * 8))
    );
    assert_eq!(summary["recordings"][1]["skipped"], 0);
}

#[test]
fn of_recordings_of_unequal_length_the_common_part_is_used() {
    let recorded = Recorded::new("3s");
    let whole = std::fs::read(recorded.file("valrose")).expect("a recording");
    // Cut in the middle of a word.
    let cut = recorded.write("cut.a1", &whole[..whole.len() / 2 / 8 * 8 + 3]);
    let summary = replayed(recorded.replay([&cut, &recorded.file("sophia")], "replay", &[]));
    assert!(key_bits(&summary) > 0);
    assert_equal_keys(&digest(&recorded.path("replay")));
    let remarks = summary["recordings"][0]["remarks"].to_string();
    assert!(
        remarks.contains(&format!("byte {}", whole.len() / 2 / 8 * 8)) && remarks.contains("into a word of 8"),
        "{remarks}"
    );
    let remarks = summary["recordings"][1]["remarks"].to_string();
    assert!(remarks.contains("longer than the other"), "{remarks}");
}

#[test]
fn where_time_jumps_the_part_before_is_used() {
    let recorded = Recorded::new("3s");
    let words = recorded.words("valrose");
    let (before, after) = words.0.split_at(words.0.len() / 2);
    let gap = Words(after.to_vec()).later(5 * 3600 * PER_SECOND);
    let back = Words(after.to_vec()).later((1 << 54) - PER_SECOND);
    for (name, after, said) in [("ahead.a1", gap, "jumps ahead by 18000.0"), ("back.a1", back, "goes back by 999.9")] {
        let file = recorded.write(name, Words([before, &after.0].concat()).bytes());
        let data = format!("data-{name}");
        let summary = replayed(recorded.replay([&file, &recorded.file("sophia")], &data, &[]));
        assert!(key_bits(&summary) > 0);
        assert_equal_keys(&digest(&recorded.path(&data)));
        let remarks = summary["recordings"][0]["remarks"].to_string();
        assert!(remarks.contains(said) && remarks.contains(&format!("byte {}", before.len() * 8)), "{remarks}");
    }
}

#[test]
fn a_recording_of_two_words_hours_apart_ends_at_once() {
    let recorded = Recorded::new("1s");
    let word = |time: u64| time << 10 | 1;
    let long = Words(vec![word(PER_SECOND), word(5 * 3600 * PER_SECOND)]);
    let files =
        [recorded.write("jump.a1", long.bytes()), recorded.write("one.a1", Words(vec![word(PER_SECOND)]).bytes())];
    // The same word in both is no sign of anything but of how short they are; refused it is all the same.
    let output = ends(&mut recorded.replay([&files[0], &files[1]], "replay", &[]));
    assert_eq!(output.status.code(), Some(2), "{}", error(&output));
    let said = error(&output);
    assert!(said.contains("in common") && said.contains("jump.a1: byte 8: time jumps ahead by 17999.0"), "{said}");
}

#[test]
fn without_a_coincidence_peak_the_verdict_says_what_was_searched() {
    let recorded = Recorded::new("2s");
    // Half a second apart: both last two seconds, nothing fits.
    let late = recorded.write("late.a1", recorded.words("valrose").later(PER_SECOND / 2).bytes());
    let files = [&*late, &*recorded.file("sophia")];
    let output = ends(&mut recorded.replay(files, "replay", &[]));
    let printed = lines(&output);
    let verdict = summary(&printed)["verdict"].to_string();
    for text in [error(&output), verdict] {
        for word in ["no coincidence peak", "search = 10 ms", "200 ns/s", "valrose from 1.5", "sophia from 1.0"] {
            assert!(text.contains(word), "no `{word}` in: {text}");
        }
    }
    assert_eq!(output.status.code(), Some(1));
    // Nothing was matched: once the reason is known they can be replayed into the same folder.
    let summary = replayed(recorded.replay(files, "replay", &["--shift", "valrose=-500ms"]));
    assert!(key_bits(&summary) > 0);
}

#[test]
fn a_session_that_ends_goes_on_where_the_recording_was() {
    let recorded = Recorded::new("4s");
    let key = assert_equal_keys(&recorded.place.digest("data"));
    let mut lost = 0;
    for (end, site) in SITES.into_iter().enumerate() {
        let mut words = recorded.words(site);
        // More clicks in one frame than may be announced: the announcer cannot go on with this session.
        let middle = words.0.partition_point(|word| word >> 10 < (words.0[0] >> 10) + 3 * PER_SECOND / 2);
        let begin = (words.0[middle] >> 10).next_multiple_of(PER_SECOND / 50);
        let burst = (0..1_100_000u64)
            .map(|click| (begin + 4600 * click + click.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 4096) << 10 | 1);
        words.0.extend(burst);
        words.0.sort_unstable();
        let burst = recorded.write(&format!("burst.{site}.a1"), words.bytes());
        let mut files = SITES.map(|site| recorded.file(site));
        files[end] = burst;
        let data = format!("data-{site}");
        let printed = lines(&success(recorded.replay([&files[0], &files[1]], &data, &[])));
        lost += printed.iter().filter(|line| line["name"] == "session-lost" && line["site"] == site).count();
        let got = assert_equal_keys(&digest(&recorded.path(&data))).bits;
        assert!(got > key.bits / 4 && got <= key.bits + key.bits / 20, "{got} of {} from {site}", key.bits);
    }
    assert!(lost > 0, "no session was lost: what this tests does not happen");
}
