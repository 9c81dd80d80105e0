//! What editors, shells and programs write is read, and means what the same document means that a person wrote.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use topology::document::Spec;
use topology::parse;

const GOOD: &str = include_str!("minimal.yaml");

fn spec(text: &[u8]) -> Spec {
    let document = parse("net.yaml", text).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(document.warnings.is_empty(), "{}", document.warnings);
    document.topology.spec
}

fn good() -> Spec {
    spec(GOOD.as_bytes())
}

fn good_json() -> Value {
    serde_yaml::from_str(GOOD).unwrap()
}

#[track_caller]
fn same(text: impl AsRef<[u8]>) {
    assert_eq!(spec(text.as_ref()), good(), "{}", String::from_utf8_lossy(text.as_ref()));
}

/// The place of the only problem.
#[track_caller]
fn place(text: impl AsRef<[u8]>) -> (usize, usize, String) {
    let problems = parse("net.yaml", text.as_ref()).expect_err("accepted").diagnostics;
    let [only] = problems.as_slice() else { panic!("{problems:?}") };
    (only.position.line, only.position.column, only.message.clone())
}

#[test]
fn editors_on_windows() {
    let crlf = GOOD.replace('\n', "\r\n");
    same(&crlf);
    same(format!("\u{feff}{GOOD}"));
    same(format!("\u{feff}{crlf}"));
    let le: Vec<u8> = format!("\u{feff}{crlf}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let be: Vec<u8> = format!("\u{feff}{crlf}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    same(&le);
    same(&be);
    // Places are the same in all of them.
    let wrong = crlf.replace("length: 12 km", "length: 12 kg");
    let (line, column, _) = place(GOOD.replace("length: 12 km", "length: 12 kg"));
    for text in [wrong.clone().into_bytes(), format!("\u{feff}{wrong}").into_bytes()] {
        assert_eq!((place(&text).0, place(&text).1), (line, column));
    }
    let wide: Vec<u8> = wrong.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!((place(&wide).0, place(&wide).1), (line, column));
}

#[test]
fn pipelines_that_separate_documents() {
    for (before, behind) in [
        ("---\n", ""),
        ("", "---\n"),
        ("", "---"),
        ("---\n", "---\n"),
        ("---\n", "...\n"),
        ("---\n---\n", "---\n---\n"),
        ("# Source: chart/templates/topology.yaml\n---\n", "---\n# the end\n"),
        ("\n\n", "\n\n# the end"),
        ("%YAML 1.2\n---\n", "...\n"),
        ("--- # first\n", "\n  # indented, and without a line break"),
    ] {
        same(format!("{before}{GOOD}{behind}"));
    }
    same(GOOD.trim_end());
    let (line, column, message) = place(format!("{GOOD}---\nkind: Secret\n---\n"));
    assert_eq!((line, column, message.as_str()), (21, 1, "a second YAML document starts here"));
    assert_eq!(place("---\n---\n# nothing\n").2, "the file is empty");
}

#[test]
fn json_in_every_layout() {
    let value = good_json();
    same(value.to_string());
    same(serde_json::to_string_pretty(&value).unwrap());
    let mut tabs = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut tabs, layout)).unwrap();
    same(&tabs);
    same(format!("\u{feff}{}\r\n", String::from_utf8(tabs).unwrap().replace('\n', "\r\n")));
    let mut escaped = value;
    escaped["metadata"]["annotations"] = json!({"note": "x"});
    same(escaped.to_string().replace("\"x\"", r#""a\/b \u00b5 \ud83d\ude00 \t""#));
}

/// `kubectl get topology pair --output yaml`.
#[test]
fn what_kubectl_exports() {
    let mut object = good_json();
    object["metadata"] = json!({
        "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": format!("{}\n", good_json()).repeat(9),
            "empty": "",
        },
        "creationTimestamp": "2026-11-29T21:03:44Z",
        "finalizers": ["qkdnet.dev/volumes"],
        "generation": 3,
        "labels": {"app.kubernetes.io/part-of": "lab"},
        "managedFields": [{
            "apiVersion": "qkdnet.dev/v1alpha1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:annotations": {".": {}}}, "f:spec": {".": {}, "f:links": {}}},
            "manager": "kubectl-client-side-apply",
            "operation": "Update",
            "time": "2026-11-29T21:03:44Z",
        }],
        "name": "pair",
        "namespace": "default",
        "ownerReferences": [],
        "resourceVersion": "71203",
        "selfLink": "/apis/qkdnet.dev/v1alpha1/namespaces/default/topologies/pair",
        "uid": "6f1c2c0e-5d6f-4d6c-8f0e-0d0f5b8a8c11",
    });
    object["status"] = json!({
        "conditions": [{"type": "KeyFlowing", "status": "True", "lastTransitionTime": "2026-11-29T21:05:01Z"}],
        "links": [{"name": "west-east", "state": "locked", "skr": "7.1 kbit/s"}],
        "observedGeneration": 3,
    });
    same(object.to_string());
    same(serde_yaml::to_string(&object).unwrap());
}

