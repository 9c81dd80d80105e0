//! The commands that need no running network, as a shell sees them.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use distill::bits::Bits;
use distill::ledger::BlockLedger;
use module::store::{BlockStore, NewBlock, path};

fn qkdnet(arguments: &[&str]) -> Output {
    let topologies = concat!(env!("CARGO_MANIFEST_DIR"), "/../../topologies");
    let mut command = Command::new(env!("CARGO_BIN_EXE_qkdnet"));
    command.env("QKDNET_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command.args(arguments).current_dir(topologies).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn temporary(name: &str, content: &[u8]) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::write(&file, content).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (directory, file)
}

#[test]
fn shipped_topologies_are_good() {
    let output = qkdnet(&["validate", "nice.yaml", "nice-50km.yaml"]);
    assert_code(&output, 0);
    assert!(text(&output.stdout).contains("nice.yaml: ok (4 sites, 2 links)"));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn every_problem_of_every_file_is_named_with_its_place() {
    let nice = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../topologies/nice.yaml")).unwrap();
    let bad = nice.replace("delay: 400 ps", "delay: 400 dB").replace("fidelity: tags", "fidelity: tgas");
    let (_directory, file) = temporary("bad.yaml", bad.as_bytes());
    let output = qkdnet(&["validate", "absent.yaml", &file, "nice.yaml"]);
    assert_code(&output, 2);
    let errors = text(&output.stderr);
    assert!(errors.contains("error: cannot read absent.yaml"), "{errors}");
    for (problem, line) in [("\"400 dB\" has the unit", "delay: 400 dB"), ("found \"tgas\"", "fidelity: tgas")] {
        let line = bad.lines().position(|text| text.contains(line)).unwrap() + 1;
        let told: Vec<&str> = errors.lines().filter(|said| said.contains(problem)).collect();
        assert!(matches!(told[..], [one] if one.contains(&format!("bad.yaml:{line}:"))), "{errors}");
    }
    // Both are of definitions, and the places that use them are said.
    assert!(errors.matches("used: ").count() >= 2, "{errors}");
    assert!(errors.contains("hint: "), "{errors}");
    assert!(text(&output.stdout).contains("nice.yaml: ok"));
}

#[test]
fn what_is_no_topology_ends_with_code_two_and_one_message() {
    for content in [&b""[..], b"\xff\xfe\x00", b"[1, 2]", b"a: &a [*a]", b"kind: Pod"] {
        let (_directory, file) = temporary("bad.yaml", content);
        for command in ["validate", "plan", "up", "verify"] {
            let output = qkdnet(&[command, &file]);
            assert_code(&output, 2);
            let errors = text(&output.stderr);
            assert!(errors.contains("bad.yaml:1") && !errors.contains("panicked"), "{command} {content:?}: {errors}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn a_file_far_too_large_is_refused_quickly() {
    let (_directory, file) = temporary("large.yaml", &vec![b'#'; 100_000_000]);
    let output = qkdnet(&["validate", &file]);
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("large.yaml:1:1: error:"), "{}", text(&output.stderr));
}

#[test]
fn validation_is_json_where_asked() {
    let (_directory, file) = temporary("bad.yaml", b"apiVersion: qkdnet.dev/v1alpha1\nkind: Topology\n");
    let output = qkdnet(&["validate", &file, "--output", "json"]);
    assert_code(&output, 2);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value[0]["diagnostics"][0]["severity"], "error");
}

#[test]
fn the_plan_of_the_shipped_network_prints_the_published_figures() {
    let output = qkdnet(&["plan", "nice.yaml", "--output", "json"]);
    assert_code(&output, 0);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rate = |link: usize| plan["links"][link]["operating"]["skr_asymptotic_bps"].as_f64().unwrap();
    assert!((rate(0) / 7069.0 - 1.0).abs() < 0.05, "{}", rate(0));
    assert!((135.0..227.0).contains(&rate(1)), "{}", rate(1));
    let output = qkdnet(&["plan", "nice.yaml"]);
    assert!(text(&output.stdout).contains("33.50 dB"));
}

#[test]
fn a_topology_is_read_from_standard_input() {
    let topologies = concat!(env!("CARGO_MANIFEST_DIR"), "/../../topologies");
    let nice = std::fs::read_to_string(format!("{topologies}/nice.yaml")).unwrap();
    let run = |command: &str, input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_qkdnet"))
            .args([command, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    };
    // As a shell on Windows pipes it.
    let output = run("validate", &format!("\u{feff}{}", nice.replace('\n', "\r\n")));
    assert_code(&output, 0);
    assert!(text(&output.stdout).contains("<stdin>: ok (4 sites, 2 links)"));
    assert_code(&run("plan", &nice), 0);
    let rendered = text(&run("render", &nice).stdout);
    assert!(rendered.contains("kind: Secret"));
    // A user who applies it learns that nothing outside of the volumes notices that they were put back.
    let head: String = rendered.lines().take_while(|line| line.starts_with('#')).collect();
    assert!(head.contains("nobody keeps ceilings") && head.contains("docs/backup.md"), "{rendered:.600}");
    let output = run("validate", &nice.replace("fidelity: tags", "fidelity: tgas"));
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("<stdin>:"), "{}", text(&output.stderr));
    let output = run("plan", "");
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("<stdin>:1:1: error: the file is empty"), "{}", text(&output.stderr));
}

#[test]
fn an_expanded_topology_needs_no_definitions_and_plans_to_the_same() {
    for file in ["nice.yaml", "nice-50km.yaml"] {
        let output = qkdnet(&["validate", "--expand", file]);
        assert_code(&output, 0);
        let expanded = text(&output.stdout);
        assert!(!expanded.contains("use: ") && !expanded.contains("instruments:"), "{expanded}");
        let (_directory, copy) = temporary("expanded.yaml", expanded.as_bytes());
        let plan = |file: &str| text(&qkdnet(&["plan", file, "--output", "json"]).stdout);
        assert!(plan(&copy).len() > 1000 && plan(&copy) == plan(file), "{}", plan(&copy));
        assert_code(&qkdnet(&["validate", &copy]), 0);
    }
    let output = qkdnet(&["validate", "--expand", "nice.yaml", "nice-50km.yaml"]);
    assert_code(&output, 2);
    assert!(text(&output.stderr).contains("one topology at a time"), "{}", text(&output.stderr));
}

#[test]
fn the_plan_predicts_no_key_where_every_block_aborts() {
    let nice =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../topologies/nice-50km.yaml")).unwrap();
    let hopeless = nice.replacen("visibility: 99.1 %", "visibility: 40 %", 1);
    for text_of in [hopeless, nice.replacen("toleratedQber: 8 %", "toleratedQber: 1 %", 1)] {
        assert_ne!(text_of, nice);
        let (_directory, file) = temporary("hopeless.yaml", text_of.as_bytes());
        let output = qkdnet(&["plan", &file, "--output", "json"]);
        assert_code(&output, 0);
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (link, point) = (&plan["links"][0], &plan["links"][0]["operating"]);
        assert!(point["qber_x"].as_f64() > link["tolerated_qber"].as_f64(), "{link}");
        for rate in ["skr_bps", "skr_asymptotic_bps", "skr_finite_bps"] {
            assert_eq!(point[rate], 0.0, "{rate}");
        }
        assert!(link["notes"].to_string().contains("every block will abort"), "{link}");
        let shown = text(&qkdnet(&["plan", &file]).stdout);
        assert!(shown.contains("key 0.00 bit/s asymptotic, 0.00 bit/s finite"), "{shown}");
    }
}

#[test]
fn schema_and_completions_are_complete() {
    let output = qkdnet(&["schema"]);
    assert_code(&output, 0);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["spec"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        let output = qkdnet(&["completions", shell]);
        assert_code(&output, 0);
        assert!(text(&output.stdout).contains("validate"));
    }
}

fn write(data: &Path, site: &str, keys: &[Bits]) {
    let mut store = BlockStore::open(path(data, site, "link")).unwrap();
    let ledger = serde_json::to_string(&BlockLedger::default()).unwrap();
    for (number, key) in keys.iter().enumerate() {
        let block = NewBlock { number: number as u64, session: 1, key, ledger: &ledger, trace_id: "" };
        store.store(&block).unwrap();
    }
}

#[test]
fn digests_of_both_ends_agree_and_show_no_key() {
    let data = tempfile::tempdir().unwrap();
    let keys = [Bits::from_words(vec![0x0123_4567_89ab_cdef], 61), Bits::from_words(vec![u64::MAX, 5], 70)];
    write(data.path(), "valrose", &keys);
    write(data.path(), "sophia", &keys);
    let output = qkdnet(&["digest", "--data", data.path().to_str().unwrap()]);
    assert_code(&output, 0);
    let lines: Vec<Vec<String>> =
        text(&output.stdout).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    assert_eq!((lines.len(), lines[0][2].as_str()), (2, "131"));
    assert_eq!(lines[0][3], lines[1][3]);
    assert!(!text(&output.stdout).contains("efcdab"));
}

#[test]
fn a_damaged_block_file_is_named_with_the_byte() {
    let data = tempfile::tempdir().unwrap();
    write(data.path(), "valrose", &[Bits::zeros(1000), Bits::zeros(1000)]);
    let file = path(data.path(), "valrose", "link");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let data = data.path().to_str().unwrap();
    for command in ["digest", "ledger"] {
        let output = qkdnet(&[command, "--data", data]);
        assert_code(&output, 1);
        let errors = text(&output.stderr);
        assert!(errors.contains("is damaged at byte 8") && errors.contains("hint: restore"), "{errors}");
    }
}

#[test]
fn commands_on_an_empty_directory_say_what_to_give() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    for arguments in [&["digest", "--data", data][..], &["ledger", "--data", data], &["trace", "7", "--data", data]] {
        let output = qkdnet(arguments);
        assert_code(&output, 2);
        assert!(text(&output.stderr).starts_with("error: "), "{}", text(&output.stderr));
    }
    assert_code(&qkdnet(&["trace", "seven", "--data", data]), 2);
    assert_code(&qkdnet(&["frobnicate"]), 2);
}
