//! What `up --record` writes, and that it makes the same key again, once.

use super::*;
use crate::support::{assert_equal_keys, digest};

#[test]
fn a_recording_distils_to_the_key_of_the_run_that_made_it_and_a_second_time_to_nothing() {
    let recorded = Recorded::new("3s");
    let key = assert_equal_keys(&recorded.place.digest("data"));
    let files = SITES.map(|site| recorded.file(site));
    let files = [&*files[0], &*files[1]];
    let data = recorded.path("data");
    // The run has taken its secret and erased it: its pads are not made again.
    let reserve = ["--reserve", data.to_str().expect("a path")];
    assert_refused(&mut recorded.replay(files, "refused", &reserve), &["authentication.secret", "erases"]);
    let summary = replayed(recorded.replay(files, "replay", &[]));
    assert_eq!(key_bits(&summary), key.bits);
    assert_eq!(assert_equal_keys(&digest(&recorded.path("replay"))), key);
    for (row, site) in summary["recordings"].as_array().expect("both recordings").iter().zip(SITES) {
        assert_eq!((row["site"].as_str(), row["format"].as_str()), (Some(site), Some("a1")));
        assert_eq!(row["skipped"], 0);
        assert!(row["used_s"].as_f64().expect("a time") > 2.9, "{row}");
    }

    // The same clicks: in the same files, under other names, in another format, or a part of them.
    assert_refused(&mut recorded.replay(files, "replay", &[]), &["valrose.a1", "already", "--data"]);
    let part = recorded.words("valrose");
    let part = Words(part.0[part.0.len() / 3..part.0.len() / 2].to_vec());
    let part = recorded.write("part.a2", part.text());
    assert_refused(&mut recorded.replay([&part, files[1]], "replay", &[]), &["part.a2", "already"]);
    assert_eq!(assert_equal_keys(&digest(&recorded.path("replay"))), key, "nothing was added");

    // Into another folder they can go.
    assert_eq!(key_bits(&replayed(recorded.replay(files, "other", &[]))), key.bits);
}

#[test]
fn what_was_recorded_is_never_overwritten() {
    let recorded = Recorded::new("1s");
    let before = recorded.words("valrose");
    let mut command = qkdnet();
    command.arg("up").arg(recorded.place.topology()).arg("--data").arg(recorded.path("second"));
    command.args(["--for", "1s", "--output", "json", "--record-for", "1s"]).arg("--record").arg(recorded.path("tags"));
    assert_refused(&mut command, &["valrose-sophia", "is there already", "--record"]);
    assert!(!recorded.path("second").join("valrose").exists(), "nothing was started");
    assert_eq!(recorded.words("valrose"), before);
}

#[test]
fn a_recording_that_fails_does_not_touch_the_link() {
    let place = Place::new(&bright(&[]));
    let plain = place.up("plain", &["--for", "2s", "--seed", "5"]);
    // A link to a device without room stands for a full disk.
    let tags = place.path("tags");
    std::fs::create_dir(&tags).expect("make a folder");
    std::os::unix::fs::symlink("/dev/full", tags.join("valrose-sophia.valrose.a1")).expect("make a link");
    let mut command = qkdnet();
    command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data"));
    command.args(["--for", "2s", "--seed", "5", "--output", "json"]).arg("--record").arg(&tags);
    // A device is not a file that a recording could go to: refused. A disk that fills up later is tested in `detector`.
    assert_refused(&mut command, &["valrose-sophia.valrose.a1", "is there already"]);

    // A folder that goes away while the network runs.
    std::fs::remove_file(tags.join("valrose-sophia.valrose.a1")).expect("remove the link");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start qkdnet");
    let begun = || SITES.iter().all(|site| tags.join(format!("valrose-sophia.{site}.a1")).exists());
    crate::keys::eventually("both recordings have begun", || begun().then_some(())).expect("they do not begin");
    std::fs::remove_dir_all(&tags).expect("remove the folder");
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("a pipe"), &mut printed).expect("read");
    child.wait().expect("wait for qkdnet");
    let last: Value = printed.lines().last().map(|line| serde_json::from_str(line).expect("JSON")).expect("a summary");
    assert_eq!(last["event"], "summary");
    assert_eq!(key_bits(&last), key_bits(summary(&plain)), "the link made the same key");
    let failed = last["verdict"].to_string();
    assert!(
        failed.contains("valrose-sophia.valrose.a1") && failed.contains("gone") && failed.contains("side-output"),
        "{failed}"
    );
}

#[test]
fn older_forms_are_written_and_read_too() {
    for (format, extension, name) in
        [("raw-125ps", "raw", "raw-125ps"), ("a1-high-first", "a1", "a1-high-first"), ("a2", "a2", "a2")]
    {
        let recorded = Recorded::with("2s", &["--record-format", format]);
        let files = SITES.map(|site| recorded.path("tags").join(format!("valrose-sophia.{site}.{extension}")));
        let named: &[&str] = if format == "raw-125ps" { &["--format", "raw-125ps"] } else { &[] };
        let mut command = recorded.replay([&files[0], &files[1]], "replay", named);
        let output = ends(&mut command);
        let printed = lines(&output);
        let rows = &summary(&printed)["recordings"];
        assert_eq!(
            (rows[0]["format"].as_str(), rows[1]["skipped"].as_u64()),
            (Some(name), Some(0)),
            "{}",
            error(&output)
        );
        if format != "raw-125ps" {
            // Of the light that was recorded nothing is lost.
            let key = assert_equal_keys(&recorded.place.digest("data"));
            assert_eq!(key_bits(summary(&printed)), key.bits, "{format}");
        } else {
            // Steps of 125 ps are wider than the window of 120 ps: the clocks are found, as far as they go.
            assert_eq!(rows[0]["clicks"].as_u64(), Some(std::fs::metadata(&files[0]).expect("a file").len() / 8));
        }
    }
}