/// `yaml.dump` sorts keys, quotes as it sees fit, repeats equal blocks by anchors and writes `null` for `None`.
#[test]
fn what_pyyaml_dumps() {
    same(
        r#"apiVersion: "qkdnet.dev/v1alpha1"
'kind': 'Topology'
metadata:
  annotations: null
  labels:
  name: pair
  namespace: ~
spec:
  faults: null
  links:
  - arms:
    - detector: &id001
        efficiency: 80 %
        jitter: 50 ps
        type: snspd
      fibre:
        length: 10 km
        deviceLoss: null
        provenance: null
      site: west
    - detector: *id001
      fibre: {length: "12 \
          km"}
      site: east
    name: west-east
    protocol: bbm92-energy-time
    reference: null
    round: !!null
    security: null
    source: {pairRate: 1.0e+8
        /s, site: middle, type: spdc-cw}
    window: !!str 120 ps
  run: null
  sites:
  - location: null
    name: middle
    saes: null
  - name: west
    saes:
    - bank
  - {name: east, saes: []}
"#,
    );
}

/// PyYAML reads `1e-10` as a text and hands it on as one; with `default_style` it says of numbers what they are.
#[test]
fn numbers_that_programs_wrote_in_quotes() {
    let with = |security: &str| GOOD.replace("window: 120 ps", &format!("window: 120 ps\n      security: {security}"));
    let plain = spec(with("{epsilonSecrecy: 1e-12, epsilonCorrectness: 1e-14}").as_bytes());
    for written in [
        r#"{"epsilonSecrecy": "1e-12", "epsilonCorrectness": "1e-14"}"#,
        r#"{"epsilonSecrecy": !!float "1e-12", "epsilonCorrectness": !!float "0.00000000000001"}"#,
    ] {
        assert_eq!(spec(with(written).as_bytes()), plain, "{written}");
    }
    assert_eq!(place(with("{epsilonSecrecy: \"1e-12 \"}")).2, "found \"1e-12 \"");
    assert_eq!(place(with("{epsilonSecrecy: \"5\"}")).2, "the value 5 is out of range");
    same(GOOD.replace("spec:\n", "spec:\n  run: {latency: !!int \"8\"}\n"));
}

#[test]
fn merge_keys_take_the_fields_of_other_blocks() {
    let text = GOOD.replace(
        "          fibre: {length: 10 km}\n          detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}\n",
        "          fibre: &fibre {length: 10 km, groupIndex: 1.468}\n          detector: &detector\n            <<: [{jitter: 50 ps}, {type: other, efficiency: 80 %, jitter: 99 ps}]\n            type: snspd\n",
    );
    let text = text.replace(
        "          fibre: {length: 12 km}\n          detector: {type: snspd, efficiency: 80 %, jitter: 50 ps}\n",
        "          fibre: {length: 12 km, <<: *fibre}\n          detector:\n            <<: *detector\n",
    );
    assert!(text.matches("<<").count() == 3);
    same(&text);
    // What is wrong in a block that is merged is told where it stands.
    let (line, column, message) = place(text.replace("jitter: 50 ps", "jitter: 50 km"));
    let expected = text.lines().position(|line| line.contains("jitter: 50 ps")).unwrap();
    assert_eq!((line, message.as_str()), (expected + 1, "\"50 km\" has the unit \"km\", which is a length"));
    assert_eq!(column, text.lines().nth(expected).unwrap().find("50 ps").unwrap() + 1);
}

#[test]
fn a_tab_is_told_where_it_stands() {
    for (line, column, text) in [
        (20, 1, GOOD.replace("      window", "\twindow")),
        (5, 1, GOOD.replace("  sites:", "\tsites:")),
        (15, 9, GOOD.replacen("          fibre", "        \t  fibre", 1)),
    ] {
        let problems = parse("net.yaml", text.as_bytes()).expect_err("accepted");
        let [only] = problems.diagnostics.as_slice() else { panic!("{problems}") };
        assert_eq!((only.position.line, only.position.column), (line, column), "{problems}");
        assert_eq!(only.hint.as_deref(), Some("replace the tab by blanks"));
    }
    // Between values and before comments a tab is a blank.
    same(GOOD.replace("window: 120 ps", "window:\t120 ps\t# a comment"));
}

#[test]
fn merging_does_not_multiply_a_small_file() {
    let mut text = "a0: &a0 {x: 1}\n".to_owned();
    for level in 1..40 {
        let below: Vec<String> = (0..level).map(|other| format!("*a{other}")).collect();
        text +=
            &format!("a{level}: &a{level} {{f{level}: 1, <<: [{}], g: [{}]}}\n", below.join(", "), below.join(", "));
    }
    let started = std::time::Instant::now();
    assert!(parse("net.yaml", text.as_bytes()).is_err());
    assert!(started.elapsed().as_secs() < 5);
}
