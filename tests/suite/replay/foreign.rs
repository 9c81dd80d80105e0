//! Files as other programs and instruments write them. `make fpfind` installs fpfind, a public program for the time tags
//! of entangled photons, from PyPI into `target/fpfind`.

use super::*;
use crate::support::{assert_equal_keys, digest, repository};

/// A program of fpfind; `None` with a loud word where it is not installed.
fn program(name: &str) -> Option<PathBuf> {
    let program = repository().join("target/fpfind/bin").join(name);
    if program.is_file() {
        return Some(program);
    }
    eprintln!("SKIPPED: NO {}: run `make fpfind`, which needs PyPI", program.display());
    None
}

/// The offset that a run or a replay found, in ns.
fn offset_ns(printed: &[Value]) -> f64 {
    let locked = printed.iter().find(|line| line["name"] == "locked").expect("a lock");
    let message = locked["message"].as_str().expect("words");
    let number = message.split_whitespace().find_map(|word| word.parse::<f64>().ok()).expect("a number");
    number / 1000.0
}

/// The offset that fpfind finds in two files, in ns.
fn found_ns(program: &Path, files: [&Path; 2], args: &[&str]) -> f64 {
    let mut command = Command::new(program);
    command.args(["-pp", "-q", "20", "--disable-comp"]).args(args);
    command.arg("-t").arg(files[1]).arg("-T").arg(files[0]);
    let output = success(command);
    let text = String::from_utf8(output.stdout).expect("text");
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    numbers[1].abs()
}

#[test]
fn a_public_program_finds_the_true_offset_in_our_recording_and_we_find_it_in_its_file() {
    let (Some(fpfind), Some(convert)) = (program("fpfind"), program("parse-timestamps")) else { return };
    let recorded = Recorded::new("2s");
    let files = SITES.map(|site| recorded.file(site));
    let files = [&*files[0], &*files[1]];
    // Clocks are 3.1 ms ahead and 2.4 ms behind; light needs 66.1 us longer to Sophia.
    let fibre_ns = (32.7e3 - 19.2e3) * 1.468 / 0.299_792_458;
    let true_ns = 5.5e6 - fibre_ns;
    let found = found_ns(&fpfind, files, &[]);
    assert!((found - true_ns).abs() < 10.0, "fpfind: {found} ns, true: {true_ns} ns");

    // Written by fpfind, half of them first, and read by us.
    let theirs = ["valrose", "sophia"].map(|site| recorded.path(&format!("{site}.theirs.a1")));
    for (ours, theirs) in files.iter().zip(&theirs) {
        let mut command = Command::new(&convert);
        command.args(["-q", "-A1", "-a1", "-x"]).arg(ours).arg(theirs);
        success(command);
    }
    let theirs = [&*theirs[0], &*theirs[1]];
    assert!((found_ns(&fpfind, theirs, &["-X"]) - true_ns).abs() < 10.0);
    let printed = lines(&success(recorded.replay(theirs, "replay", &[])));
    assert_eq!(summary(&printed)["recordings"][0]["format"], "a1-high-first");
    let ours = offset_ns(&printed).abs();
    assert!((ours - true_ns).abs() < 10.0 && (ours - found).abs() < 2.0, "ours: {ours} ns, fpfind: {found} ns");
    let key = assert_equal_keys(&recorded.place.digest("data"));
    assert_eq!(assert_equal_keys(&digest(&recorded.path("replay"))).bits, key.bits, "exact for our own recordings");
}

#[test]
fn a_recording_of_before_is_read_when_its_unit_is_named() {
    let recorded = Recorded::new("2s");
    // What an earlier version wrote: the same words in units of 4 ps.
    let files = SITES.map(|site| {
        let words = recorded.words(site).times(|count| ((250 * u128::from(count) + 128) / 256) as u64);
        recorded.write(&format!("{site}.a1"), words.bytes())
    });
    let files = [&*files[0], &*files[1]];
    let printed = lines(&success(recorded.replay(files, "replay", &["--format", "a1-4ps"])));
    let key = assert_equal_keys(&recorded.place.digest("data"));
    assert_eq!(assert_equal_keys(&digest(&recorded.path("replay"))).bits, key.bits);
    let right = offset_ns(&printed);
    // Unnamed, it is 2.4 % off.
    let printed = lines(&success(recorded.replay(files, "other", &[])));
    let wrong = offset_ns(&printed);
    assert!((wrong / right - 250.0 / 256.0).abs() < 1e-4, "{wrong} ns and {right} ns");
}

#[test]
fn tables_hexadecimal_text_and_picoquant_files_make_key() {
    let recorded = Recorded::new("2s");
    let (valrose, sophia) = (recorded.words("valrose"), recorded.words("sophia"));
    let ticks = |word: u64| (250 * u128::from(word >> 10) + 128) / 256;
    let lines_of = |words: &Words, line: &dyn Fn(u128, u32) -> String| -> String {
        words.0.iter().map(|word| line(ticks(*word), word.trailing_zeros() + 1)).collect()
    };
    // Channels as the instrument was cabled; the header says the unit.
    let csv = lines_of(&valrose, &|ticks, detector| format!("{},{:.3}\n", 10 * detector, ticks as f64 * 0.004));
    let csv = recorded.write("valrose.csv", format!("Channel,Time (ns)\n{csv}"));
    let a2 = recorded.write("sophia.txt", sophia.text());
    let summary = replayed(recorded.replay([&csv, &a2], "replay", &[]));
    let key = assert_equal_keys(&recorded.place.digest("data"));
    assert_eq!(key_bits(&summary), key.bits);
    assert_eq!(
        (summary["recordings"][0]["format"].as_str(), summary["recordings"][1]["format"].as_str()),
        (Some("csv"), Some("a2"))
    );

    let ptu = recorded.write("sophia.ptu", ptu(&sophia));
    let table = lines_of(&valrose, &|ticks, detector| format!("{detector} {}\n", 4 * ticks));
    let table = recorded.write("valrose.txt", table);
    let summary = replayed(recorded.replay([&table, &ptu], "other", &[]));
    assert_eq!(key_bits(&summary), key.bits);
    assert_eq!(summary["recordings"][1]["format"], "ptu");
}

/// As a MultiHarp writes a measurement in T2 mode, in steps of 4 ps.
fn ptu(words: &Words) -> Vec<u8> {
    let mut file = b"PQTTTR\0\x001.0.00\0\0".to_vec();
    let tags = [
        ("TTResultFormat_TTTRRecType", 0x1000_0008u32, 0x0001_0207),
        ("MeasDesc_GlobalResolution", 0x2000_0008, 4e-12f64.to_bits()),
        ("Header_End", 0xFFFF_0008, 0),
    ];
    for (name, kind, value) in tags {
        file.extend(format!("{name:\0<32}").bytes().chain([0xFF; 4]));
        file.extend(kind.to_le_bytes().into_iter().chain(value.to_le_bytes()));
    }
    let mut overflows = 0;
    for word in &words.0 {
        let ticks = ((250 * u128::from(word >> 10) + 128) / 256) as u64;
        let passed = ticks / 33_554_432;
        if passed > overflows {
            file.extend((0xFE00_0000 | (passed - overflows) as u32).to_le_bytes());
            overflows = passed;
        }
        file.extend((word.trailing_zeros() << 25 | (ticks % 33_554_432) as u32).to_le_bytes());
    }
    file
}
