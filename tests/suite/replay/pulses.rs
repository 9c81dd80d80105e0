//! Links of pulses: the receiver's tags and what the transmitter chose.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::prepared::{bright_decoys, bright_dot};
use crate::support::{Digest, assert_equal_keys, digest};

/// A run of a link of pulses, and what it recorded.
struct Recorded {
    place: Place,
    link: &'static str,
    /// Of transmitter and receiver.
    sites: [&'static str; 2],
    said: String,
    key: Digest,
}

impl Recorded {
    fn new(topology: &str, link: &'static str, sites: [&'static str; 2], args: &[&str]) -> Self {
        let place = Place::new(topology);
        let mut command = qkdnet();
        command.arg("up").arg(place.topology()).arg("--data").arg(place.path("data")).args(["--output", "json"]);
        command.args(["--for", "4s", "--seed", "5", "--record"]).arg(place.path("tags")).args(args);
        let said = error(&success(command));
        let key = assert_equal_keys(&place.digest("data"));
        Self { place, link, sites, said, key }
    }

    fn dot() -> Self {
        Self::new(&bright_dot(), "niels-bohr-dtu", ["niels-bohr", "dtu"], &[])
    }

    fn choices(&self) -> PathBuf {
        self.place.path("tags").join(format!("{}.{}.choices", self.link, self.sites[0]))
    }

    fn tags(&self, extension: &str) -> PathBuf {
        self.place.path("tags").join(format!("{}.{}.{extension}", self.link, self.sites[1]))
    }

    /// A replay of these files into a data folder, without choices if there are none.
    fn replay(&self, tags: &Path, choices: Option<&Path>, data: &str, args: &[&str]) -> Command {
        let mut command = qkdnet();
        command.arg("replay").arg(self.place.topology()).args(["--seed", "5", "--output", "json"]).args(args);
        command.arg("--data").arg(self.place.path(data));
        command.arg("--tags").arg(format!("{}={}", self.sites[1], tags.display()));
        if let Some(choices) = choices {
            command.arg("--choices").arg(choices);
        }
        command
    }

    fn assert_replays(&self, extension: &str) {
        let command = self.replay(&self.tags(extension), Some(&self.choices()), "replay", &[]);
        let summary = replayed(command);
        assert_eq!(key_bits(&summary), self.key.bits);
        assert_eq!(assert_equal_keys(&digest(&self.place.path("replay"))), self.key);
        let rows = summary["recordings"].as_array().expect("a recording");
        assert_eq!(
            (rows.len(), rows[0]["site"].as_str(), rows[0]["skipped"].as_u64()),
            (1, Some(self.sites[1]), Some(0))
        );
        assert!(rows[0]["used_s"].as_f64().expect("a time") > 3.9, "{}", rows[0]);
    }
}

#[test]
fn tags_and_choices_distil_to_the_key_of_the_run_that_made_them_and_a_second_time_to_nothing() {
    for (recorded, extension) in [
        (Recorded::dot(), "a1"),
        (Recorded::new(&bright_decoys(), "t12", ["alice", "bob"], &["--record-format", "a2"]), "a2"),
    ] {
        recorded.assert_replays(extension);
        let again = &mut recorded.replay(&recorded.tags(extension), Some(&recorded.choices()), "replay", &[]);
        assert_refused(again, &["already", "--data"]);
    }
}

#[test]
fn choices_are_the_transmitters_alone_and_recording_them_warns_that_they_are_raw_key() {
    let recorded = Recorded::dot();
    let mode = |path: PathBuf| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(recorded.choices()), 0o600);
    assert_eq!(mode(recorded.place.path("tags")), 0o700);
    for word in ["warning", "niels-bohr-dtu.niels-bohr.choices", "raw key", "leave it at niels-bohr"] {
        assert!(recorded.said.contains(word), "no `{word}` in: {}", recorded.said);
    }
    let key = |path: PathBuf| std::fs::read(path).expect("a file")[48..80].to_vec();
    assert_eq!(key(recorded.tags("sessions")), [0; 32], "a receiver knows no choices");
    assert_ne!(key(recorded.choices()), [0; 32]);
    // What is there is never overwritten.
    let mut command = qkdnet();
    command.arg("up").arg(recorded.place.topology()).arg("--data").arg(recorded.place.path("second"));
    command.args(["--for", "1s", "--record"]).arg(recorded.place.path("tags")).args(["--output", "json"]);
    std::fs::remove_file(recorded.tags("a1")).expect("remove the tags");
    std::fs::remove_file(recorded.tags("sessions")).expect("remove the sessions");
    assert_refused(&mut command, &["niels-bohr.choices", "is there already", "--record"]);
}

#[test]
fn recordings_of_pulses_that_cannot_be_replayed_are_refused_with_file_byte_and_reason() {
    let recorded = Recorded::dot();
    let (tags, choices, sessions) = (recorded.tags("a1"), recorded.choices(), recorded.tags("sessions"));
    let refused = |choices: Option<&Path>, args: &[&str], words: &[&str]| {
        assert_refused(&mut recorded.replay(&tags, choices, "refused", args), words);
    };
    refused(None, &[], &["without what it chose", "--choices"]);
    let sent = format!("niels-bohr={}", choices.display());
    refused(Some(&choices), &["--tags", &sent], &["records no tags", "--choices"]);
    refused(Some(&choices), &["--shift", "dtu=1s"], &["not shifted"]);
    refused(Some(&tags), &[], &["dtu.a1", "byte 0", "not a file of a transmitter's choices"]);
    refused(Some(&sessions), &[], &["byte 7", "not a file of a transmitter's choices"]);
    let spoiled = recorded.place.path("spoiled");
    let spoil = |change: fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(&choices).expect("read the choices");
        change(&mut bytes);
        std::fs::write(&spoiled, bytes).expect("write a file");
    };
    spoil(|bytes| bytes[50] ^= 1);
    refused(Some(&spoiled), &[], &["spoiled", "byte 24", "damaged"]);
    spoil(|bytes| bytes.truncate(60));
    refused(Some(&spoiled), &[], &["byte 24", "ends 36 bytes into"]);
    spoil(|bytes| bytes[17] ^= 1);
    refused(Some(&spoiled), &[], &["byte 16", "another transmitter"]);
    // Of another run, and without the sessions that are beside the tags.
    let other = Recorded::new(&bright_dot(), "niels-bohr-dtu", ["niels-bohr", "dtu"], &["--record-for", "1s"]);
    refused(Some(&other.choices()), &[], &["no session in common", "of one run"]);
    std::fs::remove_file(&sessions).expect("remove the sessions");
    refused(Some(&choices), &[], &["dtu.sessions", "No such file", "beside the tags"]);
    assert!(!recorded.place.path("refused").exists(), "nothing was touched");
}
