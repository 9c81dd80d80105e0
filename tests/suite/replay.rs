//! Recorded time tags in place of light.

use crate::support::{Place, assert_equal_keys, bright, digest, lines, qkdnet, success, summary};

#[test]
fn a_recording_distils_to_the_key_of_the_run_that_made_it() {
    let place = Place::new(&bright(&[]));
    let tags = place.path("tags");
    let record = tags.to_str().expect("a path");
    place.up("data", &["--for", "3s", "--seed", "5", "--record", record, "--record-for", "4s"]);
    let key = assert_equal_keys(&place.digest("data"));
    let replay = place.path("replay");
    let mut command = qkdnet();
    command.arg("replay").arg(place.topology()).args(["--seed", "5", "--output", "json"]);
    command.arg("--reserve").arg(place.path("data")).arg("--data").arg(&replay);
    for site in ["valrose", "sophia"] {
        let file = tags.join(format!("valrose-sophia.{site}.a1"));
        assert!(std::fs::metadata(&file).expect("a recording").len() > 100_000);
        command.arg("--tags").arg(format!("{site}={}", file.display()));
    }
    let printed = lines(&success(command));
    assert_eq!(summary(&printed)["links"][0]["key_bits"].as_u64(), Some(key.bits));
    assert_eq!(assert_equal_keys(&digest(&replay)), key);
}

#[test]
fn a_recording_that_is_cut_short_is_told_and_its_good_part_distilled() {
    let place = Place::new(&bright(&[]));
    let tags = place.path("tags");
    let record = tags.to_str().expect("a path");
    place.up("data", &["--for", "4s", "--seed", "5", "--record", record, "--record-for", "5s"]);
    let file = |site: &str| tags.join(format!("valrose-sophia.{site}.a1"));
    let whole = std::fs::read(file("valrose")).expect("a recording");
    std::fs::write(file("valrose"), &whole[..whole.len() / 4 * 3 / 8 * 8 + 3]).expect("cut the recording");
    let mut command = qkdnet();
    command.arg("replay").arg(place.topology()).args(["--seed", "5", "--output", "json"]);
    command.arg("--data").arg(place.path("replay"));
    for site in ["valrose", "sophia"] {
        command.arg("--tags").arg(format!("{site}={}", file(site).display()));
    }
    let output = success(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("byte") && said.contains("into a word of 8"), "{said}");
    assert_equal_keys(&digest(&place.path("replay")));
}
