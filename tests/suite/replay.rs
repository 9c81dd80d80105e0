//! Recorded time tags in place of light.

mod chance;
mod damage;
mod foreign;
mod pulses;
mod recording;
mod refusals;
mod words;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::words::Words;
use crate::support::{Place, bright, lines, qkdnet, success, summary};

const SITES: [&str; 2] = ["valrose", "sophia"];
/// No replay of some seconds takes longer, on a slow machine either.
const PATIENCE: Duration = Duration::from_secs(120);

/// A run of some seconds, and what its detectors recorded.
struct Recorded {
    place: Place,
}

impl Recorded {
    fn new(seconds: &str) -> Self {
        Self::with(seconds, &[])
    }

    fn with(seconds: &str, args: &[&str]) -> Self {
        let place = Place::new(&bright(&[]));
        let tags = place.path("tags");
        let record = tags.to_str().expect("a path");
        let all = ["--for", seconds, "--seed", "5", "--record", record, "--record-for", "60s"];
        place.up("data", &[&all[..], args].concat());
        Self { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    fn file(&self, site: &str) -> PathBuf {
        self.path("tags").join(format!("valrose-sophia.{site}.a1"))
    }

    fn words(&self, site: &str) -> Words {
        Words::read(&self.file(site))
    }

    /// Writes a file beside the recordings.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("write a file");
        path
    }

    /// A replay of two files into a data folder.
    fn replay(&self, files: [&Path; 2], data: &str, args: &[&str]) -> Command {
        let mut command = qkdnet();
        command.arg("replay").arg(self.place.topology()).args(["--seed", "5", "--output", "json"]).args(args);
        command.arg("--data").arg(self.path(data));
        for (site, file) in SITES.into_iter().zip(files) {
            command.arg("--tags").arg(format!("{site}={}", file.display()));
        }
        command
    }
}

/// Runs to the end, which has to come by itself.
fn ends(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start qkdnet");
    let begun = Instant::now();
    // What is written meanwhile must not fill a pipe.
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let drain = |from: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.map(|mut from| from.read_to_end(&mut bytes)).transpose().expect("read what is said");
            bytes
        })
    };
    let stdout = drain(stdout.map(|pipe| Box::new(pipe) as _));
    let stderr = drain(stderr.map(|pipe| Box::new(pipe) as _));
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for qkdnet") {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("end qkdnet");
            child.wait().expect("wait for qkdnet");
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().expect("what is said"));
    Output { status, stdout, stderr }
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Refused before anything began: exit code 2, and every one of `words` in the error.
fn assert_refused(command: &mut Command, words: &[&str]) {
    let output = ends(command);
    let said = error(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("error:") && said.contains("hint:"), "{said}");
    for word in words {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

/// The summary of a replay that made key.
fn replayed(command: Command) -> Value {
    summary(&lines(&success(command))).clone()
}

fn key_bits(summary: &Value) -> u64 {
    summary["links"][0]["key_bits"].as_u64().expect("a number of bits")
}
